"""Pyramid-feature cross-correlation: PFCC (Chen, Chen, Li, Liu, Liu and Yang, Sci China Inf Sci 66, 2023, a letter).

Symbols   f_A, f_B   features at stride 16 of the query and of its answer    (B, C, h, w)
          φ1, φ2     1×1 convolutions                                        C -> D, D -> D
          f'_A       φ1(f_A), the base                                       (B, D, h, w)
          S_B^i      φ1(f_B) at k_i × k_i, the i-th kernel, i = 1 … m        (B, D, k_i, k_i)
          f̄_A        mean of the m correlations                              (B, D, h, w)
          F_A        φ2(f̄_A), what the decoder gets beside f_A               (B, D, h, w)

The answer's whole map is made small and slid over the query's map, channel by channel: where both have the same thing
on the same channel, their product is large. Several sizes of the kernel stand for several ratios of the objects' sizes.
For B the two change places.

Where this differs
  * The letter leaves encoder and decoder to an appendix that we lack. Encoder: ResNet at output stride 16, the last
    stage dilated by 2 instead of strided. Any other backbone keeps its strides; f is its stride-16 map beside its
    stride-32 map, enlarged. Decoder: DeepLabv3+'s head without its skip: atrous spatial pyramid pooling on [F_A, f_A],
    ×4, two convolutions, logits, ×4, with separable 3×3 convolutions; its pooled branch has no batch normalisation,
    since a batch of one has no variance there.
  * The letter names no loss (ours: cross-entropy) and no number for D and the decoder's width (ours: `width`, 256).
  * Images of 512² in place of 513²: sides are multiples of 32 here. Maps are 32², not 33², and k = 19 fits as well.
  * Where a map of either image is smaller than k, k is the largest odd number that fits: 13 on 14² maps, 3 on 4². Then
    kernels coincide; their mean is taken over all m as printed.
  * "⊗" slides a kernel without flipping it, with zeros outside the base.
  * "L2" is taken per channel over the k² values, ours of several readings; a norm below 1e-5 counts as 1e-5.
  * The bilinear resizing of eq. (2) has no antialiasing, as printed: k = 11 reads two of every three rows of a 32² map.
  * More than two images: each asks its partners one by one, and the foreground probabilities are averaged. An image
    alone asks itself.
  * variant="workbook" is not in the letter: the backbone keeps its strides, f as for other backbones, F_A joins the
    plain features at stride 16 in a decoder with laterals (`LateralDecoder`).
  * variant="workbook-context" is of no paper: comparison and context together. Beside all that is the workbook's, the
    answer's channel attention (`semantic_attention`) is multiplied onto the query's maps at strides 32, 16 and 8.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, cat, nn
from torch.nn import functional as F

from coseglib.layers.decoders import DROPOUT, LateralDecoder, conv_bn_relu
from coseglib.layers.depthwise_correlation import depthwise_correlation, merge_kernels, normalise_channels
from coseglib.models.backbones import Backbone
from coseglib.models.contract import Output, Paper, PartnerModel
from coseglib.models.semantic_attention import attention_layers, channel_attention, mean_over


def dilate(stage: nn.Module) -> None:
    """Take a ResNet stage's stride away, in place, and dilate what comes after it by 2: the same, unthinned."""
    after = False
    for conv in (m for m in stage.modules() if isinstance(m, nn.Conv2d)):  # in the order of execution
        if conv.kernel_size == (3, 3) and after:
            conv.dilation = conv.padding = (2, 2)
        if conv.stride == (2, 2):
            conv.stride, after = (1, 1), True


