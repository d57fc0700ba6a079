"""The lists: the same every time, the papers' formulae, and no test photograph in training."""

import csv
import shutil
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sets import VOC, box, save, voc_set

from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.data import fingerprints, load, training_photos, unseen_groups, validation_groups
from coseglib.data.by_class import class_areas
from coseglib.data.images import read_image
from coseglib.data.lists import SAMPLED, SPLIT_OF, halves, main, pairs_of_any_area, write_lists
from coseglib.data.sets import msrc, voc


def _rows(file) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def leaky(sets):
    """The small sets; a photograph of VOC's training list is one of PASCAL's, mirrored and coarser, one of its other
    list is one of MSRC-7.
    """
    voc_set(sets, {s: VOC[s] | {f"2012_leak_{s}": box(value=12)} for s in VOC})
    jpegs = sets / "VOCdevkit" / "VOC2012" / "JPEGImages"
    twin = Image.open(sets / "PASCAL_coseg" / "images" / "Dog" / "img_1002.jpg")
    twin = twin.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((32, 24)).resize((48, 36))
    save(twin, jpegs / "2012_leak_train.jpg", quality=90)
    shutil.copy(sets / "MSRC_ObjCategImageDatabase_v2" / "Images" / "12_2_s.jpg", jpegs / "2012_leak_val.jpg")
    return sets


@pytest.fixture
def lists(leaky, tmp_path):
    write_lists(leaky, tmp_path / "lists")
    return tmp_path / "lists"


