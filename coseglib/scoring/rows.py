"""Questions chosen, asked and scored: a protocol's, whether a mask follows the partners, whether anything is common."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.answers import Answer, Engine, Question
from coseglib.answering.masks import foreground_score, masks, masks_from_logits
from coseglib.core.errors import CosegError
from coseglib.core.progress import Progress
from coseglib.data.record import Group, Photo, check_masks, resize_labels
from coseglib.scoring import metrics

PARTNERS = ("group", "self", "other")
Groups = Sequence[Group]


def generator_of(*key: object) -> np.random.Generator:
    """A generator that the key's text seeds: the same in every run, on every machine, for every order of asking."""
    digest = hashlib.sha256("\n".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def check_one_class(model) -> None:
    """Raises CosegError for a multi-class model."""
    if model.online:
        raise CosegError(f"{type(model).__name__}: its classes have no names to ask for; `coseg evaluate` scores it")


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
        probability = logits.softmax(0)[1]
        mask = (probability > metrics.ssnm_threshold(probability)).to(torch.uint8)
    return mask, truth


@torch.no_grad()
def evaluate(
    model,
    groups: Groups,
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
    check_masks(photo for group in groups for photo in group.photos[:limit])
    if model.prior:
        model.prior.check(photo for group in groups for photo in group.photos[:limit])
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


class Swap(NamedTuple):
    """A photograph that stands in two groups, asked with partners of one of them."""

    photo: Photo
    asked: str  # names of the two groups
    other: str
    asked_place: tuple[Group, int]  # (group, place in it): where its masks for the two are
    other_place: tuple[Group, int]
    partners: list[Photo]  # photographs of the group asked for


def _contents(groups: Groups) -> tuple[list[list[str]], dict[str, list[tuple[int, int]]]]:
    """Each group's photographs by their content; and by content, the (group, place in it) of each that holds it."""
    content, places = [[photo.content() for photo in group.photos] for group in groups], defaultdict(list)
    for g, names in enumerate(content):
        for i, name in enumerate(names):
            places[name].append((g, i))
    return content, places


def swap_questions(groups: Groups, partners: int = 20, seed: int = 0, sources: Groups | None = None) -> list[Swap]:
    """Where one photograph stands in two groups, two questions: which class do the partners ask for?

    partners  up to so many other photographs of the class, drawn by the seed, the class and the photograph; itself,
              under whatever name, is never among them
    sources   where partners come from, groups of the same names; None: the groups themselves
    """
    content, places = _contents(groups)
    pools = {group.name: [(p, p.content()) for p in group.photos] for group in sources or groups}
    questions = []
    for g, group in enumerate(groups):
        for i, photo in enumerate(group.photos):
            for h, j in places[content[g][i]]:
                if h == g or group.name not in pools:
                    continue
                others = [p for p, c in pools[group.name] if c != content[g][i]]
                order = generator_of(seed, group.name, photo.name).permutation(len(others))[:partners]
                drawn = [others[k] for k in sorted(order)]
                questions.append(Swap(photo, group.name, groups[h].name, (group, i), (groups[h], j), drawn))
    return questions


@torch.no_grad()
def partner_swap(
    model, groups: Groups, partners: int = 20, how: str = "mean", seed: int = 0, sources: Groups | None = None
) -> pd.DataFrame:
    """One row a question: photo, asked, other, J_asked, J_other, score = J_asked − J_other. A saliency model scores 0.

    J of the one mask that the partners of the class asked for select, against that class and against the photograph's
    other class, at the photograph's own size.
    """
    check_one_class(model)
    swaps = swap_questions(groups, partners, seed, sources)
    if not swaps:
        raise CosegError("partner-swap: no photograph stands in two groups of this data set; use pascal or voc-val")
    check_masks(group.photos[i] for swap in swaps for group, i in (swap.asked_place, swap.other_place))
    photos: dict[tuple[str, str], Photo] = {}
    for swap in swaps:
        for photo in (swap.photo, *swap.partners):
            photos.setdefault((photo.dataset, photo.name), photo)
    place = {key: k for k, key in enumerate(photos)}

    def places(some: Sequence[Photo]) -> tuple[int, ...]:
        return tuple(place[p.dataset, p.name] for p in some)

    questions = [Question(*places([swap.photo]), places(swap.partners)) for swap in swaps]
    rows: list[dict] = [{}] * len(swaps)
    answers = Engine(model, list(photos.values())).answers(questions, how)
    for answer, mask in masks(model, answers, count=len(questions)):
        swap = swaps[answer.number]
        row = {"photo": swap.photo.name, "asked": swap.asked, "other": swap.other}
        for column, (group, i) in (("J_asked", swap.asked_place), ("J_other", swap.other_place)):
            row[column] = metrics.jaccard(mask, group.mask(i))
        rows[answer.number] = row | {"score": row["J_asked"] - row["J_other"]}
    return pd.DataFrame(rows)


@torch.no_grad()
def refusal(model, groups: Groups, seed: int = 0, limit: int | None = None) -> pd.DataFrame:
    """Two rows a photograph: with a partner of its own group (common = 1) and of a group whose class it lacks (0).

    limit  only the first so many photographs of each group are asked about; None: all
    Columns group, name, partner, common, score (`foreground_score`). AUROC: `metrics.auroc(table.score, table.common)`.
    """
    check_one_class(model)
    content, places = _contents(groups)
    holds = {name: {g for g, _ in stands} for name, stands in places.items()}  # by content: a photograph's groups
    first = [sum(map(len, groups[:g])) for g in range(len(groups))]
    questions, rows = [], []
    for g, group in enumerate(groups):
        for i, name in enumerate(content[g][:limit]):
            rng = generator_of(seed, group.name, group.photos[i].name)
            own = [k for k in range(len(group)) if content[g][k] != name]
            foreign = [h for h in range(len(groups)) if h not in holds[name]]
            if not own or not foreign:
                continue
            h = int(rng.choice(foreign))
            # A partner of the foreign group that holds this photograph's class as well would be a partner after all.
            strangers = [k for k in range(len(groups[h])) if not (holds[content[h][k]] & holds[name])]
            if not strangers:
                continue
            for common, (f, k) in ((1, (g, int(rng.choice(own)))), (0, (h, int(rng.choice(strangers))))):
                questions.append(Question(first[g] + i, (first[f] + k,)))
                row = {"group": group.name, "name": group.photos[i].name, "partner": groups[f].photos[k].name}
                rows.append(row | {"common": common})
    if not rows:
        raise CosegError("refusal: needs two groups of two photographs or more, of different classes")
    for answer in Engine(model, [p for group in groups for p in group.photos]).answers(questions):
        rows[answer.number]["score"] = foreground_score(answer.logits)
    return pd.DataFrame(rows)
