#!/usr/bin/env bash
# nbconvert 7.17.2: headings that say the same share one id, and a formula in a heading is drawn as unknown tags.
#
# Expected   every heading of a page can be linked to, as in JupyterLab's own table of contents; a formula that was
#            turned into MathML before stays MathML.
# Seen       `add_anchor` names a heading by its text alone, so the second "Results" has the id of the first and every
#            link leads there; and it reads headings as XML and writes them back with namespace prefixes, so that a
#            browser, which reads HTML, meets <ns0:math> and draws no formula. Nothing is said in either case.
# What to do give headings their ids yourself, with a number for the second of a name, and leave their inside alone.
# Versions   nbconvert 7.17.2, CPython 3.11, Linux
# Run by hand; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check nbconvert==7.17.2 2>/dev/null
"$work/venv/bin/python" - <<'PY'
import sys
import nbconvert
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbconvert.filters.strings import add_anchor

page = markdown2html_mistune("## Results\n\none\n\n## Results\n\ntwo\n")
ids = page.count('id="Results"')
formula = '<h2>The size of <math xmlns="http://www.w3.org/1998/Math/MathML"><mi>x</mi></math></h2>'
written = add_anchor(formula)
print(f"nbconvert {nbconvert.__version__}: {ids} headings with the id Results; a formula becomes {written[:90]}")
sys.exit(not (ids == 2 and "<ns0:math" in written))
PY
