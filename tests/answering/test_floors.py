"""Floors: what needs no training answers as the models do, and finds what is easy to find."""

import pytest
import torch

from coseglib.answering.floors import ELLIPSE, Features, build_floor, common_and_central, is_floor
from coseglib.core.errors import CosegError
from coseglib.data import load
from coseglib.evaluation.tables import evaluation_table
from coseglib.scoring import metrics
from coseglib.scoring.rows import evaluate


def test_everything_is_foreground():
    assert bool((build_floor("everything")(torch.rand(1, 3, 3, 32, 64)).logits.argmax(2) == 1).all())


def test_the_ellipse_has_the_area_of_an_ellipse_and_touches_no_border():
    mask = build_floor("ellipse")(torch.rand(1, 2, 3, 192, 320)).logits[0].argmax(1)
    assert mask.shape == (2, 192, 320) and torch.equal(mask[0], mask[1])
    assert mask.float().mean().item() == pytest.approx(torch.pi / 4 * ELLIPSE**2, abs=5e-3)
    assert not mask[:, [0, -1]].any() and not mask[:, :, [0, -1]].any()


def test_a_cluster_is_foreground_where_it_is_common_and_in_the_middle():
    labels = torch.zeros(4, 6, 6, dtype=torch.long)  # 0: the ground
    labels[:, 2:4, 2:4] = 1  # in the middle of all images
    labels[0, 1:5, 1] = 2  # in one image alone
    labels[:, 0, :3] = 3  # in all images, on the border
    member = torch.nn.functional.one_hot(labels, 4).bool()
    assert common_and_central(member).tolist() == [False, True, False, False]


class Colours(Features):
    """The images themselves, four by four pixels, in place of a network's features."""

    def __init__(self):
        super().__init__("mobilenet_v2", 64, clusters=2, pretrained=False)

    def maps(self, images):
        return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(images, 4), dim=1)


def test_features_find_what_stands_out_in_all_images():
    images = torch.zeros(1, 3, 3, 64, 64)
    images[:, :, 1] = 1.0  # green ground
    truth = torch.zeros(3, 64, 64, dtype=torch.bool)
    for i, (top, left) in enumerate(((8, 8), (24, 20), (16, 36))):
        truth[i, top : top + 20, left : left + 20] = True
    images[0, :, 0][truth], images[0, :, 1][truth] = 1.0, 0.0  # red squares
    found = Colours()(images).logits[0].argmax(1).bool()
    assert (found & truth).sum() / (found | truth).sum() > 0.9


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 3, 64, 64), torch.full((1, 3, 3, 64, 64), 0.5)])
def test_features_of_constant_images_are_finite(images):
    assert Features("mobilenet_v2", 64, pretrained=False)(images).logits.isfinite().all()


def test_any_model_of_timm_gives_features():
    logits = Features("vit_tiny_patch16_224", 64, clusters=3, pretrained=False)(torch.rand(1, 2, 3, 64, 64)).logits
    assert logits.shape == (1, 2, 2, 64, 64) and logits.isfinite().all()


def test_floors_are_asked_as_models_are():
    rows = evaluate(build_floor("ellipse"), load("synthetic")[:2], limit=3, partner=("group", "self", "other"))
    means = rows.groupby("partner").J.mean()
    assert 0 < means["group"] < 1 and means.nunique() == 1  # the ellipse does not look at partners


def test_a_table_of_a_floor_takes_its_name_for_a_checkpoint():
    table = evaluation_table(build_floor("everything"), "synthetic", limit=2)
    share = metrics.aggregate(evaluate(build_floor("everything"), load("synthetic"), limit=2), "common")
    assert table.J.iloc[-1] == share.J.iloc[-1] == pytest.approx(table.P.iloc[-1])  # no void: J and P are its share
    assert len(table["checkpoint sha256"].iloc[0]) == 64


def test_names_are_told_apart():
    assert is_floor("ellipse") and is_floor("features:resnet18") and not is_floor("ca-mobilenet_v2")
    assert build_floor("ellipse").card != build_floor("everything").card


@pytest.mark.parametrize("name", ["ellipse:resnet50", "features:no_such_net", "nothing"])
def test_a_floor_that_does_not_exist_is_named(name):
    with pytest.raises(CosegError, match=f"{name}: no such"):
        build_floor(name)
