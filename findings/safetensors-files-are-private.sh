#!/usr/bin/env bash
# safetensors 0.8.0: `save_file` makes files that their owner alone can read (0600), whatever the umask says.
#
# Expected   the mode that the umask gives, as of numpy.save or open(): 0644 under 022
# Seen       0600. A checkpoint that is written on a shared machine, or copied into a container with its mode kept,
#            cannot be read by anybody else, and nothing says so when it is written.
# What to do write to a temporary name, chmod by the umask, move into place.
# Versions   safetensors 0.8.0, numpy 2.4.6, CPython 3.11, Linux
# Run by hand; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6 2>/dev/null
cd "$work"; umask 022
"$work/venv/bin/python" - <<'PY'
import os, stat, sys
import numpy as np, safetensors
from safetensors.numpy import save_file

save_file({"weight": np.zeros(3, np.float32)}, "model.safetensors")
np.save("array.npy", np.zeros(3, np.float32))
modes = [f"{stat.S_IMODE(os.stat(name).st_mode):04o}" for name in ("model.safetensors", "array.npy")]
print(f"safetensors {safetensors.__version__}, umask 022: save_file {modes[0]}, numpy.save {modes[1]}")
sys.exit(modes != ["0600", "0644"])
PY
