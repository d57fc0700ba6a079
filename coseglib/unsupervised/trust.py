"""Is there anything in what was learned, and how many classes are there? Both are asked of the photographs alone.

A split: the photographs are halved by chance, each half finds its own prototypes, and both label all positions. Where
the group has K classes both halves find the same; where it has none, or another number, what they find differs. How
alike is said by the adjusted Rand index of the positions that either calls an object: 1 alike, 0 as by chance.
"""

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from coseglib.models.multiclass import MultiClass
from coseglib.unsupervised.clustered import ClusterJob

SPLITS = 5


@torch.no_grad()
def agreement(job: ClusterJob, classes: int, model: MultiClass | None = None, splits: int = SPLITS) -> np.ndarray:
    """The adjusted Rand index of each of `splits` halvings, (splits,). Of fewer than 4 photographs: NaN."""
    if job.count < 4:
        return np.full(splits, np.nan)
    x, s = job.attended(model or job.base)
    found = []
    for seed in range(splits):
        order = torch.randperm(job.count, generator=torch.Generator().manual_seed(seed))
        halves = order[: job.count // 2], order[job.count // 2 :]
        labels = [
            _labels(x, s, job.prototypes(x[half], s[half], classes, seed), job.config.backgrounds) for half in halves
        ]
        either = (labels[0] > 0) | (labels[1] > 0)
        found.append(adjusted_rand_score(labels[0][either], labels[1][either]) if either.any() else 0.0)
    return np.array(found)


def _labels(x: Tensor, s: Tensor, prototypes: Tensor, backgrounds: int) -> np.ndarray:
    """Each position's nearest class, 0 where a background is nearer or the position is not evident. -> (P,)"""
    near = torch.einsum("nahw,qa->nqhw", x, prototypes)
    classes = near[:, backgrounds:].argmax(dim=1) + 1
    objects = (near[:, backgrounds:].amax(dim=1) > near[:, :backgrounds].amax(dim=1)) & (s > 0.5)
    return (classes * objects).flatten().numpy()
