"""Maps that models make themselves: where they look."""

from typing import NamedTuple

import torch
from torch import Tensor

from coseglib.analysis.grad_cam import offering
from coseglib.core.errors import CosegError


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
