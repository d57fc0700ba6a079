import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from coseglib.core.paths import REPOSITORY
from coseglib.layers.depthwise_correlation import (
    depthwise_correlation,
    merge_kernels,
    normalise_channels,
    peaks,
)
from coseglib.models.pyramid_correlation import fitting_kernel


def _random(*shape, kind=torch.float32):
    return torch.randn(*shape, dtype=kind, generator=torch.Generator().manual_seed(sum(shape)))


def _loops(base, kernels, grad):
    """The correlation and both gradients by nested loops, float64: value, base's, kernels'."""
    base, kernels, grad = (t.detach().double().numpy() for t in (base, kernels, grad))
    value, to_base, to_kernels = np.zeros_like(base), np.zeros_like(base), np.zeros_like(kernels)
    b, c, h, w = base.shape
    k = kernels.shape[-1]
    for n, d, y, x, u, v in itertools.product(*map(range, (b, c, h, w, k, k))):
        p, q = y + u - k // 2, x + v - k // 2
        if 0 <= p < h and 0 <= q < w:
            value[n, d, y, x] += kernels[n, d, u, v] * base[n, d, p, q]
            to_base[n, d, p, q] += kernels[n, d, u, v] * grad[n, d, y, x]
            to_kernels[n, d, u, v] += base[n, d, p, q] * grad[n, d, y, x]
    return [torch.from_numpy(t) for t in (value, to_base, to_kernels)]


@pytest.mark.parametrize("k", [1, 3, 5, 9])
@pytest.mark.parametrize("size", [(5, 7), (6, 4)])
def test_values_and_gradients_equal_nested_loops(size, k):
    base, kernels, grad = _random(2, 2, *size), _random(2, 2, k, k), _random(2, 2, *size) + 1
    base.requires_grad_(), kernels.requires_grad_()
    found = depthwise_correlation(base, kernels)
    found.backward(grad)
    for ours, loops in zip((found, base.grad, kernels.grad), _loops(base, kernels, grad), strict=True):
        torch.testing.assert_close(ours.double(), loops, rtol=1e-5, atol=1e-5)


