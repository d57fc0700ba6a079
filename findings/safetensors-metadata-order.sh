#!/usr/bin/env bash
# safetensors 0.8.0: the same tensors and the same metadata give other bytes at every save, once metadata has two keys.
#
# Expected   one file, one SHA-256: tensors are sorted by name, and a Python dict has an order.
# Seen       the keys of `__metadata__` come in an order of chance, within one process too: two keys give two files, so
#            a checksum of a model does not say whether two trainings ended with the same weights, and a file that is
#            written again "has changed" for git, rsync and caches. With one key the bytes are always the same.
# What to do one metadata entry that holds all as JSON with sorted keys; or compare tensors, not files.
# Versions   safetensors 0.8.0, numpy 2.4.6, CPython 3.11, Linux
# Run by hand; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6 2>/dev/null
"$work/venv/bin/python" - <<'PY'
import hashlib, sys
import numpy as np, safetensors
from safetensors.numpy import save

def files(metadata):
    tensors = {"weight": np.zeros(3, np.float32), "bias": np.ones(2, np.float32)}
    return {hashlib.sha256(save(tensors, metadata)).hexdigest()[:12] for _ in range(200)}

one, two = files({"epoch": "3"}), files({"epoch": "3", "seed": "0"})
print(f"safetensors {safetensors.__version__}, 200 saves: {len(one)} file with one key, {len(two)} files with two")
sys.exit((len(one), len(two)) != (1, 2))
PY
