"""Attention between two images: along the cross of a position, between channels, and over all positions.

Symbols   i^Q, i^A   index features of the query and the answer image    (B, I, H, W)
          d^Q, d^A   content features                                    (B, C, H, W)
          M          H · W positions
          the cross of a position: its row and its column, H + W − 1 positions, itself counted once

| function                | a position (or channel) collects from | time            | memory, forward and backward |
|-------------------------|---------------------------------------|-----------------|------------------------------|
| spatial_cross_attention | its cross in the other image          | M (H+W) (I + C) | the maps, and one slab       |
| channel_cross_attention | all channels of the other image       | M C²            | the maps, and C²             |
| nonlocal_attention      | all positions of the other image      | M² (I + C)      | several M²                   |

How the cross is computed. Usually (criss-cross attention) rows and columns are multiplied apart, concatenated to
(B, M, H + W), put through one softmax and cut in two again; autograd keeps all of it. Here

  * each half has a softmax of its own, and two softmaxes over disjoint sets are one: with s = log Σ exp of a half's
    scores, the row's counts σ(s_row − s_column) and the column's the rest of 1;
  * nothing of the size M (H + W) outlives a few lines of the map. The backward pass keeps the inputs, the output and
    one number a position (s of the whole cross) and computes the scores again;
  * lines are taken in slabs that stay in a processor core's cache.

It is the faster of the two where contents are as wide as ResNet-50's; on narrow ones (16 channels on 28 × 28) it takes
up to half as long again, and a third of the memory (`benchmarks/cross_attention.py`). Scores and softmax are float32 at
least, whatever the maps are; contents are weighed in their own type.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SLAB = 2**17  # numbers of one map in a slab on a CPU: ½ MiB of float32
SLAB_ON_GPU = 2**24  # there every slab is launched on its own, and memory is faster


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _slabs(content: Tensor) -> Iterator[tuple[bool, slice]]:
    """content (B, H, W, C) -> (False, some rows) until all are named, then (True, some columns)."""
    b, h, w, c = content.shape
    most = SLAB if content.device.type == "cpu" else SLAB_ON_GPU
    for columns, lines, length in ((False, h, w), (True, w, h)):
        if columns and h == 1:  # a column of one position is its centre, which the row has counted
            return
        step = max(1, most // (b * length * max(length, c)))
        for start in range(0, lines, step):
            yield columns, slice(start, start + step)


def _view(x: Tensor, columns: bool, slab: slice) -> Tensor:
    """(B, H, W, C) -> some of its rows (B, n, W, C) or columns (B, n, H, C), to read and to write."""
    return (x.transpose(1, 2) if columns else x)[:, slab]


def _scores(q: Tensor, k: Tensor, columns: bool) -> Tensor:
    """Z = i^Q · i^A along lines: (B·n, L, I) twice -> (B·n, L, L), −inf where a column meets its centre."""
    z = torch.bmm(q, k.transpose(1, 2))
    if columns:
        z.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    return z


class _SpatialCross(torch.autograd.Function):
    """See `spatial_cross_attention`; maps are (B, H, W, channels) inside, which channels-last ones are in memory."""

    @staticmethod
    def forward(ctx, index_query: Tensor, index_answer: Tensor, content: Tensor) -> Tensor:
        q, k, v = (x.permute(0, 2, 3, 1) for x in (index_query, index_answer, content))
        wide = _wide(q)
        out = v.new_empty(v.shape)
        log_sum = v.new_empty((*v.shape[:3], 1), dtype=wide)  # log Σ exp(Z) over the cross  (B, H, W, 1)
        with torch.autocast(v.device.type, enabled=False):
            for columns, slab in _slabs(v):
                lq, lk, lv = (_view(x, columns, slab).flatten(0, 1) for x in (q, k, v))
                z = _scores(lq.to(wide), lk.to(wide), columns)  # (B·n, L, L)
                most = z.amax(dim=-1, keepdim=True)
                z.sub_(most).exp_()  # softmax in place; torch's own is slow on lines shorter than 16
                total = z.sum(dim=-1, keepdim=True)
                half = torch.bmm(z.div_(total).to(v.dtype), lv)  # Σ A · d^A over this half  (B·n, L, C)
                h, s = _view(out, columns, slab), _view(log_sum, columns, slab)  # to write in
                half, half_sum = half.view(h.shape), most.add_(total.log_()).view(s.shape)
                if columns:
                    h.lerp_(half, torch.sigmoid(half_sum - s).to(v.dtype))
                    s.copy_(torch.logaddexp(s, half_sum))
                else:
                    h.copy_(half)
                    s.copy_(half_sum)
        result = out.permute(0, 3, 1, 2)
        ctx.save_for_backward(index_query, index_answer, content, result, log_sum)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *maps, log_sum = ctx.saved_tensors
        q, k, v, out, g = (x.permute(0, 2, 3, 1) for x in (*maps, gradient))
        wide = _wide(q)
        results = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
        inner = torch.empty_like(log_sum)  # dH · H, a number a position: what the softmax takes off   (B, H, W, 1)
        with torch.autocast(v.device.type, enabled=False):
            for columns, slab in _slabs(v):
                lq, lk, lv, lg = (_view(x, columns, slab).flatten(0, 1) for x in (q, k, v, g))
                lq, lk, lg = lq.to(wide), lk.to(wide), lg.to(v.dtype)
                if not columns:
                    inner[:, slab] = (g[:, slab].to(wide) * out[:, slab]).sum(dim=-1, keepdim=True)
                s, off = (_view(x, columns, slab).flatten(0, 1) for x in (log_sum, inner))
                a = _scores(lq, lk, columns).sub_(s).exp_()  # A = softmax(Z), again  (B·n, L, L)
                dz = torch.bmm(lg, lv.transpose(1, 2)).to(wide).sub_(off).mul_(a)
                products = (dz, lk), (dz.transpose(1, 2), lq), (a.to(v.dtype).transpose(1, 2), lg)
                for result, (left, right) in zip(results, products, strict=True):
                    where = _view(result, columns, slab)
                    part = torch.bmm(left, right).view(where.shape)
                    where.add_(part) if columns else where.copy_(part)
        return tuple(x.permute(0, 3, 1, 2) for x in results)


def _check(index_query: Tensor, index_answer: Tensor, content: Tensor) -> None:
    q, k, v = (tuple(x.shape) for x in (index_query, index_answer, content))
    if len(q) != 4 or q != k or (q[0], *q[2:]) != (v[0], *v[2:]):
        raise ValueError(f"maps of {q}, {k} and {v}: batch and positions must be the same, the indices' channels too")


def spatial_cross_attention(index_query: Tensor, index_answer: Tensor, content: Tensor) -> Tensor:
    """H_u = Σ_v A_uv d^A_v over the cross of u, A_u = softmax(i^Q_u · i^A_v), Li et al., eqs. (1), (2).

    (B, I, H, W) twice, content (B, C, H, W) -> (B, C, H, W). Differentiable once. Raises ValueError where sizes differ.
    """
    _check(index_query, index_answer, content)
    return _SpatialCross.apply(index_query, index_answer, content)


def nonlocal_attention(index_query: Tensor, index_answer: Tensor, content: Tensor) -> Tensor:
    """The same over all M positions: M × M scores are held, several times in training. Shapes as above."""
    _check(index_query, index_answer, content)
    q, k, v = (x.flatten(2).mT for x in (index_query, index_answer, content))  # (B, M, channels)
    with torch.autocast(v.device.type, enabled=False):
        attention = _scores(q.to(_wide(q)), k.to(_wide(q)), columns=False).softmax(dim=-1)  # (B, M, M)
        h = torch.bmm(attention.to(v.dtype), v)  # (B, M, C)
    return h.mT.unflatten(2, content.shape[-2:])


def channel_cross_attention(query: Tensor, answer: Tensor, sharpness: float | None = None) -> Tensor:
    """Z^C = (d^Q)ᵀ d^A over all positions, H^C = d^A A_C, eqs. (3), (4): A_C = softmax of Z^C over what (4) sums.

    Both (B, C, H, W) -> the same, of the answer's type: channel b at a position is the mean of the answer's channels a
    there, weighed by how the query's a goes with the answer's b. Raises ValueError where the sizes differ.
    sharpness  not in the paper: scores are cosines of the channels' maps, times this; None: products, as printed
    """
    if query.ndim != 4 or query.shape != answer.shape:
        raise ValueError(f"maps of {tuple(query.shape)} and {tuple(answer.shape)}: must be the same, (B, C, H, W)")
    q, a = query.flatten(2).mT, answer.flatten(2).mT  # (B, M, C)
    with torch.autocast(a.device.type, enabled=False):
        left, right = q.to(_wide(q)), a.to(_wide(q))
        if sharpness is not None:
            left, right = sharpness * F.normalize(left, dim=1), F.normalize(right, dim=1)
        z = torch.bmm(left.mT, right)  # eq. (3)  (B, C, C)
        h = torch.bmm(a, z.softmax(dim=1).to(a.dtype))  # eq. (4)  (B, M, C)
    return h.mT.unflatten(2, answer.shape[-2:])
