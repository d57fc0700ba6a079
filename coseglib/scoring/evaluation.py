"""Protocols applied to models: tidy tables, one row a photograph, and what an average of J does not show.

`evaluate`      P and J of every photograph of every group, attended by its group, by itself, or by a wrong group
`partner_swap`  does the mask follow the partner where a photograph holds two classes?
`refusal`       does the model know when nothing is common?
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, cpu_count, delayed
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.crf import post_of
from coseglib.answering.inference import contours, foreground_score, mask_of, masks_from_logits, resize_to_input
from coseglib.answering.second_look import looks, reduced, second_look
from coseglib.core.errors import CosegError
from coseglib.data.record import Group, Photo
from coseglib.scoring import metrics

PARTNERS = ("group", "self", "other")
BATCH = 16  # images, or pairs of them, that go through a network at once
COMPARED = 5  # partners that a partner model compares a photograph with
KEPT = 96  # photographs whose features are kept for further comparisons
MANY = 24  # dense CRFs from which on other processes, seconds to start, are worth it


def _inputs(model, images: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    device = next(model.parameters()).device
    stacked = torch.stack([resize_to_input(i, model.input_size) for i in images])
    return stacked.to(device), [tuple(i.shape[-2:]) for i in images]


def answers(
    model, photos: Sequence[Photo], questions: Sequence[tuple[int, Sequence[int]]], how: str = "mean"
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """For each question (photograph, its partners; indices into `photos`): logits (2, h, w) and the own size (H, W).

    context  every photograph is read once for its attention and once for its mask; the attention of the partners is
             pooled once for every distinct set of them, by `how`; a model may look twice (`coseglib.answering.second_look`)
    partner  at most COMPARED partners a question, drawn by the question's number; the photograph itself only where it
             has no other; probabilities are averaged
    group    a question that shares its partners with others, and is one of them: the partners in their order, cut into
             the model's `group_size` (the last cut filled up from the start); else the photograph and as many drawn
    Raises CosegError for a kind of model that is none of these, or `how` other than "mean" where nothing is pooled.
    """
    if model.online:
        raise CosegError(f"{type(model).__name__}: its classes have no names to ask for; `coseg evaluate` scores it")
    if model.kind not in ANSWERS:
        raise CosegError(f"{type(model).__name__}: questions for {model.kind} models are not known to this evaluation")
    if how != "mean" and model.kind != "context":
        raise CosegError(f"{how}: pools the attention of ca, fca and csa; leave it out for {type(model).__name__}")
    return ANSWERS[model.kind](model, photos, questions, how)


@torch.no_grad()
def _context_answers(model, photos, questions, how):
    wanted = sorted({j for _, partners in questions for j in partners})
    alpha = {}
    for start in range(0, len(wanted), BATCH):
        some = wanted[start : start + BATCH]
        images, _ = _inputs(model, [photos[i].image() for i in some])
        alpha |= dict(zip(some, model.attention(model.encode(images)), strict=True))
    pooled: dict[tuple[int, ...], Tensor] = {}
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        contexts = []
        for _, partners in part:
            key = tuple(partners)
            if key not in pooled:
                pooled[key] = model.pool(torch.stack([alpha[j] for j in key]), how)
            contexts.append(pooled[key])
        read = list(dict.fromkeys(i for i, _ in part))  # a photograph of several questions is read and encoded once
        pictures = [photos[i].image() for i in read]
        images, sizes = _inputs(model, pictures)
        rows = [read.index(i) for i, _ in part]
        logits = model.decode([f[rows] for f in model.encode(images)], torch.stack(contexts))
        if looks(model) > 1:
            logits = second_look(model, [reduced(pictures[k]) for k in rows], logits, torch.stack(contexts))
        yield from zip(logits.cpu(), [sizes[k] for k in rows], strict=True)


@torch.no_grad()
def _partner_answers(model, photos, questions, how):
    asked = []
    for number, (i, partners) in enumerate(questions):
        others = [j for j in partners if j != i] or [i]
        drawn = np.random.default_rng((number, len(others))).permutation(len(others))[:COMPARED]
        asked.append((i, [others[k] for k in drawn]))
    kept: OrderedDict[int, tuple[tuple[Tensor, ...], tuple[int, int]]] = OrderedDict()  # the last used one last

    def features(numbers: list[int]) -> list[Tensor]:
        """The pyramids of some photographs, read and encoded once while they are asked for again and again."""
        new = [j for j in dict.fromkeys(numbers) if j not in kept]
        for start in range(0, len(new), BATCH):
            some = new[start : start + BATCH]
            images, sizes = _inputs(model, [photos[j].image() for j in some])
            pyramids = zip(*(f.split(1) for f in model.encode(images)), strict=True)
            kept.update(zip(some, zip(pyramids, sizes, strict=True), strict=True))
        for j in numbers:
            kept.move_to_end(j)
        stacked = [torch.cat(maps) for maps in zip(*(kept[j][0] for j in numbers), strict=True)]
        while len(kept) > max(KEPT, len(set(numbers))):
            kept.popitem(last=False)
        return stacked

    for start in range(0, len(asked), BATCH // COMPARED):
        part = asked[start : start + BATCH // COMPARED]
        pairs = [(i, j) for i, drawn in part for j in drawn]
        maps = features([n for pair in pairs for n in pair])
        logits = model.compare([f[0::2] for f in maps], model.heard([f[1::2] for f in maps])).logits
        rows = 0
        for i, drawn in part:
            p = logits[rows : rows + len(drawn)].softmax(1).mean(0)
            rows += len(drawn)
            yield p.clamp(min=1e-6).log().cpu(), kept[i][1]


@torch.no_grad()
def _group_answers(model, photos, questions, how):
    sharing: dict[tuple[int, ...], list[int]] = {}
    for number, (i, partners) in enumerate(questions):
        key = tuple(partners) if i in partners else (i, *partners)
        sharing.setdefault(key, []).append(number)
    found: dict[int, tuple[Tensor, tuple[int, int]]] = {}
    size, due = model.group_size, 0
    for key, numbers in sharing.items():
        rows: dict[int, list[int]] = {}
        for number in numbers:
            rows.setdefault(questions[number][0], []).append(number)
        if len(rows) == 1 and len(key) > size:  # a photograph that asks alone: itself and others, drawn
            i = questions[numbers[0]][0]
            others = [j for j in key if j != i]
            drawn = np.random.default_rng((numbers[0], len(others))).permutation(len(others))[: size - 1]
            key = (i, *(others[k] for k in drawn))
        for start in range(0, len(key), size):
            members = list(key[start : start + size])
            filled = members + [j for j in key if j not in members][: size - len(members)]
            if not set(members) & set(rows):
                continue
            images, sizes = _inputs(model, [photos[j].image() for j in filled])
            logits = model(images[None]).logits[0].cpu()
            found |= {number: (logits[k], sizes[k]) for k, j in enumerate(members) for number in rows.get(j, ())}
        while due in found:
            yield found.pop(due)
            due += 1


ANSWERS = {"context": _context_answers, "partner": _partner_answers, "group": _group_answers}


def _wrong_group(groups: Sequence[Group], g: int) -> Group:
    """The group half the table away: a fixed choice, another class."""
    return groups[(g + max(1, len(groups) // 2)) % len(groups)]


def _partners(i: int, pool: Sequence[int], context: str, rng: np.random.Generator) -> tuple[int, ...]:
    """The partners of photograph i: all of the pool, or one of it that is not itself; an empty pool: itself."""
    if context == "pair":
        others = [j for j in pool if j != i]
        return (int(rng.choice(others)),) if others else (i,)
    return tuple(pool) or (i,)


def own_mask(model, photo: Photo, logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask that `coseg segment` would write: uint8 (H, W), its own size; by the CRF where the model asks for it."""
    post = post_of(model)
    return mask_of(model, reduced(photo.image()) if post == "crf" else None, logits, size, post)


