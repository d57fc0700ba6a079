import time

import pytest
import torch
from tiny_models import TinyContext
from torch.nn import functional as F

from coseglib.answering.answers import BATCH, pooled_context
from coseglib.answering.kinds import Pool
from coseglib.answering.masks import masks_from_logits, segment_group
from coseglib.answering.reading import Memory, resize_to_input
from coseglib.core.errors import CosegError
from coseglib.data.record import Photo


@pytest.fixture
def photos():
    """Seven photographs of seven sizes: coarse noise, so that masks have structure."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(40, 60), (33, 31), (64, 64), (20, 90), (32, 32), (57, 43), (75, 20)]
    coarse = [torch.rand(1, 3, 4, 4, generator=generator) for _ in sizes]
    return [(255 * F.interpolate(c, size=s)[0]).to(torch.uint8) for c, s in zip(coarse, sizes, strict=True)]


def plain_mask(logits, size):
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].argmax(0).to(torch.uint8)


@torch.no_grad()
def plain_masks(model, photos, how="mean"):
    """Algorithm 1 with the whole group in memory, one image at a time."""
    inputs = [
        F.interpolate(p[None], size=(model.input_size, model.input_size), mode="bilinear", antialias=True) / 255
        for p in photos
    ]
    alpha = torch.cat([model.attention(model.encode(x)) for x in inputs])
    context = model.pool(alpha, how)
    return [
        plain_mask(model.answer(model.encode(x), context)[0], p.shape[-2:]) for x, p in zip(inputs, photos, strict=True)
    ]


# Between a photograph and the network


def test_an_input_is_the_photo_resized_by_area_in_0_to_1():
    image = torch.zeros(3, 8, 16, dtype=torch.uint8)
    image[:, :, 8:] = 255
    small = resize_to_input(image, 2)
    assert small.shape == (3, 2, 2) and small.dtype == torch.float32
    assert small[0, 0, 0] < 0.2 and small[0, 0, 1] > 0.8
    assert resize_to_input(torch.full((3, 1, 1), 51, dtype=torch.uint8), 4).unique().tolist() == [pytest.approx(0.2)]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (50, 333), (333, 50), (1, 40), (97, 1)])
def test_a_mask_is_plain_bilinear_interpolation_then_argmax(size):
    torch.manual_seed(0)
    logits = torch.randn(2, 16, 16)
    near = (
        F.interpolate(logits[None], size=size, mode="bilinear")[0].diff(dim=0)[0].abs() < 1e-5
    )  # a tie, but for rounding
    same = masks_from_logits(logits, size) == plain_mask(logits, size)
    assert (same | near).all() and near.float().mean() < 0.01


def test_a_mask_made_in_strips_is_the_mask_made_at_once(monkeypatch):
    torch.manual_seed(1)
    logits = torch.randn(2, 9, 12)
    at_once = masks_from_logits(logits, (70, 41))
    monkeypatch.setattr("coseglib.answering.masks.STRIP", 100)
    assert torch.equal(masks_from_logits(logits, (70, 41)), at_once)


def test_equal_logits_are_background():
    assert masks_from_logits(torch.zeros(2, 4, 4), (6, 6)).sum() == 0


# Pool


def pooled(alphas, how):
    pool = Pool(alphas[0].shape[1], how)
    for alpha in alphas:
        pool.add(alpha)
    return pool.context()


def test_mean_and_minimum_as_computed_by_hand():
    alphas = [torch.tensor([[0.5, 0.25], [0.75, 1.0]]), torch.tensor([[0.25, 0.25]])]
    assert pooled(alphas, "mean").tolist() == [0.5, 0.5]
    assert pooled(alphas, "min").tolist() == [0.25, 0.25]


@pytest.mark.parametrize("how", ["mean", "min"])
def test_order_and_chunks_do_not_change_one_bit(how):
    torch.manual_seed(2)
    alpha = torch.rand(101, 5)
    whole = pooled([alpha], how)
    for _ in range(5):
        shuffled = alpha[torch.randperm(101)]
        assert torch.equal(pooled(shuffled.split(7), how), whole)
    torch.testing.assert_close(whole, alpha.mean(0) if how == "mean" else alpha.amin(0), rtol=0, atol=1e-7)


def test_plain_sums_would_depend_on_the_order():
    """What the whole numbers are for."""
    alpha = torch.rand(1001, 5, generator=torch.Generator().manual_seed(0))
    sums = {
        tuple(sum(alpha[torch.randperm(1001, generator=torch.Generator().manual_seed(s))]).tolist()) for s in (1, 2)
    }
    assert len(sums) == 2


def test_what_is_no_group_is_refused():
    with pytest.raises(CosegError, match="at least one"):
        Pool(3).context()
    with pytest.raises(CosegError, match="median: no such pooling"):
        Pool(3, "median")
    with pytest.raises(CosegError, match="not finite"):
        Pool(1).add(torch.tensor([[float("nan")]]))


# Groups


@pytest.mark.parametrize("how", ["mean", "min"])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_stream_gives_the_masks_of_the_whole_group_in_memory(photos, how, batch):
    model = TinyContext()
    masks = list(segment_group(model, photos, how, batch=batch))
    assert [m.shape for m in masks] == [p.shape[-2:] for p in photos]
    assert {m.dtype for m in masks} == {torch.uint8}
    for mask, plain in zip(masks, plain_masks(model, photos, how), strict=True):
        assert (mask != plain).float().mean() < 0.002  # bilinear ties, but for rounding
    assert 0.05 < torch.cat([m.flatten().float() for m in masks]).mean() < 0.95


def test_mean_and_minimum_give_different_masks(photos):
    mean, minimum = (list(segment_group(TinyContext(), photos, how)) for how in ("mean", "min"))
    assert any(not torch.equal(a, b) for a, b in zip(mean, minimum, strict=True))


@pytest.mark.parametrize("how", ["mean", "min"])
def test_permuting_the_group_permutes_the_masks(photos, how):
    order = [3, 0, 6, 2, 5, 1, 4]
    masks = list(segment_group(TinyContext(), photos, how, batch=2))
    permuted = list(segment_group(TinyContext(), [photos[i] for i in order], how, batch=2))
    assert all(torch.equal(permuted[k], masks[i]) for k, i in enumerate(order))


@pytest.mark.parametrize("method", ["ca", "fca", "csa"])
def test_the_papers_models_stream_as_in_memory(tiny, photos, method):
    model = tiny(method, "workbook")
    for mask, plain in zip(segment_group(model, photos[:3]), plain_masks(model, photos[:3]), strict=True):
        assert (mask != plain).float().mean() < 0.01


def test_a_group_of_one_is_attended_by_itself(photos):
    model = TinyContext()
    (mask,) = segment_group(model, photos[:1])
    assert (mask != plain_masks(model, photos[:1])[0]).float().mean() < 0.002


def test_a_given_context_is_used_and_one_pass_is_enough(photos):
    model = TinyContext()
    context = pooled_context(model, photos)
    alone = [mask for p in photos for mask in segment_group(model, [p], context=context)]
    assert all(torch.equal(a, b) for a, b in zip(alone, segment_group(model, photos, batch=1), strict=True))


def test_records_are_read_when_their_turn_comes_and_are_let_go(photos):
    read = []
    group = [Photo("test", str(i), (), lambda i=i: read.append(i) or photos[i]) for i in range(7)]
    next(segment_group(TinyContext(), group, batch=2))
    assert read == [0, 1, 2, 3, 4, 5, 6]  # few photographs are read once
    read.clear()
    masks = segment_group(TinyContext(), group * 10, batch=2, memory=Memory(0))
    next(masks)
    assert read[:72] == [0, 1, 2, 3, 4, 5, 6] * 10 + [0, 1]
    time.sleep(0.2)
    assert len(read) <= 70 + BATCH + 4  # of many, no more than the answers waiting for their turn are held
    masks.close()
    assert len(read) < 140


def test_an_iterator_is_refused_since_a_group_is_read_twice(photos):
    with pytest.raises(CosegError, match="read twice"):
        list(segment_group(TinyContext(), iter(photos)))


def test_an_empty_group_has_no_masks_and_no_context():
    assert list(segment_group(TinyContext(), [])) == []
    with pytest.raises(CosegError, match="at least one"):
        pooled_context(TinyContext(), [])


def test_a_model_of_an_unknown_kind_is_refused(photos):
    model = TinyContext()
    model.kind = "oracle"
    with pytest.raises(CosegError, match="oracle models"):
        list(segment_group(model, photos))


def test_bfloat16_is_not_left_switched_on_between_masks(photos):
    model = TinyContext()
    model.precision = "bf16-mixed"
    for mask in segment_group(model, photos):
        assert not torch.is_autocast_enabled("cpu") and mask.dtype == torch.uint8
