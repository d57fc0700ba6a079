"""What is pasted into training photographs: objects cut out of others, as they are, and things that are *made* of them.

A made thing looks like nothing that has a name: an object's outline or a drawn one, with colours that were exchanged
and often with a texture of another photograph. There is no end of such things, so that no vocabulary tells which of
them several photographs have in common; only comparison does.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tvf

from coseglib.data.record import resize_image, resize_labels
from coseglib.data.sets.made import blob

SIDE = 0.45  # of a picture's side: the longer side of a made thing
SMALLEST = 8  # pixels, of a piece's side


class Piece(NamedTuple):
    """Pixels uint8 (3, h, w), and which of them belong to the thing, bool (h, w)."""

    pixels: Tensor
    inside: Tensor


def cut_out(image: Tensor, labels: Tensor, label: int) -> Piece:
    """The class `label` of an image (3, S, S) with a label map (S, S), in its box; ValueError without a pixel."""
    cut = labels == label
    rows, columns = cut.any(1).nonzero()[:, 0], cut.any(0).nonzero()[:, 0]
    if len(rows) == 0:
        raise ValueError(f"the donor holds no pixel of class {label}")
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return Piece(image[:, box[0], box[1]], cut[box])


def stick(image: Tensor, labels: Tensor, piece: Piece, label: int, rng, scale=(0.3, 0.9), turn=0.0) -> tuple:
    """Put a piece, resized, flipped and turned at random, somewhere onto an image (3, S, S) with a label map (S, S).

    scale  of the piece's side to its own     turn  degrees to either side, at most
    -> a new image, and a new label map that is `label` there.
    """
    side, factor = image.shape[-1], rng.uniform(*scale)
    h, w = (max(SMALLEST, round(n * factor)) for n in piece.inside.shape)
    pixels = tvf.resize(tv_tensors.Image(piece.pixels), [h, w], antialias=True)
    inside = resize_labels(piece.inside, (h, w)).bool()
    if rng.random() < 0.5:
        pixels, inside = pixels.flip(-1), inside.flip(-1)
    if turn:
        angle = rng.uniform(-turn, turn)
        pixels = tvf.rotate(pixels, angle, tvf.InterpolationMode.BILINEAR, expand=True)
        inside = tvf.rotate(inside[None].to(torch.uint8), angle, expand=True)[0].bool()
    h, w = inside.shape
    top, left = (int(rng.integers(0, max(side - n, 0) + 1)) for n in (h, w))
    h, w = min(h, side - top), min(w, side - left)
    pixels, inside = pixels[:, :h, :w], inside[:h, :w]
    image, labels = image.clone(), labels.clone()
    image[:, top : top + h, left : left + w][:, inside] = pixels[:, inside]
    labels[top : top + h, left : left + w][inside] = label
    return image, labels


def paste(image: Tensor, labels, donor, donor_labels, label: int, rng, scale=(0.3, 0.9)) -> tuple[Tensor, Tensor]:
    """Cut the class `label` out of a donor and put it, resized and flipped at random, somewhere onto an image.

    image, donor (3, S, S) uint8, labels (S, S); both results are new tensors. scale: of the cut-out's side to its own.
    """
    return stick(image, labels, cut_out(donor, donor_labels, label), label, rng, scale)


def make_thing(piece: Piece | None, texture: Tensor, rng: np.random.Generator) -> Piece:
    """A thing of SIDE of its pictures that has no name.

    piece    an object whose outline it has, and half of the time a part of whose look; None: the outline is drawn
    texture  uint8 (3, S, S), a photograph of which a part is what the thing shows, else
    """
    s = texture.shape[-1]
    longest = max(SMALLEST, round(SIDE * s))
    h, w = (longest, longest) if piece is None else piece.inside.shape
    h, w = (max(SMALLEST, round(n * longest / max(h, w))) for n in (h, w))
    inside = blob(longest, rng) if piece is None else resize_labels(piece.inside, (h, w)).bool()
    top, left = (int(rng.integers(0, s - n + 1)) for n in (h, w))
    look = texture[:, top : top + h, left : left + w].float()
    if piece is not None:
        share = rng.uniform(0.3, 0.7) if rng.random() < 0.5 else 0.0  # of the texture
        look = share * look + (1 - share) * resize_image(piece.pixels, (h, w)).float()
    gain, shift = (torch.from_numpy(rng.uniform(*of, (3, 1, 1))).float() for of in ((0.6, 1.4), (-50, 50)))
    look = gain * look[rng.permutation(3).tolist()] + shift
    return Piece(look.clamp(0, 255).round().to(torch.uint8), inside)
