import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TinyContext
from torch.nn import functional as F

from coseglib.answering import second_look as sl
from coseglib.answering.masks import post_of, segment_group
from coseglib.answering.reading import LONGEST, picture_of, resize_to_input
from coseglib.answering.second_look import second_look, window
from coseglib.core.errors import CosegError
from coseglib.data.record import Group, Photo
from coseglib.models import build_model
from coseglib.models.checkpoints import load_model, save_model
from coseglib.scoring.rows import evaluate
from coseglib.segmenting.job import segment_photos


def _found(top, bottom, left, right, side=100):
    found = torch.zeros(side, side, dtype=torch.bool)
    found[top:bottom, left:right] = True
    return found


def _photo(height, width, seed=0):
    """Smooth noise, with a bright small disc."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 3, 6, 8, generator=generator)
    image = 120 * F.interpolate(rough, size=(height, width), mode="bicubic")[0].clamp(0, 1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image[:, (y / height - 0.6) ** 2 + (x / width - 0.3) ** 2 < 0.12**2] = 250.0
    return image.to(torch.uint8)


# Where ----------------------------------------------------------------------------------------------------------------


def test_the_window_is_the_foregrounds_box_with_a_margin_at_each_side():
    # rows .3 to .7, so .4 high: .16 to .84 with margins of .14; columns .25 to .75: .075 to .925
    assert window(_found(30, 70, 25, 75), (201, 303)) == (32, 169, 22, 281)


def test_small_finds_get_a_window_of_the_least_size_and_windows_stay_within_the_picture():
    top, bottom, left, right = window(_found(0, 5, 95, 100), (1000, 1000))
    assert (top, right) == (0, 1000) and bottom - top == 350 == right - left
    assert window(_found(10, 40, 0, 30), (100, 100))[2] == 0


@pytest.mark.parametrize("found", [_found(0, 0, 0, 0), _found(3, 4, 0, sl.ENOUGH - 1), _found(5, 95, 5, 95)])
def test_there_is_no_second_look_at_nothing_or_at_nearly_everything(found):
    assert window(found, (300, 400)) is None


def test_pictures_are_reduced_to_the_longest_side_and_smaller_ones_are_left_alone():
    assert picture_of(torch.zeros(3, 12, 4 * LONGEST, dtype=torch.uint8)).pixels.shape == (3, 3, LONGEST)
    small = _photo(30, 40)
    assert torch.equal(picture_of(small).pixels, small)


# What it answers ------------------------------------------------------------------------------------------------------


class Bright(TinyContext):
    """The foreground is what is bright: any look at any size sees the same thing."""

    def answer(self, features, context):
        f = 20 * (features[0][:, 0] - 0.8)
        return torch.stack([torch.zeros_like(f), f], dim=1)

    def encode(self, images):
        return [images.mean(dim=1, keepdim=True).expand(-1, 8, -1, -1)]


def _by_hand(model, picture, logits, context):
    """The mean of both answers, place by place, in plain loops over the doubled grid."""
    p = logits.softmax(0)[1]
    side, (height, width) = 2 * p.shape[-1], picture.shape[-2:]
    top, bottom, left, right = window(p > 0.5, (height, width))
    part = resize_to_input(picture[:, top:bottom, left:right], model.input_size)[None]
    closer = model.answer(model.encode(part), context)[0].softmax(0)[1]

    def at(map_, y, x):  # y, x in pixels of the map, centres at .5
        n = len(map_)
        y, x = min(max(y - 0.5, 0), n - 1), min(max(x - 0.5, 0), n - 1)
        a, b = int(y), int(x)
        c, d = min(a + 1, n - 1), min(b + 1, n - 1)
        u, v = y - a, x - b
        rows = [(1 - v) * map_[r, b] + v * map_[r, d] for r in (a, c)]
        return (1 - u) * rows[0] + u * rows[1]

    mean = torch.empty(side, side)
    for i in range(side):
        for j in range(side):
            y, x = (i + 0.5) / side, (j + 0.5) / side
            mean[i, j] = at(p, y * len(p), x * len(p))
            v, u = (y * height - top) / (bottom - top), (x * width - left) / (right - left)
            if 0 <= v <= 1 and 0 <= u <= 1:
                mean[i, j] = (mean[i, j] + at(closer, v * len(closer), u * len(closer))) / 2
    return mean


@pytest.mark.parametrize("size", [(90, 120), (64, 200), (300, 70)])
def test_both_answers_are_averaged_place_by_place(size):
    model, pictures = Bright(), [_photo(*size, seed) for seed in (1, 2)]
    context = torch.rand(2, 8)
    first = model.answer(model.encode(torch.stack([resize_to_input(p, 32) for p in pictures])), context)
    found = second_look(model, pictures, first, context)
    assert found.shape == (2, 2, 64, 64)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, 64, 64), rtol=0, atol=1e-5)
    for k in range(2):
        want = _by_hand(model, pictures[k], first[k], context[k : k + 1])
        torch.testing.assert_close(found[k, 1].exp(), want, rtol=0, atol=1e-4)


def test_where_nothing_was_found_the_first_answer_stands():
    model, dark = Bright(), torch.full((3, 50, 60), 20, dtype=torch.uint8)
    first = model.answer(model.encode(resize_to_input(dark, 32)[None]), torch.rand(8))
    p = F.interpolate(first.softmax(1)[:, 1:], size=(64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(second_look(model, [dark], first, torch.rand(8))[:, 1].exp(), p, rtol=0, atol=1e-5)


def test_a_small_disc_is_drawn_better_from_nearer():
    model, photo = Bright(), _photo(240, 320)
    truth = (photo.float().mean(0) > 0.8 * 255).to(torch.uint8)
    j = []
    for model.looks in (1, 2):
        mask = next(segment_group(model, [photo]))
        j.append(float((mask & truth).sum() / (mask | truth).sum()))
    assert j[1] > j[0] + 0.02


# Who looks twice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("post", ["argmax", "crf"])
def test_groups_in_memory_files_and_evaluation_give_one_answer(post, tmp_path):
    model = Bright()
    model.looks, model.post = 2, post
    photos = [_photo(80, 110, seed) for seed in range(3)]
    (tmp_path / "in").mkdir()
    for k, photo in enumerate(photos):
        Image.fromarray(photo.permute(1, 2, 0).numpy()).save(tmp_path / "in" / f"{k}.png")
    masks = list(segment_group(model, photos))
    segment_photos([tmp_path / "in"], tmp_path / "out", model, quiet=True)
    for k, mask in enumerate(masks):
        written = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{k}.png"))
        assert (written == 255 * mask.numpy()).all()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["looks"], result["post"]) == (2, post)
    records = [
        Photo("made", str(k), ("it",), lambda x=x: x, lambda m=m: m)
        for k, (x, m) in enumerate(zip(photos, masks, strict=True))
    ]
    group = Group("made", "it", tuple(records), ("it",))
    assert evaluate(model, [group]).J.tolist() == [1, 1, 1]
    model.looks, model.post = 1, "argmax"
    assert evaluate(model, [group]).J.max() < 1


def test_bfloat16_looks_twice_too():
    model = Bright()
    model.looks = 2
    found = {}
    for model.precision in ("32-true", "bf16-mixed"):
        found[model.precision] = next(segment_group(model, [_photo(80, 110)]))
    exact, fast = found.values()
    assert (exact != fast).float().mean() < 0.01 < exact.float().mean()


def test_a_checkpoint_says_how_its_maps_become_masks_and_the_caller_may_say_otherwise(tmp_path):
    about, file = {"method": "dcnet", "backbone": "mobilenet_v2"}, tmp_path / "dcnet.safetensors"
    model = build_model("dcnet", "mobilenet_v2", "paper", 64, weights=None)
    save_model(file, model, about)
    assert post_of(load_model(file)) == "argmax" and post_of(load_model(file, post="crf")) == "crf"
    model.post = "crf"
    save_model(file, model, about)
    assert post_of(load_model(file)) == "crf" and post_of(load_model(file, post="argmax")) == "argmax"
    with pytest.raises(CosegError, match="post = best: one of argmax, crf"):
        load_model(file, post="best")


def test_a_checkpoint_says_how_often_it_looks_and_the_caller_may_say_otherwise(tmp_path):
    about = {"method": "ca", "backbone": "mobilenet_v2"}
    model, file = build_model("ca", "mobilenet_v2", "paper", 64, weights=None), tmp_path / "ca.safetensors"
    save_model(file, model, about)
    assert load_model(file).looks == 1 and load_model(file, looks=2).card["looks"] == 2
    model.looks = 2
    save_model(file, model, about)
    assert load_model(file).looks == 2 and load_model(file, looks=1).looks == 1
    other = build_model("dcnet", "mobilenet_v2", "paper", 64, weights=None)
    save_model(file, other, {**about, "method": "dcnet"})
    assert load_model(file).card["looks"] == 1
    with pytest.raises(CosegError, match="looks = 2: 1 or 2, and 2 for ca, fca and csa alone"):
        load_model(file, looks=2)
