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
from coseglib.scoring.metrics import jaccard

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
    candidates = [c for c in range(len(counts)) if c != background]
    intersection = counts[candidates, 1:].astype(float)
    union = counts[candidates].sum(axis=1)[:, None] + counts[:, 1:].sum(axis=0)[None] - intersection
    found = np.zeros(len(counts), int)
    for row, column in zip(*linear_sum_assignment(intersection / np.maximum(union, 1), maximize=True), strict=True):
        found[candidates[row]] = column + 1
    return found


def class_scores(pred: Tensor, truth: Tensor, classes: int) -> dict[str, float]:
    """P and J of one photograph whose labels are classes: {"P", "J", "J_1", …}.

    P  share of the counted pixels with the right label; 1 where all are void
    J  mean over the classes of each against the rest, those that neither map holds left out; NaN where that is all
    """
    counted = truth != VOID
    right = int(((pred == truth) & counted).sum())
    scores = {"P": right / int(counted.sum()) if counted.any() else 1.0}
    each = []
    for k in range(1, classes + 1):
        of_class = (truth == k).to(torch.uint8)
        of_class[~counted] = VOID
        each.append(jaccard((pred == k).to(torch.uint8), of_class, empty="skip"))
    known = [j for j in each if j == j]
    scores["J"] = sum(known) / len(known) if known else float("nan")
    return {**scores, **{f"J_{k}": j for k, j in enumerate(each, start=1)}}


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
    rows = []
    for photo, pred, truth in zip(group.photos, labels, truths, strict=True):
        scores = class_scores(lookup[pred.long()], truth, classes)
        rows.append({"dataset": group.dataset, "group": group.name, "name": photo.name, **scores, "classes": named})
    return pd.DataFrame(rows)


# Baselines ------------------------------------------------------------------------------------------------------------


def stripes(size: tuple[int, int], clusters: int, across: bool = True) -> Tensor:
    """A photograph split in `clusters` stripes of equal height (across) or width. size (H, W) -> uint8 (H, W)."""
    height, width = size
    side = height if across else width
    stripe = (torch.arange(side) * clusters // side).to(torch.uint8)
    return (stripe[:, None] if across else stripe[None]).expand(height, width).contiguous()


def colour_kmeans(images: Iterable[Tensor | Photo], clusters: int, seed: int = 0) -> list[Tensor]:
    """Label maps of k-means on the RGB values of all photographs' pixels together, so that clusters are the group's.

    images  uint8 RGB (3, H, W) or `Photo`s, gone through twice; SAMPLES pixels of each are clustered, all are labelled
    Where a group has fewer colours than clusters, some clusters stay empty.
    """
    images = list(images)

    def pixels(image: Tensor | Photo) -> np.ndarray:
        image = image.image() if isinstance(image, Photo) else image
        return np.asarray(image).reshape(3, -1).T.astype(np.float32) / 255

    rng = np.random.default_rng(seed)
    some = []
    for image in images:
        colours = pixels(image)
        some.append(colours[rng.choice(len(colours), min(SAMPLES, len(colours)), replace=False)])
    some = np.concatenate(some)
    found = min(clusters, len(np.unique(some, axis=0)))
    means = KMeans(found, n_init=4, random_state=seed).fit(some)
    result = []
    for image in images:
        size = (image.image() if isinstance(image, Photo) else image).shape[-2:]
        result.append(torch.from_numpy(means.predict(pixels(image)).astype(np.uint8)).reshape(size))
    return result
