"""Folded batch norms give the answers of those that were not folded."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coseglib.models import build_model, folding
from coseglib.models.backbones import SameConv2d
from coseglib.models.folding import fold, rounded


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
    folded, images = fold(copy.deepcopy(model)), torch.rand(1, 2, 3, 64, 64)
    (want, norms), (found, left) = _answer(model, images), _answer(folded, images)
    assert left <= 0.1 * norms, (left, norms)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


def _answer(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Logits, and how many norms took part."""
    called = []
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.register_forward_hook(lambda *_: called.append(1))
    return model(images).logits, len(called)


@torch.no_grad()
def test_a_norm_is_folded_into_the_convolution_before_it_alone():
    before = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
    before = _with_statistics(before)
    after = fold(copy.deepcopy(before))
    assert [type(m).__name__ for m in after] == ["Conv2d", "ReLU", "BatchNorm2d", "FoldedConv2d", "Identity"]
    x = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(after(x), before(x))


@pytest.mark.parametrize("size", [(8, 12), (9, 8)])  # TensorFlow pads even and odd maps differently
@pytest.mark.parametrize("relu", [nn.ReLU, nn.ReLU6, nn.Identity])
@pytest.mark.parametrize(
    ("kind", "stride", "groups"), [(nn.Conv2d, 1, 1), (SameConv2d, 2, 1), (SameConv2d, 2, 4), (nn.Conv2d, 2, 4)]
)
@pytest.mark.parametrize("onednn", [True, False])
@torch.no_grad()
def test_convolution_norm_and_relu_are_one(kind, stride, groups, relu, size, onednn):
    conv = kind(4, 8, 3, stride, 0 if kind is SameConv2d else 1, groups=groups)
    before = _with_statistics(nn.Sequential(conv, nn.BatchNorm2d(8), relu()))
    before[1].bias.data.uniform_(3, 8)  # so that some are above 6
    after, x = fold(copy.deepcopy(before)), 3 * torch.randn(2, 4, *size)
    with torch.backends.mkldnn.flags(enabled=onednn):
        torch.testing.assert_close(after(x), before(x))
        with torch.autocast("cpu", torch.bfloat16):
            found = after(x)
    assert found.dtype == torch.bfloat16
    step = 2.0**-7 * before(x).abs().max()  # of 16 bits, twice
    torch.testing.assert_close(found.float(), before(x), rtol=0, atol=2 * float(step))


@torch.no_grad()
def test_a_processor_without_16_bits_computes_in_them_all_the_same(monkeypatch):
    before = _with_statistics(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    after, x = fold(copy.deepcopy(before)), torch.randn(2, 4, 9, 9)
    monkeypatch.setattr(folding, "onednn_takes", lambda dtype: dtype == torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, want = after(x), before(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, want)


@torch.no_grad()
def test_in_16_bits_the_mean_of_many_outputs_is_not_moved():
    """A bias of eight bits would move the mean by up to 2⁻⁹ of it: here it is between two such numbers."""
    conv, norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
    norm.bias.data.fill_(4 + 2.0**-7)  # next to it 16 bits have 4 and 4.03125
    conv.weight.data = torch.eye(8)[..., None, None]
    folded, x = fold(nn.Sequential(conv, norm)), (torch.rand(1, 8, 64, 64) - 0.5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        moved = folded(x).float() - x.float()
    assert abs(float(moved.mean()) - (4 + 2.0**-7)) < 2.0**-9


def test_few_weights_are_rounded_so_that_their_sum_stays():
    weight = torch.randn(64, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    found = rounded(weight, torch.bfloat16)
    assert found.bfloat16().float().equal(found)
    assert ((found - weight).abs() <= 1.5 * 2.0**-7 * weight.abs()).all()  # half a step, and another one
    off, plain = ((w - weight).sum(dim=(1, 2, 3)).abs() for w in (found, weight.bfloat16().float()))
    assert plain.mean() > 10 * off.mean(), (plain.mean(), off.mean())


@pytest.mark.parametrize("trained_in", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_norm_finds_the_mean_that_it_learned_in_whatever_precision(trained_in):
    """Edge filters over bright images: the sum of nine roundings times the brightness is a constant to the norm."""
    generator = torch.Generator().manual_seed(0)
    conv, norm = nn.Conv2d(32, 32, 3, groups=32, bias=False), nn.BatchNorm2d(32, momentum=None)
    edges = torch.randn(32, 1, 3, 3, generator=generator)
    conv.weight.data = 0.2 * (edges - edges.mean(dim=(2, 3), keepdim=True))
    x = 1 + torch.rand(8, 32, 1, 1, generator=generator) + 0.1 * torch.rand(8, 32, 24, 24, generator=generator)
    net = nn.Sequential(conv, norm).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=trained_in == torch.bfloat16):
        net(x)

    def off(y):
        return float(y.mean(dim=(0, 2, 3)).abs().max())

    otherwise = torch.float32 if trained_in == torch.bfloat16 else torch.bfloat16
    assert off(fold(copy.deepcopy(net), otherwise)(x)) > 0.1
    folded = fold(copy.deepcopy(net), trained_in)
    assert off(folded(x)) < 0.04
    in_16_bits = folded[0]._kernel(torch.bfloat16).float()  # as oneDNN multiplies them
    assert off(F.conv2d(x, in_16_bits, folded[0].conv.bias, groups=32)) < 0.04


def test_what_is_folded_passes_gradients_to_its_input():
    before = _with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    after, x = fold(copy.deepcopy(before)), torch.rand(1, 3, 9, 9, requires_grad=True)
    (want,), (found,) = (torch.autograd.grad(net(x).square().sum(), x) for net in (before, after))
    torch.testing.assert_close(found, want)


@torch.no_grad()
def test_an_encoder_that_is_called_twice_is_folded_once():
    encoder = _with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded = fold(copy.deepcopy(encoder))
    x, y = torch.rand(2, 1, 3, 9, 9)
    torch.testing.assert_close(folded(x) - folded(y), encoder(x) - encoder(y))
