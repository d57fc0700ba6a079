"""Each loader on a small set in the published layout. See `tiny_sets`."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sets import DOG, PERSON, binary_set, box, msrc_set, picture, save, voc_set

from coseglib.answering.floors import build_floor
from coseglib.core.errors import CosegError
from coseglib.data import CHOOSING, NAMES, available, load, remark
from coseglib.data.by_class import class_areas
from coseglib.data.cache import training_set
from coseglib.data.record import check_masks
from coseglib.data.sampler import KINDS_OF_GROUP, GroupSampler
from coseglib.data.sets import coco_seg, msrc, voc
from coseglib.evaluation.tables import multiclass_table
from coseglib.scoring.rows import evaluate, swap_questions
from coseglib.unsupervised.configuration import load_online


def test_icoseg_takes_every_folder_and_the_eight_by_the_papers_names(sets):
    groups = load("icoseg", sets)
    assert len(groups) == 9 and all(len(g) == 2 for g in groups)
    eight = load("icoseg8", sets)
    names = ["bear2", "brownbear", "cheetah", "elephant", "helicopter", "hotballoon", "panda1", "panda2"]
    assert [g.name for g in eight] == names
    assert all(g.targets == (g.name,) and g.photos[0].classes == (g.name,) for g in eight)
    assert eight[1].photos[0].name == "brown_bear/a"
    assert eight[1].photos[0].image().shape == (3, 36, 48)
    np.testing.assert_array_equal(eight[1].mask(0), box(value=1))


def test_the_other_icoseg_groups_choose_and_share_no_photograph_with_the_eight(sets):
    eight, thirty, every = (load(name, sets) for name in ("icoseg8", "icoseg30", "icoseg"))
    assert [g.name for g in thirty] == ["048 Windmill"] and thirty[0].dataset == "icoseg30"
    files = [{p.path for g in groups for p in g.photos} for groups in (eight, thirty, every)]
    assert not files[0] & files[1] and files[0] | files[1] == files[2]
    assert "icoseg30" in CHOOSING and remark("icoseg30") and "no test set: 30 of its 38" in remark("icoseg")
    assert not remark("icoseg8") and not remark(sets / "iCoseg")


def test_the_field_s_known_msrc_photographs_neither_train_nor_choose(sets):
    groups = load("msrc7-field", sets)
    assert [(g.name, len(g)) for g in groups] == [
        ("bird", 2), ("car", 2), ("cat", 2), ("cow", 2), ("dog", 2), ("plane", 3), ("sheep", 2)
    ]  # fmt: skip
    assert all(g.mask(i)[0, 0] == 1 for g in groups for i in range(len(g)))
    names = {p.name for g in groups for p in g.photos}
    assert {msrc.split_of(name) for name in names} == {"test", "never", "field"}
    assert not names & {p.name for split in ("train", "val") for p in msrc.photos(sets, split)}
    before = {split: set(msrc.field_photos(split)) for split in ("train", "val", "test", "never")}
    assert set().union(*before.values()) == names and sum(map(len, before.values())) == 15
    assert before["test"] == {"12_10_s", "7_10_s", "4_2_s"} and before["never"] == {"1_26_s"}


def test_a_missing_icoseg_group_is_named(sets):
    (sets / "iCoseg" / "images" / "brown_bear").rename(sets / "brown_bear")
    with pytest.raises(CosegError, match="brownbear"):
        load("icoseg8", sets)


def test_pascal_names_photographs_by_class(sets):
    groups = load("pascal", sets)
    assert [(g.name, len(g)) for g in groups] == [("Bird", 2), ("Dog", 3)]
    assert groups[0].photos[0].name == "Bird/img_1001" and groups[0].dataset == "pascal"


def test_a_binary_mask_of_another_size_names_both_sizes(sets):
    save(box(width=47), sets / "PASCAL_coseg" / "ground_truth" / "Bird" / "img_1001.png")
    with pytest.raises(CosegError, match=r"47 × 36 pixels.*48 × 36"):
        load("pascal", sets)[0].mask(0)


def test_an_empty_group_folder_is_an_error(sets):
    (sets / "PASCAL_coseg" / "images" / "Aero").mkdir()
    with pytest.raises(CosegError, match="Aero: holds no photographs"):
        load("pascal", sets)


def test_msrc_colours_are_the_23_official_ones():
    """Spelled by the rule of the palette: the bits of the label, spread over the channels, as in VOC's colour map."""
    assert len(set(msrc.PALETTE.values())) == len(msrc.CLASSES) == 23

    def voc_colour(label):
        r = g = b = 0
        for bit in range(8):
            r, g, b = r | (label >> 0 & 1) << 7 - bit, g | (label >> 1 & 1) << 7 - bit, b | (label >> 2 & 1) << 7 - bit
            label >>= 3
        return r, g, b

    assert set(msrc.PALETTE.values()) <= {voc_colour(i) for i in range(1, 27)}