def own_masks(model, asked: Iterable[tuple[Photo, Tensor, tuple[int, int]]], count: int) -> Iterator[Tensor]:
    """`own_mask` of each (photograph, logits, size), in their order. count: how many there are.

    A dense CRF takes a core some tenths of a second and leaves the others idle: many are spread over all. Half of it is
    the photograph's own, so what is asked of one in a row is decided together.
    """
    if post_of(model) != "crf":
        yield from (own_mask(model, *one) for one in asked)
        return

    def jobs():
        for _, row in groupby(asked, key=lambda one: (one[0].dataset, one[0].name)):
            photos, logits, sizes = zip(*row, strict=True)
            yield delayed(contours)(reduced(photos[0].image()), torch.stack(logits), sizes[0])

    workers = 1 if count < MANY else cpu_count()
    for masks in Parallel(n_jobs=workers, return_as="generator", batch_size=1)(jobs()):
        yield from masks


def _mask(logits: Tensor, size: tuple[int, int], threshold: str) -> Tensor:
    """uint8 (H, W) by the protocol's threshold."""
    if threshold == "argmax":
        return masks_from_logits(logits, size)
    logits = F.interpolate(logits[None].float(), size=tuple(size), mode="bilinear")[0]
    return metrics.binarise(logits.softmax(0)[1], threshold)


