"""`coseg segment` as shipped, against itself without what makes it fast; and its stream for more and more photographs.

    python benchmarks/segment.py                          # ten minutes of two cores
    python benchmarks/segment.py --only ways --photos 40
    python benchmarks/segment.py --only stream --photos 100 1000
    git worktree add ../before 35ec995 && python benchmarks/segment.py --against ../before

ways    one thing left out at a time: batches, folded norms, 16 bits, kept features, worker processes for the dense CRF,
        the CRF's smaller copy; for both looks and the CRF, and for one look by argmax. And two photographs from the
        prompt to their masks
against the whole command, from the prompt to the masks, by turns with that of another build's checkout
stream  photographs a second and peak memory for 100, 1,000 and 10,000: one look, argmax

Photographs are cut at random from the six rendered pictures of `data/pictures`, 500 × 375 pixels.
"""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does; before torch is imported

import numpy as np
from joblib.externals.loky import get_reusable_executor
from PIL import Image
from record import record

from coseglib.answering import crf, masks
from coseglib.core.paths import DEFAULT_CHECKPOINT, REPOSITORY
from coseglib.models import load_model
from coseglib.segmenting import job
from coseglib.training.runs import in_a_process

SIZE = 500, 375
FLAT = 1.05  # of the smallest run's peak memory
WAYS = {  # what is left out, and whether one look by argmax has it at all
    "as shipped": True, "one photograph at a time": True, "norms not folded": True, "32 bits": True,
    "no features kept": True, "dense CRF in line": False, "dense CRF on 640 pixels, all of them": False,
}  # fmt: skip


def make(folder: Path, count: int) -> None:
    """Parts of the rendered pictures, each another one."""
    files = sorted((REPOSITORY / "data/pictures/images").rglob("*.jpg"))
    pictures = [Image.open(file).convert("RGB") for file in files]
    for i in range(count):
        rng, picture = np.random.default_rng(i), pictures[i % len(pictures)]
        share = rng.uniform(0.6, 1)
        width, height = (int(share * side) for side in picture.size)
        left, top = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
        picture.crop((left, top, left + width, top + height)).resize(SIZE).save(folder / f"{i:05d}.jpg", quality=90)


def run(folder: str, out: str, way: str, looks: int, post: str) -> dict:
    """What `coseg segment` does, in this process."""
    precision = "32-true" if way.startswith("32 bits") else "auto"
    model = load_model(DEFAULT_CHECKPOINT, None, looks, post, precision, folded="not folded" not in way)
    with contextlib.ExitStack() as left_out:
        if way == "no features kept":
            left_out.enter_context(mock.patch.object(job, "MOST_BYTES", 0))
        if way == "dense CRF in line":
            left_out.enter_context(mock.patch.object(masks, "MANY", 10**9))
        if way.startswith("dense CRF on"):
            whole = crf.CONTOUR.model_copy(update={"longest": 640, "reach": None})
            left_out.enter_context(mock.patch.object(crf, "CONTOUR", whole))
        batch = {"batch": 1} if way == "one photograph at a time" else {}
        summary = job.segment_photos([folder], out, model, quiet=True, **batch)
    get_reusable_executor().shutdown()  # this process is a worker's child: it would wait for its own idle workers
    assert summary.done == summary.photos, summary
    return {"seconds": summary.seconds, "photos": summary.done}


def measured(photos: Path, way: str, looks: int, post: str) -> tuple[float, float]:
    """(photographs a second, peak in MB)"""
    with tempfile.TemporaryDirectory() as out:
        found, memory = in_a_process(run, str(photos), out, way, looks, post)
    return found["photos"] / found["seconds"], memory["peak"] / 2**20


