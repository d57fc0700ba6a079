"""What one position meets in another image, against plain loops."""

import pytest
import torch
from torch.nn import functional as F

from coseglib.core.errors import CosegError
from coseglib.layers.depthwise_correlation import depthwise_correlation
from coseglib.models.dual_cross import correlation_of


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_what_pfcc_matches_is_the_share_of_one_position_in_all_correlations(awake, images, normalise):
    """All features but the position's put to 0, correlated cell by cell of the kernel: sums over all outputs."""
    model = awake("pfcc", kernels=(3,), normalise=normalise)
    at, (row, column) = (0.3, 0.99), (1, 3)  # on maps of 4 × 4
    base, other = model.encode(images[:1])[-1], model.encode(images[1:2])[-1]
    alone = torch.zeros_like(base)
    alone[:, :, row, column] = base[:, :, row, column]
    (kernel,) = model.pyramid(base, other)
    cells = torch.zeros(3, 3)
    for v in range(3):
        for u in range(3):
            one = torch.zeros_like(kernel)
            one[:, :, v, u] = kernel[:, :, v, u]
            cells[v, u] = depthwise_correlation(alone, one).mean(dim=1).sum()
    want = F.interpolate(cells[None, None], size=(4, 4), mode="bilinear")[0, 0]
    assert not cells[:, 0].any() and cells[:, 1:].any()  # at the right edge the kernel's left column never gets there
    torch.testing.assert_close(model.match(images[0], images[1], at), want, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_what_mutual_attention_matches_are_the_votes_that_decide_about_a(awake, images):
    model = awake("multiclass")
    found = model.match(images[0], images[1], (0.6, 0.2), 32)  # row 1, column 0 of 2 × 2
    layer, f = model.mutual_attention, model.encode(images[:2])[-1]
    q, k = layer.query(f[1:]), layer.key(f[:1])
    want = torch.zeros(2, 2)
    for y in range(2):
        for x in range(2):
            scores = [torch.exp(q[0, :, y, x] @ k[0, :, r, s]) for r in range(2) for s in range(2)]
            want[y, x] = scores[2] / sum(scores)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-5)
    a = model(images[None, :2]).extra("foreground")[0, 0, 1, 0]
    torch.testing.assert_close(torch.sigmoid(found.sum() / 2), a)  # σ(v / √M), M = 4


@torch.no_grad()
def test_what_dcnet_matches_sums_to_1_and_is_the_finest_map_unless_told(awake, images):
    model = awake("dcnet", "workbook")
    found = model.match(images[0], images[1], (0.5, 0.5))
    assert found.shape == (8, 8) and model.match(images[0], images[1], (0.5, 0.5), 16).shape == (4, 4)
    assert float(found.sum()) == pytest.approx(1, rel=1e-4)
    want = correlation_of(model, model.encode(images[:1]), model.encode(images[1:2]), (4, 4), 8)
    torch.testing.assert_close(found, want[0])


def test_models_that_match_nothing_and_places_that_are_not_there_are_refused(awake, images):
    for model in (awake("ca"), awake("ssnm"), awake("pfcc", kernels=()), awake("multiclass", mutual_attention=False)):
        with pytest.raises(CosegError, match=r"compares no positions.*pfcc, dcnet, multiclass do"):
            model.match(images[0], images[1], (0, 0))
    with pytest.raises(ValueError, match="stride 8: PFCC matches at 16"):
        awake("pfcc").match(images[0], images[1], (0, 0), 8)
    with pytest.raises(ValueError, match="shares of height and width"):
        awake("pfcc").match(images[0], images[1], (0, 1.0))
