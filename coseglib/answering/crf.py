"""From soft-max maps to a label map: each map normalised, then the largest wins, or a dense CRF decides.

Maps are (K+1, h, w) in [0, 1], channel 0 the background; label maps are uint8 (H, W), 0 … K. The answer of a system
with one class, foreground against background, can be drawn along the photograph's edges as well: `refined`.

The dense CRF (Krähenbühl and Koltun, NIPS 2011) lets every pixel of a photograph talk to every other one. A labelling
costs −log p of each pixel's label, and for every two pixels of *different* labels a price that is the higher the more
alike they are: near each other (smoothness), or near and of one colour (appearance). So edges of labels move to edges
of colour, and specks vanish. Mean-field iterations lower the cost; pydensecrf does them, imported when it is needed.
"""

from functools import cache
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.densecrf import Problem, pydensecrf, solve
from coseglib.core.config import Config, Count, Natural, Weight
from coseglib.core.errors import CosegError
from coseglib.data.record import resize_image, resize_labels

Above = Annotated[float, Field(gt=0)]
FLAT = 1e-6  # a map whose values span less than this says nothing about where


def normalised(maps: Tensor) -> Tensor:
    """Each map stretched to [0, 1]: (S − min S) / (max S − min S), eq. (8). (K+1, H, W) -> the same, float32.

    The equation's text is lost but for the map and its value at a pixel; the range is our reading. A map that is
    constant has no range: it stays as it is.
    """
    maps = maps.float()
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    return torch.where(span > FLAT, (maps - low) / span.clamp(min=FLAT), maps)


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (K+1, h, w) at a photograph's own size (H, W), bilinearly. float32."""
    return F.interpolate(maps.float()[None], size=size, mode="bilinear")[0]


