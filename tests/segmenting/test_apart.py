"""One group that is two: who stands apart, and that one of a kind is left in peace."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import Tiny, TinyPartner

from coseglib.answering.answers import Engine, whole_group
from coseglib.models.contract import ContextModel
from coseglib.segmenting import job
from coseglib.segmenting.apart import ASKED, NAMED, drops_between, note_on, two_sides, vector_of


class Colours(Tiny, ContextModel):
    """Sees what is brightly red, green or blue; the context says which of these is meant."""

    context_size = 3

    def encode(self, images):
        return [(images - 0.6).relu()]

    def attention(self, features):
        return (features[0].mean(dim=(-2, -1)) > 0.01).float() * 0.9 + 0.05

    def answer(self, features, context):
        found = (features[0] * context.expand(len(features[0]), -1)[..., None, None]).sum(1)
        return torch.stack([0 * found, 50 * found - 5], dim=1)


RED, GREEN = (255, 90, 90), (90, 255, 90)


def draw(folder: Path, colours, first: int = 0) -> Path:
    """A photograph for each colour: a square of it somewhere on grey, sizes and places differ."""
    folder.mkdir(exist_ok=True)
    for i, colour in enumerate(colours, first):
        picture = np.full((32, 32, 3), 100, np.uint8)
        picture[2 + i % 4 : 16 + i % 5, 3 + i % 3 : 18 + i % 7] = colour
        Image.fromarray(picture).save(folder / f"{i:02d}.png")
    return folder


def segment(photos: Path, out: Path, model=None, **options):
    return job.segment_photos([photos], out, model or Colours(), quiet=True, **options)


def apart(out: Path) -> list[str]:
    return sorted(Path(file).name for file in json.loads((out / "result.json").read_text())["apart"])


def test_the_few_that_show_something_else_are_named(tmp_path):
    photos = draw(tmp_path / "in", [GREEN, RED, GREEN, RED, *[GREEN] * 5, RED, RED, GREEN])
    note = segment(photos, tmp_path / "out").note
    assert note.startswith("perhaps two groups: 4 of 12 photographs stand apart (") and ".png and 1 more); " in note
    assert apart(tmp_path / "out") == ["01.png", "03.png", "09.png", "10.png"]
    assert "vector" not in (tmp_path / "out" / "result.json").read_text()


@pytest.mark.parametrize("count", [5, 12])
def test_a_group_of_one_kind_is_one_whatever_sizes_and_places(tmp_path, count):
    photos = draw(tmp_path / "in", [GREEN] * count)
    assert segment(photos, tmp_path / "out").note == "" and apart(tmp_path / "out") == []


def test_too_few_photographs_and_kinds_of_model_that_were_not_measured_are_not_asked(tmp_path):
    few = draw(tmp_path / "few", [GREEN, RED, GREEN, RED])
    assert segment(few, tmp_path / "a").note == ""
    many = draw(tmp_path / "many", [GREEN, RED] * 4)
    assert segment(many, tmp_path / "b", TinyPartner()).note == ""
    assert segment(many, tmp_path / "c").note != ""


def test_a_killed_run_that_goes_on_names_the_same_ones(tmp_path, monkeypatch):
    photos = draw(tmp_path / "in", [RED, *[GREEN] * 8, RED, GREEN])
    segment(photos, tmp_path / "whole", batch=2)
    write, written = job.write_png, []

    def stop(path, mask):
        written.append(path)
        if len(written) == 8:
            raise KeyboardInterrupt
        write(path, mask)

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_png", stop)
        with pytest.raises(KeyboardInterrupt):
            segment(photos, tmp_path / "out", batch=2)
    assert segment(photos, tmp_path / "out", batch=2).earlier == 7
    assert apart(tmp_path / "out") == apart(tmp_path / "whole") == ["00.png", "09.png"]


def test_the_drop_is_by_how_much_less_the_other_side_finds(tmp_path):
    photos, model = sorted(draw(tmp_path / "in", [RED] * 7 + [GREEN] * 9).iterdir()), Colours()
    model.looks = 2  # the sides are looked at once, and the model stays as it is
    red, green = list(range(7)), list(range(7, 16))
    assert min(drops_between(model, photos, (red, green))) > 0.9 and model.looks == 2
    assert max(map(abs, drops_between(model, photos, (green[:3], green[3:])))) < 1e-3
    one, less = drops_between(model, photos, (green[:4], [*red[:3], *green[4:]]))  # the second side finds both
    assert one < less  # by hand: of the second side's the red ones are not found with the first


def test_what_an_engine_has_kept_is_not_computed_again_for_the_drop(tmp_path, monkeypatch):
    photos, model = sorted(draw(tmp_path / "in", [RED] * 7 + [GREEN] * 9).iterdir()), Colours()
    sides = list(range(7)), list(range(7, 16))
    alone, engine, encoded = drops_between(model, photos, sides), Engine(model, photos), []
    list(engine.answers(whole_group(len(photos))))
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda images: encoded.append(len(images)) or encode(images))
    assert drops_between(model, photos, sides, engine.memory) == alone
    assert sum(encoded) <= 2 * ASKED  # the sides' attention is known; those asked come in other batches
    encoded.clear()
    drops_between(model, photos, sides)
    assert sum(encoded) >= len(photos)


def test_the_smaller_side_is_that_of_24_of_100_and_of_equal_ones_not_the_firsts():
    rng = np.random.default_rng(0)
    kinds = np.array([[90, 20, 0, 0], [0, 10, 100, 30]])
    for kind in (np.arange(100) % 4 == 1, np.arange(10) % 2 == 1, np.arange(10) == 3):
        vectors = (kinds[kind.astype(int)] + rng.integers(-15, 16, (len(kind), 4))).astype(np.int8)
        beyond = two_sides(vectors)
        assert ((beyond > 0) == kind).all()
    assert (two_sides(np.ones((8, 4), np.int8)) < 0).all()
    line = two_sides(np.array([[100, k] for k in (0, 1, 2, 3, 90, 100)], np.int8))
    assert (np.argsort(line) == np.arange(6)).all()  # the farther out, the larger


def test_a_vector_is_the_mean_of_the_features_inside_the_mask():
    features, logits = torch.zeros(3, 2, 2), torch.full((2, 4, 4), -50.0)
    features[:, 0, 0] = torch.tensor([2.0, -1.0, 0.5])
    features[:, 1, 1] = 100.0
    logits[1, :2, :2] = 50.0  # the first of four cells is foreground
    logits[0, 2:], logits[0, :2, 2:] = 50.0, 50.0
    expected = np.array([2.0, -1.0, 0.5]) + 1e-3 * 100 + 1e-3 * 0
    vector = vector_of(features, logits)
    assert vector.dtype == np.int8 and abs(vector - 127 * expected / expected.max()).max() < 1.5
    assert len(vector_of(torch.rand(320, 2, 2), logits)) == 256


def test_a_note_names_a_few_and_how_many_more():
    assert note_on([], 9) == ""
    assert "1 of 9 photographs stand apart (a.jpg);" in note_on(["x/a.jpg"], 9)
    assert f"(0.jpg, 1.jpg, 2.jpg and {7 - NAMED} more)" in note_on([f"x/{i}.jpg" for i in range(7)], 9)
