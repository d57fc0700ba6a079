"""Semantic-aware channel attention for co-segmentation: CA, FCA, CSA (Chen, Huang and Nakayama, ACCV 2018).

Symbols   f      features of an image                    (B, C, h, w)
          alpha  channel attention, in (0, 1)            (B, D), D = C in the paper
          W, b   one linear layer, shared by all images
          the context of a group is what its images' alphas are pooled to: their mean, or their minimum (section 3.4)

One image's attention tells which channels (which meanings) it switches on; multiplied onto the *other* images'
features it keeps what they have in common. An image meets the rest of its group in D numbers only, so a group of any
length is segmented in two passes of constant memory.

Where this differs
  * The paper prints the group's attention as a sum; its algorithm box has the mean. We take the mean.
  * Groups of N > 2 (N = 2 is as printed). FCA: the paper's sum over a pair would be N/2 times too large; 2 · the mean
    over an image and those that it is asked with. CA and CSA attend an image by the mean of the *others*; CSA's spatial
    part stays the image's own.
  * Any backbone, not VGG16 alone; the decoder's dropout rate (.1) is ours, the paper states none.
  * The released code has other layers (two linear layers 512 -> 4096 -> tanh -> 512, residual blocks, 5×5 convolutions
    with reflected borders) and resizes masks so that objects grow; we build what the paper prints.
  * Asked by example (`attention`'s mask), which no paper does: a partner whose object is marked gives the mean over it
    in the place of GAP, so that of two things in it the marked one is asked for.
  * variant="workbook" is not in the paper: attention for strides 32, 16 and 8, all from the pooled stride-32
    embedding; attended and plain features concatenated; a decoder with laterals (`LateralDecoder`).
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.layers.decoders import LateralDecoder, PlainDecoder
from coseglib.models.backbones import Backbone
from coseglib.models.contract import ContextModel, Output, Paper, Terms
from coseglib.models.losses import segmentation_loss

CHEN2018 = Paper("chen2018", protocol="chen2018", backbone="VGG16", trained_on="pairs of VOC 2012")


def spatial_attention(f: Tensor) -> Tensor:
    """alpha^s = σ(mean over the channels of f), eqs. (10), (11). (B, C, h, w) -> (B, 1, h, w)."""
    return torch.sigmoid(f.mean(dim=1, keepdim=True))


def mean_over(f: Tensor, mask: Tensor | None = None) -> Tensor:
    """Σ_p m_p f_p / Σ_p m_p. f (B, C, h, w), mask (B, H, W) or None -> (B, C).

    m  the share of position p that is 1 in the mask, (B, h, w). Without a mask, or where it marks nothing: all 1, GAP
    """
    if mask is None:
        return f.mean(dim=(-2, -1))
    m = F.adaptive_avg_pool2d((mask == 1).to(f.dtype)[:, None], f.shape[-2:])  # (B, 1, h, w)
    m = torch.where(m.amax(dim=(-2, -1), keepdim=True) > 0, m, torch.ones_like(m))
    return (m * f).sum(dim=(-2, -1)) / m.sum(dim=(-2, -1))


def attention_layers(embedding: int, channels: tuple[int, int, int]) -> nn.ModuleList:
    """The workbook's, not the paper's: from a pooled embedding to the attention of maps at strides 32, 16 and 8."""
    deep = nn.Sequential(nn.Linear(embedding, 256), nn.ReLU(), nn.Linear(256, channels[0]))
    return nn.ModuleList([deep, *(nn.Linear(embedding, c) for c in channels[1:])])


def channel_attention(layers: nn.ModuleList, pooled: Tensor) -> Tensor:
    """alpha = σ(W GAP(f) + b), eqs. (1), (2), of each layer in a row. pooled (B, C) -> (B, D), in (0, 1)."""
    return torch.sigmoid(torch.cat([layer(pooled) for layer in layers], dim=1).float())


class SemanticAttention(ContextModel):
    """What CA, FCA and CSA share. The three differ in `attended`, FCA in whose attention is pooled as well."""

    paper = CHEN2018
    EXTRAS: ClassVar = {"alpha": "(B, N, D)", "context": "(B, N, D)"}

    def __init__(self, backbone: Backbone, variant: str = "paper", input_size: int = 224):
        super().__init__(backbone, variant, input_size)
        c4, c8, c16, c32 = backbone.channels[1:]
        if variant == "paper":
            backbone.embedding = nn.Identity()  # the paper attends the encoder's own last map
            self.attended_channels = (c32,)
            self.attention_layers = nn.ModuleList([nn.Linear(c32, c32)])
        else:
            self.attended_channels = (c32, c16, c8)
            self.attention_layers = attention_layers(backbone.embedding_channels, self.attended_channels)
        self.context_size = sum(self.attended_channels)  # D
        self.decoder = PlainDecoder(c32) if variant == "paper" else LateralDecoder((2 * c32, 2 * c16, 2 * c8, c4))

    def attention(self, maps: list[Tensor], mask: Tensor | None = None) -> Tensor:
        """maps at strides 2 … 32 -> alpha (B, D) = σ(W GAP(f) + b), eqs. (1), (2), (8), (9).

        mask  (B, H, W), 1 on what is meant, not in the paper: `mean_over` it in the place of GAP
        """
        pooled = mean_over(self.backbone.embed(maps[-1]).float(), mask)  # GAP  (B, C)
        return channel_attention(self.attention_layers, pooled)

    def attended(self, f: Tensor, alpha: Tensor, level: int) -> Tensor:
        """f (B, C, h, w), alpha (B, C) -> f' = alpha ⊙ f (B, C, h, w), eqs. (3), (4)."""
        return alpha[..., None, None] * f

    def answer(self, maps: list[Tensor], context: Tensor) -> Tensor:
        """maps at strides 2 … 32, context (D,) or (B, D) -> logits (B, 2, H, W)."""
        alphas = context.expand(maps[-1].shape[0], -1).split(self.attended_channels, dim=1)
        plain = maps[:0:-1][: len(alphas)]  # those attended, coarsest first
        attended = [self.attended(f, a.to(f.dtype), i) for i, (f, a) in enumerate(zip(plain, alphas, strict=True))]
        if self.variant == "paper":
            return self.decoder(attended[0]).float()
        return self.decoder([*(torch.cat(pair, dim=1) for pair in zip(attended, plain, strict=True)), maps[1]]).float()

    def loss(self, output: Output, targets: Tensor, classes: Tensor | None = None, dice: float = 0.0) -> Terms:
        """Cross-entropy, section 3.6, + dice · foreground dice (the workbook's)."""
        return {"segmentation": segmentation_loss(output.logits, targets, dice)}


