"""Where one group seems to hold two kinds of things: which photographs stand apart.

Of each photograph a small vector is kept: the mean of the coarsest features inside its mask. They are cut in two
(2-means), and the system is asked what it would be asked were the sides two groups: some of each side with their own,
and with the other side. Of one kind both find the object alike, however different the photographs look; of two, a
photograph asked with the other side finds less. How much less is the *drop* of the scores (`foreground_score`, one
look), the mean over ASKED photographs of each side.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.answers import Answer, Engine, Question
from coseglib.answering.masks import foreground_score
from coseglib.core.errors import CosegError
from coseglib.models.contract import Model

FEWEST = 6  # photographs, of which it is asked whether they are two groups
NUMBERS = 256  # of a vector at most
FITTED = 2000  # photographs that the two sides are found on; the others go to the nearer one
SEEN, ASKED = 16, 5  # photographs of a side that the other one is asked with, and that are asked
DROP, EACH = 0.25, 0.05  # from which on they are two: of both sides' mean, and of each
NAMED = 3  # files in the note


def is_asked(model: Model) -> bool:
    """Whether it was measured what the drop says of this kind of model."""
    return model.kind == "context"


def vector_of(features: Tensor, logits: Tensor) -> np.ndarray:
    """features (C, h, w), logits (2, H, W) of a photograph -> int8 (min(C, NUMBERS),), ± 127 the largest.

    The mean of the features, weighed by the foreground's probability; more than NUMBERS are projected at random.
    """
    p = F.interpolate(logits.softmax(0)[None, 1:2], size=features.shape[-2:], mode="area")[0] + 1e-3  # (1, h, w)
    pooled = (features.float().cpu() * p).sum(dim=(-2, -1)) / p.sum()  # (C,)
    if len(pooled) > NUMBERS:
        generator = torch.Generator().manual_seed(0)  # the same in every process and run
        pooled = pooled @ (2.0 * torch.randint(0, 2, (len(pooled), NUMBERS), generator=generator) - 1)
    return (127 * pooled / pooled.abs().max().clamp(min=1e-12)).round().to(torch.int8).numpy()


def with_vectors(engine: Engine, answers: Iterable[Answer], vectors: dict[int, np.ndarray]) -> Iterator[Answer]:
    """The answers, of `whole_group`; the vector of each one's photograph is put into `vectors`, by place."""
    batches = engine.batches(range(len(engine.photos)))
    for answer in answers:
        pictures = engine.read(batches[answer.photo // engine.batch])  # they were answered just now, and are kept
        row = list(pictures).index(answer.photo)
        vectors[answer.photo] = vector_of(engine.features(pictures)[-1][row], answer.logits)
        yield answer


def smaller_side(vectors: np.ndarray) -> np.ndarray:
    """vectors (n, d) -> bool (n,): who is on the smaller of two sides, of equal ones not the first's; nobody where
    there are none."""
    from sklearn.cluster import KMeans

    unit = vectors.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(1e-12)
    some = unit[_evenly(len(unit), FITTED)]
    if np.ptp(some, axis=0).max() < 1e-6:
        return np.zeros(len(unit), bool)
    sides = KMeans(2, n_init=4, random_state=0).fit(some).predict(unit).astype(bool)
    count = int(sides.sum())
    return ~sides if 2 * count > len(sides) or (2 * count == len(sides) and sides[0]) else sides


def _evenly(count: int, most: int) -> np.ndarray:
    """At most so many places of `count`, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


@torch.no_grad()
def drop_between(
    model: Model, one: Sequence[Path], other: Sequence[Path], bfloat16: bool = False
) -> tuple[float, float]:
    """How much less is found of each side's photographs, of scores in [0, 1], where they are asked with the other one.

    one, other  photographs as `Engine` takes them; SEEN of each are looked at, once
    """
    once = copy.copy(model)  # shares its weights
    once.looks = 1
    sides = [[side[i] for i in _evenly(len(side), SEEN)] for side in (one, other)]
    places = range(len(sides[0])), range(len(sides[0]), len(sides[0]) + len(sides[1]))
    engine, drops = Engine(once, [*sides[0], *sides[1]], bfloat16=bfloat16), []
    for own, theirs in (places, places[::-1]):
        asked = [own[i] for i in _evenly(len(own), ASKED)]
        answers = engine.answers([Question(i, group) for i in asked for group in (own, theirs)])
        scores = np.array([foreground_score(answer.logits) for answer in answers]).reshape(-1, 2)
        drops.append(float(scores[:, 0].mean() - scores[:, 1].mean()))
    return tuple(drops)


def find_apart(
    model: Model, photos: Sequence[Path], vectors: Mapping[int, np.ndarray], bfloat16: bool = False
) -> list[int]:
    """The places of the photographs that stand apart from the rest of a group; none where it seems to be one.

    vectors  of the photographs that could be read, by place
    """
    if len(vectors) < FEWEST:
        return []
    places = np.array(sorted(vectors))
    apart = smaller_side(np.stack([vectors[place] for place in places]))
    sides = [[photos[place] for place in places[side]] for side in (~apart, apart)]
    with contextlib.suppress(CosegError):  # a photograph that is gone by now
        drops = drop_between(model, *sides, bfloat16) if apart.any() else (0, 0)
        if np.mean(drops) >= DROP and min(drops) >= EACH:
            return places[apart].tolist()
    return []


def note_on(apart: Sequence[str], count: int) -> str:
    """What the user should know of files that stand apart from a group of `count`; "" for none."""
    if not apart:
        return ""
    names = ", ".join(Path(file).name for file in apart[:NAMED])
    more = f" and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
    them = f"{len(apart)} of {count} photographs stand apart ({names}{more})"
    return f"perhaps two groups: {them}; where they show something else, give them a folder of their own"
