import math

import pytest
import torch

from coseglib.layers import cross_attention
from coseglib.layers.cross_attention import channel_cross_attention, nonlocal_attention, spatial_cross_attention


def _maps(b, h, w, index, content, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((b, index, h, w), (b, index, h, w), (b, content, h, w))
    return [torch.randn(size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]


def _cross(h, w, y, x):
    return [(y, v) for v in range(w)] + [(u, x) for u in range(h) if u != y]


def _by_loops(q, k, v, positions):
    """Eqs. (1), (2) one position after the other; positions(h, w, y, x): those that (y, x) collects from."""
    b, c, h, w = v.shape
    images = []
    for n in range(b):
        rows = []
        for y in range(h):
            for x in range(w):
                there = positions(h, w, y, x)
                scores = [sum(q[n, i, y, x] * k[n, i, r, s] for i in range(q.shape[1])) for r, s in there]
                weights = [torch.exp(z - max(scores)) for z in scores]
                rows.append(sum(a * v[n, :, r, s] for a, (r, s) in zip(weights, there, strict=True)) / sum(weights))
        images.append(torch.stack(rows).T.reshape(c, h, w))
    return torch.stack(images)


def _value_and_gradients(function, maps):
    maps = [m.detach().clone().requires_grad_() for m in maps]
    out = function(*maps)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(out.dtype)
    (out * weights).sum().backward()
    return [out.detach(), *(m.grad for m in maps)]


@pytest.mark.parametrize(("h", "w"), [(5, 7), (4, 2)])
def test_spatial_cross_attention_equals_a_loop_over_positions_in_value_and_gradient(h, w):
    maps = _maps(2, h, w, 2, 3)
    want = _value_and_gradients(lambda *m: _by_loops(*m, _cross), maps)
    for mine, loops in zip(_value_and_gradients(spatial_cross_attention, maps), want, strict=True):
        torch.testing.assert_close(mine, loops, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("h", "w"), [(3, 4), (1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("slab", [1, 2**17])
def test_the_gradient_is_that_of_finite_differences(h, w, slab, monkeypatch):
    monkeypatch.setattr(cross_attention, "SLAB", slab)  # 1: every line is a slab of its own
    assert torch.autograd.gradcheck(spatial_cross_attention, _maps(2, h, w, 2, 2, torch.float64))


def test_the_centre_counts_once():
    """With equal scores each of the H + W − 1 positions weighs the same."""
    h, w = 3, 5
    content = torch.arange(h * w, dtype=torch.float64).view(1, 1, h, w)
    out = spatial_cross_attention(*torch.zeros(2, 1, 1, h, w, dtype=torch.float64), content)
    for y in range(h):
        for x in range(w):
            want = (content[0, 0, y].sum() + content[0, 0, :, x].sum() - content[0, 0, y, x]) / (h + w - 1)
            assert out[0, 0, y, x] == pytest.approx(float(want))


def test_turning_the_maps_turns_the_result():
    maps = [m.detach() for m in _maps(1, 4, 6, 3, 2)]
    turned = spatial_cross_attention(*(m.transpose(2, 3) for m in maps))
    torch.testing.assert_close(turned.transpose(2, 3), spatial_cross_attention(*maps))


def test_slabs_and_memory_formats_do_not_change_the_result(monkeypatch):
    maps = _maps(3, 6, 5, 4, 7)
    want = _value_and_gradients(spatial_cross_attention, maps)
    monkeypatch.setattr(cross_attention, "SLAB", 3 * 5 * 7 * 2)  # two rows, or two columns of six
    slabs = list(cross_attention._slabs(maps[2].permute(0, 2, 3, 1)))
    assert [len(range(*s.indices(6))) for columns, s in slabs if not columns] == [2, 2, 2]
    channels_last = [m.detach().to(memory_format=torch.channels_last) for m in maps]
    for mine, whole in zip(_value_and_gradients(spatial_cross_attention, channels_last), want, strict=True):
        torch.testing.assert_close(mine, whole)


def test_nothing_of_the_size_of_the_correlation_is_kept_for_the_backward_pass():
    """The inputs, the output and one number a position; M (H + W) would be 24 times as much as that number."""
    kept = {}
    maps = _maps(1, 12, 12, 2, 3)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t.numel()), lambda t: t):
        spatial_cross_attention(*maps)
    assert sum(kept.values()) == sum(m.numel() for m in maps) + 3 * 144 + 144


def test_large_scores_do_not_overflow():
    maps = [1e4 * m for m in _maps(1, 4, 4, 2, 2)]
    for result in _value_and_gradients(spatial_cross_attention, maps):
        assert result.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [spatial_cross_attention, nonlocal_attention])
def test_half_precision_rounds_the_contents_alone(function, dtype):
    """Scores of half-precision maps are computed in float32: 300 · 300 is beyond float16's largest number."""
    q, k, v = _maps(1, 4, 5, 3, 4)
    maps = [(300 * q).to(dtype), (300 * k).to(dtype), v.to(dtype)]
    want = _value_and_gradients(function, [m.double() for m in maps])
    with torch.autocast("cpu", dtype):
        found = _value_and_gradients(function, maps)
    assert all(f.dtype == dtype for f in found)
    torch.testing.assert_close(found[0].double(), want[0], rtol=2e-2, atol=2e-2)
    assert all(f.isfinite().all() for f in found)


def test_nonlocal_attention_equals_a_loop_over_all_positions():
    maps = _maps(2, 3, 4, 2, 3, torch.float64)
    everywhere = _value_and_gradients(
        lambda *m: _by_loops(*m, lambda h, w, y, x: [(r, s) for r in range(h) for s in range(w)]), maps
    )
    for mine, loops in zip(_value_and_gradients(nonlocal_attention, maps), everywhere, strict=True):
        torch.testing.assert_close(mine, loops)


def test_a_single_row_is_its_own_cross():
    """With H = 1 the cross is the whole map, so the two attentions are one."""
    maps = _maps(2, 1, 6, 3, 4)
    for mine, full in zip(
        _value_and_gradients(spatial_cross_attention, maps), _value_and_gradients(nonlocal_attention, maps), strict=True
    ):
        torch.testing.assert_close(mine, full)


def _channels_by_loops(query, answer):
    """Eqs. (3), (4): Z[a, b] over all positions; column b of Z is normalised over a, which (4) sums."""
    b, c, h, w = answer.shape
    positions = [(y, x) for y in range(h) for x in range(w)]
    images = []
    for n in range(b):
        z = [[sum(query[n, i, y, x] * answer[n, j, y, x] for y, x in positions) for j in range(c)] for i in range(c)]
        maps = []
        for j in range(c):
            weights = [torch.exp(z[i][j]) for i in range(c)]
            maps.append(sum(weights[i] * answer[n, i] for i in range(c)) / sum(weights))
        images.append(torch.stack(maps))
    return torch.stack(images)


def test_channel_cross_attention_equals_plain_loops_in_value_and_gradient():
    maps = [m for m in _maps(2, 3, 2, 3, 3, torch.float64)[:2]]
    want = _value_and_gradients(_channels_by_loops, maps)
    for mine, loops in zip(_value_and_gradients(channel_cross_attention, maps), want, strict=True):
        torch.testing.assert_close(mine, loops)


def test_channel_weights_sum_to_one_over_what_is_summed():
    """Channels that are all the same stay the same, whatever the correlation."""
    query, answer = torch.randn(1, 4, 3, 3), torch.randn(1, 1, 3, 3).expand(1, 4, 3, 3)
    torch.testing.assert_close(channel_cross_attention(query, answer), answer)


def test_maps_of_different_sizes_are_refused():
    q, k, v = _maps(1, 4, 4, 2, 3)
    for wrong in ((q, k[..., :3], v), (q, k, v[..., :3]), (q[:, :1], k, v), (q[0], k[0], v[0])):
        for function in (spatial_cross_attention, nonlocal_attention):
            with pytest.raises(ValueError, match="must be the same"):
                function(*wrong)
    with pytest.raises(ValueError, match="must be the same"):
        channel_cross_attention(v, v[:, :2])


def test_zero_maps_give_the_mean_and_finite_gradients():
    zero = [torch.zeros(1, c, 3, 3) for c in (2, 2, 4)]
    functions = [lambda q, k, v, sharp=sharp: channel_cross_attention(v, v, sharp) for sharp in (None, 10.0)]
    for function in (spatial_cross_attention, nonlocal_attention, *functions):
        out, *gradients = _value_and_gradients(function, zero)
        assert math.isclose(float(out.abs().max()), 0)
        assert all(g is None or g.isfinite().all() for g in gradients)