def ways(count: int) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as home:
        make(Path(home), count)
        for looks, post in ((2, "crf"), (1, "argmax")):
            first = None
            for way, always in WAYS.items():
                if always or post == "crf":
                    rate, peak = measured(Path(home), way, looks, post)
                    first = first or rate
                    row = {"looks": looks, "masks by": post, "way": way, "photographs/s": f"{rate:.2f}"}
                    rows.append(row | {"time, of as shipped": f"{first / rate:.2f} ×", "peak (MB)": f"{peak:.0f}"})
                    print(rows[-1], flush=True)
    text = f"{count} photographs of {SIZE[0]} × {SIZE[1]} pixels, without starting the program. "
    text += "Peaks are the main process's; the dense CRF's workers hold some 60 MB each."
    record("Segmenting: what makes it fast", "benchmarks/segment.py", rows, text)
    starting()


def starting() -> None:
    seconds = {}
    with tempfile.TemporaryDirectory() as home:
        photos = Path(home, "photos")
        photos.mkdir()
        make(photos, 2)
        commands = {"import torch": ["-c", "import torch"]}
        commands["coseg segment, two photographs"] = ["-m", "coseglib.cli", "segment", str(photos), "-o", f"{home}/out"]
        for _ in range(5):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=REPOSITORY)
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    rows = [{"what": name, "seconds, median of 5": f"{np.median(all_):.2f}"} for name, all_ in seconds.items()]
    record("Two photographs, from the prompt to the masks", "benchmarks/segment.py", rows)


def against(other: Path, count: int, turns: int = 3) -> None:
    """The command of this build and of another one, by turns, both by this Python."""
    homes, ways_ = {"this build": REPOSITORY, "the other": other.resolve()}, ([], ["--looks", "1", "--post", "argmax"])
    build = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=other, capture_output=True, text=True, check=True
    )
    seconds, peaks = {}, {}
    with tempfile.TemporaryDirectory() as home:
        photos = Path(home, "photos")
        photos.mkdir()
        make(photos, count)
        for turn in range(turns):
            for k, options in enumerate(ways_):
                for name, where in homes.items():
                    out = f"{home}/{turn}{k}{name[:4]}"
                    command = ["-m", "coseglib.cli", "segment", str(photos), "-o", out, *options]
                    (took, peak), _ = in_a_process(timed, command, str(where))
                    seconds.setdefault((k, name), []).append(took)
                    peaks[k, name] = max(peaks.get((k, name), 0), peak)
    rows = []
    for k, options in enumerate(ways_):
        here, there = (np.median(seconds[k, name]) for name in homes)
        row = {"options": " ".join(options) or "as shipped", "this (s)": f"{here:.1f}", "the other (s)": f"{there:.1f}"}
        row |= {"times as fast": f"{there / here:.2f}", "peak, this (MB)": round(peaks[k, "this build"])}
        rows.append(row | {"peak, the other (MB)": round(peaks[k, "the other"])})
    text = f"{count} photographs of {SIZE[0]} × {SIZE[1]} pixels, the whole command, medians of {turns} by turns."
    record(f"Segmenting: beside build {build.stdout.strip()}", "benchmarks/segment.py", rows, text)


def timed(command: list[str], where: str) -> tuple[float, float]:
    """Seconds and the largest process's peak in MB of a Python command with a checkout as its library."""
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": where}
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=where, env=environment)
    took = time.perf_counter() - started
    return took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def stream(counts: list[int]) -> None:
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as home:
            make(Path(home), count)
            rate, peak = measured(Path(home), "as shipped", 1, "argmax")
        rows.append({"photographs": count, "photographs/s": f"{rate:.2f}", "peak (MB)": round(peak)})
        print(rows[-1], flush=True)
    most = max(row["peak (MB)"] for row in rows) / rows[0]["peak (MB)"]
    text = f"One look, argmax. The largest peak is {most:.3f} × the first (goal: {FLAT} ×, "
    record("Segmenting: the stream", "benchmarks/segment.py", rows, text + ("met)." if most <= FLAT else "missed)."))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("ways", "stream"))
    parser.add_argument("--photos", type=int, nargs="+")
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.against:
        return against(given.against, (given.photos or [100])[0])
    if given.only != "stream":
        ways((given.photos or [100])[0])
    if given.only != "ways":
        stream(given.photos or [100, 1000, 10_000])


if __name__ == "__main__":
    main()