def evaluate(
    model,
    groups: Sequence[Group],
    protocol: str = "common",
    partner: str | Sequence[str] = "group",
    how: str = "mean",
    limit: int | None = None,
    seed: int = 0,
    progress=None,
) -> pd.DataFrame:
    """One row a photograph and partner: dataset, group, name, partner, P, J, right, counted, intersection, union,
    seconds.

    partner   whose attention a photograph receives: "group", its own group's (itself included, algorithm 1); "self",
              its own; "other", that of the group half the table away. Or several of them, asked in one go
    protocol  a key of `metrics.PROTOCOLS`; where its context is "pair", one other photograph of the group, drawn by the
              seed, stands for the group (and one of the wrong group for that)
    limit     the first so many photographs of each group; None: all
    progress  called with (group's name, done, total)
    A model that asks for the dense CRF gets it where masks are counted at their own size by argmax alone: no paper's
    protocol on one class has it. Averages: `metrics.aggregate`, of the rows of one partner. Raises CosegError for an
    unknown protocol or partner, or photographs without masks.
    """
    asked = (partner,) if isinstance(partner, str) else tuple(partner)
    for name in asked:
        if name not in PARTNERS:
            raise CosegError(f"{name}: no such partner; one of {', '.join(PARTNERS)}")
    if protocol not in metrics.PROTOCOLS:
        raise CosegError(f"{protocol}: no such protocol; one of {', '.join(metrics.PROTOCOLS)}")
    rule = metrics.PROTOCOLS[protocol]
    rows = []
    for g, group in enumerate(groups):
        photos = list(group.photos[:limit])
        n = len(photos)
        wrong = _wrong_group(groups, g).photos[:limit] if "other" in asked else ()
        pools = {"group": range(n), "self": (), "other": range(n, n + len(wrong))}
        drawn = {name: np.random.default_rng((seed, g)) for name in asked}
        places = [(i, name) for i in range(n) for name in asked]
        questions = [(i, _partners(i, pools[name], rule.context, drawn[name])) for i, name in places]
        started = time.perf_counter()
        found = answers(model, [*photos, *wrong], questions, how)
        own = rule.size == "own" and rule.threshold == "argmax"
        if own:
            found = ((photos[i], *answer) for (i, _), answer in zip(places, found, strict=True))
            found = own_masks(model, found, len(places))
        for (i, name), answer in zip(places, found, strict=True):
            truth = photos[i].mask(group.targets)
            if own:
                mask = answer
            else:
                logits, size = answer
                if rule.size == "network":
                    size = 2 * (getattr(model, "input_size", logits.shape[-1]),)
                    truth = F.interpolate(truth[None, None].float(), size=size, mode="nearest")[0, 0].to(torch.uint8)
                mask = _mask(logits, size, rule.threshold)
            right, counted, intersection, union = metrics.counts(mask, truth)
            rows.append(
                {
                    "dataset": group.dataset,
                    "group": group.name,
                    "name": photos[i].name,
                    "partner": name,
                    "P": metrics.precision(mask, truth),
                    "J": metrics.jaccard(mask, truth, rule.empty),
                    "right": right,
                    "counted": counted,
                    "intersection": intersection,
                    "union": union,
                }
            )
        seconds = (time.perf_counter() - started) / len(places)
        for row in rows[-len(places) :]:
            row["seconds"] = seconds
        if progress:
            progress(group.name, g + 1, len(groups))
    return pd.DataFrame(rows)


