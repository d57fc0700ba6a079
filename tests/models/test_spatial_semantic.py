import math

import pytest
import torch
from torch.nn import functional as F

from coseglib.core.errors import CosegError
from coseglib.models.backbones import build_backbone
from coseglib.models.spatial_semantic import SSNM, SecondOrderPooling, balanced_cross_entropy, modulate, resized

VARIANTS = ("paper", "workbook")
L = 4


def _scenes(n: int, height: int = 64, width: int = 64, seed: int = 0):
    """(1, n, 3, height, width): soft blobs, so that maps differ from place to place and from image to image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[None]


def _build(variant="paper", backbone="mobilenet_v2", **options):
    torch.manual_seed(0)
    return SSNM(build_backbone(backbone, None, origin="tf-slim"), variant, 64, categories=L, width=16, **options)


@pytest.fixture(scope="module")
def settled():
    """A function (variant, **options) -> a model in evaluation mode whose batch normalisation has seen images.

    Untrained averages would flatten all features to nearly 0, and what holds for zeros proves nothing.
    """
    models = {}

    def make(variant="paper", **options):
        key = (variant, *options.items())
        if key not in models:
            model = _build(variant, **options)
            norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            for norm in norms:
                norm.momentum = 1.0
            with torch.no_grad():
                model.train()(_scenes(6))
            models[key] = model.eval()
        return models[key]

    return make


def _others(*rows):
    """Weights (1, N, N) from each image's list of partners, in equal parts."""
    weights = torch.zeros(1, len(rows), len(rows))
    for i, row in enumerate(rows):
        weights[0, i, row] = 1 / len(row)
    return weights


