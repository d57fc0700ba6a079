"""Masks, tables and logs made by hand, for the tests of several rooms."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from coseglib.models.checkpoints import save_model
from coseglib.training.configuration import load_profile
from coseglib.training.runs import CURVE_COLUMNS
from coseglib.training.state import Log


def box(*places: tuple[int, int, int, int], size=(40, 60)) -> torch.Tensor:
    """A mask of boxes (top, bottom, left, right)."""
    mask = torch.zeros(size, dtype=torch.uint8)
    for top, bottom, left, right in places:
        mask[top:bottom, left:right] = 1
    return mask


OBJECT = (10, 30, 10, 30)  # 20 × 20


TWO = (OBJECT, (10, 30, 38, 58))


def rows_of_j(groups: int = 8, photos: int = 10, seed: int = 0, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = groups * photos
    given = {"dataset": "made", "group": np.repeat([f"g{i}" for i in range(groups)], photos), "J": rng.random(n)}
    return pd.DataFrame({**given, **columns})


TINY = {"steps": 4, "groups": 2, "input_size": 32, "cache_side": 40, "synthetic_photos": 48, "log_every": 2}
TINY |= {"save_every": 2, "precision": "32-true"}
# A run in which everything happens that is kept: a state in the middle, an average, hard and empty pairs.
SIX_STEPS = TINY | {"steps": 6, "save_every": 3, "average": 0.9, "shares": (0.4, 0.4, 0.2), "stem_every": 2}


def run_folder(model, folder: Path, rows: list[dict], method: str = "ca", **fields) -> Path:
    """A run's folder as `train` leaves it, its log made by hand."""
    folder.mkdir(parents=True)
    config = load_profile("smoke", method, {**TINY, **fields})
    plain = config.fields()
    (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    with open(folder / "log.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, Log.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    save_model(folder / "model.safetensors", model, {"method": method, "backbone": "mobilenet_v2"})
    return folder


def row(step: int, seconds: float, J: float, loss: float = 0.5, rate: float = 40.0) -> dict:
    return {"step": step, "seconds": seconds, "loss": loss, "J": J, "images_per_s": rate}


def logs(**J: list[float]) -> pd.DataFrame:
    """`tidy_logs`' table of systems whose J is given at steps 10, 20, …, each a second and 100 images."""
    parts = []
    for name, values in J.items():
        steps = 10 * np.arange(1, len(values) + 1)
        part = {
            "system": name,
            "step": steps,
            "seconds": steps / 10.0,
            "images": steps * 10.0,
            "loss": 1 - np.array(values),
        }
        parts.append(pd.DataFrame(part | {"J": values, "val_J": np.nan, "images_per_s": 100.0}))
    return pd.concat(parts, ignore_index=True)[list(CURVE_COLUMNS)]
