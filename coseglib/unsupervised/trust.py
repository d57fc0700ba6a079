"""Is there anything in what was learned, and how many classes are there? Both are asked of the photographs alone.

Halving: the photographs are halved by chance, each half finds its own prototypes (`clustered`), and both label all
positions. Where a group has K classes both halves find the same; where it has none, or another number, they differ. How
alike they are is said by the adjusted Rand index over the positions that either calls an object: 1 alike, 0 by chance.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from coseglib.unsupervised.clustered import ClusterJob
from coseglib.unsupervised.jobs import CHANCE, LearningJob, Say, silent

HALVINGS = 6
FEWEST = 4  # photographs that can be halved
STILL = 0.8  # share of the maps' variance that is the same in all photographs: from here on they do not move
BELOW = 0.001  # chance that the pairs' loss has to get
ALIKE = 0.25  # adjusted Rand index that halves have to reach


class Trust(NamedTuple):
    """pairs: the loss' term of pairs, `CHANCE` where nothing differs; still: share of the maps' variance that all
    photographs have in common; alike: of the halvings, NaN where it was not asked; why: what says that nothing was
    learned, "" where nothing does."""

    pairs: float
    still: float
    alike: float
    why: str

    def about(self) -> dict:
        """For a card; NaN as None."""
        numbers = {name: getattr(self, name) for name in ("pairs", "still", "alike")}
        return {k: None if math.isnan(v) else round(v, 4) for k, v in numbers.items()} | {"nothing_learned": self.why}


def stillness(maps: Tensor) -> float:
    """maps (n, K+1, h, w) -> the share of their variance over positions that the mean of all photographs' maps has.

    1: every photograph has the same map, or a constant one. Maps that have nothing to do with each other: about 1/n.
    NaN of one photograph.
    """
    if len(maps) < 2:
        return math.nan
    off = maps.double() - maps.double().mean(dim=(0, 2, 3), keepdim=True)
    total = float(off.square().mean())
    return float(off.mean(dim=0).square().mean()) / total if total > 1e-6 else 1.0


@torch.no_grad()
def agreement(job: ClusterJob, classes: int, halvings: int = HALVINGS) -> np.ndarray:
    """The adjusted Rand index of each halving, (halvings,). NaN where there are fewer photographs than FEWEST."""
    if job.count < FEWEST:
        return np.full(halvings, np.nan)
    x, s = job.attended(job.base)
    found = []
    for seed in range(halvings):
        order = torch.randperm(job.count, generator=torch.Generator().manual_seed(seed))
        halves = order[: job.count // 2], order[job.count // 2 :]
        one, other = (
            _labels(x, s, job.prototypes(x[half], s[half], classes, seed), job.config.backgrounds) for half in halves
        )
        either = (one > 0) | (other > 0)
        found.append(adjusted_rand_score(one[either], other[either]) if either.any() else 0.0)
    return np.array(found)


def _labels(x: Tensor, s: Tensor, prototypes: Tensor, backgrounds: int) -> np.ndarray:
    """Each position's nearest class, 0 where a background is nearer or the position is not evident. -> (P,)"""
    near = torch.einsum("nahw,qa->nqhw", x, prototypes)
    objects = (near[:, backgrounds:].amax(dim=1) > near[:, :backgrounds].amax(dim=1)) & (s >= 0.5)
    return ((near[:, backgrounds:].argmax(dim=1) + 1) * objects).flatten().numpy()


def trust_in(job: LearningJob, model, log: pd.DataFrame) -> Trust:
    """What speaks for and against a generator that a job has learned; `log` is of `LearningJob.optimise`."""
    pairs, still = float(log.pairs[log.loss.idxmin()]), stillness(job.maps(model))
    alike = math.nan
    if isinstance(job, ClusterJob):
        alike = float(agreement(job, job.classes).mean())
    faults = []
    if still >= STILL:
        faults.append(f"its maps do not move with the photographs ({still:.0%} of them is the same in all)")
    if not isinstance(job, ClusterJob) and pairs > CHANCE - BELOW:
        faults.append(f"its loss, {pairs:.4f}, is at chance, {CHANCE:.4f}")
    if alike < ALIKE:
        faults.append(f"what two halves of the photographs find differs (adjusted Rand index {alike:.2f})")
    return Trust(pairs, still, alike, "; ".join(faults))


def propose_classes(job: ClusterJob, say: Say = silent) -> tuple[int, pd.DataFrame]:
    """A K for a group, and a row for each that was asked: classes, alike (mean of the halvings), spread (their sd).

    The largest K that halves of the photographs agree on nearly as well as on the best K beyond 1 …
    """
    raise NotImplementedError
