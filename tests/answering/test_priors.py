"""Saliency maps added to a system's answer: from a folder or a network, at a weight."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coseglib.answering.answers import Engine, whole_group
from coseglib.answering.floors import build_floor
from coseglib.answering.priors import read_prior
from coseglib.answering.reading import picture_of
from coseglib.answering.reference import Reference, check_references
from coseglib.core.errors import CosegError
from coseglib.data import load as load_set
from coseglib.scoring.prior_weight import WEIGHTS, weight_rows
from coseglib.scoring.rows import evaluate
from coseglib.segmenting.job import segment_photos


def save(folder: Path, name: str, pixels) -> Path:
    file = folder / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file)
    return file


def place_of(photo) -> str:
    """ "star/g0000" of the scene "test-0/star/g0000": the group's folder and the stem."""
    return "/".join(photo.name.split("/")[-2:])


@pytest.fixture
def groups():
    """Two groups of three drawn scenes."""
    return [replace(group, photos=group.photos[:3]) for group in load_set("synthetic")[:2]]


@pytest.fixture
def maps(tmp_path, groups):
    """A folder <group>/<stem>.png of the drawn scenes' own masks."""
    for group in groups:
        for i, photo in enumerate(group.photos):
            save(tmp_path / "maps", place_of(photo), 255 * group.mask(i).clamp(max=1).numpy())
    return tmp_path / "maps"


def logits_of(model, photos):
    return [answer.logits for answer in Engine(model, photos).answers(whole_group(len(photos)))]


