import sys

import numpy as np
import pytest
import torch
from tiny_models import TinyContext
from torch.nn import functional as F

from coseglib.answering.crf import (
    CONTOUR,
    CRF,
    argmax_labels,
    crf_labels,
    enlarged,
    marginals,
    normalised,
    refined,
    unary,
)
from coseglib.answering.masks import decide, masks_from_logits, post_of
from coseglib.answering.reading import Picture
from coseglib.core.errors import CosegError

NO_PAIRS = CRF(smooth_weight=0, bilateral_weight=0)


@pytest.fixture
def halves():
    """An image (3, 24, 36), dark on the left, bright from column 12 on, and two maps that part at column 18."""
    image = torch.full((3, 24, 36), 40, dtype=torch.uint8)
    image[:, :, 12:] = 200
    right = torch.sigmoid((torch.arange(36.0) - 17.5) / 6).expand(24, 36)
    return image, torch.stack([1 - right, right])


def test_each_map_is_stretched_to_its_range_eq_8():
    torch.manual_seed(0)
    maps = torch.rand(3, 4, 5)
    for k, map_ in enumerate(normalised(maps)):
        low, high = min(maps[k].flatten().tolist()), max(maps[k].flatten().tolist())
        for y in range(4):
            for x in range(5):
                assert float(map_[y, x]) == pytest.approx((float(maps[k, y, x]) - low) / (high - low), abs=1e-6)


def test_a_constant_map_stays_as_it_is():
    maps = torch.stack([torch.full((3, 4), 0.7), torch.linspace(0.1, 0.3, 12).reshape(3, 4), torch.zeros(3, 4)])
    found = normalised(maps)
    torch.testing.assert_close(found[[0, 2]], maps[[0, 2]])
    assert float(found[1].min()) == 0 and float(found[1].max()) == pytest.approx(1)
    assert bool(normalised(torch.full((3, 4, 4), 1 / 3)).isfinite().all())


def test_argmax_takes_the_largest_normalised_map_and_the_lower_label_of_equals_eq_9():
    torch.manual_seed(1)
    maps = torch.rand(4, 6, 7)
    torch.testing.assert_close(argmax_labels(maps), normalised(maps).argmax(0).to(torch.uint8))
    large = argmax_labels(maps, (15, 20))
    torch.testing.assert_close(large, enlarged(normalised(maps), (15, 20)).argmax(0).to(torch.uint8))
    assert int(argmax_labels(torch.full((3, 5, 5), 1 / 3)).sum()) == 0  # nothing is known: background


def test_a_faint_map_counts_as_much_as_a_strong_one():
    """Soft-max maps of small objects are faint; their range is what (8) restores."""
    maps = torch.stack([torch.full((1, 4), 0.8), torch.tensor([[0.0, 0.0, 0.05, 0.1]])])
    maps[0, 0, 0] = 0.9
    assert argmax_labels(maps).tolist() == [[0, 0, 1, 1]]