def argmax_labels(maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Eq. (9): the label whose normalised map is the largest; ties go to the lower label. -> uint8 (H, W).

    size  (H, W) that the normalised maps are brought to, one after the other; None: their own
    """
    best = maps.new_full(size or maps.shape[-2:], -torch.inf, dtype=torch.float32)
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for k, map_ in enumerate(normalised(maps)):
        map_ = map_ if size is None else enlarged(map_[None], size)[0]
        labels[map_ > best] = k
        best = torch.maximum(best, map_)
    return labels


class CRF(Config):
    """What the dense CRF weighs. Values as usual for photographs of 300 to 500 pixels; the thesis prints none."""

    smooth_xy: Above = 3.0  # pixels: how far the smoothness price reaches (a Gaussian's standard deviation)
    smooth_weight: Weight = 3.0  # that price: larger removes larger specks, and thin parts of objects
    bilateral_xy: Above = 60.0  # pixels: how far the appearance price does; large: one decision a colour
    bilateral_rgb: Above = 10.0  # of 255: how alike colours have to be; smaller: edges and noise count more
    bilateral_weight: Weight = 5.0  # that price: larger follows the photograph more, the maps less
    steps: Natural = 10  # mean-field iterations; more than 10 change little
    certainty: Annotated[float, Field(gt=0, lt=1)] = 0.99  # the highest p of a map: at 1 others' cost is infinite
    reach: Natural | None = None  # pixels around what is not background for certain that are decided; None: all
    longest: Count = 640  # pixels: a photograph with a longer side is decided on a smaller copy, by the same pixels


# For one class: nothing but the contour is to move, so the price is lower and reaches less far, specks are left to the
# network, and 288 pixels tell as much as more. Chosen on validation images and on iCoseg's groups beside the eight,
# whose masks have no void band (`reports/trials.md`, 9 and 22).
CONTOUR = CRF(smooth_weight=0, bilateral_xy=20, bilateral_rgb=8, bilateral_weight=2, steps=2, reach=20, longest=288)


@cache
def crf_installed() -> bool:
    """Is pydensecrf installed? It is built from source, which takes a C++ compiler."""
    try:
        return bool(pydensecrf())
    except CosegError:
        return False


def unary(maps: Tensor, certainty: float = 0.99) -> np.ndarray:
    """−log p of each label: normalised maps, made to sum to 1 over the labels. -> float32 (K+1, H·W), contiguous.

    p is mixed with the uniform distribution so that it reaches `certainty` at most; where all maps are 0 it is uniform.
    """
    p = maps.float()
    total = p.sum(dim=0, keepdim=True)
    p = torch.where(total > FLAT, p / total.clamp(min=FLAT), torch.full_like(p, 1 / len(p)))
    if len(p) > 1:
        rest = (1 - certainty) / (1 - 1 / len(p))  # the share of the uniform distribution
        p = (1 - rest) * p + rest / len(p) if rest < 1 else torch.full_like(p, 1 / len(p))
    return np.ascontiguousarray(-p.log().flatten(1).numpy(), dtype=np.float32)


def problem_of(image: Tensor, maps: Tensor, crf: CRF) -> Problem:
    """What pydensecrf is asked, at the photograph's size or that of its copy of `crf.longest` pixels a side.

    image  uint8 RGB (3, H, W)      maps  (A, K+1, h, w) in [0, 1] of any size, resized here
    Raises ValueError for an image that is not uint8 RGB.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image {image.dtype} {tuple(image.shape)}: uint8 (3, H, W) is wanted")
    size = tuple(image.shape[-2:])
    scale = crf.longest / max(size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in size)
        image = resize_image(torch.as_tensor(image), size)
    costs = np.stack([unary(enlarged(answer, size), crf.certainty) for answer in maps.detach().cpu()])
    smooth = crf.smooth_xy, crf.smooth_weight
    bilateral = crf.bilateral_xy, crf.bilateral_rgb, crf.bilateral_weight
    rgb = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return Problem(rgb, costs, smooth, bilateral, crf.steps, crf.reach)


def marginals(image: Tensor, maps: Tensor, crf: CRF) -> Tensor:
    """Each label's probability at each pixel after the mean-field iterations. -> float32 (..., K+1, H', W').

    image  uint8 RGB (3, H, W); H' and W' are its size, or that of its copy of `crf.longest` pixels a side
    maps   (..., K+1, h, w) in [0, 1] of any size, resized here: one answer about the photograph or several
    Raises CosegError where pydensecrf is missing, ValueError for an image that is not uint8 RGB.
    """
    found = torch.from_numpy(solve(problem_of(image, maps.reshape(-1, *maps.shape[-3:]), crf)))
    return found.reshape(*maps.shape[:-2], *found.shape[-2:])


def asked_of_crf(image: Tensor, logits: Tensor, online: bool = False) -> Problem:
    """Answers about a photograph, logits (A, K+1, h, w), as they are put to the dense CRF.

    online  of several classes: each map normalised, eq. (8). Of one class p is the soft-max's own, not stretched: a
            photograph without a foreground must stay without
    """
    maps = logits.detach().float().cpu().softmax(dim=1)
    return problem_of(image, normalised(maps) if online else maps, CRF() if online else CONTOUR)


def crf_labels(image: Tensor, maps: Tensor, crf: CRF | None = None) -> Tensor:
    """The dense CRF's label map of a photograph. -> uint8 (H, W), at the photograph's own size.

    image, maps  as for `marginals`; each map is normalised, eq. (8)     crf  its parameters; None: the usual
    """
    return labels_from(marginals(image, normalised(maps), crf or CRF()), tuple(image.shape[-2:]))


def labels_from(p: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest label of each pixel. p (K+1, H', W') -> uint8 (H, W), of the size that is asked for."""
    return resize_labels(p.argmax(dim=0).to(torch.uint8), size)


def log_of(p: Tensor) -> Tensor:
    """log p of one class's marginals (..., 2, H', W'), from which masks of any size can be read."""
    return p.clamp(min=1e-6).log()


def refined(picture: Tensor, logits: Tensor, crf: CRF = CONTOUR) -> Tensor:
    """Logits of one class after the dense CRF, which draws its contour. -> log p (..., 2, H', W'), on the CPU.

    picture  uint8 RGB (3, H, W); H' and W' as for `marginals`
    logits   (..., 2, h, w), one answer about the photograph or several
    In none of the papers on one class.
    """
    return log_of(marginals(picture, logits.detach().float().cpu().softmax(dim=-3), crf))
