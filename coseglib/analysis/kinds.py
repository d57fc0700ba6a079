"""How wrong a mask is, and what kind of failure that makes it.

The first rule that holds decides, so every mask has exactly one kind; `Thresholds` has the numbers.

| kind               | rule                                                                                           |
|--------------------|------------------------------------------------------------------------------------------------|
| good               | J is `good` or more                                                                            |
| wrong object       | less than `half` of what is marked is object, and less than `half` of the object is marked,    |
|                    | while something is marked: `missed` of the object's area or more                               |
| missed object      | of some object of the truth less than `missed` is marked                                       |
| boundary-only      | nine tenths of the wrong pixels lie within `outline` of the true outline                       |
| fragmented         | of some object a second piece of the mask holds `piece` or more                                |
| over-segmentation  | more pixels are marked wrongly than are missing                                                |
| under-segmentation | all others                                                                                     |

Lengths are in sides of the object, √(its pixels), so that neither the photograph's size nor the object's matters. The
multi-class system's kinds are those of its thesis, section 4.6: `class_failures.class_kind`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coseglib.analysis.photographs import Truth, connected_parts
from coseglib.scoring.metrics import jaccard

FAILURE_KINDS = (
    "good",
    "boundary-only",
    "over-segmentation",
    "under-segmentation",
    "fragmented",
    "missed object",
    "wrong object",
)
NEARLY_ALL = 0.9  # of the wrong pixels lie within `reach`


@dataclass(frozen=True)
class Thresholds:
    """The numbers in the rules of the module's head. All are choices; `sweep_thresholds` shows what hangs on them.

    good     J from which a mask is no failure              half   share, of both the mask and the object
    missed   share of an object, below which it is missed   piece  share of an object
    outline  distance in sides of the object
    """

    good: float = 0.8
    half: float = 0.5
    missed: float = 0.1
    outline: float = 0.1
    piece: float = 0.1


THRESHOLD_GRID = {
    "good": (0.6, 0.7, 0.75, 0.8, 0.85, 0.9),
    "half": (0.3, 0.4, 0.5, 0.6, 0.7),
    "missed": (0.02, 0.05, 0.1, 0.2, 0.3),
    "outline": (0.05, 0.075, 0.1, 0.15, 0.2),
    "piece": (0.02, 0.05, 0.1, 0.2, 0.3),
}


def mask_measures(pred: Tensor, truth: Truth) -> dict[str, float]:
    """What the rules ask of a mask; pred (H, W), not 0 where foreground.

    J          intersection over union; two empty masks: 1
    recall     share of the objects that is marked; precision: share of the marked pixels that is object; 0 of nothing
    size       marked pixels over the objects' pixels; inf where there are no objects
    least      recall of the object that is found worst; 1 where there is none
    reach      `NEARLY_ALL` of the wrong pixels lie so near the outline, in sides of the object; 0 where none is wrong
    second     what the second largest piece of the mask holds of an object, as its share; of the worst such object
    excess     pixels marked wrongly, lack: pixels missing; both over the photograph's counted pixels
    Raises ValueError for two sizes.
    """
    score = jaccard(torch.as_tensor(pred), truth.mask)
    marked = (np.asarray(pred) != 0) & truth.counted
    right, wrong = marked & truth.inside, marked ^ truth.inside
    hits, size, counted = int(right.sum()), int(marked.sum()), max(1, int(truth.counted.sum()))
    pieces, count = connected_parts(marked)
    number = int(truth.objects.max())
    # Pixels of each object (a row) in each piece of the mask (a column); the first row and column are neither.
    place = truth.objects[truth.inside] * (count + 1) + pieces[truth.inside]
    held = np.bincount(place, minlength=(number + 1) * (count + 1)).reshape(number + 1, count + 1)[1:]
    kind_shares = np.sort(held[:, 1:] / np.maximum(1, held.sum(axis=1, keepdims=True)), axis=1)
    return {
        "J": score,
        "recall": hits / max(1, truth.pixels),
        "precision": hits / max(1, size),
        "size": size / truth.pixels if truth.pixels else float("inf"),
        "least": float(kind_shares.sum(axis=1).min()) if number else 1.0,
        "reach": float(np.quantile(truth.away[wrong], NEARLY_ALL, method="higher")) / max(1.0, truth.side)
        if wrong.any()
        else 0.0,
        "second": float(kind_shares[:, -2].max()) if number and count > 1 else 0.0,
        "excess": (size - hits) / counted,
        "lack": (truth.pixels - hits) / counted,
    }


def failure_kind(of: Mapping[str, float], by: Thresholds = Thresholds()) -> str:
    """One of `FAILURE_KINDS`, by the rules of the module's head. of: `mask_measures`, or a row of `failure_table`."""
    if of["J"] >= by.good:
        return "good"
    if of["recall"] < by.half and of["precision"] < by.half and of["size"] >= by.missed:
        return "wrong object"
    if of["least"] < by.missed:
        return "missed object"
    if of["reach"] <= by.outline:
        return "boundary-only"
    if of["second"] >= by.piece:
        return "fragmented"
    return "over-segmentation" if of["excess"] > of["lack"] else "under-segmentation"
