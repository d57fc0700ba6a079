#!/usr/bin/env bash
# torch 2.15.0 on a CPU: the backward pass of a depth-wise convolution of stride 2 takes many times as long in bfloat16 as
# in float32.
#
# Expected   bfloat16 halves what has to be moved: on a processor that multiplies 16 bits the backward pass takes at most
#            about as long as in float32, as it does with stride 1.
# Seen       maps of 576 × 12², 192 × 24² and 144 × 48², the three late downsamplings of MobileNetV2, kernel 3, one
#            thread, channels last: 10 to 35 times as long in bfloat16 as in float32 with stride 2. With stride 1, where
#            four times as many outputs are computed, bfloat16 takes half to a twelfth of that, and every second output
#            is the same number. Under torch.autocast on a CPU all depth-wise convolutions are of bfloat16.
# What to do conv2d(x, w, stride=1, padding=1, groups=c)[..., ::2, ::2] in bfloat16 training, from maps of 48² down; in
#            float32 leave the stride, which is the faster way there.
# Versions   torch 2.15.0, CPython 3.11, Linux, x86-64 with AVX-512 and its 16 bits
# Run by hand, minutes (it fetches torch); ends with 1 where the behaviour has changed, with 2 on a processor that does
# not multiply 16 bits. Needs python3 >= 3.11 and a package index.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this processor does not multiply bfloat16: nothing to be seen here"; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.15.0 numpy 2>"$work/pip.log" || { tail -3 "$work/pip.log"; exit 1; }
cd "$work"
cat > strided.py <<'PY'
import sys
import time

import torch
from torch.nn.functional import conv2d

torch.manual_seed(0)
torch.set_num_threads(1)
print("torch", torch.__version__)


def backward(channels, side, dtype, stride):
    """-> milliseconds of the backward pass, the outputs"""
    torch.manual_seed(0)
    x = torch.randn(16, channels, side, side).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, 1, 3, 3).to(dtype).requires_grad_()
    spent = []
    for _ in range(7):
        y = conv2d(x, weight, None, stride, 1, 1, channels)
        y = y if stride == 2 else y[..., ::2, ::2]
        gradient = torch.ones_like(y)
        started = time.perf_counter()
        y.backward(gradient)
        spent.append(1000 * (time.perf_counter() - started))
    return min(spent), y.detach().float()


to_float32, to_dense = [], []
for channels, side in ((576, 12), (192, 24), (144, 48)):
    slow, strided = backward(channels, side, torch.bfloat16, 2)
    dense, every_second = backward(channels, side, torch.bfloat16, 1)
    usual, _ = backward(channels, side, torch.float32, 2)
    usual_dense, _ = backward(channels, side, torch.float32, 1)
    assert torch.allclose(strided, every_second, rtol=1e-2, atol=1e-2)
    print(f"{channels} x {side}²: stride 2, bfloat16 {slow:.1f} ms, float32 {usual:.1f} ms, ratio {slow / usual:.1f};"
          f" stride 1, bfloat16 {dense:.1f} ms, float32 {usual_dense:.1f} ms")
    to_float32.append(slow / usual)
    to_dense.append(slow / dense)
sys.exit(min(to_float32) < 4 or min(to_dense) < 1.5)
PY
"$work/venv/bin/python" strided.py