def test_the_papers_kernels_equal_one_convolution_an_image():
    """k = 11, 15, 19 on maps of 33 × 32: torch's own convolution and its own gradients, image by image."""
    for k in (11, 15, 19):
        base, kernels, grad = _random(2, 3, 33, 32), normalise_channels(_random(2, 3, k, k)), _random(2, 3, 32, 33).mT
        base.requires_grad_(), kernels.requires_grad_()
        depthwise_correlation(base, kernels).backward(grad)
        one = base.detach().double().requires_grad_(), kernels.detach().double().requires_grad_()
        want = [F.conv2d(f[None], s[:, None], padding=k // 2, groups=3) for f, s in zip(*one, strict=True)]
        torch.cat(want).backward(grad.double())
        torch.testing.assert_close(depthwise_correlation(base, kernels).double(), torch.cat(want), rtol=0, atol=1e-5)
        torch.testing.assert_close(base.grad.double(), one[0].grad, rtol=0, atol=1e-5)
        torch.testing.assert_close(kernels.grad.double(), one[1].grad, rtol=1e-5, atol=1e-4)  # sums of 1,056 products


@pytest.mark.parametrize("k", [3, 7])
def test_gradients_are_those_of_finite_differences(k):
    base, kernels = _random(2, 1, 4, 5, kind=torch.float64), _random(2, 1, k, k, kind=torch.float64)
    assert torch.autograd.gradcheck(depthwise_correlation, (base.requires_grad_(), kernels.requires_grad_()))


def test_the_whole_batch_is_one_convolution(monkeypatch):
    calls = []
    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *a, **k: calls.append(k["groups"]) or convolve(*a, **k))
    depthwise_correlation(_random(5, 4, 6, 6), _random(5, 4, 3, 3))
    assert calls == [20]


def test_memory_layout_does_not_change_the_result():
    base, kernels = _random(2, 3, 6, 5), _random(2, 3, 3, 3)
    want = depthwise_correlation(base, kernels)
    turned = base.mT.contiguous().mT, kernels.mT.contiguous().mT
    last = base.contiguous(memory_format=torch.channels_last), kernels.contiguous(memory_format=torch.channels_last)
    for layout in (turned, last):
        torch.testing.assert_close(depthwise_correlation(*layout), want)


def test_an_image_meets_its_own_kernel_only():
    base, kernels = _random(3, 2, 5, 5), _random(3, 2, 3, 3)
    before = depthwise_correlation(base, kernels)
    kernels[1] += 1
    after = depthwise_correlation(base, kernels)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_under_autocast_the_sums_are_float32(kind):
    base, kernels = _random(1, 2, 8, 8).to(kind), _random(1, 2, 5, 5).to(kind)
    with torch.autocast("cpu", kind):
        found = depthwise_correlation(base, kernels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, depthwise_correlation(base.float(), kernels.float()))


def test_kernels_that_do_not_fit_are_refused():
    base = _random(2, 3, 6, 6)
    with pytest.raises(ValueError, match="must be odd"):
        depthwise_correlation(base, _random(2, 3, 4, 4))
    for shape in ((1, 3, 3, 3), (2, 2, 3, 3), (2, 3, 3, 5)):
        with pytest.raises(ValueError, match=r"for \(B, C, H, W\)"):
            depthwise_correlation(base, _random(*shape))


def test_normalised_channels_have_length_1_whatever_their_scale():
    kernels = _random(2, 3, 5, 5)
    found = normalise_channels(kernels)
    torch.testing.assert_close(found.square().sum(dim=(-2, -1)), torch.ones(2, 3))
    scale = torch.tensor([1e-2, 1, 1e3])[None, :, None, None]
    torch.testing.assert_close(normalise_channels(scale * kernels), found)


def test_constant_and_zero_channels_are_normalised_without_nan():
    kernels = torch.stack([torch.zeros(3, 3), torch.full((3, 3), 7.0), torch.full((3, 3), -1e-12)])[None]
    kernels.requires_grad_()
    found = normalise_channels(kernels)
    found.sum().backward()
    assert found.isfinite().all() and kernels.grad.isfinite().all() and kernels.grad.abs().max() <= 1e5
    assert not found[0, 0].any()
    torch.testing.assert_close(found[0, 1], torch.full((3, 3), 1 / 3))


def test_the_merged_kernel_gives_the_mean_of_the_correlations():
    base, kernels = _random(2, 3, 9, 8), [_random(2, 3, k, k) for k in (3, 5, 9)]
    mean = sum(depthwise_correlation(base, k) for k in kernels) / 3
    torch.testing.assert_close(depthwise_correlation(base, merge_kernels(kernels)), mean, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="common centre"):
        merge_kernels([_random(1, 1, 3, 3), _random(1, 1, 4, 4)])


def test_a_kernel_is_the_largest_odd_one_that_fits():
    for k, maps, want in [
        (11, [(33, 33)], 11),
        (19, [(14, 14)], 13),
        (19, [(4, 4)], 3),
        (15, [(33, 9), (8, 40)], 7),
        (11, [(1, 5)], 1),
        (11, [(2, 2)], 1),
    ]:
        assert fitting_kernel(k, *(torch.zeros(1, 1, *size) for size in maps)) == want


def test_a_peak_is_the_centre_of_the_largest_cell_in_shares_of_the_sides():
    maps = torch.zeros(2, 4, 8)
    maps[0, 1, 6] = maps[1, 3, 0] = 1
    torch.testing.assert_close(peaks(maps), torch.tensor([[0.375, 0.8125], [0.875, 0.0625]]))


def test_the_correlation_peaks_where_the_pattern_lies_less_its_offset_in_the_kernel():
    """A pattern off the kernel's centre by (1, -2) is answered off its own centre in the map by (-1, 2)."""
    pattern = _random(3, 3)
    base, kernel = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 9, 9)
    base[0, 0, 7:10, 5:8] = pattern  # centre (8, 6)
    kernel[0, 0, 4:7, 1:4] = pattern  # centre (5, 2), the kernel's is (4, 4)
    found = peaks(depthwise_correlation(base, kernel))[0, 0] * 16 - 0.5
    assert found.tolist() == [8 - 1, 6 + 2]


def test_the_benchmarks_ways_agree(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from depthwise_correlation import WAYS, compare

    tensors = [_random(2, 3, 6, 5), _random(2, 3, 3, 3)]
    for way in WAYS.values():
        torch.testing.assert_close(way(*tensors), depthwise_correlation(*tensors), rtol=1e-5, atol=1e-5)
    assert [row["way"] for row in compare(WAYS, tensors, rounds=1)] == list(WAYS)
