"""Unsupervised multi-class co-segmentation by self- and mutual attention (thesis, in Chinese and English; no masks).

Symbols   I_n      image n of a group of N                             (3, H, W)
          K        how many classes the images have in common, given by the user
          g, S_n   the generator, and its soft-max maps                (K+1, H, W), in (0, 1)
          F_n      features inside g, C channels, M = h·w positions    (C, h, w)
          Q, K, V  query, key and value: 1×1 convolutions of F
          SA, MA   self-attention and mutual attention                 (C, h, w)
          a        foreground attention of an image by the others      (h, w), in [½, 1)
          f        the feature extractor, frozen                       D numbers of an image and a map
          d⁺, d⁻   squared distances within a class and between classes, divided by D

The generator guesses K+1 maps; the image multiplied by a map shows one guess; the frozen network says what it shows.
The loss asks that the k-th guess looks alike in all images, and that guesses of one image look different. So it is
optimised anew on every group that it segments (`coseglib.unsupervised.learner`).

Where this differs
  * Channel 0 is the background, as everywhere in this library; the text's background is channel K+1.
  * Not stated: where in the FCN the attention sits, and how the FCN is initialised. Ours: F is the map at stride 32;
    FCN's two layers of 4096, which hold VGG16's classifier, are left out: no other backbone has them. The scores at
    stride 32 start at random, those at 16 and 8 at 0; were all 0, all maps would be equal and no class would ever part.
  * SA: query, key and value are printed with one size and without a layer behind them, so that size is C. MA: C/2.
  * MA scales v by a factor whose symbol is lost in the text: √M is our reading. The mean over references is taken of
    `a` alone: the layers behind it are linear.
  * d⁻: the sums' normaliser is lost. We average, over both images and over the K other maps, so that K does not change
    the scale. Distances are divided by D, as in the single-class work before it: else exp underflows.
  * Masked image: I is read as the network's normalised input, so what a map hides turns to the mean colour
    (`fill="mean"`); the product with the picture itself turns it black (`fill="black"`).
  * An image alone in its group is its own reference and its own pair: d⁺ = 0, and d⁻ is all that it learns from.
  * As printed, the loss is low where nothing is found: with every pixel background all classes show f the same constant
    picture, so d⁺ = 0, while d⁻ holds the whole image against that picture. Our runs at larger rates ended there. Three
    options, off by default, close that way out; none of them looks at a mask:
      masking="features"   f sees the whole image, and its map of features is averaged with S as weights. An empty map
                           still describes where it is least empty. f runs once an image, without gradient
      balance              weight of `imbalance`: half of an image is background, and the classes are of one size
      border               weight of `at_the_border`: the image's border is background
  * Adam moves γ by one learning rate a step at most, so at small rates it stays near 0, and the attention with it:
    `coseglib.unsupervised.learner` can give γ a rate of its own.
  * variant="workbook" is not in the text: `coseglib.models.clusters`. Its backbone is frozen, and is f as well.
  * Any backbone, for g and for f.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.models.backbones import Backbone
from coseglib.models.clusters import (
    DOUBT,
    Prototypes,
    WeighedVotes,
    evidence,
    spread,
    start_self_attention,
    undo_last_stride,
)
from coseglib.models.contract import GroupModel, Output, Paper, Terms, others_equally

MASKINGS = ("image", "features")
FILLS = ("mean", "black")
EPS = 1e-30  # of a map's mass: with more, an empty map would average to 0, and be as constant as a black image


def _positions(x: Tensor) -> Tensor:
    """(P, C, h, w) -> (P, M, C), float32 at least: scores of half precision would leave its range."""
    return x.flatten(2).mT.to(torch.promote_types(x.dtype, torch.float32))


def vote_counts(query: Tensor, key: Tensor) -> Tensor:
    """query (B, J, M, C') of references, key (B, N, L, C') of anchors -> v (B, J, N, L): each pair's column sums."""
    with torch.autocast(query.device.type, enabled=False):
        return torch.einsum("bjmc,bnlc->bjnml", query, key).softmax(dim=-1).sum(dim=-2)