def test_msrc_masks_become_label_maps_with_void(sets):
    photo = msrc.photos(sets, "test")[0]
    labels = photo.labels()
    kind = "bird"
    assert photo.name == "12_10_s" and photo.classes == msrc.CLASSES
    assert labels[0, 0] == msrc.CLASSES.index(kind) + 1 and labels[20, 0] == msrc.CLASSES.index("grass") + 1
    assert (labels[35] == 255).all()
    mask = photo.mask((kind,))
    assert mask[:10].eq(1).all() and mask[10:35].eq(0).all() and mask[35].eq(255).all()


def test_msrc7_holds_the_first_ten_of_seven_prefixes(sets):
    msrc_set(sets, {"12_11_s": "bird", "12_1_s": "bird"})
    groups = load("msrc7", sets)
    assert [g.name for g in groups] == ["bird", "car", "cat", "cow", "dog", "plane", "sheep"]
    assert [p.name for p in groups[0].photos] == ["12_10_s", "12_1_s", "12_2_s"]
    assert {g.name: g.targets for g in groups}["plane"] == ("aeroplane",)
    assert groups[5].mask(0)[0, 0] == 1


def test_msrc_splits_do_not_meet_and_the_twin_of_a_test_image_is_in_none(sets):
    names = [f"{p}_{n}_s" for p in range(1, 21) for n in range(1, 31)]
    parts = {s: {n for n in names if msrc.split_of(n) == s} for s in ("train", "val", "test", "never", "field")}
    assert parts["never"] == {"1_26_s"}
    assert parts["test"] == {f"{p}_{n}_s" for p, _ in msrc.SEVEN.values() for n in range(1, 11)}
    assert 0.1 < len(parts["val"]) / (len(parts["val"]) + len(parts["train"])) < 0.2
    assert parts["field"] == {n for of in msrc.FIELD.values() for n in of} - parts["test"] - parts["never"]
    assert {p.name for s in ("train", "val", "test") for p in msrc.photos(sets, s)}.isdisjoint({"1_26_s"})


def test_msrc_groups_are_objects_of_four_photographs_or_more(sets):
    train, val = load("msrc-train", sets), load("msrc-val", sets)
    assert [g.name for g in train] == ["book"]  # grass is in every photograph, and no object
    assert sum(map(len, train + val)) == 30
    assert all(g.mask(0)[0, 0] == 1 for g in train + val)


def test_msrc_faces_and_bodies_are_persons(tmp_path):
    msrc_set(tmp_path, {f"6_{n}_s": "face" if n % 2 else "body" for n in range(1, 31)})
    groups = load("msrc-train", tmp_path)
    assert [g.name for g in groups] == ["person"] and len(groups[0]) == len(msrc.photos(tmp_path, "train"))
    assert all(groups[0].mask(i)[:10].eq(1).all() for i in range(len(groups[0])))


def test_an_msrc_mask_in_other_colours_names_pixel_and_colour(sets):
    home = sets / "MSRC_ObjCategImageDatabase_v2"
    save(picture("noise"), home / "GroundTruth" / "13_1_s_GT.png")
    with pytest.raises(CosegError, match=r"13_1_s_GT\.png: colour \(\d+, \d+, \d+\) at \(0, 0\)"):
        msrc.read_painted(home / "GroundTruth" / "13_1_s_GT.png")


