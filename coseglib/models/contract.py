"""What a model is and does: the one face that answering, scoring, training, figures and the explorer see.

A further paper is one file with one class, derived from one of three kinds (`ContextModel`, `PartnerModel`,
`GroupModel`), and one line in `models/registry.py`. Nothing outside asks for a class or whether an attribute exists:
every model has all of them.

All three: `encode(images)` -> maps of each image, `model(images, weights)` -> `Output` for whole groups, `loss(…)`,
`match(…)`. Sizes of images, groups and inputs are checked here and nowhere else.

Symbols   images in [0, 1]; B groups, N images a group, K classes, D numbers of a context; H, W of images, h, w of maps
          weights (B, N, N), rows sum to 1: how much image j's answer counts for image i; None: all others' in equal
          parts, of one image its own
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from coseglib.core.errors import CosegError
from coseglib.models.losses import OBJECTIVES, foreground_dice

GROUPS = "(B, N, 3, H, W)"
POSTS = ("argmax", "crf")  # how maps become masks: the largest wins, or a dense CRF decides
LOOKS = (1, 2)  # how often a photograph is looked at: 2 is for context models
POOLINGS = ("mean", "min")  # how the attention of a group's images becomes its context
STRIDE = 32  # sides of images are multiples of the coarsest map's
Terms = dict[str, Tensor]  # of a loss, by name


@dataclass(frozen=True)
class Paper:
    """What a paper says of its own system: "" where it varies or is not said."""

    key: str  # in `data/reported.csv`
    systems: tuple[str, ...] = ()  # their names as printed there
    protocol: str = "common"  # of `coseglib.scoring.metrics`
    backbone: str = ""
    trained_on: str = ""


@dataclass
class Output:
    """logits (B, N, K + 1, H, W) at the images' size; extras by name (attention, …).

    An extra that costs time is a function without arguments: called when somebody asks for it, and not in training.
    """

    logits: Tensor
    extras: dict[str, Tensor | Callable[[], Tensor]] = field(default_factory=dict)

    def extra(self, name: str) -> Tensor:
        """Raises CosegError, naming the extras there are and the methods that offer it."""
        if name not in self.extras:
            from coseglib.models.registry import METHODS

            offered = [method for method, model in METHODS.items() if name in model.EXTRAS]
            by = f"offered by {', '.join(offered)}" if offered else "no method offers it"
            raise CosegError(f"{name}: not among this output's extras ({', '.join(self.extras) or 'none'}); {by}")
        if callable(self.extras[name]):
            self.extras[name] = self.extras[name]()
        return self.extras[name]


def others_equally(n: int) -> Tensor:
    """Weights (n, n) whose rows sum to 1: every other image in equal parts; of one image, itself."""
    return torch.ones(1, 1) if n == 1 else (1 - torch.eye(n)) / (n - 1)


def _check(images: Tensor, wanted: str, weights: Tensor | None = None) -> None:
    if images.ndim != len(wanted.split(", ")) or images.shape[-3] != 3 or not images.numel():
        raise ValueError(f"images of {tuple(images.shape)}: must be {wanted}")
    if images.shape[-1] % STRIDE or images.shape[-2] % STRIDE:
        raise ValueError(f"images of {tuple(images.shape[-2:])}: both sides must be multiples of {STRIDE}")
    b, n = images.shape[:2]
    if weights is not None and weights.shape != (b, n, n):
        raise ValueError(f"weights of {tuple(weights.shape)}: must be {(b, n, n)}")


class Model(nn.Module):
    """The base of all models.

    input_size  side in pixels of the squares that photographs are resized to, a multiple of 32
    card        of the checkpoint that it comes from, frozen; empty when untrained
    """

    kind: str  # "context", "partner" or "group"
    paper: ClassVar[Paper] = Paper("")
    classes = 1  # K; 1: foreground against background. Logits have K + 1 channels
    online = False  # True: learned without masks on the very group that it segments; masks are label maps, 0 … K
    EXTRAS: Mapping[str, str] = MappingProxyType({})  # what its `Output` offers besides logits: names and shapes
    VARIANTS: tuple[str, ...] = ("paper", "workbook")  # as printed, and what the workbook makes of it
    options: Mapping[str, object] = MappingProxyType({})  # of its ablations: all with their defaults, or its own
    group_size = 1  # images that a group model answers at once
    looks = 1  # of LOOKS
    post = "argmax"  # of POSTS, where nobody says
    precision = "auto"  # of `coseglib.core.devices.precision_of`, in which it answers
    prior = None  # of `coseglib.answering.priors`: what is added to its answers, where one was named
    objective = "cross_entropy"  # of OBJECTIVES: what its answers are trained by
    COMPARES: str | None = None  # what `match` shows; None: no positions are compared
    strides_compared: tuple[int, ...] = ()  # of the maps that `match` offers, the finest last

    def __init_subclass__(cls, **more) -> None:
        super().__init_subclass__(**more)
        known = inspect.signature(cls).parameters.values()
        cls.options = MappingProxyType({p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY})

    def __init__(self, backbone: nn.Module | None = None, variant: str = "paper", input_size: int = 224):
        super().__init__()
        self.choose(variant=(variant, self.VARIANTS))
        if input_size % STRIDE or input_size < STRIDE:
            raise ValueError(f"input_size {input_size}: must be a multiple of {STRIDE}, the coarsest stride")
        self.backbone, self.variant, self.input_size = backbone, variant, input_size
        self._card: dict[str, object] = {}

    @property
    def card(self) -> Mapping[str, object]:
        return MappingProxyType(self._card)

    @card.setter
    def card(self, card: Mapping[str, object]) -> None:
        self._card = dict(card)

    @staticmethod
    def choose(**choices: tuple[object, tuple]) -> None:
        """name=(value, allowed). Raises ValueError for a value that is not among those allowed."""
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise ValueError(f"{name} {value!r}: one of {', '.join(map(str, allowed))}")

    def encode(self, images: Tensor) -> list[Tensor]:
        """images (B, 3, H, W) in [0, 1] -> what is known of each alone, maps (B, C_s, H/s, W/s): the backbone's."""
        _check(images, "(B, 3, H, W)")
        return self.backbone(images)

    def forward(self, images: Tensor, weights: Tensor | None = None) -> Output:
        """images (B, N, 3, H, W), weights (B, N, N) or None -> logits (B, N, K + 1, H, W), extras (B, N, …)."""
        raise NotImplementedError

    def loss(self, output: Output, targets: Tensor, classes: Tensor | None = None, dice: float = 0.0) -> Terms:
        """output, targets uint8 (B, N, H, W), classes (B, L) or None -> terms by name, whose sum is minimised.

        targets  1 asked for, 0 not, 255 void    classes  1 for what the group has in common; None: there are no labels
        dice     weight of the foreground dice beside the paper's own terms
        Here: the `objective`. An online model has no targets: its `loss` takes what it learns from instead.
        """
        terms = {self.objective: OBJECTIVES[self.objective](output.logits, targets)}
        return terms | {"foreground_dice": dice * foreground_dice(output.logits, targets)} if dice else terms

    @torch.no_grad()
    def match(self, query: Tensor, reference: Tensor, at: tuple[float, float], stride: int | None = None) -> Tensor:
        """query, reference (3, H, W) -> (h, w): what one position of the query meets in the reference, see COMPARES.

        at  (y, x) in shares of the query's sides, [0, 1)   stride  one of `strides_compared`; None: the finest
        Raises CosegError for a model that compares no positions, ValueError for a place or stride that there is not.
        """
        if not self.strides_compared:
            from coseglib.models.registry import METHODS

            able = ", ".join(name for name, model in METHODS.items() if model.COMPARES)
            raise CosegError(f"{type(self).__name__}: compares no positions (as given); {able} do")
        stride = self.strides_compared[-1] if stride is None else stride
        if stride not in self.strides_compared:
            offered = ", ".join(map(str, self.strides_compared))
            raise ValueError(f"stride {stride}: {type(self).__name__} matches at {offered}")
        if not (0 <= at[0] < 1 and 0 <= at[1] < 1):
            raise ValueError(f"at {at}: (y, x) in shares of height and width, from 0 to below 1")
        cell = int(at[0] * (query.shape[-2] // stride)), int(at[1] * (query.shape[-1] // stride))
        return self._match(self.encode(query[None]), self.encode(reference[None]), cell, stride).float()

    def _match(self, query: list[Tensor], reference: list[Tensor], cell: tuple[int, int], stride: int) -> Tensor:
        """Maps of one image each, a cell (row, column) of the query's map at a stride -> (h, w). See `match`."""
        raise NotImplementedError


class ContextModel(Model):
    """Reduces each image to D numbers in (0, 1), pools the group's, and decodes each image by the pool."""

    kind = "context"
    includes_itself = False  # whether an image's own attention belongs to what its context is pooled from
    context_size: int

    def attention(self, maps: list[Tensor], mask: Tensor | None = None) -> Tensor:
        """maps, from `encode` -> (B, D), D = `context_size`. mask (B, H, W), 1 on what is meant: of that alone."""
        raise NotImplementedError

    def answer(self, maps: list[Tensor], context: Tensor) -> Tensor:
        """maps of B images, context (D,) or (B, D) -> logits (B, 2, H, W), float32."""
        raise NotImplementedError

    def pool(self, alpha: Tensor, how: str = "mean") -> Tensor:
        """alpha (B, D), of the images of one group -> (D,)."""
        self.choose(how=(how, POOLINGS))
        return alpha.mean(dim=0) if how == "mean" else alpha.amin(dim=0)

    def contexts(self, alpha: Tensor, weights: Tensor | None = None, marked: Tensor | None = None) -> Tensor:
        """alpha (B, N, D), weights (B, N, N) or None -> (B, N, D): what each image is decoded by, in training too.

        The weighted mean of the others' attention; or, where it includes the image's own, the mean over the image and
        all that it has weight to (None: the whole group).
        marked  (B, N, D), the attention that the *others* see of an image, where it is asked by example; None: alpha
        """
        b, n, _ = alpha.shape
        marked = alpha if marked is None else marked
        if self.includes_itself:
            members = torch.ones(b, n, n) if weights is None else (weights > 0) + torch.eye(n).to(weights) > 0
            weights = members / members.sum(dim=2, keepdim=True)
        elif weights is None:
            weights = others_equally(n).expand(b, n, n)
        weights = weights.to(alpha)
        context = (weights[..., None] * marked[:, None]).sum(dim=2)  # no product of matrices: float32 in autocast
        if marked is not alpha:  # its own as it is: its mask is what is asked of it
            context = context + weights.diagonal(dim1=1, dim2=2)[..., None] * (alpha - marked)
        return context

    def forward(self, images: Tensor, weights: Tensor | None = None, marks: Tensor | None = None) -> Output:
        """images (B, N, 3, H, W), weights (B, N, N) or None -> logits (B, N, 2, H, W), extras alpha, context.

        marks  (B, N, H, W), 1 on what is meant in an image that is an example to the others, 0 all over in one that is
               none; None: no examples
        """
        _check(images, GROUPS, weights)
        b, n = images.shape[:2]
        maps = self.encode(images.flatten(0, 1))
        alpha = self.attention(maps).unflatten(0, (b, n))  # (B, N, D)
        marked = None if marks is None else self.attention(maps, marks.flatten(0, 1)).unflatten(0, (b, n))
        context = self.contexts(alpha, weights, marked)
        logits = self.answer(maps, context.flatten(0, 1)).unflatten(0, (b, n))
        more = {name: extra.unflatten(0, (b, n)) for name, extra in self.more_extras(maps).items()}
        return Output(logits, {"alpha": alpha, "context": context, **more})

    def more_extras(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """maps of B images -> what a model shows besides alpha and context, by name, (B, …)."""
        return {}


class PartnerModel(Model):
    """Compares an image with one other at a time. What `encode` found of a reference serves all images that meet it."""

    kind = "partner"

    def reference_maps(self, maps: list[Tensor]) -> list[Tensor]:
        """maps, from `encode` -> those of them that are read of a reference image. Here: all."""
        return maps

    def answer(self, maps: list[Tensor], reference: list[Tensor]) -> Output:
        """maps of B images, `reference_maps` of one reference each -> logits (B, 2, H, W), float32, extras (B, …)."""
        raise NotImplementedError

    def forward(self, images: Tensor, weights: Tensor | None = None) -> Output:
        """images (B, N, 3, H, W), weights (B, N, N) or None -> logits (B, N, 2, H, W), extras (B, N, …).

        Image i is compared with each j of weight above 0. With one such j the logits are that comparison's; else the
        logarithm of the weighted mean of the probabilities. Extras are weighted means.
        """
        _check(images, GROUPS, weights)
        b, n = images.shape[:2]
        if weights is None:
            weights = others_equally(n).to(images.device).expand(b, n, n)
        group, i, j = weights.nonzero(as_tuple=True)  # P pairs, in the query images' order
        query, share = group * n + i, weights[group, i, j].float()
        maps = self.encode(images.flatten(0, 1))
        reference = [m[group * n + j] for m in self.reference_maps(maps)]
        one_each = len(query) == b * n
        out = self.answer(maps if one_each else [m[query] for m in maps], reference)

        def mean(x: Tensor) -> Tensor:
            """Over an image's partners. (P, …) -> (B·N, …)."""
            if one_each:
                return x
            return x.new_zeros(b * n, *x.shape[1:]).index_add(0, query, share.view(-1, *(1,) * (x.ndim - 1)) * x)

        def extra(name: str) -> Tensor:
            return mean(out.extra(name)).unflatten(0, (b, n))

        logits = out.logits
        if not one_each:
            logits = mean(logits.softmax(dim=1)).clamp(min=torch.finfo(torch.float32).tiny).log()
        return Output(logits.unflatten(0, (b, n)), {name: partial(extra, name) for name in out.extras})


class GroupModel(Model):
    """Sees the N images of a group at once."""

    kind = "group"
    group_size = 5

    def answer(self, images: Tensor, weights: Tensor | None = None) -> Output:
        """As `forward`, of images that have been checked."""
        raise NotImplementedError

    def forward(self, images: Tensor, weights: Tensor | None = None) -> Output:
        _check(images, GROUPS, weights)
        return self.answer(images, weights)
