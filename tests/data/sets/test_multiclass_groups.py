"""Groups of several classes: exactly these, the same every time, none of another table's test photographs."""

import csv
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_sets import DOG, PERSON, box, voc_set

from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.data import fingerprints
from coseglib.data.by_class import class_areas
from coseglib.data.lists import main, write_lists
from coseglib.data.record import Photo
from coseglib.data.sets import multiclass, voc

CLASSES = ("cat", "dog", "person")
HORSE = 13


def _photo(name: str, *held: str) -> Photo:
    grid = torch.zeros(10, 10, dtype=torch.uint8)
    for c in held:
        grid[2 * CLASSES.index(c)] = CLASSES.index(c) + 1
    return Photo("made", name, CLASSES, lambda: grid.expand(3, 10, 10), lambda: grid)


def _rows(file) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def photos():
    made = [_photo(f"d{i:02d}", "dog", "person") for i in range(9)]
    made += [_photo(f"c{i:02d}", "cat", "dog") for i in range(5)]
    made += [_photo(f"t{i:02d}", "cat", "dog", "person") for i in range(4)]
    return [*made, _photo("one", "cat"), _photo("none")]


@pytest.fixture
def many(sets):
    """VOC with 12 photographs of dog and person in train, one of them PASCAL's, and 12 of horse and person in val."""

    def both(a, b):
        return box(value=a) + box(value=b)[::-1]

    train = {f"2011_{i:06d}": both(DOG, PERSON) for i in range(12)}
    val = {f"2012_{i:06d}": both(HORSE, PERSON) for i in range(12)}
    home = voc_set(sets, {"train": train, "val": val})
    shutil.copy(sets / "PASCAL_coseg" / "images" / "Dog" / "img_1002.jpg", home / "JPEGImages" / "2011_000003.jpg")
    return sets


def test_two_classes_come_first_then_three_the_largest_first(photos):
    found = multiclass.groups_of_several(photos, least=4)
    assert [(g.name, len(g), g.targets) for g in found] == [
        ("dog+person", 9, ("dog", "person")),
        ("cat+dog", 5, ("cat", "dog")),
        ("cat+dog+person", 4, CLASSES),
    ]
    assert [g.name for g in multiclass.groups_of_several(photos, least=5)] == ["dog+person", "cat+dog"]
    assert multiclass.groups_of_several([]) == []


def test_a_groups_photographs_hold_exactly_its_classes(photos):
    for group in multiclass.groups_of_several(photos, class_areas(photos), least=1):
        for i, photo in enumerate(group.photos):
            assert set(photo.labels().unique().tolist()) - {0} == {CLASSES.index(t) + 1 for t in group.targets}
            assert set(group.mask(i).unique().tolist()) == {0, *range(1, len(group.targets) + 1)}


def test_a_large_group_is_a_seeded_choice_that_depends_on_names_alone(photos):
    def names(seed=0, order=photos):
        (group, *_) = multiclass.groups_of_several(order, most=4, least=4, seed=seed)
        return [p.name for p in group.photos]

    assert len(names()) == 4 and names() == names() == sorted(names(order=photos[::-1]))
    assert names() != names(seed=1)
    larger = [p.name for p in multiclass.groups_of_several(photos, most=6, least=4)[0].photos]
    assert set(names()) < set(larger)


def test_groups_come_from_the_training_list_without_test_photographs(many, tmp_path):
    lists = tmp_path / "lists"
    write_lists(many, lists)
    (group,) = multiclass.load(many, lists)  # not horse+person, which the validation list holds
    assert group.name == "dog+person"
    assert [p.name for p in group.photos] == [f"2011_{i:06d}" for i in range(12) if i != 3]
    rows = _rows(lists / "multiclass.csv")
    assert [(r["dataset"], r["split"], r["group"], r["target"], r["photo"]) for r in rows] == [
        ("voc", "test", "dog+person", "dog+person", p.name) for p in group.photos
    ]


def test_the_file_can_be_written_alone_and_is_the_same(many, tmp_path, capsys):
    lists = tmp_path / "lists"
    write_lists(many, lists)
    before = (lists / "multiclass.csv").read_bytes()
    (lists / "multiclass.csv").unlink()
    assert main(["--data", str(many), "--out", str(lists), "--multiclass"]) == 0
    assert (lists / "multiclass.csv").read_bytes() == before
    assert "multiclass.csv" in capsys.readouterr().out
    shutil.rmtree(many / "VOCdevkit")
    assert main(["--data", str(many), "--out", str(lists), "--multiclass"]) == 1
    assert capsys.readouterr().err.startswith("coseg: ") and (lists / "multiclass.csv").read_bytes() == before


def test_a_missing_set_is_an_error_in_one_line(tmp_path):
    with pytest.raises(CosegError, match="VOC2012"):
        multiclass.load(tmp_path)


# The list that is in the repository -----------------------------------------------------------------------------------


def test_the_list_holds_no_test_or_validation_photograph_of_another_table():
    rows = _rows(paths.LISTS / "multiclass.csv")
    names = {r["photo"] for r in rows}
    assert {r["dataset"] for r in rows} == {"voc"} and {r["split"] for r in rows} == {"test"}
    assert names <= {r["photo"] for r in _rows(paths.LISTS / "training.csv")}
    for other in ("validation", "groups_voc-val"):
        assert not names & {r["photo"] for r in _rows(paths.LISTS / f"{other}.csv")}
    known = fingerprints.read_fingerprints(paths.LISTS / "fingerprints.csv")
    place = {name: i for i, name in enumerate(known.names)}
    bits = known.bits[[place[f"voc/{name}"] for name in sorted(names)]]
    assert fingerprints.nearest(bits, known.only("test")).min() > fingerprints.NEAR


def test_the_list_has_groups_of_two_and_of_three_classes_of_at_most_80():
    rows = _rows(paths.LISTS / "multiclass.csv")
    sizes = Counter(r["group"] for r in rows)
    assert max(sizes.values()) == multiclass.PHOTOS_AT_MOST and min(sizes.values()) >= multiclass.PHOTOS_AT_LEAST
    assert {"dog+person", "horse+person", "cat+person", "person+sheep", "dog+sofa", "cow+person"} <= set(sizes)
    assert Counter(name.count("+") + 1 for name in sizes).keys() == {2, 3}
    pairs = {(r["group"], r["photo"]) for r in rows}
    assert len(pairs) == len(rows) == len({r["photo"] for r in rows})  # exactly these classes: no photo in two groups


def test_the_list_in_the_repository_is_that_of_the_real_data(real_data):
    found = [(g.name, p.name) for g in multiclass.load(real_data) for p in g.photos]
    rows = [(r["group"], r["photo"]) for r in _rows(paths.LISTS / "multiclass.csv")]
    members = {p.name for p in voc.photos(real_data, "train")}
    if members != {r["photo"] for r in _rows(paths.LISTS / "training.csv") if r["dataset"] == "voc"}:
        pytest.skip("COSEG_DATA holds another part of VOC than the lists were written from")
    assert found == rows
    assert np.unique([g for g, _ in rows]).size >= 8


def test_procedural_groups_hold_both_classes_in_every_photograph():
    groups = multiclass.drawn_groups(photos=4, size=48)
    assert [g.name for g in groups] == ["star+ring", "heart+arrow", "gear+crescent"]
    for group in groups:
        assert len(group) == 4 and group.dataset == "synthetic-multiclass"
        for i in range(len(group)):
            assert {1, 2} <= set(group.mask(i).unique().tolist())
