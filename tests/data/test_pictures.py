"""The rendered still lifes in data/pictures, and the program that draws them."""

import numpy as np
import pytest
from PIL import Image

from coseglib.core.paths import PICTURES
from coseglib.data import load

GROUPS = {"car": ["both_1", "both_2", "car_1", "car_2"], "sheep": ["both_1", "both_2", "sheep_1", "sheep_2"]}


def test_they_are_two_groups_with_masks_of_the_pictures_size():
    groups = load(PICTURES)
    assert {g.name: [p.path.stem for p in g.photos] for g in groups} == GROUPS
    for group in groups:
        for i, photo in enumerate(group.photos):
            assert group.mask(i).shape == photo.image().shape[1:] == (360, 480)
            assert 0.04 < float((group.mask(i) == 1).float().mean()) < 0.4


def test_a_picture_of_both_is_one_picture_with_two_masks_that_do_not_meet():
    car, sheep = load(PICTURES)
    for i in range(2):
        assert car.photos[i].content() == sheep.photos[i].content()
        assert not ((car.mask(i) == 1) & (sheep.mask(i) == 1)).any()


def test_all_of_them_are_small_and_say_under_which_licence_they_are():
    files = [f for kind in ("images", "ground_truth") for f in (PICTURES / kind).rglob("*") if f.is_file()]
    assert len(files) == 16 and sum(f.stat().st_size for f in files) <= 300_000
    assert "CC0 1.0" in (PICTURES / "README.md").read_text()


@pytest.mark.skipif(not (PICTURES / "render.py").is_file(), reason="a wheel holds the pictures, not their program")
def test_the_program_draws_the_committed_pictures(monkeypatch):
    monkeypatch.syspath_prepend(PICTURES)
    import render

    scene = render.scenes()["sheep_2"]
    drawn, shown = scene.picture(80, 60, rays=1)
    committed = Image.open(PICTURES / "images" / "sheep" / "sheep_2.jpg").reduce(6)
    assert np.abs(np.asarray(committed, float) - drawn).mean() < 12
    truth = np.asarray(Image.open(PICTURES / "ground_truth" / "sheep" / "sheep_2.png").convert("L").reduce(6)) > 127
    mask = shown == scene.names.index("sheep")
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