# The equations -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("stride", [8, 32])
def test_the_spatial_mask_is_the_dense_leading_eigenvector_eqs_2_and_10(settled, stride):
    model, images = settled(mask_stride=stride), _scenes(3)
    out = model(images)
    varphi = model.fused(model.backbone(images[0])[1:])  # (N, d, h, w)
    columns = []
    for image in varphi:
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                columns.append(image[:, y, x].double() / image[:, y, x].double().norm())
    x = torch.stack(columns, dim=1)
    values, vectors = torch.linalg.eigh(x.T @ x - torch.ones(x.shape[1], x.shape[1], dtype=x.dtype))
    s = out.extra("spatial")
    assert s.shape == (1, 3, 64 // stride, 64 // stride)
    assert (s.flatten().double() @ vectors[:, -1]).abs() > 0.9999
    torch.testing.assert_close(out.extra("eigenvalue")[0, 0].double(), values[-1], rtol=1e-4, atol=1e-4)
    assert (out.extra("points") == x.shape[1]).all()


@torch.no_grad()
def test_second_order_pooling_is_a_covariance_by_loops():
    torch.manual_seed(0)
    layer, f = SecondOrderPooling(5, 3, 4), torch.randn(5, 2, 3)
    w, b = layer.reduce.weight, layer.reduce.bias
    u = [[float(w[c] @ f[:, y, x] + b[c]) for y in range(2) for x in range(3)] for c in range(3)]
    mean = [sum(row) / 6 for row in u]
    covariance = [
        sum((u[i][p] - mean[i]) * (u[j][p] - mean[j]) for p in range(6)) / 6 for i in range(3) for j in range(3)
    ]
    torch.testing.assert_close(layer.covariance(f).flatten(), torch.tensor(covariance), rtol=1e-4, atol=1e-5)
    want = [float(layer.expand.weight[k] @ torch.tensor(covariance) + layer.expand.bias[k]) for k in range(4)]
    torch.testing.assert_close(layer(layer.covariance(f)), torch.tensor(want), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_gamma_is_a_second_pooling_of_the_images_poolings_eq_3(settled):
    model, images = settled(), _scenes(3)
    hsp, phi = model.pooling, model.backbone(images[0])[-1]
    vectors = [hsp.image(hsp.image.covariance(one)) for one in phi]  # N × d
    moment = torch.zeros(4, 4)
    for g in vectors:
        u = hsp.group.reduce.weight @ g + hsp.group.reduce.bias
        for i in range(4):
            for j in range(4):
                moment[i, j] += u[i] * u[j] / 3
    gamma = hsp.group.expand.weight @ moment.flatten() + hsp.group.expand.bias
    out = model(images)
    torch.testing.assert_close(out.extra("gamma"), gamma.expand(1, 3, -1), rtol=1e-3, atol=1e-4)
    scores = model.classifier.weight @ gamma + model.classifier.bias  # eq. (11), before the sigmoid
    torch.testing.assert_close(out.extra("scores"), scores.expand(1, 3, -1), rtol=1e-3, atol=1e-4)


def test_modulation_scales_every_channel_and_shifts_every_position_eq_5():
    torch.manual_seed(0)
    x, gamma, shift = torch.randn(2, 3, 4, 5), torch.randn(2, 3), torch.randn(2, 1, 4, 5)
    y = modulate(x, gamma, shift)
    for n in range(2):
        for c in range(3):
            torch.testing.assert_close(y[n, c], gamma[n, c] * x[n, c] + shift[n, 0])
    assert modulate(x, None, None) is x


@torch.no_grad()
def test_every_resolution_is_modulated_and_decoded_from_coarse_to_fine(settled):
    model, images = settled(), _scenes(2)
    out = model(images)
    s = math.sqrt(2 * 2 * 2) * out.extra("spatial")[0][:, None]  # S of two images of 2 × 2 positions
    top = None
    for f, lateral, step in zip(
        model.backbone(images[0])[:0:-1], reversed(model.laterals), [None, *model.decoder.steps], strict=True
    ):
        x = lateral(f)
        y = out.extra("gamma")[0][..., None, None] * x + F.interpolate(s, size=x.shape[-2:], mode="bilinear")
        top = y if top is None else y + F.interpolate(step(top), scale_factor=2, mode="bilinear")
    logits = F.interpolate(model.decoder.logits(model.decoder.conv(top)), scale_factor=4, mode="bilinear")
    torch.testing.assert_close(out.logits[0], logits, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_workbook_variant_decodes_modulated_beside_plain_maps(settled):
    model, images = settled("workbook"), _scenes(2)
    out = model(images)
    s = math.sqrt(2 * 8 * 8) * out.extra("spatial")[0][:, None]
    maps = []
    for f, lateral in zip(model.backbone(images[0])[1:], model.laterals, strict=True):
        size = tuple(f.shape[-2:])
        shift = F.interpolate(s, size, mode="bilinear") if size[0] > 8 else F.adaptive_avg_pool2d(s, size)
        maps.append(torch.cat([out.extra("gamma")[0][..., None, None] * lateral(f) + shift, f], dim=1))
    torch.testing.assert_close(out.logits[0], model.decoder(maps[::-1]), rtol=1e-3, atol=1e-4)


def test_maps_shrink_to_means_and_grow_bilinearly():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert resized(x, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resized(x, (4, 4)) is x
    torch.testing.assert_close(resized(x, (8, 8)), F.interpolate(x, scale_factor=2, mode="bilinear"))


# The losses ----------------------------------------------------------------------------------------------------------


def _loop_segmentation(logits, labels, balance):
    """Eq. (13) with its sign mended, image by image and pixel by pixel."""
    images = []
    for n in range(labels.shape[0]):
        pixels = [(i, j) for i in range(labels.shape[1]) for j in range(labels.shape[2]) if labels[n, i, j] != 255]
        delta = sum(int(labels[n, i, j] == 1) for i, j in pixels) / len(pixels)
        total = 0.0
        for i, j in pixels:
            p = 1 / (1 + math.exp(float(logits[n, 0, i, j] - logits[n, 1, i, j])))
            positive, negative = {
                "paper": (delta, 1 - delta),
                "inverse": (1 - delta, delta) if 0 < delta < 1 else (0.5, 0.5),
                "none": (1, 1),
            }[balance]
            total -= positive * math.log(p) if labels[n, i, j] == 1 else negative * math.log(1 - p)
        images.append(total / len(pixels))
    return sum(images) / len(images)


@pytest.mark.parametrize("balance", ["paper", "inverse", "none"])
def test_the_segmentation_loss_equals_a_loop_in_every_balance_eq_13(balance):
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 2, 3, 5), (torch.rand(4, 3, 5) < 0.3).byte()
    labels[0, 0, :3], labels[1], labels[2] = 255, 0, 1
    assert balanced_cross_entropy(logits, labels, balance).item() == pytest.approx(
        _loop_segmentation(logits, labels, balance), rel=1e-5
    )
    assert balanced_cross_entropy(logits, torch.full_like(labels, 255), balance) == 0


def test_as_printed_the_balance_weighs_small_objects_down_and_inverse_weighs_them_up():
    """One pixel of a hundred is positive; how much of the gradient is its own?"""
    labels = torch.zeros(1, 10, 10, dtype=torch.uint8)
    labels[0, 4, 4] = 1
    shares = {}
    for balance in ("none", "paper", "inverse"):
        logits = torch.zeros(1, 2, 10, 10, requires_grad=True)
        balanced_cross_entropy(logits, labels, balance).backward()
        shares[balance] = float(logits.grad[0, 1, 4, 4].abs() / logits.grad[0, 1].abs().sum())
    assert shares["none"] == pytest.approx(0.01)
    assert shares["paper"] == pytest.approx(0.01 * 0.01 / (0.01 * 0.01 + 0.99 * 0.99))
    assert shares["inverse"] == pytest.approx(0.5)


def test_the_semantic_loss_is_a_binary_cross_entropy_eq_12(settled):
    model, targets = settled(), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    classes = torch.tensor([[1.0, 0, 0, 1]])
    out = model(_scenes(3))
    terms = model.loss(out, targets, classes)
    y = [1 / (1 + math.exp(-score)) for score in out.extra("scores")[0, 0].tolist()]
    want = -sum(math.log(p) if t else math.log(1 - p) for p, t in zip(y, classes[0], strict=True)) / L
    assert terms["semantic"].item() == pytest.approx(want, rel=1e-4)
    assert "semantic" not in model.loss(out, targets)  # no labels, no term
    with pytest.raises(ValueError, match=r"classes of \(1, 5\)"):
        model.loss(out, targets, torch.zeros(1, 5))


def test_the_spatial_loss_is_minus_the_rayleigh_quotient_eq_9(settled):
    images, targets = _scenes(3), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    model = settled(mask_stride=8)
    out = model(images)
    varphi = model.fused(model.backbone(images[0])[1:]).detach()
    x = F.normalize(varphi, dim=1).transpose(0, 1).flatten(1).double()
    s = out.extra("spatial").detach().flatten().double()
    quotient = float(s @ (x.T @ (x @ s)) - s.sum() ** 2)
    assert model.loss(out, targets)["spatial"].item() == pytest.approx(-quotient / (3 * 64), rel=1e-4)
    printed = settled(mask_stride=8, spatial_loss="paper")
    assert printed.loss(out, targets)["spatial"].item() == pytest.approx(-quotient, rel=1e-4)
    assert "spatial" not in settled(mask_stride=8, spatial_loss="none").loss(out, targets)


def test_the_masks_can_teach_the_spatial_mask_itself(settled):
    """spatial_loss="masks": (13) with 3 S as the logit, by a loop over pixels; images with empty masks do not count."""
    images, targets = _scenes(3), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    targets[0, 0, 8:24, 8:40], targets[0, 2, :5], targets[0, 2, 60:] = 1, 1, 255
    model = settled(mask_stride=8, spatial_loss="masks")
    out = model(images)
    s = F.interpolate((3 * 64) ** 0.5 * out.extra("spatial")[0, :, None], (64, 64), mode="bilinear")[:, 0]
    each = []
    for i in (0, 2):
        labels, logits = targets[0, i].flatten().tolist(), (3 * s[i]).flatten().tolist()
        counted = [(label, logit) for label, logit in zip(labels, logits, strict=True) if label != 255]
        share = sum(label for label, _ in counted) / len(counted)
        losses = [
            (1 - share) * math.log1p(math.exp(-x)) if label else share * math.log1p(math.exp(x)) for label, x in counted
        ]
        each.append(sum(losses) / len(losses))
    assert model.loss(out, targets)["spatial"].item() == pytest.approx(sum(each) / 2, rel=1e-4)
    assert model.loss(out, torch.zeros_like(targets))["spatial"].item() == 0
    trained = _build(mask_stride=8, semantic=False, spatial_loss="masks").train()
    (gradient,) = torch.autograd.grad(trained.loss(trained(images), targets)["spatial"], [trained.fusion[0].weight])
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_the_spatial_loss_has_an_optimum_that_needs_no_images():
    """Why the workbook variant leaves it out: features that tell left from right are two perfect clusters."""
    model = _build(mask_stride=8)
    varphi = torch.ones(1, 5, 16, 8, 8)
    varphi[..., 4:] = -1
    members = torch.ones(1, 1, 5, dtype=torch.bool)
    value, s = model.spatial_masks(varphi, members)
    assert value.item() == pytest.approx(5 * 64)  # −λ/M' = −1, the least there is
    assert (s[0, 0] == s[0, 0, :1]).all() and s[0, 0, 0, :, :4].sign().unique().numel() == 1


def test_the_spatial_loss_and_the_mask_train_the_features():
    model, images = _build(mask_stride=8, semantic=False).train(), _scenes(3)
    out = model(images)
    for scalar in (model.loss(out, torch.zeros(1, 3, 64, 64))["spatial"], out.extra("spatial")[0, 0].sum()):
        gradients = torch.autograd.grad(
            scalar, [model.fusion[0].weight, model.backbone.stages[0][0][0].weight], retain_graph=True
        )
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)


def test_dice_is_a_term_of_its_own(settled):
    model, targets = settled("workbook"), torch.ones(1, 2, 64, 64, dtype=torch.uint8)
    out = model(_scenes(2))
    assert set(model.loss(out, targets, torch.zeros(1, L), 0.5)) == {"segmentation", "dice", "semantic"}
    assert set(model.loss(out, targets, torch.zeros(1, L))) == {"segmentation", "semantic"}


# Groups --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_a_group_permutes_the_masks(settled, variant):
    model, group, order = settled(variant), _scenes(4), [2, 0, 3, 1]
    out, permuted = model(group), model(group[:, order])
    torch.testing.assert_close(out.logits[:, order], permuted.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(out.extra("spatial")[:, order], permuted.extra("spatial"), rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_with_copies_of_itself_is_answered_as_alone(settled, variant):
    """Also that S, unlike the unit vector s, does not fade with the group's size."""
    model, image = settled(variant), _scenes(1)
    alone = model(image).logits
    copies = model(image.expand(1, 3, 3, 64, 64)).logits
    torch.testing.assert_close(copies, alone.expand_as(copies), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_groups_of_a_batch_do_not_meet(settled):
    model, groups = settled(), torch.cat([_scenes(3), _scenes(3, seed=1)])
    torch.testing.assert_close(model(groups).logits[1:], model(groups[1:]).logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_weights_to_everyone_else_are_the_whole_group(settled):
    model, group = settled("workbook"), _scenes(4)
    everyone = _others(*[[j for j in range(4) if j != i] for i in range(4)])
    torch.testing.assert_close(model(group, everyone).logits, model(group).logits)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_is_answered_in_the_group_of_itself_and_its_partners(settled, variant):
    """The sampler's empty groups: two images ask three others and the other way round; one asks itself alone."""
    model, group = settled(variant), _scenes(5)
    partners = [[2, 3, 4], [2, 3, 4], [0, 1], [0, 1], [4]]
    out = model(group, _others(*partners))
    for i, row in enumerate(partners):
        members = sorted({i, *row})
        alone, place = model(group[:, members]), members.index(i)
        torch.testing.assert_close(out.logits[:, i], alone.logits[:, place], rtol=1e-3, atol=1e-3)
        for name in model.EXTRAS:
            torch.testing.assert_close(out.extra(name)[:, i], alone.extra(name)[:, place], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_an_image_does_not_see_whom_it_has_no_weight_to(settled):
    model, group, weights = settled(), _scenes(4), _others([1], [0], [3], [2])
    changed = group.clone()
    changed[:, 2:] = 1 - changed[:, 2:]
    a, b = model(group, weights), model(changed, weights)
    torch.testing.assert_close(a.logits[:, :2], b.logits[:, :2], rtol=1e-3, atol=1e-3)
    assert (model(group).logits[:, :2] - model(changed).logits[:, :2]).abs().max() > 1e-2  # together it does matter


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_groups_of_any_size_are_answered_and_trained(n):
    model = _build("workbook").train()
    out = model(_scenes(n))
    assert out.logits.shape == (1, n, 2, 64, 64) and out.logits.dtype == torch.float32
    assert out.extra("gamma").shape == (1, n, 16) and out.extra("scores").shape == (1, n, L)
    assert out.extra("eigenvalue").shape == out.extra("points").shape == (1, n)
    loss = sum(model.loss(out, torch.zeros(1, n, 64, 64, dtype=torch.uint8), torch.ones(1, L)).values())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# Robustness ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("spatial", "semantic"), [(True, True), (False, True), (True, False), (False, False)])
def test_every_weight_is_trained_whatever_is_left_out(variant, spatial, semantic):
    """A weight without a gradient would be shipped untrained (and would stop several processes)."""
    model = _build(variant, spatial=spatial, semantic=semantic).train()
    targets = (torch.rand(2, 2, 64, 64) < 0.3).byte()
    out = model(torch.cat([_scenes(2), _scenes(2, seed=1)]))
    terms = model.loss(out, targets, torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]]))
    present = {"segmentation": True, "spatial": spatial and variant == "paper", "semantic": semantic}
    assert set(terms) == {name for name, there in present.items() if there}
    sum(terms.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@torch.no_grad()
def test_what_is_left_out_changes_nothing_and_is_not_offered(settled):
    """Without the modulators the network is a plain pyramid: each image for itself."""
    plain, images = settled(spatial=False, semantic=False), _scenes(3)
    out = plain(images)
    torch.testing.assert_close(out.logits[:, :1], plain(images[:, :1]).logits, rtol=1e-3, atol=1e-3)
    with pytest.raises(CosegError, match="gamma: not among"):
        out.extra("gamma")
    assert set(settled(semantic=False)(images).extras) == {"spatial", "eigenvalue", "points"}
    assert set(settled(spatial=False)(images).extras) == {"gamma", "scores"}
    assert (settled()(images).logits - settled()(images[:, :1]).logits[:, :1]).abs().max() > 1e-2  # others do matter


def test_gamma_starts_near_one():
    assert _build().pooling.group.expand.bias.eq(1).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_images_are_finite_in_value_and_gradient(value, training):
    model = _build("workbook").train(training)
    out = model(torch.full((1, 2, 3, 64, 64), value))
    terms = model.loss(out, torch.zeros(1, 2, 64, 64, dtype=torch.uint8), torch.zeros(1, L))
    sum(terms.values()).backward()
    assert out.logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_is_finite_with_float32_logits(settled):
    model, images = settled("workbook"), _scenes(3)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(images)
    loss = sum(model.loss(out, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, L)).values())
    loss.backward()
    assert out.logits.dtype == torch.float32 and out.logits.isfinite().all() and loss.isfinite()
    assert all(out.extra(name).dtype == torch.float32 for name in model.EXTRAS)
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_images_need_not_be_square(settled, variant):
    out = settled(variant)(_scenes(2, 32, 96))
    assert out.logits.shape == (1, 2, 2, 32, 96) and out.logits.isfinite().all()


def test_hrnet_is_a_backbone_and_takes_a_step():
    torch.manual_seed(0)
    model = SSNM(build_backbone("hrnet_w18", None), categories=L, width=16).train()
    out = model(_scenes(2))
    assert out.logits.shape == (1, 2, 2, 64, 64)
    sum(model.loss(out, torch.ones(1, 2, 64, 64, dtype=torch.uint8), torch.zeros(1, L)).values()).backward()
    assert model.fusion[0].weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "new"}, "variant 'new': one of paper, workbook"),
        ({"balance": "other"}, "balance 'other': one of inverse, paper, none"),
        ({"spatial_loss": "sum"}, "spatial_loss 'sum'"),
        ({"mask_stride": 2}, "mask_stride 2: one of 4, 8, 16, 32"),
        ({"input_size": 60}, "multiple of 32"),
        ({"categories": 0}, "categories 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    class Backbone:
        channels = (1, 2, 3, 4, 5)

    with pytest.raises(ValueError, match=message):
        SSNM(Backbone(), **options)


def test_wrong_sizes_are_refused(settled):
    with pytest.raises(ValueError, match="multiples of 32"):
        settled()(torch.rand(1, 2, 3, 60, 64))
    with pytest.raises(ValueError, match=r"weights of \(1, 3, 3\)"):
        settled()(_scenes(2), torch.ones(1, 3, 3))