def test_unary_costs_are_minus_log_of_probabilities_that_sum_to_one_and_reach_the_certainty():
    torch.manual_seed(2)
    maps = torch.rand(3, 4, 5)
    maps[:, 0, 0] = torch.tensor([1.0, 0, 0])
    maps[:, 0, 1] = 0  # nobody claims this pixel
    costs = unary(maps, certainty=0.9)
    assert costs.shape == (3, 20) and costs.dtype == np.float32 and costs.flags.c_contiguous
    p = np.exp(-costs)
    np.testing.assert_allclose(p.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(p[:, 0], [0.9, 0.05, 0.05], rtol=1e-4)
    np.testing.assert_allclose(p[:, 1], 1 / 3, rtol=1e-5)
    assert p.max() == pytest.approx(0.9, rel=1e-5)


def test_without_pairs_the_crf_is_the_argmax(halves):
    image, maps = halves
    torch.testing.assert_close(crf_labels(image, maps, NO_PAIRS), argmax_labels(maps))


def test_labels_follow_the_edge_of_colours(halves):
    image, maps = halves
    assert int(argmax_labels(maps)[5].argmax()) == 18
    found = crf_labels(image, maps, CRF(bilateral_xy=20, bilateral_rgb=20))
    assert found.dtype == torch.uint8 and found.shape == (24, 36)
    assert (found == (torch.arange(36) >= 12).to(torch.uint8)).float().mean() > 0.98


def test_a_speck_vanishes():
    image = torch.full((3, 20, 20), 128, dtype=torch.uint8)
    maps = torch.stack([torch.full((20, 20), 0.6), torch.full((20, 20), 0.4)])
    maps[:, 9, 9] = torch.tensor([0.2, 0.8])
    assert int(argmax_labels(maps).sum()) == 1
    assert int(crf_labels(image, maps).sum()) == 0


def _mean_field(image, p, crf):
    """Mean-field by dense kernels, written out: Q ∝ exp(−unary + Σ weight · K Q), K symmetrically normalised."""
    _, h, w = image.shape
    y, x = np.divmod(np.arange(h * w), w)
    colour = image.reshape(3, -1).T.numpy().astype(float)
    near = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    alike = ((colour[:, None] - colour) ** 2).sum(-1)
    kernels = [
        (crf.smooth_weight, np.exp(-near / (2 * crf.smooth_xy**2))),
        (crf.bilateral_weight, np.exp(-near / (2 * crf.bilateral_xy**2) - alike / (2 * crf.bilateral_rgb**2))),
    ]
    log_p = np.log(p)
    q = p
    for _ in range(crf.steps):
        total = log_p.copy()
        for weight, kernel in kernels:
            norm = 1 / np.sqrt(kernel.sum(1))
            total += weight * (norm[:, None] * (kernel @ (norm[:, None] * q.T))).T
        q = np.exp(total - total.max(0))
        q = q / q.sum(0)
    return q.argmax(0).reshape(h, w)


def test_the_crf_agrees_with_dense_mean_field():
    """pydensecrf filters on a lattice; here all pairs of pixels are summed."""
    torch.manual_seed(3)
    image = torch.randint(0, 40, (3, 16, 20), dtype=torch.uint8)
    image[:, 4:12, 6:15] += 150
    maps = torch.rand(3, 16, 20)
    maps[1, 4:12, 6:15] += 0.6
    maps[2, :, 15:] += 0.5
    maps[0] += 0.3
    crf = CRF(bilateral_xy=15, bilateral_rgb=30)
    want = _mean_field(image, np.exp(-unary(normalised(maps), crf.certainty)).astype(float), crf)
    assert (crf_labels(image, maps, crf).numpy() == want).mean() > 0.95
    assert (argmax_labels(maps).numpy() == want).mean() < 0.9  # the two do not agree for want of work


@pytest.mark.parametrize("size", [(1, 9), (30, 7), (45, 60)])
def test_maps_of_any_size_give_labels_at_the_photographs_own(size):
    torch.manual_seed(4)
    image, maps = torch.randint(0, 256, (3, *size), dtype=torch.uint8), torch.rand(3, 8, 8)
    for post in ("argmax", "crf"):
        (found,) = decide(Picture(image, size), maps.log()[None], post, online=True)
        assert found.shape == size and found.dtype == torch.uint8 and int(found.max()) <= 2


def test_a_large_photograph_is_decided_on_a_smaller_copy(halves):
    image, maps = halves
    large = image.repeat_interleave(4, 1).repeat_interleave(4, 2)
    crf = CRF(bilateral_xy=20, bilateral_rgb=20, longest=36)
    found = crf_labels(large, maps, crf)
    assert found.shape == (96, 144)
    torch.testing.assert_close(found[::4, ::4], crf_labels(image, maps, crf))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_constant_images_constant_maps_and_half_precision_are_decided(dtype):
    image = torch.full((3, 10, 12), 77, dtype=torch.uint8)
    for maps in (torch.full((3, 4, 4), 1 / 3), torch.zeros(3, 4, 4), torch.eye(3)[0][:, None, None].expand(3, 4, 4)):
        maps = maps.to(dtype)
        assert int(argmax_labels(maps, (10, 12)).max()) == int(crf_labels(image, maps).max()) == 0
    one = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).to(dtype)
    assert int(crf_labels(image, one).min()) == 1


# One class ------------------------------------------------------------------------------------------------------------


def test_a_contour_is_what_pydensecrf_makes_of_the_soft_max():
    import pydensecrf.densecrf as densecrf
    from pydensecrf.utils import unary_from_softmax

    torch.manual_seed(5)
    picture, logits = torch.randint(0, 60, (3, 30, 44), dtype=torch.uint8), torch.randn(2, 8, 8)
    picture[:, 8:20, 10:30] += 120
    p = F.interpolate(logits.softmax(0)[None], size=(30, 44), mode="bilinear")[0]
    field = densecrf.DenseCRF2D(44, 30, 2)
    field.setUnaryEnergy(unary_from_softmax((0.98 * p + 0.01).numpy()))  # certainty .99
    field.addPairwiseBilateral(sxy=20, srgb=8, rgbim=picture.permute(1, 2, 0).contiguous().numpy(), compat=2)
    want = torch.from_numpy(np.array(field.inference(CONTOUR.steps))).reshape(2, 30, 44)
    torch.testing.assert_close(refined(picture, logits).exp(), want, rtol=0, atol=1e-4)
    mask = masks_from_logits(refined(picture, logits), (30, 44))
    assert (mask == want.argmax(0)).float().mean() > 0.999
    assert (mask != masks_from_logits(logits, (30, 44))).float().mean() > 0.02  # the two do not agree for want of work


