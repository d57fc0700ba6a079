#!/usr/bin/env bash
# torchvision 0.29.2: `decode_image` gives a palette mask of few colours back with its pixels packed, four to a byte.
#
# Expected   masks in a palette (PASCAL VOC's, DAVIS', those of annotation tools) are read by ImageReadMode.UNCHANGED, which
#            gives each pixel's index, as np.asarray(Image.open(…)) does: where the palette has 17 colours or more, it does.
# Seen       a palette of 16 colours or fewer is stored with 4, 2 or 1 bits a pixel (Pillow does so unasked, as do
#            optimisers of PNGs). Of such a file the tensor has the right shape and type, but each row begins with the
#            file's bytes as they are stored, several pixels in each, and what follows is no part of the mask. So three
#            classes, 0 to 2, come as values up to 255. Nothing is said. Mode RGB is right.
# What to do read masks with Pillow; or write them with a palette of 256 colours, as PASCAL VOC's are.
# Versions   torchvision 0.29.2, torch 2.15.0, Pillow 13.0.0, CPython 3.11, Linux
# Run by hand, a few minutes, most of them to fetch torch; ends with 1 where the behaviour has changed.
# Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 pillow==13.0.0 numpy 2>"$work/pip.log" || { tail -3 "$work/pip.log"; exit 1; }
cd "$work"
cat > palette.py <<'PY'
import io, sys
import numpy as np
import torch, torchvision
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

mask = np.zeros((48, 64), np.uint8)
mask[8:30, 8:24], mask[20:44, 30:57] = 1, 2
COLOURS = [0, 0, 0, 200, 30, 30, 30, 200, 30]

def read(colours, mode):
    """the mask, written with a palette of so many colours: bits a pixel in the file, Pillow's and torchvision's reading"""
    picture = Image.fromarray(mask)
    picture.putpalette((COLOURS + [0] * 768)[: 3 * colours])
    picture.save(file := io.BytesIO(), "PNG")
    data = file.getvalue()
    tensor = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode)
    return data[24], np.asarray(Image.open(io.BytesIO(data))), tensor.numpy()

print(f"torchvision {torchvision.__version__}, a mask of the classes 0, 1, 2")
right, packed = {}, {}
for colours in (256, 17, 16, 3):
    bits, pillow, ours = read(colours, ImageReadMode.UNCHANGED)
    assert np.array_equal(pillow, mask) and ours.shape == (1, *mask.shape)
    right[colours] = np.array_equal(ours[0], mask)
    many = 8 // bits  # pixels a byte, the first in the highest bits
    bytes_ = sum(mask[:, k::many].astype(int) << (8 - bits * (k + 1)) for k in range(many))
    packed[colours] = np.array_equal(ours[0, :, : bytes_.shape[1]], bytes_)
    said = f"indices {right[colours]}, rows begin with packed pixels {many > 1 and packed[colours]}"
    print(f"palette of {colours} colours, {bits} bits a pixel: Pillow gives the indices, torchvision: {said}")
rgb = read(3, ImageReadMode.RGB)[2]
colours_right = np.array_equal(rgb.transpose(1, 2, 0), np.reshape(COLOURS, (3, 3))[mask])
print("palette of 3 colours, mode RGB: the palette's colours", colours_right)
expected = {256: True, 17: True, 16: False, 3: False}
sys.exit(not (right == expected and all(packed.values()) and colours_right))
PY
"$work/venv/bin/python" palette.py
