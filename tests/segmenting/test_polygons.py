import json

import numpy as np
import pytest
from pycocotools import mask as rle

from coseglib.segmenting.polygons import AT_LEAST, polygons_of


def drawn(polygons: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    return rle.decode(rle.merge(rle.frPyObjects(json.loads(json.dumps(polygons)), *shape)))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def disc(shape, y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((rows - y) ** 2 + (columns - x) ** 2 < radius**2).astype(np.uint8)


def masks() -> dict[str, np.ndarray]:
    shape = (90, 120)
    made = {name: np.zeros(shape, np.uint8) for name in ("one pixel", "corner pixel", "thin line", "diagonal", "two")}
    made["one pixel"][40, 50] = made["corner pixel"][-1, -1] = 1
    made["thin line"][30, 5:110] = 1
    np.fill_diagonal(made["diagonal"], 1)  # pixels that touch by their corners alone
    made["two"][10:20, 10:30] = made["two"][50:80, 60:110] = 1
    made["full"] = np.ones(shape, np.uint8)
    made["disc"] = disc(shape, 45, 60, 30)
    made["ring"] = disc(shape, 45, 60, 40) - disc(shape, 45, 60, 20)
    made["island in a ring"] = made["ring"] | disc(shape, 45, 60, 8)
    made["two holes"] = disc(shape, 45, 60, 44) - disc(shape, 45, 40, 10) - disc(shape, 45, 80, 10)
    made["at the border"] = disc(shape, 0, 0, 50)
    made["a hole at the border"] = 1 - disc(shape, 0, 60, 20)
    made["noise"] = (np.random.default_rng(0).random(shape) < 0.5).astype(np.uint8)
    return made


@pytest.mark.parametrize("name", masks())
def test_polygons_drawn_by_pycocotools_are_the_mask(name):
    mask = masks()[name]
    assert jaccard(drawn(polygons_of(mask), mask.shape), mask) >= AT_LEAST >= 0.98


def test_an_empty_mask_has_no_polygons():
    assert polygons_of(np.zeros((9, 7), np.uint8)) == []


def test_each_part_is_one_polygon_with_its_holes_cut_in():
    """Tools fill each polygon by itself: a ring of its own around a hole would fill the hole."""
    made = masks()
    assert [len(polygons_of(made[name])) for name in ("two", "ring", "two holes", "island in a ring")] == [2, 1, 1, 2]
    for name in ("ring", "two holes"):
        (polygon,) = polygons_of(made[name])
        assert not drawn([polygon], made[name].shape)[45, 60 if name == "ring" else 40]


def test_polygons_are_what_tools_take_and_no_longer_than_need_be():
    mask = disc((400, 600), 200, 300, 150)
    (polygon,) = polygons_of(mask)
    assert all(isinstance(n, int) for n in polygon) and len(polygon) % 2 == 0
    edges = int(np.abs(np.diff(mask.astype(int), axis=0)).sum() + np.abs(np.diff(mask.astype(int), axis=1)).sum())
    assert len(polygon) / 2 < edges / 4
    assert all(len(p) >= 6 for p in polygons_of(masks()["noise"]))  # CVAT refuses fewer than three points


def test_a_square_has_four_corners():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 7:19] = 1
    (polygon,) = polygons_of(mask)
    assert {tuple(p) for p in np.reshape(polygon, (-1, 2))} == {(7, 5), (19, 5), (19, 10), (7, 10)}
