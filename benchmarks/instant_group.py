"""Instant group co-segmentation as a stream: time and memory against the number of images, and against all pairs.

    python benchmarks/instant_group.py [--images 100 1000 10000] [--pairs 12 25 50 100] [--side 64]

Every number of images has a process of its own, so that its peak memory is its own. The images are noise, made from
their place in the group when they are asked for. The alternative matches all pairs: features and attention once an
image, each image decoded with every other image's attention, the probabilities averaged.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from record import record

from coseglib.answering.answers import BATCH
from coseglib.answering.masks import masks_from_logits, segment_group
from coseglib.answering.reading import resize_to_input
from coseglib.models import build_model

TURNS = 3  # all numbers of images in turn, so often: a machine's speed drifts over minutes
LONG_ENOUGH = 10  # seconds that a measurement takes at least, in as many rounds as that needs


class Noise(Sequence):
    """A group of `count` images uint8 (3, side, side) that is stored nowhere."""

    def __init__(self, count: int, side: int):
        self.count, self.side = count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> torch.Tensor:
        if not 0 <= i < self.count:
            raise IndexError(i)
        return torch.from_numpy(np.random.default_rng(i).integers(0, 256, (3, self.side, self.side), dtype=np.uint8))


def stream(model, images: Noise) -> int:
    """Algorithm 1: two passes. Returns the number of foreground pixels, so that every mask is made and let go."""
    return sum(int(mask.sum()) for mask in segment_group(model, images))


@torch.no_grad()
def all_pairs(model, images: Noise) -> int:
    """Every image with every other one: quadratic."""
    features, alphas = [], []
    for image in images:
        maps = model.encode(resize_to_input(image, model.input_size)[None])
        features.append(maps)
        alphas.append(model.attention(maps))
    foreground = 0
    for i, maps in enumerate(features):
        partners = torch.cat([a for j, a in enumerate(alphas) if j != i])
        probability = 0
        for some in partners.split(BATCH):
            repeated = [f.expand(len(some), -1, -1, -1) for f in maps]
            probability = probability + model.answer(repeated, some).softmax(1).sum(0)
        foreground += int(masks_from_logits(probability, (images.side, images.side)).sum())
    return foreground


WAYS = {"stream": stream, "all pairs": all_pairs}


def measure(way: str, count: int, side: int, backbone: str) -> dict:
    """In this process: seconds of a run by the clock and of the processor (medians of rounds), peak memory in MB."""
    torch.manual_seed(0)
    model = build_model("ca", backbone, "workbook", side, weights=None).eval()
    run = WAYS[way]
    run(model, Noise(2 * BATCH, side))  # warms up
    rounds, began = [], time.perf_counter()
    while not rounds or time.perf_counter() - began < LONG_ENOUGH:
        started = time.perf_counter(), time.process_time()
        run(model, Noise(count, side))
        rounds.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    seconds, processor = (statistics.median(column) for column in zip(*rounds, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    peak *= 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "processor": processor, "peak": peak / 1e6}


def exponent(counts: list[int], seconds: list[float]) -> float:
    """e of seconds = c · counts^e, least squares in logarithms."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10000], help="streamed; two or more")
    parser.add_argument("--pairs", type=int, nargs="+", default=[12, 25, 50, 100], help="all pairs; two or more")
    parser.add_argument("--side", type=int, default=64, help="of the images and of the network's input, pixels")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], int(given.measure[1]), given.side, given.backbone)))
        return
    rows, found, measured = [], {}, {}
    command = [sys.executable, __file__, "--side", str(given.side), "--backbone", given.backbone, "--measure"]
    cases = [("stream", n) for n in given.images] + [("all pairs", n) for n in given.pairs]
    for way, count in cases * TURNS:
        done = subprocess.run([*command, way, str(count)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        one = json.loads(done.stdout)
        print(way, count, one, file=sys.stderr, flush=True)
        measured.setdefault((way, count), []).append(one)
    for way, counts in {"stream": given.images, "all pairs": given.pairs}.items():
        for count in counts:
            turns = measured[way, count]
            one = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
            found.setdefault(way, []).append((count, one["seconds"], one["processor"], one["peak"]))
            rows.append(
                {
                    "way": way,
                    "images": f"{count:,}",
                    "seconds": f"{one['seconds']:.2f}",
                    "processor seconds": f"{one['processor']:.2f}",
                    "ms an image": f"{one['seconds'] / count * 1e3:.2f}",
                    "peak memory (MB)": f"{one['peak']:.0f}",
                }
            )
    counts, seconds, processor, peaks = zip(*found["stream"], strict=True)
    pair_counts, _, pair_processor, _ = zip(*found["all pairs"], strict=True)
    linear, spread = exponent(counts, processor), (max(peaks) - min(peaks)) / min(peaks)
    met = {True: "met", False: "missed"}
    text = (
        f"The stream's processor seconds grow with images^{linear:.3f} (goal: at most 1.05, {met[linear <= 1.05]}; by "
        f"the clock, which other programs disturb, {exponent(counts, seconds):.3f}). Its peak memory differs by "
        f"{100 * spread:.1f} % between {counts[0]:,} and {counts[-1]:,} images (goal: within 5 %, "
        f"{met[spread <= 0.05]}). All pairs grow with images^{exponent(pair_counts, pair_processor):.2f}"
    )
    for count in sorted(set(counts) & set(pair_counts))[-1:]:
        ratio = pair_processor[pair_counts.index(count)] / processor[counts.index(count)]
        text += f"; for {count:,} images they take {ratio:.1f} times as long as the stream"
    text += f". CA, workbook variant, {given.backbone}, random weights, {given.side}² images, both passes "
    text += f"counted; medians of {TURNS} turns."
    record("Instant group co-segmentation: the stream against all pairs", "benchmarks/instant_group.py", rows, text)


if __name__ == "__main__":
    main()
