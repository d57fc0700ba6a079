"""Do the shipped checkpoints answer here as they did where they were shipped? `coseg doctor --self-test`.

A card's `self_test` has J of a few drawn scenes, and each of their masks as 64 cells, a bit where most of it is marked.
"""

import copy
import time
from collections.abc import Callable, Collection, Mapping

import torch
from torch.nn import functional as F

from coseglib.answering.masks import segment_group
from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS, SCENES
from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation.cards import cards
from coseglib.evaluation.kept import PRECISION
from coseglib.models.checkpoints import load_model
from coseglib.scoring.metrics import jaccard

CLOSE_J, CLOSE_CELLS = 0.01, 0.02  # processors and versions of torch round differently; a wrong build is far off


def answers(model) -> dict:
    """What is pinned of a model: J and cells, 16 hexadecimal digits a mask, by argmax, which every machine has."""
    model = copy.copy(model)  # shares its weights
    model.precision = PRECISION
    group = load_synthetic(groups=("star", "ring"), photos=4, size=96)[0]
    masks = [mask.cpu() for mask in segment_group(model, group.photos, post="argmax")]
    cells = [(F.adaptive_avg_pool2d(mask[None].float(), 8) > 0.5).flatten().tolist() for mask in masks]
    j = sum(jaccard(mask, group.mask(i)) for i, mask in enumerate(masks)) / len(masks)
    return {"J": round(j, 4), "cells": [f"{int(''.join('01'[bit] for bit in one), 2):016x}" for one in cells]}


def _apart(found: Mapping, pinned: Mapping) -> float:
    """The share of cells that differ."""
    pairs = list(zip(found["cells"], pinned["cells"], strict=True))
    return sum((int(a, 16) ^ int(b, 16)).bit_count() for a, b in pairs) / (64 * len(pairs))


def _judged(name: str, pinned: Mapping | None) -> tuple[str, str]:
    try:
        found = answers(load_model(name, precision=PRECISION))
    except CosegError as fault:
        return "FAIL", str(fault)
    if pinned is None:
        return "--", f"J {found['J']:.4f}; its card pins nothing: ship it anew to compare"
    apart = _apart(found, pinned)
    if abs(found["J"] - pinned["J"]) <= CLOSE_J and apart <= CLOSE_CELLS:
        return "OK", f"J {found['J']:.4f} on drawn scenes, pinned {pinned['J']:.4f}"
    of = f"J {found['J']:.4f} on drawn scenes, pinned {pinned['J']:.4f}, and {apart:.0%} of the masks differ"
    return "FAIL", f"{of}: torch {torch.__version__} computes something else here; run make -B setup"


def self_test(say: Callable[[str], None], only: Collection[str] = ()) -> bool:
    """Say a line for each shipped checkpoint, or `only` those; True where all answer as pinned."""
    words = []
    for folder in (CHECKPOINTS, SCENES):
        for card in cards(folder):
            name = card["name"]
            if (folder / f"{name}.safetensors").is_file() and (not only or name in only):
                started = time.perf_counter()
                word, text = _judged(name, card.get("self_test"))
                words.append(word)
                say(f"{word:4} {name}: {text} ({time.perf_counter() - started:.1f} s)")
    failed = words.count("FAIL")
    say(f"{len(words) - failed} of {len(words)} checkpoints answer as they did where they were shipped")
    return bool(words) and not failed
