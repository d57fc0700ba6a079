"""Multi-class co-segmentation: what self- and mutual attention cost in time, and blocked against plain MA in memory.

    python benchmarks/multiclass_attention.py [--backbone vgg16] [--side 384] [--batch 3] [--maps 12 24 48 64]

Time: inference of one mini-batch by the generator without attention, with SA, MA and both, in turn in one process; the
thesis reports 18.1 % (two classes) and 13.2 % (three) for both on a GTX 1080 Ti. Memory: forward and backward pass of
the column sums of mutual attention, blocked and in plain PyTorch, a process of its own for every size.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from record import record

from coseglib.evaluation.multiclass_tables import ABLATIONS
from coseglib.layers.mutual_attention import BLOCK, matched
from coseglib.models.backbones import build_backbone
from coseglib.models.multiclass import MultiClass

REPORTED = {2: "18.1", 3: "13.2"}  # %, thesis, section 4.4
CHANNELS = 256  # of queries and keys: half of VGG16's 512


def plain_matched(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """As `matched`, the usual way: all M×M matrices at once, kept for the backward pass."""
    scores = torch.einsum("bjmc,bnlc->bjnml", query, key)
    return scores.softmax(dim=-1).sum(dim=-2)


WAYS = {"blocked": matched, "plain": plain_matched}


def peak() -> float:
    """The largest resident memory of this process so far, MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return size * (1 if sys.platform == "darwin" else 1024) / 1e6


def ballast() -> torch.Tensor:
    """As much memory as this process had and gave back: with it in place whatever is added raises the peak."""
    try:
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:  # no Linux: small amounts go unseen
        resident = peak()
    return torch.ones(max(0, int((peak() - resident) * 1e6)), dtype=torch.uint8)


def measure(way: str, side: int, images: int, channels: int = CHANNELS) -> dict:
    """In this process: seconds of one forward and backward pass, and by how much it raised the peak memory (MB)."""
    generator = torch.Generator().manual_seed(0)

    def inputs(side: int) -> list[torch.Tensor]:
        shape = (1, images, side * side, channels)
        return [torch.randn(shape, generator=generator).div_(channels**0.25).requires_grad_() for _ in range(2)]

    WAYS[way](*inputs(4)).square().sum().backward()  # warms up
    query, key = inputs(side)
    held = ballast()
    before, started = peak(), time.perf_counter()
    WAYS[way](query, key).square().sum().backward()
    seconds, memory = time.perf_counter() - started, peak() - before
    del held
    return {"seconds": seconds, "memory": memory}


def times(backbone: str, side: int, images: int, classes: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds an image of each ablation's generator, in turn; the first round, which warms up, is left out."""
    models = {}
    for name, parts in ABLATIONS.items():
        torch.manual_seed(0)
        model = MultiClass(build_backbone(backbone, None), "paper", side, classes=classes, **parts)
        models[name] = model.eval().to(memory_format=torch.channels_last)
    batch = torch.rand(1, images, 3, side, side)
    found: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, model in models.items():
                started = time.perf_counter()
                model(batch)
                if turn:
                    found[name].append((time.perf_counter() - started) / images * 1e3)
    return found


def overheads(found: dict[str, list[float]]) -> dict[str, float]:
    """Per cent over "w/o ATT": the median of the rounds' ratios."""
    without = found["w/o ATT"]
    return {
        name: 100 * (statistics.median(a / b for a, b in zip(some, without, strict=True)) - 1)
        for name, some in found.items()
    }


def time_rows(given: argparse.Namespace) -> list[dict]:
    rows = []
    for classes in (2, 3):
        found = times(given.backbone, given.side, given.batch, classes, given.rounds)
        over = overheads(found)
        for name, some in found.items():
            rows.append(
                {
                    "classes": classes,
                    "attention": name,
                    "ms an image": f"{statistics.median(some):.1f}",
                    "overhead (%)": f"{over[name]:.1f}",
                    "reported (%)": REPORTED[classes] if name == "SA+MA" else "",
                }
            )
    return rows


def memory_rows(given: argparse.Namespace) -> tuple[list[dict], str]:
    command = [sys.executable, __file__, "--batch", str(given.batch), "--measure"]
    rows, found = [], {}
    for side in given.maps:
        for way in WAYS:
            done = subprocess.run([*command, way, str(side)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found[way, side] = json.loads(done.stdout)
            print(way, side, found[way, side], file=sys.stderr, flush=True)
        blocked, plain = found["blocked", side], found["plain", side]
        rows.append(
            {
                "map": f"{side}²",
                "M": f"{side * side:,}",
                "plain (MB)": f"{plain['memory']:.0f}",
                "blocked (MB)": f"{blocked['memory']:.0f}",
                "plain / blocked": f"{plain['memory'] / max(blocked['memory'], 1e-9):.1f}",
                "plain (s)": f"{plain['seconds']:.2f}",
                "blocked (s)": f"{blocked['seconds']:.2f}",
            }
        )
    large = [side for side in given.maps if side >= 24]  # below, the blocks are whole matrices
    text = f"{given.batch} images, {CHANNELS} channels, blocks of {BLOCK:,} numbers; what one forward and backward pass"
    text += " adds to the process's peak memory."
    if len(large) > 1:
        grown = {
            way: np.polyfit(
                np.log([s * s for s in large]), np.log([max(found[way, s]["memory"], 0.1) for s in large]), 1
            )[0]
            for way in WAYS
        }
        text += f" From {large[0]}² up the plain way's grows with M^{grown['plain']:.2f}, the blocked one's with "
        text += f"M^{grown['blocked']:.2f}."
    return rows, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vgg16", help="of the generator; the paper's is vgg16")
    parser.add_argument("--side", type=int, default=384, help="pixels of the images whose time is taken")
    parser.add_argument("--batch", type=int, default=3, help="images that attend each other")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--maps", type=int, nargs="+", default=[12, 24, 48, 64], help="sides of the maps, positions")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "SIDE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], int(given.measure[1]), given.batch)))
        return
    script = "benchmarks/multiclass_attention.py"
    text = f"Generator on {given.backbone}, random weights, mini-batches of {given.batch} at {given.side}², inference; "
    text += "overhead: the median over the rounds of time with over time without. The thesis took its on a GPU."
    record("Multi-class: what self- and mutual attention cost", script, time_rows(given), text)
    record("Mutual attention: blocked against plain", script, *memory_rows(given))


if __name__ == "__main__":
    main()
