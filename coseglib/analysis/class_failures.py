"""Failures of several classes: each class of a photograph measured and sorted by the thesis's three cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coseglib.analysis.failures import PHOTO_KEY
from coseglib.analysis.photographs import cut_by_border, mean_colour
from coseglib.data.record import VOID, Group
from coseglib.unsupervised.scores import assignment, confusion

CLASS_KINDS = ("good", "overextended", "confused", "incomplete", "lost")


@dataclass(frozen=True)
class ClassThresholds:
    """good: J of a class in a photograph from which it is no failure. cut: of incomplete objects, in their sides."""

    good: float = 0.5
    cut: float = 0.5


CLASS_GRID = {"good": (0.3, 0.4, 0.5, 0.6, 0.7), "cut": (0.1, 0.25, 0.5, 1.0, 1.5)}


def class_measures(pred: Tensor, truth: Tensor, label: int) -> dict[str, float]:
    """How one class of a photograph was found. pred, truth uint8 (H, W): 0 background, 1 …; 255 void in the truth.

    J           of the class against all else; NaN where neither map holds it
    background  share of the class's wrong pixels that are background marked as the class
    others      … that are taken from another class, or given to one
    lost        … that are the class's, marked as background. The three sum to 1, to 0 where nothing is wrong
    area        the class's share of the counted pixels; cut: as in `describe_photograph`
    """
    pred, truth = np.asarray(pred), np.asarray(truth)
    counted = truth != VOID
    own, marked = truth == label, (pred == label) & counted
    union = int((own | marked).sum())
    wrong = {
        "background": int((marked & (truth == 0)).sum()),
        "others": int((marked & ~own & (truth != 0)).sum() + (own & ~marked & (pred != 0)).sum()),
        "lost": int((own & (pred == 0)).sum()),
    }
    total = max(1, sum(wrong.values()))
    return {
        "J": int((own & marked).sum()) / union if union else float("nan"),
        **{name: count / total for name, count in wrong.items()},
        "area": int(own.sum()) / max(1, int(counted.sum())),
        "cut": cut_by_border(own, counted),
    }


def class_kind(of: Mapping[str, float], by: ClassThresholds = ClassThresholds()) -> str:
    """One of `CLASS_KINDS`: the thesis's three failures as rules, ours, since it shows one picture each.

    good          J is `good` or more
    overextended  most wrong pixels are background: its case (a), small objects in clutter
    confused      most are taken from another class or given to one: (b), two classes of one colour
    incomplete    most are the class's own, marked as background, and the photograph's border cuts through the object:
                  (c), a car half in the picture
    lost          the same, and the object is whole. The thesis has no such case
    Of equal shares the first counts.
    """
    if of["J"] >= by.good:
        return "good"
    first = max(("background", "others", "lost"), key=lambda name: of[name])
    if first == "lost":
        return "incomplete" if of["cut"] >= by.cut else "lost"
    return {"background": "overextended", "others": "confused"}[first]


def name_clusters(group: Group, labels: Sequence[Tensor], clusters: int, background: int | None = 0) -> list[Tensor]:
    """Label maps whose labels are the group's classes, uint8 (H, W), 0 background.

    labels, clusters, background  as `multiclass_scores.score_group` has them: clusters get their classes group by group
    """
    truths = (group.mask(i) for i in range(len(group)))
    counts = sum(confusion(p, t, clusters, len(group.targets)) for p, t in zip(labels, truths, strict=True))
    lookup = torch.from_numpy(assignment(counts, background)).to(torch.uint8)
    return [lookup[clustered.long()] for clustered in labels]


def class_table(group: Group, maps: Sequence[Tensor]) -> pd.DataFrame:
    """A row a photograph and class: dataset, group, name, class, those of `class_measures`, alike, kind.

    maps    label maps of `name_clusters`, one a photograph
    alike   distance of the class's mean colour to that of the nearest other class of the photograph, in CIELAB; NaN
            where it is alone
    Classes that neither a photograph nor its map holds have no row.
    """
    classes = range(1, len(group.targets) + 1)
    rows = []
    for i, (photo, pred) in enumerate(zip(group.photos, maps, strict=True)):
        truth, image = group.mask(i), photo.image()
        colours = {k: mean_colour(image, np.asarray(truth) == k) for k in classes}
        for k in classes:
            found = class_measures(pred, truth, k)
            if np.isnan(found["J"]):
                continue
            others = [np.linalg.norm(colours[k] - colours[j]) for j in classes if j != k]
            others = [d for d in others if d == d]
            about = dict(zip(PHOTO_KEY, (group.dataset, group.name, photo.name), strict=True))
            alike = float(min(others)) if others else float("nan")
            rows.append({**about, "class": group.targets[k - 1], **found, "alike": alike, "kind": class_kind(found)})
    return pd.DataFrame(rows)
