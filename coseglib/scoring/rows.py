"""Protocols applied to models: a row a photograph, with its P and J.

What a photograph is asked with is a question of `coseglib.answering`; here is chosen which questions a protocol asks.
"""

import hashlib
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.answers import Answer, Engine, Question
from coseglib.answering.masks import masks, masks_from_logits
from coseglib.core.errors import CosegError
from coseglib.core.progress import Progress
from coseglib.data.record import Group, resize_labels
from coseglib.scoring import metrics

PARTNERS = ("group", "self", "other")


def generator_of(*key: object) -> np.random.Generator:
    """A generator that the key's text seeds: the same in every run, on every machine, for every order of asking."""
    digest = hashlib.sha256("\n".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def questions_of(group: Group, other: Group | None, partners: Sequence[str], pairs: bool, limit: int | None, seed: int):
    """What is asked about the first `limit` photographs of a group: a question for each of the partners.

    Places count the group's photographs and then those of the other group.
    pairs  one photograph, drawn by seed, group, photograph and partner, stands for the group; itself where it is alone
    """
    n = len(group)
    pools = {"group": range(n), "other": range(n, n + len(other or ()))}
    asked = []
    for i, photo in enumerate(group.photos[:limit]):
        for partner in partners:
            pool = pools.get(partner, range(i, i + 1))
            if pairs and partner != "self":
                others = [j for j in pool if j != i] or [i]
                pool = (int(generator_of(seed, group.name, photo.name, partner).choice(others)),)
            asked.append(Question(i, pool))
    return asked


def _counted(answer: Answer, mask: Tensor | None, truth: Tensor, rule: metrics.Protocol, side: int):
    """Mask and truth at the size, and by the threshold, of a protocol. mask: by the model's own rule, or None."""
    if rule.size == "network":
        truth = resize_labels(truth, (side, side))
    if mask is None:
        mask = masks_from_logits(answer.logits, tuple(truth.shape))
    if rule.threshold != "argmax":
        logits = F.interpolate(answer.logits[None].float(), size=tuple(truth.shape), mode="bilinear")[0]
        mask = metrics.binarise(logits.softmax(0)[1], rule.threshold)
    return mask, truth


@torch.no_grad()
def evaluate(
    model,
    groups: Sequence[Group],
    protocol: str = "common",
    partner: str | Sequence[str] = "group",
    how: str = "mean",
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> pd.DataFrame:
    """One row a photograph and partner: dataset, group, name, partner, P, J, right, counted, intersection, union,
    seconds.

    partner   with whom a photograph is asked: "group", all of its own group (itself included, algorithm 1); "self",
              itself alone; "other", the group half the table away. Or several of them, asked in one go
    protocol  a key of `metrics.PROTOCOLS`; where its context is "pair", one other photograph of the group, drawn by the
              seed, stands for the group (and one of the wrong group for that)
    limit     only the first so many photographs of each group are asked about, all with their whole group; None: all
    quiet     False: how far it is is said on stderr
    A model that asks for the dense CRF gets it where masks are counted at their own size by argmax alone: no paper's
    protocol on one class has it. Averages: `metrics.aggregate`, of the rows of one partner. Raises CosegError for an
    unknown protocol or partner, photographs without masks, a multi-class model, or "other" with a single group.
    """
    partners = (partner,) if isinstance(partner, str) else tuple(partner)
    for name in partners:
        if name not in PARTNERS:
            raise CosegError(f"{name}: no such partner; one of {', '.join(PARTNERS)}")
    if protocol not in metrics.PROTOCOLS:
        raise CosegError(f"{protocol}: no such protocol; one of {', '.join(metrics.PROTOCOLS)}")
    check_one_class(model)
    if "other" in partners and len(groups) == 1:
        raise CosegError(f"{groups[0].name}: partner other needs a second group; give more groups, or group or self")
    rule = metrics.PROTOCOLS[protocol]
    own = rule.size == "own" and rule.threshold == "argmax"
    rows, progress = [], Progress("scored", len(groups), "groups", quiet)
    for g, group in enumerate(groups):
        other = groups[(g + len(groups) // 2) % len(groups)] if "other" in partners else None
        questions = questions_of(group, other, partners, rule.context == "pair", limit, seed)
        started = time.perf_counter()
        answers = Engine(model, [*group.photos, *(other.photos if other else ())]).answers(questions, how)
        decided = masks(model, answers, count=len(questions)) if own else ((answer, None) for answer in answers)
        scored = []
        for answer, mask in decided:
            mask, truth = _counted(answer, mask, group.mask(answer.photo), rule, model.input_size)
            right, counted, intersection, union = metrics.counts(mask, truth)
            row = {"dataset": group.dataset, "group": group.name, "name": group.photos[answer.photo].name}
            row |= {"partner": partners[answer.number % len(partners)]}
            row |= {"P": metrics.precision(mask, truth), "J": metrics.jaccard(mask, truth, rule.empty)}
            scored.append(row | dict(right=right, counted=counted, intersection=intersection, union=union))
        seconds = (time.perf_counter() - started) / max(1, len(scored))
        rows += [row | {"seconds": seconds} for row in scored]
        progress.add(note=group.name)
    return pd.DataFrame(rows)


def check_one_class(model) -> None:
    """Raises CosegError for a multi-class model."""
    if model.online:
        raise CosegError(f"{type(model).__name__}: its classes have no names to ask for; `coseg evaluate` scores it")
