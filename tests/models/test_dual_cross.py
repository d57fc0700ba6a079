import itertools
import math

import pytest
import torch

from coseglib.data.record import VOID
from coseglib.models.backbones import build_backbone
from coseglib.models.dual_cross import Correlation, DCNet, correlation_of
from coseglib.models.losses import two_sided_dice

VARIANTS = ("paper", "workbook")
LADDER = {  # table IV
    "baseline": {"correlation": "nonlocal", "multiscale": False},
    "+MCFD": {"correlation": "nonlocal"},
    "+SCCM": {"correlation": "spatial"},
    "+DCCM": {},
}


def _build(variant="paper", backbone="mobilenet_v2", **options):
    torch.manual_seed(0)
    net = build_backbone(backbone, None, origin="tf-slim" if backbone == "mobilenet_v2" else None)
    model = DCNet(net, variant, 64, **options).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean: one batch sets what evaluation divides by, else features are near 0
    with torch.no_grad():
        model(torch.rand(2, 2, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def dcnet():
    return {variant: _build(variant) for variant in VARIANTS}


@pytest.fixture
def pair():
    torch.manual_seed(1)
    return torch.rand(1, 2, 3, 64, 64)


def _level(correlation="dual", loops=2, channels=16, scores="product"):
    torch.manual_seed(0)
    return Correlation(channels, correlation, loops, scores).double()


def _sides(module, h, w, images=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(images, module.content.in_channels, h, w, generator=generator, dtype=torch.float64)
    return module.sides(r)


# The equations ------------------------------------------------------------------------------------------------------


def _softmax(scores):
    exps = [torch.exp(z - max(scores)) for z in scores]
    return [e / sum(exps) for e in exps]


def _score(module, one, other):
    """Of two vectors: their product, or their cosine times the sharpness."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    if module.sharpness is None:
        return product
    return module.sharpness * product / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5


def _loops_of_equations(module, query, answer):
    """Eqs. (1) to (7) for one image, position by position and channel by channel; returns y (C, h, w)."""
    (d_q, i_q), (d, i) = ((a[0], b[0]) for a, b in (query, answer))
    c, h, w = d_q.shape
    positions = list(itertools.product(range(h), range(w)))
    for k in range(module.loops):
        if k:
            i = torch.einsum("oc,chw->ohw", module.index_of_aggregate.weight[:, :, 0, 0], d)
        aggregate = torch.zeros_like(d)
        for y, x in positions:
            cross = [(r, s) for r, s in positions if r == y or s == x]
            if module.correlation == "nonlocal":
                cross = positions
            weights = _softmax([_score(module, i_q[:, y, x], i[:, r, s]) for r, s in cross])  # (1)
            h_s = sum(a * d[:, r, s] for a, (r, s) in zip(weights, cross, strict=True))  # (2)
            if module.correlation != "nonlocal":
                g_s = 1 / (1 + torch.exp(-(module.gate.weight[0, :, 0, 0] @ h_s + module.gate.bias[0])))  # (5)
                h_s = h_s * g_s
            aggregate[:, y, x] = h_s
        if module.correlation == "dual":
            z = [[_score(module, d_q[m].flatten(), d[n].flatten()) for n in range(c)] for m in range(c)]  # (3)
            for n in range(c):
                weights = _softmax([z[m][n] for m in range(c)])
                h_c = sum(weights[m] * d[m] for m in range(c))  # (4)
                g_c = 1 / (1 + torch.exp(-h_c.mean()))  # (6)
                aggregate[n] += h_c * g_c
        d = aggregate
    return torch.cat([d, d_q])  # (7)


@torch.no_grad()
@pytest.mark.parametrize("loops", [1, 2, 3])
@pytest.mark.parametrize("correlation", ["dual", "spatial", "nonlocal"])
@pytest.mark.parametrize("scores", ["product", "cosine"])
def test_a_level_follows_equations_1_to_7_position_by_position(correlation, loops, scores):
    module = _level(correlation, loops, scores=scores)
    query, answer = _sides(module, 3, 4), _sides(module, 3, 4, seed=1)
    y, _ = module(query, answer)
    assert y.shape == (1, 16, 3, 4)
    torch.testing.assert_close(y[0], _loops_of_equations(module, query, answer))


@torch.no_grad()
def test_cosines_do_not_grow_with_the_features_and_products_do():
    for scores, same in (("cosine", True), ("product", False)):
        module = _level("spatial", 1, scores=scores)
        (d_q, i_q), (d, i) = _sides(module, 5, 6), _sides(module, 5, 6, seed=1)
        y, larger = (module((d_q, f * i_q), (d, f * i))[0] for f in (1, 30))
        assert torch.allclose(y, larger) == same


def _reach(module, h=4, w=5, row=1, column=3):
    """bool (h, w): does H at (row, column) depend on the answer image's r there? By gradients, which are never 0."""
    torch.manual_seed(2)
    query = _sides(module, h, w)
    r = torch.randn(1, module.content.in_channels, h, w, dtype=torch.float64, requires_grad=True)
    *_, last = module.run(query, module.sides(r))
    (gradient,) = torch.autograd.grad(last.aggregate[0, :, row, column].sum(), r)
    return gradient[0].abs().sum(0) > 0


def test_one_loop_reaches_the_cross_of_a_position_and_two_loops_reach_every_position():
    cross = torch.zeros(4, 5, dtype=torch.bool)
    cross[1], cross[:, 3] = True, True
    assert torch.equal(_reach(_level("spatial", 1)), cross)
    assert _reach(_level("spatial", 2)).all()
    for row, column in itertools.product(range(4), range(5)):
        assert not _reach(_level("spatial", 1), row=row, column=column).all()
        assert _reach(_level("spatial", 2), row=row, column=column).all()


def test_the_channel_part_and_the_nonlocal_one_reach_every_position_in_one_loop():
    assert _reach(_level("dual", 1)).all()
    assert _reach(_level("nonlocal", 1)).all()


def test_loops_share_their_weights_and_one_loop_needs_no_second_index():
    def count(loops):
        return sum(p.numel() for p in _level("dual", loops).parameters())

    assert count(2) == count(3) == count(1) + 16 // 2 * 16 // 8


# Correlation maps ---------------------------------------------------------------------------------------------------


def _dense_weights(i_q, i, everywhere):
    """(M, M) weights by loops: row u is softmax(i^Q_u · i^A_v) over its cross, or over all positions."""
    _, h, w = i_q.shape
    positions = list(itertools.product(range(h), range(w)))
    dense = torch.zeros(h * w, h * w)
    for u, (y, x) in enumerate(positions):
        there = [v for v, (r, s) in enumerate(positions) if everywhere or r == y or s == x]
        scores = [i_q[:, y, x] @ i[:, positions[v][0], positions[v][1]] for v in there]
        dense[u, there] = torch.stack(_softmax(scores))
    return dense


@torch.no_grad()
@pytest.mark.parametrize(("options", "level"), [({}, 8), ({"loops": 1}, 8), ({"correlation": "nonlocal"}, 16)])
def test_the_correlation_of_a_position_is_its_row_in_the_product_of_the_loops_weights(options, level):
    model = _build(**options)
    torch.manual_seed(3)
    query, answer = model.encode(torch.rand(2, 3, 32, 64)), model.encode(torch.rand(2, 3, 32, 64))
    found = correlation_of(model, query, answer, (1, 2), level)
    k = model.strides_compared.index(level)
    q, a = model._sides(query)[k], model._sides(answer)[k]
    for n in range(2):
        product = torch.eye(q[1][n, 0].numel())
        for loop in model.correlations[k].run(q, a):
            product = _dense_weights(q[1][n], loop.index[n], options.get("correlation") == "nonlocal") @ product
        want = product.unflatten(0, q[1].shape[-2:])[1, 2].unflatten(0, q[1].shape[-2:])
        torch.testing.assert_close(found[n], want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=(1, 2)), torch.ones(2))


@torch.no_grad()
def test_levels_without_correlation_and_positions_outside_are_refused(pair):
    model = _build(multiscale=False)
    features = model.encode(pair[0])
    with pytest.raises(ValueError, match="level 8: one of 32"):
        correlation_of(model, features, features, (0, 0), 8)
    with pytest.raises(ValueError, match=r"\(2, 0\): outside of the map of 2 × 2 at stride 32"):
        correlation_of(model, features, features, (2, 0), 32)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_another_partner_makes_another_mask(dcnet, pair, variant):
    """Else the properties below would hold for any network that looks at one image."""
    model = dcnet[variant]
    query, other = model.encode(pair[0, :1]), model.encode(pair[0, 1:])
    difference = model.answer(query, query).logits - model.answer(query, other).logits
    assert difference.abs().mean() > 1e-3


# The network --------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_swapping_the_pair_swaps_the_masks(dcnet, pair, variant):
    model = dcnet[variant]
    torch.testing.assert_close(model(pair).logits.flip(1), model(pair.flip(1)).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_a_group_permutes_the_masks(dcnet, variant):
    torch.manual_seed(2)
    model, group, order = dcnet[variant], torch.rand(1, 4, 3, 64, 64), [2, 0, 3, 1]
    torch.testing.assert_close(model(group).logits[:, order], model(group[:, order]).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_paired_with_itself_is_asked_by_itself_as_a_group_of_one(dcnet, variant):
    torch.manual_seed(3)
    model, image = dcnet[variant], torch.rand(1, 1, 3, 64, 64)
    twice = model(image.expand(1, 2, 3, 64, 64)).logits
    torch.testing.assert_close(twice[:, 0], twice[:, 1])
    torch.testing.assert_close(twice[:, :1], model(image).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_group_is_the_weighted_mean_of_its_pairs_probabilities(dcnet):
    torch.manual_seed(4)
    model, group = dcnet["paper"], torch.rand(2, 3, 3, 64, 64)
    weights = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]).expand(2, 3, 3)
    for given, used in ((weights, weights), (None, ((1 - torch.eye(3)) / 2).expand(2, 3, 3))):
        out = model(group, given)
        for b, i in itertools.product(range(2), range(3)):
            query = model.encode(group[b, i : i + 1])
            asked = [model.answer(query, model.encode(group[b, j : j + 1])) for j in range(3)]
            p = sum(used[b, i, j] * asked[j].logits[0].softmax(0) for j in range(3))
            torch.testing.assert_close(out.logits[b, i].softmax(0), p, rtol=1e-3, atol=1e-4)
            gate = sum(used[b, i, j] * asked[j].extra("gate8")[0] for j in range(3))
            torch.testing.assert_close(out.extra("gate8")[b, i], gate, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_groups_of_any_number_and_any_shape_that_32_divides_give_masks_of_that_shape(dcnet, n):
    for variant in VARIANTS:
        out = dcnet[variant](torch.rand(1, n, 3, 32, 96))
        assert out.logits.shape == (1, n, 2, 32, 96) and out.logits.isfinite().all()
        assert out.extra("correlation8").shape == out.extra("gate8").shape == (1, n, 4, 12)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("step", LADDER)
def test_every_weight_is_trained(variant, step, size):
    model = _build(variant, **LADDER[step]).train()
    targets = torch.randint(0, 2, (1, size, 64, 64), dtype=torch.uint8)
    sum(model.loss(model(torch.rand(1, size, 3, 64, 64)), targets, dice=0.5).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_one_loop_has_no_idle_weight():
    model = _build(loops=1).train()
    model(torch.rand(1, 2, 3, 64, 64)).logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_the_steps_of_table_iv_correlate_what_they_say(pair):
    offered = {step: set(_build(**options)(pair).extras) for step, options in LADDER.items()}
    scales = {f"correlation{s}" for s in (32, 16, 8)}
    gates = {f"gate{s}" for s in (32, 16, 8)}
    assert offered == {
        "baseline": {"correlation32"},
        "+MCFD": scales,
        "+SCCM": scales | gates,
        "+DCCM": scales | gates,
    }
    assert offered["+DCCM"] == set(DCNet.EXTRAS)


@torch.no_grad()
def test_without_multiscale_the_partner_is_heard_at_stride_32_alone(pair):
    model = _build(multiscale=False)
    features, partner = model.encode(pair[0, :1]), model.encode(pair[0, 1:])
    y, _ = model.correlations[0](model._sides(features)[0], model._sides(partner)[0])
    r1, r2, r3, r4, _ = features[:5]
    torch.testing.assert_close(model.answer(features, partner).logits, model.decoder([y, r4, r3, r2, r1]))


@torch.no_grad()
def test_the_decoder_fuses_y5_y4_y3_r2_r1_and_has_the_backbones_widths(dcnet, pair):
    model = dcnet["paper"]
    query, answer = model.encode(pair[0, :1]), model.encode(pair[0, 1:])
    y = [m(q, a)[0] for m, q, a in zip(model.correlations, model._sides(query), model._sides(answer), strict=True)]
    assert [tuple(x.shape[1:]) for x in y] == [(320, 2, 2), (96, 4, 4), (32, 8, 8)]
    x = y[0]
    for up, beside in zip(model.decoder.up, (y[1], y[2], query[1], query[0]), strict=True):
        x = torch.cat([up(x), beside], dim=1)
    torch.testing.assert_close(model.answer(query, answer).logits, model.decoder.last(x))
    assert [up[0].out_channels for up in model.decoder.up] == [96, 32, 24, 16]
    kernels = [m.kernel_size[0] for m in model.decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert kernels == [3, 3, 3, 3, 3, 7]


@torch.no_grad()
def test_any_backbone_will_do_odd_numbers_of_channels_included():
    backbone = build_backbone("mobilenet_v2", None, origin="tf-slim")
    first = backbone.stages[2][-1].conv[-1]  # 32 channels at stride 8: keep 27
    backbone.stages[2] = torch.nn.Sequential(backbone.stages[2], torch.nn.Conv2d(first.num_features, 27, 1))
    backbone.stages[3] = torch.nn.Sequential(torch.nn.Conv2d(27, first.num_features, 1), backbone.stages[3])
    backbone.channels = (16, 24, 27, 96, 320)
    for variant in VARIANTS:
        assert DCNet(backbone, variant, 64).eval()(torch.rand(1, 2, 3, 64, 64)).logits.shape == (1, 2, 2, 64, 64)


@torch.no_grad()
def test_constant_images_give_finite_logits(dcnet):
    for variant, value in itertools.product(VARIANTS, (0.0, 1.0)):
        assert dcnet[variant](torch.full((1, 2, 3, 64, 64), value)).logits.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_with_finite_float32_logits(variant, dtype):
    model = _build(variant).train()
    with torch.autocast("cpu", dtype):
        out = model(torch.rand(1, 3, 3, 64, 64))
    assert out.logits.dtype == torch.float32 and out.logits.isfinite().all()
    sum(model.loss(out, torch.ones(1, 3, 64, 64, dtype=torch.uint8)).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_wrong_sizes_and_options_are_refused_in_a_line(dcnet):
    with pytest.raises(ValueError, match="multiples of 32"):
        dcnet["paper"].encode(torch.rand(1, 3, 60, 64))
    backbone = dcnet["paper"].backbone
    for options, message in (
        ({"variant": "other"}, "variant 'other': one of paper, workbook"),
        ({"scores": "other"}, "scores 'other': one of product, cosine"),
        ({"input_size": 65}, "input_size 65: must be a multiple of 32"),
        ({"correlation": "cosine"}, "correlation 'cosine': one of dual, spatial, nonlocal"),
        ({"loops": 0}, "loops 0: must be 1 or more"),
        ({"objective": "focal"}, "objective 'focal': one of dice, cross_entropy"),
    ):
        with pytest.raises(ValueError, match=message):
            DCNet(backbone, **options)


# The loss -----------------------------------------------------------------------------------------------------------


def test_the_dice_loss_is_the_mean_of_both_sides_by_plain_loops_void_left_out():
    torch.manual_seed(5)
    logits, labels = torch.randn(2, 2, 3, 4), torch.randint(0, 2, (2, 3, 4), dtype=torch.uint8)
    labels[0, 1, 2] = VOID
    total = 0.0
    for n in range(2):
        for side in (0, 1):
            overlap = truth = predicted = 0.0
            for y, x in itertools.product(range(3), range(4)):
                if labels[n, y, x] == VOID:
                    continue
                exps = [math.exp(z) for z in logits[n, :, y, x].tolist()]
                p, g = exps[side] / sum(exps), float(labels[n, y, x] == side)
                overlap, truth, predicted = overlap + g * p, truth + g, predicted + p
            total += 1 - (2 * overlap + 0.5) / (truth + predicted + 0.5)
    assert float(two_sided_dice(logits, labels, epsilon=0.5)) == pytest.approx(total / 4, abs=1e-6)


def test_an_empty_mask_that_is_answered_by_an_empty_prediction_loses_nothing():
    for label in (0, 1):
        labels = torch.full((1, 4, 4), label, dtype=torch.uint8)
        sure = torch.stack([-(2.0 * label - 1) * torch.full((1, 4, 4), 30.0), torch.zeros(1, 4, 4)], dim=1)
        assert float(two_sided_dice(sure, labels)) == pytest.approx(0, abs=1e-5)
        assert float(two_sided_dice(-sure, labels)) > 0.9
    void = torch.full((1, 4, 4), VOID, dtype=torch.uint8)
    assert float(two_sided_dice(sure, void)) == pytest.approx(0, abs=1e-5)


def test_scores_are_products_for_the_paper_and_cosines_for_the_workbook_unless_told(dcnet):
    assert [level.sharpness for level in dcnet["paper"].correlations] == [None] * 3
    assert all(level.sharpness for level in dcnet["workbook"].correlations)


def test_the_objective_is_dice_for_the_paper_and_cross_entropy_for_the_workbook_unless_told(dcnet, pair):
    targets = torch.randint(0, 2, (1, 2, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        out = dcnet["paper"](pair)
    assert set(dcnet["paper"].loss(out, targets)) == {"dice"}
    assert set(dcnet["workbook"].loss(out, targets, dice=0.5)) == {"cross_entropy", "foreground_dice"}
    told = _build(objective="cross_entropy").loss(out, targets)
    p = out.logits.softmax(2).gather(2, targets[:, :, None].long())
    assert float(told["cross_entropy"]) == pytest.approx(float(-p.log().mean()), rel=1e-4)
