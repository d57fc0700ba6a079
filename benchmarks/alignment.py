"""What masks that lie where their photographs do are worth in training: the same runs with masks half a pixel off.

    python benchmarks/alignment.py                # half an hour of one core, needs VOC and MSRC
    python benchmarks/alignment.py --steps 20 --seeds 1

Until cache format 2 label maps were resized as torchvision resizes masks, sampled at the pixels' corners: half a pixel
of the result too low and too far to the right, once in the cache and once more after the crop. Here CA learns with such
masks and with those of today, the same photographs, crops and seeds; all are scored with the right ones, on validation
photographs. Rows are kept as they come (`reports/cpu/runs/alignment.csv`), and a run that was killed goes on.
"""

import argparse
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from record import record
from torch.nn import functional as F

from coseglib.core.paths import REPORTS
from coseglib.core.tables import read_table, write_table
from coseglib.data import cache, sampler, unseen_groups, validation_groups
from coseglib.models.checkpoints import load_model
from coseglib.scoring.metrics import aggregate
from coseglib.scoring.rows import evaluate
from coseglib.training import loop
from coseglib.training.configuration import load_profile

KEPT = REPORTS / "cpu" / "runs" / "alignment.csv"
MASKS = ("sampled at corners", "sampled at centres")
PHOTOS = 12  # of a group that are scored


def at_corners(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`resize_labels` as it was: nearest neighbours of the pixels' upper left corners."""
    flat = labels.reshape(-1, 1, *labels.shape[-2:]).to(torch.uint8)
    return F.interpolate(flat, size=tuple(size), mode="nearest").reshape(*labels.shape[:-2], *size)


def trained(masks: str, seed: int, steps: int, home: Path) -> dict[str, float]:
    """J on kinds that train and on kinds that never do, of CA after a short training."""
    fields = {"steps": steps, "input_size": 160, "groups": 6, "seed": seed, "validate_every": 0, "workers": 1}
    config = load_profile("workbook", "ca", fields)
    with ExitStack() as stack:
        if masks == MASKS[0]:
            for module in (cache, sampler):
                stack.enter_context(mock.patch.object(module, "resize_labels", at_corners))
            stack.enter_context(mock.patch.object(loop, "training_set", partial(cache.training_set, folder=home)))
        with tempfile.TemporaryDirectory() as run:
            model = load_model(loop.train(config, Path(run, "ca"), quiet=True), looks=1, post="argmax")
    found = {}
    for name, groups in {"seen": validation_groups(), "unseen": unseen_groups()}.items():
        found[name] = float(aggregate(evaluate(model, groups, limit=PHOTOS), "common").J.iloc[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    numbers = {"steps": int, "seed": int, "seen": float, "unseen": float}
    rows = read_table(KEPT, {"masks": str} | numbers) if KEPT.is_file() else pd.DataFrame()
    with tempfile.TemporaryDirectory() as home:
        for seed in range(given.seeds):
            for masks in MASKS:
                key = {"masks": masks, "steps": given.steps, "seed": seed}
                if len(rows) and (rows[list(key)] == pd.Series(key)).all(axis=1).any():
                    continue
                row = key | trained(masks, seed, given.steps, Path(home))
                rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
                write_table(rows, KEPT)
                print(row, flush=True)
    rows = rows[(rows.steps == given.steps) & (rows.seed < given.seeds)]
    shown = []
    for masks, own in rows.groupby("masks"):
        row = {"training masks": masks, "seeds": len(own)}
        shown.append(
            row
            | {f"J, {kind}": f"{own[kind].mean():.4f} ± {own[kind].std():.4f}" for kind in numbers if "seen" in kind}
        )
    wide = rows.pivot(index="seed", columns="masks", values=["seen", "unseen"])
    gains = {kind: wide[kind][MASKS[1]] - wide[kind][MASKS[0]] for kind in ("seen", "unseen")}
    told = "; ".join(f"{kind}: {gain.mean():+.4f} ± {gain.std():.4f}" for kind, gain in gains.items())
    text = f"CA, MobileNetV2, {given.steps} steps of 24 photographs at 160 pixels from ImageNet weights, one look, "
    text += f"argmax, {PHOTOS} photographs a group. What centres gain over corners, seed by seed: {told}."
    record("Training masks at pixel centres", "benchmarks/alignment.py", shown, text)


if __name__ == "__main__":
    main()
