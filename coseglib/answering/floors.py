"""What a table starts from: answers that learned nothing about co-segmentation, under the names of checkpoints.

    everything  all pixels are foreground
    ellipse     the ellipse in the middle that touches no border: where photographers put things
    features    the group's positions, clustered by the features of a frozen ImageNet backbone; what a user without
                masks tries first. `features:NAME` takes any of `coseglib.models.backbones` or any model of timm
                (a self-supervised vision transformer: `features:vit_small_patch16_224.dino`)
    onnx:FILE   a saliency network of the user's, `coseglib.answering.saliency`: what can be had of one picture alone

Each is a group model as SSNM is: it sees all images of a group at once and returns logits, so that every protocol,
table and notebook asks it as it asks a trained one.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.answering.saliency import is_onnx, logit, read_network
from coseglib.core.errors import CosegError
from coseglib.models.backbones import BACKBONES, build_backbone
from coseglib.models.contract import STRIDE, GroupModel, Output

SURE = 4.0  # logit of a pixel that is foreground for certain; σ(2 · 4) = .9997
ELLIPSE = 0.8  # its axes over the image's sides
PRESENT = 0.01  # of an image's positions: what has less is not in it


class Floor(GroupModel):
    """A model without a weight that learns; forward (B, N, 3, H, W) in [0, 1] -> Output, as every model's."""

    group_size = 40  # most groups as a whole; larger ones in parts
    precision = "32-true"  # clusters would be others
    alone = True  # its answer about a photograph does not depend on the others
    learned_on = "nothing"

    def __init__(self, name: str, input_size: int = 224):
        super().__init__(None, "paper", input_size)
        self.name = name
        self.register_parameter("nothing", nn.Parameter(torch.zeros(0), requires_grad=False))  # says on which device

    @property
    def card(self) -> Mapping[str, object]:
        """Where a checkpoint has its file's checksum: that of the name, the size and the frozen weights."""
        if not self._card:
            digest = hashlib.sha256(f"{self.name} {self.input_size}".encode())
            for key, value in self.state_dict().items():
                digest.update(key.encode() + value.cpu().numpy().tobytes())
            self._card = {"name": self.name, "method": "floor", "sha256": digest.hexdigest()}
        return MappingProxyType(self._card)

    def foreground(self, images: Tensor) -> Tensor:
        """Of one group, (N, 3, H, W) -> (N, H, W), above 0 where foreground."""
        raise NotImplementedError

    @torch.no_grad()
    def answer(self, images: Tensor, weights: Tensor | None = None) -> Output:
        f = torch.stack([self.foreground(group) for group in images])
        return Output(torch.stack([-f, f], dim=2))


class Everything(Floor):
    def foreground(self, images: Tensor) -> Tensor:
        return images.new_full((len(images), *images.shape[-2:]), SURE)


