#!/usr/bin/env bash
# torch 2.15.0 on a CPU: a training step clears gigabytes of fresh pages, every step again, and takes far longer for it.
#
# Expected   steps of one size reuse the memory of the step before, as on a GPU, whose allocator caches: after the first
#            step the system has nothing left to do.
# Seen       torch's CPU allocator caches nothing, and glibc maps every array above its threshold (it grows by itself,
#            to 32 MiB at the most) from the system and unmaps it when it is freed. A step of ten convolutions with batch
#            norms on 32 images takes a million page faults, the last step as many as the second: 3.3 s in the system of
#            13.5 s by the clock, on two cores of a virtual machine with other work; without them 3.5 s. Nothing in
#            torch's own profile names it: it is spread over all operators.
# What to do `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1` in the environment, or mallopt by ctypes before the first
#            step: hardly a fault is left. THP_MEM_ALLOC_ENABLE=1, torch's own switch, takes fewer, larger pages instead.
# Versions   torch 2.15.0, glibc 2.36, CPython 3.11, Linux
# Run by hand, minutes (it fetches torch); ends with 1 where the behaviour has changed. Needs python3 >= 3.11 and a
# package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check torch==2.15.0 numpy 2>"$work/pip.log" || { tail -3 "$work/pip.log"; exit 1; }
cd "$work"
cat > steps.py <<'PY'
import resource, time
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
layers = [m for _ in range(10) for m in (nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32), nn.ReLU())]
net, images = nn.Sequential(*layers), torch.rand(32, 32, 96, 96)
steps = []
for _ in range(6):
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    net(images).mean().backward()
    net.zero_grad()
    after = resource.getrusage(resource.RUSAGE_SELF)
    steps.append((time.perf_counter() - started, after.ru_minflt - before.ru_minflt, after.ru_stime - before.ru_stime))
seconds, faults, system = (sorted(values)[2] for values in zip(*steps[1:]))
print(f"{seconds:.2f} {faults} {system:.2f}")
PY
"$work/venv/bin/python" -c "import torch, platform; print('torch', torch.__version__, *platform.libc_ver())"
plain=$("$work/venv/bin/python" steps.py)
kept=$(MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1 "$work/venv/bin/python" steps.py)
read -r seconds faults system <<< "$plain"
read -r kept_seconds kept_faults kept_system <<< "$kept"
echo "by itself: $seconds s a step, $faults page faults, of it $system s in the system"
echo "kept:      $kept_seconds s a step, $kept_faults page faults, of it $kept_system s in the system"
python3 -c "import sys; a, b, c, d = map(float, sys.argv[1:]); sys.exit(not (a > 1.1 * b and c > 20 * d))" "$seconds" "$kept_seconds" "$faults" "$((kept_faults + 1))"
