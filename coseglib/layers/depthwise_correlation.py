"""Depth-wise correlation of maps with kernels that were made from other maps, each image with its own.

    out[b, c, y, x] = Σ_{u, v} kernels[b, c, u, v] · base[b, c, y + u − ⌊k/2⌋, x + v − ⌊k/2⌋],  base = 0 outside

B images of C channels are B·C groups of a single convolution. On CPUs its gradient with regard to the kernels takes
many times the forward pass: libraries expect few kernels and many images. It is itself a correlation, of `base` with
the incoming gradient, and several times faster by FFT (`benchmarks/depthwise_correlation.py`). Everything is computed
in float32, or float64, under autocast as well: sums of 361 products are not for bfloat16's eight bits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def depthwise_correlation(base: Tensor, kernels: Tensor) -> Tensor:
    """base (B, C, H, W), kernels (B, C, k, k), k odd -> (B, C, H, W), float32 or float64.

    Raises ValueError for even kernels, or where B or C differ.
    """
    k = kernels.shape[-1]
    if kernels.ndim != 4 or base.ndim != 4 or kernels.shape[:3] != (*base.shape[:2], k):
        raise ValueError(f"kernels {tuple(kernels.shape)} for maps {tuple(base.shape)}: (B, C, k, k) for (B, C, H, W)")
    if k % 2 == 0:
        raise ValueError(f"kernels of {k} × {k}: the side must be odd, else the result has no centre")
    kind = torch.promote_types(torch.promote_types(base.dtype, kernels.dtype), torch.float32)
    base, kernels = base.to(kind), kernels.to(kind)
    with torch.autocast(base.device.type, enabled=False):
        return _Correlation.apply(base, kernels) if base.device.type == "cpu" else _grouped(base, kernels)


def _grouped(base: Tensor, kernels: Tensor) -> Tensor:
    """One convolution in B·C groups. Channels-last on CPUs: from k = 15 on the other layout is ten times slower."""
    b, c, _, k = kernels.shape
    maps = base.reshape(1, b * c, *base.shape[2:])
    if base.device.type == "cpu":
        maps = maps.contiguous(memory_format=torch.channels_last)
    out = F.conv2d(maps, kernels.reshape(b * c, 1, k, k), padding=k // 2, groups=b * c)
    return out.reshape(base.shape)


class _Correlation(torch.autograd.Function):
    """`_grouped`, with a gradient to the kernels that is fast on CPUs."""

    @staticmethod
    def forward(ctx, base: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(base, kernels)
        return _grouped(base, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        base, kernels = ctx.saved_tensors
        to_base, to_kernels = ctx.needs_input_grad
        for_base = _grouped(grad, kernels.flip(-2, -1)) if to_base else None
        return for_base, _kernel_gradient(base, grad, kernels.shape[-1]) if to_kernels else None


def _kernel_gradient(base: Tensor, grad: Tensor, k: int) -> Tensor:
    """Σ_{y, x} grad[y, x] · base[y + u − ⌊k/2⌋, x + v − ⌊k/2⌋] for all u, v, by FFT. Both (B, C, H, W) -> (B, C, k, k).

    A transform of side n repeats the maps every n positions; n ≥ H + ⌊k/2⌋: no lag reaches the repetition.
    """
    from scipy.fft import next_fast_len  # in training alone: its import takes as long as many answers

    lags = k // 2
    size = [next_fast_len(max(n + lags, k), real=True) for n in base.shape[-2:]]
    product = torch.fft.rfft2(base, s=size) * torch.fft.rfft2(grad, s=size).conj()
    by_lag = torch.fft.irfft2(product, s=size)  # lag 0 comes first, the negative ones last
    return by_lag.roll((lags, lags), (-2, -1))[..., :k, :k]


def normalise_channels(kernels: Tensor, eps: float = 1e-5) -> Tensor:
    """Each channel over the Euclidean norm of its k² values, at least eps: zeros stay zeros. (B, C, k, k), float32."""
    kernels = kernels.to(torch.promote_types(kernels.dtype, torch.float32))
    return F.normalize(kernels.flatten(2), dim=2, eps=eps).view_as(kernels)


def merge_kernels(kernels: Sequence[Tensor]) -> Tensor:
    """One kernel whose correlation with any map is the mean of theirs. m of (B, C, k_i, k_i), odd -> (B, C, k, k).

    All are padded to the largest: k² for Σ k_i² products, half for 11, 15 and 19. Raises ValueError for even k_i.
    """
    sides = [one.shape[-1] for one in kernels]
    if any(side % 2 == 0 for side in sides):
        raise ValueError(f"kernels of sides {sides}: odd ones alone have a common centre")
    return torch.stack([F.pad(one, [(max(sides) - one.shape[-1]) // 2] * 4) for one in kernels]).mean(dim=0)


def peaks(maps: Tensor) -> Tensor:
    """Where maps (…, H, W) are largest: the cell's centre as (y, x) in shares of height and width. -> (…, 2)."""
    h, w = maps.shape[-2:]
    place = maps.flatten(-2).argmax(dim=-1)
    return torch.stack([(place // w + 0.5) / h, (place % w + 0.5) / w], dim=-1)
