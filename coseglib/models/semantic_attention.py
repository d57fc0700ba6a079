"""Semantic-aware channel attention for co-segmentation: CA, FCA, CSA (Chen, Huang and Nakayama, ACCV 2018).

Symbols   f      features of an image                    (B, C, h, w)
          alpha  channel attention, in (0, 1)            (B, D), D = C in the paper
          W, b   one linear layer, shared by all images
          the context of a group is what its images' alphas are pooled to: their mean, or their minimum (section 3.4)

One image's attention tells which channels (which meanings) it switches on; multiplied onto the *other* images'
features it keeps what they have in common. An image meets the rest of its group in D numbers only, so a group of any
length is segmented in two passes of constant memory (`coseglib.answering.inference`).

Where this differs
  * The paper prints the group's attention as a sum; its algorithm box has the mean. We take the mean.
  * FCA of a group: the paper's sum over a pair is N/2 times too large for N images; we use 2 · mean, so that N = 2
    is as printed. CSA of a group: the channel part is pooled, the spatial part stays the image's own.
  * A training group of N > 2 attends each image by the mean of the *others*; N = 2 is as printed.
  * Any backbone, not VGG16 alone; the decoder's dropout rate (.1) is ours, the paper states none.
  * The released code has other layers (two linear layers 512 -> 4096 -> tanh -> 512, residual blocks, 5×5 convolutions
    with reflected borders) and resizes masks so that objects grow; we build what the paper prints.
  * variant="workbook" is not in the paper: attention for strides 32, 16 and 8, all from the pooled stride-32
    embedding; attended and plain features concatenated; a decoder with laterals (`LateralDecoder`).
"""

import torch
from torch import Tensor, nn

from coseglib.layers.decoders import LateralDecoder, PlainDecoder
from coseglib.models.backbones import Backbone
from coseglib.models.losses import segmentation_loss
from coseglib.models.output import Output

VARIANTS = ("paper", "workbook")


def spatial_attention(f: Tensor) -> Tensor:
    """alpha^s = σ(mean over the channels of f), eqs. (10), (11). (B, C, h, w) -> (B, 1, h, w)."""
    return torch.sigmoid(f.mean(dim=1, keepdim=True))


def others_mean(alpha: Tensor) -> Tensor:
    """The mean of the other images' attention. (B, N, D) -> (B, N, D); N = 1: its own; N = 2: the partner's."""
    n = alpha.shape[1]
    if n == 1:
        return alpha
    return (alpha.sum(dim=1, keepdim=True) - alpha) / (n - 1)


