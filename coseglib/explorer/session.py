"""A session of looking: some photographs, a system, and what changes in its answers when one thing is changed.

No widgets here: `coseglib.explorer.page` is the page on top. A session keeps what it has computed, so that a question costs
only what it changes:

    another threshold              nothing of the network: masks are read from the kept logits
    another set of partners        context models decode again (they meet the group in one vector); partner models have
                                   kept each pair's answer; group models are asked as a whole again
    other photographs, or a model  all

*Partners* are the photographs that every photograph of the session is asked with: the group. A context model pools
their attention, a partner model compares each photograph with them (with at most `COMPARED`, never with itself unless
it is alone), a group model sees them together, and a photograph that is not among them beside them. With all of them as
partners the masks are those of `coseglib.answering.inference.segment_group`.
"""

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf

from coseglib.analysis.grad_cam import grad_cam
from coseglib.analysis.maps import spatial_maps
from coseglib.answering.crf import POSTS, refined
from coseglib.answering.inference import (
    BATCH,
    COMPARED,
    KINDS,
    POOLINGS,
    Pool,
    label_map,
    masks_from_logits,
    output_names,
    read_picture,
    resize_to_input,
)
from coseglib.answering.second_look import looks, reduced, second_look
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.data.images import write_png
from coseglib.data.record import Photo
from coseglib.scoring import metrics

SHOWN = 400  # pixels: the longer side of a photograph on the page, enlarged if need be
MOST = 24  # photographs of a session
KEPT = 8  # answers to other partners that are kept: of 24 photographs they are some 100 MB
SETTINGS = "session.json"  # beside saved masks: what made them


@dataclass(frozen=True)
class Opened:
    """A photograph that was read.

    size     (H, W), its own          picture  uint8 (3, h, w), at most `second_look.LONGEST` a side
    shown    uint8 (3, h, w), the longer side SHOWN      truth  uint8 (H, W), 1 asked for, 255 void; None: not known
    """

    photo: Photo
    size: tuple[int, int]
    picture: Tensor
    shown: Tensor
    truth: Tensor | None


def opened(photo: Photo, targets: tuple[str, ...] = ()) -> Opened:
    """Read a photograph, and its mask where one thing is asked for. Raises CosegError where either cannot be read."""
    if photo.dataset == "folder" and photo.path:  # the user's own: of any size
        image, size = read_picture(photo.path)
    else:
        image = photo.image()
        size = tuple(image.shape[-2:])
    picture = torch.as_tensor(reduced(image))
    scale = SHOWN / max(picture.shape[-2:])
    shown = tvf.resize(picture, [max(1, round(side * scale)) for side in picture.shape[-2:]], antialias=True)
    known = len(targets) == 1 and photo.read_labels is not None
    return Opened(photo, size, picture, shown, torch.as_tensor(photo.mask(targets)) if known else None)


@dataclass(frozen=True)
class Heat:
    """A map for each photograph, or None where there is none; what the values are; the ends of their colour scale."""

    maps: list[Tensor | None]  # (h, w) each
    unit: str
    limits: tuple[float, float]


def _limits(maps: Sequence[Tensor | None]) -> tuple[float, float]:
    """From 0 to the largest value; a scale of some width even where nothing is above 0."""
    most = max((float(m.max()) for m in maps if m is not None), default=0.0)
    return 0.0, most if most > 0 else 1.0