class CA(SemanticAttention):
    """Channel-wise attention, section 3.1: f'_A = alpha_B ⊙ f_A, f'_B = alpha_A ⊙ f_B."""

    paper = replace(CHEN2018, systems=("CA", "CA-instant"))


class FCA(SemanticAttention):
    """Fused channel-wise attention, section 3.2: alpha_C = σ(W'(alpha_A + alpha_B) + b'), for both images."""

    paper = replace(CHEN2018, systems=("FCA",))
    includes_itself = True  # alpha_A + alpha_B = 2 · mean

    def __init__(self, backbone: Backbone, variant: str = "paper", input_size: int = 224):
        super().__init__(backbone, variant, input_size)
        self.fusion = nn.ModuleList(nn.Linear(c, c) for c in self.attended_channels)

    def attended(self, f: Tensor, alpha: Tensor, level: int) -> Tensor:
        fused = torch.sigmoid(self.fusion[level](2 * alpha))  # eq. (5)
        return fused.to(f.dtype)[..., None, None] * f  # eqs. (6), (7)


class CSA(SemanticAttention):
    """Channel-spatial attention, section 3.3: f'_A = alpha^c_B ⊙ alpha^s_A ⊙ f_A."""

    paper = replace(CHEN2018, systems=("CSA",))
    EXTRAS: ClassVar = {**SemanticAttention.EXTRAS, "spatial": "(B, N, 1, H/32, W/32)"}

    def attended(self, f: Tensor, alpha: Tensor, level: int) -> Tensor:
        return alpha[..., None, None] * spatial_attention(f) * f  # eqs. (12), (13)

    def more_extras(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """alpha^s at stride 32, (B·N, 1, H/32, W/32)."""
        return {"spatial": spatial_attention(maps[-1])}