def test_the_same_data_give_the_same_bytes(leaky, lists, tmp_path):
    assert main(["--data", str(leaky), "--out", str(tmp_path / "again")]) == 0
    files = sorted(p.name for p in lists.iterdir())
    assert files == sorted(p.name for p in (tmp_path / "again").iterdir())
    assert {"training.csv", "validation.csv", "counts.csv", "fingerprints.csv", "pairs_train.csv"} < set(files)
    for name in files:
        assert (lists / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_near_duplicates_of_test_photographs_are_in_no_list_that_trains_or_chooses(lists, leaky):
    training = {r["photo"] for r in _rows(lists / "training.csv")}
    assert set(VOC["train"]) < training and "2012_leak_train" not in training and "1_26_s" not in training
    choosing = {r["photo"] for r in _rows(lists / "validation.csv")}
    assert "2009_000000" in choosing and "2012_leak_val" not in choosing
    assert [f"{p.dataset}/{p.name}" for p in training_photos(leaky, lists)] == [
        f"{r['dataset']}/{r['photo']}" for r in _rows(lists / "training.csv")
    ]
    both = validation_groups(leaky, lists) + unseen_groups(leaky, lists)
    again = [(g.name, p.name) for g in both for p in g.photos]
    assert again == [(r["group"], r["photo"]) for r in _rows(lists / "validation.csv")]


def test_lists_of_groups_hold_what_the_loaders_give(lists, leaky):
    for name, split in SPLIT_OF.items():
        rows = _rows(lists / f"groups_{name}.csv")
        expected = [(g.name, "+".join(g.targets), p.name) for g in load(name, leaky) for p in g.photos]
        assert [(r["group"], r["target"], r["photo"]) for r in rows] == expected
        assert {r["split"] for r in rows} == {split}


def test_pairs_are_counted_as_the_papers_do(lists, leaky):
    """Over label maps read here one by one: pairs of the training list with any class in common."""
    held = []
    for photo in voc.photos(leaky, "train"):
        held.append(set(photo.labels().unique().tolist()) - {0, 255})
    expected = sum(bool(a & b) for a, b in combinations(held, 2))
    counts = {(r["dataset"], r["what"]): r for r in _rows(lists / "counts.csv")}
    row = counts["voc", "pairs of train.txt"]
    assert int(row["here"]) == expected and row["paper"] == "over 160000"
    assert pairs_of_any_area(voc.photos(leaky, "train"), class_areas(voc.photos(leaky, "train"))) == expected
    assert int(counts["icoseg8", "pairs"]["here"]) == 8 and int(counts["icoseg8", "different pairs"]["here"]) == 8
    assert int(counts["voc", "photographs of val.txt, first half"]["here"]) == 3
    everyone = _rows(lists / "pairs_train.csv")
    assert len(everyone) == int(counts["voc-train", "different pairs"]["here"]) + int(
        counts["msrc-train", "different pairs"]["here"]
    )


def test_1449_photographs_are_halved_into_724_and_725():
    names = [f"{i:05d}" for i in range(1449)]
    first, second = halves(names)
    assert (len(first), len(second)) == (724, 725) and sorted(first + second) == names
    assert halves(names[::-1]) == (first, second)


def test_a_set_that_is_missing_stops_the_lists(leaky, tmp_path, capsys):
    shutil.rmtree(leaky / "PASCAL_coseg")
    with pytest.raises(CosegError, match="PASCAL"):
        write_lists(leaky, tmp_path / "none")
    assert main(["--data", str(leaky), "--out", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("coseg: ") and not (tmp_path / "none").exists()


# The lists that are in the repository ---------------------------------------------------------------------------------


def test_no_name_of_a_test_list_trains_or_chooses():
    rows = {name: _rows(paths.LISTS / f"{name}.csv") for name in ("training", "validation")}
    used = {(r["dataset"], r["photo"]) for r in [*rows["training"], *rows["validation"]]}
    assert {d for d, _ in used} == {"voc", "msrc", "icoseg30"}
    assert {r["dataset"] for r in rows["training"]} == {"voc", "msrc"}
    assert ("msrc", "1_26_s") not in used
    field = {r["photo"] for r in _rows(paths.LISTS / "groups_msrc7-field.csv")}
    assert len(field) == 15 and not field & {name for _, name in used}
    tested = {r["photo"] for r in _rows(paths.LISTS / "groups_msrc7.csv")}
    assert len(tested) == 70 and not tested & {name for _, name in used}
    assert {msrc.split_of(name) for dataset, name in used if dataset == "msrc"} == {"train", "val"}
    training = {(r["dataset"], r["photo"]) for r in rows["training"]}
    assert len(training) == len(rows["training"])
    assert not training & {(r["dataset"], r["photo"]) for r in rows["validation"]}


def test_no_near_duplicate_of_a_test_photograph_trains_or_chooses():
    known = fingerprints.read_fingerprints(paths.LISTS / "fingerprints.csv")
    tested, unseen, others = (known.only(*of) for of in (("test",), ("unseen",), ("train", "val", "unseen")))
    assert len(tested.names) == 154 + 1037 + 70 + len(msrc.field_photos("train")) + 3  # val, val, never
    assert fingerprints.nearest(others.bits, tested).min() > fingerprints.NEAR
    assert len(unseen.names) == 489
    assert fingerprints.nearest(known.only("train").bits, unseen).min() > fingerprints.NEAR
    used = _rows(paths.LISTS / "training.csv") + _rows(paths.LISTS / "validation.csv")
    assert {f"{r['dataset']}/{r['photo']}" for r in used} <= set(others.names)


def test_every_list_is_below_a_megabyte_and_the_pairs_are_as_many_as_the_paper_says():
    for file in paths.LISTS.glob("*.csv"):
        assert file.stat().st_size < 2**20, file.name
    assert len(_rows(paths.LISTS / "pairs_train.csv")) == SAMPLED == 13_200
    assert len(_rows(paths.LISTS / "pairs_msrc7.csv")) == 7 * 45
    sizes = np.unique([r["group"] for r in _rows(paths.LISTS / "groups_icoseg8.csv")], return_counts=True)[1]
    assert len(_rows(paths.LISTS / "pairs_icoseg8.csv")) == sum(n * (n - 1) // 2 for n in sizes)


# The real photographs, where they are ---------------------------------------------------------------------------------


def test_no_thumbnail_of_a_training_photograph_correlates_with_a_test_photograph(real_data):
    """Written another way than the fingerprints: the correlation of the thumbnails themselves, mirror images too."""

    def thumbnails(photos):
        rows = []
        for photo in photos:
            grey = read_image(photo.path, at_most=320).float().mean(0)[None, None]
            rows.append(torch.nn.functional.interpolate(grey, size=(16, 16), mode="area")[0, 0])
        stacked = torch.stack(rows)
        return torch.nn.functional.normalize((stacked - stacked.mean((1, 2), keepdim=True)).flatten(1))

    sets = ("icoseg", "pascal", "msrc7", "msrc7-field")
    tested = [p for name in sets for g in load(name, real_data) for p in g.photos]
    test, train = thumbnails(tested), thumbnails(training_photos(real_data))
    mirrored = train.unflatten(1, (16, 16)).flip(2).flatten(1)
    assert torch.maximum(train @ test.T, mirrored @ test.T).max() < 0.97
    (twin,) = msrc.photos(real_data, "never")
    assert (thumbnails([twin]) @ test.T).max() > 0.99  # the check does see 1_26_s


def test_the_lists_in_the_repository_are_those_of_the_real_data(real_data):
    photos = training_photos(real_data)
    if {p.name for p in photos} != {r["photo"] for r in _rows(paths.LISTS / "training.csv")}:
        pytest.skip("COSEG_DATA holds another part of VOC than the lists were written from")
    known = fingerprints.read_fingerprints(paths.LISTS / "fingerprints.csv")
    place = {name: i for i, name in enumerate(known.names)}
    some = photos[::100]
    found = fingerprints.fingerprints_of(some, [""] * len(some))
    at = [place[name] for name in found.names]
    differing = np.unpackbits(found.bits ^ known.bits[at], axis=1).sum(1)
    assert differing.max() <= 4  # decoders may round differently
    for name in SPLIT_OF:
        expected = [(g.name, p.name) for g in load(name, real_data) for p in g.photos]
        assert [(r["group"], r["photo"]) for r in _rows(paths.LISTS / f"groups_{name}.csv")] == expected
