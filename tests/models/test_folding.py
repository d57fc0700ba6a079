"""Folded batch norms give the answers of those that were not folded."""

import copy

import pytest
import torch
from torch import nn

from coseglib.models import build_model
from coseglib.models.folding import fold


def _with_statistics(model: nn.Module) -> nn.Module:
    """Norms that have seen something: those of a new model hardly do anything."""
    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.bias):
            tensor.data.uniform_(-0.3, 0.3, generator=generator)
        for tensor in (norm.running_var, norm.weight):
            tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet10", "resnet50", "hrnet_w18"])
@torch.no_grad()
def test_a_folded_model_answers_as_before_and_has_fewer_norms(backbone):
    model = _with_statistics(build_model("ca", backbone, "workbook", 64, weights=None))
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    folded = fold(copy.deepcopy(model))
    left = sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert left <= 0.1 * norms, (left, norms)
    images = torch.rand(1, 2, 3, 64, 64)
    want = model(images).logits
    torch.testing.assert_close(folded(images).logits, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


@torch.no_grad()
def test_a_norm_is_folded_into_the_convolution_before_it_alone():
    before = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
    before = _with_statistics(before)
    after = fold(copy.deepcopy(before))
    assert [type(m).__name__ for m in after] == ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d", "Identity"]
    x = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(after(x), before(x))


@torch.no_grad()
def test_an_encoder_that_is_called_twice_is_folded_once():
    encoder = _with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded = fold(copy.deepcopy(encoder))
    x, y = torch.rand(2, 1, 3, 9, 9)
    torch.testing.assert_close(folded(x) - folded(y), encoder(x) - encoder(y))
