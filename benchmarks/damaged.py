"""A thousand photographs, twenty of them damaged: the others are done, the damaged named, and memory stays.

    python benchmarks/damaged.py [--photos 100 1000] [--damaged 20] [--side 480] [--looks 1] [--post crf]

The job behind `coseg segment`, with the shipped checkpoint, once for each number of photographs; every run has a
process of its own, so that its peak memory is its own. The alternative is the smallest run: were photographs kept, the
larger ones would need more.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from record import record

from coseglib.core.paths import DEFAULT_CHECKPOINT
from coseglib.models import load_model
from coseglib.segmenting.job import segment_photos
from coseglib.training.runs import in_a_process

MOST = 1.05  # of the smallest run's peak
CONTENTS = (b"", b"no picture", b"\x89PNG\r\n\x1a\n", None)  # of damaged files; None: a photograph cut in half


def make(folder: Path, count: int, damaged: int, side: int) -> None:
    """A disc on noise in each; `damaged` of them, spread over all, are no photographs."""
    broken = set(np.linspace(0, count - 1, damaged).round().astype(int).tolist())
    for i in range(count):
        rng, file = np.random.default_rng(i), folder / f"{i:04d}.jpg"
        picture = Image.fromarray(rng.integers(60, 120, (side, side, 3), np.uint8))
        x, y = rng.integers(0, side // 2, 2).tolist()
        ImageDraw.Draw(picture).ellipse((x, y, x + side // 2, y + side // 2), fill=(220, 60, 40))
        picture.save(file)
        if i in broken:
            content = CONTENTS[i % len(CONTENTS)]
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)


def run(folder: str, out: str, looks: int, post: str) -> dict:
    """What `coseg segment` does, in this process."""
    summary = segment_photos([folder], out, load_model(DEFAULT_CHECKPOINT, looks=looks, post=post), quiet=True)
    masks = len(list(Path(out, "masks").glob("*.png")))
    return {"masks": masks, "named": len(summary.skipped), "exit code": summary.exit_code, "seconds": summary.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--damaged", type=int, default=20, help="of the largest number; of others their share")
    parser.add_argument("--side", type=int, default=480)
    parser.add_argument("--looks", type=int, default=1)
    parser.add_argument("--post", default="argmax", help="the dense CRF's processes have memory of their own")
    given = parser.parse_args()
    rows = []
    for count in sorted(given.photos):
        damaged = round(given.damaged * count / max(given.photos))
        with tempfile.TemporaryDirectory() as home:
            photos = Path(home, "photos")
            photos.mkdir()
            make(photos, count, damaged, given.side)
            found, memory = in_a_process(run, str(photos), str(Path(home, "out")), given.looks, given.post)
        assert (found["masks"], found["named"]) == (count - damaged, damaged), found
        peak = memory["peak"] / 2**20
        rows.append({"photographs": count, "damaged": damaged, **found, "peak (MB)": peak})
        rows[-1]["peak, of the smallest"] = f"{peak / rows[0]['peak (MB)']:.3f} ×"
        rows[-1] |= {"seconds": f"{found['seconds']:.1f}", "ms a photograph": f"{1000 * found['seconds'] / count:.1f}"}
    most = max(row["peak (MB)"] for row in rows) / rows[0]["peak (MB)"]
    rows = [{**row, "peak (MB)": f"{row['peak (MB)']:.0f}"} for row in rows]
    met = "met" if most <= MOST else "missed"
    text = (
        "Every whole photograph has its mask, every damaged one (empty, text, a header alone, cut in half) is named. "
    )
    text += f"The largest peak is {most:.3f} × that of {rows[0]['photographs']} photographs (goal: {MOST} ×, {met}). "
    record("Damaged photographs among many", "benchmarks/damaged.py", rows, text + f"{given.side}² pixels each.")


if __name__ == "__main__":
    main()
