"""ImageNet backbones as feature pyramids: five maps at strides 2, 4, 8, 16 and 32.

HRNets are timm's, the others torchvision's or as there (`small_nets`), but for `resnet10`: it is ours, knows drawn
scenes alone, and its weights ship (`coseglib.training.classifier`). Weights come from a local folder (`COSEG_WEIGHTS`)
where it holds `<name>.safetensors`, `<name>.fp16.safetensors` or `<name>-<8 hexadecimal digits>.safetensors`, else from
the libraries' own download. Where they come from decides how images are padded and normalised (`Origin`). A local
file's origin is what the caller says, else its metadata ("origin"), else what is known of its checksum (`KNOWN`); never
its name.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.core.errors import CosegError
from coseglib.core.paths import NAMING, weights_root
from coseglib.models.small_nets import BasicBlock, MobileNetV2


@dataclass(frozen=True)
class Origin:
    """What a set of ImageNet weights expects of its images and of its module."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    same_padding: bool = False  # stride-2 convolutions pad as TensorFlow's SAME
    stride_in_1x1: bool = False  # "v1" bottlenecks: the stride sits in the first 1×1 convolution


ORIGINS = {
    "torchvision": Origin(),  # timm's HRNet was trained with the same normalisation
    "tf-slim": Origin(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), same_padding=True),
    "caffe-v1": Origin(stride_in_1x1=True),
}
KNOWN = {  # SHA-256 of files that say nothing of themselves, and their origin
    "9b8b111453c4091450e6a06cfd8c461a4fb3d5d6736da6e6d92e1c7b7ddfcd60": "tf-slim",  # mobilenet_v2.fp16
    "2782a07fba70f72f7f1af0e04ded58a6d1b6fcfe9f3fc582d513c55e46576f7e": "caffe-v1",  # resnet50.fp16
}
BACKBONES = ("vgg16", "resnet10", "resnet18", "resnet50", "mobilenet_v2", "hrnet_w18", "hrnet_w32")
NARROW = (16, 32, 64, 128, 128)  # channels of `resnet10`, 0.6 M weights


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME: the odd pixel goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == self.in_channels and self.kernel_size == (3, 3) and not (x.shape[-1] % 2 or x.shape[-2] % 2):
            # Depth-wise on even maps: every second output, from 1, of the stride-1 convolution is the same number. In
            # bfloat16 its backward pass is two to twelve times as fast on a CPU as the strided one's
            # (findings/torch-bf16-strided-depthwise-backward.sh); in float32 its training step is up to twice as slow.
            dense = F.conv2d(x, self.weight, self.bias, 1, 1, self.dilation, self.groups)
            return dense[..., 1::2, 1::2].contiguous(memory_format=torch.channels_last)
        pads = []
        for n, k, s in zip(x.shape[-1:-3:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Backbone(nn.Module):
    """A feature pyramid: `channels` of the five maps, `embedding_channels` of `embed`'s, `origin` a key of ORIGINS."""

    strides = (2, 4, 8, 16, 32)

    def __init__(self, name: str, stages: list[nn.Module], channels: tuple[int, ...], origin: str, embedding=None):
        super().__init__()
        self.name, self.origin, self.channels = name, origin, channels
        self.stem_learns = True  # False: no gradient below stride 8, where half of a CPU's backward pass goes
        self.stages = nn.ModuleList(stages)
        self.embedding, self.embedding_channels = embedding or (nn.Identity(), channels[-1])
        self.register_buffer("mean", torch.tensor(ORIGINS[origin].mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(ORIGINS[origin].std).view(3, 1, 1), persistent=False)

    def preprocess(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> normalised as the weights expect."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> five maps (B, C_s, ⌈H/s⌉, ⌈W/s⌉), s = 2 … 32; VGG16's round down, ⌊H/s⌋."""
        x, pyramid = self.preprocess(images), []
        for stride, stage in zip(self.strides, self.stages, strict=True):
            with torch.set_grad_enabled(torch.is_grad_enabled() and (self.stem_learns or stride > 4)):
                x = stage(x)
            pyramid.append(x)
        return pyramid

    def embed(self, top: Tensor) -> Tensor:
        """The stride-32 map as ImageNet's classifier pools it: after MobileNetV2's last 1×1 convolution, else `top`."""
        return self.embedding(top)


class HRNet(Backbone):
    """timm's HRNet yields its pyramid at once: `Backbone.forward` without the loop over stages."""

    def __init__(self, name: str, pretrained: bool, origin: str):
        import timm

        every = {"features_only": True, "feature_location": "", "out_indices": (0, 1, 2, 3, 4)}
        body = timm.create_model(name, pretrained=pretrained, **every)
        super().__init__(name, [nn.ModuleDict({"body": body})], tuple(body.feature_info.channels()), origin)
        body.layer1.register_forward_hook(self._stem_ends)  # after it the branches of stride 4, 8, … go side by side

    def _stem_ends(self, layer: nn.Module, given: tuple, x: Tensor) -> Tensor:
        return x if self.stem_learns else x.detach()

    def forward(self, images: Tensor) -> list[Tensor]:
        first, *others = self.stages[0]["body"](self.preprocess(images))
        return [first if self.stem_learns else first.detach(), *others]


def _narrow_stages() -> list[nn.Module]:
    """Of `resnet10`: a strided convolution, then one of ResNet's basic blocks a stride. Quick to learn from nothing."""
    first = NARROW[0]
    stem = nn.Sequential(nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True))
    shortcuts = (nn.Sequential(nn.Conv2d(a, b, 1, 2, bias=False), nn.BatchNorm2d(b)) for a, b in pairwise(NARROW))
    return [stem, *(BasicBlock(a, b, 2, way) for (a, b), way in zip(pairwise(NARROW), shortcuts, strict=True))]


def _split(net: nn.Module, name: str) -> tuple[list[nn.Module], tuple[int, ...], tuple[nn.Module, int] | None]:
    """torchvision's module -> its five stages, their channels, and what embeds the last map, with its channels."""
    if name.startswith("resnet"):
        stem, first = nn.Sequential(net.conv1, net.bn1, net.relu), nn.Sequential(net.maxpool, net.layer1)
        channels = (64, *(net.fc.in_features // 2**k for k in (3, 2, 1, 0)))
        return [stem, first, net.layer2, net.layer3, net.layer4], channels, None
    blocks = list(net.features)
    if name == "vgg16":  # a stage ends with its pooling
        cuts = [0, *(i + 1 for i, layer in enumerate(blocks) if isinstance(layer, nn.MaxPool2d))]
        channels, embedding = (64, 128, 256, 512, 512), None
    else:
        cuts = (0, 2, 4, 7, 14, 18)  # a stage ends with the last block before the next stride
        channels, embedding = (16, 24, 32, 96, 320), (blocks[18], 1280)
    return [nn.Sequential(*blocks[a:b]) for a, b in pairwise(cuts)], channels, embedding


def _follow_origin(net: nn.Module, origin: Origin) -> None:
    if origin.same_padding:
        for conv in net.modules():
            if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
                conv.__class__ = SameConv2d  # same parameters under the same keys, another forward
    if origin.stride_in_1x1:
        for layer in (net.layer2, net.layer3, net.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)


def _local_file(name: str, root: str | Path | None) -> Path | None:
    folder = weights_root(root)
    named = re.compile(rf"{re.escape(name)}(\.fp16|-[0-9a-f]{{8}})?\.safetensors")
    return min((file for file in folder.iterdir() if named.fullmatch(file.name)), default=None) if folder else None


def _origin_of(file: Path, stated: dict[str, str], digest: str) -> str:
    """Key of ORIGINS, by a file's metadata or its checksum. Raises CosegError where neither says it."""
    origin = stated.get("origin") or KNOWN.get(digest)
    if origin in ORIGINS:
        return origin
    what = f"its origin {origin} is not known" if origin else "does not say where its weights come from"
    raise CosegError(f"{file}: {what}; say so: origin={'|'.join(ORIGINS)} (`--set origin=…`)")


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Tensors by name, the header's metadata, SHA-256. Raises CosegError where it is no safetensors file."""
    try:
        data = path.read_bytes()
        tensors = safetensors.torch.load(data)  # which has checked what the next line reads
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # safetensors has an error class of its own
        raise CosegError(f"{path}: not a readable safetensors file ({error}); get it again") from error
    return tensors, header.get("__metadata__", {}), hashlib.sha256(data).hexdigest()


def fill(module: nn.Module, tensors: dict[str, Tensor]) -> str:
    """Load tensors into a module, in float32. Returns the name of the first that does not fit, else ""."""
    want = {k: v.shape for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    have = {k: v.shape for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    if wrong := [k for k in (*want, *sorted(have)) if want.get(k) != have.get(k)]:
        return wrong[0]
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, strict=False)
    return ""


def build_backbone(
    name: str, weights: str | None = "imagenet", root: str | Path | None = None, origin: str | None = None
) -> Backbone:
    """A backbone by its name, see BACKBONES.

    weights  "imagenet": from `root` (else COSEG_WEIGHTS) or downloaded, see the head; None: random
    origin   key of ORIGINS; None or "": the file's; of a download and of random weights "torchvision"
    Raises CosegError for an unknown name, or when weights can neither be found nor fetched, or say not what they are.
    """
    if name not in BACKBONES:
        raise CosegError(f"{name}: no such backbone; one of {', '.join(BACKBONES)}")
    if weights not in ("imagenet", None):
        raise CosegError(f"{weights}: no such backbone weights; 'imagenet' or none")
    if origin and origin not in ORIGINS:
        raise CosegError(f"{origin}: no such origin of weights; one of {', '.join(ORIGINS)}")
    file = _local_file(name, NAMING if name == "resnet10" else root) if weights else None
    if file:
        tensors, stated, digest = read_safetensors(file)
        origin = origin or _origin_of(file, stated, digest)
    origin = origin or "torchvision"
    if (ORIGINS[origin].stride_in_1x1 and name != "resnet50") or (ORIGINS[origin].same_padding and "hrnet" in name):
        raise CosegError(f"{name}: no {origin} weights of it are known; another origin")
    download = bool(weights) and file is None
    if download and name == "resnet10":
        raise CosegError(
            f"{NAMING / name}.safetensors: no such file; `python -m coseglib.training.classifier` makes it"
        )
    try:
        if name.startswith("hrnet"):
            net = HRNet(name, download, origin)
        elif name == "resnet10":
            net = Backbone(name, _narrow_stages(), NARROW, origin)
        elif name == "mobilenet_v2":
            net = MobileNetV2()
            if download:
                from torchvision.models import MobileNet_V2_Weights

                net.load_state_dict(MobileNet_V2_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True))
        else:
            import torchvision.models as zoo

            net = getattr(zoo, name)(weights="IMAGENET1K_V1" if download else None)
    except Exception as error:  # urllib, huggingface_hub and ssl each have their own
        if not download:
            raise
        lack = f"no ImageNet weights here (COSEG_WEIGHTS is {weights_root(root) or 'not set'}), none could be fetched"
        mend = f"set COSEG_WEIGHTS to a folder with {name}.safetensors, or go online once"
        raise CosegError(f"{name}: {lack}; {mend}") from error
    if file and (wrong := fill(net.stages[0]["body"] if isinstance(net, HRNet) else net, tensors)):
        raise CosegError(f"{file}: does not fit the module (first of them {wrong}); fetch it again")
    if isinstance(net, Backbone):
        return net
    _follow_origin(net, ORIGINS[origin])
    stages, channels, embedding = _split(net, name)
    return Backbone(name, stages, channels, origin, embedding)
