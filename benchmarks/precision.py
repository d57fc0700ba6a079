"""Training speed: channels-last and bfloat16 autocast against plain fp32, forward, backward and step.

    python benchmarks/precision.py [--backbone mobilenet_v2] [--side 224] [--images 24]

Both ways run in turn in one process, on the same random batch; the table states the median of the paired ratios.
"""

import argparse
import statistics
import time

import torch
from record import record

from coseglib.core.devices import cpu_has_bfloat16
from coseglib.models import build_model
from coseglib.models.losses import segmentation_loss


def stepper(backbone: str, images: torch.Tensor, targets: torch.Tensor, fast: bool):
    """A function that does one training step of CA (workbook variant), plainly or the fast way."""
    torch.manual_seed(0)
    model = build_model("ca", backbone, "workbook", images.shape[-1], weights=None)
    if fast:
        model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            logits = model(images).logits
        loss = segmentation_loss(logits.float(), targets, 0.5)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--images", type=int, default=24, help="a step; a multiple of 4")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    images = torch.rand(given.images // 4, 4, 3, given.side, given.side)
    targets = torch.randint(0, 2, (given.images // 4, 4, given.side, given.side), dtype=torch.uint8)
    steps = {fast: stepper(given.backbone, images, targets, fast) for fast in (False, True)}
    speeds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(given.rounds + 1):
        for fast, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:  # the first round warms up
                speeds[fast].append(given.images / (time.perf_counter() - started))
    ratio = statistics.median(b / a for a, b in zip(speeds[False], speeds[True], strict=True))
    row = {
        "backbone": given.backbone,
        "side (px)": given.side,
        "fp32 (images/s)": round(statistics.median(speeds[False]), 1),
        "channels-last + bfloat16 (images/s)": round(statistics.median(speeds[True]), 1),
        "ratio": round(ratio, 2),
        "bfloat16 in hardware": cpu_has_bfloat16(),
        "threads": torch.get_num_threads(),
    }
    record("Training step: channels-last and bfloat16 against fp32", "benchmarks/precision.py", [row])


if __name__ == "__main__":
    main()
