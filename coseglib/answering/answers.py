"""How a group is answered: THE way from a model, photographs and questions to logits, for all that asks.

A *question* is a photograph and the group that it is asked with. What comes back depends on the photograph and on its
group (the group's photographs and their order) alone: not on what else is asked, nor on how many questions, processes
or batches there are. So a mask that `coseg segment` writes is the mask that `coseg evaluate` scores. The three kinds
of model are answered by `coseglib.answering.kinds`. Cost is linear in the number of questions, and memory does not
depend on it: what is computed is kept only as far as `Memory` holds.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from coseglib.answering.kinds import KINDS, Pool, first_pass
from coseglib.answering.reading import Memory, Photographs, Picture, resize_to_input
from coseglib.core.devices import give_back_memory, precision_of
from coseglib.core.errors import CosegError
from coseglib.data.record import Photo
from coseglib.models.contract import POOLINGS, Model

BATCH = 8  # photographs that go through the network at once
GIVE_BACK = 4  # batches after which memory is given back


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


@dataclass(eq=False)
class Engine:
    """A model in evaluation mode and photographs; questions about them."""

    model: Model
    photos: Photographs | Sequence[Tensor | Photo]
    batch: int = BATCH  # photographs that go through the network at once (a group model's is its `group_size`)
    memory: Memory = field(default_factory=Memory)  # what is kept of the photographs between questions
    pairs: bool = False  # keep each comparison of two photographs too, for groups that change by one at a time

    def __post_init__(self) -> None:
        self.photos = self.photos if isinstance(self.photos, Photographs) else Photographs(self.photos)
        self.batch = self.model.group_size if self.model.kind == "group" else self.batch
        self._members: dict[tuple, frozenset[int]] = {}
        self._references: dict[tuple, list[int]] = {}
        self._encoded = 0  # batches

    def autocast(self):
        """For the calls of the model within it: bfloat16 or float32, as the model says; single pixels differ."""
        fast = precision_of(self.model.precision, self.device) == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def read(self, places: Sequence[int]) -> dict[int, Picture]:
        """The photographs at these places, but for those that are left out."""
        found = {p: self.memory.recall(("picture", p), lambda p=p: self.photos.read(p)) for p in places}
        return {place: picture for place, picture in found.items() if picture is not None}

    def inputs(self, pictures: Sequence[Picture]) -> Tensor:
        """(B, 3, S, S) in [0, 1], on the model's device."""
        stacked = torch.stack([resize_to_input(p.pixels, self.model.input_size) for p in pictures])
        return stacked.contiguous(memory_format=torch.channels_last).to(self.device)

    @torch.no_grad()
    def encode(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """What `model.encode` gives of some pictures, (B, …) each, in their order."""
        self._encoded += 1
        if self._encoded % GIVE_BACK == 0:
            give_back_memory()
        with self.autocast():
            return self.model.encode(self.inputs(pictures))

    def features(self, pictures: dict[int, Picture]) -> list[Tensor]:
        """`encode` of some photographs, by their places; kept."""
        return self.memory.recall(("features", *pictures), lambda: self.encode(list(pictures.values())))

    def all_features(self) -> list[Tensor]:
        """What `model.encode` gives of all photographs, (N, …) each: for few of them."""
        parts = [self.features(self.read(places)) for places in self.batches(range(len(self.photos)))]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def batches(self, places: Sequence[int]) -> list[Sequence[int]]:
        """Places cut for the network."""
        return [places[start : start + self.batch] for start in range(0, len(places), self.batch)]

    def holds(self, group: Sequence[int], place: int) -> bool:
        """Is the photograph at this place one of the group?"""
        if isinstance(group, range):
            return place in group
        if group not in self._members:
            self._members[group] = frozenset(group)
        return place in self._members[group]

    def references(self, group: Sequence[int], count: int) -> list[int]:
        """Up to `count` photographs that stand for a group, in an order that its length alone decides."""
        key = group, count
        if key not in self._references:
            order = np.random.default_rng(len(group)).permutation(len(group)).tolist()
            self._references[key] = list(islice((group[k] for k in order if self.read([group[k]])), count))
        return self._references[key]

    @torch.no_grad()
    def context(self, group: Sequence[int], how: str = "mean") -> Tensor:
        """A group's pooled attention (D,), on the CPU; of context models. Raises CosegError for an empty group."""
        group = _hashable(group)
        return self.photos.pooled([group], lambda: first_pass(self, [group], how))[group].context()

    def answers(
        self, questions: Sequence[Question], how: str = "mean", context: Tensor | Pool | None = None, evidence=None
    ) -> Iterator[Answer]:
        """An answer to each question. Photographs come in the order in which they are first asked about, all questions
        about one in a row.

        how      pooling of a group's attention, context models alone
        context  attention (D,) to answer all questions by, in the place of their groups'; or a pool, which an image's
                 own attention joins where the model includes it
        evidence  what references say beside the system, from `coseglib.answering.reference.evidence_of`
        Raises CosegError for a kind of model, or a pooling, that is not known.
        """
        check_pooling(self.model, how)
        if context is not None and self.model.kind != "context":
            raise CosegError(f"{type(self.model).__name__}: has no group attention to answer by; leave out the context")
        questions = [Question(photo, _hashable(group)) for photo, group in questions]
        if evidence is not None and context is None:
            context = evidence.pool
        answer = KINDS[self.model.kind](self, questions, how, context)
        if evidence is not None:
            answer = self._with_evidence(answer, evidence)
        if self.model.prior is not None:
            self.model.prior.check(self.photos.photos[question.photo] for question in questions)
            answer = self._with_prior(answer, self.model.prior)
        return self._in_batches(questions, answer)

    def _with_evidence(self, answer, evidence):
        """`answer`, and what references say added to each of its logits."""

        def both(pictures: dict[int, Picture], some) -> list[Tensor]:
            features, places = self.features(pictures), list(pictures)
            rows = [places.index(question.photo) for question in some]
            return evidence.add(torch.stack(list(answer(pictures, some))), [m[rows] for m in features])

        return both

    def _with_prior(self, answer, prior):
        """`answer`, and a prior's maps of the photographs added to each of its logits."""

        def of(place: int, picture: Picture, size: tuple[int, int]) -> Tensor:
            make = partial(prior.logits, self.photos.photos[place], picture, size)
            return self.memory.recall(("prior", prior.name, place, size), make)

        def both(pictures: dict[int, Picture], some) -> list[Tensor]:
            each = zip(answer(pictures, some), some, strict=True)
            return [prior.add(z, of(q.photo, pictures[q.photo], tuple(z.shape[-2:]))) for z, q in each]

        return both

    @torch.no_grad()
    def _in_batches(self, questions: list[Question], answer) -> Iterator[Answer]:
        """answer: (some photographs' pictures, a question of each) -> logits (B, K, h, w), float32 on the CPU."""
        numbers: dict[int, list[int]] = {}
        for number, question in enumerate(questions):
            numbers.setdefault(question.photo, []).append(number)
        for places in self.photos.last_pass(self.batches(list(numbers))):
            started = time.perf_counter()
            pictures = self.read(places)
            logits: dict[int, Tensor] = {}
            for k in range(max((len(numbers[place]) for place in pictures), default=0)):  # the k-th about each
                asked = [numbers[place][k] for place in pictures if len(numbers[place]) > k]
                logits |= dict(zip(asked, answer(pictures, [questions[n] for n in asked]), strict=True))
            seconds = (time.perf_counter() - started) / max(1, len(logits))
            for place, picture in pictures.items():
                for number in numbers[place]:
                    yield Answer(number, place, logits.pop(number), picture, seconds)


def _hashable(group: Sequence[int]) -> Sequence[int]:
    return group if isinstance(group, range) else tuple(group)


def pooled_context(model, photos: Sequence[Tensor | Photo], how: str = "mean") -> Tensor:
    """The attention (D,) of a group, on the CPU, to answer other photographs by. CosegError for no photographs."""
    return Engine(model, photos).context(range(len(photos)), how)