def test_msrc_as_published_in_bmp_is_read_as_well(tmp_path):
    home = msrc_set(tmp_path, {"9_1_s": "sheep"})
    for folder, name in (("Images", "9_1_s.jpg"), ("GroundTruth", "9_1_s_GT.png")):
        old = home / folder / name
        Image.open(old).save(old.with_suffix(".bmp"))
        old.unlink()
    (home / "Images" / "Thumbs.db").write_bytes(b"")
    assert msrc.photos(tmp_path, "test")[0].labels()[0, 0] == msrc.CLASSES.index("sheep") + 1


def test_msrc_without_a_mask_or_with_a_strange_file_says_so(sets):
    home = sets / "MSRC_ObjCategImageDatabase_v2"
    stray = save(picture("x"), home / "Images" / "holiday.jpg")
    with pytest.raises(CosegError, match="holiday"):
        load("msrc7", sets)
    stray.unlink()
    (home / "GroundTruth" / "13_1_s_GT.png").unlink()
    with pytest.raises(CosegError, match="13_1_s_GT"):
        load("msrc7", sets)


def test_voc_groups_hold_who_covers_one_percent_and_four_photographs_make_a_group(sets):
    assert [(g.name, len(g)) for g in load("voc-train", sets)] == [("cat", 4), ("dog", 7), ("person", 7)]
    assert [(g.name, len(g)) for g in load("voc-val", sets)] == [("dog", 5)]
    speck = np.zeros((36, 48), np.uint8)
    speck[0, :17] = DOG  # 17 of 1728 pixels: less than 1 %; 18 are more
    names = [f"2009_{i:06d}" for i in range(5)]
    voc_set(sets, {"val": {n: speck + (DOG if i else 0) * np.eye(36, 48, dtype=np.uint8) for i, n in enumerate(names)}})
    assert [p.name for p in load("voc-val", sets)[0].photos] == names[1:]


def test_voc_labels_are_the_raw_indices_and_void_stays(sets):
    labels = box(value=DOG)
    labels[20] = 255
    voc_set(sets, {"val": {"2011_000001": labels}})
    photo = voc.photos(sets, "val")[0]
    assert photo.name == "2011_000001" and photo.classes[DOG - 1] == "dog" and len(photo.classes) == 20
    np.testing.assert_array_equal(photo.labels(), labels)
    assert set(photo.mask(("dog",)).unique().tolist()) == {0, 1, 255}


