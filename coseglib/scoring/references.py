"""Protocols with references (`coseglib.answering.reference`): the group's first photographs come with their masks."""

import hashlib
import time
from collections.abc import Sequence

import pandas as pd
import torch

from coseglib.answering.answers import Engine, Question
from coseglib.answering.masks import masks
from coseglib.answering.reference import Reference, evidence_of
from coseglib.core.errors import CosegError
from coseglib.core.progress import Progress
from coseglib.data.record import Group
from coseglib.scoring import metrics
from coseglib.scoring.rows import Groups, Swap, check_one_class, swap_questions

MOST = 5  # references of a group; the photographs that are scored are in none of them
COUNTS = (0, 1, 3, 5)


def _order(group: Group) -> list[int]:
    """The photographs' places in the order in which they become references: by a hash of group and name."""
    names = [hashlib.sha256(f"{group.name}\n{photo.name}".encode()).hexdigest() for photo in group.photos]
    return sorted(range(len(group)), key=names.__getitem__)


def split(group: Group) -> tuple[list[int], list[int]]:
    """References, up to MOST, and the photographs that are scored: at least one, where there are two.

    A photograph in whose mask nothing is marked, or everything, is no reference.
    """
    order = _order(group)
    able = [i for i in order if {0, 1} <= set(group.mask(i).unique().tolist())]
    references = able[: min(MOST, len(group) - 1)]
    return references, [i for i in range(len(group)) if i not in references]


def reference_rows(
    model, groups: Groups, counts: Sequence[int] = COUNTS, how: str = "mean", limit: int | None = None, quiet=True
) -> pd.DataFrame:
    """One row a photograph that is no reference, and number of references: dataset, group, name, references, P, J,
    right, counted, intersection, union, seconds.

    counts  of references; 0: the group alone. The first 1 are among the first 3, and these among the first 5
    limit   only the first so many of each group's photographs are asked about
    All are asked with their whole group, by the protocol `common`. Raises CosegError for a multi-class model, groups of
    one photograph, or photographs without masks.
    """
    check_one_class(model)
    if lone := [group.name for group in groups if len(group) < 2]:
        raise CosegError(f"{lone[0]}: one photograph alone has no reference; leave this group out")
    rows, progress = [], Progress("scored", len(groups), "groups", quiet)
    for group in groups:
        engine, (references, asked) = Engine(model, group.photos), split(group)
        questions = [Question(i, range(len(group))) for i in asked[:limit]]
        for count in counts:
            started, evidence = time.perf_counter(), None
            if count and references:  # none where nobody's mask says anything
                given = [Reference(group.photos[i], group.mask(i)) for i in references[:count]]
                evidence = evidence_of(engine, given, range(len(group)), how)
            scored = []
            for answer, mask in masks(model, engine.answers(questions, how, evidence=evidence), count=len(questions)):
                truth, photo = group.mask(answer.photo), group.photos[answer.photo]
                row = {"dataset": group.dataset, "group": group.name, "name": photo.name, "references": count}
                row |= {"P": metrics.precision(mask, truth), "J": metrics.jaccard(mask, truth)}
                names = ("right", "counted", "intersection", "union")
                scored.append(row | dict(zip(names, metrics.counts(mask, truth), strict=True)))
            seconds = (time.perf_counter() - started) / len(scored)
            rows += [row | {"seconds": seconds} for row in scored]
        progress.add(note=group.name)
    return pd.DataFrame(rows)


@torch.no_grad()
def swap_by_reference(
    model, groups: Groups, references: int, how: str = "mean", sources: Groups | None = None
) -> pd.DataFrame:
    """`rows.partner_swap`, the first `references` of each question's partners with their masks."""
    check_one_class(model)
    swaps = swap_questions(groups, sources=sources)
    if not swaps:
        raise CosegError("partner-swap: no photograph stands in two groups of this data set; use pascal or voc-val")
    targets = {group.name: group.targets for group in sources or groups}

    def row(swap: Swap) -> dict:
        engine, group = Engine(model, [*swap.partners, swap.photo]), range(len(swap.partners))
        marked = [(p, p.mask(targets[swap.asked])) for p in swap.partners]
        given = [Reference(p, mask) for p, mask in marked if {0, 1} <= set(mask.unique().tolist())][:references]
        evidence = evidence_of(engine, given, group, how) if given else None
        ((_, mask),) = masks(model, engine.answers([Question(len(group), group)], how, evidence=evidence))
        scores = [metrics.jaccard(mask, g.mask(i)) for g, i in (swap.asked_place, swap.other_place)]
        about = {"photo": swap.photo.name, "asked": swap.asked, "other": swap.other}
        return about | dict(zip(("J_asked", "J_other", "score"), (*scores, scores[0] - scores[1]), strict=True))

    return pd.DataFrame([row(swap) for swap in swaps])
