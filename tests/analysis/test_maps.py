"""Maps that models make: each against a plain loop or a closed form."""

import pytest
import torch

from coseglib.analysis.maps import spatial_maps
from coseglib.core.errors import CosegError


@torch.no_grad()
def test_spatial_maps_are_what_the_models_add_or_multiply(awake, images):
    csa = awake("csa")
    maps = spatial_maps(csa, images)
    want = torch.sigmoid(csa.encode(images)[-1].mean(dim=1))
    torch.testing.assert_close(maps.values, want)
    assert maps.limits == (0, 1) and "alpha^s" in maps.unit
    ssnm = awake("ssnm", mask_stride=16)
    maps = spatial_maps(ssnm, images)
    assert maps.values.shape == (3, 4, 4)
    assert float(maps.values.square().mean()) == pytest.approx(1, rel=1e-3)  # |√M' s|² = M'
    assert maps.limits == (-float(maps.values.abs().max()), float(maps.values.abs().max()))
    multi = spatial_maps(awake("multiclass"), images)
    assert multi.values.shape == (3, 2, 2) and multi.limits == (0.5, 1)
    for model in (awake("ca"), awake("ssnm", spatial=False), awake("multiclass", mutual_attention=False)):
        with pytest.raises(CosegError, match="has no spatial map; csa, ssnm have"):
            spatial_maps(model, images)