def test_voc_areas_are_remembered_until_a_mask_changes(sets, monkeypatch):
    first = class_areas(voc.photos(sets, "train"))
    monkeypatch.setattr(voc, "read_labels", lambda path: pytest.fail("read again"))
    np.testing.assert_array_equal(class_areas(voc.photos(sets, "train")), first)
    monkeypatch.undo()
    monkeypatch.setattr("coseglib.core.paths.CACHE", sets.parent / "cache")
    save(box(value=PERSON, rows=36), sets / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000000.png")
    changed = class_areas(voc.photos(sets, "train"))
    assert changed[0, PERSON - 1] == 1 and (changed[1:] == first[1:]).all()


def test_a_cache_that_cannot_be_written_only_costs_time(sets, monkeypatch):
    (sets / "file").write_text("")
    monkeypatch.setattr("coseglib.core.paths.CACHE", sets / "file" / "cache")
    assert class_areas(voc.photos(sets, "val")).shape == (6, 20)


def test_a_voc_list_that_names_what_is_not_there_says_which(sets):
    (sets / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2009_000003.png").unlink()
    with pytest.raises(CosegError, match="2009_000003"):
        load("voc-val", sets)
    (sets / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(CosegError, match=r"val\.txt"):
        load("voc-val", sets)


def test_voc_is_fetched_by_torchvision_and_a_failure_is_one_line(sets, tmp_path, monkeypatch):
    asked = {}

    def fetch(root, **options):
        asked.update(options, root=root)
        if Path(root).name != "sets":
            raise RuntimeError("File not found or corrupted.\n")

    monkeypatch.setattr("torchvision.datasets.VOCSegmentation", fetch)
    assert voc.download(sets) == sets / "VOCdevkit" / "VOC2012"
    assert asked["download"] and asked["year"] == "2012"
    with pytest.raises(CosegError, match="corrupted") as fault:
        voc.download(tmp_path / "other")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("home", ["Internet100", "ObjectDiscovery-data/Data", "."])
def test_internet_is_found_in_each_of_its_places(tmp_path, home):
    for group in ("Airplane100", "Car100", "Horse100"):
        for name in ("0001", "0002"):
            save(picture(group + name), tmp_path / home / group / f"{name}.jpg")
        save(box(rows=0 if group == "Car100" else 10), tmp_path / home / group / "GroundTruth" / "0001.png")
    groups = load("internet", tmp_path)
    assert [(g.name, len(g)) for g in groups] == [("airplane", 1), ("car", 1), ("horse", 1)]  # no mask: left out
    assert groups[0].photos[0].name == "Airplane100/0001"
    assert groups[0].mask(0).sum() == 480 and groups[1].mask(0).sum() == 0
    with pytest.raises(CosegError, match="Airplane, Car, Horse"):
        load("internet-full", tmp_path)


def test_the_full_internet_set_has_a_name_of_its_own(tmp_path):
    for group in ("Airplane", "Car", "Horse"):
        save(picture(group), tmp_path / "Internet" / group / "0001.jpg")
        save(box(), tmp_path / "Internet" / group / "GroundTruth" / "0001.png")
    assert {g.dataset for g in load("internet-full", tmp_path)} == {"internet-full"}


# COCO -----------------------------------------------------------------------------------------------------------------


def _runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, beginning with zeros, by walking."""
    counts, last, run = [], 0, 0
    for value in mask.T.ravel().tolist():
        if value != last:
            counts.append(run)
            last, run = value, 0
        run += 1
    return [*counts, run]


def _packed(counts: list[int]) -> str:
    """COCO's compressed string, written from the format's description in the other direction."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            low, value = value & 31, value >> 5
            done = value == (-1 if low & 16 else 0)
            text += chr(48 + (low if done else low | 32))
            if done:
                break
    return text


def _drawn(shape, height: int, width: int) -> np.ndarray:
    return coco_seg._Instance("cat", shape, False, 1.0).mask(height, width)


def test_run_lengths_packed_or_plain_give_the_mask_back():
    rng = np.random.default_rng(0)
    for density in (0.01, 0.5, 0.99, 0, 1):
        mask = rng.random((37, 29)) < density
        for counts in (_runs(mask), _packed(_runs(mask))):
            np.testing.assert_array_equal(_drawn({"size": [37, 29], "counts": counts}, 37, 29), mask)
    with pytest.raises(ValueError, match="29 × 37"):
        _drawn({"size": [37, 29], "counts": [5]}, 37, 29)


def test_polygons_hold_the_pixels_whose_centres_are_inside():
    """But for pixels that an edge crosses, of which COCO's own tools take some whose centre is just outside."""
    polygon = np.array([[2.3, 1.2], [27.9, 4.4], [14.2, 11.7], [25.1, 30.6], [3.4, 22.8]])  # not convex

    def inside(x, y):
        crossings = 0
        for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            if (ay <= y) != (by <= y):
                crossings += x < ax + (y - ay) * (bx - ax) / (by - ay)
        return crossings % 2 == 1

    expected = np.array([[inside(x + 0.5, y + 0.5) for x in range(30)] for y in range(33)])
    corners = np.array(
        [[inside(x + dx, y + dy) for dx in (0, 1) for dy in (0, 1)] for y in range(33) for x in range(30)]
    )
    crossed = (corners.any(1) & ~corners.all(1)).reshape(33, 30)
    drawn = _drawn([polygon.ravel()], 33, 30)
    assert drawn.shape == expected.shape and expected.sum() > 300
    assert not ((drawn != expected) & ~crossed).any() and (drawn != expected).sum() < 0.1 * crossed.sum()
    second = _drawn([polygon.ravel(), np.array([28.0, 0, 30, 0, 30, 2, 28, 2])], 33, 30)
    assert (second ^ drawn).sum() == 4 and second[:2, 28:].all()


@pytest.fixture
def coco(tmp_path) -> Path:
    """Image 1: two cats (polygon, packed runs), a crowd of cats, a tiny dog, a toaster. Image 2: a cat, a dog."""
    crowd, cat, dog = np.zeros((3, 36, 48), bool)
    crowd[20:30], cat[:, 40:], dog[30:, :20] = True, True, True

    def instance(image, category, shape, area, iscrowd=0):
        return {
            "image_id": image, "category_id": category, "segmentation": shape, "area": area, "iscrowd": iscrowd,
        }  # fmt: skip

    corner = [0, 0, 10, 0, 10, 10, 0, 10]
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 36, "width": 48} for i in (2, 1)],
        "categories": [{"id": i, "name": n} for i, n in ((17, "cat"), (18, "dog"), (80, "toaster"))],
        "annotations": [
            instance(1, 17, [corner], 100),
            instance(1, 17, {"size": [36, 48], "counts": _packed(_runs(cat))}, 288),
            instance(1, 17, {"size": [36, 48], "counts": _runs(crowd)}, 480, iscrowd=1),
            instance(1, 18, [[0, 0, 3, 0, 3, 3, 0, 3]], 9),
            instance(1, 80, [corner], 100),
            instance(2, 17, [corner], 100),
            instance(2, 18, {"size": [36, 48], "counts": _runs(dog)}, 120),
        ],
    }
    for i in (1, 2):
        save(picture(f"coco{i}"), tmp_path / "coco" / "train2017" / f"{i:012d}.jpg")
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return tmp_path