class SelfAttention(nn.Module):
    """SA(F) = softmax(query(F) key(F)ᵀ) value(F), eq. (2). (P, C, h, w) -> the same, float32."""

    def __init__(self, channels: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, f: Tensor) -> Tensor:
        q, k, v = (_positions(layer(f)) for layer in (self.query, self.key, self.value))  # (P, M, C)
        with torch.autocast(f.device.type, enabled=False):  # faster than torch's fused kernel at these sizes
            return ((q @ k.mT).softmax(dim=-1) @ v).mT.unflatten(2, f.shape[-2:])


class MutualAttention(nn.Module):
    """MA of every image of a group (the anchor) with the others (the references), section 3.2, 2).

    f (B, N, C, h, w), weights (B, N, N) or (N, N) -> MA (B, N, C, h, w) and a (B, N, h, w), both float32
    """

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2  # C' = C/2
        self.query, self.key, self.value = (nn.Conv2d(channels, half, 1) for _ in range(3))
        self.output = nn.Conv2d(2 * half, channels, 1)

    def foreground(self, f: Tensor, weights: Tensor) -> Tensor:
        """a = mean over the references j of σ(v / √M), v the column sums of softmax(query(F_j) key(F_n)ᵀ)."""
        b, n = f.shape[:2]
        q, k = (_positions(layer(f.flatten(0, 1))).unflatten(0, (b, n)) for layer in (self.query, self.key))
        v = vote_counts(q, k)  # (B, references, anchors, M)
        a = torch.sigmoid(v / v.shape[-1] ** 0.5)
        a = (weights.to(a).expand(b, n, n)[..., None] * a.transpose(1, 2)).sum(dim=2)  # float32 in autocast too
        return a.unflatten(2, f.shape[-2:])

    def forward(self, f: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        a = self.foreground(f, weights)  # (B, N, h, w)
        value = self.value(f.flatten(0, 1))  # (B·N, C', h, w)
        mask = a.flatten(0, 1)[:, None].to(value.dtype)
        both = torch.cat([mask * value, (1 - mask) * value], dim=1)  # foreground and background, (B·N, 2C', h, w)
        return self.output(both).float().unflatten(0, f.shape[:2]), a


class FCNHead(nn.Module):
    """FCN-8s: 1×1 scores of maps at strides 32, 16 and 8, summed, then ×8 bilinearly -> logits (B, classes, H, W)."""

    def __init__(self, channels: tuple[int, ...], classes: int):
        super().__init__()
        self.scores = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in channels)
        for score in self.scores[1:]:  # as FCN does; the coarsest one is random, see the head of this file
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.scores[0](maps[0])
        for f, score in zip(maps[1:], self.scores[1:], strict=True):
            x = F.interpolate(x, size=f.shape[-2:], mode="bilinear") + score(f)
        return F.interpolate(x, scale_factor=8, mode="bilinear")


