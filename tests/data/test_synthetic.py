"""Procedural scenes: the same everywhere, masks of what is seen, categories that a partner can ask for."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline

from coseglib.core.errors import CosegError
from coseglib.data.synthetic import CATEGORIES, _rendered, load_synthetic, synthetic_photos
from coseglib.data.synthetic.scenes import CLUTTER, SHAPES, coverage, draw, scene


def sha(array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def named(photo) -> set[str]:
    return set(photo.name.split("/")[1].split("+"))


def seen(photo) -> set[str]:
    return {CATEGORIES[k - 1] for k in photo.labels().unique().tolist() if k}


@pytest.mark.parametrize(
    ("categories", "key", "image", "labels"),
    [
        (("star",), (0, 3, 0, 0), "7c06e1fa7e21d963", "452a749adda977e6"),
        (("ring", "spiral"), (7, 1, 1, 4), "2ccb1b54561433c7", "e163278e465eb82a"),
    ],
)
def test_a_scene_has_the_bytes_that_it_had_when_this_was_written(categories, key, image, labels):
    picture, truth = draw(scene(categories, *key), 64)
    assert (sha(picture), sha(truth)) == (image, labels)


def test_photographs_are_read_the_same_twice_in_any_order_and_after_pickling():
    photos = synthetic_photos("train", 20, size=32)
    forwards = [(p.image(), p.labels()) for p in photos]
    copies = pickle.loads(pickle.dumps(photos))
    _rendered.cache_clear()
    for photo, (image, labels) in zip(reversed(copies), reversed(forwards), strict=True):
        assert torch.equal(photo.labels(), labels) and torch.equal(photo.image(), image)


def test_a_photograph_that_is_written_to_does_not_change_the_next_reading():
    photo = synthetic_photos("train", 1, size=16)[0]
    before = photo.image().clone()
    photo.image().zero_()
    assert torch.equal(photo.image(), before)


def test_images_and_label_maps_have_the_right_types_shapes_and_range():
    for photo in synthetic_photos("val", 24, size=40):
        image, labels = photo.image(), photo.labels()
        assert image.dtype == labels.dtype == torch.uint8
        assert image.shape == (3, 40, 40) and labels.shape == (40, 40)
        assert labels.max() <= len(CATEGORIES) and photo.classes == CATEGORIES


def test_every_category_is_seen_and_only_where_the_name_says_so():
    assert len(CATEGORIES) >= 12
    photos = synthetic_photos("train", 64, size=48)
    assert set().union(*map(seen, photos)) == set(CATEGORIES)
    for photo in photos:
        assert seen(photo) == named(photo)
        areas = np.bincount(photo.labels().flatten(), minlength=17)[1:] / 48**2
        assert (areas[areas > 0] > 0.01).all()


def test_the_label_map_is_what_a_painter_would_leave_visible():
    hidden = 0
    for number in range(12):
        one = scene(("gear", "leaf"), 0, 3, number)
        _, labels = draw(one, 48)
        for category in ("gear", "leaf"):
            label = CATEGORIES.index(category) + 1
            visible = np.zeros((48, 48), bool)
            for layer in one.layers:  # alone, then without what lies over it
                visible &= ~coverage(layer, 48)
                if layer.label == label:
                    visible |= coverage(layer, 48)
            np.testing.assert_array_equal(labels == label, visible)
            alone = np.any([coverage(layer, 48) for layer in one.layers if layer.label == label], axis=0)
            hidden += (alone & ~visible).sum() > 0
    assert hidden >= 4  # objects are partly hidden in some scenes


def test_an_object_changes_the_picture_where_its_mask_is_and_hardly_elsewhere():
    """Draw a scene with and without its object: what differs beyond its mask is its shadow and its soft edge."""
    one = scene(("star",), 0, 3, 1)
    bare = type(one)(one.background, tuple(layer for layer in one.layers if not layer.label), one.light, one.seed)
    (with_object, labels), (without, nothing) = draw(one, 96), draw(bare, 96)
    change = np.abs(with_object.astype(int) - without).max(0)
    assert not nothing.any() and change[labels > 0].mean() > 40
    assert change[labels == 0].mean() < 8


def test_a_scene_is_the_same_at_every_size():
    one = scene(("arrow", "disc"), 0, 1, 5)
    (small, few), (large, many) = draw(one, 64), draw(one, 192)
    thinned = many[1::3, 1::3]  # the centre of each block of 3 × 3
    assert (thinned == few).all()
    blocks = large.reshape(3, 64, 3, 64, 3).mean((2, 4))
    assert np.abs(blocks - small).mean() < 5


@pytest.mark.parametrize("name", sorted(SHAPES | CLUTTER))
def test_distances_fit_the_unit_disc_and_grow_by_about_one_a_unit(name):
    at = np.linspace(-1.4, 1.4, 281)
    x, y = np.meshgrid(at, at)
    d = (SHAPES | CLUTTER)[name](x, y)
    inside = d < 0
    assert np.hypot(x, y)[inside].max() <= 1.06 and 0.1 < inside.mean() * 2.8**2 < 3.2
    slope = np.hypot(*np.gradient(d, 0.01))[np.abs(d) < 0.02]
    assert np.median(slope) == pytest.approx(1, abs=0.35)  # a soft edge about a pixel wide


def test_polygons_hold_the_points_that_matplotlib_says_they_hold():
    star = [(r * np.sin(a), -r * np.cos(a)) for r, a in zip([1, 0.45] * 5, np.arange(10) * np.pi / 5, strict=True)]
    points = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    np.testing.assert_array_equal(SHAPES["star"](*points.T) < 0, Outline(star).contains_points(points))


def test_the_heart_agrees_with_two_discs_on_a_tilted_square():
    points = np.random.default_rng(0).uniform(-1, 1, (800, 2))
    x, y = points[:, 0] * 0.66, 0.56 - points[:, 1] * 0.66
    disc = [np.hypot(x - side * 0.25, y - 0.75) < np.sqrt(2) / 4 for side in (-1, 1)]
    square = np.abs(x) + np.abs(y - 0.5) < 0.5
    np.testing.assert_array_equal(SHAPES["heart"](*points.T) < 0, disc[0] | disc[1] | square)


def test_splits_and_seeds_have_no_picture_in_common():
    sets = [synthetic_photos(s, 16, size=24) for s in ("train", "val", "test")]
    sets += [synthetic_photos("train", 16, size=24, seed=1)]
    sets += [[p for g in load_synthetic(s, groups=4, photos=4, size=24) for p in g.photos] for s in ("train", "test")]
    pictures = [{sha(p.image().numpy()) for p in photos} for photos in sets]
    names = [{p.name for p in photos} for photos in sets]
    for i in range(len(sets)):
        for j in range(i):
            assert not pictures[i] & pictures[j] and not names[i] & names[j]


def test_every_photograph_of_a_group_holds_its_target_and_nothing_else_is_common():
    groups = load_synthetic(groups=5, photos=9, size=32)
    assert [g.targets for g in groups] == [(c,) for c in CATEGORIES[:5]]
    for g, group in enumerate(groups):
        assert len(group) == len({p.name for p in group.photos}) == 9
        assert set.intersection(*map(named, group.photos)) == {group.name}
        assert all((group.mask(i) == 1).any() for i in range(9)), g


def test_half_of_a_group_stands_in_a_neighbouring_group_too():
    groups = load_synthetic(groups=4, photos=8, size=32)
    for g, group in enumerate(groups):
        names = {p.name for p in group.photos}
        shared = [len(names & {p.name for p in groups[h].photos}) for h in ((g - 1) % 4, (g + 1) % 4, (g + 2) % 4)]
        assert shared == [2, 2, 0]
    ours, theirs = groups[0], groups[1]
    i, j = next((i, j) for i, a in enumerate(ours.photos) for j, b in enumerate(theirs.photos) if a.name == b.name)
    assert torch.equal(ours.photos[i].image(), theirs.photos[j].image())
    assert not ((ours.mask(i) == 1) & (theirs.mask(j) == 1)).any()  # one picture, two answers


def test_photographs_with_one_asked_for_category_hold_others_that_no_group_asks_for():
    groups = load_synthetic(groups=("ring", "bolt"), photos=8, size=32)
    others = [named(p) - {"ring", "bolt"} for g in groups for p in g.photos]
    assert sum(map(bool, others)) == 4


def test_a_photograph_does_not_depend_on_the_groups_beside_it():
    few = {p.name: p for g in load_synthetic(groups=3, photos=4, size=24) for p in g.photos}
    many = {p.name: p for g in load_synthetic(groups=6, photos=8, size=24) for p in g.photos}
    both = few.keys() & many.keys()
    assert len(both) >= 4
    assert all(torch.equal(few[n].image(), many[n].image()) for n in both)


def test_all_categories_and_a_single_group_can_be_loaded():
    assert len(load_synthetic(groups=16, photos=1)) == 16
    (alone,) = load_synthetic(groups=["disc"], photos=5)
    assert len(alone) == 5 and alone.name == "disc"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "exam"}, "no split exam; one of train"),
        ({"groups": 17}, "1 to 16"),
        ({"groups": 0}, "1 to 16"),
        ({"groups": ("disc", "teapot")}, "names from star"),
        ({"groups": ("disc", "disc")}, "names from star"),
        ({"photos": 0}, "one or more"),
        ({"size": 4}, "8 pixels"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(arguments, message):
    with pytest.raises(CosegError, match=message) as error:
        load_synthetic(**arguments)
    assert "\n" not in str(error.value)