def test_coco_groups_hold_images_of_one_percent_and_not_every_class(coco):
    groups = load("coco-seg", coco)
    listed = {g.name: [p.name for p in g.photos] for g in groups}
    assert listed == {"cat": ["000000000001", "000000000002"], "dog": ["000000000002"]}
    assert len(coco_seg.LEFT_OUT) == 2


def test_a_coco_mask_is_the_union_of_the_class_and_its_crowd_is_void(coco):
    cats, dogs = load("coco-seg", coco)
    mask = cats.mask(0)
    expected = torch.zeros(36, 48, dtype=torch.uint8)
    expected[20:30] = 255
    expected[:10, :10] = expected[:, 40:] = 1
    assert torch.equal(torch.as_tensor(mask), expected)
    assert dogs.mask(0).sum() == 120 and cats.mask(1).sum() == 100
    assert cats.photos[1].image().shape == (3, 36, 48)


def test_an_image_trains_once_with_all_its_classes(coco):
    one, other = coco_seg.photos(coco)
    assert [p.name for p in (one, other)] == ["000000000001", "000000000002"]
    assert one.classes == other.classes == ("cat", "dog") and one.holds == ("cat", "dog", "toaster")
    labels = one.labels()
    assert (labels[20:30, :40] == 255).all() and (labels[:, 40:] == 1).all()
    assert (labels[:3, :3] == 255).all()  # the dog lies on the cat: nobody knows whose these pixels are
    assert (labels[3:10, 3:10] == 1).all() and (labels == 2).sum() == 0
    assert (other.labels() == 1).sum() == 100 and (other.labels() == 2).sum() == 120


