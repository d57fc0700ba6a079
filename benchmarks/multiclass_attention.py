"""Multi-class co-segmentation: what self- and mutual attention cost in time.

    python benchmarks/multiclass_attention.py [--backbone vgg16] [--side 384] [--batch 3]

Inference of one mini-batch by the generator without attention, with SA, MA and both, in turn in one process; the thesis
reports 18.1 % (two classes) and 13.2 % (three) for both on a GTX 1080 Ti.
"""

import argparse
import statistics
import time

import torch
from record import record

from coseglib.evaluation.tables import ABLATIONS
from coseglib.models.backbones import build_backbone
from coseglib.models.multiclass import MultiClass

REPORTED = {2: "18.1", 3: "13.2"}  # %, thesis, section 4.4


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vgg16", help="of the generator; the paper's is vgg16")
    parser.add_argument("--side", type=int, default=384, help="pixels of the images whose time is taken")
    parser.add_argument("--batch", type=int, default=3, help="images that attend each other")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    script = "benchmarks/multiclass_attention.py"
    text = f"Generator on {given.backbone}, random weights, mini-batches of {given.batch} at {given.side}², inference; "
    text += "overhead: the median over the rounds of time with over time without. The thesis took its on a GPU."
    record("Multi-class: what self- and mutual attention cost", script, time_rows(given), text)


if __name__ == "__main__":
    main()
