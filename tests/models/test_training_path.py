"""What training sees is what the papers print: the sampler's own batches through each system, against plain loops.

Of the systems that learn from masks; multi-class learns on the group itself (`tests/unsupervised`).
"""

import pytest
import torch
from torch.nn import functional as F

from coseglib.data.cache import TrainingSet, training_set
from coseglib.data.sampler import KINDS_OF_GROUP, GroupSampler
from coseglib.data.synthetic import load_synthetic
from coseglib.layers.spectral_mask import foreground_positive
from coseglib.models import METHODS
from coseglib.models.spatial_semantic import modulate

SMALL = {"ssnm": {"categories": 16, "width": 16, "mask_stride": 16}, "pfcc": {"kernels": (3,), "width": 8}}
LEARN = [name for name, model in METHODS.items() if not model.online]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> TrainingSet:
    groups = load_synthetic(groups=("star", "ring"), photos=6, size=64)
    return training_set([p for g in groups for p in g.photos], 64, folder=tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=[(kind, n) for kind in KINDS_OF_GROUP for n in (2, 4)], ids=lambda p: f"{p[0]}-{p[1]}")
def batch(request, photographs):
    kind, n = request.param
    shares = tuple(float(k == kind) for k in KINDS_OF_GROUP)
    found = GroupSampler(photographs, size=n, groups=2, side=64, shares=shares, pasted=1.0, steps=1)[0]
    assert set(found.kinds) == {kind}
    return found


def _partners(weights):
    """[(image, {partner: its weight})] of one group."""
    return [(i, {j: float(w) for j, w in enumerate(row) if w > 0}) for i, row in enumerate(weights)]


def _context(method, model, images, weights):
    f = model.encode(images)[-1]
    layer, masks = model.attention_layers[0], []
    alpha = [torch.sigmoid(layer.weight @ one.flatten(1).mean(1) + layer.bias) for one in f]  # eqs. (1), (2)
    for i, partners in _partners(weights):
        if method == "fca":
            members = [alpha[i], *(alpha[j] for j in partners)]
            both = 2 * sum(members) / len(members)
            if len(partners) == 1:
                torch.testing.assert_close(both, alpha[i] + alpha[next(iter(partners))])  # as printed
            gate = torch.sigmoid(model.fusion[0].weight @ both + model.fusion[0].bias)[:, None, None]  # eq. (5)
        else:
            gate = sum(w * alpha[j] for j, w in partners.items())[:, None, None]  # eqs. (3), (4)
        if method == "csa":
            gate = gate * torch.sigmoid(f[i].mean(0))  # eqs. (10) to (13)
        masks.append(model.decoder((gate * f[i])[None])[0].softmax(0))
    return torch.stack(masks)


def _by_partners(pair, model, images, weights):
    """Σ_j w_ij p_ij. pair(model, image, other) -> logits."""
    return torch.stack(
        [
            sum(w * pair(model, images[i : i + 1], images[j : j + 1])[0].softmax(0) for j, w in partners.items())
            for i, partners in _partners(weights)
        ]
    )


def _pfcc(model, a, b):
    def feature(image):
        maps = model.backbone(image)
        return torch.cat([maps[3], F.interpolate(maps[4], scale_factor=2, mode="bilinear")], dim=1)

    f_a, base, other = feature(a), model.phi1(feature(a)), model.phi1(feature(b))  # eq. (1)
    s = F.interpolate(other, size=(3, 3), mode="bilinear")[0]  # eq. (2)
    s = s / s.flatten(1).norm(dim=1).clamp(min=1e-5)[:, None, None]
    padded = F.pad(base[0], (1, 1, 1, 1))
    h, w = base.shape[-2:]
    slid = sum(s[:, v, u, None, None] * padded[:, v : v + h, u : u + w] for v in range(3) for u in range(3))  # eq. (3)
    return model.decoder(torch.cat([F.relu(model.phi2(slid[None])), f_a], dim=1))  # eq. (4)


