"""Made groups: the label map is what was pasted, to the pixel, and no mask of a photograph has a part in it."""

import numpy as np
import pytest
import torch
from tiny_sets import msrc_set, save

from coseglib.core.errors import CosegError
from coseglib.data import load
from coseglib.data.sets import made

RED, BLUE, GREY, GREEN = (200, 30, 30), (30, 30, 200), (90, 90, 90), (30, 160, 30)


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((90, 120, 3), colour, np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Kinds of one colour each, without masks."""
    monkeypatch.setattr(made, "GROUPS", 4)
    monkeypatch.setattr(made, "PHOTOS", 3)
    for kind, colour in {"Bird": RED, "Dog": BLUE, "Sofa": GREY}.items():
        for i in range(3):
            save(plain(colour), tmp_path / "PASCAL_coseg" / "images" / kind / f"{i}.png")
    (tmp_path / "PASCAL_coseg" / "ground_truth").mkdir()
    msrc_set(tmp_path, {f"5_{i}_s": "cow" for i in range(11, 16)})
    for file in (tmp_path / "MSRC_ObjCategImageDatabase_v2" / "Images").iterdir():
        save(plain(GREEN), file, quality=100)
    return tmp_path


def test_a_label_is_where_its_kind_was_pasted_and_nowhere_else(root):
    groups = load("made-multiclass", root)
    assert len(groups) == 4 and all(len(group) == 3 for group in groups)
    colours = {"Bird": RED, "Dog": BLUE, "Sofa": GREY}
    for number, group in enumerate(groups):
        ground = GREEN if number % 2 else next(c for kind, c in colours.items() if kind not in group.targets)
        for i, photo in enumerate(group.photos):
            image, labels = photo.image(), group.mask(i)
            assert image.dtype == labels.dtype == torch.uint8 and image.shape[-2:] == labels.shape == (240, 320)
            want = torch.tensor([ground, *(colours[kind] for kind in group.targets)]).movedim(1, 0)[:, labels.long()]
            assert (image.int() - want).abs().max() <= 3  # a JPEG's rounding, of the ground alone
            shares = [float((labels == k).float().mean()) for k in (1, 2)]
            assert all(0.01 < share < 0.3 for share in shares), shares


def test_the_pictures_are_the_same_every_time_and_differ_from_each_other(root):
    one, other = (load("made-multiclass", root) for _ in range(2))
    maps = [group.mask(i) for group in one for i in range(3)]
    again = [group.mask(i) for group in other for i in range(3)]
    assert all(map(torch.equal, maps, again)) and [g.name for g in one] == [g.name for g in other]
    assert not any(torch.equal(a, b) for i, a in enumerate(maps) for b in maps[:i])


def test_a_blob_stays_in_its_square_and_fills_a_good_part_of_it():
    for seed in range(20):
        shape = made.blob(61, np.random.default_rng(seed))
        assert shape[30, 30] and 0.2 < shape.float().mean() < 0.85


def test_too_few_photographs_are_said(root, monkeypatch):
    monkeypatch.setattr(made, "PHOTOS", 4)
    with pytest.raises(CosegError, match="2 kinds of PASCAL with 4 photographs each are needed"):
        load("made-multiclass", root)
