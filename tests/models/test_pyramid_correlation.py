import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from coseglib.layers.depthwise_correlation import depthwise_correlation, normalise_channels
from coseglib.models.backbones import build_backbone
from coseglib.models.losses import foreground_dice
from coseglib.models.pyramid_correlation import PFCC, dilate

VARIANTS = PFCC.VARIANTS
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def build():
    """A function (variant, backbone, options) -> a small model in evaluation mode, whose features are of order 1.

    The random weights' batch normalisation gets its statistics from noise; untrained ones flatten all to nearly 0.
    """

    def make(variant: str = "paper", backbone: str = "mobilenet_v2", **options) -> PFCC:
        torch.manual_seed(0)
        origin = "tf-slim" if backbone == "mobilenet_v2" else None
        model = PFCC(build_backbone(backbone, None, origin=origin), variant, 64, **{"width": 16, **options}).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            model(torch.rand(2, 2, 3, 64, 64))
        return model.eval()

    return make


def _images(*shape):
    return torch.rand(*shape, 3, 64, 64, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


# ---- equations -------------------------------------------------------------------------------------------------------


def _resized(map_, k):
    """φ(·; k) by loops: bilinear, pixel centres at halves. (h, w) -> (k, k)."""
    h, w = map_.shape
    out = np.zeros((k, k))
    for i, j in itertools.product(range(k), range(k)):
        y, x = min(max((i + 0.5) * h / k - 0.5, 0), h - 1), min(max((j + 0.5) * w / k - 0.5, 0), w - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
        above = map_[y0, x0] * (x0 + 1 - x) + map_[y0, x1] * (x - x0)
        below = map_[y1, x0] * (x0 + 1 - x) + map_[y1, x1] * (x - x0)
        out[i, j] = above * (y0 + 1 - y) + below * (y - y0)
    return out


def _slid(kernel, base):
    """kernel ⊗ base by loops, zeros outside. (k, k), (h, w) -> (h, w)."""
    k, (h, w) = len(kernel), base.shape
    out = np.zeros((h, w))
    for y, x, u, v in itertools.product(range(h), range(w), range(k), range(k)):
        p, q = y + u - k // 2, x + v - k // 2
        if 0 <= p < h and 0 <= q < w:
            out[y, x] += kernel[u, v] * base[p, q]
    return out


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_the_decoder_gets_the_loops_of_eqs_1_to_4_beside_f(build, normalise):
    """Maps of 9 × 10 for the query and 8 × 11 for the answer; kernels 3, 5, and 11, of which 7 is left."""
    model = build(kernels=(3, 5, 11), normalise=normalise, width=3)
    c = model.phi1.in_channels
    torch.manual_seed(1)
    f_a, f_b = torch.randn(1, c, 9, 10), torch.randn(1, c, 8, 11)

    def linear(layer, f):
        w, b = layer.weight[:, :, 0, 0].double().numpy(), layer.bias.double().numpy()
        return np.tensordot(w, f, 1) + b[:, None, None]

    base, other = (linear(model.phi1, f[0].double().numpy()) for f in (f_a, f_b))  # eq. (1)
    mean = np.zeros_like(base)
    for channel, k in itertools.product(range(3), (3, 5, 7)):
        s = _resized(other[channel], k)  # eq. (2)
        mean[channel] += _slid(s / np.sqrt((s**2).sum()) if normalise else s, base[channel]) / 3  # eq. (3)
    fused = np.maximum(linear(model.phi2, mean), 0)  # eq. (4)
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    out = model.answer([f_a, model.phi1(f_a)], [f_b, model.phi1(f_b)])
    want = torch.cat([torch.from_numpy(fused).float()[None], f_a], dim=1)  # [F_A, f_A]
    torch.testing.assert_close(seen[0], want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.extra("fused"), want[:, :3], rtol=1e-5, atol=1e-5)
    assert out.logits.shape == (1, 2, 9 * 16, 10 * 16)


@torch.no_grad()
def test_the_correlation_extra_is_each_kernels_mean_over_the_channels(build):
    model = build(kernels=(1, 3))
    maps = model.encode(_images(2))
    query, answer = [m[:1] for m in maps], [m[1:] for m in maps]
    found = model.answer(query, answer).extra("correlation")
    for i, k in enumerate((1, 3)):
        s = normalise_channels(F.interpolate(answer[-1], size=(k, k), mode="bilinear"))
        torch.testing.assert_close(found[:, i], depthwise_correlation(query[-1], s).mean(dim=1))


@torch.no_grad()
@pytest.mark.parametrize(("backbone", "origin"), [("resnet18", None), ("resnet50", None), ("resnet50", "caffe-v1")])
def test_every_second_position_of_the_dilated_stage_is_the_strided_stages(backbone, origin):
    """Wherever the stride was: in the 3×3 convolution, or as in Caffe's weights in the 1×1 before it."""
    torch.manual_seed(2)
    net = build_backbone(backbone, None, origin=origin)
    stage = net.stages[-1].eval()
    x = torch.rand(1, net.channels[-2], 6, 4)
    strided = stage(x)
    dilate(stage)
    dilated = stage(x)
    assert dilated.shape[-2:] == (6, 4)
    torch.testing.assert_close(dilated[..., ::2, ::2], strided)


@torch.no_grad()
def test_f_is_the_dilated_map_of_a_resnet_and_two_joined_maps_of_other_backbones(build):
    resnet, mobilenet = build(backbone="resnet18"), build()
    images = _images(2)
    f = resnet.encode(images)[0]
    assert f.shape == (2, 512, 4, 4) and resnet.backbone.strides == (2, 4, 8, 16, 16)
    pyramid = mobilenet.backbone(images)
    f = mobilenet.encode(images)[0]
    torch.testing.assert_close(f[:, :96], pyramid[3])
    torch.testing.assert_close(f[:, 96:], F.interpolate(pyramid[4], (4, 4), mode="bilinear"))
    assert build("workbook", "resnet18").backbone.strides == (2, 4, 8, 16, 32)


@torch.no_grad()
def test_the_workbooks_decoder_gets_the_correlation_at_stride_16_and_plain_maps_elsewhere(build):
    model, images = build("workbook"), _images(1, 2)
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, args: seen.extend(args[0]))
    fused = model(images).extra("fused")[0]
    f4, f8, f16, f32 = model.backbone(images[0])[1:]
    for found, want in zip(seen, (f32, torch.cat([fused, f16], dim=1), f8, f4), strict=True):
        torch.testing.assert_close(found, want)


# ---- pairs and groups ------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_swapping_the_pair_swaps_the_masks_and_the_partner_matters(build, variant):
    model, pair = build(variant), _images(1, 2)
    found = model(pair).logits
    torch.testing.assert_close(found.flip(1), model(pair.flip(1)).logits, **CLOSE)
    other = model(torch.stack([pair[:, 0], _images(1, 3)[:, 2]], dim=1)).logits
    assert (other[:, 0] - found[:, 0]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_a_group_permutes_the_masks_and_the_extras(build, variant):
    model, group, order = build(variant), _images(1, 4), [2, 0, 3, 1]
    one, two = model(group), model(group[:, order])
    torch.testing.assert_close(one.logits[:, order], two.logits, **CLOSE)
    for name in PFCC.EXTRAS:
        torch.testing.assert_close(one.extra(name)[:, order], two.extra(name), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_groups_of_any_number_are_the_mean_probabilities_of_their_pairs(build, n):
    model, group = build(), _images(2, n)
    found = model(group)
    assert found.logits.shape == (2, n, 2, 64, 64) and found.logits.dtype == torch.float32
    b, i = 1, n - 1
    maps = model.encode(group[b])
    partners = [j for j in range(n) if j != i] or [i]
    answers = [model.answer([m[i : i + 1] for m in maps], [m[j : j + 1] for m in maps]) for j in partners]
    mean = sum(a.logits[0].softmax(dim=0) for a in answers) / len(answers)
    torch.testing.assert_close(found.logits[b, i].softmax(dim=0), mean, **CLOSE)
    want = sum(a.extra("correlation")[0] for a in answers) / len(answers)
    torch.testing.assert_close(found.extra("correlation")[b, i], want, **CLOSE)


@torch.no_grad()
def test_weights_say_whose_answer_an_image_gets(build):
    model, group = build(), _images(1, 3)
    maps = model.encode(group[0])
    ring = torch.tensor([[[0, 1, 0], [0, 0, 1], [1, 0, 0.0]]])
    answers = model.answer(maps, [m[[1, 2, 0]] for m in maps])
    torch.testing.assert_close(model(group, ring).logits[0], answers.logits, **CLOSE)
    mixed = torch.tensor([[[0.25, 0.75, 0], [0, 0, 1], [1, 0, 0.0]]])
    itself = model.answer([maps[0][:1], maps[1][:1]], [maps[1][:1]])
    want = 0.25 * itself.logits[0].softmax(0) + 0.75 * answers.logits[0].softmax(0)
    torch.testing.assert_close(model(group, mixed).logits[0, 0].softmax(0), want, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_paired_with_itself_answers_twice_as_when_alone(build, variant):
    model, image = build(variant), _images(1, 1)
    twice = model(image.expand(1, 2, 3, 64, 64)).logits
    torch.testing.assert_close(twice[:, 0], twice[:, 1])
    torch.testing.assert_close(twice[:, :1], model(image).logits, **CLOSE)


def test_features_are_computed_once_an_image(build):
    model, seen = build(), []
    model.backbone.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    with torch.no_grad():
        model(_images(1, 5))
    assert seen == [5]


@torch.no_grad()
def test_the_query_and_the_answer_may_differ_in_size(build):
    for variant in VARIANTS:
        model = build(variant)
        torch.manual_seed(3)
        wide, tall = model.encode(torch.rand(1, 3, 64, 96)), model.encode(torch.rand(1, 3, 128, 32))
        assert model.answer(wide, tall).logits.shape == (1, 2, 64, 96)
        assert model.answer(tall, wide).logits.shape == (1, 2, 128, 32)


# ---- ablations -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_kernels_no_image_hears_of_its_partner(build, variant):
    model, group = build(variant, kernels=()), _images(1, 3)
    assert not any("phi" in name for name, _ in model.named_parameters())
    if model.attended_channels:  # its context does hear of it
        return
    one, two = model(group[:, :2]), model(group[:, ::2])
    torch.testing.assert_close(one.logits[:, 0], two.logits[:, 0])
    assert one.extra("correlation").shape == (1, 2, 0, 4, 4) and one.extra("fused").shape == (1, 2, 0, 4, 4)


@torch.no_grad()
def test_kernel_sets_differ_where_they_fit_and_coincide_where_they_are_clamped(build):
    model = build()
    torch.manual_seed(4)
    for size, differ in (((4, 4), False), ((20, 20), True)):
        base, answer = torch.randn(2, 1, 16, *size).unbind(0)
        fused = []
        for model.kernels in ((11,), (15,), (11, 15, 19)):
            sides = [s.shape[-1] for s in model.pyramid(base, answer)]
            assert sides == ([*model.kernels] if differ else [3] * len(model.kernels))
            fused.append(model.answer([torch.zeros(1, 416, *size), base], [answer]).extra("fused"))
        assert all(torch.allclose(fused[0], other, 1e-4, 1e-5) != differ for other in fused[1:])


@torch.no_grad()
def test_l2_normalisation_makes_the_answers_scale_irrelevant(build):
    for normalise in (True, False):
        model = build(normalise=normalise)
        maps = model.encode(_images(2))
        query, answer = [m[:1] for m in maps], maps[-1][1:]
        one, two = (model.answer(query, [scale * answer]).extra("fused") for scale in (1, 100))
        assert torch.allclose(one, two, 1e-4, 1e-4) == normalise


# ---- training and bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "backbone", "options"),
    [
        ("paper", "mobilenet_v2", {}),
        ("workbook", "mobilenet_v2", {}),
        ("paper", "resnet18", {}),
        ("paper", "mobilenet_v2", {"kernels": (), "normalise": False}),
        ("workbook", "mobilenet_v2", {"kernels": ()}),
    ],
)
def test_every_weight_is_trained(build, variant, backbone, options):
    model = build(variant, backbone, **options).train()
    targets = torch.randint(0, 2, (1, 2, 64, 64), dtype=torch.uint8)
    sum(model.loss(model(_images(1, 2)), targets, dice=0.5).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert not model.kernels or (model.phi1.weight.grad.abs().max() > 0 and model.phi2.weight.grad.abs().max() > 0)


def test_the_loss_is_cross_entropy_and_the_callers_share_of_dice(build):
    model = build()
    output = model(_images(1, 2))
    targets = torch.randint(0, 2, (1, 2, 64, 64), dtype=torch.uint8)
    targets[..., :9] = 255
    log_p = output.logits.log_softmax(dim=2)
    kept = [log_p[0, i, int(targets[0, i, y, x]), y, x] for i in (0, 1) for y in range(64) for x in range(9, 64)]
    terms = model.loss(output, targets)
    assert list(terms) == ["cross_entropy"]
    torch.testing.assert_close(terms["cross_entropy"], -torch.stack(kept).mean())
    terms = model.loss(output, targets, dice=0.5)
    torch.testing.assert_close(terms["foreground_dice"], 0.5 * foreground_dice(output.logits, targets))


def test_groups_of_one_and_three_train(build):
    for n in (1, 3):
        model = build().train()
        output = model(_images(1, n))
        sum(model.loss(output, torch.ones(1, n, 64, 64, dtype=torch.uint8)).values()).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_constant_images_give_finite_logits_and_gradients(build, variant, normalise):
    model = build(variant, normalise=normalise)
    for value in (0.0, 1.0):
        logits = model(torch.full((1, 2, 3, 64, 64), value)).logits
        logits.mean().backward()
        assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_an_answer_of_zeros_gives_finite_logits_and_gradients(build):
    model = build()
    maps = model.encode(_images(1))
    zeros = torch.zeros_like(maps[-1]).requires_grad_()
    out = model.answer(maps, [zeros])
    out.logits.mean().backward()
    assert out.logits.isfinite().all() and zeros.grad.isfinite().all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_gives_finite_float32_logits_near_the_full_ones(build, variant, kind):
    model, group = build(variant), _images(1, 3)
    with torch.no_grad(), torch.autocast("cpu", kind):
        found = model(group)
    assert found.logits.dtype == torch.float32 and all(found.extra(e).isfinite().all() for e in found.extras)
    with torch.no_grad():
        full = model(group)
    assert (found.logits.softmax(2) - full.logits.softmax(2)).abs().mean() < 0.05


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_images_need_not_be_square_but_their_sides_are_multiples_of_32(build, variant):
    model = build(variant)
    assert model(torch.rand(1, 2, 3, 96, 64)).logits.shape == (1, 2, 2, 96, 64)
    with pytest.raises(ValueError, match="multiples of 32"):
        model(torch.rand(1, 2, 3, 60, 64))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"variant": "papers"}, "one of paper, workbook"),
        ({"input_size": 100}, "multiple of 32"),
        ({"kernels": (11, 14)}, "each odd"),
        ({"kernels": (-3,)}, "each odd"),
        ({"kernels": 11}, "each odd"),
        ({"normalise": 1}, "true or false"),
        ({"width": 0}, "1 or more"),
    ],
)
def test_bad_values_are_refused_in_one_line(given, said):
    with pytest.raises(ValueError, match=said) as refused:
        PFCC(build_backbone("mobilenet_v2", None), **given)
    assert "\n" not in str(refused.value)


