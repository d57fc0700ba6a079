#!/usr/bin/env bash
# Pillow 13.0.0: `Image.save` says nothing when the last bytes do not fit, and leaves a picture without its end.
#
# Expected   an OSError (ENOSPC on a full disk, EFBIG at a limit), as of open(…).write(…).
# Seen       none. The encoders of JPEG, PNG and others call write(2) themselves and look at −1 alone; a disk that fills up
#            takes a part of the bytes and returns how many. Only a further write would fail, and a small picture has
#            none: `save` returns, and the file is cut short. Here a file size limit plays the full disk.
# What to do save to io.BytesIO, and write these bytes by Python, which goes on after a short write and sees the error.
# Versions   Pillow 13.0.0, numpy 2.4.6, CPython 3.11, Linux
# Run by hand; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 2>/dev/null
cd "$work"
"$work/venv/bin/python" - <<'PY'
import io, os, resource, sys
import numpy as np, PIL
from PIL import Image

picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
whole = io.BytesIO()
picture.save(whole, "JPEG")
size = len(whole.getvalue())
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, hard))

def attempt(write):
    try:
        write()
    except OSError as error:
        return type(error).__name__
    return "no error"

def by_python():
    with open("python.jpg", "wb") as file:
        file.write(whole.getvalue())

by_pillow = attempt(lambda: picture.save("pillow.jpg"))
said = [by_pillow, attempt(by_python)]
cut = size - os.path.getsize("pillow.jpg")
print(f"Pillow {PIL.__version__}: Image.save {said[0]}, {cut} of {size} bytes missing; open().write {said[1]}")
sys.exit((*said, cut) != ("no error", "OSError", 1000))
PY
