"""A session of looking: some photographs, a system, and what changes in its answers when one thing is changed.

No widgets here. *Partners* are the photographs that every photograph of the session is asked with: the group of
`coseglib.answering`. With all of them as partners the masks are those that `coseg segment` writes.

A session keeps what it has computed, so that a question costs only what it changes:

    another threshold              nothing of the network: masks are read from the kept logits
    a click, a box, a stroke       what is marked is learned, and added to the kept logits
    another set of partners        context models decode again (they meet the group in one vector); partner models have
                                   kept each pair's answer; group models are asked as a whole again
    other photographs, or a model  all
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.analysis.maps import grad_cam, spatial_maps
from coseglib.answering.answers import BATCH, Engine, Question, check_pooling
from coseglib.answering.crf import refined
from coseglib.answering.masks import decide, masks_from_logits, post_of
from coseglib.answering.reading import Memory, Photographs, Picture, picture_of
from coseglib.answering.reference import evidence_of
from coseglib.core.errors import CosegError
from coseglib.data.record import Photo, resize_image, resize_labels
from coseglib.explorer import saved
from coseglib.explorer.said import Marks, Told, references_of
from coseglib.scoring.metrics import jaccard
from coseglib.segmenting.finding import output_names
from coseglib.segmenting.labels import class_names, shares_of

SHOWN = 400  # pixels: the longer side of a photograph on the page, enlarged if need be
MOST = 24  # photographs of a session
KEPT = 8  # answers to other partners that are kept: of 24 photographs they are some 100 MB
REMEMBERED = 2**30  # bytes of features and comparisons


class Opened(NamedTuple):
    """A photograph that was read."""

    photo: Photo
    picture: Picture  # as every question reads it
    shown: Tensor  # uint8 (3, h, w), the longer side SHOWN
    truth: Tensor | None  # uint8 (H, W), 1 asked for, 255 void; None: not known


def opened(photo: Photo, targets: tuple[str, ...] = ()) -> Opened:
    """Read a photograph, and its mask where one thing is asked for. Raises CosegError where either cannot be read."""
    picture = picture_of(photo)
    sides = picture.pixels.shape[-2:]
    size = [max(1, round(side * SHOWN / max(sides))) for side in sides]
    shown = resize_image(picture.pixels, size)
    known = len(targets) == 1 and photo.read_labels is not None
    return Opened(photo, picture, shown, torch.as_tensor(photo.mask(targets)) if known else None)


class _Read(Photographs):
    """The session's photographs, which are in memory."""

    def read(self, place: int) -> Picture:
        return self.photos[place].picture


class Heat(NamedTuple):
    maps: list[Tensor | None]  # (h, w) for each photograph, or None
    unit: str  # what the values are
    limits: tuple[float, float]  # the ends of their colour scale


def _limits(maps: Sequence[Tensor | None]) -> tuple[float, float]:
    """From 0 to the largest value; a scale of some width even where nothing is above 0."""
    most = max((float(m.max()) for m in maps if m is not None), default=0.0)
    return 0.0, most if most > 0 else 1.0


