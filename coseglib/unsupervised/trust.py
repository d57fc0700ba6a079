"""Is there anything in what was learned, and how many classes are there? Both are asked of the photographs alone.

Nothing was learned where the maps are all but the same in all photographs (`STILL`), or where two of three signs say
so:
  * the pairs' term of the loss is not below chance, ln 2;
  * half or more of the maps' variance is the same in all photographs (`stillness`);
  * halves of the photographs, chosen by chance, find classes of their own that differ: the adjusted Rand index over
    the positions that are evident (`clustered`) is 1 where they agree, 0 by chance. It is asked of the workbook's.

How many classes: each is to be in all photographs. Of k clusters of what is evident, one that is only in some is not
what the group has in common; so K is the largest k up to which the rarest cluster is in nearly all alike.
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
STILL, HALF_STILL = 0.8, 0.5  # share of the maps' variance that is the same in all photographs
BELOW = 0.001  # chance that the pairs' loss has to get
ALIKE = 0.2  # adjusted Rand index that halves have to reach
EVIDENT = 0.75  # from here on a position shows an object: ranks, so a quarter or so of an image
EVEN = 0.93  # evenness of the rarest class over the photographs, from which on it is common to them
MOST = 5  # classes that are asked about


class Trust(NamedTuple):
    """pairs: the loss' term of pairs, `CHANCE` where nothing differs; still: of `stillness`; alike: mean of the
    halvings, NaN where it was not asked; why: what says that nothing was learned, "" where nothing does."""

    pairs: float
    still: float
    alike: float
    why: str

    def about(self) -> dict:
        """For a card; NaN as None."""
        numbers = {name: getattr(self, name) for name in ("pairs", "still", "alike")}
        return {name: None if math.isnan(value) else round(value, 4) for name, value in numbers.items()}


def judge(pairs: float, still: float, alike: float) -> Trust:
    """What the three figures say, as the head of this file has it; a figure that is NaN says nothing."""
    signs = {
        f"its loss, {pairs:.3f} a pair, is at chance, {CHANCE:.3f}": pairs > CHANCE - BELOW,
        f"{still:.0%} of what its maps say is the same in all photographs": still >= HALF_STILL,
        f"halves of the photographs find other classes (adjusted Rand index {alike:.2f})": alike < ALIKE,
    }
    against = [text for text, speaks in signs.items() if speaks]
    nothing = len(against) > 1 or still >= STILL
    return Trust(pairs, still, alike, f"nothing was learned, the masks say nothing: {', '.join(against)}" * nothing)


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


def agreement(job: ClusterJob, classes: int, halvings: int = HALVINGS) -> np.ndarray:
    """The adjusted Rand index of each halving, (halvings,). NaN of one class, and of fewer photographs than FEWEST."""
    if job.count < FEWEST or classes < 2:
        return np.full(halvings, np.nan)
    x, s = job.attended(job.base)
    evident, found = x.movedim(1, -1)[s >= EVIDENT], []
    for seed in range(halvings):
        order = torch.randperm(job.count, generator=torch.Generator().manual_seed(seed))
        halves = order[: job.count // 2], order[job.count // 2 :]
        centres = [job.prototypes(x[half], s[half], classes, seed)[job.config.backgrounds :] for half in halves]
        found.append(adjusted_rand_score(*((evident @ c.T).argmax(dim=1).numpy() for c in centres)))
    return np.array(found)


def trust_in(job: LearningJob, model, log: pd.DataFrame) -> Trust:
    """What speaks for and against a generator that a job has learned; `log` is of `LearningJob.optimise`.

    Networks of random weights, as of the smoke profile, are not expected to learn: nothing is said against them.
    """
    pairs, still = float(log.pairs[log.loss.idxmin()]), stillness(job.maps(model))
    alike = float(agreement(job, job.classes).mean()) if isinstance(job, ClusterJob) else math.nan
    found = judge(pairs, still, alike)
    return found if job.config.pretrained else found._replace(why="")


def evenness(job: ClusterJob, attended: Tensor, s: Tensor, classes: int) -> float:
    """How evenly the rarest of so many clusters of what is evident is spread over the photographs, in [0, 1].

    The entropy of its positions' shares in the photographs over that of equal shares: 1 where each has as many.
    """
    centres = job.prototypes(attended, s, classes, job.config.seed)[job.config.backgrounds :]
    labels = torch.einsum("nahw,qa->nqhw", attended, centres).argmax(dim=1)  # (n, h, w)
    counts = torch.stack([((labels == k) & (s >= EVIDENT)).sum(dim=(1, 2)) for k in range(classes)]).double()  # (k, n)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum(dim=1) / math.log(len(s))
    return float(entropy.min())


def propose_classes(job: LearningJob, say: Say = silent) -> tuple[int, pd.DataFrame]:
    """A K for a group, and a row a k from 1 to MOST: classes, even (`evenness`), alike (`agreement`, its mean).

    Says which, and how sure: by how much the evenness of K is above, and that of K + 1 below, what is asked for.
    """
    if not isinstance(job, ClusterJob):
        raise TypeError("the number of classes is found by the workbook's job alone")
    if job.count < FEWEST:
        say(f"classes: 1, of {job.count} photographs nothing can be said")
        return 1, pd.DataFrame({"classes": [1], "even": [1.0], "alike": [math.nan], "sure": [0.0]})
    attended, s = job.attended(job.base)
    even = [1.0, *(evenness(job, attended, s, k) for k in range(2, MOST + 1))]
    chosen = next((k for k, value in enumerate(even) if value < EVEN), MOST)
    margins = [even[chosen - 1] - EVEN] if chosen > 1 else []
    margins += [EVEN - even[chosen]] if chosen < MOST else []
    sure = min(1.0, min(margins) / (1 - EVEN))
    rows = pd.DataFrame({"classes": range(1, MOST + 1), "even": even})
    rows["alike"] = [float(agreement(job, k).mean()) for k in rows.classes]
    rows["sure"] = [sure if k == chosen else math.nan for k in rows.classes]
    word = "sure" if sure >= 0.5 else "not sure" if sure >= 0.15 else "a guess"
    shown = ", ".join(f"{k}: {value:.2f}" for k, value in zip(rows.classes, even, strict=True))
    say(f"classes: {chosen}, {word} ({sure:.2f}); how evenly the rarest of k is spread: {shown}; asked for: {EVEN}")
    return chosen, rows
