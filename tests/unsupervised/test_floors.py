"""The frozen network's features, clustered or factored: objects that differ in their features come apart."""

import pytest
import torch

from coseglib.data import load
from coseglib.unsupervised.configuration import load_online
from coseglib.unsupervised.floors import FEATURE_FLOORS, background_first, label_maps


def made(noise: float = 1e-4):
    """Features of three photographs: ground, and a thing of either kind at places that differ. (3, 6, 8, 8)"""
    torch.manual_seed(0)
    truth = torch.zeros(3, 8, 8, dtype=torch.long)
    for n, (y, x) in enumerate([(1, 1), (2, 4), (4, 2)]):
        truth[n, y : y + 3, x : x + 2] = 1
        truth[n, y : y + 2, x + 2 : x + 3] = 2
    kinds = torch.eye(6)[[0, 2, 4]] + 0.2
    return (kinds[truth] + noise * torch.rand(3, 8, 8, 6)).movedim(-1, 1), truth


@pytest.mark.parametrize("name", FEATURE_FLOORS)
def test_things_come_apart_and_the_ground_is_first(name):
    described, truth = made()
    labels = FEATURE_FLOORS[name](described, 3, 0).argmax(dim=1)
    assert ((labels == 0) == (truth == 0)).float().mean() > 0.98
    of_one = labels[truth == 1].mode().values
    assert (labels[truth == 1] == of_one).float().mean() > 0.95
    assert (labels[truth == 2] != of_one).float().mean() > 0.95


@pytest.mark.parametrize("name", FEATURE_FLOORS)
def test_photographs_that_say_nothing_are_background(name):
    maps = FEATURE_FLOORS[name](torch.ones(2, 6, 4, 4), 3, 0)
    assert maps.shape == (2, 3, 4, 4) and bool(maps.isfinite().all())
    assert int(maps.argmax(dim=1).max()) == 0


def test_the_background_is_what_most_of_the_border_holds():
    maps = torch.zeros(1, 3, 5, 5)
    maps[:, 0, 1:4, 1:4] = 1
    maps[:, 2] = 0.5
    assert torch.equal(background_first(maps), maps[:, [2, 0, 1]])


@pytest.mark.parametrize("name", FEATURE_FLOORS)
def test_label_maps_have_their_photographs_sizes(name):
    group = load("synthetic-multiclass")[0]
    photos = group.photos[:3]
    labels = label_maps(name, photos, len(group.targets), load_online("smoke"))
    assert [m.shape for m in labels] == [p.image().shape[-2:] for p in photos]
    assert all(m.dtype == torch.uint8 and int(m.max()) <= len(group.targets) for m in labels)
    again = label_maps(name, photos, len(group.targets), load_online("smoke"))
    assert all(torch.equal(a, b) for a, b in zip(labels, again, strict=True))
