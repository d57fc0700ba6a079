#!/usr/bin/env bash
# statsmodels 0.15.0: `multipletests` of a two-dimensional table of p-values answers, and the answer is wrong.
#
# Expected   an error, as its own method "fdr_bh" gives ("pvals must be 1-dimensional"), or the corrected table
# Seen       "holm" and "bonferroni" return numbers of the right shape that are no correction of the table: they count
#            rows in place of tests, so p-values come out too small, and for holm in another order.
# What to do give it a vector: multipletests(p.ravel())[1].reshape(p.shape).
# Versions   statsmodels 0.15.0, numpy 2.4.6, CPython 3.11, Linux
# Run by hand; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check statsmodels==0.15.0 numpy==2.4.6 2>/dev/null
"$work/venv/bin/python" - <<'PY'
import sys
import numpy as np, statsmodels
from statsmodels.stats.multitest import multipletests

p = np.array([[0.01, 0.04], [0.03, 0.20]])
print(f"statsmodels {statsmodels.__version__}, p-values {p.tolist()}")
same = []
for method in ("holm", "bonferroni"):
    table = multipletests(p, method=method)[1]
    vector = multipletests(p.ravel(), method=method)[1].reshape(p.shape)
    print(f"{method:10} given the table {table.round(4).tolist()}, given its four values {vector.round(4).tolist()}")
    same.append(np.allclose(table, vector))
try:
    multipletests(p, method="fdr_bh")
    refused = False
except Exception as error:
    refused = True
    print(f"fdr_bh     given the table: {type(error).__name__}: {error}")
sys.exit(any(same) or not refused)
PY
