#!/usr/bin/env bash
# torch 2.15.0 on a CPU: `argmax` over the channels takes many times as long as `max`, which gives the same indices too.
#
# Expected   logits.argmax(1) of (images, channels, height, width), the last line of most segmentation scripts, costs no
#            more than logits.max(1), which finds the same indices and the values besides.
# Seen       argmax takes about 13 times as long as max where there are two channels and 6 times where there are eight,
#            by one thread; amax, of the values alone, is faster than either by far. The indices are equal. A tensor that
#            is contiguous along the channels is spared: there argmax is as fast as max.
# What to do logits.max(dim).indices; of two channels logits[:, 1] > logits[:, 0]. In a training loop that draws a curve
#            of J, argmax took a twentieth of the step. (An open report of torch's says the same of torch 2.5.)
# Versions   torch 2.15.0, CPython 3.11, Linux, x86-64
# Run by hand, minutes (it fetches torch); ends with 1 where the behaviour has changed. Needs python3 >= 3.11 and a
# package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.15.0 numpy 2>"$work/pip.log" || { tail -3 "$work/pip.log"; exit 1; }
cd "$work"
cat > channels.py <<'PY'
import sys, time
import torch

torch.manual_seed(0)
torch.set_num_threads(1)
print("torch", torch.__version__)


def milliseconds(job, times=5):
    job()
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        job()
        spent.append(1000 * (time.perf_counter() - started))
    return sorted(spent)[times // 2]


ratios = []
for channels in (2, 8):
    logits = torch.randn(8, channels, 192, 192)
    assert torch.equal(logits.argmax(1), logits.max(1).indices)
    last = logits.movedim(1, -1).contiguous()
    slow, fast = milliseconds(lambda: logits.argmax(1)), milliseconds(lambda: logits.max(1))
    print(f"{channels} channels: argmax {slow:.1f} ms, max {fast:.1f} ms, ratio {slow / fast:.1f};"
          f" channels last: {milliseconds(lambda: last.argmax(-1)):.1f}, {milliseconds(lambda: last.max(-1)):.1f} ms")
    ratios.append(slow / fast)
sys.exit(min(ratios) < 2)
PY
"$work/venv/bin/python" channels.py
