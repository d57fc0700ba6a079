"""Spatial-semantic network modulation: SSNM (Zhang, Chen, Liu and Liu, AAAI 2020).

Symbols   R_1 … R_4  the backbone's maps at strides 4, 8, 16, 32                  (B, N, c_i, h_i, w_i)
          varphi     all of them, fused: what the spatial modulator clusters      (B, N, d, h, w)
          X, M'      varphi's positions as unit columns, M' = N · h · w of them   (d, M')
          s, lambda  leading eigenvector of G = XᵀX − 11ᵀ, its eigenvalue         (B, N, h, w), (B)
          phi        the map of lowest resolution, R_4                            (B, N, c_4, h_4, w_4)
          gamma      how important each channel is for the group's class          (B, d)
          S          the mask as added to features, √M' · s, resized              (B, N, 1, h_i, w_i)

What the images of a group share is asked twice. Where: all positions of all images are split into two clusters. What:
gamma is learned by naming the group's classes. Every map is then scaled by gamma, shifted by S, and decoded.

Where this differs
  * The paper's "I" in G = XᵀX − I is an all-ones matrix (it says so in words). `layers.spectral_mask` solves for its
    eigenvector exactly, at any number of points. The released code runs 200 Adam steps, for 245 = 5·7·7 points alone,
    and mixes images with features in a reshape before gamma; neither is copied.
  * The sign of an eigenvector is arbitrary: foreground is the side whose positions touch the image border less. Its
    entries shrink with the number of positions: we add √M' · s, which is ±1 for two clear clusters of one size.
  * The size of varphi is not stated. `mask_stride`: 32 (the released code's 7 × 7 of 224²) in the paper variant, else
    8. Fused by a 1×1 convolution of the resized maps and batch normalisation; no ReLU, so that unit vectors can lie
    opposite to each other.
  * One gamma for maps of different widths: each R_i is brought to `width` = d channels by a 1×1 convolution (batch
    normalisation, ReLU). d and the covariance's c = d/4 are not stated.
  * The second pooling of HSP takes XᵀX/N without subtracting the mean: over images, the covariance would remove just
    what they have in common (and be 0 for one image). The bias of its last layer starts at 1, so that gamma does too.
  * (12) and (13) are misprinted: the sign between their two terms. Both are binary cross-entropies.
  * (13) as printed, and in the released code, weighs the positives by their own share δ and so sharpens the imbalance
    it is to cure: balance="paper". "inverse", the default, exchanges δ and 1 − δ; an image without positives (or
    without negatives) then has weights ½, where the formula would ignore it. "none" weighs nothing.
  * Void pixels count in no sum. The difference of the two logits is the paper's one logit.
  * (9) is −λ, up to M' large, against two terms of about 1. spatial_loss="mean", the paper variant's, is −λ/M', in
    [−1, 0]; "paper" is as printed; "none" leaves the term out, as the released code does (which adds a smooth-L1 loss).
    The workbook variant takes "none": the best features for (9) are ±1 times one vector by where a position lies,
    whatever the images show (notebook 03). S is then trained by the masks alone, through the decoder; "masks", not in
    the paper either, asks of S itself that it be the mask, by (13) with MASK_LOGIT · S as the logit (notebook 03).
  * Where a question says whose answer counts (`weights`), an image's group is itself and those that it has weight to;
    in the paper's plain groups that is the whole group.
  * Any backbone; the paper's are HRNet and VGG16. The authors' own correction: J of HRNet on Internet's car is 73.9.
  * variant="workbook" is not in the paper: modulated and plain features concatenated, `LateralDecoder`.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.data.record import VOID
from coseglib.layers.decoders import LateralDecoder, conv_bn_relu
from coseglib.layers.spectral_mask import foreground_positive, group_eigenvectors
from coseglib.models.backbones import Backbone
from coseglib.models.contract import GroupModel, Output, Paper, Terms
from coseglib.models.losses import foreground_dice

BALANCES = ("inverse", "paper", "none")
SPATIAL_LOSSES = ("mean", "paper", "masks", "none")
MASK_LOGIT = 3.0  # spatial_loss="masks": a position at S = 1 is foreground with logit 3, 95 %
STRIDES = (4, 8, 16, 32)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size): means of areas where it shrinks, bilinear where it grows."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.shape[-2] >= size[0] and maps.shape[-1] >= size[1]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=size, mode="bilinear")


def modulate(x: Tensor, gamma: Tensor | None, shift: Tensor | None) -> Tensor:
    """Y_c = gamma_c X_c + S, eq. (5). x (B, d, h, w), gamma (B, d), shift (B, 1, h', w'); None leaves its part out."""
    if gamma is not None:
        x = gamma.to(x.dtype)[..., None, None] * x
    if shift is not None:
        x = x + resized(shift, x.shape[-2:]).to(x.dtype)
    return x


def balanced_cross_entropy(logits: Tensor, labels: Tensor, balance: str = "inverse") -> Tensor:
    """Weighted binary cross-entropy, eq. (13): per image the mean over its pixels, then the mean over the images.

    logits (…, 2, H, W), labels (…, H, W) of 0, 1 and 255 (void). delta is the share of positives among an image's
    pixels; for `balance` see the head of this file.
    """
    logits, labels = logits.reshape(-1, *logits.shape[-3:]).float(), labels.reshape(-1, *labels.shape[-2:])
    valid, positive = labels != VOID, labels == 1
    pixels = valid.sum(dim=(-2, -1), keepdim=True).clamp(min=1)  # P
    delta = positive.sum(dim=(-2, -1), keepdim=True) / pixels
    inverse = torch.where((delta == 0) | (delta == 1), 0.5, 1 - delta)
    of_positives = {"paper": delta, "inverse": inverse, "none": None}[balance]
    weights = 1 if of_positives is None else torch.where(positive, of_positives, 1 - of_positives)
    entropy = F.cross_entropy(logits, positive.long(), reduction="none")  # −log of the right side's probability
    return ((weights * valid * entropy).sum(dim=(-2, -1), keepdim=True) / pixels).mean()


class SecondOrderPooling(nn.Module):
    """SP, section 3.3: 1×1 convolution to c channels, their c × c second moments, a fully connected layer to d."""

    def __init__(self, channels: int, reduced: int, width: int):
        super().__init__()
        self.reduce = nn.Linear(channels, reduced)  # a 1×1 convolution, channels last
        self.expand = nn.Linear(reduced**2, width)

    def covariance(self, f: Tensor) -> Tensor:
        """Over the positions of an image. (…, C, h, w) -> (…, c, c)."""
        u = self.reduce(f.flatten(-2).mT)  # (…, h·w, c)
        u = u - u.mean(dim=-2, keepdim=True)
        return u.mT @ u / u.shape[-2]

    def moments(self, g: Tensor, members: Tensor) -> Tensor:
        """Over the images of a set, without subtracting their mean. g (B, N, C), members (B, S, N) -> (B, S, c, c)."""
        u = self.reduce(g)  # (B, N, c)
        share = members.to(u.dtype) / members.sum(dim=-1, keepdim=True)
        return torch.einsum("bsn,bnc,bne->bsce", share, u, u)

    def forward(self, second: Tensor) -> Tensor:
        return self.expand(second.flatten(-2))


class HierarchicalPooling(nn.Module):
    """HSP, section 3.3 and figure 4: SP of each image, then SP of the N vectors, which gives gamma."""

    def __init__(self, channels: int, reduced: int, width: int):
        super().__init__()
        self.image = SecondOrderPooling(channels, reduced, width)
        self.group = SecondOrderPooling(width, reduced, width)
        nn.init.ones_(self.group.expand.bias)

    def forward(self, f: Tensor, members: Tensor) -> Tensor:
        """phi (B, N, C, h, w), members (B, S, N) -> gamma of each set (B, S, d), eq. (3); float32 in autocast too."""
        with torch.autocast(f.device.type, enabled=False):  # products of products soon leave half precision's range
            g = self.image(self.image.covariance(f.float()))  # (B, N, d)
            return self.group(self.group.moments(g, members))


class TopDown(nn.Module):
    """Section 3.4, after the feature pyramid network: maps at strides 32, 16, 8, 4 -> logits (B, 2, 4 h_4, 4 w_4)."""

    def __init__(self, width: int):
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(3))
        self.conv = conv_bn_relu(width, width, 3)
        self.logits = nn.Conv2d(width, 2, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[0]
        for step, finer in zip(self.steps, maps[1:], strict=True):
            x = finer + F.interpolate(step(x), size=finer.shape[-2:], mode="bilinear")
        return F.interpolate(self.logits(self.conv(x)), scale_factor=4, mode="bilinear")


class SSNM(GroupModel):
    """The network, with its ablations; options that are None are the variant's, see "Where this differs".

    categories         L, the classes of the training set; 78 in the paper
    width              d, channels of every modulated map
    spatial, semantic  False: without that modulator and its loss (the paper's −f_spa, −f_sem)
    mask_stride        of varphi: 4, 8, 16 or 32
    """

    paper = Paper("zhang2020", ("SSNM-HRNet", "SSNM-VGG16", "SSNM full"), "ssnm", "", "COCO-SEG")
    EXTRAS: ClassVar = {  # each image's as found in its own group
        "spatial": "(B, N, h, w)",  # s, of norm 1 over the group, positive on the foreground
        "eigenvalue": "(B, N)",  # lambda, between 0 and points
        "points": "(B, N)",  # M'
        "gamma": "(B, N, d)",  # importance of the channels
        "scores": "(B, N, L)",  # class logits, before eq. (11)'s sigmoid
    }

    def __init__(
        self,
        backbone: Backbone,
        variant: str = "paper",
        input_size: int = 224,
        *,
        categories: int = 20,
        width: int = 128,
        balance: str = "inverse",
        spatial: bool = True,
        semantic: bool = True,
        mask_stride: int | None = None,
        spatial_loss: str | None = None,
    ):
        super().__init__(backbone, variant, input_size)
        usual_stride, usual_loss = (32, "mean") if variant == "paper" else (8, "none")
        mask_stride = usual_stride if mask_stride is None else mask_stride
        spatial_loss = usual_loss if spatial_loss is None else spatial_loss
        self.choose(balance=(balance, BALANCES), spatial_loss=(spatial_loss, SPATIAL_LOSSES))
        self.choose(mask_stride=(mask_stride, STRIDES))
        if categories < 1 or width < 4:
            raise ValueError(f"categories {categories}, width {width}: must be at least 1 and 4")
        self.balance, self.spatial_loss, self.categories = balance, spatial_loss, categories
        self.level = STRIDES.index(mask_stride)
        backbone.embedding = nn.Identity()  # what it is in a classifier, nothing here reads it
        channels = backbone.channels[1:]  # c_1 … c_4
        self.laterals = nn.ModuleList(conv_bn_relu(c, width, 1) for c in channels)
        self.fusion = self.pooling = self.classifier = None
        if spatial:
            self.fusion = nn.Sequential(nn.Conv2d(sum(channels), width, 1, bias=False), nn.BatchNorm2d(width))
        if semantic:
            self.pooling = HierarchicalPooling(channels[-1], width // 4, width)
            self.classifier = nn.Linear(width, categories)  # W, b of eq. (11)
        beside = tuple(width + c for c in reversed(channels))
        self.decoder = TopDown(width) if variant == "paper" else LateralDecoder(beside)

    def fused(self, maps: list[Tensor]) -> Tensor:
        """varphi: all resolutions in one, before the positions are made unit vectors. R_i -> (B·N, d, h, w)."""
        size = maps[self.level].shape[-2:]
        return self.fusion(torch.cat([resized(f, size) for f in maps], dim=1)).float()

    def spatial_masks(self, varphi: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """lambda (B, S) and s (B, S, N, h, w) of each set of images, eqs. (2), (10). varphi (B, N, d, h, w)."""
        x = F.normalize(varphi, dim=2, eps=1e-6).flatten(-2)  # (B, N, d, P): X, image by image
        value, s = group_eigenvectors(x, members)
        return value, foreground_positive(s.unflatten(-1, varphi.shape[-2:]))

    def groups_of(self, weights: Tensor | None, b: int, n: int, device: torch.device) -> Tensor:
        """Whose images are one group: members (B, S, N), S = 1 where all images share theirs, else N, one an image."""
        if weights is None:
            return torch.ones(b, 1, n, dtype=torch.bool, device=device)
        members = (weights > 0) | torch.eye(n, dtype=torch.bool, device=device)
        return members[:, :1] if members.all() else members

    def answer(self, images: Tensor, weights: Tensor | None = None) -> Output:
        """images (B, N, 3, H, W) in [0, 1], any N >= 1, weights (B, N, N) or None -> logits (B, N, 2, H, W), EXTRAS.

        Image i is answered in the group of itself and those that it has weight to, as if this group alone had been
        given (batch normalisation in training apart). None: all images.
        """
        b, n = images.shape[:2]
        members = self.groups_of(weights, b, n, images.device)  # (B, S, N)

        def own(of_sets: Tensor) -> Tensor:  # (B, S, …) -> (B, N, …): what is known of sets, for each image of its own
            return of_sets if of_sets.shape[1] == n else of_sets.expand(b, n, *of_sets.shape[2:])

        maps = self.encode(images.flatten(0, 1))[1:]  # R_1 … R_4, each (B·N, c_i, h_i, w_i)
        extras, gamma, shift = {}, None, None
        if self.fusion is not None:
            value, s = self.spatial_masks(self.fused(maps).unflatten(0, (b, n)), members)
            s = s[:, 0] if s.shape[1] == 1 else s.diagonal(dim1=1, dim2=2).movedim(-1, 1)  # (B, N, h, w)
            points = own(members.sum(dim=2) * s.shape[-2] * s.shape[-1]).to(s.dtype)
            extras |= {"spatial": s, "eigenvalue": own(value), "points": points}
            shift = (points.sqrt()[..., None, None] * s).flatten(0, 1)[:, None]  # S  (B·N, 1, h, w)
        if self.pooling is not None:
            gamma = own(self.pooling(maps[-1].unflatten(0, (b, n)), members))
            extras |= {"gamma": gamma, "scores": self.classifier(gamma).float()}  # eq. (11)
            gamma = gamma.flatten(0, 1)  # (B·N, d)
        modulated = [modulate(lateral(f), gamma, shift) for lateral, f in zip(self.laterals, maps, strict=True)]
        if self.variant == "workbook":
            modulated = [torch.cat([y, f], dim=1) for y, f in zip(modulated, maps, strict=True)]
        logits = self.decoder(modulated[::-1]).float()
        return Output(logits.unflatten(0, (b, n)), extras)

    def loss(self, output: Output, targets: Tensor, classes: Tensor | None = None, dice: float = 0.0) -> Terms:
        """The terms of eq. (14): segmentation (13), spatial (9), semantic (12, where there are classes), and dice."""
        terms = {"segmentation": balanced_cross_entropy(output.logits, targets, self.balance)}
        if dice:
            terms["dice"] = dice * foreground_dice(output.logits, targets)
        if self.fusion is not None and self.spatial_loss == "masks":
            terms["spatial"] = self._mask_term(output, targets)
        elif self.fusion is not None and self.spatial_loss != "none":
            value = output.extra("eigenvalue")
            terms["spatial"] = -(value if self.spatial_loss == "paper" else value / output.extra("points")).mean()
        if self.pooling is not None and classes is not None:
            scores = output.extra("scores")
            if classes.shape != (scores.shape[0], scores.shape[2]):
                raise ValueError(f"classes of {tuple(classes.shape)}: must be {(scores.shape[0], scores.shape[2])}")
            wanted = classes.to(scores.dtype)[:, None].expand_as(scores)
            terms["semantic"] = F.binary_cross_entropy_with_logits(scores, wanted)
        return terms

    def _mask_term(self, output: Output, targets: Tensor) -> Tensor:
        """(13) of S, of the images in which something is asked for: an empty mask has one side, S always has two."""
        some = (targets == 1).flatten(2).any(dim=2)  # (B, N)
        s = output.extra("points").sqrt()[..., None, None] * output.extra("spatial")  # (B, N, h, w)
        s = F.interpolate(s[some][:, None], size=targets.shape[-2:], mode="bilinear")  # (n, 1, H, W)
        logits = torch.cat([torch.zeros_like(s), MASK_LOGIT * s], dim=1)
        return balanced_cross_entropy(logits, targets[some], self.balance) if some.any() else 0 * output.logits.sum()
