"""Do vectors tell classes apart, and which of their channels do?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

NEIGHBOURS = 5


def embed_in_plane(
    vectors: np.ndarray, how: str = "tsne", perplexity: float = 10, seed: int = 0, start: str = "pca"
) -> np.ndarray:
    """Vectors in the plane, to be looked at. (n, D) -> float (n, 2).

    how         "tsne": van der Maaten and Hinton 2008, no unit; "pca": the two directions of most variance
    perplexity  of t-SNE: about how many neighbours a point tries to keep, below n
    start       of t-SNE: "pca", or "random", from which the seed decides where islands end up
    """
    if how == "pca":
        return PCA(2, random_state=seed).fit_transform(vectors)
    if how != "tsne":
        raise ValueError(f"how {how!r}: 'tsne' or 'pca'")
    if not 0 < perplexity < len(vectors):
        raise ValueError(f"perplexity {perplexity}: must lie between 0 and {len(vectors)}, the number of vectors")
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
