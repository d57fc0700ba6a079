"""DCNet, the multi-scale dual-cross correlation network (Li, Liu, Gong and Liu).

Symbols   Q, A       the query image, which is segmented, and the answer image, which it is compared with
          r_1 … r_5  features of the backbone at strides 2, 4, 8, 16, 32    (B, C_s, h, w)
          d, i       content and index features of r_3, r_4, r_5            (B, C/2, h, w), (B, C/8, h, w)
          Z^S, A_S   scores and weights of a position over its cross (row and column) in the other image
          Z^C, A_C   scores and weights of a channel over the other image's channels    (B, C/2, C/2)
          H^S, H^C   contents collected by them; H their gated sum          (B, C/2, h, w)
          g_s, g_c   gates over positions (B, 1, h, w) and over channels (B, C/2, 1, 1), in (0, 1)
          y_n        [H, d^Q] at stride 2^n                                 (B, C, h, w)
          K          loops of the correlation, with the same weights

Each position of the query asks the row and the column of the answer image that it stands in, each channel all channels.
What is collected so is the answer of a second loop, in which a position's cross meets every column and every row: the
whole other image is within reach at H + W − 1 positions a loop. The decoder (MCFD) takes y_5, y_4, y_3, r_2 and r_1.

Where this differs
  * Eq. (3) is printed with (H+W−1) × C/2 matrices; a C/2 × C/2 correlation of whole maps needs all M positions: an
    erratum. It is not said over which channels softmax(Z^C) is normalised: we take those that eq. (4) sums. No scale is
    printed: scores grow with the features until one position and one channel have nearly all weight, where the softmax
    passes no gradient on (MobileNetV2 after 1400 steps: products with a standard deviation of 20 to 800, 81 to 99.99 %
    of the weight on the largest). scores="cosine" keeps them in ± `SHARPNESS`.
  * The text of eq. (1) gathers "the same column" twice: row and column, the centre once.
  * What a loop feeds back is not said. If the query's side changed, each position would see one row and one column of
    the answer image for ever. Ours: H becomes the content of the answer side, a 1×1 convolution (the same in all
    loops) its index. After two loops every position depends on every position of the answer, in space; the channel part
    reaches everything at once, but through C/2 × C/2 numbers without places.
  * Layers that are not described: content and index are 1×1 convolutions without activation; W_f in eq. (5) is one to
    one channel; the decoder's transposed convolutions have batch normalisation and ReLU behind them, but for the last.
    The two at the end: kernel 3, then kernel 7 with stride 2, the mirror of ResNet-50's first layer.
  * 448² photographs are said to give 28² maps: that is r_4; r_5 has 14². Dice: ε is one pixel, p^f = 1 − p^b.
  * Without `multiscale` (the baseline), r_4 and r_3 stand where y_4 and y_3 would. The non-local baseline has no gates
    and one loop; SCCM keeps g_s, so that the step to DCCM adds the channels alone.
  * Groups of N > 2: the mean of the probabilities over the partners. The paper tests an image with one random partner.
  * Any backbone; C is each stride's own number of channels, halves and eighths rounded down.
  * The paper's "increase rates" are relative, not points; its tables III (.91) and V (.90) disagree on the same set.
  * variant="workbook" is not in the paper: y_n and r_n concatenated at strides 32, 16 and 8, and `LateralDecoder` in
    place of the MCFD, with cosines for scores, and cross-entropy, unless told otherwise.
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.layers.cross_attention import channel_cross_attention, nonlocal_attention, spatial_cross_attention
from coseglib.layers.decoders import LateralDecoder
from coseglib.models.backbones import Backbone
from coseglib.models.contract import Output, Paper, PartnerModel
from coseglib.models.losses import OBJECTIVES

CORRELATIONS = ("dual", "spatial", "nonlocal")  # DCCM, SCCM, CRM
SCORES = ("product", "cosine")
STRIDES = (32, 16, 8)  # of r_5, r_4, r_3
SHARPNESS = 10.0  # times the cosine: e^10 between the same and the unrelated, e^20 to the opposite


class Loop(NamedTuple):
    """What one loop used and made: the answer's index (B, I, h, w), the gate g_s (or None), the aggregate H."""

    index: Tensor
    gate: Tensor | None
    aggregate: Tensor


