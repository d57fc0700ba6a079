"""A training step on a CPU: freed arrays kept for the next step against arrays mapped anew, as glibc does by itself.

    python benchmarks/training_memory.py [--method pfcc] [--side 192] [--images 30]

Both ways run in turn in one process, on the same random batch; the table states the median of the paired ratios.
"""

import argparse
import resource
import statistics
import time
from contextlib import nullcontext

import torch
from record import record

from coseglib.models import build_model
from coseglib.training.memory import kept_memory


def stepper(method: str, images: torch.Tensor, targets: torch.Tensor, classes: torch.Tensor):
    """A function that does one training step of a method's workbook variant on MobileNetV2."""
    torch.manual_seed(0)
    model = build_model(method, "mobilenet_v2", "workbook", images.shape[-1], weights=None)
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        sum(model.loss(model(images), targets, classes, 0.5).values()).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="pfcc", choices=("pfcc", "dcnet", "ca", "csa"))
    parser.add_argument("--side", type=int, default=192, help="pixels")
    parser.add_argument("--images", type=int, default=30, help="a step; a multiple of 2")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    images = torch.rand(given.images // 2, 2, 3, given.side, given.side)
    targets = torch.randint(0, 2, (given.images // 2, 2, given.side, given.side), dtype=torch.uint8)
    step = stepper(given.method, images, targets, torch.zeros(given.images // 2, dtype=torch.long))
    ways = {"mapped anew": nullcontext, "kept": kept_memory}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    faults: dict[str, list[int]] = {way: [] for way in ways}
    for turn in range(given.rounds + 1):
        for way, manner in ways.items():
            with manner():
                step()  # whatever the other way left
                before, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
                step()
                if turn:  # the first round warms up
                    seconds[way].append(time.perf_counter() - started)
                    faults[way].append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    rows = [
        {
            "freed arrays": way,
            "images/s": round(given.images / statistics.median(seconds[way]), 1),
            "pages cleared a step": int(statistics.median(faults[way])),
        }
        for way in ways
    ]
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    text = f"Median of the ratios, turn by turn: {ratio:.2f}. {given.method}, workbook variant, mobilenet_v2, "
    text += f"{given.images} images of {given.side}² a step, fp32, all layers learning."
    record("Training step: freed arrays kept against mapped anew", "benchmarks/training_memory.py", rows, text)


if __name__ == "__main__":
    main()
