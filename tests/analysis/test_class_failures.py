"""Kinds of failure of several classes, on label maps made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made import OBJECT

from coseglib.analysis.failures import (
    CLASS_GRID,
    CLASS_KINDS,
    ClassThresholds,
    by_kind,
    class_kind,
    class_measures,
    class_table,
    name_clusters,
    sweep_thresholds,
)
from coseglib.analysis.photographs import cielab
from coseglib.data.record import VOID, Group, Photo


def labels(*boxes: tuple[int, int, int, int, int], size=(40, 60)) -> torch.Tensor:
    """A label map of boxes (label, top, bottom, left, right)."""
    found = torch.zeros(size, dtype=torch.uint8)
    for label, top, bottom, left, right in boxes:
        found[top:bottom, left:right] = label
    return found


@pytest.mark.parametrize(
    ("want", "pred", "truth"),
    [
        ("good", labels((1, *OBJECT)), labels((1, *OBJECT))),
        ("overextended", labels((1, 0, 40, 5, 45)), labels((1, *OBJECT))),
        ("overextended", labels((1, *OBJECT)), labels()),
        ("confused", labels((1, 10, 30, 10, 58)), labels((1, *OBJECT), (2, 10, 30, 30, 58))),
        ("confused", labels((2, *OBJECT)), labels((1, *OBJECT))),
        ("lost", labels((1, 10, 14, 10, 14)), labels((1, *OBJECT))),
        ("incomplete", labels((1, 10, 14, 0, 4)), labels((1, 10, 30, 0, 20))),
    ],
)
def test_a_class_map_made_by_hand_has_its_kind(want, pred, truth):
    found = class_measures(pred, truth, 1)
    assert class_kind(found) == want
    assert sum(found[k] for k in ("background", "others", "lost")) == pytest.approx(0 if found["J"] == 1 else 1)


@pytest.mark.parametrize("seed", range(20))
def test_every_class_map_has_one_kind_and_void_does_not_count(seed):
    rng = np.random.default_rng(seed)
    pred = torch.from_numpy(rng.integers(0, 3, (9, 11)).astype(np.uint8))
    truth = torch.from_numpy(rng.choice([0, 1, 2, VOID], (9, 11)).astype(np.uint8))
    found = class_measures(pred, truth, 1)
    assert found == class_measures(torch.where(truth == VOID, 2 - pred, pred), truth, 1)
    assert class_kind(found) in CLASS_KINDS


def test_a_class_table_names_the_clusters_and_leaves_out_what_is_nowhere():
    truths = [labels((1, *OBJECT), (2, 10, 30, 38, 58)), labels((1, *OBJECT))]
    images = [torch.zeros(3, 40, 60, dtype=torch.uint8) for _ in truths]
    images[0][0, 10:30, 38:58] = 255  # the second class is red
    photos = [
        Photo("made", f"p{i}", ("cat", "dog"), lambda x=x: x, lambda t=t: t)
        for i, (x, t) in enumerate(zip(images, truths, strict=True))
    ]
    group = Group("made", "cat+dog", tuple(photos), ("cat", "dog"))
    swapped = [torch.tensor([0, 2, 1], dtype=torch.uint8)[t.long()] for t in truths]
    maps = name_clusters(group, swapped, 3)
    assert all(torch.equal(m, t) for m, t in zip(maps, truths, strict=True))
    found = class_table(group, maps)
    assert found["class"].tolist() == ["cat", "dog", "cat"] and (found.J == 1).all() and (found.kind == "good").all()
    red = np.linalg.norm(cielab(np.array([255, 0, 0])) - cielab(np.array([0, 0, 0])))
    np.testing.assert_allclose(found.alike, [red, red, np.nan])
    moved = sweep_thresholds(found, CLASS_GRID, ClassThresholds(), class_kind, CLASS_KINDS)
    assert (moved.good == 1).all() and by_kind(found, CLASS_KINDS).photographs["good"] == 3


def test_a_higher_threshold_of_cut_makes_incomplete_objects_lost_ones():
    found = class_measures(labels((1, 10, 14, 0, 4)), labels((1, 10, 30, 0, 20)), 1)
    assert found["cut"] == 1
    assert class_kind(found, replace(ClassThresholds(), cut=1.5)) == "lost"
