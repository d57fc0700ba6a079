"""Heat maps and channels: each against a plain loop, a closed form, or autograd written another way."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from coseglib.analysis import maps as analysis
from coseglib.analysis.maps import (
    channel_cam,
    channel_importance,
    channel_table,
    flat,
    grad_cam,
    hide_object,
    match,
    nearest_classes,
    selectivity,
    separation,
    single_class,
    spatial_maps,
)
from coseglib.core.errors import CosegError
from coseglib.data.record import Group
from coseglib.data.synthetic import load_synthetic
from coseglib.layers.depthwise_correlation import depthwise_correlation
from coseglib.models import METHODS


@pytest.fixture
def awake(tiny):
    """A function (method, …) -> a small random model whose batch normalisation has seen images: features differ."""

    def build(method, variant="paper", input_size=64, **options):
        model = tiny(method, variant, input_size, **options)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            model.train()(torch.rand(2, 2, 3, 64, 64))
        return model.eval()

    return build


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def groups():
    return load_synthetic(groups=("star", "ring"), photos=8, size=32)


def by_loop(gradient, f):
    """ReLU(Σ_k a_k f_k) with every sum written out. (C, h, w) twice -> (h, w)."""
    channels, h, w = f.shape
    a = [sum(float(gradient[k, y, x]) for y in range(h) for x in range(w)) / (h * w) for k in range(channels)]
    sums = [[sum(a[k] * float(f[k, y, x]) for k in range(channels)) for x in range(w)] for y in range(h)]
    return torch.tensor(sums).clamp(min=0)


# Grad-CAM -----------------------------------------------------------------------------------------------------------


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
    logits = model.decode(maps, torch.stack([(alpha.sum(0) - alpha[i]) / 2 for i in range(3)]))
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
    with pytest.raises(CosegError, match="Linear: has no backbone"):
        grad_cam(torch.nn.Linear(1, 1), images, 0)


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


# Maps that models make themselves -----------------------------------------------------------------------------------


@torch.no_grad()
def test_spatial_maps_are_what_the_models_add_or_multiply(awake, images):
    csa = awake("csa")
    maps = spatial_maps(csa, images)
    want = torch.sigmoid(csa.encode(images)[-1].mean(dim=1))
    torch.testing.assert_close(maps.values, want)
    assert maps.limits == (0, 1) and "alpha^s" in maps.unit
    ssnm = awake("ssnm", mask_stride=16)
    maps = spatial_maps(ssnm, images)
    assert maps.values.shape == (3, 4, 4)
    assert float(maps.values.square().mean()) == pytest.approx(1, rel=1e-3)  # |√M' s|² = M'
    assert maps.limits == (-float(maps.values.abs().max()), float(maps.values.abs().max()))
    multi = spatial_maps(awake("multiclass"), images)
    assert multi.values.shape == (3, 2, 2) and multi.limits == (0.5, 1)
    for model in (awake("ca"), awake("ssnm", spatial=False), awake("multiclass", mutual_attention=False)):
        with pytest.raises(CosegError, match="has no spatial map; csa, ssnm have"):
            spatial_maps(model, images)


# Matches ------------------------------------------------------------------------------------------------------------


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
    torch.testing.assert_close(match(model, images[0], images[1], at), want, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_what_mutual_attention_matches_are_the_votes_that_decide_about_a(awake, images):
    model = awake("multiclass")
    found = match(model, images[0], images[1], (0.6, 0.2), 32)  # row 1, column 0 of 2 × 2
    layer, f = model.mutual_attention, model.encode(images[:2])[-1]
    q, k = layer.query(f[1:]), layer.key(f[:1])
    want = torch.zeros(2, 2)
    for y in range(2):
        for x in range(2):
            scores = [torch.exp(q[0, :, y, x] @ k[0, :, r, s]) for r in range(2) for s in range(2)]
            want[y, x] = scores[2] / sum(scores)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-5)
    a = spatial_maps(model, images[:2]).values[0, 1, 0]
    torch.testing.assert_close(torch.sigmoid(found.sum() / 2), a)  # σ(v / √M), M = 4


@torch.no_grad()
def test_what_dcnet_matches_sums_to_1_and_is_the_finest_map_unless_told(awake, images):
    model = awake("dcnet", "workbook")
    found = match(model, images[0], images[1], (0.5, 0.5))
    assert found.shape == (8, 8) and match(model, images[0], images[1], (0.5, 0.5), 16).shape == (4, 4)
    assert float(found.sum()) == pytest.approx(1, rel=1e-4)
    want = analysis.correlation_of(model, model.encode(images[:1]), model.encode(images[1:2]), (4, 4), 8)
    torch.testing.assert_close(found, want[0])


def test_models_that_match_nothing_and_places_that_are_not_there_are_refused(awake, images):
    for model in (awake("ca"), awake("ssnm"), awake("pfcc", kernels=()), awake("multiclass", mutual_attention=False)):
        with pytest.raises(CosegError, match=r"compares no positions.*dcnet, pfcc and multiclass"):
            match(model, images[0], images[1], (0, 0))
    with pytest.raises(ValueError, match="stride 8: PFCC matches at 16"):
        match(awake("pfcc"), images[0], images[1], (0, 0), 8)
    with pytest.raises(ValueError, match="shares of height and width"):
        match(awake("pfcc"), images[0], images[1], (0, 1.0))


# Channels of many images --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_channel_importance_is_each_images_own_whatever_the_batch(awake, images):
    ca = awake("ca", "workbook")
    alpha, pooled = channel_importance(ca, images)
    maps = ca.encode(images)
    torch.testing.assert_close(alpha, ca.attention(maps))
    torch.testing.assert_close(pooled, ca.backbone.embed(maps[-1]).mean(dim=(2, 3)))
    ssnm = awake("ssnm")
    gamma, pooled = channel_importance(ssnm, images)
    torch.testing.assert_close(gamma[1], ssnm(images[1:2][None]).extra("gamma")[0, 0], rtol=1e-4, atol=1e-5)
    assert pooled.shape == (3, ssnm.backbone.channels[-1])
    with pytest.raises(CosegError, match="DCNet: weighs no channels; ca, fca, csa and ssnm do"):
        channel_importance(awake("dcnet"), images)


def test_the_table_has_a_row_for_every_image_in_order_with_class_set_and_seen(awake, groups):
    found = channel_table(awake("ca"), groups, trained_on={"synthetic/ring"}, batch=5)
    assert found.rows["photo"].tolist() == [p.name for g in groups for p in g.photos]
    assert found.classes.tolist() == ["star"] * 8 + ["ring"] * 8
    assert found.rows["seen"].tolist() == [False] * 8 + [True] * 8 and set(found.rows.dataset) == {"synthetic"}
    assert found.importance.shape == found.pooled.shape == (16, 320)
    table = found.table()
    assert table.shape == (16, 324) and table[319].tolist() == found.importance[:, 319].tolist()
    with pytest.raises(CosegError, match="no groups"):
        channel_table(awake("ca"), [])


def test_hidden_objects_are_under_a_box_of_one_colour_and_change_the_table(awake, groups):
    image = torch.full((3, 6, 6), 10, dtype=torch.uint8)
    mask = torch.zeros(6, 6, dtype=torch.uint8)
    mask[1, 2] = mask[3, 3] = 1
    mask[5, 5] = 255  # void is no object
    image[:, 2, 2] = 200
    hidden = hide_object(image, mask)
    assert (hidden == 10).all() and image[0, 2, 2] == 200
    assert torch.equal(hide_object(image, torch.zeros_like(mask)), image)
    assert len(hide_object(image, torch.ones_like(mask)).unique()) == 1
    model = awake("ca")
    seen, unseen = (channel_table(model, groups[:1], hidden=h).pooled for h in (False, True))
    assert not np.allclose(seen, unseen)


def test_a_photograph_of_two_groups_is_in_neither_and_small_groups_are_left_out(groups):
    star, ring = single_class(groups)
    shared = {p.name for p in groups[0].photos} & {p.name for p in groups[1].photos}
    assert shared and not shared & {p.name for g in (star, ring) for p in g.photos}
    few = single_class(groups, most=3, seed=1)
    assert [len(g) for g in few] == [3, 3] and [g.name for g in few] == ["star", "ring"]
    assert few == single_class(groups, most=3, seed=1)
    alone = Group("synthetic", "one", groups[0].photos[:1], ("star",))
    assert single_class([alone]) == []


def test_what_a_model_was_trained_on_is_read_from_its_card(tiny):
    model = tiny("ca")
    with pytest.raises(CosegError, match="trained on nothing"):
        analysis.classes_trained_on(model)
    model.card = {"training": {"data": "real"}}
    known = analysis.classes_trained_on(model)
    assert {"aeroplane", "person", "cow", "flower"} <= known and not {
        "grass",
        "face",
        "panda",
        "synthetic/star",
    } & known
    model.card = {"training": {"data": "synthetic"}}
    assert "synthetic/star" in analysis.classes_trained_on(model)


def test_a_drawn_flower_is_not_seen_by_training_on_photographs_and_a_plane_is_an_aeroplane(awake, groups):
    flower = Group("synthetic", "flower", groups[0].photos[:1], ("flower",))
    plane = Group("pascal", "plane", groups[0].photos[:1], ("plane",))
    found = channel_table(awake("ca"), [flower, plane], trained_on={"flower", "aeroplane"})
    assert found.rows["seen"].tolist() == [False, True]


# Do vectors tell classes apart? -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    classes = np.repeat(["a", "b", "c"], [8, 9, 10])
    centres = {"a": 0.0, "b": 1.5, "c": 3.0}
    return rng.normal(size=(27, 4)) + np.array([centres[c] for c in classes])[:, None], classes


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_classes_are_the_vote_of_the_five_nearest_others(blobs, metric):
    vectors, classes = blobs
    found = nearest_classes(vectors, classes, 5, metric)
    for i, x in enumerate(vectors):

        def distance(j, x=x):
            y = vectors[j]
            return np.linalg.norm(x - y) if metric == "euclidean" else 1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)

        nearest = sorted((j for j in range(len(vectors)) if j != i), key=distance)[:5]
        votes = {c: sum(classes[j] == c for j in nearest) for c in "abc"}
        assert found[i] == min(votes, key=lambda c: (-votes[c], c))


def test_separation_is_the_silhouette_by_its_definition_and_the_share_of_right_votes(blobs):
    vectors, classes = blobs
    widths = []
    for i, x in enumerate(vectors):
        mean = {
            c: np.mean([np.linalg.norm(x - y) for j, y in enumerate(vectors) if classes[j] == c and j != i])
            for c in "abc"
        }
        own, other = mean.pop(classes[i]), min(mean[c] for c in mean if c != classes[i])
        widths.append((other - own) / max(own, other))
    found = separation(vectors, classes)
    assert found["silhouette"] == pytest.approx(np.mean(widths))
    assert found["accuracy"] == np.mean(nearest_classes(vectors, classes) == classes) > 0.6
    with pytest.raises(ValueError, match="5 vectors: must be more than 5"):
        separation(vectors[:5], classes[:5])


def test_selectivity_is_the_share_of_variance_between_classes(blobs):
    vectors, classes = blobs
    vectors = np.column_stack([vectors, [{"a": 0, "b": 1, "c": 5}[c] for c in classes], np.ones(27)])
    found = selectivity(vectors, classes)
    for d, column in enumerate(vectors.T):
        within = sum((x - column[classes == c].mean()) ** 2 for x, c in zip(column, classes, strict=True))
        total = sum((x - column.mean()) ** 2 for x in column)
        assert found[d] == pytest.approx(1 - within / total if total else 0)
    assert found[4] == pytest.approx(1) and found[5] == 0


def test_class_means_are_rows_in_order_of_appearance(blobs):
    vectors, classes = blobs
    means = analysis.class_means(vectors[::-1], classes[::-1])
    assert means.index.tolist() == ["c", "b", "a"]
    np.testing.assert_allclose(means.loc["a"], vectors[:8].mean(axis=0))


def test_the_plane_keeps_planted_classes_and_refuses_what_makes_no_sense(blobs):
    vectors, _ = blobs
    plane = flat(10 * vectors, perplexity=5, seed=3)
    assert plane.shape == (27, 2) and np.array_equal(plane, flat(10 * vectors, perplexity=5, seed=3))
    centred = vectors - vectors.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    np.testing.assert_allclose(np.abs(flat(vectors, "pca")), np.abs(centred @ directions.T), atol=1e-8)
    with pytest.raises(ValueError, match="between 0 and 27"):
        flat(vectors, perplexity=27)
    with pytest.raises(ValueError, match="'tsne' or 'pca'"):
        flat(vectors, "umap")
