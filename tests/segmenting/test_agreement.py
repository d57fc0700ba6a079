"""The masks that `coseg segment` writes are the masks that `coseg evaluate` scores, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from coseglib.answering import load
from coseglib.answering.crf import crf_installed
from coseglib.answering.floors import Features
from coseglib.core.paths import CHECKPOINTS
from coseglib.data import load as load_data
from coseglib.scoring import metrics
from coseglib.scoring.rows import evaluate
from coseglib.segmenting.job import segment_photos

SHIPPED = sorted(p.stem for p in CHECKPOINTS.glob("*.safetensors"))
FLOORS = ("everything", "ellipse", "features")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A set of two groups: nine drawn photographs of different sizes, and three others."""
    home = tmp_path_factory.mktemp("set")
    for group, count, colour in (("discs", 9, (210, 60, 40)), ("squares", 3, (40, 60, 220))):
        for folder in ("images", "ground_truth"):
            (home / folder / group).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng((len(group), i))
            width, height = 90 + 7 * i, 120 - 5 * i
            image = Image.fromarray(rng.integers(60, 140, (height, width, 3), dtype=np.uint8))
            mask = Image.new("L", (width, height), 0)
            x, y = int(rng.integers(5, width - 50)), int(rng.integers(5, height - 50))
            for picture, fill in ((image, colour), (mask, 255)):
                shape = ImageDraw.Draw(picture).ellipse if group == "discs" else ImageDraw.Draw(picture).rectangle
                shape((x, y, x + 40, y + 44), fill=fill)
            image.save(home / "images" / group / f"p{i}.png")
            mask.save(home / "ground_truth" / group / f"p{i}.png")
    return home


def scored(model, home: Path, monkeypatch, **asked) -> dict[str, np.ndarray]:
    """The masks of the first group that `evaluate` counts, by the photographs' names."""
    seen, plain = [], metrics.counts
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "counts", lambda pred, truth: seen.append(pred) or plain(pred, truth))
        patch.setattr(metrics, "precision", lambda *_: 0.0)
        patch.setattr(metrics, "jaccard", lambda *_: 0.0)
        rows = evaluate(model, load_data(home), **asked)
    first = (rows.group == "discs") & (rows.partner == "group")
    return {Path(rows.name[i]).name: seen[i].numpy() for i in rows.index[first]}


def written(out: Path) -> dict[str, np.ndarray]:
    return {p.name: np.array(Image.open(p)) // 255 for p in (out / "masks").glob("*.png")}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def model_of(name: str, **options):
    return Features("mobilenet_v2", 96, pretrained=False).eval() if name == "features" else load(name, **options)


CASES = [(name, looks, post) for name in SHIPPED for looks in (1, 2) for post in ("argmax", "crf")]
CASES = [(name, looks, post) for name, looks, post in CASES if looks == 1 or name.split("-")[0] in ("ca", "fca", "csa")]
CASES = [c for c in CASES if c[1:] != (2, "argmax") or c[0] == "ca-mobilenet_v2"]  # the CRF after two looks has both


@pytest.mark.parametrize(("name", "looks", "post"), [*CASES, *((floor, 1, "argmax") for floor in FLOORS)])
def test_masks_on_disk_are_the_masks_that_are_scored(name, looks, post, home, tmp_path, monkeypatch):
    if post == "crf" and not crf_installed():
        pytest.skip("pydensecrf2 is not installed")
    model = model_of(name) if name in FLOORS else model_of(name, looks=looks, post=post)
    segment_photos([home / "images" / "discs"], tmp_path / "out", model, quiet=True)
    on_disk = written(tmp_path / "out")
    assert len(on_disk) == 9
    assert same(on_disk, scored(model, home, monkeypatch))
    if post == "argmax" and looks == 1 and name in ("ca-mobilenet_v2", "ssnm-mobilenet_v2", "pfcc-mobilenet_v2"):
        assert same(on_disk, scored(model, home, monkeypatch, partner=("self", "other", "group")))
        some = scored(model, home, monkeypatch, limit=8)
        assert same({name: on_disk[name] for name in some}, some) and len(some) == 8


SCRIPT = """
import os, signal, sys
import torch
from coseglib.answering import load
from coseglib.segmenting import job

torch.set_num_threads(1)
photos, out, kill_at, devices = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
write, count = job.write_jpg, []

def counted(path, picture):
    write(path, picture)
    count.append(path)
    if len(count) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

job.write_jpg = counted
job.segment_photos([photos], out, load("pfcc-mobilenet_v2", post="argmax"), devices=devices, accelerator="cpu")
"""


def test_so_are_those_of_two_processes_and_of_a_run_that_was_killed(home, tmp_path, monkeypatch):
    (tmp_path / "run.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def run(out: str, kill_at: int, devices: int) -> int:
        call = [sys.executable, "run.py", home / "images" / "discs", out, str(kill_at), str(devices)]
        return subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, timeout=300).returncode

    assert run("two", 0, 2) == 0
    assert run("again", 4, 1) == -signal.SIGKILL
    assert run("again", 0, 1) == 0
    assert torch.get_num_threads() == 1
    want = scored(load("pfcc-mobilenet_v2", post="argmax"), home, monkeypatch)
    assert same(written(tmp_path / "two"), want)
    assert same(written(tmp_path / "again"), want)