def _dcnet(model, a, b):
    q, others = model.backbone(a), model.backbone(b)
    y = []
    for module, x, z in zip(model.correlations, q[::-1], others[::-1], strict=False):
        h, w = x.shape[-2:]
        d_q, i_q, d, i = (
            t[0].flatten(1) for t in (module.content(x), module.index(x), module.content(z), module.index(z))
        )
        place = torch.arange(h * w)
        cross = (place[:, None] // w == place // w) | (place[:, None] % w == place % w)
        for k in range(2):
            if k:
                i = module.index_of_aggregate(d.unflatten(1, (h, w))[None])[0].flatten(1)
            scores = (i_q.T @ i).masked_fill(~cross, -torch.inf)
            spatial = d @ scores.softmax(1).T  # eqs. (1), (2)
            channel = (d.T @ (d_q @ d.T).softmax(0)).T  # eqs. (3), (4)
            g_s = torch.sigmoid(module.gate.weight.flatten() @ spatial + module.gate.bias)  # eq. (5)
            d = spatial * g_s + channel * torch.sigmoid(channel.mean(1, keepdim=True))  # eqs. (6), (7)
        y.append(torch.cat([d, d_q]).unflatten(1, (h, w))[None])
    return model.decoder([*y, q[1], q[0]])


def _ssnm(model, images, weights):
    maps = model.backbone(images)[1:]
    varphi = F.normalize(model.fused(maps), dim=1).flatten(2)  # (N, d, P)
    size, masks = maps[model.level].shape[-2:], []
    pool = model.pooling
    for i, partners in _partners(weights):
        members = sorted({i, *partners})
        x = torch.cat([varphi[j] for j in members], dim=1).double()  # (d, M')
        s = torch.linalg.eigh(x.T @ x - 1).eigenvectors[:, -1].float()  # eq. (10)
        s = foreground_positive(s.view(len(members), *size))[members.index(i)] * x.shape[1] ** 0.5
        g = []
        for j in members:  # HSP
            u = pool.image.reduce(maps[-1][j].flatten(1).T)
            g.append(pool.image.expand((torch.cov(u.T, correction=0)).flatten()))
        u = pool.group.reduce(torch.stack(g))
        gamma = pool.group.expand((u.T @ u / len(u)).flatten())  # eq. (3)
        levels = [
            modulate(lateral(f[i : i + 1]), gamma[None], s[None, None])
            for lateral, f in zip(model.laterals, maps, strict=True)
        ]
        masks.append(model.decoder(levels[::-1])[0].softmax(0))
    return torch.stack(masks)


@torch.no_grad()
@pytest.mark.parametrize("method", LEARN)
def test_the_batches_of_training_are_answered_by_the_equations(awake, batch, method):
    model = awake(method, **SMALL.get(method, {}))
    images = batch.images.float() / 255
    found = model(images, batch.weights).logits.softmax(dim=2)
    for group, weights, p in zip(images, batch.weights, found, strict=True):
        if model.kind == "context":
            want = _context(method, model, group, weights)
        elif model.kind == "partner":
            want = _by_partners({"pfcc": _pfcc, "dcnet": _dcnet}[method], model, group, weights)
        else:
            want = _ssnm(model, group, weights)
        torch.testing.assert_close(p, want, rtol=1e-3, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("method", ["ca", "fca", "csa", "pfcc", "dcnet", "ssnm"])
@pytest.mark.parametrize("variant", ["paper", "workbook"])
def test_a_pair_is_answered_alike_with_the_samplers_weights_and_without(awake, photographs, method, variant):
    model = awake(method, variant, **SMALL.get(method, {}))
    pairs = GroupSampler(photographs, size=2, groups=2, side=64, steps=1)[0]
    images = pairs.images.float() / 255
    torch.testing.assert_close(model(images, pairs.weights).logits, model(images).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", LEARN)
def test_a_batch_of_training_gives_finite_losses_and_a_gradient_to_every_weight(awake, batch, method):
    model = awake(method, **SMALL.get(method, {})).train()
    output = model(batch.images.float() / 255, batch.weights)
    losses = model.loss(output, batch.targets, batch.classes, dice=0.5)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite() and not [n for n, p in model.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in model.parameters())
