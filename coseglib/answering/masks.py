"""From answers to masks at the photographs' own sizes: the larger label, or a dense CRF that draws the contour."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering import crf
from coseglib.answering.answers import BATCH, Answer, Engine, whole_group
from coseglib.answering.densecrf import solve
from coseglib.answering.reading import Picture
from coseglib.answering.reference import Reference, evidence_of
from coseglib.core.ahead import ahead
from coseglib.core.errors import CosegError
from coseglib.data.record import Photo
from coseglib.models.contract import POSTS

STRIP = 2**22  # pixels of a mask that are computed at once: 16 MiB of logits
MANY = 12  # dense CRFs from which on other processes, a second to start, are worth it


def masks_from_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """logits (2, h, w) -> mask uint8 (H, W), 1 where the foreground's logit is above the background's.

    size  (H, W), the photograph's own
    Bilinear interpolation (align_corners=False) of both maps and then argmax, computed on their difference and in
    strips of rows: a mask of 12,000 × 9,000 needs its own 108 MB and a few more.
    """
    height, width = size
    difference = (logits[1] - logits[0]).float()  # (h, w)
    h = difference.shape[0]
    wide = F.interpolate(difference[None, None], size=(h, width), mode="bilinear")[0, 0]  # (h, W)
    source = ((torch.arange(height, device=wide.device) + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
    above = source.long()
    below = (above + 1).clamp(max=h - 1)
    share = (source - above)[:, None]  # of the row below
    mask = torch.empty(size, dtype=torch.uint8, device=wide.device)
    rows = max(1, STRIP // width)
    for y in range(0, height, rows):
        strip = slice(y, y + rows)
        mask[strip] = torch.lerp(wide[above[strip]], wide[below[strip]], share[strip]) > 0
    return mask


def foreground(logits: Tensor) -> Tensor:
    """logits (2, h, w) -> the foreground's probability (h, w), float32."""
    return (logits[1] - logits[0]).float().sigmoid()


def foreground_score(logits: Tensor) -> float:
    """How sure a model is that something is common: mean of the 200 highest of 64² foreground probabilities."""
    p = foreground(logits)
    p = F.interpolate(p[None, None], size=(64, 64), mode="bilinear", antialias=True)
    return float(p.flatten().topk(200).values.mean())


def decide(picture: Picture, logits: Tensor, post: str, online: bool = False) -> list[Tensor]:
    """Answers about one photograph -> their masks, uint8 (H, W), at its own size.

    logits  (N, K, h, w), N answers; the dense CRF's prices between pixels are computed once for all
    post    "argmax" or "crf"
    online  label maps 0 … K−1 of a multi-class model, whose maps are normalised (`coseglib.answering.crf`)
    """
    if post == "crf":
        return _from_crf(solve(crf.asked_of_crf(picture.pixels, logits, online)), picture, online)
    if online:
        return [crf.argmax_labels(m, picture.size) for m in logits.softmax(dim=1)]
    return [masks_from_logits(answer, picture.size) for answer in logits]


def _from_crf(marginals: np.ndarray, picture: Picture, online: bool) -> list[Tensor]:
    """marginals (N, K, H', W') of a photograph -> N masks at its own size."""
    found = torch.from_numpy(marginals)
    if online:
        return [crf.labels_from(p, picture.size) for p in found]
    return [masks_from_logits(answer, picture.size) for answer in crf.log_of(found)]


def post_of(model, asked: str | None = None) -> str:
    """How a model's maps become masks: as asked, else as the model says; by argmax where no dense CRF is installed.

    Raises CosegError for what is neither, or where a CRF is asked for and is not installed.
    """
    post = asked or model.post
    if post not in POSTS:
        raise CosegError(f"post = {post}: one of {', '.join(POSTS)}")
    return post if asked or post == "argmax" or crf.crf_installed() else "argmax"


def masks(
    model, answers: Iterable[Answer], post: str | None = None, count: int = 0, workers: int | None = None
) -> Iterator[tuple[Answer, Tensor]]:
    """Each answer and its mask, uint8 (H, W), in their order.

    post     "argmax" or "crf"; None: as the model says (`post_of`)
    count    how many answers there are, as far as known: a dense CRF takes a core some tenths of a second, and many are
             spread over all cores
    workers  processes for that; None: by `count`
    Half of a dense CRF is the photograph's own, so answers about one in a row are decided together.
    """
    post = post_of(model, post)
    rows = (list(row) for _, row in groupby(answers, key=lambda answer: answer.photo))
    workers = workers or _workers(post, count)
    if post == "argmax" or workers == 1:
        for row in ahead(rows, BATCH):
            logits = torch.stack([answer.logits for answer in row])
            yield from zip(row, decide(row[0].picture, logits, post, model.online), strict=True)
        return
    from joblib import Parallel, delayed

    waiting: list[list[Answer]] = []

    def jobs() -> Iterator:
        for row in ahead(rows, BATCH):
            waiting.append(row)
            logits = torch.stack([answer.logits for answer in row])
            yield delayed(solve)(crf.asked_of_crf(row[0].picture.pixels, logits, model.online))

    for marginals in Parallel(workers, return_as="generator", batch_size=1, max_nbytes=None)(jobs()):
        row = waiting.pop(0)
        yield from zip(row, _from_crf(marginals, row[0].picture, model.online), strict=True)


def _workers(post: str, count: int) -> int:
    """Processes that `count` masks are worth."""
    if post != "crf" or count < MANY:
        return 1
    from joblib import cpu_count  # those that this process may use

    return cpu_count()


def segment_group(
    model,
    photos: Sequence[Tensor | Photo],
    how: str = "mean",
    context: Tensor | None = None,
    post: str | None = None,
    limit: int | None = None,
    references: Sequence[Reference] = (),
    **options,
) -> Iterator[Tensor]:
    """The masks of a group, in its order: uint8 (H, W), 0 and 1 (multi-class: 0 … K), at each photograph's own size.

    photos   uint8 (3, H, W) each, or `Photo`s
    how      how the group's attention is pooled, "mean" or "min"; a group of one is attended by itself
    context  attention (D,) to segment by instead of the group's own, from `pooled_context`
    post     how maps become masks, "argmax" or "crf"; None: as the model says
    limit    only the first so many photographs are segmented, with the whole group; None: all
    references  pictures in which the object that is meant is marked (`coseglib.answering.reference`)
    options  batch, memory: of `Engine`
    Raises CosegError for an iterator, which can be read only once, or a model whose kind is not known.
    """
    if not hasattr(photos, "__len__"):
        raise CosegError("a group is read twice: give a sequence, not an iterator")
    questions = whole_group(len(photos))[:limit]
    engine = Engine(model, photos, **options)
    evidence = evidence_of(engine, references, range(len(photos)), how) if references else None
    answers = engine.answers(questions, how, context, evidence)
    for _, mask in masks(model, answers, post, len(questions)):
        yield mask
