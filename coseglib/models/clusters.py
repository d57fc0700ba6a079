"""The workbook's generator (`coseglib.models.multiclass`, variant="workbook"): nothing of it is in the thesis' text.

The generator stands on the frozen extractor's own features f, at stride 16, and starts where a clustering of them ends.

Symbols   f  the frozen network's last map, its stride left out, mean of the image and its mirror image  (D, h, w)
          F  f, centred, of unit length, on the group's principal axes, half whitened, of unit length     (A, h, w)
          e  evidence of an object by one image alone                                           (h, w), in (0, 1)
          a  share of the votes of the other images that their objects cast                       (h, w), in (0, 1)
          w  prototypes: some of the background, one a class, of unit length                     (Q + K, A)

  F' = (F + γ SA(F)) / |F + γ SA(F)|
  logit of class k           τ ⟨F', w_k⟩ + b_k
  logit of the background    log Σ_q exp(τ ⟨F', w_q⟩) + b_0 − θ_e (2e − 1) − θ_a (2a' − 1)

SA is the thesis' own layer, and begins as what gathers alike positions of an image. MA is its vote, each vote weighed
by the evidence of the position that casts it: what the others' objects choose is an object. a' is a, spread out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHARPNESS = 10.0  # τ
DOUBT = 0.3  # of the logits is answered: a dense CRF draws better from maps that doubt
NEAR, FAR = 20.0, 5.0  # of the first products of query and key: within an image, and between images
RIM = 12  # a twelfth of the side is the border that `evidence` looks at
WEIGHT = 1.0  # θ at the start


def undo_last_stride(stage: nn.Module) -> None:
    """The stage's stride becomes 1, and what follows it is dilated: the same weights, a map of twice the side."""
    strided = False
    for module in stage.modules():
        if isinstance(module, nn.MaxPool2d) and module.stride == 2:
            module.kernel_size, module.stride, module.padding = 3, 1, 1
        if not isinstance(module, nn.Conv2d):
            continue
        if strided and module.kernel_size == (3, 3):
            module.dilation = module.padding = (2, 2)
        if module.stride == (2, 2):
            module.__class__ = nn.Conv2d  # TensorFlow's padding is for strides
            module.padding = tuple(k // 2 for k in module.kernel_size)
            module.stride, strided = (1, 1), True


def ranks(values: Tensor) -> Tensor:
    """(P, M) -> the share of a row's values that are smaller, in [0, 1). Equal values share their mean rank."""
    ordered = values.sort(dim=1).values.contiguous()
    low = torch.searchsorted(ordered, values.contiguous())
    high = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (low + high - 1) / 2 / values.shape[1]


def on_rim(height: int, width: int) -> Tensor:
    """bool (height, width): the border's positions."""
    rim = torch.ones(height, width, dtype=torch.bool)
    y, x = max(1, height // RIM), max(1, width // RIM)
    rim[y : height - y, x : width - x] = False
    return rim


def evidence(described: Tensor, features: Tensor) -> Tensor:
    """Where one image shows an object, by no mask: described (P, D, h, w) and F (P, A, h, w) -> e (P, h, w), in (0, 1).

    The rank, among the image's positions, of the sum of two ranks: of |f|, for what the frozen network has learned to
    name excites it, and of how unlike F is to the mean of the image's border. Both are means over 3 × 3 positions.
    """
    size = described.shape[-2:]
    border = features.float().flatten(2)[..., on_rim(*size).flatten().to(features.device)].mean(dim=-1)  # (P, A)
    unlike = -torch.einsum("pahw,pa->phw", features.float(), border)
    both = torch.stack([described.float().norm(dim=1), unlike], dim=1)  # (P, 2, h, w)
    smooth = F.avg_pool2d(both, 3, 1, 1, count_include_pad=False).flatten(2)  # (P, 2, M)
    steps = 2 * smooth.shape[2]  # ranks are whole numbers of these: rounded, equal sums are equal
    found = ranks((steps * (ranks(smooth[:, 0]) + ranks(smooth[:, 1]))).round())
    return (found + 1 / steps).unflatten(1, size)


def spread(a: Tensor) -> Tensor:
    """(…, h, w) -> the same, σ of its distance from the map's mean in standard deviations: in (0, 1), ½ if constant."""
    mean = a.mean(dim=(-2, -1), keepdim=True)
    off = a - mean
    return torch.sigmoid(1.7 * off / (off.square().mean(dim=(-2, -1), keepdim=True) + 1e-8).sqrt())


def _gather(conv: nn.Conv2d, scale: float) -> None:
    """A 1×1 convolution that begins as `scale` times what it is given."""
    with torch.no_grad():
        conv.weight.copy_(scale * torch.eye(*conv.weight.shape[:2])[..., None, None])
        conv.bias.zero_()


def start_self_attention(layer: nn.Module) -> None:
    """`SelfAttention` as what gathers alike positions: softmax(NEAR ⟨F, F⟩) F."""
    for conv, scale in ((layer.query, NEAR**0.5), (layer.key, NEAR**0.5), (layer.value, 1.0)):
        _gather(conv, scale)


class WeighedVotes(nn.Module):
    """MA's votes, weighed: a = mean over references j of Σ_m e_j(m) A_m / Σ_m A_m, A = softmax(query(F_j) key(F_n)ᵀ).

    f (B, N, A, h, w), worth e (B, N, h, w), weights (B, N, N) or (N, N) -> a (B, N, h, w) in (0, 1), float32.
    The references' positions are taken two by two: they vote as their mean.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels, 1) for _ in range(2))
        for conv in (self.query, self.key):
            _gather(conv, FAR**0.5)

    def forward(self, f: Tensor, worth: Tensor, weights: Tensor) -> Tensor:
        b, n, _, h, w = f.shape
        with torch.autocast(f.device.type, enabled=False):
            flat = f.float().flatten(0, 1)
            coarse = F.normalize(F.avg_pool2d(flat, 2, ceil_mode=True), dim=1)
            q = self.query(coarse).flatten(2).mT.unflatten(0, (b, n))  # (B, N, m, A)
            k = self.key(flat).flatten(2).mT.unflatten(0, (b, n))  # (B, N, M, A)
            cast = F.avg_pool2d(worth.float().flatten(0, 1)[:, None], 2, ceil_mode=True).flatten(1).unflatten(0, (b, n))
            votes = torch.einsum("bjmc,bnlc->bjnml", q, k).softmax(dim=-1)
            good = torch.einsum("bjm,bjnml->bnjl", cast, votes)
            a = good / votes.sum(dim=-2).transpose(1, 2)  # (B, anchors, references, M)
            a = (weights.to(a).expand(b, n, n)[..., None] * a).sum(dim=2)
        return a.unflatten(2, (h, w))


class Prototypes(nn.Module):
    """F' (P, A, h, w), e and a' (P, h, w) -> logits (P, K + 1, h, w), float32: see the head of this file."""

    def __init__(self, axes: int, classes: int, backgrounds: int):
        super().__init__()
        self.backgrounds = backgrounds
        self.weight = nn.Parameter(F.normalize(torch.randn(backgrounds + classes, axes), dim=1))
        self.bias = nn.Parameter(torch.zeros(classes + 1))
        self.trust = nn.Parameter(torch.full((2,), WEIGHT))  # θ_e, θ_a

    def forward(self, attended: Tensor, e: Tensor | None, a: Tensor | None) -> Tensor:
        near = SHARPNESS * torch.einsum("pchw,qc->pqhw", attended.float(), F.normalize(self.weight, dim=1))
        background = near[:, : self.backgrounds].logsumexp(dim=1)
        for theta, map_ in zip(self.trust, (e, a), strict=True):
            if map_ is not None:
                background = background - theta * (2 * map_ - 1)
        return torch.cat([background[:, None], near[:, self.backgrounds :]], dim=1) + self.bias[:, None, None]
