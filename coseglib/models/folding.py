"""Batch norms folded into the convolutions before them: what a trained model computes, with fewer passes over memory.

    y = γ · (W ∗ x + b − μ) / √(σ² + ε) + β = W' ∗ x + b'      W' = W · γ / √(σ² + ε),  b' = (b − μ) · γ / √(σ² + ε) + β

Module by module: where a norm follows its convolution in a `Sequential`, and as the pairs convK, bnK of ResNets' and
HRNets' blocks. A whole-graph pass would fold a norm once a call, and an encoder is called for each image of a pair.

On CPUs with oneDNN convolution, b' and the ReLU that follows are one pass. b' stays in 32 bits there where convolutions
take 16; elsewhere it would be rounded to eight bits, so in 16 a convolution and its norm stay two, as they were
trained. W' in 16 bits is not W as the norm's averages know it, which is felt where an output has a few weights:
`rounded`. Nor is W in 32 bits, where the network was trained under autocast: its norms know the weights that were
multiplied, of eight bits, and such a kernel keeps these (`fold`).
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from coseglib.models.backbones import SameConv2d

FEW = 25  # weights of an output, a depth-wise convolution's, whose roundings do not make up for each other
HAS = {
    torch.bfloat16: "_is_mkldnn_bf16_supported",
    torch.float16: "_is_mkldnn_fp16_supported",
}
RELUS = {nn.Identity: ("none", []), nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0])}  # as oneDNN names them


@torch.no_grad()
def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """weight (C, …) -> the same to the precision of `dtype`, so that each output's weights keep their sum.

    An input that is the same everywhere is answered as before, but for the smallest weight's last bit. Beginning with
    the largest, each weight takes up what is left by a step of its last bit.
    """
    exact = weight.flatten(1)
    near = exact.to(dtype).to(exact.dtype)
    step = torch.finfo(dtype).eps * torch.exp2(near.abs().clamp(min=1e-30).log2().floor())  # of the last bit
    left = (exact - near).sum(dim=1)
    for place in step.argsort(dim=1, descending=True).T:
        steps = step.gather(1, place[:, None])[:, 0]
        taken = (left / steps).round().clamp(-1, 1) * steps
        near.scatter_add_(1, place[:, None], taken[:, None])
        left -= taken
    return near.view_as(weight)


def onednn_takes(dtype: torch.dtype) -> bool:
    """Whether this processor can, where there is oneDNN."""
    return dtype not in HAS or getattr(torch.ops.mkldnn, HAS[dtype])()


class FoldedConv2d(nn.Module):
    """A convolution and its norm, and perhaps a ReLU, in one. It cannot be trained."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, trained_in: torch.dtype = torch.float32):
        super().__init__()
        if conv.weight[0].numel() <= FEW:
            conv.weight.data = conv.weight.data.to(trained_in).to(conv.weight.dtype)  # what the norm saw
        self.apart = nn.Sequential(conv, norm).requires_grad_(False)
        self.conv = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
        self.relu: nn.Module = nn.Identity()
        self._kernels: dict[torch.dtype, Tensor] = {}

    def _kernel(self, dtype: torch.dtype) -> Tensor:
        """The weights in 16 or 32 bits; a padding of TensorFlow's, one pixel at the right and below, as zeros in them.

        With a row and a column of zeros before its own three a kernel that pads one pixel everywhere does the same.
        """
        if dtype not in self._kernels:
            weight = self.conv.weight
            if dtype != torch.float32 and weight[0].numel() <= FEW:
                weight = rounded(weight, dtype)
            weight = F.pad(weight, (1, 0, 1, 0)) if self._is_same() else weight
            self._kernels[dtype] = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        return self._kernels[dtype]

    def _is_same(self) -> bool:
        return isinstance(self.conv, SameConv2d)

    def _apply(self, *args, **kwargs):
        self._kernels.clear()  # they may go to another device
        return super()._apply(*args, **kwargs)

    def _fits(self, x: Tensor, dtype: torch.dtype) -> bool:
        """Whether oneDNN can do all at once; in 16 bits it raises an error on processors that lack them."""
        conv, onednn = self.conv, torch.backends.mkldnn
        if x.device.type != "cpu" or not (onednn.is_available() and onednn.enabled) or x.requires_grad:
            return False
        if not onednn_takes(dtype):
            return False
        if self._is_same():
            even = not (x.shape[-1] % 2 or x.shape[-2] % 2)
            return even and (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (2, 2), (1, 1))
        return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)

    def forward(self, x: Tensor) -> Tensor:
        conv, kind = self.conv, x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        if not self._fits(x, dtype):
            return self.relu(conv(x) if dtype == torch.float32 else self.apart(x))
        padding = (1, 1) if self._is_same() else conv.padding
        shape = padding, conv.stride, conv.dilation, conv.groups
        relu, limits = RELUS[type(self.relu)]
        fused = torch.ops.mkldnn._convolution_pointwise
        return fused(x.to(dtype), self._kernel(dtype), conv.bias, *shape, relu, limits, "")


def _pairs(module: nn.Module) -> Iterator[tuple[str, str, str | None]]:
    """Names of the module's own convolutions, of the norms that follow them and nothing else does, and of the ReLUs
    that follow these, None where another layer does."""
    children = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        after = dict(pairwise(children))
        named = ((conv, norm, after.get(norm)) for conv, norm in after.items())
    else:
        named = ((name, f"bn{name.removeprefix('conv')}", None) for name in children if name.startswith("conv"))
    for conv, norm, relu in named:
        if isinstance(children[conv], nn.Conv2d) and isinstance(children.get(norm), nn.BatchNorm2d):
            yield conv, norm, relu if type(children.get(relu)) in (nn.ReLU, nn.ReLU6) else None


def fold(model: nn.Module, trained_in: torch.dtype = torch.float32) -> nn.Module:
    """The model itself, in evaluation mode, its batch norms folded: for use alone, it cannot be trained or saved so.

    trained_in  what its convolutions multiplied in training; it has nothing to do with what they are to multiply now
    """
    model.eval()
    for module in list(model.modules()):
        for conv, norm, relu in list(_pairs(module)):
            folded = FoldedConv2d(getattr(module, conv), getattr(module, norm), trained_in)
            setattr(module, conv, folded)
            setattr(module, norm, nn.Identity())
            if relu:
                folded.relu = getattr(module, relu)
                setattr(module, relu, nn.Identity())
    return model
