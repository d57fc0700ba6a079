"""Partner and group models in evaluation and inference: who meets whom, written out image by image."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TinyContext, TinyGroup, TinyPartner

from coseglib.answering.answers import Engine
from coseglib.answering.masks import segment_group
from coseglib.answering.reading import Memory, resize_to_input
from coseglib.core.errors import CosegError
from coseglib.data.images import read_image
from coseglib.data.record import Photo
from coseglib.segmenting.job import segment_photos


def _image(seed: int, width: int = 48, height: int = 36) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture
def images():
    """A function: so many photographs of different sizes."""
    return lambda n: [torch.from_numpy(np.array(_image(i, 40 + i, 30 + i % 5))).permute(2, 0, 1) for i in range(n)]


@pytest.fixture
def photos(images):
    return [Photo("made", str(i), (), lambda image=image: image) for i, image in enumerate(images(9))]


@torch.no_grad()
def _compared(model, images, i, partners):
    """The mean over the partners of image i's foreground probability."""
    f = [model.encode(resize_to_input(images[j], model.input_size)[None]) for j in (i, *partners)]
    return torch.stack([model.answer(f[0], g).logits[0].softmax(0)[1] for g in f[1:]]).mean(0)


@torch.no_grad()
def _together(model, images, members):
    """The foreground probability of the first member, given with the others."""
    x = torch.stack([resize_to_input(images[j], model.input_size) for j in members])
    return model(x[None]).logits[0, 0].softmax(0)[1]


def _probabilities(model, photos, questions):
    found = {a.number: a.logits.softmax(0)[1] for a in Engine(model, photos).answers(questions)}
    return [found[number] for number in range(len(questions))]


def test_a_partner_model_answers_by_the_mean_of_its_partners_and_never_by_itself(photos, images):
    model, whole = TinyPartner(), images(9)
    questions = [(0, (1,)), (3, (2, 3, 4)), (5, (5,)), (0, (8, 7, 6)), *((i, (0, 1, 2, 3)) for i in range(9))]
    for (i, partners), p in zip(questions, _probabilities(model, photos, questions), strict=True):
        want = _compared(model, whole, i, [j for j in partners if j != i] or [i])
        torch.testing.assert_close(p, want, rtol=1e-4, atol=1e-5)


def test_a_partner_model_compares_with_five_of_many_and_keeps_few_features(photos, images, monkeypatch):
    model, seen = TinyPartner(), []
    compare, encode = model.answer, model.encode
    model.answer = lambda q, a: seen.append(len(q[0])) or compare(q, a)
    every = _probabilities(model, photos, [(i, range(9)) for i in range(9)])
    assert sum(seen) == 9 * 5
    encoded = []
    model.encode = lambda x: encoded.append(len(x)) or encode(x)
    _probabilities(model, photos, [(i, range(9)) for i in range(9)])
    assert sum(encoded) == 9 + 6  # features once a photograph, and those of the references together
    encoded.clear()
    forgetful = Engine(model, photos, memory=Memory(0)).answers([(i, range(9)) for i in range(9)])
    for a, b in zip(every, forgetful, strict=True):
        assert torch.equal(a, b.logits.softmax(0)[1])
    assert sum(encoded) == 9 + 2 * 6  # anew for each of two batches


