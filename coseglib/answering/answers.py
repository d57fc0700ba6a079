"""How a group is answered: THE way from a model, photographs and questions to logits, for all that asks.

A *question* is a photograph and the group that it is asked with. What comes back depends on the photograph and on its
group (the group's photographs and their order) alone: not on what else is asked, nor on how many questions, processes
or batches there are. So a mask that `coseg segment` writes is the mask that `coseg evaluate` scores.

context  (CA, FCA, CSA) the group's attention is pooled in a first pass, and by it each photograph is decoded in a second
         one, from nearer once more where the checkpoint looks twice (`coseglib.answering.second_look`). The group is
         pooled as it is given, with the photograph where it is one of it; FCA adds the photograph where it is not.
partner  (PFCC, DCNet) a photograph is compared with COMPARED references, the mean of the foreground's probabilities
         counts. The references of a group are drawn from its places by its length; a photograph is never compared with
         itself, but for a group that holds nothing else.
group    (SSNM, multi-class, floors) a photograph is answered in a set of `group_size`: those of its group in their
         order, cut into such sets, the last one filled up with references; a photograph that is not of its group with
         so many references.

For all three, cost is linear in the number of questions and memory does not depend on it: features are kept only as far
as `Memory` holds.
"""

import time
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from coseglib.answering.memory import Memory
from coseglib.answering.pooling import Pool
from coseglib.answering.reading import Photographs, Picture, resize_to_input
from coseglib.answering.second_look import second_look
from coseglib.core.errors import CosegError
from coseglib.data.record import Photo
from coseglib.models.contract import POOLINGS

BATCH = 8  # photographs that go through the network at once
COMPARED = 5  # references that a partner model compares a photograph with
KINDS = ("context", "partner", "group")


class Question(NamedTuple):
    """photo: a place among the photographs; group: the places of those it is asked with, in order: a tuple or range."""

    photo: int
    group: Sequence[int]


class Answer(NamedTuple):
    """number, photo: of the question and its photograph; logits float32 (K, h, w) on the CPU, K = 2 or classes + 1;
    picture: what was read; seconds that it took, its share of a batch."""

    number: int
    photo: int
    logits: Tensor
    picture: Picture
    seconds: float


def whole_group(count: int) -> list[Question]:
    """Every one of `count` photographs asked with all of them."""
    return [Question(i, range(count)) for i in range(count)]


def check_pooling(model, how: str) -> None:
    """Raises CosegError for a kind of model that is not known, or a pooling that it does not have."""
    if model.kind not in KINDS:
        raise CosegError(f"{model.kind} models: groups are not answered by them; known: {', '.join(KINDS)}")
    if how not in POOLINGS:
        raise CosegError(f"{how}: no such pooling of a group; {' or '.join(POOLINGS)}")
    if how != "mean" and model.kind != "context":
        raise CosegError(f"{how}: pools the attention of ca, fca and csa; leave it out for {type(model).__name__}")


