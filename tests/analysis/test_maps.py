"""Maps that models make: each against a plain loop or a closed form."""

import pytest
import torch

from coseglib.analysis.maps import spatial_maps, to_the_middle
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


def test_objects_are_moved_to_the_middle_by_whole_cells_and_zeros_come_in():
    """Two maps of 6 × 10 cells of 4 × 4 pixels, against a loop over the cells."""
    maps, places = torch.rand(2, 3, 6, 10) + 1, ((1, 7), (4, 2))
    masks = torch.zeros(2, 24, 40, dtype=torch.uint8)
    for mask, (row, column) in zip(masks, places, strict=True):
        mask[4 * row : 4 * row + 8, 4 * column : 4 * column + 8] = 1  # two cells by two: its centre is a cell's corner
    masks[0, 0, 0] = 255  # void counts as little as background
    want = torch.zeros_like(maps)
    for n, (row, column) in enumerate(places):
        for y in range(6):
            for x in range(10):
                from_y, from_x = y + row + 1 - 3, x + column + 1 - 5
                if 0 <= from_y < 6 and 0 <= from_x < 10:
                    want[n, :, y, x] = maps[n, :, from_y, from_x]
    assert torch.equal(to_the_middle(maps, masks), want) and (want == 0).any()