def test_a_group_model_sees_a_group_in_its_order_and_the_last_cut_filled_up(photos, images):
    model, whole = TinyGroup(), images(9)
    everyone = _probabilities(model, photos, [(i, range(8)) for i in range(8)])
    first = next(j for j in np.random.default_rng(8).permutation(8) if j not in (6, 7))
    for i, p in enumerate(everyone):
        members = [[0, 1, 2], [3, 4, 5], [6, 7, first]][i // 3]
        order = [i, *(j for j in members if j != i)]
        torch.testing.assert_close(p, _together(model, whole, order), rtol=1e-4, atol=1e-5)


def test_a_group_model_asked_about_a_stranger_gives_it_with_its_partners(photos, images):
    model, whole = TinyGroup(), images(9)
    alone, pair, trio = _probabilities(model, photos, [(4, (4,)), (4, (1,)), (4, (1, 2))])
    for p, members in ((alone, [4]), (pair, [4, 1]), (trio, [4, 1, 2])):
        torch.testing.assert_close(p, _together(model, whole, members), rtol=1e-4, atol=1e-5)
    many = _probabilities(model, photos, [(4, (0, 1, 2, 3))])[0]  # two of the four
    two = np.random.default_rng(4).permutation(4)[:2].tolist()
    torch.testing.assert_close(many, _together(model, whole, [4, *two]), rtol=1e-4, atol=1e-5)


def test_an_answer_is_that_of_its_question_alone(photos, images):
    questions = [(0, (0, 1, 2)), (5, (6,)), (1, (0, 1, 2)), (2, (0, 1, 2)), (5, (7,)), (5, (6,))]
    for model in (TinyContext(), TinyPartner(), TinyGroup()):
        together = _probabilities(model, photos, questions)
        for question, p in zip(questions, together, strict=True):
            torch.testing.assert_close(p, _probabilities(model, photos, [question])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [TinyContext, TinyPartner, TinyGroup])
def test_nothing_else_that_is_asked_changes_an_answer(photos, kind):
    """Not the number of the question, nor a limit, nor the batch: references are the group's own."""
    group = tuple(range(9))
    every = dict(enumerate(_probabilities(kind(), photos, [(i, group) for i in range(9)])))
    mixed = [(i, g) for i in range(9) for g in ((i,), group, (8, 7))]
    for i, p in enumerate(_probabilities(kind(), photos, mixed)[1::3]):
        torch.testing.assert_close(p, every[i], rtol=1e-4, atol=1e-5)
    for i, p in zip((7, 2), _probabilities(kind(), photos, [(7, group), (2, group)]), strict=True):
        torch.testing.assert_close(p, every[i], rtol=1e-4, atol=1e-5)
    for answer in Engine(kind(), photos, batch=2).answers([(i, group) for i in range(9)]):
        torch.testing.assert_close(answer.logits.softmax(0)[1], every[answer.photo], rtol=1e-4, atol=1e-5)


def test_a_model_that_includes_itself_is_answered_by_the_photograph_and_those_it_is_asked_with(photos, images):
    model, whole = TinyContext(), images(9)
    model.includes_itself = True
    with torch.no_grad():
        features = [model.encode(resize_to_input(image, model.input_size)[None]) for image in whole]
        alpha = torch.cat([model.attention(f) for f in features])
        questions = [(0, range(9)), (4, (1, 2)), (4, (4, 1)), (6, (6,)), (6, (2,))]
        for (i, group), p in zip(questions, _probabilities(model, photos, questions), strict=True):
            context = alpha[sorted({i, *group})].mean(0)
            want = model.answer(features[i], context)[0].softmax(0)[1]
            torch.testing.assert_close(p, want, rtol=1e-4, atol=1e-5)


def test_what_pools_nothing_has_no_minimum(photos, images):
    for model in (TinyPartner(), TinyGroup()):
        with pytest.raises(CosegError, match="pools the attention of ca, fca and csa"):
            list(Engine(model, photos).answers([(0, (1,))], "min"))
        with pytest.raises(CosegError, match="pools the attention of ca, fca and csa"):
            list(segment_group(model, images(2), "min"))
        with pytest.raises(CosegError, match="no group attention"):
            list(segment_group(model, images(2), context=torch.ones(8)))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 19])
def test_a_group_of_any_length_has_masks_by_a_fixed_few_partners(images, count):
    model, whole = TinyPartner(), images(count)
    drawn = np.random.default_rng(count).permutation(count)[:6].tolist()
    for i, mask in enumerate(segment_group(model, whole)):
        partners = [j for j in drawn if j != i][:5] or [i]
        p = _compared(model, whole, i, partners)
        want = torch.nn.functional.interpolate(p[None, None], size=mask.shape, mode="bilinear")[0, 0]
        # Averaged logs against averaged probabilities: equal but near the boundary.
        assert (mask == (want > 0.5)).float().mean() > 0.97
    assert i == count - 1


@pytest.mark.parametrize("model", [TinyPartner, TinyGroup])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 19])
def test_files_have_the_masks_of_the_group_in_memory(model, count, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(count):
        _image(i, 40 + i, 30 + i % 5).save(folder / f"{i:02d}.png")
    summary = segment_photos([folder], tmp_path / "out", model(), quiet=True)
    assert (summary.done, summary.exit_code) == (count, 0)
    in_memory = segment_group(model(), [read_image(p) for p in sorted(folder.iterdir())])
    for i, mask in enumerate(in_memory):
        written = np.array(Image.open(tmp_path / "out" / "masks" / f"{i:02d}.png"))
        assert np.array_equal(written, 255 * mask.numpy())


@pytest.mark.parametrize("model", [TinyPartner, TinyGroup])
def test_a_bad_photograph_is_no_reference_and_the_rest_is_done(model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        _image(i).save(folder / f"{i:02d}.png")
    for i in np.random.default_rng(9).permutation(9)[:2]:  # the first two that would be drawn
        (folder / f"{i:02d}.png").write_bytes(b"no image")
    summary = segment_photos([folder], tmp_path / "out", model(), quiet=True)
    assert (summary.done, len(summary.skipped), summary.exit_code) == (7, 2, 2)
    entries = json.loads((tmp_path / "out" / "result.json").read_text())["photos"]
    assert sum("skipped" in e for e in entries) == 2


def test_progress_says_two_passes_where_there_are_two(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    _image(0).save(folder / "a.png")
    for model, text in ((TinyContext(), "masks (pass 2 of 2): 1 of 1"), (TinyPartner(), "masks: 1 of 1")):
        segment_photos([folder], tmp_path / type(model).__name__, model)
        assert text in capsys.readouterr().err
