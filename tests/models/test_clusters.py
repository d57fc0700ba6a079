import math

import pytest
import torch

from coseglib.models.backbones import build_backbone
from coseglib.models.clusters import (
    Prototypes,
    WeighedVotes,
    evidence,
    on_rim,
    ranks,
    spread,
    undo_last_stride,
)
from coseglib.models.contract import others_equally


def test_ranks_are_shares_of_smaller_values_and_equal_values_share_theirs():
    found = ranks(torch.tensor([[3.0, 1.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0]]))
    assert found.tolist() == [[0.75, 0.125, 0.5, 0.125], [0.375] * 4]


def _smooth(values):
    """{(y, x): value} -> the mean over 3 × 3 positions, of those that there are."""

    def around(y, x):
        return [values[i, j] for i in (y - 1, y, y + 1) for j in (x - 1, x, x + 1) if (i, j) in values]

    return {at: sum(around(*at)) / len(around(*at)) for at in values}


def _rank(values):
    """{(y, x): value} -> the share of smaller ones, equal ones counted half."""
    every = [round(v, 9) for v in values.values()]
    return {
        at: (sum(v < round(mine, 9) for v in every) + (every.count(round(mine, 9)) - 1) / 2) / len(every)
        for at, mine in values.items()
    }


def test_evidence_equals_loops_over_positions():
    """Plainly, float64: the ranks of |f| and of the distance from the border's mean, smoothed over what there is."""
    torch.manual_seed(0)
    h, w = 5, 7
    f, z = torch.rand(2, 6, h, w), torch.nn.functional.normalize(torch.randn(2, 3, h, w), dim=1)
    found = evidence(f, z)
    for p in range(2):
        rim = [(y, x) for y in range(h) for x in range(w) if y in (0, h - 1) or x in (0, w - 1)]
        mean = sum(z[p, :, y, x].double() for y, x in rim) / len(rim)
        strength = {(y, x): float(f[p, :, y, x].double().norm()) for y in range(h) for x in range(w)}
        unlike = {(y, x): -float(z[p, :, y, x].double() @ mean) for y, x in strength}
        one, other = (_rank(_smooth(values)) for values in (strength, unlike))
        for (y, x), wanted in _rank({at: one[at] + other[at] for at in one}).items():
            assert math.isclose(float(found[p, y, x]), wanted + 0.5 / (h * w), abs_tol=1e-6)
    assert float(found.min()) > 0 and float(found.max()) < 1


def test_a_border_is_a_twelfth_of_the_side_and_never_nothing():
    assert int(on_rim(24, 24).sum()) == 24 * 24 - 20 * 20 and int(on_rim(3, 4).sum()) == 12 - 2


@torch.no_grad()
def test_weighed_votes_equal_loops_over_pairs_and_positions():
    torch.manual_seed(1)
    layer, n, c, h, w = WeighedVotes(3), 3, 3, 4, 2
    layer.query.weight.add_(0.3 * torch.randn_like(layer.query.weight))
    f, e = torch.nn.functional.normalize(torch.randn(1, n, c, h, w), dim=2), torch.rand(1, n, h, w)
    found = layer(f, e, others_equally(n))

    def two_by_two(x, at):
        y, z = divmod(at, w // 2)
        return x[..., 2 * y : 2 * y + 2, 2 * z : 2 * z + 2].mean(dim=(-2, -1))

    for anchor in range(n):
        total = torch.zeros(h * w)
        for j in (k for k in range(n) if k != anchor):
            good, every = torch.zeros(h * w), torch.zeros(h * w)
            for m in range(h * w // 4):
                mean = two_by_two(f[0, j], m)
                query = layer.query.weight[:, :, 0, 0] @ (mean / mean.norm()) + layer.query.bias
                keys = [layer.key.weight[:, :, 0, 0] @ f[0, anchor, :, i // w, i % w] for i in range(h * w)]
                shares = torch.stack([query @ key for key in keys]).softmax(0)
                good, every = good + two_by_two(e[0, j], m) * shares, every + shares
            total += good / every / (n - 1)
        torch.testing.assert_close(found[0, anchor].flatten(), total, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_the_others_objects_choose_is_marked():
    """Two kinds of position; all images hold both, and the others are evident where they hold the first."""
    f = torch.zeros(1, 3, 2, 4, 4)
    f[:, :, 0, :, :2], f[:, :, 1, :, 2:] = 1, 1
    a = WeighedVotes(2)(f, f[:, :, 0], others_equally(3))
    assert float(a[..., :2].min()) > 0.9 and float(a[..., 2:].max()) < 0.1
    assert float(spread(a)[..., :2].min()) > 0.8


def test_spread_is_a_half_where_nothing_differs():
    torch.testing.assert_close(spread(torch.full((2, 3, 3), 0.7)), torch.full((2, 3, 3), 0.5), rtol=0, atol=1e-3)


@torch.no_grad()
def test_prototypes_equal_loops_over_positions_and_prototypes():
    torch.manual_seed(2)
    layer = Prototypes(4, classes=2, backgrounds=3)
    layer.bias.copy_(torch.randn(3))
    layer.trust.copy_(torch.tensor([0.7, 1.3]))
    f, e, a = torch.nn.functional.normalize(torch.randn(2, 4, 3, 5), dim=1), torch.rand(2, 3, 5), torch.rand(2, 3, 5)
    found = layer(f, e, a)
    for p in range(2):
        for y in range(3):
            for x in range(5):
                cosines = [float(row @ f[p, :, y, x] / row.norm()) for row in layer.weight]
                back = math.log(sum(math.exp(10 * c) for c in cosines[:3]))
                back -= 0.7 * (2 * float(e[p, y, x]) - 1) + 1.3 * (2 * float(a[p, y, x]) - 1)
                wanted = [back + float(layer.bias[0]), *(10 * cosines[2 + k] + float(layer.bias[k]) for k in (1, 2))]
                torch.testing.assert_close(found[p, :, y, x], torch.tensor(wanted), rtol=1e-4, atol=1e-4)
    without = layer(f, None, None)
    torch.testing.assert_close(without[:, 1:], found[:, 1:])


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet50"])
def test_without_its_last_stride_a_network_says_the_same_at_every_second_position(name):
    """Dilated layers see, from these positions, what they saw; but for the border's padding nothing else changes."""
    torch.manual_seed(3)
    net = build_backbone(name, None).eval()
    image = torch.rand(1, 3, 256, 256)
    before = net(image)[-1]
    undo_last_stride(net.stages[-1])
    after = net(image)[-1]
    assert after.shape[-1] == 2 * before.shape[-1]
    torch.testing.assert_close(after[..., ::2, ::2], before, rtol=1e-3, atol=1e-4)