class Engine:
    """A model in evaluation mode and photographs; questions about them.

    batch     photographs that go through the network at once (a group model's is its `group_size`)
    bfloat16  faster on processors that have it; masks may then differ in single pixels between machines
    memory    what is kept of the photographs between questions
    pairs     keep each pair's comparison as well, for groups that change by one photograph at a time
    """

    def __init__(
        self,
        model,
        photos: Photographs | Sequence[Tensor | Photo],
        batch: int = BATCH,
        bfloat16: bool = False,
        memory: Memory | None = None,
        pairs: bool = False,
    ):
        self.model, self.bfloat16, self.pairs = model, bfloat16, pairs
        self.photos = photos if isinstance(photos, Photographs) else Photographs(photos)
        self.memory = Memory() if memory is None else memory
        self.batch = model.group_size if model.kind == "group" else batch
        self._members: dict[Hashable, frozenset[int]] = {}
        self._drawn: dict[Hashable, list[int]] = {}

    # Photographs and features -----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def autocast(self):
        """bfloat16 for the calls of the model within it, where that was asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def picture(self, place: int) -> Picture | None:
        """A photograph, or None where it is left out."""
        key = "picture", place
        if key in self.memory:
            return self.memory(key, lambda: None)
        if (read := self.photos.read(place)) is not None:
            self.memory.keep(key, read)
        return read

    def _read(self, places: Sequence[int]) -> dict[int, Picture]:
        return {place: found for place in places if (found := self.picture(place)) is not None}

    def inputs(self, pictures: Sequence[Picture]) -> Tensor:
        """(B, 3, S, S) in [0, 1], on the model's device."""
        stacked = torch.stack([resize_to_input(p.pixels, self.model.input_size) for p in pictures])
        return stacked.contiguous(memory_format=torch.channels_last).to(self.device)

    @torch.no_grad()
    def features(self, pictures: dict[int, Picture]) -> list[Tensor]:
        """What `model.encode` gives of some photographs, (B, …) each, in their order."""

        def encode() -> list[Tensor]:
            with self.autocast():
                return self.model.encode(self.inputs(list(pictures.values())))

        return self.memory(("features", *pictures), encode)

    # Groups -----------------------------------------------------------------------------------------------------------

    def holds(self, group: Sequence[int], place: int) -> bool:
        """Is the photograph at this place one of the group?"""
        if isinstance(group, range):
            return place in group
        if group not in self._members:
            self._members[group] = frozenset(group)
        return place in self._members[group]

    def drawn(self, group: Sequence[int]) -> Iterator[int]:
        """A group's places in the order in which references are drawn: its length decides, so every engine agrees."""
        for k in np.random.default_rng(len(group)).permutation(len(group)).tolist():
            if self.picture(group[k]) is not None:
                yield group[k]

    def references(self, group: Sequence[int], count: int) -> list[int]:
        """Up to `count` photographs that stand for a group."""
        key = group, count
        if key not in self._drawn:
            self._drawn[key] = list(islice(self.drawn(group), count))
        return self._drawn[key]

    # Answers ----------------------------------------------------------------------------------------------------------

    def answers(self, questions: Sequence[Question], how: str = "mean", context: Tensor | None = None):
        """An iterator of an `Answer` each. Photographs come in the order in which they are first asked about, all
        questions about one in a row.

        how      pooling of a group's attention, context models alone
        context  attention (D,) to answer all questions by, in the place of their groups'
        Raises CosegError for a kind of model, or a pooling, that is not known.
        """
        check_pooling(self.model, how)
        if context is not None and self.model.kind != "context":
            raise CosegError(f"{type(self.model).__name__}: has no group attention to answer by; leave out the context")
        questions = [Question(photo, _hashable(group)) for photo, group in questions]
        if self.model.kind == "context":
            contexts = _Contexts(self, questions, how, context)
            return self._in_chunks(questions, contexts.answer)
        return self._in_chunks(questions, self._compare if self.model.kind == "partner" else self._together)

    @torch.no_grad()
    def _in_chunks(self, questions: list[Question], answer) -> Iterator[Answer]:
        """answer: (some photographs' pictures, a question of each) -> logits (B, K, h, w), float32 on the CPU."""
        numbers: dict[int, list[int]] = {}
        for number, question in enumerate(questions):
            numbers.setdefault(question.photo, []).append(number)
        every = list(numbers)
        for places in self.photos.last_pass([every[k : k + self.batch] for k in range(0, len(every), self.batch)]):
            started = time.perf_counter()
            pictures = self._read(places)
            rounds = max((len(numbers[place]) for place in pictures), default=0)
            logits: dict[int, Tensor] = {}
            for k in range(rounds):  # the k-th question about each photograph
                asked = [numbers[place][k] for place in pictures if len(numbers[place]) > k]
                logits |= dict(zip(asked, answer(pictures, [questions[n] for n in asked]), strict=True))
            seconds = (time.perf_counter() - started) / max(1, len(logits))
            for place, picture in pictures.items():
                for number in numbers[place]:
                    yield Answer(number, place, logits.pop(number), picture, seconds)

    def context(self, group: Sequence[int], how: str = "mean") -> Tensor:
        """A group's pooled attention (D,), on the CPU; of context models. Raises CosegError for an empty group."""
        group = _hashable(group)
        if not len(group):
            raise CosegError("no photographs: a group needs at least one")
        return _Contexts(self, [Question(group[0], group)], how, None).pools[group].context()

    def all_features(self) -> list[Tensor]:
        """What `model.encode` gives of all photographs, (N, …) each: for few of them."""
        places = list(range(len(self.photos)))
        parts = [self.features(self._read(places[k : k + self.batch])) for k in range(0, len(places), self.batch)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def _rows(self, pictures: dict[int, Picture], questions: list[Question]) -> list[Tensor]:
        """The features of the questions' photographs, which are some of `pictures`."""
        features = self.features(pictures)
        if len(questions) == len(pictures):
            return features
        places = list(pictures)
        rows = [places.index(q.photo) for q in questions]
        return [f[rows] for f in features]

    def _compare(self, pictures: dict[int, Picture], questions: list[Question]) -> Tensor:
        """Partner models: the mean over the references of the foreground's probability, as logarithms."""
        chosen = []  # of each question (the references of its group, the photograph itself left out)
        for photo, group in questions:
            references = tuple(self.references(group, COMPARED + 1))
            others = [j for j in references if j != photo][:COMPARED]
            chosen.append([(references, j) for j in others] or [((photo,), photo)])
        known = self._known_pairs(questions, chosen)
        maps = query = None
        total: list = [0] * len(questions)
        for k in range(max(map(len, chosen))):
            rows = [row for row, places in enumerate(chosen) if len(places) > k]
            if new := [row for row in rows if (row, k) not in known]:
                if maps is None:
                    maps = self._reference_maps(pictures, dict.fromkeys(places for row in chosen for places, _ in row))
                    query = self._rows(pictures, questions)
                asked = query if len(new) == len(questions) else [f[new] for f in query]
                of = [torch.cat(m) for m in zip(*(maps[chosen[row][k]] for row in new), strict=True)]
                with self.autocast():
                    p = self.model.answer(asked, of).logits.float().softmax(1).cpu()
                known |= {(row, k): one for row, one in zip(new, p, strict=True)}
                if self.pairs:
                    for row, one in zip(new, p, strict=True):
                        self.memory.keep(("pair", questions[row].photo, chosen[row][k][1]), one.clone())
            for row in rows:
                total[row] = total[row] + known[row, k] / len(chosen[row])
        return torch.stack(total).clamp(min=1e-6).log()

    def _known_pairs(self, questions: list[Question], chosen: list[list]) -> dict[tuple[int, int], Tensor]:
        """By (question, which of its references): probabilities (2, S, S) that were kept."""
        known = {}
        for row, question in enumerate(questions):
            for k, (_, j) in enumerate(chosen[row]):
                if (key := ("pair", question.photo, j)) in self.memory:
                    known[row, k] = self.memory(key, tuple)
        return known

    def _reference_maps(self, pictures: dict[int, Picture], together) -> dict[tuple, list[Tensor]]:
        """What is read of references, (1, …) each, by (those of their group, which are encoded together; itself)."""
        maps: dict[tuple, list[Tensor]] = {}
        own = [places for places in together if len(places) == 1 and places[0] in pictures]
        if own:
            with self.autocast():
                whole = self.model.reference_maps(self.features(pictures))
            rows = {place: row for row, place in enumerate(pictures)}
            maps |= {(places, places[0]): [m[[rows[places[0]]]] for m in whole] for places in own}
        single = [places[0] for places in together if len(places) == 1 and places[0] not in pictures]
        batches = [places for places in together if len(places) > 1]
        batches += [tuple(single[k : k + self.batch]) for k in range(0, len(single), self.batch)]
        for places in batches:

            def read(places=places) -> list[list[Tensor]]:
                with self.autocast():
                    found = self.model.reference_maps(self.features(self._read(places)))
                return [[m[[k]] for m in found] for k in range(len(places))]

            split = self.memory(("references", *places), read)
            alone = places not in together
            maps |= {((j,) if alone else places, j): of for j, of in zip(places, split, strict=True)}
        return maps

    def set_of(self, photo: int, group: Sequence[int]) -> list[int]:
        """The photographs, itself among them, that a group model sees with a photograph of this group."""
        size = self.model.group_size
        if not self.holds(group, photo):
            return [photo, *self.references(group, size - 1)]
        start = group.index(photo) // size * size
        members = list(group[start : start + size])
        if len(members) < size:
            members += [j for j in self.references(group, size) if j not in members][: size - len(members)]
        return members

    def _together(self, pictures: dict[int, Picture], questions: list[Question]) -> Tensor:
        """Group models: every set of photographs once, however many of them ask."""
        found, answered = [], {}
        for photo, group in questions:
            members = self._read(self.set_of(photo, group))
            key = "set", *members
            if key not in answered:
                answered[key] = self.memory(key, lambda members=members: self._set_logits(members))
            found.append(answered[key][list(members).index(photo)])
        return torch.stack(found)

    def _set_logits(self, members: dict[int, Picture]) -> Tensor:
        with self.autocast():
            return self.model.answer(self.inputs(list(members.values()))[None]).logits[0].float().cpu()


class _Contexts:
    """The contexts of questions to a context model: the first pass over their groups, then `answer`."""

    def __init__(self, engine: Engine, questions: list[Question], how: str, context: Tensor | None):
        self.engine, self.context = engine, context
        self.groups = list(dict.fromkeys(q.group for q in questions))
        self.pools = {}
        if context is None:
            self.pools = engine.photos.pooled(self.groups, lambda: self._first_pass(how)) if self.groups else {}

    @torch.no_grad()
    def _first_pass(self, how: str) -> dict[Hashable, Pool]:
        """AttentionGeneration and pooling of algorithm 1: every photograph once, whatever groups it is of."""
        engine = self.engine
        pools = {group: Pool(engine.model.context_size, how) for group in self.groups}
        of: dict[int, list[Pool]] = {}
        for group, pool in pools.items():
            for place in group:
                of.setdefault(place, []).append(pool)
        several = [group for group in self.groups if len(group) > 1]
        for group in [*several, [group[0] for group in self.groups if len(group) == 1]]:
            waiting = [place for place in dict.fromkeys(group) if place in of]
            for places in engine.photos.first_pass(
                [waiting[k : k + engine.batch] for k in range(0, len(waiting), engine.batch)]
            ):
                for place, alpha in self._alphas(places).items():
                    for pool in of[place]:
                        pool.add(alpha[None])
            for place in waiting:
                del of[place]
        return pools

    def _alphas(self, places: Sequence[int]) -> dict[int, Tensor]:
        """The attention (D,) of photographs that can be read, on the CPU."""
        memory = self.engine.memory
        known = {place: memory(key, tuple) for place in places if (key := ("attention", place)) in memory}
        if len(known) < len(places) and (pictures := self.engine._read(places)):
            alpha = self._attention(self.engine.features(pictures)).cpu()
            for place, one in zip(pictures, alpha, strict=True):
                memory.keep(("attention", place), one.clone())
                known[place] = one
        return known

    def _attention(self, features: list[Tensor]) -> Tensor:
        with self.engine.autocast():
            return self.engine.model.attention(features)

    def answer(self, pictures: dict[int, Picture], questions: list[Question]) -> Tensor:
        engine, model = self.engine, self.engine.model
        features = engine._rows(pictures, questions)
        context = self._of(questions, features).to(engine.device)
        with engine.autocast():
            logits = model.answer(features, context)
            if model.looks > 1:
                logits = second_look(model, [pictures[q.photo].pixels for q in questions], logits, context)
        return logits.float().cpu()

    def _of(self, questions: list[Question], features: list[Tensor]) -> Tensor:
        """The questions' contexts (B, D)."""
        if self.context is not None:
            return self.context.expand(len(questions), -1)
        strangers = [not self.engine.holds(q.group, q.photo) for q in questions]
        alpha = None
        if self.engine.model.includes_itself and any(strangers):
            alpha = self._attention(features).cpu()
        found = []
        for row, (question, stranger) in enumerate(zip(questions, strangers, strict=True)):
            pool = self.pools[question.group]
            found.append((pool.with_also(alpha[row]) if alpha is not None and stranger else pool).context())
        return torch.stack(found)


def _hashable(group: Sequence[int]) -> Sequence[int]:
    return group if isinstance(group, range) else tuple(group)


def answers(model, photos, questions, how: str = "mean", **options) -> Iterator[Answer]:
    """`Engine(model, photos, **options).answers(questions, how)`: an answer a question, of one photograph in a row."""
    return Engine(model, photos, **options).answers(questions, how)


def pooled_context(model, photos: Sequence[Tensor | Photo], how: str = "mean", **options) -> Tensor:
    """The attention (D,) of a group, on the CPU: to answer other photographs by. Raises CosegError for no photographs."""
    engine = Engine(model, photos, **options)
    return engine.context(range(len(engine.photos)), how)
