import json

import numpy as np
import pytest

from coseglib.segmenting.coco import box_of, coco_datasets


def opened(dataset: dict, tmp_path, name: str):
    from pycocotools.coco import COCO

    file = tmp_path / name
    file.write_text(json.dumps(dataset))
    return COCO(file)


def entry(file, **more) -> dict:
    return {"file": str(file), **more}


def datasets(labels: list[np.ndarray], tmp_path, classes: int = 0, **more) -> dict[str, dict]:
    entries = [entry(tmp_path / f"{i}.jpg", score=0.5 + i / 100, **more) for i in range(len(labels))]
    found = zip(entries, labels, strict=True)
    return coco_datasets(found, [e["file"] for e in entries], classes)


def blob(seed: int, shape=(40, 60)) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((5, 6)) > 0.5
    return np.kron(coarse, np.ones((8, 10))).astype(np.uint8)[: shape[0], : shape[1]]


def test_both_files_open_in_pycocotools_and_give_the_masks(tmp_path):
    masks = [blob(0), np.ones((40, 60), np.uint8), np.zeros((40, 60), np.uint8), blob(1)]
    for name, dataset in datasets(masks, tmp_path).items():
        coco = opened(dataset, tmp_path, name)
        assert sorted(coco.imgs) == [1, 2, 3, 4] and sorted(coco.anns) == [1, 2, 3]  # 0 would count as missed
        for number, mask in enumerate(masks, start=1):
            found = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
            assert len(found) == mask.any()
            for annotation in found:
                got = coco.annToMask(annotation)
                if name == "coco_rle.json":
                    assert np.array_equal(got, mask)
                assert (got & mask).sum() / (got | mask).sum() >= 0.98
                assert annotation["area"] == mask.sum() and type(annotation["area"]) is int
                assert annotation["bbox"] == box_of(mask) and annotation["iscrowd"] == 0
                assert annotation["score"] == pytest.approx(0.5 + (number - 1) / 100)
        assert [(c["id"], c["name"]) for c in coco.dataset["categories"]] == [(1, "object")]
        assert {"info", "licenses"} <= coco.dataset.keys()  # without the latter CVAT refuses it


def test_the_two_files_differ_in_the_segmentation_alone(tmp_path):
    polygons, runs = datasets([blob(0), blob(1)], tmp_path).values()
    for a, b in zip(polygons["annotations"], runs["annotations"], strict=True):
        assert isinstance(a.pop("segmentation"), list) and isinstance(b.pop("segmentation")["counts"], str)
        assert a == b
    assert {**polygons, "annotations": 0} == {**runs, "annotations": 0}


def test_a_label_map_has_a_category_for_each_class_seen_or_not(tmp_path):
    labels = blob(0)
    labels[labels == 1] = np.where(np.arange((labels == 1).sum()) % 2, 1, 3)
    for name, dataset in datasets([labels], tmp_path, classes=3).items():
        coco = opened(dataset, tmp_path, name)
        assert [c["name"] for c in coco.dataset["categories"]] == ["class 1", "class 2", "class 3"]
        assert [a["category_id"] for a in coco.dataset["annotations"]] == [1, 3]
        for annotation in coco.dataset["annotations"] if name == "coco_rle.json" else ():
            assert np.array_equal(coco.annToMask(annotation), labels == annotation["category_id"])


def test_groups_are_categories_and_names_are_relative_to_the_common_folder(tmp_path):
    found = [
        (entry(tmp_path / "dogs" / "1.jpg", group="dogs"), blob(0)),
        (entry(tmp_path / "cats" / "1.jpg", group="cats"), blob(1)),
    ]
    made = coco_datasets(found, [e["file"] for e, _ in found], 0)["coco.json"]
    assert [i["file_name"] for i in made["images"]] == ["dogs/1.jpg", "cats/1.jpg"]
    assert made["info"]["photographs"] == str(tmp_path)
    assert [c["name"] for c in made["categories"]] == ["dogs", "cats"]
    assert [a["category_id"] for a in made["annotations"]] == [1, 2] and "score" not in made["annotations"][0]


def test_nothing_segmented_is_a_file_without_images(tmp_path):
    for name, dataset in coco_datasets([], [], 0).items():
        assert opened(dataset, tmp_path, name).imgs == {}


def test_a_box_is_that_of_the_pixels():
    mask = np.zeros((10, 20), np.uint8)
    assert box_of(mask) is None
    mask[3, 5] = 1
    assert box_of(mask) == [5, 3, 1, 1]
    mask[9, 19] = 200
    assert box_of(mask) == [5, 3, 15, 7]