def swap_questions(
    groups: Sequence[Group], partners: int = 20, seed: int = 0, sources: Sequence[Group] | None = None
) -> list[dict]:
    """Where one photograph stands in two groups, two questions: which class do the partners ask for?

    partners  up to so many other photographs of the class, drawn by the seed; the photograph itself, under whatever
              name, is never among them.
    sources   where partners come from, groups of the same names; None: the groups themselves
    Each: photo, asked and other (the groups' numbers), asked_mask and other_mask (callables), partners (photographs).
    """
    places: dict[str, list[tuple[int, int]]] = {}
    key: dict[tuple[int, int], str] = {}
    for g, group in enumerate(groups):
        for i, photo in enumerate(group.photos):
            key[g, i] = photo.content()
            places.setdefault(key[g, i], []).append((g, i))
    pools = {group.name: group.photos for group in sources or groups}
    content = {name: [p.content() for p in pool] for name, pool in pools.items()}
    rng, questions = np.random.default_rng(seed), []
    for g, group in enumerate(groups):
        for i, photo in enumerate(group.photos):
            for h, j in places[key[g, i]]:
                if h == g or group.name not in pools:
                    continue
                others = [p for p, c in zip(pools[group.name], content[group.name], strict=True) if c != key[g, i]]
                drawn = rng.permutation(len(others))[:partners]
                questions.append(
                    {
                        "photo": photo,
                        "asked": group.name,
                        "other": groups[h].name,
                        "asked_mask": (group, i),
                        "other_mask": (groups[h], j),
                        "partners": [others[k] for k in drawn],
                    }
                )
    return questions


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
    questions = swap_questions(groups, partners, seed, sources)
    if not questions:
        raise CosegError("partner-swap: no photograph stands in two groups of this data set; use pascal or voc-val")
    rows = []
    photos, index = [], {}

    def place(photo: Photo) -> int:
        if (photo.dataset, photo.name) not in index:
            index[photo.dataset, photo.name] = len(photos)
            photos.append(photo)
        return index[photo.dataset, photo.name]

    asked = [(place(q["photo"]), tuple(sorted(place(p) for p in q["partners"]))) for q in questions]
    found = ((q["photo"], *answer) for q, answer in zip(questions, answers(model, photos, asked, how), strict=True))
    for q, mask in zip(questions, own_masks(model, found, len(questions)), strict=True):
        j = {}
        for which in ("asked", "other"):
            group, i = q[f"{which}_mask"]
            j[which] = metrics.jaccard(mask, group.mask(i))
        rows.append(
            {
                "photo": q["photo"].name,
                "asked": q["asked"],
                "other": q["other"],
                "J_asked": j["asked"],
                "J_other": j["other"],
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(score=table.J_asked - table.J_other)


def refusal(model, groups: Sequence[Group], seed: int = 0) -> pd.DataFrame:
    """Two rows a photograph: with a partner of its own group (common = 1) and of a group whose class it lacks (0).

    Columns group, name, partner, common, score (`foreground_score`). AUROC: `metrics.auroc(table.score, table.common)`.
    """
    rng = np.random.default_rng(seed)
    key = [[p.content() for p in group.photos] for group in groups]
    holds: dict[str, set[int]] = {}
    for g, names in enumerate(key):
        for name in names:
            holds.setdefault(name, set()).add(g)
    photos = [p for group in groups for p in group.photos]
    first = np.cumsum([0, *(len(g) for g in groups)])
    questions, rows = [], []
    for g, group in enumerate(groups):
        for i, name in enumerate(key[g]):
            own = [k for k in range(len(group)) if key[g][k] != name]
            foreign = [h for h in range(len(groups)) if h not in holds[name]]
            if not own or not foreign:
                continue
            h = int(rng.choice(foreign))
            # A partner of the foreign group that holds this photograph's class as well would be a partner after all.
            strangers = [k for k in range(len(groups[h])) if not (holds[key[h][k]] & holds[name])]
            if not strangers:
                continue
            for common, (f, k) in ((1, (g, int(rng.choice(own)))), (0, (h, int(rng.choice(strangers))))):
                questions.append((int(first[g]) + i, (int(first[f]) + k,)))
                rows.append(
                    {
                        "group": group.name,
                        "name": group.photos[i].name,
                        "partner": groups[f].photos[k].name,
                        "common": common,
                    }
                )
    if not rows:
        raise CosegError("refusal: needs two groups of two photographs or more, of different classes")
    for row, (logits, _) in zip(rows, answers(model, photos, questions), strict=True):
        row["score"] = foreground_score(logits)
    return pd.DataFrame(rows)
