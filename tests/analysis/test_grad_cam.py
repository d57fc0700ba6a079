"""Grad-CAM against a plain loop, and against autograd written another way."""

import pytest
import torch
from tiny_models import TinyContext

from coseglib.analysis.maps import channel_cam, grad_cam
from coseglib.core.errors import CosegError
from coseglib.models import METHODS


def by_loop(gradient, f):
    """ReLU(Σ_k a_k f_k) with every sum written out. (C, h, w) twice -> (h, w)."""
    channels, h, w = f.shape
    a = [sum(float(gradient[k, y, x]) for y in range(h) for x in range(w)) / (h * w) for k in range(channels)]
    sums = [[sum(a[k] * float(f[k, y, x]) for k in range(channels)) for x in range(w)] for y in range(h)]
    return torch.tensor(sums).clamp(min=0)


@pytest.mark.parametrize("stride", [32, 16])
def test_grad_cam_is_the_loop_over_channels_through_all_that_the_map_feeds(awake, images, stride):
    """Written again from the backbone's stages: the map at stride 16 counts by itself and by what stride 32 makes."""
    model = awake("ca", "workbook")
    found = grad_cam(model, images, 1, stride)
    maps, x = [], model.backbone.preprocess(images)
    for s, stage in zip(model.backbone.strides, model.backbone.stages, strict=True):
        x = stage(x).detach() if s <= stride else stage(x)
        maps.append(x.requires_grad_() if s == stride else x)
    alpha = model.attention(maps)
    logits = model.answer(maps, torch.stack([(alpha.sum(0) - alpha[i]) / 2 for i in range(3)]))
    f = maps[model.backbone.strides.index(stride)]
    (logits[1, 1] - logits[1, 0]).mean().backward()
    want = torch.stack([by_loop(f.grad[i], f.detach()[i]) for i in range(3)])
    assert want.max() > 0 and want[0].max() > 0  # the partners count in CA
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", ["paper", "workbook"])
def test_every_model_of_the_registry_has_a_grad_cam_with_a_map_for_each_image(awake, images, method, variant):
    model = awake(method, variant)
    before = [p.grad for p in model.parameters()]
    found = grad_cam(model, images, 0, 16)
    assert found.shape == (3, 4, 4) and bool(found.isfinite().all()) and float(found.min()) >= 0
    assert not found.requires_grad and [p.grad for p in model.parameters()] == before
    assert not model.backbone._forward_hooks


def test_grad_cam_works_without_gradients_around_it_on_frozen_weights_and_below_stride_8(awake, images):
    model = awake("ca")
    want = grad_cam(model, images, 0, 4)
    model.requires_grad_(False)
    model.backbone.stem_learns = False
    with torch.no_grad():
        torch.testing.assert_close(grad_cam(model, images, 0, 4), want)
    assert not model.backbone.stem_learns and not images.requires_grad


def test_a_model_that_asks_no_partner_has_empty_maps_for_the_partners(awake, images):
    found = grad_cam(awake("pfcc", kernels=()), images, 2)
    assert found[2].max() > 0 and not found[:2].any()


def test_grad_cam_of_chosen_pixels_is_of_their_mean_alone(awake, images):
    model = awake("ca")
    left = torch.zeros(64, 64, dtype=torch.bool)
    left[:, :32] = True
    everywhere = grad_cam(model, images, 0, pixels=torch.ones_like(left))
    torch.testing.assert_close(everywhere, grad_cam(model, images, 0))
    assert not torch.allclose(grad_cam(model, images, 0, pixels=left), everywhere)
    with pytest.raises(ValueError, match="none is chosen"):
        grad_cam(model, images, 0, pixels=~torch.ones_like(left))


def test_the_last_label_of_a_multi_class_model_has_a_map_and_the_next_one_is_refused(awake, images):
    model = awake("multiclass", classes=3)
    assert grad_cam(model, images, 0, label=3).shape == (3, 2, 2)
    with pytest.raises(ValueError, match="label 4: 1 to 3"):
        grad_cam(model, images, 0, label=4)


def test_what_is_not_there_is_refused_by_name(awake, images):
    model = awake("ca")
    with pytest.raises(ValueError, match="image 3 of a group of 3"):
        grad_cam(model, images, 3)
    with pytest.raises(ValueError, match="stride 7: one of 2, 4, 8, 16, 32"):
        grad_cam(model, images, 0, 7)
    with pytest.raises(ValueError, match="channel 320: 0 to 319"):
        channel_cam(model, images, 320)
    with pytest.raises(CosegError, match="PFCC: has no channel attention; ca, fca, csa have"):
        channel_cam(awake("pfcc"), images, 0)
    with pytest.raises(CosegError, match="TinyContext: has no backbone"):
        grad_cam(TinyContext(), images, 0)


def test_a_channels_map_is_its_row_of_the_linear_layer_times_the_features(awake, images):
    """As printed, log-odds of alpha_c = Σ_k W_ck GAP(f_k) + b_c, so a_k = W_ck / M and no autograd is needed."""
    model = awake("csa")
    with torch.no_grad():
        f = model.encode(images)[-1]
    row = model.attention_layers[0].weight[7].detach()
    want = torch.stack([by_loop(row[:, None, None].expand_as(one) / one[0].numel(), one) for one in f])
    assert want.max() > 0
    torch.testing.assert_close(channel_cam(model, images, 7), want, rtol=1e-3, atol=1e-6)


def test_a_channels_map_does_not_depend_on_the_other_images_or_on_saturation(awake, images):
    model = awake("ca", "workbook")
    together = channel_cam(model, images, 400, 16)  # of the attention at stride 8
    alone = torch.cat([channel_cam(model, images[i : i + 1], 400, 16) for i in range(3)])
    near = 0.03 * float(together.max())  # a batch of another size rounds otherwise, and that may turn a ReLU
    assert near > 0 and float((together - together.roll(1, 0)).abs().max()) > 10 * near
    torch.testing.assert_close(together, alone, rtol=0, atol=near)
    model.attention_layers[-1].bias.data += 40  # alpha is 1, and the sigmoid's slope 0
    torch.testing.assert_close(channel_cam(model, images, 400, 16), together, rtol=0, atol=near)
