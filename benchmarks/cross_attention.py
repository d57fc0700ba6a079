"""Spatial-cross attention against full non-local attention, and against rows and columns concatenated.

    python benchmarks/cross_attention.py [--sides 28 56 112] [--channels 512] [--images 2] [--limit 8]

Forward and backward pass on random maps with the channels of ResNet-50's stride 8 (contents 256, indices 64) for two
images that ask each other. Times: all ways in turn in one process, medians. Memory: every block that torch's allocator
gives and takes back while one pass runs, added up: exact, whatever else the process holds. `kept` is what lies between
the forward and the backward pass, for as long as the rest of a network takes; inputs are not counted, gradients are.
"""

import argparse
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when torch is imported

import torch
from instant_group import exponent
from record import record
from torch import Tensor
from torch.nn import functional as F

from coseglib.layers.cross_attention import nonlocal_attention, spatial_cross_attention

CROSS, TWICE, CONCATENATED = "cross", "cross, two loops", "cross, concatenated"
NONLOCAL, FUSED = "non-local", "non-local, fused kernel"
GOAL = 1.6  # exponent in M of the cross' peak memory


def concatenated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The usual way in plain PyTorch: −inf where a column meets its row, one softmax over both halves side by side."""
    b, _, h, w = q.shape

    def rows(x: Tensor) -> Tensor:
        return x.permute(0, 2, 1, 3).reshape(b * h, -1, w)

    def columns(x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2).reshape(b * w, -1, h)

    vertical = torch.bmm(columns(q).transpose(1, 2), columns(k)) + torch.diag(torch.full((h,), -math.inf))
    horizontal = torch.bmm(rows(q).transpose(1, 2), rows(k))
    both = torch.cat([vertical.view(b, w, h, h).permute(0, 2, 1, 3), horizontal.view(b, h, w, w)], dim=3).softmax(dim=3)
    vertical, horizontal = both[..., :h].permute(0, 2, 1, 3).reshape(b * w, h, h), both[..., h:].reshape(b * h, w, w)
    above = torch.bmm(columns(v), vertical.transpose(1, 2)).view(b, w, -1, h).permute(0, 2, 3, 1)
    beside = torch.bmm(rows(v), horizontal.transpose(1, 2)).view(b, h, -1, w).permute(0, 2, 1, 3)
    return above + beside


def two_loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What reaches every position, as non-local attention does. The second index is a slice: its layer is not timed."""
    h = spatial_cross_attention(q, k, v)
    return spatial_cross_attention(q, h[:, : q.shape[1]], h)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Non-local attention without M × M in memory: torch's own kernel, whose indices must be as wide as contents."""
    flat = [x.permute(0, 2, 3, 1).flatten(1, 2)[:, None].contiguous() for x in (q, k, v)]
    q, k = (F.pad(x, (0, flat[2].shape[-1] - x.shape[-1])) for x in flat[:2])
    h = F.scaled_dot_product_attention(q, k, flat[2], scale=1.0)
    return h[:, 0].unflatten(1, v.shape[-2:]).permute(0, 3, 1, 2)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    CROSS: spatial_cross_attention,
    TWICE: two_loops,
    CONCATENATED: concatenated,
    NONLOCAL: nonlocal_attention,
    FUSED: fused,
}


def allocated(run: Callable[[], object]) -> tuple[int, int]:
    """Bytes of torch's CPU allocator: the most that there were at once while `run` ran, and those left at its end.

    What `run` returns is alive at its end. What was there before does not count, nor does its being freed.
    """
    gc.collect()
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        kept = run()
    del kept
    events = (e for e in profiler.kineto_results.events() if e.name() == "[memory]")
    now = most = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events):
        now += size
        most = max(most, now)
    return most, now


class Case:
    """Maps of `side` × `side` for `images` images, as a network in channels-last format makes them."""

    def __init__(self, side: int, channels: int, images: int):
        generator = torch.Generator().manual_seed(side)

        def draw(c: int) -> Tensor:
            x = torch.randn(images, c, side, side, generator=generator)
            return x.contiguous(memory_format=torch.channels_last)

        index, content = channels // 8, channels // 2
        self.maps = [draw(index).div_(index**0.25).requires_grad_() for _ in range(2)] + [
            draw(content).requires_grad_()
        ]
        self.gradient = draw(content)

    def forward(self, way: str) -> Tensor:
        for x in self.maps:
            x.grad = None
        return WAYS[way](*self.maps)

    def both(self, way: str) -> Tensor:
        out = self.forward(way)
        out.backward(self.gradient)
        return out

    def results(self, way: str) -> list[Tensor]:
        return [self.both(way).detach(), *(x.grad for x in self.maps)]

    def seconds(self, way: str) -> float:
        started = time.perf_counter()
        self.both(way)
        return time.perf_counter() - started


