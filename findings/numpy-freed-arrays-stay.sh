#!/usr/bin/env bash
# glibc's malloc under numpy 2.4.0: after one large array was freed, later ones no longer give their memory back.
#
# Expected   an array of several megabytes is mapped from the system, and unmapped when it is freed: a process that is done
#            with its arrays is small again.
# Seen       so it is, until an array of up to 32 MiB was freed once. From then on arrays up to that size are cut from the
#            heap, and a few small objects among them that are still in use keep all of it: here all 320 MB stay with the
#            process after every array is gone. A stream of images grows so by hundreds of megabytes over thousands.
# What to do `ctypes.CDLL(None).malloc_trim(0)` now and then (milliseconds), or MALLOC_MMAP_THRESHOLD_=1048576 in the
#            environment, which makes every large array cost a mapping.
# Versions   numpy 2.4.0, glibc 2.36, CPython 3.11, Linux
# Run by hand, half a minute; ends with 1 where the behaviour has changed. Needs python3 >= 3.11 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check numpy==2.4.0 2>/dev/null
cd "$work"
cat > arrays.py <<'PY'
import ctypes, os, sys
import numpy as np

def megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

if sys.argv[1] == "one large before":
    np.ones(30 * 2**20, np.uint8)  # freed at once
before, small, arrays = megabytes(), [], []
for _ in range(40):
    arrays.append(np.ones(8 * 2**20, np.uint8))
    small.append(bytearray(4096))  # what a program remembers of each
del arrays
left = megabytes() - before
ctypes.CDLL(None).malloc_trim(0)
print(f"{left:.0f} {megabytes() - before:.0f}")
PY
read -r plain _ <<< "$("$work/venv/bin/python" arrays.py plain)"
read -r after trimmed <<< "$("$work/venv/bin/python" arrays.py 'one large before')"
read -r mapped _ <<< "$(MALLOC_MMAP_THRESHOLD_=1048576 "$work/venv/bin/python" arrays.py 'one large before')"
"$work/venv/bin/python" -c "import numpy, platform; print('numpy', numpy.__version__, *platform.libc_ver())"
echo "left of 320 MB of freed arrays: $plain MB; after one large array $after MB, then trimmed $trimmed MB, with a fixed threshold $mapped MB"
test "$plain" -lt 30 && test "$after" -gt 200 && test "$trimmed" -lt 60 && test "$mapped" -lt 30