class Session:
    """Photographs, a model in evaluation mode, partners and pooling. Nothing is computed before it is asked for.

    All places in lists are those of the photographs. Raises CosegError as `set_model` and `set_photos` do.
    """

    def __init__(self, model, photos: Sequence[Photo] = (), targets: tuple[str, ...] = ()):
        self.photos: list[Opened] = []
        self.partners: tuple[int, ...] = ()
        self.how = "mean"
        self.set_model(model)
        if photos:
            self.set_photos(photos, targets)

    # What is asked ---------------------------------------------------------------------------------------------------

    def set_photos(self, photos: Sequence[Photo], targets: tuple[str, ...] = ()) -> list[str]:
        """Look at other photographs, all of them partners. Returns a line for each that cannot be read.

        targets  what is asked for in them, where masks are known: J is then given
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
        self._forget()
        return faults

    def set_model(self, model) -> None:
        """Ask another system. Raises CosegError for a kind of model that is not known."""
        if model.kind not in KINDS:
            raise CosegError(f"{model.kind} models: groups are not segmented by them; known: {', '.join(KINDS)}")
        self.model = model
        if model.kind != "context":
            self.how = "mean"
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
        if how not in POOLINGS:
            raise CosegError(f"{how}: no such pooling of a group; {' or '.join(POOLINGS)}")
        if how != "mean" and self.model.kind != "context":
            raise CosegError(f"{how}: pools the attention of ca, fca and csa; {type(self.model).__name__} has none")
        self.how = how

    @property
    def classes(self) -> int:
        """K of a multi-class model, 1 of all others."""
        return getattr(self.model, "classes", 1)

    @property
    def names(self) -> list[str]:
        """The photographs' names, all different: those of the files that `save` writes, without their endings."""
        return output_names([Path(o.photo.path or o.photo.name) for o in self.photos])

    # What is kept ----------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._of_photos: dict = {}  # what depends on photographs and model alone
        self._of_group: dict = {}  # (partners, how) -> what depends on these too

    def _kept(self, key, compute: Callable):
        """What `compute` gives, once for the present partners and pooling."""
        group = self.partners, self.how
        found = self._of_group.pop(group, {})
        self._of_group[group] = found  # the last one used stands last
        while len(self._of_group) > KEPT:
            del self._of_group[next(iter(self._of_group))]
        if key not in found:
            found[key] = compute()
        return found[key]

    def _once(self, key, compute: Callable):
        if key not in self._of_photos:
            self._of_photos[key] = compute()
        return self._of_photos[key]

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _inputs(self) -> Tensor:
        """(N, 3, S, S) in [0, 1]."""
        stacked = torch.stack([resize_to_input(o.picture, self.model.input_size) for o in self.photos])
        return stacked.contiguous(memory_format=torch.channels_last).to(self._device)

    @property
    def inputs(self) -> Tensor:
        return self._once("inputs", self._inputs)

    def _encoded(self) -> list[Tensor]:
        parts = [self.model.encode(part) for part in self.inputs.split(BATCH)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    @property
    def _features(self) -> list[Tensor]:
        """What `model.encode` gives, (N, …) each."""
        return self._once("features", self._encoded)

    def _drawn(self, places: Collection[int]) -> list[int]:
        """In the order in which `coseglib.answering.inference` draws references from a group of this length."""
        order = np.random.default_rng(len(self.photos)).permutation(len(self.photos)).tolist()
        return [i for i in order if i in places]

    # Answers ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def context(self) -> Tensor:
        """The partners' attention, pooled, (D,); of context models."""
        alpha = self._once("alpha", lambda: self.model.attention(self._features).cpu())
        pool = Pool(self.model.context_size, self.how)
        pool.add(alpha[list(self.partners)])
        return pool.context().to(self._device)

    def _context_logits(self) -> list[Tensor]:
        context, found = self.context(), []
        for part in torch.arange(len(self.photos)).split(BATCH):
            logits = self.model.decode([f[part.to(f.device)] for f in self._features], context)
            if looks(self.model) > 1:
                logits = second_look(self.model, [self.photos[i].picture for i in part], logits, context)
            found += list(logits.float().cpu())
        return found

    def _pair_logits(self) -> list[Tensor]:
        pairs = self._once("pairs", dict)  # (query, answer) -> probabilities (2, S, S)
        answers = self._once("heard", lambda: self.model.heard(self._features))
        order, found = self._drawn(self.partners), []
        for i in range(len(self.photos)):
            asked = [j for j in order if j != i][:COMPARED] or [i]
            if new := [j for j in asked if (i, j) not in pairs]:
                query = [f[[i] * len(new)] for f in self._features]
                p = self.model.compare(query, [a[new] for a in answers]).logits.float().softmax(1).cpu()
                pairs |= {(i, j): one for j, one in zip(new, p, strict=True)}
            found.append(torch.stack([pairs[i, j] for j in asked]).mean(0).clamp(min=1e-6).log())
        return found

    def _group_logits(self) -> list[Tensor]:
        chosen, drawn = list(self.partners), self._drawn(self.partners)
        found: list[Tensor | None] = [None] * len(self.photos)
        together = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
        for asked in [*together, *([i] for i in range(len(self.photos)) if i not in chosen)]:
            beside = [j for j in drawn if j not in asked][: max(0, self.model.group_size - len(asked))]
            logits = self.model(self.inputs[[*asked, *beside]][None]).logits[0].float().cpu()
            for i, one in zip(asked, logits, strict=False):
                found[i] = one
        return found

    @torch.no_grad()
    def _answered(self) -> list[Tensor]:
        ways = {"context": self._context_logits, "partner": self._pair_logits, "group": self._group_logits}
        return ways[self.model.kind]()

    def logits(self, post: str = "argmax") -> list[Tensor]:
        """(K, h, w) of each photograph, K = 2 or classes + 1; of one class by the CRF where `post` is "crf"."""
        if post not in POSTS:
            raise CosegError(f"post = {post}: one of {', '.join(POSTS)}")
        plain = self._kept("argmax", self._answered)
        if post == "argmax" or self.classes > 1:
            return plain
        return self._kept("crf", lambda: [refined(o.picture, x) for o, x in zip(self.photos, plain, strict=True)])

    @property
    def contours_known(self) -> bool:
        """Has the CRF, which may take seconds, been computed for the present partners?"""
        return "crf" in self._of_group.get((self.partners, self.how), {})

    def masks(self, threshold: float = 0.5, post: str = "argmax", own: bool = False) -> list[Tensor]:
        """uint8 (H, W), 0 and 1; label maps 0 … K of a multi-class model, which has no threshold.

        threshold  foreground is where its probability is above this, in (0, 1); 0.5: what `coseg segment` writes
        post       "argmax", or "crf": the dense CRF decides (of one class: its probabilities are compared)
        own        at the photographs' own sizes; else at those that are shown
        Raises ValueError for a threshold that is none, CosegError where the CRF is missing.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"threshold {threshold}: a probability between 0 and 1")
        sizes = [o.size if own else tuple(o.shown.shape[-2:]) for o in self.photos]
        logits = self.logits(post)
        if self.classes > 1:
            pictures = [o.picture for o in self.photos]
            maps = zip(pictures, logits, sizes, strict=True)
            return self._kept(("labels", post, own), lambda: [label_map(*one, post) for one in maps])
        # p > t where the foreground's logit is above the background's by log t / (1 − t)
        shift = torch.tensor([math.log(threshold / (1 - threshold)), 0.0])[:, None, None]
        return [masks_from_logits(x + shift, size) for x, size in zip(logits, sizes, strict=True)]

    def scores(self, threshold: float = 0.5, post: str = "argmax") -> list[float | None]:
        """J at the own size of each photograph whose truth is known; None for the others, and of several classes."""
        if self.classes > 1 or not any(o.truth is not None for o in self.photos):
            return [None] * len(self.photos)
        masks = self.masks(threshold, post, own=True)
        return [
            None if o.truth is None else metrics.jaccard(mask, o.truth)
            for o, mask in zip(self.photos, masks, strict=True)
        ]

    # Maps ------------------------------------------------------------------------------------------------------------

    def probability(self, post: str = "argmax") -> Heat:
        """Of the foreground, whatever its class."""
        maps = [1 - x.softmax(dim=0)[0] for x in self.logits(post)]
        return Heat(maps, "probability of the foreground", (0.0, 1.0))

    def _asked_with(self, i: int) -> list[int]:
        return sorted({*self.partners, i})

    def _spread(self, members: Sequence[int], maps: Sequence[Tensor]) -> list[Tensor | None]:
        found: list[Tensor | None] = [None] * len(self.photos)
        for i, one in zip(members, maps, strict=True):
            found[i] = one.float().cpu()
        return found

    def grad_cam(self, i: int) -> Heat:
        """What in photograph i and its partners speaks for the foreground of photograph i: `grad_cam`.

        Of a single look, at stride 32; the partners' attention is pooled as in training, without the photograph's own.
        Raises CosegError for models without a backbone.
        """

        def compute() -> Heat:
            members = self._asked_with(i)
            maps = grad_cam(self.model, self.inputs[members], members.index(i))
            return Heat(spread := self._spread(members, maps), "Grad-CAM, logits", _limits(spread))

        return self._kept(("grad-cam", i), compute)

    @property
    def looks_somewhere(self) -> bool:
        """Does the model make a map of where it looks? CSA, SSNM and the multi-class system do, but for ablations."""
        return bool({"spatial", "foreground"} & set(getattr(self.model, "EXTRAS", ())))

    def spatial_maps(self) -> Heat:
        """Where the model looks by itself: `spatial_maps` of the partners. CosegError for models without."""

        def compute() -> Heat:
            found = spatial_maps(self.model, self.inputs[list(self.partners)])
            return Heat(self._spread(self.partners, found.values), found.unit, found.limits)

        return self._kept("spatial", compute)

    @torch.no_grad()
    def _likeness(self) -> tuple[Tensor, str]:
        """Features (N, C, h, w) of length 1, whose products are cosines, and what they are.

        Of context models the features as the partners' attention weighs them, at stride 16, or 32 where that is the
        only one attended; of others the backbone's at stride 16. Their mean over all positions of all photographs,
        which tells none from another, is taken off first.
        """
        if self.model.backbone is None:
            raise CosegError(f"{type(self.model).__name__}: has no backbone whose features could be compared")
        if self.model.kind == "context":
            alphas = self.context().split(self.model.attended_channels)
            level = min(1, len(alphas) - 1)  # strides 32, 16, …
            f, what = self.model.attended(self._features[-1 - level], alphas[level][None], level), "attended features"
        else:
            parts = [self.model.backbone(part)[-2] for part in self.inputs.split(BATCH)]
            level, f, what = 1, torch.cat(parts), "the backbone's features"
        f = f.float() - f.float().mean(dim=(0, 2, 3), keepdim=True)
        return F.normalize(f, dim=1), f"cosine of {what} at stride {32 >> level}"

    def matches(self, i: int, y: float, x: float) -> Heat:
        """What position (y, x) of photograph i, in shares of its height and width in [0, 1), meets in the photographs.

        DCNet, PFCC and the multi-class system compare positions themselves: `model.match`, in all but photograph i.
        Of others the cosine of features, in all. The scale ends at the largest value in another photograph.
        Raises ValueError for a place that there is not, CosegError for models without a backbone.
        """
        if not (0 <= i < len(self.photos) and 0 <= y < 1 and 0 <= x < 1):
            raise ValueError(f"photograph {i} at ({y}, {x}): 0 to {len(self.photos) - 1}, and shares from 0 to below 1")
        others = [j for j in range(len(self.photos)) if j != i]
        if self.model.strides_compared:
            maps = [self.model.match(self.inputs[i], self.inputs[j], (y, x)) for j in others]
            spread = self._spread(others, maps)
            return Heat(spread, self.model.COMPARES, _limits(spread))
        f, unit = self._kept("likeness", self._likeness)
        v = f[i, :, int(y * f.shape[-2]), int(x * f.shape[-1])]
        maps = torch.einsum("c,nchw->nhw", v, f).cpu()
        return Heat(list(maps), unit, _limits([maps[j] for j in others] or list(maps)))

    # Files -----------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, threshold: float = 0.5, post: str = "argmax") -> list[Path]:
        """Write the masks as they are: folder/masks/<name>.png, at the photographs' own sizes, and folder/session.json.

        0 and 255, or the labels 0 … K of a multi-class model; names as in `inference.output_names`. The JSON says what
        made them: checkpoint, partners, pooling, threshold, post. Each file is there whole or not at all.
        Raises CosegError where the folder cannot be written, or has masks that no session has saved: they may be yours.
        """
        folder = Path(folder).expanduser()
        settings, masks = folder / SETTINGS, folder / "masks"
        if masks.exists() and not settings.exists():
            raise CosegError(f"{masks}: is there already, and not from here; name another folder")
        card = getattr(self.model, "card", {})
        names = self.names
        made = {
            "checkpoint": card.get("name"),
            "sha256": card.get("sha256"),
            "group": self.how,
            "threshold": threshold if self.classes == 1 else None,
            "post": post,
            "partners": [names[i] for i in self.partners],
            "photos": {name: str(o.photo.path or o.photo.name) for name, o in zip(names, self.photos, strict=True)},
        }
        pixels = self.masks(threshold, post, own=True)
        try:
            masks.mkdir(parents=True, exist_ok=True)
            write_text(settings, json.dumps(made, indent=1) + "\n")
        except OSError as error:
            raise CosegError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
        files = [masks / f"{name}.png" for name in names]
        for file, mask in zip(files, pixels, strict=True):
            write_png(file, mask if self.classes > 1 else 255 * mask)
        return files
