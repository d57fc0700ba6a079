"""Scoring label maps whose labels have no names, and the two baselines that need no network.

An unsupervised method's cluster 1 may be the dog in one run and the person in the next. Once per group its clusters are
given to the group's classes, one each, so that the sum of the classes' J over the group's pixels is largest (the
Hungarian method); clusters left over are background. Then P and J as `metrics.PROTOCOLS["multiclass"]` says.

Label maps are uint8 (H, W); a truth holds 0 background, 1 … classes, 255 void.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import Tensor

from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, Group, Photo

SAMPLES = 2000  # pixels of a photograph that k-means learns from; it labels all of them


def confusion(pred: Tensor, truth: Tensor, clusters: int, classes: int) -> np.ndarray:
    """Pixels of each cluster in each class, int64 (clusters, classes + 1); void ones are not counted.

    Raises ValueError for two sizes, or a label that is none of the clusters.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"prediction {tuple(pred.shape)} and truth {tuple(truth.shape)} are not of one size")
    if int(pred.max()) >= clusters:
        raise ValueError(f"label {int(pred.max())}: there are {clusters} clusters, 0 to {clusters - 1}")
    counted = truth != VOID
    place = pred[counted].long() * (classes + 1) + truth[counted].long()
    return torch.bincount(place, minlength=clusters * (classes + 1)).reshape(clusters, classes + 1).numpy()


def assignment(counts: np.ndarray, background: int | None = 0) -> np.ndarray:
    """The class (1 …) of every cluster, 0 for background. counts (clusters, classes + 1), a group's -> int (clusters,).

    background  the cluster that its method calls background, which stays that; None: any may become a class
    The sum of the classes' J over the group's pixels is the largest that one cluster a class can reach. With fewer
    clusters than classes some class gets none and scores 0.
    """
    candidates = np.array([c for c in range(len(counts)) if c != background], int)
    intersection = counts[candidates, 1:]
    union = counts[candidates].sum(axis=1)[:, None] + counts[:, 1:].sum(axis=0) - intersection
    rows, columns = linear_sum_assignment(intersection / np.maximum(union, 1), maximize=True)
    found = np.zeros(len(counts), int)
    found[candidates[rows]] = columns + 1
    return found


def class_scores(pred: Tensor, truth: Tensor, classes: int) -> dict[str, float]:
    """P and J of one photograph whose labels are classes: {"P", "J", "J_1", …}.

    P  share of the counted pixels with the right label; 1 where all are void
    J  mean over the classes of each against the rest, those that neither map holds left out; NaN where that is all
    """
    counts = confusion(pred, truth, classes + 1, classes)
    right = counts.diagonal()
    either = counts.sum(axis=0) + counts.sum(axis=1) - right
    each = [r / e if e else float("nan") for r, e in zip(right[1:], either[1:], strict=True)]
    known = [j for j in each if j == j]
    scores = {"P": right.sum() / counts.sum() if counts.any() else 1.0}
    scores["J"] = sum(known) / len(known) if known else float("nan")
    return scores | {f"J_{k}": j for k, j in enumerate(each, start=1)}


def score_group(group: Group, labels: Sequence[Tensor], clusters: int, background: int | None = 0) -> pd.DataFrame:
    """A row a photograph: dataset, group, name, P, J, J_1 …, and `classes`, the assignment as text ("1=dog 2=person").

    labels    uint8 (H, W) of clusters 0 … clusters − 1, one a photograph, at its own size
    clusters  how many labels the method uses, K + 1 with the background
    For `metrics.aggregate(rows, "multiclass")`. Raises CosegError for a group without targets.
    """
    if not group.targets:
        raise CosegError(f"{group.name}: no classes to score by; give a group with masks")
    if len(labels) != len(group):
        raise ValueError(f"{len(group)} photographs and {len(labels)} label maps")
    classes = len(group.targets)
    truths = [group.mask(i) for i in range(len(group))]
    counts = sum(confusion(p, t, clusters, classes) for p, t in zip(labels, truths, strict=True))
    of_cluster = assignment(counts, background)
    lookup = torch.from_numpy(of_cluster).to(torch.uint8)
    named = " ".join(f"{c}={group.targets[k - 1]}" for c, k in enumerate(of_cluster) if k)
    about = pd.DataFrame({"dataset": group.dataset, "group": group.name, "name": [p.name for p in group.photos]})
    scores = pd.DataFrame([class_scores(lookup[p.long()], t, classes) for p, t in zip(labels, truths, strict=True)])
    return pd.concat([about, scores], axis=1).assign(classes=named)


def stripes(size: tuple[int, int], clusters: int, across: bool = True) -> Tensor:
    """A photograph split in `clusters` stripes of equal height (across) or width. size (H, W) -> uint8 (H, W)."""
    side = size[0] if across else size[1]
    stripe = (torch.arange(side) * clusters // side).to(torch.uint8)
    return (stripe[:, None] if across else stripe).expand(size).contiguous()


def colour_kmeans(images: Iterable[Tensor | Photo], clusters: int, seed: int = 0) -> list[Tensor]:
    """Label maps of k-means on the RGB values of all photographs' pixels together, so that clusters are the group's.

    images  uint8 RGB (3, H, W) or `Photo`s; SAMPLES pixels of each are clustered, all are labelled
    Where a group has fewer colours than clusters, some clusters stay empty.
    """
    images = [image.image() if isinstance(image, Photo) else image for image in images]
    pixels = [np.asarray(image).reshape(3, -1).T for image in images]
    rng = np.random.default_rng(seed)
    some = [p[rng.choice(len(p), min(SAMPLES, len(p)), replace=False)].astype(np.float32) / 255 for p in pixels]
    some = np.concatenate(some)
    means = KMeans(min(clusters, len(np.unique(some, axis=0))), n_init=4, random_state=seed).fit(some)
    labels = [means.predict(p.astype(np.float32) / 255).astype(np.uint8) for p in pixels]
    return [torch.from_numpy(found).reshape(image.shape[-2:]) for found, image in zip(labels, images, strict=True)]
