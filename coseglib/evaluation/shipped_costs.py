"""What the trainings of checkpoints cost, and their curves, by their cards and logs."""

from pathlib import Path

import numpy as np
import pandas as pd

from coseglib.core.paths import CHECKPOINTS
from coseglib.evaluation.cards import cards
from coseglib.training.runs import CURVE_COLUMNS, read_log


def shipped_costs(folder: Path = CHECKPOINTS) -> pd.DataFrame:
    """By checkpoint that is shipped: what its card says of its cost, and J on two test sets. No log is needed.

    runs       trainings, one after the other, each from the weights of the one before
    images/s   over the whole time, validations among it. NaN, as `images`, where the runs' steps differ in images: the
               card has the steps' sum alone
    minutes    on the card's device; MB: of the file
    """
    rows = {}
    for card in cards(folder):
        a_step = {t["groups"] * t["group_size"] for t in card["training"]}
        images = card["steps"] * a_step.pop() if len(a_step) == 1 else np.nan
        row = {name: card[name] for name in ("method", "variant", "backbone")}
        row |= {"runs": len(card["training"]), "steps": card["steps"], "images": images, "minutes": card["minutes"]}
        row |= {"images/s": images / card["minutes"] / 60, "device": card["device"], "MB": card["bytes"] / 1e6}
        for name in ("msrc7", "icoseg8"):
            row[f"J {name}"] = card["figures"].get(name, {}).get("group", {}).get("J", np.nan)
        rows[card["name"]] = {**row, "checkpoint": card["sha256"][:8]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def shipped_logs(folder: Path = CHECKPOINTS) -> pd.DataFrame:
    """`tidy_logs`'s columns, by checkpoint that is shipped with the log of its (last) training; empty where none is."""
    logs = [pd.DataFrame(columns=list(CURVE_COLUMNS))]
    for card in cards(folder):
        if (file := folder / f"{card['name']}.log.csv").is_file():
            logs.append(read_log(file, card["training"][-1]).assign(system=card["name"]))
    return pd.concat(logs[1:] or logs, ignore_index=True)[list(CURVE_COLUMNS)]