class MultiClass(GroupModel):
    """The generator g with the attention module inside. In the paper: VGG16, `input_size` 384.

    classes                           K, how many classes the images have in common
    self_attention, mutual_attention  F + γ (SA + MA); either part can be left out, or both ("w/o ATT")
    Of variant="workbook" alone, see `coseglib.models.clusters`:
    stride, layer                     of the frozen maps f: 16 or 32; the network's last stage, 4, or the one before, 3
    axes, backgrounds                 how many principal axes F has, and Q, how many prototypes the background
    evident                           whether the evidence e and the others' votes tell objects from background
    Its answers are those of sets of `group_size` photographs; the paper trains on mini-batches of 3.
    """

    paper = Paper("multiclass-thesis", ("SA+MA",), "multiclass")
    group_size = 8
    online, post, precision = True, "crf", "32-true"
    EXTRAS: ClassVar = {
        "features": "(B, N, C, h, w)",  # F, at stride 32; of the workbook's at 16
        "attended": "(B, N, C, h, w)",  # F + γ (SA + MA)
        "foreground": "(B, N, h, w)",  # a, with mutual attention
    }
    COMPARES = "share of the vote"

    def __init__(
        self,
        backbone: Backbone,
        variant: str = "paper",
        input_size: int = 224,
        *,
        classes: int = 2,
        self_attention: bool = True,
        mutual_attention: bool = True,
        stride: int = 16,
        layer: int = 4,
        axes: int = 24,
        backgrounds: int = 2,
        evident: bool = True,
    ):
        super().__init__(backbone, variant, input_size)
        if not 1 <= classes <= 254:
            raise ValueError(f"classes {classes}: 1 to 254, the labels of an 8-bit map but background and void")
        self.choose(stride=(stride, (16, 32)), layer=(layer, (3, 4)))
        self.classes = classes
        if variant == "workbook":
            self._on_frozen_features(self_attention, mutual_attention, stride, layer, axes, backgrounds)
            self.evident = evident
            return
        self.strides_compared = (32,) if mutual_attention else ()
        _, c8, c16, c32 = backbone.channels[1:]
        backbone.embedding = nn.Identity()  # the generator needs no classifier's layers
        self.self_attention = SelfAttention(c32) if self_attention else None
        self.mutual_attention = MutualAttention(c32) if mutual_attention else None
        if self_attention or mutual_attention:
            self.gamma = nn.Parameter(torch.zeros(()))  # γ of eq. (3)
        self.decoder = FCNHead((c32, c16, c8), classes + 1)

    def _on_frozen_features(self, alone: bool, mutual: bool, stride: int, layer: int, axes: int, backgrounds: int):
        """The workbook's parts; its axes are the first channels' until `start` says which."""
        backbone, self.layer, self.precision = self.backbone.requires_grad_(False), layer, "auto"
        fine = stride == 16 and (layer == 3 or len(backbone.stages) == len(backbone.strides))  # HRNet's is one module
        if fine and layer == 4:
            undo_last_stride(backbone.stages[-1])
        self.strides_compared = (16 if fine or layer == 3 else 32,) if mutual else ()
        channels = backbone.embedding_channels if layer == 4 else backbone.channels[3]
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("axes", torch.eye(axes, channels))
        self.register_buffer("offset", torch.zeros(axes))
        self.self_attention = SelfAttention(axes) if alone else None
        self.mutual_attention = WeighedVotes(axes) if mutual else None
        if alone:
            start_self_attention(self.self_attention)
            self.gamma = nn.Parameter(torch.ones(()))
        self.decoder = Prototypes(axes, self.classes, backgrounds)

    def encode(self, images: Tensor) -> list[Tensor]:
        """As `Model.encode`; of the workbook's the last map is f, the mean of the images' and their mirror images'."""
        if self.variant == "paper":
            return super().encode(images)
        maps = super().encode(images)
        mirrored = self.backbone(images.flip(-1))
        if self.layer == 4:
            both = self.backbone.embed(maps[-1]), self.backbone.embed(mirrored[-1])
        else:
            both = maps[3], mirrored[3]
        return [*maps[:-1], (both[0].float() + both[1].float().flip(-1)) / 2]

    def project(self, described: Tensor) -> Tensor:
        """f (P, D, h, w) -> the workbook's F (P, A, h, w), float32: centred, unit, on the group's axes, unit."""
        with torch.autocast(described.device.type, enabled=False):
            f = F.normalize(described.float() - self.centre[:, None, None], dim=1)
            return F.normalize(torch.einsum("ad,pdhw->pahw", self.axes, f) - self.offset[:, None, None], dim=1)

    def generate(self, f: Tensor, e: Tensor, weights: Tensor | None = None) -> Output:
        """The workbook's maps: F (B, N, A, h, w), e (B, N, h, w) -> logits (B, N, K+1, h, w). In training, too."""
        attended, a = self.attend(f, weights, e)
        seen = (None, None) if not self.evident else (e.flatten(0, 1), None if a is None else spread(a.flatten(0, 1)))
        logits = self.decoder(attended.flatten(0, 1), *seen).unflatten(0, f.shape[:2])
        extras = {"features": f, "attended": attended}
        return Output(logits, extras if a is None else {**extras, "foreground": a})

    def attend(self, f: Tensor, weights: Tensor | None = None, e: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """f (B, N, C, h, w) -> F + γ (SA(F) + MA(F)), eq. (3), the same, and a (B, N, h, w) or None without MA.

        e  (B, N, h, w), the evidence that the workbook's votes are weighed by; its attended features have unit length
        """
        added, a = 0, None
        if self.self_attention is not None:
            added = self.self_attention(f.flatten(0, 1)).unflatten(0, f.shape[:2])
        weights = others_equally(f.shape[1]).to(f.device) if weights is None else weights
        if self.variant == "workbook":
            a = None if self.mutual_attention is None else self.mutual_attention(f, e, weights)
            return f if isinstance(added, int) else F.normalize(f + self.gamma * added, dim=2), a
        if self.mutual_attention is not None:
            mutual, a = self.mutual_attention(f, weights)
            added = added + mutual
        return f if isinstance(added, int) else f + (self.gamma * added).to(f.dtype), a

    def decode(self, attended: Tensor, features: list[Tensor]) -> Tensor:
        """attended (B, C, h, w) and the plain maps at strides 2 … 32 -> logits (B, K+1, H, W), float32."""
        _, _, c8, c16, _ = features
        return self.decoder([attended, c16, c8]).float()

    def answer(self, images: Tensor, weights: Tensor | None = None) -> Output:
        """images (B, N, 3, H, W) in [0, 1] -> logits (B, N, K+1, H, W), channel 0 the background, soft-max S."""
        b, n = images.shape[:2]
        features = self.encode(images.flatten(0, 1))
        if self.variant == "workbook":
            f = self.project(features[-1])
            output = self.generate(*(x.unflatten(0, (b, n)) for x in (f, evidence(features[-1], f))), weights)
            logits = F.interpolate(DOUBT * output.logits.flatten(0, 1), size=images.shape[-2:], mode="bilinear")
            return Output(logits.unflatten(0, (b, n)), output.extras)
        f = features[-1].unflatten(0, (b, n))  # (B, N, C, h, w)
        attended, a = self.attend(f, weights)
        logits = self.decode(attended.flatten(0, 1), features).unflatten(0, (b, n))
        extras = {"features": f, "attended": attended}
        return Output(logits, extras if a is None else {**extras, "foreground": a})

    def _match(self, query: list[Tensor], reference: list[Tensor], cell: tuple[int, int], stride: int) -> Tensor:
        """The column of softmax(query(F_reference) key(F_query)ᵀ) whose sum v decides about a, in [0, 1]."""
        layer, anchor, other = self.mutual_attention, query[-1], reference[-1]
        if self.variant == "workbook":
            anchor, other = self.project(anchor), self.project(other)
        q, k = _positions(layer.query(other))[0], _positions(layer.key(anchor))[0]  # (M, C')
        shares = (q @ k.mT).softmax(dim=-1)  # a row of 1 for each of the reference's positions
        return shares[:, cell[0] * anchor.shape[-1] + cell[1]].unflatten(0, other.shape[-2:])

    def loss(
        self,
        output: Output,
        images: Tensor | None,
        extractor: "FeatureExtractor",
        balance: float = 0.0,
        border: float = 0.0,
        described: Tensor | None = None,
    ) -> Terms:
        """The co-attention loss, eq. (4), summed over pairs and classes as printed; the mean over B groups.

        balance, border  weights of `imbalance` and `at_the_border` beside −log p of one pair and class; 0: as printed
        described        (B, N, D, h, w), `extractor.describe(images)`, where it is known and the masking is "features":
                         images are not needed then. The workbook's: √A F, so that d is a distance of unit vectors
        """
        b, n = output.logits.shape[:2]
        maps = output.logits.softmax(dim=2)  # S  (B, N, K+1, H, W)
        if described is None:
            seen = extractor(images.flatten(0, 1), maps.flatten(0, 1))
        else:
            seen = extractor.pool(described.flatten(0, 1), maps.flatten(0, 1))
        losses = {"co_attention": co_attention_loss(seen.unflatten(0, (b, n)), "sum")}
        for name, weight, penalty in (("balance", balance, imbalance), ("border", border, at_the_border)):
            if weight:
                losses[name] = weight * terms(n, self.classes) * penalty(maps)
        return losses


class FeatureExtractor(nn.Module):
    """f: what a frozen ImageNet network (ResNet-50 in the paper) says of an image seen through a map."""

    def __init__(self, backbone: Backbone, masking: str = "image", fill: str = "mean"):
        super().__init__()
        GroupModel.choose(masking=(masking, MASKINGS), fill=(fill, FILLS))
        self.backbone, self.masking, self.fill = backbone.requires_grad_(False).eval(), masking, fill

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Frozen: its normalisation keeps ImageNet's statistics, whatever mode is asked for."""
        return super().train(False)

    def masked(self, images: Tensor, maps: Tensor) -> Tensor:
        """I^k = I ⊙ S^k, eq. (1). images (P, 3, H, W) in [0, 1], maps (P, K+1, H, W) -> (P, K+1, 3, H, W)."""
        hidden = self.backbone.mean if self.fill == "mean" else torch.zeros_like(self.backbone.mean)
        return hidden + (images - hidden)[:, None] * maps[:, :, None]

    def describe(self, images: Tensor) -> Tensor:
        """(P, 3, H, W) in [0, 1] -> the network's last map before its pooling, (P, D, h, w) float32."""
        return self.backbone.embed(self.backbone(images)[-1]).float()

    @staticmethod
    def pool(described: Tensor, maps: Tensor) -> Tensor:
        """Σ S f / Σ S over the positions. described (P, D, h, w), maps (P, K+1, H, W) -> (P, K+1, D)."""
        s = F.interpolate(maps.float(), size=described.shape[-2:], mode="area").flatten(2)  # (P, K+1, M)
        s = s / (s.sum(dim=-1, keepdim=True) + EPS)
        with torch.autocast(s.device.type, enabled=False):
            return s @ described.float().flatten(2).mT

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        """f(I^k) for every map. images (P, 3, H, W) in [0, 1], maps (P, K+1, H, W) in [0, 1] -> (P, K+1, D) float32."""
        if self.masking == "features":
            with torch.no_grad():
                described = self.describe(images)
            return self.pool(described, maps)
        described = self.describe(self.masked(images, maps.to(images.dtype)).flatten(0, 1))
        return described.mean(dim=(-2, -1)).unflatten(0, maps.shape[:2])


def distances(described: Tensor) -> tuple[Tensor, Tensor]:
    """d⁺ and d⁻ of every pair of images i < j and every class k >= 1, eqs. (6), (7). -> two of (B, pairs, K).

    described (B, N, K+1, D): f(I_n^k), k = 0 the background. One image is paired with itself.
    d⁺ = ‖f_i^k − f_j^k‖² / D; d⁻ = the mean over both images and the K maps ℓ ≠ k of ‖f^k − f^ℓ‖² / D.
    """
    n, maps, size = described.shape[1:]
    i, j = torch.triu_indices(n, n, 1, device=described.device) if n > 1 else torch.zeros(2, 1, dtype=torch.long)
    classes = described[:, :, 1:]  # (B, N, K, D)
    within = (classes[:, i] - classes[:, j]).square().sum(dim=-1) / size  # d⁺  (B, pairs, K)
    apart = (classes[:, :, :, None] - described[:, :, None]).square().sum(dim=-1) / size  # (B, N, K, K+1), 0 at ℓ = k
    apart = apart.sum(dim=-1) / (maps - 1)  # (B, N, K)
    return within, (apart[:, i] + apart[:, j]) / 2


def terms(n: int, classes: int) -> int:
    """How many −log p eq. (4) sums: pairs of n images (one image: itself) times classes."""
    return max(1, n * (n - 1) // 2) * classes


def imbalance(maps: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the maps' shares of an image from (½, 1/2K, …, 1/2K), mean over the images.

    maps (..., K+1, H, W): log 2 where the background has everything, log 2K where one class has.
    """
    shares = maps.float().mean(dim=(-2, -1))  # (..., K+1)
    k = shares.shape[-1] - 1
    wanted = shares.new_tensor([0.5] + [0.5 / k] * k)
    return (shares * (shares.clamp(min=EPS) / wanted).log()).sum(dim=-1).mean()


def at_the_border(maps: Tensor) -> Tensor:
    """Share of an image's border (a sixteenth of the side) that is not background, mean. maps (..., K+1, H, W)."""
    height, width = maps.shape[-2:]
    y, x = max(1, height // 16), max(1, width // 16)
    objects = 1 - maps.float().select(-3, 0)  # (..., H, W)
    border = objects.new_ones(height, width)
    border[y : height - y, x : width - x] = 0
    return ((objects * border).sum(dim=(-2, -1)) / border.sum()).mean()


def co_attention_loss(described: Tensor, reduction: str = "mean") -> Tensor:
    """−log p, p = exp(−d⁺) / (exp(−d⁺) + exp(−d⁻)), eqs. (4), (5), of f's (B, N, K+1, D): softplus(d⁺ − d⁻).

    reduction  "sum" over pairs and classes, as printed, and the mean over B; "mean": of those, too
    """
    GroupModel.choose(reduction=(reduction, ("mean", "sum")))
    within, apart = distances(described.to(torch.promote_types(described.dtype, torch.float32)))
    each = F.softplus(within - apart)  # (B, pairs, K)
    return each.mean() if reduction == "mean" else each.sum(dim=(1, 2)).mean()
