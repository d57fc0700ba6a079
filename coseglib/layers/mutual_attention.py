"""Attention in one image and between images, in blocks: no M×M matrix is held beyond a block of its rows.

`attend`   softmax(Q Kᵀ) V, a weighted sum for every position: self-attention
`matched`  1ᵀ softmax(Q_j K_nᵀ), how often image n's positions are chosen by those of image j: mutual attention

The matrix's rows are normalised each on its own, so a block of rows is computed, used and let go. Plain autograd would
keep every block for the backward pass; here the backward pass computes each block anew from Q and K. Values and
gradients are those of the plain form, up to the order of sums. Half precision is computed in float32.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**22  # numbers of the matrix that are held at once: 16 MiB in float32


def _rows(total: int, row: int, block: int) -> list[slice]:
    """`total` rows of `row` numbers each, cut so that a piece has at most `block` numbers, but one row at least."""
    step = max(1, block // max(1, row))
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, block: int) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.block = block
        out = value.new_empty(*query.shape[:2], value.shape[2])
        for rows in _rows(query.shape[1], query.shape[0] * key.shape[1], block):
            a = (query[:, rows] @ key.mT).softmax(dim=-1)  # (P, r, L)
            out[:, rows] = a @ value
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        with torch.autocast(grad.device.type, enabled=False):
            return (*_Attend.gradients(*ctx.saved_tensors, grad, ctx.block), None)

    @staticmethod
    def gradients(query: Tensor, key: Tensor, value: Tensor, grad: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for rows in _rows(query.shape[1], query.shape[0] * key.shape[1], block):
            q, g = query[:, rows], grad[:, rows]
            a = (q @ key.mT).softmax(dim=-1)  # (P, r, L), as in the forward pass
            d_value += a.mT @ g
            d_a = g @ value.mT
            d_s = a * (d_a - (d_a * a).sum(dim=-1, keepdim=True))  # through the soft-max
            d_query[:, rows] = d_s @ key
            d_key += d_s.mT @ q
        return d_query, d_key, d_value


class _Matched(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, block: int) -> Tensor:
        ctx.save_for_backward(query, key)
        ctx.block = block
        b, j, m, c = query.shape
        n, length = key.shape[1:3]
        keys = key.flatten(1, 2)  # (B, N·L, C)
        v = query.new_zeros(b, j, n, length)
        for rows in _rows(m, b * j * n * length, block):
            q = query[:, :, rows].reshape(b, -1, c)  # (B, J·r, C)
            a = (q @ keys.mT).view(b, j, -1, n, length).softmax(dim=-1)  # (B, J, r, N, L)
            v += a.sum(dim=2)
        return v

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        with torch.autocast(grad.device.type, enabled=False):
            return (*_Matched.gradients(*ctx.saved_tensors, grad, ctx.block), None)

    @staticmethod
    def gradients(query: Tensor, key: Tensor, grad: Tensor, block: int) -> tuple[Tensor, Tensor]:
        b, j, m, c = query.shape
        n, length = key.shape[1:3]
        keys = key.flatten(1, 2)
        d_query, d_keys = torch.empty_like(query), torch.zeros_like(keys)
        for rows in _rows(m, b * j * n * length, block):
            q = query[:, :, rows].reshape(b, -1, c)
            a = (q @ keys.mT).view(b, j, -1, n, length).softmax(dim=-1)
            g = grad[:, :, None]  # every row has the gradient of the sum
            d_s = (a * (g - (a * g).sum(dim=-1, keepdim=True))).view(b, -1, n * length)
            d_query[:, :, rows] = (d_s @ keys).view(b, j, -1, c)
            d_keys += d_s.mT @ q
        return d_query, d_keys.view_as(key)


def attend(query: Tensor, key: Tensor, value: Tensor, block: int = BLOCK) -> Tensor:
    """softmax(query keyᵀ) value. query (P, M, C'), key (P, L, C'), value (P, L, C) -> (P, M, C), differentiable once.

    block  how many numbers of the P matrices M×L are held at once (one row of each at least). float32, or wider.
    """
    with torch.autocast(query.device.type, enabled=False):
        return _Attend.apply(_full(query), _full(key), _full(value), block)


def matched(query: Tensor, key: Tensor, block: int = BLOCK) -> Tensor:
    """Column sums of softmax(query_j key_nᵀ) over each row, for every pair. -> v (B, J, N, L), differentiable once.

    query (B, J, M, C') of J images with M positions, key (B, N, L, C') of N images with L positions
    v[b, j, n] >= 0 sums to M: each position of image j shares one vote among the positions of image n.
    block  as for `attend`
    """
    with torch.autocast(query.device.type, enabled=False):
        return _Matched.apply(_full(query), _full(key), block)