class Session(Told):
    """Photographs, a model in evaluation mode, partners and pooling, and what was said of them (`said.Told`).

    Nothing is computed before it is asked for.

    Raises CosegError as `set_model` and `set_photos` do.
    """

    def __init__(self, model, photos: Sequence[Photo] | None = None, targets: tuple[str, ...] = ()):
        self.photos: list[Opened] = []
        self.partners: tuple[int, ...] = ()
        self.how = "mean"
        self._forget_marks()
        self.set_model(model)
        if photos is not None:  # else they come later
            self.set_photos(photos, targets)

    # What is asked ---------------------------------------------------------------------------------------------------

    def set_photos(self, photos: Sequence[Photo], targets: tuple[str, ...] = ()) -> list[str]:
        """Look at other photographs, all of them partners. Returns a line for each that cannot be read.

        targets  what is asked for in them, where masks are known
        Raises CosegError where none can be read, or more than MOST are given; all then stays as it was.
        """
        if len(photos) > MOST:
            raise CosegError(f"{len(photos)} photographs: at most {MOST} are looked at together; take fewer")
        read, faults = [], []
        for photo in photos:
            try:
                read.append(opened(photo, targets))
            except CosegError as fault:
                faults.append(str(fault))
        if not read:
            raise CosegError(faults[0] if faults else "no photographs: give at least one")
        self.photos, self.partners = read, tuple(range(len(read)))
        self._forget_marks()
        self._forget()
        return faults

    def set_model(self, model) -> None:
        """Ask another system. Raises CosegError for a kind of model that is not known."""
        check_pooling(model, "mean")
        self.model = model
        self.how = self.how if model.kind == "context" else "mean"
        self._forget()

    def set_partners(self, partners: Sequence[int]) -> None:
        """Which photographs make up the group. Raises CosegError for none, ValueError for places that there are not."""
        chosen = tuple(sorted(set(partners)))
        if not chosen:
            raise CosegError("no partners: leave at least one photograph in the group")
        if chosen[0] < 0 or chosen[-1] >= len(self.photos):
            raise ValueError(f"partners {chosen}: places from 0 to {len(self.photos) - 1}")
        self.partners = chosen

    def set_how(self, how: str) -> None:
        """How the group's attention is pooled, "mean" or "min"; the latter for context models alone (CosegError)."""
        check_pooling(self.model, how)
        self.how = how

    def _need_photos(self) -> None:
        if not self.photos:
            raise CosegError("no photographs to look at: give `set_photos` at least one that can be read")

    @property
    def names(self) -> list[str]:
        """The photographs' names, all different: those of the files that `save` writes, without their endings."""
        return output_names([Path(o.photo.path or o.photo.name) for o in self.photos])

    # What is kept ----------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._engine = Engine(self.model, _Read(self.photos), memory=Memory(REMEMBERED), pairs=True)
        self._of_group: dict = {}  # (partners, how, what was said) -> what depends on these too

    def _kept(self, key, compute: Callable, told: bool = False):
        """What `compute` gives, once for the present partners and pooling and, where it is told, what was said."""
        self._need_photos()
        group = self.partners, self.how, self.marks.key if told else ()
        found = self._of_group[group] = self._of_group.pop(group, {})  # the last one used stands last
        while len(self._of_group) > KEPT:
            del self._of_group[next(iter(self._of_group))]
        if key not in found:
            found[key] = compute()
        return found[key]

    @property
    def inputs(self) -> Tensor:
        """(N, 3, S, S) in [0, 1]. Raises CosegError without photographs."""
        self._need_photos()
        return self._engine.memory.recall("inputs", lambda: self._engine.inputs([o.picture for o in self.photos]))

    # Answers ---------------------------------------------------------------------------------------------------------

    def context(self) -> Tensor:
        """The partners' attention, pooled, (D,); of context models."""
        return self._engine.context(self.partners, self.how)

    def logits(self, post: str = "argmax") -> list[Tensor]:
        """(K, h, w) of each photograph, K = 2 or classes + 1; of one class by the CRF where `post` is "crf".

        Raises CosegError where something was said to a system that takes no references.
        """
        post = post_of(self.model, post)
        questions = [Question(i, self.partners) for i in range(len(self.photos))]
        plain = self._kept("argmax", lambda: [a.logits for a in self._engine.answers(questions, self.how)])
        if self.marks.key:
            plain = self._kept("told", lambda alone=plain: self._with_evidence(alone), told=True)
        if post == "argmax" or self.model.online:
            return plain
        pairs = zip(self.photos, plain, strict=True)
        return self._kept("crf", lambda: [refined(o.picture.pixels, x) for o, x in pairs], told=True)

    @torch.no_grad()
    def _with_evidence(self, alone: list[Tensor]) -> list[Tensor]:
        """What was said added to the system's own logits; batches as the engine's, so that masks are the command's."""
        references = list(references_of(self.marks, [o.picture for o in self.photos]))
        evidence = evidence_of(self._engine, references, self.partners, self.how)
        told = []
        for places in self._engine.batches(range(len(self.photos))):
            maps = self._engine.features(self._engine.read(places))
            told += evidence.add(torch.stack([alone[i] for i in places]), maps)
        return told

    @property
    def contours_known(self) -> bool:
        """Has the CRF, which may take seconds, been computed for the present partners?"""
        return "crf" in self._of_group.get((self.partners, self.how, self.marks.key), {})

    def masks(self, threshold: float = 0.5, post: str = "argmax", own: bool = False) -> list[Tensor]:
        """uint8 (H, W), 0 and 1, corrected ones as they are; label maps 0 … K of several classes, without a threshold.

        threshold  foreground is where its probability, by the CRF where `post` is "crf", is above this
        own        at the photographs' own sizes; else at those that are shown
        Raises ValueError for a threshold outside (0, 1), CosegError where the CRF is missing.
        """
        found = self._answered(threshold, post, own)
        for i, corrected in self.marks.corrected.items():
            found[i] = corrected.mask if own else resize_labels(corrected.mask, tuple(self.photos[i].shown.shape[-2:]))
        return found

    def _answered(self, threshold: float, post: str, own: bool) -> list[Tensor]:
        """`masks` without corrections."""
        if not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold}: a probability between 0 and 1")
        sizes = [o.picture.size if own else tuple(o.shown.shape[-2:]) for o in self.photos]
        logits = self.logits(post)
        if self.model.online:
            pictures = [Picture(o.picture.pixels, size) for o, size in zip(self.photos, sizes, strict=True)]
            asked = zip(pictures, [x[None] for x in logits], strict=True)
            return [*self._kept(("labels", post, own), lambda: [decide(*one, post, online=True)[0] for one in asked])]
        # p > t where the foreground's logit is above the background's by log t / (1 − t)
        shift = torch.tensor([math.log(threshold / (1 - threshold)), 0.0])[:, None, None]
        return [masks_from_logits(x + shift, size) for x, size in zip(logits, sizes, strict=True)]

    def marked(self, mask: Tensor) -> str:
        """How much of a photograph a mask (H, W) of the model marks, in words: of several classes, how much of each."""
        if not self.model.online:
            return f"{float((mask != 0).float().mean()):.0%} marked"
        classes = self.model.classes
        shares = zip(class_names(classes), shares_of(mask, classes), strict=True)
        return ", ".join(f"{name} {share:.0%}" for name, share in shares if share) or "0% marked"

    def scores(self, threshold: float = 0.5, post: str = "argmax") -> list[float | None]:
        """J at the own size of each photograph whose truth is known; None for the others, and of several classes."""
        truths = [None if self.model.online else o.truth for o in self.photos]
        if all(truth is None for truth in truths):
            return truths
        pairs = zip(self.masks(threshold, post, own=True), truths, strict=True)
        return [None if truth is None else jaccard(mask, truth) for mask, truth in pairs]

    # Maps ------------------------------------------------------------------------------------------------------------

    def probability(self, post: str = "argmax") -> Heat:
        """Of the foreground, whatever its class."""
        maps = [1 - x.softmax(dim=0)[0] for x in self.logits(post)]
        return Heat(maps, "probability of the foreground", (0.0, 1.0))

    def _spread(self, members: Sequence[int], maps: Sequence[Tensor]) -> list[Tensor | None]:
        found = {i: one.float().cpu() for i, one in zip(members, maps, strict=True)}
        return [found.get(i) for i in range(len(self.photos))]

    def grad_cam(self, i: int) -> Heat:
        """What in photograph i and its partners speaks for the foreground of photograph i: `grad_cam`.

        Of a single look, the partners' attention pooled as in training. Raises CosegError without a backbone.
        """

        def compute() -> Heat:
            members = sorted({*self.partners, i})
            maps = grad_cam(self.model, self.inputs[members], members.index(i))
            return Heat(spread := self._spread(members, maps), "Grad-CAM, logits", _limits(spread))

        return self._kept(("grad-cam", i), compute)

    @property
    def looks_somewhere(self) -> bool:
        """Does the model make a map of where it looks? CSA, SSNM and the multi-class system do, but for ablations."""
        return bool({"spatial", "foreground"} & set(self.model.EXTRAS))

    def spatial_maps(self) -> Heat:
        """Where the model looks by itself: `spatial_maps` of the partners. CosegError for models without."""

        def compute() -> Heat:
            found = spatial_maps(self.model, self.inputs[list(self.partners)])
            return Heat(self._spread(self.partners, found.values), found.unit, found.limits)

        return self._kept("spatial", compute)

    @torch.no_grad()
    def _likeness(self) -> tuple[Tensor, str]:
        """Features (N, C, h, w) of length 1, whose products are cosines, and what they are.

        Of context models as the partners' attention weighs them, at stride 16, or 32 where that is the only one
        attended; of others the backbone's at stride 16. Their mean over all positions is taken off first.
        """
        if self.model.backbone is None:
            raise CosegError(f"{type(self.model).__name__}: has no backbone whose features could be compared")
        if self.model.kind == "context":
            alphas, what = self.context().split(self.model.attended_channels), "attended features"
            level = min(1, len(alphas) - 1)  # strides 32, 16, …
            f = self.model.attended(self._engine.all_features()[-1 - level], alphas[level][None], level)
        else:
            level, what = 1, "the backbone's features"
            f = torch.cat([self.model.backbone(part)[-2] for part in self.inputs.split(BATCH)])
        f = f.float() - f.float().mean(dim=(0, 2, 3), keepdim=True)
        return F.normalize(f, dim=1), f"cosine of {what} at stride {32 >> level}"

    def matches(self, i: int, y: float, x: float) -> Heat:
        """What position (y, x) of photograph i, in shares of its height and width in [0, 1), meets in the photographs.

        Models that compare positions themselves: their `match`, in all but photograph i. Of others the cosine of
        features, in all. The scale ends at the largest value in another photograph.
        Raises ValueError for a place that there is not, CosegError for models without a backbone.
        """
        if not (0 <= i < len(self.photos) and 0 <= y < 1 and 0 <= x < 1):
            raise ValueError(f"photograph {i} at ({y}, {x}): 0 to {len(self.photos) - 1}, and shares from 0 to below 1")
        others = [j for j in range(len(self.photos)) if j != i]
        if self.model.strides_compared:
            maps = [self.model.match(self.inputs[i], self.inputs[j], (y, x)) for j in others]
            return Heat(self._spread(others, maps), self.model.COMPARES, _limits(maps))
        f, unit = self._kept("likeness", self._likeness)
        v = f[i, :, int(y * f.shape[-2]), int(x * f.shape[-1])]
        maps = torch.einsum("c,nchw->nhw", v, f).cpu()
        return Heat(list(maps), unit, _limits([maps[j] for j in others] or list(maps)))

    # Files -----------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, threshold: float = 0.5, post: str = "argmax") -> list[Path]:
        """Write masks, overlays and all that was said: `coseglib.explorer.saved.write`. Returns the masks' files."""
        return saved.write(self, folder, threshold, post)

    def open(self, folder: str | Path) -> saved.Settings:
        """Go on where `save` left off: its photographs, partners, and all that was said and corrected.

        Raises CosegError as `coseglib.explorer.saved.read`, and where a photograph is gone; all then stays as it was.
        """
        found, before = saved.read(folder), dict(vars(self))
        try:
            for fault in self.set_photos(saved.saved_photos(found, [o.photo for o in self.photos])):
                raise CosegError(fault)
            self.set_how(found.group)
            self.set_partners(found.partners)
            self._forget_marks(Marks((), saved.corrections(found, [o.picture.size for o in self.photos])))
            for said in found.said:
                self.say(said.photo, **{said.kind: said.at or True})
            self._forget_marks(self.marks)
        except CosegError:
            vars(self).update(before)
            raise
        return found
