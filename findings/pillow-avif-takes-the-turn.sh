#!/usr/bin/env bash
# Pillow 13.0.0: saving as AVIF takes the orientation out of the caller's own Exif object.
#
# Expected   `save` reads what it is given; the same Exif object serves the next file as well.
# Seen       after a save as AVIF the object has no orientation any more, so every later file that is saved with it
#            (a JPEG beside the AVIF, the next of a series) is shown unturned, and masks that were drawn upright do not
#            fit. WebP, JPEG and PNG leave the object as it is.
# What to do hand over exif.tobytes(), or a copy for each save.
# Versions   Pillow 13.0.0, CPython 3.11, Linux
# Run by hand; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check pillow==13.0.0 2>/dev/null
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys
import PIL
from PIL import Image

picture, left = Image.new("RGB", (96, 64), "white"), {}
for kind in ("jpg", "png", "webp", "avif"):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    picture.save(f"a.{kind}", exif=exif)
    left[kind] = exif.get(0x0112)
print(f"Pillow {PIL.__version__}: orientation in the caller's object after a save: {left}")
sys.exit(left != {"jpg": 6, "png": 6, "webp": 6, "avif": None})
PY
