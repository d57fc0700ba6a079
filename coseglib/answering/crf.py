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

from coseglib.core.config import Config, Count, Natural, Weight
from coseglib.core.errors import CosegError
from coseglib.data.record import resize_labels

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
    longest: Count = 640  # pixels: a photograph with a longer side is decided on a smaller copy


# For one class: nothing but the contour is to move, so both prices are lower and reach less far. Chosen on validation
# images and on iCoseg's groups beside the eight, whose masks have no void band (`reports/trials.md`, 9).
CONTOUR = CRF(smooth_xy=2, smooth_weight=1, bilateral_xy=20, bilateral_rgb=8, bilateral_weight=2, steps=5)


@cache
def crf_installed() -> bool:
    """Is pydensecrf installed? It is built from source, which takes a C++ compiler."""
    try:
        return bool(_pydensecrf())
    except CosegError:
        return False


def _pydensecrf():
    try:
        import pydensecrf.densecrf as densecrf
    except ImportError as error:
        what = "pip install pydensecrf2, which takes a C++ compiler, or take argmax"
        raise CosegError(f"dense CRF: pydensecrf cannot be imported ({error}); {what}") from error
    return densecrf


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


def marginals(image: Tensor, maps: Tensor, crf: CRF) -> Tensor:
    """Each label's probability at each pixel after the mean-field iterations. -> float32 (..., K+1, H', W').

    image  uint8 RGB (3, H, W); H' and W' are its size, or that of its copy of `crf.longest` pixels a side
    maps   (..., K+1, h, w) in [0, 1] of any size, resized here: one answer about the photograph or several. All share
           the prices between its pixels, which take as long to set up as the iterations of one answer
    Raises CosegError where pydensecrf is missing, ValueError for an image that is not uint8 RGB.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image {image.dtype} {tuple(image.shape)}: uint8 (3, H, W) is wanted")
    densecrf = _pydensecrf()
    size = tuple(image.shape[-2:])
    scale = crf.longest / max(size)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in size]
        image = F.interpolate(torch.as_tensor(image)[None].float(), size=size, mode="area")[0].round().to(torch.uint8)
    height, width = size
    model = densecrf.DenseCRF2D(width, height, maps.shape[-3])
    if crf.smooth_weight:
        model.addPairwiseGaussian(sxy=crf.smooth_xy, compat=crf.smooth_weight)
    if crf.bilateral_weight:
        rgb = np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
        model.addPairwiseBilateral(sxy=crf.bilateral_xy, srgb=crf.bilateral_rgb, rgbim=rgb, compat=crf.bilateral_weight)
    found = []
    for answer in maps.detach().cpu().reshape(-1, *maps.shape[-3:]):
        model.setUnaryEnergy(unary(enlarged(answer, size), crf.certainty))
        found.append(torch.from_numpy(np.array(model.inference(crf.steps))))
    return torch.stack(found).reshape(*maps.shape[:-2], height, width)


def crf_labels(image: Tensor, maps: Tensor, crf: CRF | None = None) -> Tensor:
    """The dense CRF's label map of a photograph. -> uint8 (H, W), at the photograph's own size.

    image, maps  as for `marginals`; each map is normalised, eq. (8)     crf  its parameters; None: the usual
    """
    labels = marginals(image, normalised(maps), crf or CRF()).argmax(dim=0).to(torch.uint8)
    return resize_labels(labels, tuple(image.shape[-2:]))


def refined(picture: Tensor, logits: Tensor, crf: CRF = CONTOUR) -> Tensor:
    """Logits of one class after the dense CRF, which draws its contour. -> log p (..., 2, H', W'), on the CPU.

    picture  uint8 RGB (3, H, W); H' and W' as for `marginals`, so that masks of any size can be read from them
    logits   (..., 2, h, w), one answer about the photograph or several
    In none of the papers on one class. p is the soft-max's own, not stretched as eq. (8) does: a photograph without a
    foreground must stay without.
    """
    return marginals(picture, logits.detach().float().cpu().softmax(dim=-3), crf).clamp(min=1e-6).log()