@pytest.mark.parametrize("method", ["ca", "pfcc", "ssnm"])
def test_a_prior_s_logit_times_its_weight_is_added_to_every_kind_of_system(awake, groups, maps, method):
    model, photos = awake(method), groups[0].photos
    alone = logits_of(model, photos)
    model.prior = read_prior(str(maps), 0.7)
    for before, after, photo in zip(alone, logits_of(model, photos), photos, strict=True):
        size = tuple(before.shape[-2:])
        p = torch.from_numpy(np.array(Image.open(maps / f"{place_of(photo)}.png"))).float() / 255
        p = torch.nn.functional.interpolate(p[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
        p = p.clamp(0.5 / 255, 1 - 0.5 / 255)
        expected = before[1] - before[0] + 0.7 * torch.log(p / (1 - p))
        torch.testing.assert_close(after[1] - after[0], expected, rtol=0, atol=1e-4)


def test_the_default_weight_is_one_and_a_weight_of_none_changes_nothing(awake, groups, maps):
    model, photos = awake("ca"), groups[0].photos
    alone = logits_of(model, photos)
    assert read_prior(str(maps)).weight == 1
    model.prior = read_prior(str(maps), 0.0)
    for before, after in zip(alone, logits_of(model, photos), strict=True):
        assert torch.equal(before, after)


def test_a_map_is_found_in_the_photograph_s_own_folder_then_in_the_top_one_then_where_it_is_alone(tmp_path):
    home, photos = tmp_path / "maps", tmp_path / "photos"
    for folder, value in (("cats", 10), ("dogs", 20), (".", 30)):
        save(home / folder, "one", np.full((4, 4), value))
    save(home / "somewhere", "two", np.full((4, 4), 40))
    prior = read_prior(str(home))
    for name, value in (("cats/one.jpg", 10), ("dogs/one.jpg", 20), ("birds/one.jpg", 30), ("cats/two.jpg", 40)):
        photo = photos / name
        assert prior.map_of(photo, None).mean() == pytest.approx(value / 255)
    save(home / "elsewhere", "two", np.full((4, 4), 40))
    again = read_prior(str(home))
    assert again.map_of(photos / "cats" / "two.jpg", None).mean() == pytest.approx(40 / 255)  # both are the same
    assert again.sha256 != prior.sha256
    save(home / "elsewhere", "two", np.full((4, 4), 41))
    with pytest.raises(CosegError, match=r"two\.png stands in .*elsewhere/.* and differs"):
        read_prior(str(home)).map_of(photos / "cats" / "two.jpg", None)


def test_what_lacks_a_map_is_named_before_any_work(awake, groups, maps):
    missing = maps / f"{place_of(groups[1].photos[2])}.png"
    for file in maps.glob(f"*/{missing.name}"):
        file.unlink()
    save(maps, "another", np.zeros((4, 4)))
    model = awake("ca")
    model.prior = read_prior(str(maps))
    with pytest.raises(CosegError, match=rf"no map {missing.stem}\.png"):
        evaluate(model, groups)
    with pytest.raises(CosegError, match="a picture without a name"):
        logits_of(model, [groups[0].photos[0].image()])


@pytest.mark.parametrize(("name", "why"), [("nowhere", "no folder of maps"), ("empty", "holds no <stem>.png")])
def test_what_is_no_prior_is_said(tmp_path, name, why):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CosegError, match=why):
        read_prior(str(tmp_path / name))
    with pytest.raises(CosegError, match="a number from 0 on"):
        read_prior(str(tmp_path / "empty"), float("nan"))


def test_a_system_with_a_prior_takes_no_references(awake, groups, maps):
    model = awake("ca")
    model.prior = read_prior(str(maps))
    with pytest.raises(CosegError, match="leave one of both out"):
        check_references(model, [Reference(groups[0].photos[0], groups[0].mask(0))])


def test_a_network_as_prior_says_what_its_maps_in_a_folder_say(tmp_path, awake, groups):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from toy_onnx import red

    network = read_prior(f"onnx:{red(tmp_path / 'toy.onnx')}")
    for photo in groups[0].photos:
        p = network.map_of(photo, picture_of(photo))
        save(tmp_path / "maps", place_of(photo), (255 * p).round().numpy())
    model, found = awake("ca"), {}
    for name, prior in (("network", network), ("folder", read_prior(str(tmp_path / "maps")))):
        model.prior = prior
        found[name] = torch.stack(logits_of(model, groups[0].photos))
    both = [z[:, 1] - z[:, 0] for z in found.values()]
    assert (both[0] - both[1]).abs().median() < 0.05 and ((both[0] > 0) == (both[1] > 0)).float().mean() > 0.98


def test_weights_are_compared_in_one_pass_and_equal_separate_evaluations(awake, groups, maps):
    model = awake("ca")
    model.prior = read_prior(str(maps))
    rows = weight_rows(model, groups, weights=(0.0, 0.3, 2.0))
    assert model.prior.weight == 1  # as it was
    for weight, some in rows.groupby("weight"):
        model.prior = read_prior(str(maps), weight)
        expected = evaluate(model, groups)
        assert some.J.tolist() == expected.J.tolist() and some.name.tolist() == expected.name.tolist()
    by_weight = rows.groupby("weight").J.mean()
    assert by_weight[2.0] > by_weight[0.0] + 0.1  # the maps are the truth
    assert WEIGHTS[0] == 0 and list(WEIGHTS) == sorted(WEIGHTS)
    model.prior = None
    with pytest.raises(CosegError, match="no weight to choose"):
        weight_rows(model, groups)


def test_masks_on_disk_are_those_that_are_scored_and_result_json_names_the_prior(tmp_path, awake, groups, maps):
    from coseglib.answering.masks import segment_group

    files = []
    for i, photo in enumerate(groups[0].photos):
        file = save(tmp_path / "photos", f"p{i}", photo.image().permute(1, 2, 0).numpy())
        save(tmp_path / "named", f"p{i}", np.array(Image.open(maps / f"{place_of(photo)}.png")))
        files.append(file)
    model = awake("ca")
    model.card = {"common_from": {"score": 2.0, "on": "voc-val"}}
    model.prior = read_prior(str(tmp_path / "named"), 3.0)
    summary = segment_photos(files, tmp_path / "out", model, quiet=True)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["prior"] == {"name": str(tmp_path / "named"), "weight": 3.0, "sha256": model.prior.sha256}
    assert not summary.note  # the card's score was measured without a prior
    for i, mask in enumerate(segment_group(model, files)):
        written = np.array(Image.open(tmp_path / "out" / "masks" / f"p{i}.png"))
        np.testing.assert_array_equal(written, 255 * mask.numpy())
    model.prior = None
    segment_photos(files, tmp_path / "out", model, quiet=True)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["prior"] is None


def test_a_floor_takes_a_prior_as_well(groups, maps):
    floor = build_floor("everything")
    floor.prior = read_prior(str(maps), 10.0)
    assert evaluate(floor, groups).J.mean() > 0.8
