"""How each kind of model answers questions; `coseglib.answering.answers` cuts them into batches and reads photographs.

context  (CA, FCA, CSA) the group's attention is pooled in a first pass, and each photograph is decoded by it in a
         second one, from nearer once more where the checkpoint looks twice. The group is pooled as it is given, with
         the photograph where it is one of it; FCA, which includes it always, adds it where it is not.
partner  (PFCC, DCNet) a photograph is compared with COMPARED references of its group, and the mean of the foreground's
         probabilities counts. It is never compared with itself, but for a group that holds nothing else.
group    (SSNM, multi-class, floors) a photograph is answered in a set of `group_size`: its group, in order, is cut into
         such sets, the last one filled up with references; a photograph that is not of its group is seen with so many.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from coseglib.answering.reading import Picture
from coseglib.answering.second_look import second_look
from coseglib.core.errors import CosegError
from coseglib.models.contract import POOLINGS

COMPARED = 5  # references that a partner model compares a photograph with


def _rows(engine, pictures: dict[int, Picture], questions) -> list[Tensor]:
    """The features of the questions' photographs, which are some of `pictures`."""
    features = engine.features(pictures)
    if len(questions) == len(pictures):
        return features
    places = list(pictures)
    rows = [places.index(q.photo) for q in questions]
    return [f[rows] for f in features]


# Context models -------------------------------------------------------------------------------------------------------


class Pool:
    """The mean or the element-wise minimum of images' attention (D,) over a stream (algorithm 1), in constant memory.

    The mean is summed in steps of 2^-40 as whole numbers, so it is exact up to that rounding of each term: the order of
    the images, their division among processes and the number of processes do not change one bit. Room for 2^23 − 1.
    """

    STEPS = 2.0**40
    MOST = 2**23 - 1

    def __init__(self, size: int, how: str = "mean"):  # size: D
        if how not in POOLINGS:
            raise CosegError(f"{how}: no such pooling of a group; {' or '.join(POOLINGS)}")
        self.how, self.count = how, 0
        self.pooled = torch.zeros(size, dtype=torch.int64) if how == "mean" else torch.ones(size)

    def add(self, alpha: Tensor) -> None:
        """alpha (B, D) in [0, 1], of B images. Raises CosegError when it is not finite, or for too many images."""
        alpha = alpha.detach().cpu()
        if not alpha.isfinite().all():
            raise CosegError("attention: not finite for some image; the checkpoint is damaged, give another one")
        if self.how == "mean":
            self.pooled = self.pooled + (alpha.double() * self.STEPS).round().long().sum(dim=0)
        else:
            self.pooled = torch.minimum(self.pooled, alpha.float().amin(dim=0))
        self._set_count(self.count + len(alpha))

    def with_also(self, alpha: Tensor) -> "Pool":
        """This pool and one more image's attention (D,), as a pool of its own."""
        more = Pool(len(self.pooled), self.how)
        more.pooled, more.count = self.pooled, self.count
        more.add(alpha[None])
        return more

    def all_reduce(self, fabric) -> None:
        """Pool over all processes of a launched `lightning_fabric.Fabric`; each ends with the same numbers."""
        operation = "sum" if self.how == "mean" else "min"
        self.pooled = fabric.all_reduce(self.pooled, reduce_op=operation).cpu()
        self._set_count(int(fabric.all_reduce(torch.tensor(self.count), reduce_op="sum")))

    def _set_count(self, count: int) -> None:
        if count > self.MOST:
            raise CosegError(f"{count:,} images: one group holds at most {self.MOST:,}; split it")
        self.count = count

    def context(self) -> Tensor:
        """The group's attention, float (D,). Raises CosegError when nothing was added."""
        if not self.count:
            raise CosegError("no photographs: a group needs at least one")
        if self.how == "min":
            return self.pooled.clone()
        return (self.pooled.double() / self.count / self.STEPS).float()


def _attention(engine, features: list[Tensor]) -> Tensor:
    with engine.autocast():
        return engine.model.attention(features)


@torch.no_grad()
def example_pool(engine, features: list[Tensor], marks: Tensor, how: str) -> Pool:
    """The attention of some images over what is marked in each: marks (B, h, w), 1 there, at any size."""
    pool = Pool(engine.model.context_size, how)
    with engine.autocast():
        pool.add(engine.model.attention(features, marks.to(engine.device)))
    return pool


def _alphas(engine, places: Sequence[int]) -> dict[int, Tensor]:
    """The attention (D,) of those photographs that can be read, on the CPU."""
    known = {p: alpha for p in places if (alpha := engine.memory.get(("attention", p))) is not None}
    if len(known) < len(places) and (pictures := engine.read(places)):
        alpha = _attention(engine, engine.features(pictures)).cpu()
        known = {place: one.clone() for place, one in zip(pictures, alpha, strict=True)}
        for place, one in known.items():
            engine.memory.keep(("attention", place), one)
    return known


def first_pass(engine, groups: Sequence[Sequence[int]], how: str) -> dict[Hashable, Pool]:
    """AttentionGeneration and pooling of algorithm 1: every photograph once, whatever groups it is of."""
    pools = {group: Pool(engine.model.context_size, how) for group in groups}
    pools_of: dict[int, list[Pool]] = {}
    for group, pool in pools.items():
        for place in group:
            pools_of.setdefault(place, []).append(pool)
    several = [group for group in groups if len(group) > 1]
    for some in [*several, [group[0] for group in groups if len(group) == 1]]:
        waiting = [place for place in dict.fromkeys(some) if place in pools_of]
        for places in engine.photos.first_pass(engine.batches(waiting)):
            for place, alpha in _alphas(engine, places).items():
                for pool in pools_of[place]:
                    pool.add(alpha[None])
        for place in waiting:
            del pools_of[place]
    return pools