def test_answers_about_one_photograph_share_its_prices_and_nothing_else():
    torch.manual_seed(8)
    picture, answers = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8), torch.randn(3, 2, 8, 8)
    together = refined(picture, torch.stack([*answers, answers[0]]))
    for found, logits in zip(together, (*answers, answers[0]), strict=True):
        torch.testing.assert_close(found, refined(picture, logits), rtol=0, atol=0)


def test_a_photograph_without_a_foreground_stays_without():
    """Eq. (8) would stretch its faint map to the whole range."""
    torch.manual_seed(6)
    picture, logits = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8), torch.randn(2, 8, 8)
    logits[1] -= 9
    assert masks_from_logits(refined(picture, logits), (30, 40)).sum() == 0
    assert crf_labels(picture, logits.softmax(0), CONTOUR).sum() > 0


def test_the_contour_of_a_large_photograph_is_no_staircase():
    """Decided on a smaller copy, read at the own size between the copy's pixels."""
    y, x = torch.meshgrid(torch.arange(1280.0), torch.arange(1280.0), indexing="ij")
    inside = (y - 640) ** 2 + (x - 640) ** 2 < 400**2
    picture = torch.where(inside, 220, 30).to(torch.uint8).expand(3, -1, -1)
    small = F.interpolate(inside[None, None].float(), size=(56, 56), mode="area")[0, 0]
    logits = torch.stack([0 * small, 8 * small - 4])
    found = refined(picture, logits)
    assert found.shape == (2, CONTOUR.longest, CONTOUR.longest)
    mask = masks_from_logits(found, (1280, 1280))
    blocks = mask.reshape(640, 2, 640, 2)
    assert (blocks.amin(dim=(1, 3)) != blocks.amax(dim=(1, 3))).sum() > 300  # pixels of one copy's pixel that differ
    assert (mask != inside).float().mean() < 0.003


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 1600), (1600, 1)])
def test_the_smallest_and_the_narrowest_photographs_have_a_contour_too(size):
    torch.manual_seed(7)
    found = refined(torch.randint(0, 256, (3, *size), dtype=torch.uint8), torch.randn(2, 16, 16))
    assert bool(found.isfinite().all())
    assert masks_from_logits(found, size).shape == size


def test_marginals_are_probabilities(halves):
    image, maps = halves
    found = marginals(image, maps, CONTOUR)
    assert found.shape == (2, 24, 36) and found.min() >= 0
    torch.testing.assert_close(found.sum(0), torch.ones(24, 36))


def test_the_model_says_how_maps_become_masks_unless_the_caller_does(monkeypatch):
    model = TinyContext()
    assert post_of(model) == "argmax" and post_of(model, "crf") == "crf"
    model.post = "crf"
    assert post_of(model) == "crf" and post_of(model, "argmax") == "argmax"
    with pytest.raises(CosegError, match="post = best: one of argmax, crf"):
        post_of(model, "best")
    monkeypatch.setattr("coseglib.answering.crf.crf_installed", lambda: False)
    assert post_of(model) == "argmax"  # a checkpoint that wishes for the CRF is used without
    assert post_of(model, "crf") == "crf"  # who asks for it is told, when it is missing


def test_a_missing_pydensecrf_is_one_line_that_says_what_to_do(monkeypatch, halves):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(CosegError, match=r"pip install pydensecrf2.* or take argmax") as error:
        crf_labels(*halves)
    assert "\n" not in str(error.value)
    argmax_labels(halves[1], (24, 36))


def test_parameters_that_make_no_sense_are_refused(halves):
    for wrong in ({"smooth_xy": 0}, {"bilateral_weight": -1}, {"certainty": 1.0}, {"longest": 0}):
        with pytest.raises(CosegError, match=next(iter(wrong))):
            CRF(**wrong)
    with pytest.raises(ValueError, match="uint8"):
        crf_labels(halves[0].float(), halves[1])
