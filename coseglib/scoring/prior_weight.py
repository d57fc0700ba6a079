"""How much a prior (`coseglib.answering.priors`) should count beside a system: J at several weights, in one pass."""

import time
from collections.abc import Sequence

import pandas as pd
import torch

from coseglib.answering.answers import Engine, whole_group
from coseglib.answering.masks import decide, post_of
from coseglib.core.errors import CosegError
from coseglib.core.progress import Progress
from coseglib.data.record import check_masks
from coseglib.scoring import metrics
from coseglib.scoring.rows import Groups, check_one_class

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)  # 0: the system alone


@torch.no_grad()
def weight_rows(
    model,
    groups: Groups,
    weights: Sequence[float] = WEIGHTS,
    how: str = "mean",
    limit: int | None = None,
    quiet: bool = True,
) -> pd.DataFrame:
    """A row a photograph and weight: dataset, group, name, weight, P, J, right, counted, intersection, union, seconds.

    model  with a prior, whose own weight does not matter     how, limit, quiet  of `coseglib.scoring.rows.evaluate`
    All by `common`: asked with the whole group, at the photograph's own size. The network answers once, so the weights
    cost their masks. Raises CosegError for a model without a prior, photographs without a mask or without a map.
    """
    check_one_class(model)
    prior = model.prior
    if prior is None:
        raise CosegError("no prior, so there is no weight to choose; name one with --prior")
    asked = [photo for group in groups for photo in group.photos[:limit]]
    check_masks(asked)
    prior.check(asked)
    post, rows, progress = post_of(model), [], Progress("scored", len(groups), "groups", quiet)
    try:
        model.prior = None  # the system alone answers, and what is added comes after
        for group in groups:
            started, scored = time.perf_counter(), []
            for answer in Engine(model, group.photos).answers(whole_group(len(group))[:limit], how):
                photo, truth = group.photos[answer.photo], group.mask(answer.photo)
                added = prior.logits(photo, answer.picture, tuple(answer.logits.shape[-2:]))
                several = torch.stack([prior.weighing(w).add(answer.logits, added) for w in weights])
                for weight, mask in zip(weights, decide(answer.picture, several, post), strict=True):
                    right, counted, intersection, union = metrics.counts(mask, truth)
                    row = {"dataset": group.dataset, "group": group.name, "name": photo.name, "weight": weight}
                    row |= {"P": metrics.precision(mask, truth), "J": metrics.jaccard(mask, truth)}
                    scored.append(row | dict(right=right, counted=counted, intersection=intersection, union=union))
            seconds = (time.perf_counter() - started) / max(1, len(scored))
            rows += [row | {"seconds": seconds} for row in scored]
            progress.add(note=group.name)
    finally:
        model.prior = prior
    return pd.DataFrame(rows)