class Ellipse(Floor):
    def foreground(self, images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        y, x = (torch.linspace(-1, 1, n, device=images.device) for n in (h, w))
        inside = (y[:, None] ** 2 + x[None] ** 2 < ELLIPSE**2).to(images.dtype)
        return ((2 * inside - 1) * SURE).expand(len(images), h, w)


class Features(Floor):
    """Co-clustering of a frozen network's features over the group.

    1. Unit feature vectors of all positions of all images are clustered by k-means, `clusters` in all.
    2. A cluster is foreground where it is common and in the middle: it holds at least PRESENT of the positions in
       half of the images or more, and its share of the outermost positions is below its share of all.
    3. A position's value is how much closer it lies to a foreground centre than to another one, enlarged bilinearly.
    """

    alone = False
    learned_on = "nothing; ImageNet features"

    def __init__(self, backbone: str = "resnet50", input_size: int = 384, clusters: int = 8, pretrained: bool = True):
        super().__init__(f"features:{backbone}", input_size)
        self.clusters = clusters
        if backbone in BACKBONES:
            self.net, self.level = build_backbone(backbone, "imagenet" if pretrained else None), 3  # stride 16
        else:
            self.net, self.level = _timm_features(backbone, input_size, pretrained), -1
        self.net.eval().requires_grad_(False)

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> unit vectors (N, C, h, w): stride 16 of a pyramid, a timm model's last map."""
        return F.normalize(self.net(images)[self.level].float(), dim=1, eps=1e-6)

    def foreground(self, images: Tensor) -> Tensor:
        from sklearn.cluster import KMeans  # seconds, which no other system is to wait for

        f = torch.cat([self.maps(part) for part in images.split(8)])  # (N, C, h, w)
        n, c, h, w = f.shape
        x = f.permute(0, 2, 3, 1).reshape(-1, c).cpu().numpy()
        k = min(self.clusters, _distinct(x, self.clusters))
        found = KMeans(k, n_init=3, random_state=0).fit(x)
        labels = torch.from_numpy(found.labels_).long().reshape(n, h, w)
        chosen = common_and_central(F.one_hot(labels, k).bool())
        if not chosen.any() or chosen.all():
            return f.new_full((n, *images.shape[-2:]), SURE if chosen.all() else -SURE)
        away = torch.from_numpy(found.transform(x)).reshape(n, h, w, k)  # distances to the centres
        nearer = away[..., ~chosen].amin(-1) - away[..., chosen].amin(-1)
        nearer = nearer.to(images.device, torch.float32)[:, None]
        return F.interpolate(nearer, size=images.shape[-2:], mode="bilinear")[:, 0]


def _distinct(x: np.ndarray, wanted: int) -> int:
    """How many rows of x (P, C) differ; of more than `wanted` some number that is not below it: a part will do."""
    some = len(np.unique(x[:: max(1, len(x) // 256)], axis=0))
    return some if some >= wanted else len(np.unique(x, axis=0))


def common_and_central(member: Tensor) -> Tensor:
    """Which clusters are foreground. member bool (N, h, w, k) -> bool (k,); step 2 of `Features`."""
    share = member.float().mean(dim=(1, 2))  # (N, k)
    common = (share >= PRESENT).float().mean(dim=0) >= 0.5
    border = torch.ones(member.shape[1:3], dtype=torch.bool)
    border[1:-1, 1:-1] = False
    on_border = member[:, border].float().mean(dim=(0, 1))
    return common & (on_border < member.float().mean(dim=(0, 1, 2)))


def _timm_features(name: str, input_size: int, pretrained: bool) -> nn.Module:
    """Any model of timm with its own weights and normalisation, as maps. CosegError for unknown names, or offline."""
    import timm
    from torchvision.transforms.v2 import Normalize

    if not timm.is_model(name.split(".")[0]):
        raise CosegError(f"features:{name}: no such backbone; one of {', '.join(BACKBONES)}, or a model of timm")
    transformer = {"img_size": input_size} if name.startswith(("vit", "deit", "beit", "eva")) else {}
    try:
        body = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=(-1,), **transformer)
    except Exception as error:  # huggingface_hub, urllib and ssl each have their own
        raise CosegError(f"features:{name}: its weights could not be fetched ({error}); go online once") from error
    return nn.Sequential(Normalize(body.pretrained_cfg["mean"], body.pretrained_cfg["std"]), body)


class Saliency(Floor):
    """A network of `read_network`: logits are its own, whatever it is asked with. name: "onnx:FILE"."""

    group_size = 1  # of large pictures
    learned_on = "not said; single pictures"

    def __init__(self, name: str):
        network = read_network(name)
        super().__init__(f"onnx:{Path(network.name).name}", -(-network.size // STRIDE) * STRIDE)
        self.network = network
        self._card = {"name": self.name, "method": "floor", "sha256": network.sha256, "settings": network.settings}

    def foreground(self, images: Tensor) -> Tensor:
        found = logit(self.network.maps(images))[:, None] / 2  # the difference of both logits is the map's own
        return F.interpolate(found, size=images.shape[-2:], mode="bilinear")[:, 0].to(images.device)


FLOORS = {"everything": Everything, "ellipse": Ellipse, "features": Features}


def is_floor(name: str) -> bool:
    return str(name).split(":")[0] in FLOORS or is_onnx(name)


def build_floor(name: str) -> Floor:
    """A floor by its name: everything, ellipse, features, features:BACKBONE, onnx:FILE. CosegError for others."""
    if is_onnx(name):
        return Saliency(str(name)).eval()
    kind, _, backbone = str(name).partition(":")
    if kind not in FLOORS or (backbone and kind != "features"):
        raise CosegError(f"{name}: no such floor; one of {', '.join(FLOORS)}, features:BACKBONE, onnx:FILE")
    return FLOORS[kind]((backbone or "resnet50") if kind == "features" else kind).eval()
