"""Grad-CAM: what in the images speaks for the foreground, or switches one channel of the attention on.

Grad-CAM (Selvaraju et al., ICCV 2017)  L = ReLU(Σ_k a_k f_k), a_k the mean over the positions of dy/df_k, for a map f
of C channels and a number y. It tells which channels y rests on and where these are, and nothing that speaks against y.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coseglib.core.errors import CosegError
from coseglib.models import METHODS


@contextmanager
def _outputs(*modules: nn.Module) -> Iterator[list]:
    """What modules return, call by call, still tied by gradients to all that is computed from it."""
    found: list = []
    handles = [m.register_forward_hook(lambda module, given, output: found.append(output)) for m in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


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
    """L = ReLU(Σ_k a_k f_k). y a number, f (N, C, h, w) -> (N, h, w), 0 and above."""
    (gradient,) = torch.autograd.grad(y, f, materialize_grads=True)
    a = gradient.mean(dim=(-2, -1), keepdim=True)  # (N, C, 1, 1)
    return (a * f).sum(dim=1).relu().detach().float()


def grad_cam(model, images: Tensor, of: int, stride: int = 32, label: int = 1, pixels: Tensor | None = None) -> Tensor:
    """Which places of a group's images speak for the foreground of one of them. (N, 3, H, W) -> (N, h, w).

    y is the mean over the pixels of image `of` of the logit of `label` minus the background's, as the model answers
    when it is given these N images as one group. Row `of` tells what of the image itself counts; the other rows what
    of its partners does, in the same unit: a model that does not ask its partners has zeros there.

    of      place of the image in the group, 0 … N − 1
    stride  of the backbone's map: 2, 4, 8, 16 or 32; gradients through all that is made of it, deeper maps too
    label   1, or up to K for a multi-class model
    pixels  bool (H, W): those that y is the mean of; None: all
    Values are 0 and above, in units of y, and comparable within one call. Raises ValueError for an image, stride or
    label that there is not, or no pixels; CosegError for a model without a backbone.
    """
    if not 0 <= of < len(images):
        raise ValueError(f"image {of} of a group of {len(images)}")
    with backbone_maps(model) as calls, torch.enable_grad():
        level = _level(model, stride)
        logits = model(images.detach().clone().requires_grad_()[None]).logits[0, of].float()  # (K, H, W)
        if not 1 <= label < len(logits):
            raise ValueError(f"label {label}: 1 to {len(logits) - 1}")
        odds = logits[label] - logits[0]
        if pixels is not None:
            odds = odds[pixels.to(odds.device)]
            if not odds.numel():
                raise ValueError("pixels: none is chosen")
        return _cam(odds.mean(), calls[-1][level])


def channel_cam(model, images: Tensor, channel: int, stride: int = 32) -> Tensor:
    """Which places switch one channel of the attention on, Chen et al. 2018, figure 1. (N, 3, H, W) -> (N, h, w).

    y is the log-odds of alpha_c, log alpha_c / (1 − alpha_c): what the sigmoid of eq. (2) is taken of. So a channel
    that is fully on or off has a map, too. Each image's map is its own; all are in the same unit.

    channel  0 … D − 1, a place in alpha; stride as for `grad_cam`
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
    return ", ".join(name for name, model in METHODS.items() if extra in model.EXTRAS)
