"""Which channels matter in which image, many images as one table, and whether they tell classes apart."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

from coseglib.analysis.maps import backbone_maps, offering
from coseglib.analysis.seen import seen_in_training
from coseglib.answering.reading import resize_to_input
from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, Group

BATCH = 8  # images that go through the network at once
NEIGHBOURS = 5


@dataclass(frozen=True)
class ChannelTable:
    """What the channels of n images say, a row an image.

    rows        dataset, class (the group's name), photo (its name), seen (did training hold the class?)
    importance  float32 (n, D): alpha, in [0, 1], or gamma     pooled  float32 (n, C), see `channel_importance`
    """

    rows: pd.DataFrame
    importance: np.ndarray
    pooled: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """(n,) names."""
        return self.rows["class"].to_numpy(str)

    def table(self) -> pd.DataFrame:
        """The rows with the importance beside them, its columns named 0 … D − 1."""
        return pd.concat([self.rows, pd.DataFrame(self.importance)], axis=1)


def single_class(groups: Sequence[Group], most: int | None = None, seed: int = 0) -> list[Group]:
    """The groups without the photographs that stand in several of them: an image of two classes has no one colour.

    most  photographs a group, drawn by the seed; None: all. Groups with fewer than two are left out.
    """
    times = Counter((p.dataset, p.name) for group in groups for p in group.photos)
    kept = []
    for group in groups:
        photos = [p for p in group.photos if times[p.dataset, p.name] == 1]
        drawn = np.random.default_rng(seed).permutation(len(photos))[:most]
        if len(drawn) > 1:
            kept.append(replace(group, photos=tuple(photos[i] for i in sorted(drawn))))
    return kept


def hide_object(image: Tensor, mask: Tensor) -> Tensor:
    """The box around the foreground filled with the mean colour around it: the scene without the object.

    image uint8 (3, H, W), mask uint8 (H, W), 0 background, 255 void -> a new image. No foreground: as it was.
    """
    image = image.clone()
    for box in ndimage.find_objects(((mask != 0) & (mask != VOID)).int().numpy()):  # one, or none
        around = torch.ones(mask.shape, dtype=torch.bool)
        around[box] = False
        colour = image[:, around if around.any() else ~around].float().mean(dim=1).round().to(image.dtype)
        image[:, *box] = colour[:, None, None]
    return image


@torch.no_grad()
def channel_importance(model, images: Tensor) -> tuple[Tensor, Tensor]:
    """How much each channel matters, by each image alone. (N, 3, H, W) -> (N, D), and the pooled map (N, C).

    CA, FCA, CSA  alpha, eqs. (1), (2), in (0, 1)      SSNM  gamma of the image as a group of its own, eq. (3)
    The pooled map is what these start from: the mean over the positions of the stride-32 map, after the embedding of
    the workbook variant. Raises CosegError for models that weigh no channels.
    """
    with backbone_maps(model) as calls:
        if model.kind == "context":
            importance = model.attention(model.encode(images))
        elif "gamma" in model.EXTRAS:
            importance = model(images[:, None]).extra("gamma")[:, 0]  # N groups of one
        else:
            able = f"{offering('alpha')} and {offering('gamma')}"
            raise CosegError(f"{type(model).__name__}: weighs no channels; {able} do")
        pooled = model.backbone.embed(calls[-1][-1]).float().mean(dim=(-2, -1))
    return importance.float().cpu(), pooled.cpu()


def channel_table(
    model, groups: Sequence[Group], trained_on: Collection[str] = (), hidden: bool = False
) -> ChannelTable:
    """`channel_importance` of every image of some groups, in their order.

    trained_on  classes, from `classes_trained_on`; a group is seen where its target is one of them
    hidden      True: of the images with their objects hidden (`hide_object`)
    Raises CosegError for no groups, models that weigh no channels, photographs that cannot be read or have no mask.
    """
    members = [(group, i) for group in groups for i in range(len(group))]
    if not members:
        raise CosegError("no groups: there is no image to describe")
    device, found = next(model.parameters()).device, []
    for start in range(0, len(members), BATCH):
        inputs = []
        for group, i in members[start : start + BATCH]:
            image = group.photos[i].image()
            image = hide_object(image, group.mask(i)) if hidden else image
            inputs.append(resize_to_input(image, model.input_size))
        found.append(channel_importance(model, torch.stack(inputs).to(device)))
    rows = [(g.dataset, g.name, g.photos[i].name, seen_in_training(g, trained_on)) for g, i in members]
    importance, pooled = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return ChannelTable(pd.DataFrame(rows, columns=["dataset", "class", "photo", "seen"]), importance, pooled)


# Vectors by class -----------------------------------------------------------------------------------------------------


def embed_in_plane(
    vectors: np.ndarray, how: str = "tsne", perplexity: float = 10, seed: int = 0, start: str = "pca"
) -> np.ndarray:
    """Vectors in the plane, to be looked at. (n, D) -> float (n, 2).

    how         "tsne": van der Maaten and Hinton 2008, no unit; "pca": the two directions of most variance
    perplexity  of t-SNE: about how many neighbours a point tries to keep, below n
    start       of t-SNE: "pca", or "random", from which the seed decides where islands end up

    The same vectors and seed give the same points, on however many threads the caller computes.
    """
    if how == "pca":
        return PCA(2, random_state=seed).fit_transform(vectors)
    if how != "tsne":
        raise ValueError(f"how {how!r}: 'tsne' or 'pca'")
    if not 0 < perplexity < len(vectors):
        raise ValueError(f"perplexity {perplexity}: must lie between 0 and {len(vectors)}, the number of vectors")
    spread = np.ptp(vectors, axis=0).max()
    if not spread > np.finfo(np.float32).eps * np.abs(vectors).max():  # NaN too: sklearn's code ends the process
        raise ValueError("vectors without spread have no place in the plane; look at them as a table")
    with threadpool_limits(1):  # threads add in another order, and a thousand steps make other islands of the rounding
        return TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(vectors)


def nearest_classes(vectors: np.ndarray, classes: Sequence[str], metric: str = "euclidean") -> np.ndarray:
    """The class that most of a vector's five nearest neighbours have (leave-one-out). (n, D) -> (n,) names.

    metric  of scikit-learn. Ties go to the first name in alphabetical order.
    Raises ValueError where there are no more vectors than neighbours.
    """
    if len(vectors) <= NEIGHBOURS:
        raise ValueError(f"{len(vectors)} vectors: must be more than {NEIGHBOURS} neighbours")
    model = KNeighborsClassifier(NEIGHBOURS, metric=metric, algorithm="brute")
    return cross_val_predict(model, vectors, np.asarray(classes), cv=LeaveOneOut())


def separation(vectors: np.ndarray, classes: Sequence[str], metric: str = "euclidean") -> dict[str, float]:
    """How far the vectors of a class lie together and apart from the others'. (n, D), n names -> two numbers.

    silhouette  mean of (b − a) / max(a, b): a the mean distance to the own class, b to the nearest other one; in
                [−1, 1], 0 where classes are no clusters
    accuracy    share of vectors whose class `nearest_classes` finds, in [0, 1]
    """
    right = nearest_classes(vectors, classes, metric) == np.asarray(classes)
    silhouette = silhouette_score(vectors, np.asarray(classes), metric=metric)
    return {"silhouette": float(silhouette), "accuracy": float(right.mean())}


def selectivity(vectors: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Share of each channel's variance that lies between the classes' means, η². (n, D), n names -> (D,) in [0, 1].

    Classes that mean nothing still get (K − 1) / (n − 1) on average: compare with shuffled names. A channel that is
    the same in all images has 0.
    """
    names, vectors = np.asarray(classes), np.asarray(vectors, float)
    centre = vectors.mean(axis=0)
    between = sum((names == c).sum() * (vectors[names == c].mean(axis=0) - centre) ** 2 for c in np.unique(names))
    total = ((vectors - centre) ** 2).sum(axis=0)
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def class_means(vectors: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The mean vector of each class. (n, D), n names -> K rows by name, in their order of appearance, D columns."""
    return pd.DataFrame(vectors).groupby(np.asarray(classes), sort=False).mean()