def separable(channels: int, width: int, rate: int = 1) -> nn.Sequential:
    """Atrous separable convolution: depth-wise 3×3 at a rate, then 1×1, each with batch normalisation and ReLU."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, groups=channels, bias=False)
    bn_relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    return nn.Sequential(depthwise, *bn_relu, *conv_bn_relu(channels, width, kernel=1))


def fitting_kernel(k: int, *maps: Tensor) -> int:
    """k, or the largest odd number that is no larger than a side of these maps (…, H, W), if that is less."""
    smallest = min(side for m in maps for side in m.shape[-2:])
    return min(k, smallest - (smallest + 1) % 2)


class AtrousDecoder(nn.Module):
    """DeepLabv3+'s head without its skip, see the head of this file. (B, C, h, w) -> logits (B, 2, 16h, 16w)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        atrous = (separable(channels, width, rate) for rate in (6, 12, 18))
        self.branches = nn.ModuleList([conv_bn_relu(channels, width, 1), *atrous])
        self.pooled = nn.Conv2d(channels, width, 1)
        self.project = conv_bn_relu(5 * width, width, 1)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.refine = nn.Sequential(separable(width, width), separable(width, width))
        self.logits = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = F.relu(self.pooled(x.mean(dim=(-2, -1), keepdim=True)))  # the image's mean  (B, width, 1, 1)
        x = cat([*(branch(x) for branch in self.branches), whole.expand(-1, -1, *x.shape[-2:])], dim=1)
        x = self.dropout(self.project(x))
        x = self.refine(F.interpolate(x, scale_factor=4, mode="bilinear"))
        return F.interpolate(self.logits(x).float(), scale_factor=4, mode="bilinear")


