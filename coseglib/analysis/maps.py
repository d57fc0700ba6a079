"""Maps that models make themselves: where they look, and what one position meets in another image."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.analysis.grad_cam import offering
from coseglib.core.errors import CosegError
from coseglib.models.dual_cross import DCNet, correlation_of
from coseglib.models.multiclass import MultiClass
from coseglib.models.pyramid_correlation import PFCC


class SpatialMaps(NamedTuple):
    """values (N, h, w), what they are, and the ends of the colour scale on which they are to be shown."""

    values: Tensor
    unit: str
    limits: tuple[float, float]


@torch.no_grad()
def spatial_maps(model, images: Tensor) -> SpatialMaps:
    """Where a model looks in the images of one group, (N, 3, H, W), on one scale for all N.

    CSA         alpha^s, eqs. (10), (11), at stride 32, in (0, 1)
    SSNM        √M' · s, the leading eigenvector over all positions of the group, as it is added to the features
                (`S`): ±1 for two clear clusters of one size, positive on the foreground
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


def _match_cross(model: DCNet, query: Tensor, answer: Tensor, cell: tuple[int, int], stride: int) -> Tensor:
    return correlation_of(model, model.encode(query), model.encode(answer), cell, stride)[0]


def _match_pyramid(model: PFCC, query: Tensor, answer: Tensor, cell: tuple[int, int], stride: int) -> Tensor:
    base, other = model.encode(query)[-1], model.encode(answer)[-1]  # f'  (1, D, h, w)
    (h, w), (row, column) = base.shape[-2:], cell
    total = torch.zeros(other.shape[-2:], device=other.device)
    for kernel in model.pyramid(base, other):  # (1, D, k, k)
        k = kernel.shape[-1]
        products = (kernel[0] * base[0, :, row, column].float()[:, None, None]).mean(dim=0)  # (k, k)
        place = k // 2 - torch.arange(k, device=products.device)  # where the kernel's centre is, from `cell`
        inside = ((row + place >= 0) & (row + place < h))[:, None] & ((column + place >= 0) & (column + place < w))
        total += F.interpolate((products * inside)[None, None], size=total.shape, mode="bilinear")[0, 0]
    return total / len(model.kernels)


def _match_mutual(model: MultiClass, query: Tensor, answer: Tensor, cell: tuple[int, int], stride: int) -> Tensor:
    layer, anchor, reference = model.mutual_attention, model.encode(query)[-1], model.encode(answer)[-1]
    q, k = layer.query(reference).flatten(2).mT[0], layer.key(anchor).flatten(2).mT[0]  # (M, C')
    votes = (q.float() @ k.float().mT).softmax(dim=-1)  # a row of 1 for each of the reference's positions
    return votes[:, cell[0] * anchor.shape[-1] + cell[1]].unflatten(0, reference.shape[-2:])


def _ways(model) -> tuple:
    """How a model matches positions, and the strides that it does so at, the finest last."""
    if isinstance(model, DCNet):
        return _match_cross, model.strides
    if isinstance(model, PFCC) and model.kernels:
        return _match_pyramid, (16,)
    if isinstance(model, MultiClass) and model.mutual_attention is not None:
        return _match_mutual, (32,)
    raise CosegError(f"{type(model).__name__}: compares no positions (as given); dcnet, pfcc and multiclass with MA do")


@torch.no_grad()
def match(model, query: Tensor, answer: Tensor, at: tuple[float, float], stride: int | None = None) -> Tensor:
    """What one position of the query image meets in the answer image. query, answer (3, H, W) -> (h, w).

    DCNet       how much of each position of the answer the position collects, over all loops: sums to 1, without the
                gates and the channels' part (`models.dual_cross.correlation_of`)
    PFCC        the products of the position's features with each cell of the answer, as eq. (3) adds them up: mean over
                the channels, and over the kernels, each enlarged to the answer's map; any sign, 0 for cells that
                never lie on the position
    MultiClass  which share of its vote each position of the answer gives to the position, in [0, 1]: the column of
                softmax(query(F_answer) key(F_query)ᵀ) whose sum v decides about a

    at      (y, x) in shares of the query's height and width, [0, 1): a click, whatever the picture's size
    stride  of the maps: one of DCNet's, 16 for PFCC, 32 for MultiClass; None: the finest that there is
    Raises CosegError for models that compare no positions, ValueError for a place or stride that there is not.
    """
    way, strides = _ways(model)
    stride = strides[-1] if stride is None else stride
    if stride not in strides:
        raise ValueError(f"stride {stride}: {type(model).__name__} matches at {', '.join(map(str, strides))}")
    if not (0 <= at[0] < 1 and 0 <= at[1] < 1):
        raise ValueError(f"at {at}: (y, x) in shares of height and width, from 0 to below 1")
    cell = int(at[0] * (query.shape[-2] // stride)), int(at[1] * (query.shape[-1] // stride))
    return way(model, query[None], answer[None], cell, stride).float()
