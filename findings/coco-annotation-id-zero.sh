#!/usr/bin/env bash
# pycocotools 2.0.11: the annotation with id 0 is never found.
#
# Expected   ids are names. Detections that are the ground truth itself have an average precision of 1, whatever the ids.
# Seen       COCOeval keeps for every detection the id of what it matches, and takes 0 for "nothing". So where annotations
#            are numbered from 0 the first of them counts as missed and its detection as a false alarm: with two objects
#            AP is .25 and not 1. Nothing is said.
# What to do number annotations from 1.
# Versions   pycocotools 2.0.11, CPython 3.11, Linux
# Run by hand, half a minute; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check pycocotools==2.0.11 2>/dev/null
cd "$work"
cat > score.py <<'PY'
import contextlib, io, sys
from importlib.metadata import version
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

def precision(first):
    """AP of boxes that are the annotations themselves, whose ids count from `first`"""
    boxes = [[10, 10, 40, 40], [60, 60, 30, 30]]
    truth = COCO()
    truth.dataset = {"images": [{"id": 1, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "thing"}]}
    truth.dataset["annotations"] = [
        {"id": first + i, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": b, "score": 0.9 - 0.1 * i} for i, b in enumerate(boxes)])
        scores = COCOeval(truth, found, "bbox")
        scores.evaluate(), scores.accumulate(), scores.summarize()
    return float(scores.stats[0])

zero, one = precision(0), precision(1)
print(f"pycocotools {version('pycocotools')}: AP {zero:.3f} with ids from 0, {one:.3f} with ids from 1")
sys.exit(not (one > 0.999 and zero < 0.6))
PY
"$work/venv/bin/python" score.py
