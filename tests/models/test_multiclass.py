import math

import pytest
import torch
from torch.nn import functional as F

from coseglib.models.backbones import build_backbone
from coseglib.models.contract import others_equally
from coseglib.models.multiclass import (
    FeatureExtractor,
    MultiClass,
    at_the_border,
    co_attention_loss,
    distances,
    imbalance,
    vote_counts,
)

VARIANTS = ("paper", "workbook")


def _lively(backbone):
    """Random weights leave hardly anything at stride 32; with each stage's output scaled to sd 1 it can be seen."""
    torch.manual_seed(5)
    x = torch.rand(2, 3, 64, 64) - 0.5
    with torch.no_grad():
        for stage in backbone.stages:
            last = [m for m in stage.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
            last.weight.div_(stage(x).std() + 1e-12)
            x = stage(x)
    return backbone


@pytest.fixture
def build():
    """A function (variant="paper", gamma=0.5, …) -> a small generator with random weights, in evaluation mode."""

    def make(variant: str = "paper", gamma: float | None = 0.5, **options) -> MultiClass:
        torch.manual_seed(0)
        backbone = _lively(build_backbone("mobilenet_v2", None, origin="tf-slim").eval())
        model = MultiClass(backbone, variant, 64, **options)
        if gamma is not None and hasattr(model, "gamma"):
            model.gamma.data.fill_(gamma)
        return model.eval()

    return make


@pytest.fixture
def extractor():
    def make(masking: str = "image", fill: str = "mean") -> FeatureExtractor:
        torch.manual_seed(1)
        return FeatureExtractor(_lively(build_backbone("mobilenet_v2", None, origin="tf-slim").eval()), masking, fill)

    return make


@pytest.fixture
def group():
    torch.manual_seed(2)
    return torch.rand(1, 3, 3, 64, 64)


def _linear(layer, column):
    """A 1×1 convolution of one position, plainly."""
    return layer.weight[:, :, 0, 0] @ column + layer.bias


# The attention module -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_self_attention_is_a_weighted_sum_over_all_positions_eq_2(build):
    layer = build().self_attention
    torch.manual_seed(3)
    f = 0.1 * torch.randn(1, 320, 2, 3)
    columns = f[0].flatten(1).T  # one a position
    q, k, v = ([_linear(one, c) for c in columns] for one in (layer.query, layer.key, layer.value))
    for u in range(6):
        scores = torch.stack([q[u] @ k[w] for w in range(6)])
        parts = [math.exp(s) for s in scores]
        want = sum(p / sum(parts) * v[w] for w, p in enumerate(parts))
        torch.testing.assert_close(layer(f)[0].flatten(1)[:, u], want, rtol=1e-4, atol=1e-5)


def _printed_foreground(layer, anchor, reference):
    """Section 3.2, 2), for one anchor and one reference: (C, h, w) each -> a, (M,)."""
    q = [_linear(layer.query, c) for c in reference.flatten(1).T]
    k = [_linear(layer.key, c) for c in anchor.flatten(1).T]
    matrix = torch.stack([torch.stack([one @ other for other in k]).softmax(0) for one in q])
    v = matrix.sum(dim=0)  # column sums
    return 1 / (1 + torch.exp(-v / math.sqrt(len(v))))


def test_vote_counts_equal_loops_over_pairs_and_positions():
    q, k = torch.randn(2, 3, 5, 2, dtype=torch.float64), torch.randn(2, 4, 6, 2, dtype=torch.float64)
    found = vote_counts(q, k)
    for b in range(2):
        for j in range(3):
            for n in range(4):
                rows = [torch.stack([q[b, j, u] @ k[b, n, w] for w in range(6)]).exp() for u in range(5)]
                torch.testing.assert_close(found[b, j, n], sum(row / row.sum() for row in rows))
    torch.testing.assert_close(found.sum(dim=-1), torch.full((2, 3, 4), 5.0, dtype=torch.float64))  # a vote a position


def test_equal_positions_share_their_votes_equally():
    torch.testing.assert_close(vote_counts(*[torch.zeros(1, 2, 6, 3)] * 2), torch.ones(1, 2, 2, 6))


def test_scores_beyond_half_precision_are_computed_in_float32_with_gradients(build):
    model = build()
    f = (30 * torch.randn(1, 2, 320, 3, 3)).requires_grad_()  # scores beyond float16's range
    with torch.autocast("cpu", torch.bfloat16):
        attended, a = model.attend(f)
        (attended.square().mean() + a.sum()).backward()
    assert attended.isfinite().all() and a.dtype == torch.float32 and f.grad.isfinite().all() and f.grad.any()


@torch.no_grad()
def test_mutual_attention_is_the_mean_over_references_of_what_is_printed(build):
    """Each reference goes through the output layer by itself here; the library averages a, and is linear behind it."""
    layer = build().mutual_attention
    torch.manual_seed(4)
    f = 0.3 * torch.randn(1, 3, 320, 2, 3)
    found, a = layer(f, others_equally(3))
    for n in range(3):
        value = torch.stack([_linear(layer.value, c) for c in f[0, n].flatten(1).T])  # (M, C')
        outputs, maps = [], []
        for j in (i for i in range(3) if i != n):
            maps.append(_printed_foreground(layer, f[0, n], f[0, j]))
            both = torch.cat([maps[-1][:, None] * value, (1 - maps[-1])[:, None] * value], dim=1)
            outputs.append(torch.stack([_linear(layer.output, c) for c in both]))
        torch.testing.assert_close(a[0, n].flatten(), sum(maps) / 2, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[0, n].flatten(1).T, sum(outputs) / 2, rtol=1e-4, atol=1e-5)
    assert bool((a >= 0.5).all()) and bool((a < 1).all())


@torch.no_grad()
def test_weights_say_whose_query_an_image_is_matched_with(build):
    layer = build().mutual_attention
    torch.manual_seed(4)
    f = 0.3 * torch.randn(2, 3, 320, 2, 2)
    weights = torch.tensor([[0.0, 1, 0], [0.25, 0, 0.75], [1, 0, 0]]).expand(2, 3, 3)
    a = layer.foreground(f, weights)
    for b in range(2):
        torch.testing.assert_close(a[b, 0].flatten(), _printed_foreground(layer, f[b, 0], f[b, 1]))
        two = [_printed_foreground(layer, f[b, 1], f[b, j]) for j in (0, 2)]
        torch.testing.assert_close(a[b, 1].flatten(), 0.25 * two[0] + 0.75 * two[1])


@torch.no_grad()
def test_the_attention_is_added_times_gamma_which_starts_at_zero_eq_3(build, group):
    model = build(gamma=None)
    assert float(model.gamma) == 0
    f = model(group).extra("features")
    torch.testing.assert_close(model(group).extra("attended"), f)
    model.gamma.data.fill_(0.7)
    added = model.self_attention(f[0]) + model.mutual_attention(f, others_equally(3))[0][0]
    torch.testing.assert_close(model(group).extra("attended")[0], f[0] + 0.7 * added)
    assert float(added.abs().max()) > 1e-3


def test_without_attention_a_group_is_its_images_one_by_one(build, group):
    model = build(self_attention=False, mutual_attention=False)
    assert not hasattr(model, "gamma")
    alone = torch.cat([model(group[:, i : i + 1]).logits for i in range(3)], dim=1)
    torch.testing.assert_close(model(group).logits, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_only_mutual_attention_looks_at_the_other_images(build, group):
    changed = group.clone()
    changed[:, 1] = torch.rand(3, 64, 64)
    for mutual in (True, False):
        model = build(mutual_attention=mutual, gamma=50.0)
        before, after = model(group), model(changed)
        assert ("foreground" in before.extras) == mutual
        differs = (before.logits[:, 0] - after.logits[:, 0]).abs().max() > 1e-4
        assert bool(differs) == mutual


# The generator --------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_a_group_permutes_the_maps(build, variant):
    torch.manual_seed(6)
    model, group, order = build(variant), torch.rand(1, 4, 3, 64, 64), [2, 0, 3, 1]
    torch.testing.assert_close(model(group).logits[:, order], model(group[:, order]).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_swapping_a_pair_swaps_the_maps_and_an_image_with_itself_has_one_map(build, group):
    model, pair = build(), group[:, :2]
    torch.testing.assert_close(model(pair).logits.flip(1), model(pair.flip(1)).logits, rtol=1e-4, atol=1e-4)
    twice = model(group[:, :1].expand(1, 2, 3, 64, 64)).logits
    torch.testing.assert_close(twice[:, 0], twice[:, 1])
    torch.testing.assert_close(twice[:, :1], model(group[:, :1]).logits, rtol=1e-4, atol=1e-4)  # a group of one


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_group_of_any_number_gives_k_plus_1_maps_at_the_images_size(build, variant, n):
    model = build(variant, classes=4)
    out = model(torch.rand(2, n, 3, 64, 96))
    assert out.logits.shape == (2, n, 5, 64, 96) and out.logits.dtype == torch.float32
    assert out.extra("foreground").shape == ((2, n, 2, 3) if variant == "paper" else (2, n, 4, 6))  # strides 32, 16
    assert bool(out.logits.isfinite().all())


@torch.no_grad()
def test_groups_of_a_batch_do_not_meet(build):
    torch.manual_seed(7)
    model, two = build(), torch.rand(2, 3, 3, 64, 64)
    alone = torch.cat([model(two[:1]).logits, model(two[1:]).logits])
    torch.testing.assert_close(model(two).logits, alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_fcn_sums_scores_from_coarse_to_fine(build, group):
    model = build()
    for score in model.decoder.scores:
        torch.nn.init.normal_(score.weight)
    features = model.encode(group[0])
    coarse, middle, fine = (
        score(f) for score, f in zip(model.decoder.scores, (features[4], features[3], features[2]), strict=True)
    )
    middle = middle + F.interpolate(coarse, scale_factor=2, mode="bilinear")
    fine = fine + F.interpolate(middle, scale_factor=2, mode="bilinear")
    want = F.interpolate(fine, scale_factor=8, mode="bilinear")
    torch.testing.assert_close(model.decode(features[4], features), want)


@torch.no_grad()
def test_no_two_maps_are_equal_at_the_start(build, group):
    """Equal maps would have equal gradients for ever."""
    maps = build(classes=3)(group).logits.softmax(2)
    for k in range(3):
        assert float((maps[:, :, k] - maps[:, :, k + 1]).abs().max()) > 0.05


@torch.no_grad()
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_images_give_finite_maps_and_a_finite_loss(build, extractor, value):
    images = torch.full((1, 3, 3, 64, 64), value)
    for masking in ("image", "features"):
        model = build()
        out = model(images)
        losses = model.loss(out, images, extractor(masking), balance=1.0, border=1.0)
        assert bool(out.logits.isfinite().all()) and all(bool(term.isfinite()) for term in losses.values())


@pytest.mark.parametrize("masking", ["image", "features"])
def test_bfloat16_gives_float32_logits_and_finite_gradients(build, extractor, group, masking):
    model = build().train()
    model.backbone.eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(group)
        loss = sum(model.loss(out, group, extractor(masking), 0.5, 0.5).values())
    loss.backward()
    assert out.logits.dtype == torch.float32 and bool(out.logits.isfinite().all()) and bool(loss.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_bad_values_are_refused_in_one_line(build, group):
    backbone = build_backbone("mobilenet_v2", None)
    for words, options in {
        "variant": {"variant": "other"},
        "multiple of 32": {"input_size": 100},
        "classes": {"classes": 0},
    }.items():
        with pytest.raises(ValueError, match=words):
            MultiClass(backbone, **options)
    with pytest.raises(ValueError, match="multiples of 32"):
        build()(group[..., :60])
    for options in ({"masking": "other"}, {"fill": "other"}):
        with pytest.raises(ValueError, match="one of"):
            FeatureExtractor(backbone, **options)
    with pytest.raises(ValueError, match="reduction"):
        co_attention_loss(torch.rand(1, 2, 3, 4), "median")


# The feature extractor and the loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("masking", ["image", "features"])
def test_every_weight_of_the_generator_learns_and_none_of_the_extractor(build, extractor, group, variant, masking):
    model, f = build(variant).train(), extractor(masking)
    model.backbone.eval()  # as online: batches are too small for averages of their own
    before = {k: v.clone() for k, v in f.state_dict().items()}
    f.train()
    sum(model.loss(model(group), group, f).values()).backward()
    frozen = "backbone." if variant == "workbook" else "nothing"
    assert [n for n, p in model.named_parameters() if p.grad is None and not n.startswith(frozen)] == []
    layers = [model.mutual_attention.query, model.mutual_attention.key, model.self_attention.value, model.decoder]
    assert all(float(p.grad.abs().max()) > 0 for layer in layers for p in layer.parameters() if p.ndim > 1)
    assert all(p.grad is None for p in f.parameters()) and not f.training
    assert all(torch.equal(v, before[k]) for k, v in f.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("fill", ["mean", "black"])
def test_a_map_of_ones_hides_nothing_and_a_map_of_zeros_everything_eq_1(extractor, group, fill):
    f, images = extractor(fill=fill), group[0]
    maps = torch.stack([torch.ones(3, 64, 64), torch.zeros(3, 64, 64), torch.full((3, 64, 64), 0.25)], dim=1)
    whole, hidden, faint = f.masked(images, maps).unbind(1)
    torch.testing.assert_close(whole, images)
    colour = 0.5 if fill == "mean" else 0.0  # TF-slim's mean is grey
    torch.testing.assert_close(hidden, torch.full_like(images, colour))
    torch.testing.assert_close(faint, colour + 0.25 * (images - colour))
    if fill == "mean":  # the product is of the network's input: 0 where the map is 0
        torch.testing.assert_close(f.backbone.preprocess(faint), 0.25 * f.backbone.preprocess(images))
    described = f(images, maps)
    torch.testing.assert_close(described[:, 0], f.describe(images).mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(described[:1, 1], described[1:2, 1], rtol=1e-4, atol=1e-5)  # all say the same of nothing


@torch.no_grad()
def test_features_are_averaged_with_the_map_as_weights(extractor):
    f = extractor("features")
    torch.manual_seed(8)
    images, maps = torch.rand(2, 3, 64, 64), torch.rand(2, 2, 64, 64)
    described, found = f.describe(images), f(images, maps)
    for p in range(2):
        for k in range(2):
            total, mass = torch.zeros(described.shape[1]), 0.0
            for y in range(2):
                for x in range(2):
                    weight = maps[p, k, 32 * y : 32 * y + 32, 32 * x : 32 * x + 32].mean()
                    total, mass = total + weight * described[p, :, y, x], mass + weight
            torch.testing.assert_close(found[p, k], total / mass, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_empty_map_is_no_hiding_place_for_averaged_features(extractor):
    """The same map, a billion times fainter, is described alike; as a masked picture it would be a constant."""
    f = extractor("features")
    torch.manual_seed(9)
    images, maps = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(f(images, maps), f(images, 1e-9 * maps))
    assert bool(f(images, 0 * maps).isfinite().all())


def _looped(described):
    """Eqs. (4) to (7) by loops, in the text's order of sums. described (N, K+1, D) -> the sum of −log p, terms."""
    n, maps, size = described.shape
    total, terms = 0.0, 0

    def squared(a, b):
        return float(((a - b) ** 2).sum()) / size

    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)] or [(0, 0)]
    for i, j in pairs:
        for k in range(1, maps):
            plus = squared(described[i, k], described[j, k])
            minus = 0.0
            for other in (m for m in range(maps) if m != k):
                minus += squared(described[i, k], described[i, other]) + squared(described[j, k], described[j, other])
            minus /= 2 * (maps - 1)
            p = math.exp(-plus) / (math.exp(-plus) + math.exp(-minus))
            total, terms = total - math.log(p), terms + 1
    return total, terms


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_the_loss_equals_loops_over_pairs_classes_and_maps_eqs_4_to_7(n, classes):
    torch.manual_seed(10 * n + classes)
    described = torch.randn(2, n, classes + 1, 6, dtype=torch.float64)
    sums, terms = zip(*(_looped(one) for one in described), strict=True)
    assert float(co_attention_loss(described, "sum")) == pytest.approx(sum(sums) / 2)
    assert float(co_attention_loss(described)) == pytest.approx(sum(sums) / sum(terms))


def test_one_class_is_the_single_class_loss():
    """d⁻ is then the mean over both images of the distance between figure and ground."""
    torch.manual_seed(11)
    described = torch.randn(1, 2, 2, 8)
    within, apart = distances(described)
    (ground_a, figure_a), (ground_b, figure_b) = described[0]
    assert float(within) == pytest.approx(float((figure_a - figure_b).square().mean()), rel=1e-5)
    want = ((figure_a - ground_a).square().mean() + (figure_b - ground_b).square().mean()) / 2
    assert float(apart) == pytest.approx(float(want), rel=1e-5)


def test_more_classes_do_not_change_the_scale_of_the_distances():
    """Maps at the corners of a simplex: every two are equally far apart, whatever K is."""
    for classes in (1, 2, 5):
        corners = math.sqrt(6) * torch.eye(6)[: classes + 1].expand(1, 3, -1, -1)
        within, apart = distances(corners)
        torch.testing.assert_close(apart, torch.full((1, 3, classes), 2.0))
        assert float(within.abs().max()) == 0


def test_the_loss_is_log_2_when_nothing_differs_and_falls_when_classes_agree_and_part():
    same = torch.ones(1, 3, 3, 4)
    assert float(co_attention_loss(same)) == pytest.approx(math.log(2))
    classes = 3 * torch.eye(4)[:3].expand(1, 3, 3, 4)
    assert float(co_attention_loss(classes)) < 0.02
    far = 1e4 * torch.randn(1, 3, 3, 4)  # exp(−d) underflows, the loss does not
    assert bool(co_attention_loss(far).isfinite())


def test_classes_may_change_places_but_not_with_the_background():
    torch.manual_seed(12)
    described = torch.randn(1, 3, 4, 5)
    torch.testing.assert_close(co_attention_loss(described), co_attention_loss(described[:, :, [0, 3, 1, 2]]))
    assert float((co_attention_loss(described) - co_attention_loss(described[:, :, [1, 0, 2, 3]])).abs()) > 1e-4


def test_as_printed_empty_classes_are_a_minimum_that_averaged_features_do_not_have(build, extractor, group):
    """All to the background: the classes see a constant picture, so d⁺ = 0. The head of the model's file says so."""
    logits = torch.zeros(1, 3, 3, 64, 64)
    logits[:, :, 0] = 30.0
    maps = logits.softmax(2).flatten(0, 1)
    for masking, empty in (("image", True), ("features", False)):
        within, _ = distances(extractor(masking)(group.flatten(0, 1), maps)[None])
        assert (float(within.max()) < 1e-6) == empty


def test_imbalance_is_zero_at_half_background_and_largest_when_one_class_has_everything():
    maps = torch.zeros(1, 3, 8, 8)
    maps[:, 0, :4], maps[:, 1, 4:, :4], maps[:, 2, 4:, 4:] = 1, 1, 1
    assert float(imbalance(maps)) == pytest.approx(0, abs=1e-6)
    for k, want in enumerate((math.log(2), math.log(4), math.log(4))):
        alone = torch.zeros(1, 3, 8, 8)
        alone[:, k] = 1
        assert float(imbalance(alone)) == pytest.approx(want, rel=1e-5)


def test_what_touches_the_border_is_counted_there_and_nowhere_else():
    maps = torch.zeros(2, 2, 32, 48)
    maps[:, 0] = 1
    assert float(at_the_border(maps)) == 0
    maps[:, :, 2:-2, 3:-3] = torch.tensor([0.0, 1.0])[None, :, None, None]  # an object up to the border's inner edge
    assert float(at_the_border(maps)) == 0
    maps[0, :, 0, :] = torch.tensor([0.0, 1.0])[:, None]  # the first image's first row
    ring = 32 * 48 - 28 * 42
    assert float(at_the_border(maps)) == pytest.approx(48 / ring / 2)
