"""The blocked attention against plain loops and plain autograd, and that no whole matrix is ever held."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coseglib.layers.mutual_attention import attend, matched

BLOCKS = (1, 40, 10**6)  # numbers: one row at a time, some rows, everything


def _random(*shape, seed=0, **kind):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(**kind)


def _softmax_row(scores: list[float]) -> list[float]:
    top = max(scores)
    parts = [math.exp(s - top) for s in scores]
    return [p / sum(parts) for p in parts]


def _plain_attend(query, key, value):
    return (query @ key.transpose(1, 2)).softmax(dim=-1) @ value


def _plain_matched(query, key):
    scores = torch.einsum("bjmc,bnlc->bjnml", query, key)
    return scores.softmax(dim=-1).sum(dim=3)


@pytest.mark.parametrize("block", BLOCKS)
def test_attend_equals_loops_over_positions(block):
    q, k, v = _random(2, 5, 3), _random(2, 7, 3, seed=1), _random(2, 7, 4, seed=2)
    found = attend(q, k, v, block)
    for p in range(2):
        for u in range(5):
            row = _softmax_row([sum(float(q[p, u, c] * k[p, w, c]) for c in range(3)) for w in range(7)])
            for c in range(4):
                want = sum(row[w] * float(v[p, w, c]) for w in range(7))
                assert float(found[p, u, c]) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
def test_matched_equals_loops_over_pairs_and_positions(block):
    q, k = _random(2, 3, 5, 2), _random(2, 4, 6, 2, seed=1)
    found = matched(q, k, block)
    assert found.shape == (2, 3, 4, 6)
    for b in range(2):
        for j in range(3):
            for n in range(4):
                columns = [0.0] * 6
                for u in range(5):
                    scores = [sum(float(q[b, j, u, c] * k[b, n, w, c]) for c in range(2)) for w in range(6)]
                    columns = [have + new for have, new in zip(columns, _softmax_row(scores), strict=True)]
                assert found[b, j, n].tolist() == pytest.approx(columns, rel=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("blocked", "plain", "shapes"),
    [
        (attend, _plain_attend, [(2, 6, 3), (2, 9, 3), (2, 9, 5)]),
        (matched, _plain_matched, [(2, 3, 6, 4), (2, 3, 7, 4)]),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(block, blocked, plain, shapes):
    inputs = [_random(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    found, want = blocked(*inputs, block), plain(*inputs)
    torch.testing.assert_close(found, want)
    weights = _random(*want.shape, seed=9)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    theirs = torch.autograd.grad((want * weights).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_agree_with_finite_differences():
    inputs = [_random(*s, seed=i).requires_grad_() for i, s in enumerate([(1, 4, 2), (1, 3, 2), (1, 3, 2)])]
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, 3), inputs)
    inputs = [_random(*s, seed=i).requires_grad_() for i, s in enumerate([(1, 2, 4, 2), (1, 2, 3, 2)])]
    assert torch.autograd.gradcheck(lambda q, k: matched(q, k, 12), inputs)


def test_keys_that_are_views_with_strides_of_their_own_are_fine():
    """The models' queries and keys are transposed maps."""
    q, k, v = (_random(2, 3, 8, seed=i).transpose(1, 2).requires_grad_() for i in range(3))
    torch.testing.assert_close(attend(q, k, v, 20), _plain_attend(q, k, v))
    attend(q, k, v, 20).sum().backward()
    group = _random(2, 3, 4, 8, seed=5).transpose(2, 3).requires_grad_()
    torch.testing.assert_close(matched(group, group, 100), _plain_matched(group, group))
    matched(group, group, 100).square().sum().backward()


class _Largest(TorchDispatchMode):
    """The most numbers that any tensor made within holds."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, torch.Tensor):
                self.numbers = max(self.numbers, made.numel())
        return out


@pytest.mark.parametrize("plain", [False, True])
def test_no_tensor_larger_than_the_block_is_made_forward_or_backward(plain):
    positions, channels, block = 200, 4, 2000
    q, k = (_random(1, 1, positions, channels, seed=i, dtype=torch.float32).requires_grad_() for i in (0, 1))
    with _Largest() as largest:
        if plain:
            out = _plain_attend(q[0], k[0], k[0]).sum() + _plain_matched(q, k).square().sum()
        else:
            out = attend(q[0], k[0], k[0], block).sum() + matched(q, k, block).square().sum()
        out.backward()
    assert (largest.numbers == positions**2) if plain else (largest.numbers <= block)


def test_nothing_but_the_inputs_waits_for_the_backward_pass():
    q, k = (_random(1, 2, 50, 3, seed=i).requires_grad_() for i in (0, 1))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        matched(q, k, 100)
        attend(q[0], k[0], k[0], 100)
    assert saved and max(saved) <= q.numel()


def test_each_position_of_the_reference_has_one_vote():
    v = matched(_random(2, 3, 11, 4), _random(2, 5, 7, 4, seed=1))
    assert bool((v >= 0).all())
    torch.testing.assert_close(v.sum(dim=-1), torch.full((2, 3, 5), 11.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_stays_finite(dtype):
    q, k = (30 * _random(1, 2, 9, 64, seed=i, dtype=torch.float32) for i in (0, 1))  # scores beyond float16's range
    with torch.autocast("cpu", torch.bfloat16):
        halves = [x.to(dtype).requires_grad_() for x in (q, k)]
        found = matched(*halves)
        found.square().sum().backward()
    assert found.dtype == torch.float32 and halves[0].grad.dtype == dtype
    assert bool(found.isfinite().all()) and all(bool(x.grad.isfinite().all()) for x in halves)
    torch.testing.assert_close(found, _plain_matched(q.to(dtype).float(), k.to(dtype).float()), rtol=1e-3, atol=1e-3)


def test_equal_positions_share_their_votes_equally():
    """Constant maps: no NaN, every position of the anchor is chosen once on average."""
    same = torch.zeros(1, 2, 6, 3)
    torch.testing.assert_close(matched(same, same), torch.ones(1, 2, 2, 6))
    torch.testing.assert_close(attend(same[0], same[0], same[0] + 2), torch.full((2, 6, 3), 2.0))