# ---- context and comparison ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_with_context_the_answers_channel_attention_attends_the_querys_maps(build):
    """By hand from the maps: alpha = σ(layers of the pooled embedding) of the answer at strides 32, 16, 8."""
    model, images = build("workbook-context"), _images(2)
    maps = model.encode(images)
    found = model.answer([m[:1] for m in maps], [m[1:] for m in model.reference_maps(maps)])
    pyramid = model.backbone(images)
    pooled = model.backbone.embed(pyramid[-1])[1:].mean(dim=(2, 3))
    alphas = [torch.sigmoid(layer(pooled))[0] for layer in model.attention_layers]
    beside = []
    for alpha, f in zip(alphas, pyramid[:1:-1], strict=True):
        attended = torch.stack([a * channel for a, channel in zip(alpha, f[0], strict=True)])
        beside.append(torch.cat([attended[None], f[:1]], dim=1))
    beside[1] = torch.cat([beside[1][:, : alphas[1].numel()], found.extra("fused"), pyramid[3][:1]], dim=1)
    torch.testing.assert_close(found.logits, model.decoder([*beside, pyramid[1][:1]]), **CLOSE)


@torch.no_grad()
def test_context_counts_beside_comparison_in_the_path_that_training_takes(build):
    model, images = build("workbook-context"), _images(1, 3)
    one = model(images[:, :2]).logits[:, 0]
    for layer in model.attention_layers.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.mul_(-1)
    assert not torch.allclose(model(images[:, :2]).logits[:, 0], one, atol=1e-4)