class Correlation(nn.Module):
    """DCCM at one stride: contents and indices of two images -> y = [H, d^Q]. Options as of `DCNet`."""

    def __init__(self, channels: int, correlation: str = "dual", loops: int = 2, scores: str = "product"):
        super().__init__()
        self.sharpness = SHARPNESS if scores == "cosine" else None
        content, index = channels // 2, max(1, channels // 8)
        self.correlation, self.loops, self.channels = correlation, loops, 2 * content
        self.content, self.index = nn.Conv2d(channels, content, 1), nn.Conv2d(channels, index, 1)
        if correlation != "nonlocal":
            self.gate = nn.Conv2d(content, 1, 1)  # W_f
        if loops > 1:  # without bias: what is added to all scores of a position, the softmax takes off again
            self.index_of_aggregate = nn.Conv2d(content, index, 1, bias=False)

    def sides(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """r -> content d (B, C/2, h, w), index i (B, C/8, h, w)."""
        return self.content(r), self.index(r)

    def collect(self, index_query: Tensor, index_answer: Tensor, content: Tensor) -> Tensor:
        """H^S, eqs. (1), (2), or the non-local sum of the same weights over all positions."""
        attention = nonlocal_attention if self.correlation == "nonlocal" else spatial_cross_attention
        if self.sharpness is not None:
            index_query = self.sharpness * F.normalize(index_query, dim=1)
            index_answer = F.normalize(index_answer, dim=1)
        return attention(index_query, index_answer, content)

    def run(self, query: tuple[Tensor, Tensor], answer: tuple[Tensor, Tensor]) -> Iterator[Loop]:
        """The K loops. query, answer: content and index of each."""
        (d_q, i_q), (d, i) = query, answer
        for k in range(self.loops):
            if k:
                i = self.index_of_aggregate(d)
            h, g_s = self.collect(i_q, i, d), None  # eqs. (1), (2)                         (B, C/2, h, w)
            if self.correlation != "nonlocal":
                g_s = torch.sigmoid(self.gate(h))  # eq. (5)                                (B, 1, h, w)
                h = h * g_s
            if self.correlation == "dual":
                h_c = channel_cross_attention(d_q, d, self.sharpness)  # eqs. (3), (4)      (B, C/2, h, w)
                g_c = torch.sigmoid(h_c.mean(dim=(-2, -1), keepdim=True))  # eq. (6)        (B, C/2, 1, 1)
                h = h + h_c * g_c
            yield Loop(i, g_s, h)
            d = h  # the aggregate answers the next loop

    def forward(self, query: tuple[Tensor, Tensor], answer: tuple[Tensor, Tensor]) -> tuple[Tensor, Loop]:
        """-> y (B, C, h, w), and the last loop."""
        *_, last = self.run(query, answer)
        return torch.cat([last.aggregate, query[0]], dim=1), last  # eq. (7)


class FusingDecoder(nn.Module):
    """MCFD, section III-C, figure 4: from y_5 up by transposed convolutions, each level's map beside what comes up.

    maps of `channels`, coarsest first -> logits (B, 2, H, W); transposed convolutions to `widths`, the backbone's.
    """

    def __init__(self, channels: tuple[int, ...], widths: tuple[int, ...]):
        super().__init__()
        below = (channels[0], *(width + beside for width, beside in zip(widths, channels[1:], strict=True)))
        self.up = nn.ModuleList(self._block(c, width, stride=2) for c, width in zip(below, widths, strict=False))
        last = self._block(below[-1], widths[-1], stride=1)
        self.last = nn.Sequential(last, nn.ConvTranspose2d(widths[-1], 2, 7, stride=2, padding=3, output_padding=1))

    @staticmethod
    def _block(channels: int, width: int, stride: int) -> nn.Sequential:
        up = nn.ConvTranspose2d(channels, width, 3, stride, padding=1, output_padding=stride - 1, bias=False)
        return nn.Sequential(up, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[0]
        for up, beside in zip(self.up, maps[1:], strict=True):
            x = torch.cat([up(x), beside], dim=1)
        return self.last(x)


class DCNet(PartnerModel):
    """The network, with its ablations.

    correlation  "dual": over space and channels (DCCM); "spatial": eqs. (1), (2), (5) (SCCM); "nonlocal": over all
                 positions, without gates (CRM)
    multiscale   correlation at strides 32, 16 and 8; False: at 32 alone
    loops        K; a non-local correlation has one, whatever is given
    objective    "dice", eqs. (8), (9), or "cross_entropy"; None: dice for the paper's variant, else cross-entropy
    scores       "product": of features, as printed; "cosine", times `SHARPNESS`; None: by the variant, see above

    The paper's table IV: Baseline (correlation="nonlocal", multiscale=False), + MCFD (correlation="nonlocal"),
    + SCCM (correlation="spatial"), + DCCM (the defaults).
    """

    paper = Paper("li2021dcnet", ("DCNet", "+DCCM (DCNet)"), "dcnet", "ResNet-50", "13,200 pairs of VOC 2012 and MSRC")
    EXTRAS: ClassVar = {f"{name}{s}": f"(B, N, H/{s}, W/{s})" for name in ("correlation", "gate") for s in STRIDES}
    COMPARES = "share that is collected from here"

    def __init__(
        self,
        backbone: Backbone,
        variant: str = "paper",
        input_size: int = 224,
        *,
        correlation: str = "dual",
        multiscale: bool = True,
        loops: int = 2,
        objective: str | None = None,
        scores: str | None = None,
    ):
        super().__init__(backbone, variant, input_size)
        objective = objective or ("dice" if variant == "paper" else "cross_entropy")
        scores = scores or ("product" if variant == "paper" else "cosine")
        self.choose(correlation=(correlation, CORRELATIONS), objective=(objective, OBJECTIVES), scores=(scores, SCORES))
        if loops < 1:
            raise ValueError(f"loops {loops}: must be 1 or more")
        self.correlation, self.multiscale, self.objective = correlation, multiscale, objective  # see `Model.loss`
        self.loops = 1 if correlation == "nonlocal" else loops
        backbone.embedding = nn.Identity()  # the classifier's last convolution has no part in this
        c2, c4, c8, c16, c32 = backbone.channels
        self.strides_compared = STRIDES if multiscale else STRIDES[:1]
        correlated, plain = ((c32, c16, c8), ()) if multiscale else ((c32,), (c16, c8))
        self.correlations = nn.ModuleList(Correlation(c, correlation, self.loops, scores) for c in correlated)
        y = [module.channels for module in self.correlations]
        if variant == "paper":
            self.decoder = FusingDecoder((*y, *plain, c4, c2), (c16, c8, c4, c2))
        else:
            self.decoder = LateralDecoder((*(a + c for a, c in zip(y, correlated, strict=True)), *plain, c4))

    def encode(self, images: Tensor) -> list[Tensor]:
        """images (B, 3, H, W) in [0, 1] -> r_1 … r_5, then d and i at strides 32, 16, 8: all that pairs need."""
        pyramid = super().encode(images)
        sides = [module.sides(r) for module, r in zip(self.correlations, pyramid[::-1], strict=False)]
        return [*pyramid, *(side for pair in sides for side in pair)]

    def reference_maps(self, maps: list[Tensor]) -> list[Tensor]:
        """Of an answer image d and i are read, at each stride that is correlated."""
        return maps[5:]

    def _sides(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """d and i at strides 32, 16, 8, which stand at the end of an image's maps."""
        last = maps[-2 * len(self.strides_compared) :]
        return list(zip(last[::2], last[1::2], strict=True))

    def answer(self, maps: list[Tensor], reference: list[Tensor]) -> Output:
        """maps of B query images, `reference_maps` of the answer image of each -> logits (B, 2, H, W), extras:

        correlation<s>  mean over the channels of |H| of the last loop at stride s (B, h, w)    gate<s>  its g_s
        """
        y, extras = [], {}
        sides = zip(self.correlations, self._sides(maps), self._sides(reference), strict=True)
        for stride, (module, q, a) in zip(self.strides_compared, sides, strict=True):
            aggregated, last = module(q, a)
            y.append(aggregated)
            extras[f"correlation{stride}"] = last.aggregate.detach().float().abs().mean(dim=1)
            if last.gate is not None:
                extras[f"gate{stride}"] = last.gate.detach().float()[:, 0]
        finer = maps[4 - len(y) :: -1]  # r_n, from the coarsest that is not correlated to r_1
        if self.variant == "workbook":
            y = [torch.cat([a, r], dim=1) for a, r in zip(y, maps[4::-1], strict=False)]
            finer = finer[:-1]  # its decoder ends at r_2
        return Output(self.decoder([*y, *finer]).float(), extras)

    def _match(self, query: list[Tensor], reference: list[Tensor], cell: tuple[int, int], stride: int) -> Tensor:
        return correlation_of(self, query, reference, cell, stride)[0]


def correlation_of(
    model: DCNet, query: list[Tensor], answer: list[Tensor], position: tuple[int, int], level: int = 16
) -> Tensor:
    """How much of each position of the answer image a position of the query image collects, over all loops.

    query, answer  from `model.encode`, B images each   position  (row, column) in the query's map   level  a stride

    With A_k the weights of loop k (M × M, not zero on crosses alone), the row `position` of A_K … A_1: (B, h, w), each
    image's sum is 1. Gates and the channels' part, which has no places, are left out. No M × M is made: the row is the
    gradient of what `position` collects with respect to the contents.
    Raises ValueError for a level without correlation, or a position outside of the map.
    """
    if level not in model.strides_compared:
        raise ValueError(f"level {level}: one of {', '.join(map(str, model.strides_compared))}")
    k = model.strides_compared.index(level)
    module, (content, index), side = model.correlations[k], model._sides(query)[k], model._sides(answer)[k]
    h, w = index.shape[-2:]
    row, column = position
    if not (0 <= row < h and 0 <= column < w):
        raise ValueError(f"position {position}: outside of the map of {h} × {w} at stride {level}")
    with torch.no_grad():
        indices = [loop.index for loop in module.run((content, index), side)]
    weight = torch.zeros(len(index), 1, h, w, device=index.device)
    weight[:, :, row, column] = 1
    for answer_index in reversed(indices):
        contents = torch.zeros_like(weight).requires_grad_()
        with torch.enable_grad():
            collected = module.collect(index.detach(), answer_index.detach(), contents)
        (weight,) = torch.autograd.grad(collected, contents, weight)
    return weight[:, 0]
