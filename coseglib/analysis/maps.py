"""Heat maps: what speaks for the foreground or switches a channel on (Grad-CAM), and those that models make themselves.

Grad-CAM (Selvaraju et al., ICCV 2017)  L = ReLU(Σ_k g_k f_k), g_k the mean over the positions of dy/df_k, for a map f
of C channels and a number y. It tells which channels y rests on and where these are, and nothing that speaks against y.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.core.errors import CosegError
from coseglib.models import METHODS


@contextmanager
def _outputs(*modules: nn.Module) -> Iterator[list]:
    """What modules return, call by call, still tied by gradients to all that is computed from it."""
    found: list = []
    with ExitStack() as hooks:
        for one in modules:
            hooks.enter_context(one.register_forward_hook(lambda module, given, output: found.append(output)))
        yield found


@contextmanager
def backbone_maps(model) -> Iterator[list[list[Tensor]]]:
    """The backbone's maps, of each of its calls; strides 2 and 4 have gradients here, too."""
    if model.backbone is None:
        raise CosegError(f"{type(model).__name__}: has no backbone to look into; give a model of the registry")
    learns, model.backbone.stem_learns = model.backbone.stem_learns, True
    try:
        with _outputs(model.backbone) as calls:
            yield calls
    finally:
        model.backbone.stem_learns = learns


def _level(model, stride: int) -> int:
    """Which of the backbone's maps has that stride; the deepest, where two have."""
    strides = model.backbone.strides
    if stride not in strides:
        raise ValueError(f"stride {stride}: one of {', '.join(map(str, dict.fromkeys(strides)))}")
    return max(i for i, s in enumerate(strides) if s == stride)


def _cam(y: Tensor, f: Tensor) -> Tensor:
    """L = ReLU(Σ_k g_k f_k). y a number, f (N, C, h, w) -> (N, h, w), 0 and above."""
    (gradient,) = torch.autograd.grad(y, f, materialize_grads=True)
    g = gradient.mean(dim=(-2, -1), keepdim=True)  # (N, C, 1, 1)
    return (g * f).sum(dim=1).relu().detach().float()


def grad_cam(model, images: Tensor, of: int, stride: int = 32, label: int = 1, pixels: Tensor | None = None) -> Tensor:
    """Which places of a group's images speak for the foreground of one of them. (N, 3, H, W) -> (N, h, w).

    y is the mean over the pixels of image `of` of the logit of `label` minus the background's, when the N images are
    one group. Row `of` tells what of the image itself counts, the others what of its partners does, in the same unit:
    zeros of a model that does not ask them. Values are 0 and above, and comparable within one call.

    stride  of the backbone's map: 2, 4, 8, 16 or 32; gradients through all that is made of it, deeper maps too
    label   1, or up to K for a multi-class model
    pixels  bool (H, W): those that y is the mean of; None: all
    Raises ValueError for an image, stride or label that there is not, or no pixels; CosegError without a backbone.
    """
    if not 0 <= of < len(images):
        raise ValueError(f"image {of} of a group of {len(images)}")
    with backbone_maps(model) as calls, torch.enable_grad():
        level = _level(model, stride)
        logits = model(images.detach().clone().requires_grad_()[None]).logits[0, of].float()  # (K, H, W)
        if not 1 <= label < len(logits):
            raise ValueError(f"label {label}: 1 to {len(logits) - 1}")
        odds = logits[label] - logits[0]
        if pixels is not None and not pixels.any():
            raise ValueError("pixels: none is chosen")
        return _cam((odds if pixels is None else odds[pixels.to(odds.device)]).mean(), calls[-1][level])


def channel_cam(model, images: Tensor, channel: int, stride: int = 32) -> Tensor:
    """Which places switch one channel of the attention on, Chen et al. 2018, figure 1. (N, 3, H, W) -> (N, h, w).

    y is the log-odds of alpha_c, log alpha_c / (1 − alpha_c): what the sigmoid of eq. (2) is taken of, so a channel
    that is fully on or off has a map, too. Each image's map is its own; all are in the same unit.
    Raises CosegError for models without channel attention, ValueError for a channel or stride that there is not.
    """
    if model.kind != "context":
        raise CosegError(f"{type(model).__name__}: has no channel attention; {offering('alpha')} have")
    if not 0 <= channel < model.context_size:
        raise ValueError(f"channel {channel}: 0 to {model.context_size - 1}")
    with backbone_maps(model) as calls, _outputs(*model.attention_layers) as scores, torch.enable_grad():
        level = _level(model, stride)
        model.attention(model.encode(images.detach().clone().requires_grad_()))
        odds = torch.cat(scores, dim=1)[:, channel].float()  # W_c GAP(f) + b_c  (N,)
        return _cam(odds.sum(), calls[-1][level])


def offering(extra: str) -> str:
    """The methods whose output has this map."""
    return ", ".join(name for name, model in METHODS.items() if extra in model.EXTRAS)


class SpatialMaps(NamedTuple):
    """values (N, h, w), what they are, and the ends of the colour scale on which they are to be shown."""

    values: Tensor
    unit: str
    limits: tuple[float, float]


@torch.no_grad()
def spatial_maps(model, images: Tensor) -> SpatialMaps:
    """Where a model looks in the images of one group, (N, 3, H, W), on one scale for all N.

    CSA         alpha^s, eqs. (10), (11), at stride 32, in (0, 1)
    SSNM        √M' · s (`S`), the leading eigenvector over all positions of the group: ±1 for two clear clusters of one
                size, positive on the foreground
    MultiClass  a, what the other images' positions choose, at stride 32, in [½, 1)
    Raises CosegError for other models, and for ablations that lack the map.
    """
    output = model(images[None])
    if "spatial" in output.extras and "points" in output.extras:
        values = (output.extra("points").sqrt()[..., None, None] * output.extra("spatial"))[0]
        most = float(values.abs().max())
        return SpatialMaps(values, "√M' · s (foreground above 0)", (-most, most))
    if "spatial" in output.extras:
        return SpatialMaps(output.extra("spatial")[0, :, 0], "alpha^s (between 0 and 1)", (0.0, 1.0))
    if "foreground" in output.extras:
        return SpatialMaps(output.extra("foreground")[0], "a (between ½ and 1)", (0.5, 1.0))
    raise CosegError(f"{type(model).__name__}: has no spatial map; {offering('spatial')} have, multiclass with MA too")


def to_the_middle(maps: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Each map (N, C, h, w) moved by whole cells, so that its object's centre lies in the middle; zeros come in.

    masks  N of (H, W), 1 on the object, of which there is some
    """
    (h, w), moved = maps.shape[-2:], []
    for one, mask in zip(maps, masks, strict=True):
        y, x = (torch.nonzero(torch.as_tensor(mask) == 1).float().mean(dim=0) + 0.5).tolist()
        down, right = round(h * (0.5 - y / mask.shape[0])), round(w * (0.5 - x / mask.shape[1]))
        moved.append(F.pad(one, [w, w, h, h])[:, h - down : 2 * h - down, w - right : 2 * w - right])
    return torch.stack(moved)