def by_context(engine, questions, how: str, context: Tensor | Pool | None):
    """Algorithm 1 of Chen et al. 2018. context (D,), or a pool: in the place of the groups'."""
    model, groups = engine.model, list(dict.fromkeys(q.group for q in questions))
    pools = {}
    if context is None and groups:
        with torch.no_grad():
            pools = engine.photos.pooled(groups, lambda: first_pass(engine, groups, how))

    def contexts(some, features: list[Tensor]) -> Tensor:
        """(B, D)"""
        if isinstance(context, Tensor):
            return context.expand(len(some), -1)
        added = [model.includes_itself and not (context is None and engine.holds(q.group, q.photo)) for q in some]
        alpha = _attention(engine, features).cpu() if any(added) else [None] * len(some)
        theirs = zip((context or pools[q.group] for q in some), alpha, added, strict=True)
        return torch.stack([(pool.with_also(a) if add else pool).context() for pool, a, add in theirs])

    def answer(pictures: dict[int, Picture], some) -> Tensor:
        features = _rows(engine, pictures, some)
        theirs = contexts(some, features).to(engine.device)
        with engine.autocast():
            logits = model.answer(features, theirs)
            if model.looks > 1:
                logits = second_look(model, [pictures[q.photo].pixels for q in some], logits, theirs)
        return logits.float().cpu()

    return answer


# Partner models -------------------------------------------------------------------------------------------------------


def _reference_maps(engine, pictures: dict[int, Picture], together) -> dict[tuple, list[Tensor]]:
    """What is read of references, (1, …) each, by (those of their group, itself).

    together  the references of each group: they are encoded in one batch, so that they are the same in every engine
    """

    def split(of: dict[int, Picture]) -> list[list[Tensor]]:
        with engine.autocast():
            found = engine.model.reference_maps(engine.features(of))
        return [[m[[k]] for m in found] for k in range(len(of))]

    maps: dict[tuple, list[Tensor]] = {}
    lone = [places[0] for places in together if len(places) == 1]
    if any(place in pictures for place in lone):
        maps |= {((place,), place): of for place, of in zip(pictures, split(pictures), strict=True) if place in lone}
    for places in engine.batches([place for place in lone if place not in pictures]):
        some = engine.read(places)
        of_all = engine.memory.recall(("references", "lone", *places), lambda some=some: split(some))
        maps |= {((place,), place): of for place, of in zip(some, of_all, strict=True)}
    for places in (places for places in together if len(places) > 1):
        of_all = engine.memory.recall(("references", *places), lambda places=places: split(engine.read(places)))
        maps |= {(places, place): of for place, of in zip(places, of_all, strict=True)}
    return maps


def by_references(engine, questions, how: str, context: None):
    """Each photograph compared with a few of its group; the logarithm of the mean of the probabilities."""
    model, memory = engine.model, engine.memory

    def chosen(photo: int, group: Sequence[int]) -> list[tuple[tuple[int, ...], int]]:
        """(the references of its group, one that is not the photograph) each."""
        references = tuple(engine.references(group, COMPARED + 1))
        others = [(references, j) for j in references if j != photo][:COMPARED]
        return others or [((photo,), photo)]

    def answer(pictures: dict[int, Picture], some) -> Tensor:
        pairs = [chosen(photo, group) for photo, group in some]
        probabilities = [[memory.get(("pair", q.photo, j)) for _, j in row] for q, row in zip(some, pairs, strict=True)]
        maps = query = None
        for k in range(max(map(len, pairs))):  # the k-th reference of each
            new = [row for row, known in enumerate(probabilities) if len(known) > k and known[k] is None]
            if not new:
                continue
            if maps is None:
                maps = _reference_maps(engine, pictures, dict.fromkeys(places for row in pairs for places, _ in row))
                query = _rows(engine, pictures, some)
            asked = query if len(new) == len(some) else [f[new] for f in query]
            references = [torch.cat(m) for m in zip(*(maps[pairs[row][k]] for row in new), strict=True)]
            with engine.autocast():
                found = model.answer(asked, references).logits.float().softmax(1).cpu()
            for row, p in zip(new, found, strict=True):
                probabilities[row][k] = p
                if engine.pairs:
                    memory.keep(("pair", some[row].photo, pairs[row][k][1]), p.clone())
        return torch.stack([sum(row) / len(row) for row in probabilities]).clamp(min=1e-6).log()

    return answer


# Group models ---------------------------------------------------------------------------------------------------------


def members_of(engine, photo: int, group: Sequence[int]) -> list[int]:
    """The photographs, itself among them, that a group model sees with a photograph of this group."""
    size = engine.model.group_size
    if not engine.holds(group, photo):
        return [photo, *engine.references(group, size - 1)]
    start = group.index(photo) // size * size
    members = list(group[start : start + size])
    if len(members) < size:
        members += [j for j in engine.references(group, size) if j not in members][: size - len(members)]
    return members


def by_sets(engine, questions, how: str, context: None):
    """Every set of photographs once, however many of them ask."""

    def logits_of(members: dict[int, Picture]) -> Tensor:
        with engine.autocast():
            return engine.model.answer(engine.inputs(list(members.values()))[None]).logits[0].float().cpu()

    def answer(pictures: dict[int, Picture], some) -> Tensor:
        found, answered = [], {}
        for photo, group in some:
            members = engine.read(members_of(engine, photo, group))
            key = "set", *members
            if key not in answered:
                answered[key] = engine.memory.recall(key, lambda members=members: logits_of(members))
            found.append(answered[key][list(members).index(photo)])
        return torch.stack(found)

    return answer


KINDS = {"context": by_context, "partner": by_references, "group": by_sets}
