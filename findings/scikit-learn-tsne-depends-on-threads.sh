#!/usr/bin/env bash
# scikit-learn 1.9.1: TSNE with a fixed random_state draws another picture on another number of threads.
#
# Expected   the same data, parameters and random_state give the same points on every machine of a kind, as its
#            documentation says of random_state: an int for reproducible results.
# Seen       they do on one number of threads. Where OpenMP has two in place of one, points of 600 handwritten digits lie
#            up to a third of the picture's width elsewhere (perplexity 10; at 30 a tenth; by either start): partial sums
#            are added in another order, and a thousand steps make of the rounding another layout, as good as the first.
#            n_jobs, the parameter named after it, has no part in this: it is of the neighbours' search alone. So a report
#            drawn on a machine with more cores has other t-SNE figures, and other numbers where these are computed from
#            the points.
# What to do `with threadpoolctl.threadpool_limits(1):` around fit_transform.
# Versions   scikit-learn 1.9.1, numpy 2.4.6, scipy 1.17.1, threadpoolctl 3.8.0, CPython 3.11, Linux
# Run by hand, a minute; ends with 1 where the behaviour has changed. Needs python3 >= 3.11 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1 threadpoolctl==3.8.0 2>"$work/pip.log" || { tail -3 "$work/pip.log"; exit 1; }
cd "$work"
cat > tsne.py <<'PY'
import sys
from contextlib import nullcontext
import numpy as np, sklearn
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

name, limited = sys.argv[1], sys.argv[2:] == ["limited"]
with threadpool_limits(1) if limited else nullcontext():
    tsne = TSNE(perplexity=10, random_state=0, n_jobs=1)
    points = tsne.fit_transform(load_digits().data[:600])
np.save(name, points)
print(f"{name}: scikit-learn {sklearn.__version__}, width {np.ptp(points):.0f}, KL divergence {tsne.kl_divergence_:.4f}")
PY
OMP_NUM_THREADS=1 venv/bin/python tsne.py one.npy
OMP_NUM_THREADS=1 venv/bin/python tsne.py again.npy
OMP_NUM_THREADS=2 venv/bin/python tsne.py two.npy
OMP_NUM_THREADS=2 venv/bin/python tsne.py two-limited.npy limited
venv/bin/python - <<'PY'
import sys
import numpy as np

one, again, two, limited = (np.load(f"{name}.npy") for name in ("one", "again", "two", "two-limited"))
moved = np.linalg.norm(one - two, axis=1) / np.ptp(one)
print("the same twice with one thread:", np.array_equal(one, again))
print(f"with two threads points lie up to {moved.max():.2f} of the width elsewhere, {np.median(moved):.3f} in the median")
print("the same with two threads and threadpool_limits(1):", np.array_equal(one, limited))
sys.exit(not (np.array_equal(one, again) and moved.max() > 0.02 and np.array_equal(one, limited)))
PY
