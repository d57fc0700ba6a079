"""Precision, Jaccard index, and the protocols under which the papers report them.

Masks are uint8 (H, W); whatever is not 0 is foreground, 255 in the *truth* is void and never counted. P is the share of
the counted pixels that are right, J the foreground's intersection over union, both in [0, 1].

The papers agree on these two and on nothing else: what is averaged, at which size, by which threshold, what two empty
masks score. So a protocol has a name (`PROTOCOLS`), and a table of results prints it.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from coseglib.core.config import read_yaml
from coseglib.core.errors import CosegError
from coseglib.data.record import VOID

EMPTY = {"one": 1.0, "zero": 0.0, "skip": float("nan")}


def counts(pred: Tensor, truth: Tensor) -> tuple[int, int, int, int]:
    """(right, counted, intersection, union) in pixels; both metrics and all averages follow from these four.

    pred, truth  uint8 (H, W) of one size; 255 in the truth is void. Raises ValueError for two sizes.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"prediction {tuple(pred.shape)} and truth {tuple(truth.shape)} are not of one size")
    valid = truth != VOID
    p, t = (pred != 0) & valid, (truth != 0) & valid
    wrong, union = int((p ^ t).sum()), int((p | t).sum())
    counted = int(valid.sum())
    return counted - wrong, counted, union - wrong, union


def precision(pred: Tensor, truth: Tensor) -> float:
    """P, the share of pixels that are right; 1 where every pixel is void. See `counts`."""
    right, counted, _, _ = counts(pred, truth)
    return right / counted if counted else 1.0


def jaccard(pred: Tensor, truth: Tensor, empty: str = "one") -> float:
    """J of the foreground. Two empty masks: 1 ("one"), 0 ("zero") or NaN, left out of means ("skip"). See `counts`."""
    _, _, intersection, union = counts(pred, truth)
    return intersection / union if union else EMPTY[empty]


def ssnm_threshold(probability: Tensor) -> float:
    """min(mean + sd, 0.8) of one image's foreground probabilities in [0, 1] (Zhang et al. 2020, code)."""
    p = probability.double()
    return min(float(p.mean() + p.std(correction=0)), 0.8)


def auroc(scores, labels) -> float:
    """Area under the ROC curve: chance that a positive (label 1) outscores a negative (0). One sort of label: NaN."""
    labels = np.asarray(labels)
    return float(roc_auc_score(labels, np.asarray(scores))) if len(np.unique(labels)) == 2 else float("nan")


def best_threshold(scores, labels) -> tuple[float, float]:
    """From which score on to answer "1" so that most of both labels are answered right, and that share.

    The share is the mean of the positives' and the negatives' (balanced accuracy); the threshold lies half-way between
    two scores. Raises ValueError for one sort of label.
    """
    if len(np.unique(labels)) != 2:
        raise ValueError("labels of both sorts are wanted")
    false, true, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = int(np.argmax(true - false))
    if not best:  # no threshold helps: above all scores, where roc_curve says infinity
        return float(np.nextafter(max(scores), np.inf)), 0.5
    below = np.asarray(scores)[np.asarray(scores) < thresholds[best]]
    threshold = (thresholds[best] + below.max()) / 2 if len(below) else thresholds[best]
    return float(threshold), float((1 + true[best] - false[best]) / 2)


@dataclass(frozen=True)
class Protocol:
    """How figures come about. Raises ValueError for a value that is none of these.

    average    "image": mean over a group's images, then over the groups; "pooled": the last row over all images instead
               "class": from a group's total pixel counts, then the mean over the groups; "total": the last row, too
    size       masks are compared at the image's "own" size, or at the "network"'s
    threshold  "argmax": foreground where its logit is the larger (p > 0.5); "mean+std": `ssnm_threshold`
    empty      J of an empty prediction of an empty truth: "one", "zero" or "skip"
    context    an image is segmented with its whole "group", or in a "pair" with one other image
    about      what is known and what is our reading
    """

    name: str
    average: Literal["image", "pooled", "class", "total"] = "image"
    size: Literal["own", "network"] = "own"
    threshold: Literal["argmax", "mean+std"] = "argmax"
    empty: Literal[*EMPTY] = "one"
    context: Literal["group", "pair"] = "group"
    about: str = ""


_TOLD = read_yaml(Path(__file__).with_name("protocols.yaml"))
PROTOCOLS = {name: Protocol(name, **rules) for name, rules in _TOLD.items()}


def _score(rows: pd.DataFrame, by_counts: bool) -> dict[str, float]:
    """P and J of some rows: from their total counts, or as means (NaN left out)."""
    if not by_counts:
        return {"P": rows.P.mean(), "J": rows.J.mean()}
    right, counted, intersection, union = rows[["right", "counted", "intersection", "union"]].sum()
    return {"P": right / counted if counted else 1.0, "J": intersection / union if union else float("nan")}


def aggregate(rows: pd.DataFrame, protocol: Protocol | str = "common") -> pd.DataFrame:
    """A row per group, in order of appearance, and a last row of group "all".

    rows      one row a photograph: dataset, group, name, P, J, and for "class" and "total" right, counted,
              intersection, union (pixels, see `counts`); seconds where measured
    protocol  a `Protocol` or its name
    Result: dataset, group, images, P, J, protocol and, where measured, seconds (mean per image).
    A group whose images are all skipped, or whose union is empty, has J = NaN and is left out of the mean over groups;
    under empty = "one" or "zero" its total counts score what two empty masks score.
    Raises CosegError for an unknown protocol or no rows.
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise CosegError(f"{protocol}: no such protocol; one of {', '.join(PROTOCOLS)}")
        protocol = PROTOCOLS[protocol]
    if rows.empty:
        raise CosegError("no photographs to average over: give a data set with masks")
    by_counts = protocol.average in ("class", "total")
    table = []
    for (dataset, group), some in rows.groupby(["dataset", "group"], sort=False):
        row = {"dataset": dataset, "group": group, "images": len(some), **_score(some, by_counts)}
        if by_counts and np.isnan(row["J"]):
            row["J"] = EMPTY[protocol.empty]
        table.append(row)
    groups = pd.DataFrame(table)
    over_groups = protocol.average in ("image", "class")
    last = {"P": groups.P.mean(), "J": groups.J.mean()} if over_groups else _score(rows, by_counts)
    last = {"dataset": "+".join(dict.fromkeys(rows.dataset)), "group": "all", "images": len(rows), **last}
    table = pd.concat([groups, pd.DataFrame([last])], ignore_index=True).assign(protocol=protocol.name)
    if "seconds" in rows:
        means = rows.groupby(["dataset", "group"], sort=False).seconds.mean()
        table["seconds"] = [*means, rows.seconds.mean()]
    return table
