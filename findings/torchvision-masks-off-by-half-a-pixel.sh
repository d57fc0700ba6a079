#!/usr/bin/env bash
# torchvision 0.29.2: an image and its mask, resized by one transform, no longer lie on each other.
#
# Expected   `v2.Resize` given an image and its `tv_tensors.Mask` gives both the same geometry: an object's mask covers it
#            before and after.
# Seen       the image is sampled about its pixels' centres, the mask (nearest) at their upper left corners: half a pixel
#            of the result too far down and right. Here squares of 72 pixels at eight places, eight times smaller: the
#            masks' centres lie .44 pixels beyond those of the images' squares, in the mean.
# What to do resize masks apart, with InterpolationMode.NEAREST_EXACT, which v2.Resize heeds for a mask (.06 off).
# Versions   torchvision 0.29.2, torch 2.15.0, CPython 3.11, Linux
# Run by hand, a few minutes, most of them to fetch torch; ends with 1 where the behaviour has changed.
# Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 numpy 2>"$work/pip.log" || { tail -3 "$work/pip.log"; exit 1; }
cd "$work"
cat > resize.py <<'PY'
import sys
import torch, torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

def centre(weights):
    """of what is not 0, in pixels from above"""
    w = weights.double()
    return float((w.sum(1) * torch.arange(w.shape[-1], dtype=torch.float64)).sum() / w.sum())

centres = {"image": [], "mask": [], "mask, nearest-exact": []}
apart = v2.Resize((32, 32), interpolation=v2.InterpolationMode.NEAREST_EXACT)
for shift in range(8):
    square = torch.zeros(256, 256, dtype=torch.uint8)
    square[92 + shift : 164 + shift, 92 + shift : 164 + shift] = 1
    image, mask = tv_tensors.Image(200 * square.expand(3, -1, -1).clone()), tv_tensors.Mask(square)
    small, small_mask = v2.Resize((32, 32))(image, mask)
    for name, found in {"image": small[0], "mask": small_mask, "mask, nearest-exact": apart(mask)}.items():
        centres[name].append(centre(found))
mean = {name: sum(values) / len(values) for name, values in centres.items()}
print(f"torchvision {torchvision.__version__}, the squares' centres, down and right alike:", mean)
off, exact = mean["mask"] - mean["image"], mean["mask, nearest-exact"] - mean["image"]
print(f"the masks are off by {off:.2f} pixels; asked for nearest-exact by {exact:.2f}")
sys.exit(not (0.35 < off < 0.6 and abs(exact) < 0.1))
PY
"$work/venv/bin/python" resize.py
