"""Channels of many images are each image's own."""

import numpy as np
import pytest
import torch

from coseglib.analysis.channels import channel_importance, channel_table, hide_object, single_class
from coseglib.core.errors import CosegError
from coseglib.data.record import Group


@torch.no_grad()
def test_channel_importance_is_each_images_own_whatever_the_batch(awake, images):
    ca = awake("ca", "workbook")
    alpha, pooled = channel_importance(ca, images)
    maps = ca.encode(images)
    torch.testing.assert_close(alpha, ca.attention(maps))
    torch.testing.assert_close(pooled, ca.backbone.embed(maps[-1]).mean(dim=(2, 3)))
    ssnm = awake("ssnm")
    gamma, pooled = channel_importance(ssnm, images)
    torch.testing.assert_close(gamma[1], ssnm(images[1:2][None]).extra("gamma")[0, 0], rtol=1e-4, atol=1e-5)
    assert pooled.shape == (3, ssnm.backbone.channels[-1])
    with pytest.raises(CosegError, match="DCNet: weighs no channels; ca, fca, csa and ssnm do"):
        channel_importance(awake("dcnet"), images)


def test_the_table_has_a_row_for_every_image_in_order_with_class_set_and_seen(awake, groups):
    found = channel_table(awake("ca"), groups, trained_on={"synthetic/ring"})
    assert found.rows["photo"].tolist() == [p.name for g in groups for p in g.photos]
    assert found.classes.tolist() == ["star"] * 8 + ["ring"] * 8
    assert found.rows["seen"].tolist() == [False] * 8 + [True] * 8 and set(found.rows.dataset) == {"synthetic"}
    assert found.importance.shape == found.pooled.shape == (16, 320)
    table = found.table()
    assert table.shape == (16, 324) and table[319].tolist() == found.importance[:, 319].tolist()
    with pytest.raises(CosegError, match="no groups"):
        channel_table(awake("ca"), [])


def test_hidden_objects_are_under_a_box_of_one_colour_and_change_the_table(awake, groups):
    image = torch.full((3, 6, 6), 10, dtype=torch.uint8)
    mask = torch.zeros(6, 6, dtype=torch.uint8)
    mask[1, 2] = mask[3, 3] = 1
    mask[5, 5] = 255  # void is no object
    image[:, 2, 2] = 200
    hidden = hide_object(image, mask)
    assert (hidden == 10).all() and image[0, 2, 2] == 200
    assert torch.equal(hide_object(image, torch.zeros_like(mask)), image)
    assert len(hide_object(image, torch.ones_like(mask)).unique()) == 1
    model = awake("ca")
    seen, unseen = (channel_table(model, groups[:1], hidden=h).pooled for h in (False, True))
    assert not np.allclose(seen, unseen)


def test_a_photograph_of_two_groups_is_in_neither_and_small_groups_are_left_out(groups):
    star, ring = single_class(groups)
    shared = {p.name for p in groups[0].photos} & {p.name for p in groups[1].photos}
    assert shared and not shared & {p.name for g in (star, ring) for p in g.photos}
    few = single_class(groups, most=3, seed=1)
    assert [len(g) for g in few] == [3, 3] and [g.name for g in few] == ["star", "ring"]
    assert few == single_class(groups, most=3, seed=1)
    alone = Group("synthetic", "one", groups[0].photos[:1], ("star",))
    assert single_class([alone]) == []
