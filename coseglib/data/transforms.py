"""Joint augmentation of an image and its label map, torchvision v2.

Images are sampled about pixel centres, bilinearly and with antialiasing; masks by `resize_labels` and nothing else, the
nearest neighbour about the same centres. torchvision samples masks from the corners of the pixels, half a pixel of the
result too low and too far to the right.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from coseglib.data.record import relabelled


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask or label map uint8 (…, H, W) at another size (H', W'), each pixel the one under its centre."""
    flat = labels.reshape(-1, 1, *labels.shape[-2:]).to(torch.uint8)
    return F.interpolate(flat, size=tuple(size), mode="nearest-exact").reshape(*labels.shape[:-2], *size)


class _AlignedCrop(v2.RandomResizedCrop):
    """torchvision's crop, box and image; the mask is cut from the same box and resized by `resize_labels`."""

    def transform(self, inpt, params):
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        return tv_tensors.Mask(resize_labels(tvf.crop(inpt, **params), self.size))


def augmentation(side: int, scale: tuple[float, float] = (0.4, 1.0), colour: float = 0.3) -> v2.Transform:
    """Random crop to `side`² of a share `scale` of the area, flip, brightness, contrast, saturation."""
    crop = _AlignedCrop(side, scale=scale, ratio=(0.8, 1.25), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ColorJitter(colour, colour, colour)])


def paste(
    image: Tensor, labels: Tensor, donor: Tensor, donor_labels: Tensor, label: int, rng, scale=(0.3, 0.9)
) -> tuple[Tensor, Tensor]:
    """Cut the class `label` out of a donor and put it, resized and flipped at random, somewhere onto an image.

    image, donor (3, S, S) uint8, labels (S, S); both results are new tensors. scale: of the cut-out's side to its own.
    """
    side = image.shape[-1]
    cut = donor_labels == label
    rows, columns = cut.any(1).nonzero()[:, 0], cut.any(0).nonzero()[:, 0]
    if len(rows) == 0:
        raise ValueError(f"the donor holds no pixel of class {label}")
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    factor = rng.uniform(*scale)
    h, w = (max(8, round((of.stop - of.start) * factor)) for of in box)
    piece = tvf.resize(tv_tensors.Image(donor[:, box[0], box[1]]), [h, w], antialias=True)
    stencil = resize_labels(cut[box], (h, w)).bool()
    if rng.random() < 0.5:
        piece, stencil = piece.flip(-1), stencil.flip(-1)
    top, left = (int(rng.integers(0, max(side - n, 0) + 1)) for n in (h, w))
    h, w = min(h, side - top), min(w, side - left)
    piece, stencil = piece[:, :h, :w], stencil[:h, :w]
    image, labels = image.clone(), labels.clone()
    image[:, top : top + h, left : left + w][:, stencil] = piece[:, stencil]
    labels[top : top + h, left : left + w][stencil] = label
    return image, labels


def target_of(labels: Tensor, label: int) -> tv_tensors.Mask:
    """The binary mask of one class: 1 there, 0 elsewhere, 255 void. label = 0: nothing is asked for."""
    return tv_tensors.Mask(relabelled(labels, {label: 1} if label else {}))
