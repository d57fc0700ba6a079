"""What the thesis's system has to beat: the frozen network's features of a group's photographs, clustered or factored.

Seconds a group, no generator, no learning. Both give K + 1 maps a photograph; which of them is the background nobody
says, so it is the one that fills the largest share of the photographs' borders.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF, PCA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.crf import enlarged
from coseglib.answering.reading import picture_of
from coseglib.data.record import Photo
from coseglib.unsupervised.configuration import OnlineConfig
from coseglib.unsupervised.jobs import LearningJob

COMPONENTS = 64  # of the features' principal axes, which the clusters are found in
LEAST = 0.05  # of the widest axis' spread: what spreads less is noise, and is not to be enlarged


def cluster_features(described: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Spherical k-means: (n, D, h, w) -> cosines to the clusters' centres (n, clusters, h, w), the background first.

    Features are centred over the group, brought to unit length, to COMPONENTS principal axes, each over the root of its
    standard deviation (between none and all of their differences in spread), and to unit length again.
    """
    n, _, h, w = described.shape
    x = described.movedim(1, -1).flatten(0, 2).double()  # (n·h·w, D)
    x = F.normalize(x - x.mean(dim=0), dim=1).numpy()
    if not x.any():  # all positions are alike: one cluster
        return F.one_hot(torch.zeros(n, h, w, dtype=torch.long), clusters).movedim(-1, 1).float()
    x = PCA(min(COMPONENTS, *x.shape), random_state=seed).fit_transform(x)
    spread = x.std(axis=0)
    x /= np.sqrt(np.maximum(spread, LEAST * spread.max() + 1e-6))
    x = F.normalize(torch.from_numpy(x), dim=1).numpy()
    count = min(clusters, len(np.unique(x.round(6), axis=0)))
    centres = torch.from_numpy(KMeans(count, n_init=10, random_state=seed).fit(x).cluster_centers_)
    cosines = torch.from_numpy(x) @ F.normalize(centres, dim=1).T
    return background_first(F.pad(cosines, (0, clusters - count), value=-2.0).view(n, h, w, clusters).movedim(-1, 1))


def factor_features(described: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Deep feature factorisation (Collins et al., ECCV 2018): (n, D, h, w) of a ReLU -> factors (n, clusters, h, w).

    V ≈ W H, all three non-negative; W says how much of each factor a position holds. The background first.
    """
    n, _, h, w = described.shape
    v = described.clamp(min=0).movedim(1, -1).flatten(0, 2).numpy()
    found = NMF(clusters, init="nndsvda", max_iter=300, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # factors that still move a little tell as much
        held = torch.from_numpy(found.fit_transform(v))
    return background_first((held / held.amax(dim=0).clamp(min=1e-12)).view(n, h, w, clusters).movedim(-1, 1))


def background_first(maps: Tensor) -> Tensor:
    """maps (n, clusters, h, w) -> the same, the one that is the largest at most border positions moved to the front."""
    largest = maps.argmax(dim=1)  # (n, h, w)
    border = torch.ones(largest.shape[1:], dtype=torch.bool)
    border[1:-1, 1:-1] = False
    counts = torch.bincount(largest[:, border].flatten(), minlength=maps.shape[1])
    first = int(counts.argmax())
    return maps[:, [first, *(k for k in range(maps.shape[1]) if k != first)]].float()


FEATURE_FLOORS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "feature k-means": cluster_features,
    "feature factors": factor_features,
}


def label_maps(name: str, photos: Sequence[Photo], classes: int, config: OnlineConfig) -> list[Tensor]:
    """A floor's label maps of a group, uint8 (H, W) each at its photograph's own size: 0 background, 1 … classes.

    name  of FEATURE_FLOORS      config  its frozen network, `extractor_size` or else `input_size`, and seed
    """
    job = LearningJob(photos, classes, config.replaced(masking="features", variant="paper"))
    maps = FEATURE_FLOORS[name](job.described.float().cpu(), classes + 1, config.seed)
    sizes = [picture_of(photo).size for photo in photos]
    return [enlarged(m, size).argmax(dim=0).to(torch.uint8) for m, size in zip(maps, sizes, strict=True)]
