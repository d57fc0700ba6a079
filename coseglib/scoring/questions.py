"""What an average of J does not show: does a mask follow the partners, does a model know when nothing is common?"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch

from coseglib.answering.answers import Engine, Question
from coseglib.answering.masks import foreground_score, masks
from coseglib.core.errors import CosegError
from coseglib.data.record import Group, Photo
from coseglib.scoring import metrics
from coseglib.scoring.rows import check_one_class, generator_of


class Swap(NamedTuple):
    """A photograph that stands in two groups, asked with partners of one of them."""

    photo: Photo
    asked: str  # names of the two groups
    other: str
    asked_place: tuple[Group, int]  # (group, place in it): where its masks for the two are
    other_place: tuple[Group, int]
    partners: list[Photo]  # photographs of the group asked for


def swap_questions(
    groups: Sequence[Group], partners: int = 20, seed: int = 0, sources: Sequence[Group] | None = None
) -> list[Swap]:
    """Where one photograph stands in two groups, two questions: which class do the partners ask for?

    partners  up to so many other photographs of the class, drawn by the seed, the class and the photograph; itself,
              under whatever name, is never among them
    sources   where partners come from, groups of the same names; None: the groups themselves
    """
    content = [[photo.content() for photo in group.photos] for group in groups]
    places = defaultdict(list)
    for g, names in enumerate(content):
        for i, name in enumerate(names):
            places[name].append((g, i))
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
    model,
    groups: Sequence[Group],
    partners: int = 20,
    how: str = "mean",
    seed: int = 0,
    sources: Sequence[Group] | None = None,
) -> pd.DataFrame:
    """One row a question: photo, asked, other, J_asked, J_other, score = J_asked − J_other. A saliency model scores 0.

    J of the one mask that the partners of the class asked for select, against that class and against the photograph's
    other class, at the photograph's own size.
    """
    check_one_class(model)
    swaps = swap_questions(groups, partners, seed, sources)
    if not swaps:
        raise CosegError("partner-swap: no photograph stands in two groups of this data set; use pascal or voc-val")
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
def refusal(model, groups: Sequence[Group], seed: int = 0, limit: int | None = None) -> pd.DataFrame:
    """Two rows a photograph: with a partner of its own group (common = 1) and of a group whose class it lacks (0).

    limit  only the first so many photographs of each group are asked about; None: all
    Columns group, name, partner, common, score (`foreground_score`). AUROC: `metrics.auroc(table.score, table.common)`.
    """
    check_one_class(model)
    content = [[photo.content() for photo in group.photos] for group in groups]
    holds = defaultdict(set)  # by content: the groups that a photograph stands in
    for g, names in enumerate(content):
        for name in names:
            holds[name].add(g)
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
