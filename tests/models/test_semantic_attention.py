import pytest
import torch

from coseglib.core.errors import CosegError
from coseglib.models.semantic_attention import spatial_attention

METHODS = ("ca", "fca", "csa")
VARIANTS = ("paper", "workbook")


@pytest.fixture
def pair():
    torch.manual_seed(1)
    return torch.rand(1, 2, 3, 64, 64)


def _loop_attention(model, f, shares=None):
    """Eqs. (1), (2) by plain loops: sigmoid(W · mean over the positions + b). shares: of positions; None: all count."""
    w, b = model.attention_layers[0].weight, model.attention_layers[0].bias
    rows = []
    for image, m in zip(f, [torch.ones(f.shape[-2:])] * len(f) if shares is None else shares, strict=True):
        places = [(y, x) for y in range(m.shape[0]) for x in range(m.shape[1])]
        pooled = [sum(m[at] * image[c][at] for at in places) / m.sum() for c in range(image.shape[0])]
        rows.append(torch.stack([1 / (1 + torch.exp(-(w[k] @ torch.stack(pooled) + b[k]))) for k in range(len(b))]))
    return torch.stack(rows)


@torch.no_grad()
def test_ca_attends_each_image_by_the_other_eqs_1_to_4(tiny, pair):
    model = tiny("ca")
    f = model.encode(pair[0])[-1]
    alpha = _loop_attention(model, f)
    torch.testing.assert_close(model(pair).extra("alpha")[0], alpha, rtol=1e-4, atol=1e-5)
    attended = torch.stack([f[0] * alpha[1][:, None, None], f[1] * alpha[0][:, None, None]])
    torch.testing.assert_close(model(pair).logits[0], model.decoder(attended), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_a_partner_that_is_an_example_is_attended_by_over_its_mask_alone(awake, pair, method):
    """One quarter of the first image is marked, a void strip beside it, and nothing of the second."""
    model = awake(method)
    marks = torch.zeros(1, 2, 64, 64, dtype=torch.uint8)
    marks[0, 0, :32, 32:] = 1
    marks[0, 0, 32:48, :32] = 1
    marks[0, 0, 48:] = 255
    f = model.encode(pair[0])[-1]
    alpha = _loop_attention(model, f)
    seen = _loop_attention(model, f, [torch.tensor([[0.0, 1.0], [0.5, 0.0]]), torch.ones(2, 2)])
    torch.testing.assert_close(model.attention([f], marks[0]), seen, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[0], alpha[0], atol=1e-4)
    contexts = [seen[1], seen[0]] if method != "fca" else [(alpha[0] + seen[1]) / 2, (alpha[1] + seen[0]) / 2]
    out = model(pair, None, marks)
    torch.testing.assert_close(out.extra("context")[0], torch.stack(contexts), rtol=1e-4, atol=1e-5)
    want = model.answer(model.encode(pair[0]), torch.stack(contexts))
    torch.testing.assert_close(out.logits[0], want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(pair, None, torch.zeros_like(marks)).logits, model(pair).logits)


@torch.no_grad()
def test_fca_fuses_both_attentions_for_both_images_eqs_5_to_7(tiny, pair):
    model = tiny("fca")
    f = model.encode(pair[0])[-1]
    alpha = _loop_attention(model, f)
    fused = torch.sigmoid(model.fusion[0].weight @ (alpha[0] + alpha[1]) + model.fusion[0].bias)
    torch.testing.assert_close(
        model(pair).logits[0], model.decoder(f * fused[None, :, None, None]), rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_csa_multiplies_the_others_channels_and_the_own_positions_eqs_8_to_13(tiny, pair):
    model = tiny("csa")
    f = model.encode(pair[0])[-1]
    alpha = _loop_attention(model, f)
    spatial = torch.stack([sum(image[c] for c in range(len(image))) / len(image) for image in f])
    spatial = 1 / (1 + torch.exp(-spatial))
    torch.testing.assert_close(spatial_attention(f)[:, 0], spatial)
    attended = torch.stack([f[i] * alpha[1 - i][:, None, None] * spatial[i] for i in (0, 1)])
    out = model(pair)
    torch.testing.assert_close(out.logits[0], model.decoder(attended), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.extra("spatial")[0, :, 0], spatial)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", METHODS)
def test_swapping_the_pair_swaps_the_masks(tiny, pair, method, variant):
    model = tiny(method, variant)
    torch.testing.assert_close(model(pair).logits.flip(1), model(pair.flip(1)).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", METHODS)
def test_permuting_a_group_permutes_the_masks(tiny, method, variant):
    torch.manual_seed(2)
    model, group, order = tiny(method, variant), torch.rand(1, 4, 3, 64, 64), [2, 0, 3, 1]
    torch.testing.assert_close(model(group).logits[:, order], model(group[:, order]).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_an_image_paired_with_itself_is_attended_by_itself(tiny, method):
    torch.manual_seed(3)
    model, image = tiny(method), torch.rand(1, 1, 3, 64, 64)
    twice = model(image.expand(1, 2, 3, 64, 64)).logits
    torch.testing.assert_close(twice[:, 0], twice[:, 1])
    torch.testing.assert_close(twice[:, :1], model(image).logits, rtol=1e-4, atol=1e-4)  # a group of one, too


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", METHODS)
def test_two_passes_equal_the_forward_pass_with_the_same_context(tiny, method, variant):
    """Algorithm 1: AttentionGeneration, pooling, Segmentation; the weights 1/N say the same in one call."""
    torch.manual_seed(4)
    model, group = tiny(method, variant), torch.rand(1, 3, 3, 64, 64)
    features = model.encode(group[0])
    context = model.pool(model.attention(features), "mean")
    everyone = torch.full((1, 3, 3), 1 / 3)
    torch.testing.assert_close(
        model.answer(features, context)[None], model(group, everyone).logits, rtol=1e-4, atol=1e-4
    )


def test_the_others_mean_is_the_partner_for_two_and_a_loop_for_more(tiny):
    ca, alpha = tiny(), torch.rand(2, 4, 5)
    torch.testing.assert_close(ca.contexts(alpha[:, :2]), alpha[:, :2].flip(1))
    torch.testing.assert_close(ca.contexts(alpha[:, :1]), alpha[:, :1])
    for i in range(4):
        want = sum(alpha[:, j] for j in range(4) if j != i) / 3
        torch.testing.assert_close(ca.contexts(alpha)[:, i], want)


def test_minimum_attention_keeps_only_what_all_images_switch_on(tiny):
    alpha = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.7, 0.4]])
    assert tiny().pool(alpha, "min").tolist() == pytest.approx([0.8, 0.1, 0.4])
    assert tiny().pool(alpha, "mean").tolist() == pytest.approx([0.85, 0.4, 0.45])
    with pytest.raises(ValueError, match="'median': one of mean, min"):
        tiny().pool(alpha, "median")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", METHODS)
def test_every_weight_is_trained(tiny, method, variant):
    """A weight without a gradient would be shipped untrained (and would stop several processes)."""
    model = tiny(method, variant).train()
    model(torch.rand(2, 2, 3, 64, 64)).logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_constant_images_give_finite_logits(tiny):
    for method in METHODS:
        for value in (0.0, 1.0):
            assert tiny(method)(torch.full((1, 2, 3, 64, 64), value)).logits.isfinite().all()


def test_sides_that_are_no_multiple_of_32_are_refused(tiny):
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny().encode(torch.rand(1, 3, 60, 64))


def test_a_missing_extra_says_which_method_offers_it(tiny, pair):
    with pytest.raises(CosegError, match=r"spatial: not among .* offered by csa"):
        tiny("ca")(pair).extra("spatial")