class PFCC(PartnerModel):
    """Pyramid-feature cross-correlation for pairs; groups ask pair by pair.

    backbone   of a ResNet, variant "paper" changes the last stage in place
    kernels    the k_i, odd; (): no correlation, F_A is left out and no image hears of its partner
    normalise  L2 normalisation of the kernels. Without it f̄ may leave float16's range: train in bfloat16 or float32
    width      D, and the channels of the paper's decoder
    """

    paper = Paper("chen2023", ("PFCC",), "pfcc")
    VARIANTS: ClassVar = ("paper", "workbook", "workbook-context")
    EXTRAS: ClassVar = {"correlation": "(B, N, m, H/16, W/16)", "fused": "(B, N, D, H/16, W/16)"}
    COMPARES = "product of features"

    def __init__(
        self,
        backbone: Backbone,
        variant: str = "paper",
        input_size: int = 224,
        *,
        kernels: Sequence[int] = (11, 15, 19),
        normalise: bool = True,
        width: int = 256,
    ):
        super().__init__(backbone, variant, input_size)
        if not isinstance(kernels, Sequence) or not all(isinstance(k, int) and k > 0 and k % 2 for k in kernels):
            raise ValueError(f"kernels {kernels!r}: sides of kernels, each odd and above 0; () for none")
        if not isinstance(normalise, bool):
            raise ValueError(f"normalise {normalise!r}: true or false")
        if not isinstance(width, int) or width < 1:
            raise ValueError(f"width {width!r}: a number of channels, 1 or more")
        self.kernels, self.normalise = tuple(kernels), normalise
        self.strides_compared = (16,) if kernels else ()
        c4, c8, c16, c32 = backbone.channels[1:]
        self.attended_channels = (c32, c16, c8) if variant == "workbook-context" else ()
        if self.attended_channels:
            self.attention_layers = attention_layers(backbone.embedding_channels, self.attended_channels)
        else:
            backbone.embedding = nn.Identity()  # maps are compared, not what ImageNet's classifier pools
        self.dilated = variant == "paper" and backbone.name.startswith("resnet")
        if self.dilated:
            dilate(backbone.stages[-1])
            backbone.strides = (*backbone.strides[:-1], 16)
        c, d = c32 if self.dilated else c16 + c32, width if kernels else 0
        if kernels:
            self.phi1, self.phi2 = nn.Conv2d(c, width, 1), nn.Conv2d(width, width, 1)
        a32, a16, a8 = self.attended_channels or (0, 0, 0)
        beside = (a32 + c32, a16 + d + c16, a8 + c8, c4)
        self.decoder = AtrousDecoder(d + c, width) if variant == "paper" else LateralDecoder(beside)

    def encode(self, images: Tensor) -> list[Tensor]:
        """images (B, 3, H, W) in [0, 1] -> the decoder's plain maps, coarsest first, and last (with kernels) f'.

        With context alpha (B, D, 1, 1) stands before f'.
        """
        pyramid = super().encode(images)
        f = pyramid[-1]  # (B, C, h, w), at stride 16 where dilated
        if not self.dilated:
            f = cat([pyramid[-2], F.interpolate(f, scale_factor=2, mode="bilinear")], dim=1)
        maps = [f] if self.variant == "paper" else pyramid[:0:-1]
        if self.attended_channels:
            pooled = mean_over(self.backbone.embed(pyramid[-1]).float())
            maps.append(channel_attention(self.attention_layers, pooled)[..., None, None])
        return [*maps, self.phi1(f)] if self.kernels else maps  # eq. (1)

    def reference_maps(self, maps: list[Tensor]) -> list[Tensor]:
        """Of an answer image nothing but f' is read, and with context alpha."""
        return maps[1 if self.variant == "paper" else 4 :] or maps[-1:]  # without either, something of its size

    def pyramid(self, base: Tensor, answer: Tensor) -> list[Tensor]:
        """L2(S_B^i), i = 1 … m, of the answers' f', fitted to the queries' f' (base), too: m of (B, D, k_i, k_i)."""
        sides = (fitting_kernel(k, base, answer) for k in self.kernels)
        kernels = [F.interpolate(answer.float(), size=(k, k), mode="bilinear") for k in sides]  # eq. (2)
        return [normalise_channels(s) for s in kernels] if self.normalise else kernels

    def answer(self, maps: list[Tensor], reference: list[Tensor]) -> Output:
        """maps of B query images, f' of the answer image of each, of any size -> logits (B, 2, H, W), extras.

        correlation  (B, m, h, w): L2(S_B^i) ⊗ f'_A for each kernel, mean over the channels, without gradients
        fused        (B, D, h, w): F_A
        """
        f, plain = maps[0] if self.variant == "paper" else maps[1], maps[:4]
        kernels, fused = [], f.new_zeros((f.shape[0], 0, *f.shape[-2:]))
        if self.kernels:
            base = maps[-1]
            kernels = self.pyramid(base, reference[-1])
            mean = depthwise_correlation(base, merge_kernels(kernels))  # f̄_A, eq. (3)  (B, D, h, w)
            fused = F.relu(self.phi2(mean))  # F_A, eq. (4)  (B, D, h, w)
        joined = cat([fused, f], dim=1)  # [F_A, f_A]  (B, D + C, h, w)
        if self.variant != "paper":
            plain[1] = joined
        if self.attended_channels:
            alphas = reference[-2 if self.kernels else -1].split(self.attended_channels, dim=1)
            for i, alpha in enumerate(alphas):  # at strides 32, 16, 8
                plain[i] = cat([alpha.to(maps[i].dtype) * maps[i], plain[i]], dim=1)
        logits = self.decoder(joined if self.variant == "paper" else plain)

        @torch.no_grad()
        def correlation() -> Tensor:  # as much as all the rest of the comparison: only for whom it is asked
            found = [depthwise_correlation(base, k).mean(dim=1).float() for k in kernels]
            return torch.stack(found, dim=1) if found else fused.float()

        return Output(logits.float(), {"correlation": correlation, "fused": fused.float()})

    def _match(self, query: list[Tensor], reference: list[Tensor], cell: tuple[int, int], stride: int) -> Tensor:
        """The products of the position's features with each cell of the reference, as eq. (3) adds them up: mean over
        the channels and the kernels, each enlarged to the reference's map; 0 for cells that never lie on the position.
        """
        base, other = query[-1], reference[-1]  # f'  (1, D, h, w)
        (h, w), (row, column) = base.shape[-2:], cell
        total = torch.zeros(other.shape[-2:], device=other.device)
        for kernel in self.pyramid(base, other):  # (1, D, k, k)
            k = kernel.shape[-1]
            products = (kernel[0] * base[0, :, row, column].float()[:, None, None]).mean(dim=0)  # (k, k)
            place = k // 2 - torch.arange(k, device=products.device)  # where the kernel's centre is, from `cell`
            inside = ((row + place >= 0) & (row + place < h))[:, None] & ((column + place >= 0) & (column + place < w))
            total += F.interpolate((products * inside)[None, None], size=total.shape, mode="bilinear")[0, 0]
        return total / len(self.kernels)