def fits(way: str, side: int, images: int, limit: float) -> bool:
    """Whether a way's matrices are within `limit` GB: plain non-local attention holds four M × M going backward."""
    return way != NONLOCAL or 4 * 4 * images * side**4 / 1e9 <= limit


def measure(side: int, channels: int, images: int, limit: float, rounds: int) -> dict[str, dict]:
    """{way: {"seconds", "peak", "kept"}}, the last two in bytes; ways that do not fit in `limit` GB are left out.

    Raises ValueError where the two ways to compute the cross do not agree.
    """
    case = Case(side, channels, images)
    for a, b in zip(case.results(CROSS), case.results(CONCATENATED), strict=True):
        if not torch.allclose(a, b, 1e-4, 1e-4):
            raise ValueError(f"side {side}: the two ways differ by {float((a - b).abs().max()):.1e}")
    ways = [way for way in WAYS if fits(way, side, images, limit)]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way in ways:
            spent = case.seconds(way)
            if turn:  # the first round warms up
                seconds[way].append(spent)
    found = {}
    for way in ways:
        case.forward(CROSS)  # no gradients of earlier passes: their blocks would be freed while we count
        peak, _ = allocated(lambda way=way: case.both(way))
        case.forward(CROSS)
        _, kept = allocated(lambda way=way: case.forward(way))
        found[way] = {"seconds": statistics.median(seconds[way]), "peak": peak, "kept": kept}
        print(side, way, found[way], file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[28, 56, 112], help="of the maps; two or more")
    parser.add_argument("--channels", type=int, default=512, help="C of the backbone's map")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--limit", type=float, default=8, help="GB that non-local attention may take")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    found = {
        side: measure(side, given.channels, given.images, given.limit, given.rounds) for side in sorted(given.sides)
    }
    rows = []
    for side, ways in found.items():
        for way in WAYS:
            one = {"way": way, "map": f"{side} × {side}"}
            if way not in ways:
                rows.append({**one, "ms": "left out", "peak (MB)": "", "kept (MB)": "", "peak, of cross": ""})
                continue
            one |= {"ms": f"{1e3 * ways[way]['seconds']:,.1f}", "peak (MB)": f"{ways[way]['peak'] / 1e6:,.1f}"}
            one |= {"kept (MB)": f"{ways[way]['kept'] / 1e6:,.1f}"}
            rows.append({**one, "peak, of cross": f"{ways[way]['peak'] / ways[CROSS]['peak']:.2f} ×"})

    def growth(way: str, what: str) -> float:
        sides = [side for side in found if way in found[side]]
        if len(sides) < 2:
            return math.nan
        return exponent([side**2 for side in sides], [found[side][way][what] for side in sides])

    def ratios(way: str, what: str, over: str) -> str:
        values = [ways[way][what] / ways[over][what] for ways in found.values() if way in ways]
        return ", ".join(f"{v:.2f}" for v in values)

    memory = growth(CROSS, "peak")
    text = (
        f"Peak memory grows with M^{memory:.2f} for the cross (goal: at most {GOAL}, "
        f"{'met' if memory <= GOAL else 'missed'}), M^{growth(CONCATENATED, 'peak'):.2f} concatenated, "
        f"M^{growth(NONLOCAL, 'peak'):.2f} non-local, M^{growth(FUSED, 'peak'):.2f} with the fused kernel; time with "
        f"M^{growth(CROSS, 'seconds'):.2f}, M^{growth(CONCATENATED, 'seconds'):.2f}, "
        f"M^{growth(NONLOCAL, 'seconds'):.2f} and M^{growth(FUSED, 'seconds'):.2f}. Against the cross, map by map, "
        f"concatenation takes {ratios(CONCATENATED, 'seconds', CROSS)} × the time, "
        f"{ratios(CONCATENATED, 'peak', CROSS)} × the peak and {ratios(CONCATENATED, 'kept', CROSS)} × what is kept; "
        f"non-local attention, against the two loops that reach as far, {ratios(NONLOCAL, 'seconds', TWICE)} × the "
        f"time and {ratios(NONLOCAL, 'peak', TWICE)} × the peak."
    )
    for side, ways in found.items():
        if NONLOCAL not in ways:
            size = 4 * given.images * side**4 / 1e9
            text += (
                f" Left out at {side} × {side}: non-local, each of whose M × M matrices takes {size:.2f} GB "
                f"(four are held; limit {given.limit:g} GB)."
            )
    text += f" {given.images} images, C = {given.channels}, float32, channels-last; medians of {given.rounds} turns."
    record("Spatial-cross attention against non-local and concatenated", "benchmarks/cross_attention.py", rows, text)


if __name__ == "__main__":
    main()