class SemanticAttention(nn.Module):
    """What CA, FCA and CSA share: encode, attend, decode. The three differ in `attended` and `context_of` alone.

    backbone    any of `coseglib.models.backbones`
    variant     "paper": stride 32 only, decoder without skips; "workbook": see the head of this file
    input_size  side in pixels of the squares that photographs are resized to, a multiple of 32
    """

    kind = "context"
    looks = 1  # at a photograph, when a group is segmented; 2 is not in the paper: `coseglib.answering.second_look`
    EXTRAS = ("alpha", "context")

    def __init__(self, backbone: Backbone, variant: str = "paper", input_size: int = 224):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r}: one of {', '.join(VARIANTS)}")
        if input_size % 32:
            raise ValueError(f"input_size {input_size}: must be a multiple of 32, the coarsest stride")
        self.backbone, self.variant, self.input_size = backbone, variant, input_size
        c4, c8, c16, c32 = backbone.channels[1:]
        if variant == "paper":
            backbone.embedding = nn.Identity()  # the paper attends the encoder's own last map
            self.attended_channels = (c32,)
            self.attention_layers = nn.ModuleList([nn.Linear(c32, c32)])
            self.decoder = PlainDecoder(c32)
        else:
            e = backbone.embedding_channels
            self.attended_channels = (c32, c16, c8)
            self.attention_layers = nn.ModuleList(
                [nn.Sequential(nn.Linear(e, 256), nn.ReLU(), nn.Linear(256, c32)), nn.Linear(e, c16), nn.Linear(e, c8)]
            )
            self.decoder = LateralDecoder((2 * c32, 2 * c16, 2 * c8, c4))

    @property
    def context_size(self) -> int:
        """D, the length of an image's attention: the attended strides' channels in a row."""
        return sum(self.attended_channels)

    def encode(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> maps at strides 2 … 32. Raises ValueError when H or W is no multiple of 32."""
        if images.shape[-1] % 32 or images.shape[-2] % 32:
            raise ValueError(f"images of {tuple(images.shape[-2:])}: both sides must be multiples of 32")
        return self.backbone(images)

    def attention(self, features: list[Tensor]) -> Tensor:
        """alpha = σ(W GAP(f) + b), eqs. (1), (2), (8), (9). -> (B, D)."""
        top = features[-1] if self.variant == "paper" else self.backbone.embed(features[-1])
        pooled = top.float().mean(dim=(-2, -1))  # GAP  (B, C)
        return torch.sigmoid(torch.cat([layer(pooled) for layer in self.attention_layers], dim=1).float())

    def pool(self, alpha: Tensor, how: str = "mean") -> Tensor:
        """Group average or group minimum attention, algorithm 1. (B, D) -> (D,)."""
        if how not in ("mean", "min"):
            raise ValueError(f"how {how!r}: 'mean' or 'min'")
        return alpha.mean(dim=0) if how == "mean" else alpha.amin(dim=0)

    def context_of(self, alpha: Tensor) -> Tensor:
        """Each image's context within its group, in training: the others'. (B, N, D) -> (B, N, D)."""
        return others_mean(alpha)

    def attended(self, f: Tensor, alpha: Tensor, level: int) -> Tensor:
        """f' = alpha ⊙ f, eqs. (3), (4). f (B, C, h, w), alpha (B, C)."""
        return alpha[..., None, None] * f

    def decode(self, features: list[Tensor], context: Tensor) -> Tensor:
        """Segment images by a context. context (D,) or (B, D) -> logits (B, 2, H, W)."""
        context = context.expand(features[-1].shape[0], -1)
        maps = []
        for level, alpha in enumerate(context.split(self.attended_channels, dim=1)):
            f = features[-1 - level]
            attended = self.attended(f, alpha.to(f.dtype), level)
            maps.append(attended if self.variant == "paper" else torch.cat([attended, f], dim=1))
        if self.variant == "paper":
            return self.decoder(maps[0]).float()
        return self.decoder([*maps, features[1]]).float()

    def forward(self, images: Tensor, weights: Tensor | None = None) -> Output:
        """(B, N, 3, H, W) in [0, 1] -> logits (B, N, 2, H, W), extras alpha and context (B, N, D).

        weights  (B, N, N), rows sum to 1: whose attention image i receives; None: the others', in equal parts.
        """
        b, n = images.shape[:2]
        features = self.encode(images.flatten(0, 1))
        alpha = self.attention(features).unflatten(0, (b, n))  # (B, N, D)
        context = self.context_of(alpha) if weights is None else weights.to(alpha.dtype) @ alpha
        logits = self.decode(features, context.flatten(0, 1)).unflatten(0, (b, n))
        more = {name: extra.unflatten(0, (b, n)) for name, extra in self.extras(features).items()}
        return Output(logits, {"alpha": alpha, "context": context, **more})

    def loss(self, output: Output, targets: Tensor, classes: Tensor | None = None, dice: float = 0.0) -> dict:
        """Cross-entropy, section 3.6, + dice · foreground dice (the workbook's). targets (B, N, H, W), 255 void."""
        return {"segmentation": segmentation_loss(output.logits, targets, dice)}

    def extras(self, features: list[Tensor]) -> dict[str, Tensor]:
        """What a variant shows besides its attention, by name; the first dimension is B·N."""
        return {}


class CA(SemanticAttention):
    """Channel-wise attention, section 3.1: f'_A = alpha_B ⊙ f_A, f'_B = alpha_A ⊙ f_B."""


class FCA(SemanticAttention):
    """Fused channel-wise attention, section 3.2: alpha_C = σ(W'(alpha_A + alpha_B) + b'), for both images."""

    def __init__(self, backbone: Backbone, variant: str = "paper", input_size: int = 224):
        super().__init__(backbone, variant, input_size)
        self.fusion = nn.ModuleList(nn.Linear(c, c) for c in self.attended_channels)

    def context_of(self, alpha: Tensor) -> Tensor:
        """Both images' attention, so the whole group's: alpha_A + alpha_B = 2 · mean."""
        return alpha.mean(dim=1, keepdim=True).expand_as(alpha)

    def attended(self, f: Tensor, alpha: Tensor, level: int) -> Tensor:
        fused = torch.sigmoid(self.fusion[level](2 * alpha))  # eq. (5)
        return fused.to(f.dtype)[..., None, None] * f  # eqs. (6), (7)


class CSA(SemanticAttention):
    """Channel-spatial attention, section 3.3: f'_A = alpha^c_B ⊙ alpha^s_A ⊙ f_A."""

    EXTRAS = (*SemanticAttention.EXTRAS, "spatial")

    def attended(self, f: Tensor, alpha: Tensor, level: int) -> Tensor:
        return alpha[..., None, None] * spatial_attention(f) * f  # eqs. (12), (13)

    def extras(self, features: list[Tensor]) -> dict[str, Tensor]:
        """alpha^s at stride 32, (B·N, 1, H/32, W/32)."""
        return {"spatial": spatial_attention(features[-1])}
