"""Depth-wise correlation: one grouped convolution for the whole batch against a Python loop over its images.

    python benchmarks/depthwise_correlation.py [--images 8] [--channels 256] [--side 32] [--kernels 11 15 19]

All ways run in turn in one process on the same random maps; the table states medians over the rounds, and medians of
the rounds' ratios to the first way. A way's gradients are those to the maps and to the kernels.
"""

import argparse
import statistics
import time

import torch
from record import record
from torch import Tensor
from torch.nn import functional as F

from coseglib.layers.depthwise_correlation import depthwise_correlation, merge_kernels, normalise_channels


def batch(base: Tensor, kernels: Tensor) -> Tensor:
    """What the models call."""
    return depthwise_correlation(base, kernels)


def loop(base: Tensor, kernels: Tensor) -> Tensor:
    """Image by image, with torch's own gradients: the plain way."""
    pad, c = kernels.shape[-1] // 2, base.shape[1]
    return torch.cat([F.conv2d(f[None], k[:, None], padding=pad, groups=c) for f, k in zip(base, kernels, strict=True)])


def loop_same(base: Tensor, kernels: Tensor) -> Tensor:
    """Image by image, each as the models would: what batching alone saves."""
    return torch.cat([depthwise_correlation(f[None], k[None]) for f, k in zip(base, kernels, strict=True)])


def batch_plain(base: Tensor, kernels: Tensor) -> Tensor:
    """The whole batch at once, with torch's own gradients."""
    b, c, h, w = base.shape
    k = kernels.shape[-1]
    maps = base.reshape(1, b * c, h, w).contiguous(memory_format=torch.channels_last)
    return F.conv2d(maps, kernels.reshape(b * c, 1, k, k), padding=k // 2, groups=b * c).reshape(base.shape)


WAYS = {
    "one convolution": batch,
    "loop over images": loop,
    "loop over images, our function": loop_same,
    "one convolution, torch's gradients": batch_plain,
}


def measure(function, tensors: list[Tensor]) -> tuple[float, float]:
    """Seconds of a call without gradients, and of a call with all gradients."""
    started = time.perf_counter()
    with torch.no_grad():
        function(*tensors)
    forward = time.perf_counter() - started
    given = [t.detach().requires_grad_() for t in tensors]
    started = time.perf_counter()
    function(*given).square().sum().backward()
    return forward, time.perf_counter() - started


def compare(ways: dict, tensors: list[Tensor], rounds: int) -> list[dict]:
    """A row a way: milliseconds, and how many times the first way's they are."""
    seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, function in ways.items():
            once = measure(function, tensors)
            if turn:  # the first round warms up
                seconds[name].append(once)
    first = next(iter(seconds.values()))
    rows = []
    for name, times in seconds.items():
        row = {"way": name}
        for i, what in enumerate(("forward", "forward and backward")):
            row[f"{what} (ms)"] = round(1e3 * statistics.median(t[i] for t in times), 1)
            row[f"{what}, ratio"] = round(statistics.median(t[i] / f[i] for t, f in zip(times, first, strict=True)), 2)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--side", type=int, default=32, help="of the maps; 512² images have 32")
    parser.add_argument("--kernels", type=int, nargs="+", default=[11, 15, 19], help="odd")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    base = torch.randn(given.images, given.channels, given.side, given.side)
    kernels = [normalise_channels(torch.randn(given.images, given.channels, k, k)) for k in given.kernels]
    rows = []
    for k, own in zip(given.kernels, kernels, strict=True):
        rows += [{"kernels": str(k), **row} for row in compare(WAYS, [base, own], given.rounds)]

    def merged(base: Tensor, *kernels: Tensor) -> Tensor:
        return depthwise_correlation(base, merge_kernels(kernels))

    def one_by_one(base: Tensor, *kernels: Tensor) -> Tensor:
        return sum(depthwise_correlation(base, k) for k in kernels) / len(kernels)

    together = compare({"merged kernel": merged, "one after the other": one_by_one}, [base, *kernels], given.rounds)
    rows += [{"kernels": ", ".join(map(str, given.kernels)), **row} for row in together]
    loops = [row["forward and backward, ratio"] for row in rows if row["way"] == "loop over images"]
    text = (
        f"{given.images} images of {given.channels} maps, {given.side}² each, float32, on the CPU. With gradients the "
        f"loop over images takes {min(loops):.2f} to {max(loops):.2f} times as long as one convolution for all."
    )
    record(
        "Depth-wise correlation: one convolution for a batch against a loop over images",
        "benchmarks/depthwise_correlation.py",
        rows,
        text,
    )


if __name__ == "__main__":
    main()