def _coco_file(root, members: dict[int, dict[str, tuple]]) -> None:
    """members: image -> class -> (rows of a box over the whole width, crowd)."""
    names = sorted({name for held in members.values() for name in held})
    annotations = []
    for image, held in members.items():
        save(picture(f"coco{image}"), root / "coco" / "train2017" / f"{image:012d}.jpg")
        for name, (rows, crowd) in held.items():
            mask = np.zeros((36, 48), bool)
            mask[rows] = True
            shape = {"size": [36, 48], "counts": _runs(mask)}
            about = {"area": int(mask.sum()), "iscrowd": int(crowd), "category_id": names.index(name) + 1}
            annotations.append({"image_id": image, "segmentation": shape, **about})
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 36, "width": 48} for i in members],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": annotations,
    }
    (root / "coco" / "annotations").mkdir(exist_ok=True)
    (root / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def _asked(photos, held: dict[str, set], tmp_path, side=64) -> dict[str, int]:
    """Draw many groups of every kind; how many of each. held: photograph -> what its annotations name."""
    found = training_set(photos, side, tmp_path / "cache")
    assert len(set(found.names)) == len(found.names)
    seen = {kind: 0 for kind in KINDS_OF_GROUP}
    for size in (2, 4):
        for pasted in (0, 1):
            sampler = GroupSampler(found, size=size, side=32, shares=(1, 1, 1), pasted=pasted)
            for step in range(60):
                plan = sampler.plan(np.random.default_rng(step))
                seen[plan.kind] += 1
                names = [found.names[i].split("/")[1] for i in plan.photos]
                donors = [found.names[i].split("/")[1] for _, i, _ in plan.pastes]
                assert len(set(names)) == size and not set(donors) & set(names[size // 2 :])
                for i, j in plan.weights.nonzero().tolist():
                    if plan.kind == "empty":
                        assert not held[names[i]] & held[names[j]], (names, step)
                    else:
                        assert names[i] != names[j]
    return seen


def test_no_empty_question_has_anything_in_common_and_none_pairs_a_photograph_with_itself(tmp_path):
    """Cats and dogs; on some a speck of the other, or a crowd of it, or a toaster, which nobody asks for."""
    top, low, speck = (slice(0, 12), False), (slice(20, 32), False), (slice(33, 34), False)
    members = {i: {"cat": top} for i in range(1, 6)} | {i: {"dog": low} for i in range(6, 11)}
    members |= {i: {"cat": top, "dog": low} for i in range(11, 14)} | {14: {"cat": top, "person": speck}}
    members |= {15: {"dog": low, "cat": (slice(0, 3), True)}, 16: {"person": top}, 17: {"person": low}}
    members |= {i: members[i] | {"toaster": speck} for i in (1, 6, 16)} | {18: {"person": low, "dog": speck}}
    members |= {19: {"person": low}, 20: {"person": top}}
    _coco_file(tmp_path, members)
    held = {f"{i:012d}": set(of) for i, of in members.items()}
    seen = _asked(coco_seg.photos(tmp_path), held, tmp_path)
    assert min(seen.values()) > 40


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_nor_on_the_real_photographs_of_coco(real_data, tmp_path, split):
    content = json.loads((real_data / "coco" / "annotations" / f"instances_{split}.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    held = {Path(i["file_name"]).stem: set() for i in content["images"]}
    files = {i["id"]: Path(i["file_name"]).stem for i in content["images"]}
    for a in content["annotations"]:
        held[files[a["image_id"]]].add(names[a["category_id"]])
    photos = coco_seg.photos(real_data, split)
    assert len({p.path for p in photos}) == len(photos)
    assert min(_asked(photos, held, tmp_path).values()) > 20


def test_coco_faults_name_the_file(coco):
    listed = coco / "coco" / "annotations" / "instances_train2017.json"
    with pytest.raises(CosegError, match="instances_val2017"):
        load("coco-seg-val", coco)
    for damaged in ("{}", "not json"):
        listed.write_text(damaged)
        with pytest.raises(CosegError, match="not COCO's instance annotations"):
            load("coco-seg", coco)


@pytest.mark.parametrize(
    ("place", "change", "told"),
    [
        (1, {"segmentation": {"size": [36, 48], "counts": [5]}}, "runs of 5 pixels"),
        (1, {"segmentation": {"size": [36, 48], "counts": "no runs"}}, "annotation 2 of 1"),
        (0, {"segmentation": [[0, 0, 10, 0]]}, "no outline"),
        (0, {"segmentation": []}, "no outline"),
        (0, {"segmentation": [["a", 0, 1, 1, 2, 2]]}, "ValueError"),
        (0, {"category_id": 5}, "KeyError: 5"),
        (0, {"area": None}, "TypeError"),
    ],
)
def test_one_damaged_record_costs_its_photograph_alone_and_is_named(coco, capsys, place, change, told):
    listed = coco / "coco" / "annotations" / "instances_train2017.json"
    content = json.loads(listed.read_text())
    for number, record in enumerate(content["annotations"], start=1):
        record["id"] = number
    content["annotations"][place] |= change
    listed.write_text(json.dumps(content))
    assert {g.name: [p.name for p in g.photos] for g in load("coco-seg", coco)} == {
        "cat": ["000000000002"],
        "dog": ["000000000002"],
    }
    said = capsys.readouterr().err
    assert f"{listed}: 1 of 9 records are damaged, their photographs left out: annotation " in said and told in said
    assert said.count("\n") == 1 and [p.name for p in coco_seg.photos(coco)] == ["000000000002"]


def test_records_that_are_none_and_images_without_a_size_cost_no_others(coco, capsys):
    listed = coco / "coco" / "annotations" / "instances_train2017.json"
    content = json.loads(listed.read_text())
    content["annotations"] += [None, {"image_id": 99, "category_id": 17}, {"image_id": [1]}]
    content["images"] += [{"id": 3}, 7]
    listed.write_text(json.dumps(content))
    assert len(coco_seg.photos(coco)) == 2
    assert "5 of 14 records are damaged" in capsys.readouterr().err


# A folder of one's own ------------------------------------------------------------------------------------------------


def test_a_folder_with_masks_gives_groups_to_score(tmp_path):
    binary_set(tmp_path, {"ducks": ["a", "b"], "swans": ["a"]})
    save(picture("hidden"), tmp_path / "images" / "ducks" / ".hidden.jpg")
    (tmp_path / "images" / ".git").mkdir()
    (tmp_path / "images" / "ducks" / "notes.txt").write_text("")
    groups = load(tmp_path)
    assert [(g.name, len(g), g.targets) for g in groups] == [("ducks", 2, ("ducks",)), ("swans", 1, ("swans",))]
    assert groups[0].photos[0].name == "ducks/a.jpg" and groups[0].mask(1).sum() == 480


def test_groups_and_loose_photographs_without_masks_have_no_targets(tmp_path):
    for name in ("b/1.jpg", "a/1.png", "a/2.JPG", "x.jpg"):
        save(picture(name), tmp_path / "album" / name, format="JPEG")
    groups = load(str(tmp_path / "album"))
    assert [(g.name, len(g)) for g in groups] == [("a", 2), ("b", 1), ("album", 1)]
    assert all(g.targets == () for g in groups)
    with pytest.raises(CosegError, match="has no mask"):
        groups[0].mask(0)


def test_loose_photographs_with_masks_are_one_group(tmp_path):
    save(picture("a"), tmp_path / "images" / "a.jpg")
    save(box(), tmp_path / "ground_truth" / "a.png")
    (group,) = load(tmp_path)
    assert group.targets == (tmp_path.name,) and group.mask(0).sum() == 480


def test_images_without_a_ground_truth_folder_are_groups_without_masks(tmp_path):
    save(picture("a"), tmp_path / "images" / "ducks" / "a.jpg")
    assert load(tmp_path)[0].targets == ()


def test_a_folder_without_photographs_a_missing_mask_and_a_wrong_name_are_errors(tmp_path):
    with pytest.raises(CosegError, match="no photographs"):
        load(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "readme.txt").write_text("")
    with pytest.raises(CosegError, match="no photographs"):
        load(tmp_path)
    binary_set(tmp_path, {"ducks": ["a", "b"]})
    for name, told in (
        ("b", r"ducks/b\.png: no mask for b\.jpg; add"),
        ("a", r"a\.png: no mask .*, nor for 1 others; add"),
    ):
        (tmp_path / "ground_truth" / "ducks" / f"{name}.png").unlink()
        with pytest.raises(CosegError, match=told):
            load(tmp_path)
    with pytest.raises(CosegError, match="neither a data set"):
        load(tmp_path / "absent")


def test_a_mask_of_another_size_than_its_photograph_names_both(tmp_path):
    binary_set(tmp_path, {"ducks": ["a"]})
    save(box(width=50, height=20), tmp_path / "ground_truth" / "ducks" / "a.png")
    with pytest.raises(CosegError, match=r"a\.png: 50 × 20 pixels, its photograph a\.jpg has 48 × 36"):
        load(tmp_path)[0].mask(0)
    Image.open(tmp_path / "images" / "ducks" / "a.jpg").rotate(90, expand=True).save(tmp_path / "turned.jpg")
    exif = Image.Exif()
    exif[0x112] = 6  # stored lying on its side, shown upright
    Image.open(tmp_path / "turned.jpg").save(tmp_path / "images" / "ducks" / "a.jpg", exif=exif)
    save(box(), tmp_path / "ground_truth" / "ducks" / "a.png")
    check_masks(load(tmp_path)[0].photos)
    Image.fromarray(box()).rotate(90, expand=True).save(tmp_path / "ground_truth" / "ducks" / "a.png")
    with pytest.raises(CosegError, match=r"a\.png: 36 × 48 pixels, its photograph a\.jpg has 48 × 36"):
        check_masks(load(tmp_path)[0].photos)


def test_all_masks_that_do_not_fit_are_told_before_any_picture_is_read(tmp_path, monkeypatch):
    binary_set(tmp_path, {"ducks": [f"p{i}" for i in range(8)], "swans": ["a"]})
    for i in range(1, 8):
        save(box(width=50, height=20), tmp_path / "ground_truth" / "ducks" / f"p{i}.png")
    groups = load(tmp_path)
    monkeypatch.setattr("PIL.Image.Image.load", None)
    for told_by in (
        lambda: evaluate(build_floor("ellipse"), groups),
        lambda: multiclass_table(groups, load_online("smoke"), tmp_path / "t.csv"),
        lambda: training_set(list(groups[0].photos), 32, tmp_path / "cache"),
    ):
        with pytest.raises(CosegError, match=r"7 of [89] .*/p1\.png: 50 × 20 .*/p5\.png: 50 .*; and 2 more; ") as error:
            told_by()
        assert "p6" not in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists() and not list(tmp_path.glob("*.csv"))


# All of them ----------------------------------------------------------------------------------------------------------


def test_every_set_is_counted_or_says_what_is_missing(sets):
    found = available(sets)
    assert tuple(found) == NAMES
    assert found["icoseg8"] == "8 groups, 16 photographs" and found["voc-train"] == "15 photographs"
    assert found["synthetic"].startswith("8 groups")
    for name in ("internet", "internet-full", "coco-seg", "coco-seg-val"):
        assert isinstance(found[name], CosegError) and "data/README.md" in str(found[name])


def test_a_missing_set_says_where_to_get_it(tmp_path):
    for name in set(NAMES) - {"synthetic", "synthetic-multiclass"}:
        with pytest.raises(CosegError, match=r"data/README\.md"):
            load(name, tmp_path)


def test_the_data_root_is_what_the_environment_names(sets, monkeypatch):
    monkeypatch.setenv("COSEG_DATA", str(sets))
    assert len(load("pascal")) == 2


def test_the_real_sets_have_the_published_numbers(real_data):
    numbers = {"icoseg": (38, 643), "icoseg8": (8, 154), "icoseg30": (30, 489), "msrc7": (7, 70)}
    numbers |= {"msrc7-field": (7, 15), "pascal": (20, 1037)}
    for name, (groups, photos) in numbers.items():
        found = load(name, real_data)
        assert (len(found), sum(map(len, found))) == (groups, photos), name
    asked = Counter(swap.photo.content() for swap in swap_questions(found))
    assert Counter(asked.values()) == {2: 101, 6: 6}  # of 101 in two folders two questions each, of 6 in three six
    for group in load("msrc7", real_data):
        for i in range(len(group)):
            assert (group.mask(i) == 1).float().mean() > 0.005  # every photograph shows what its group is named for
