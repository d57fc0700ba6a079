"""Memory of the papers' own configurations: one training step at full size, each in a process of its own.

    python benchmarks/paper_step.py [--method ca] [--method ssnm] ...

The step is that of `coseg train --profile paper` (backbone, size and batch as the paper has them), on procedural scenes
and with random weights, which cost the same; beside it the `cpu` profile's, as the alternative. Peak memory is the
process's resident set, with Python and the scenes; goal: 24 GB. Multi-class: one epoch of a group, three images a step.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

from coseglib.models import METHODS

GOAL = 24e9  # bytes
OFFLINE = ("pretrained=false",)
MASKED = ("data=synthetic", "synthetic_photos=48", "steps=1", "workers=0", "validate_every=0")
ONLINE = ("epochs=1", "learning_rate=1e-5")


def command(method: str, profile: str, folder: str) -> list[str]:
    """What Python is called with for one step of a method's profile."""
    online = METHODS[method].online
    call = ["-m", "coseglib.cli", "train", "--method", method, "--profile", profile, "--output", folder, "--debug"]
    call += ["--group", "star+ring"] if online else []
    return call + [part for setting in OFFLINE + (ONLINE if online else MASKED) for part in ("--set", setting)]


def measured(method: str, profile: str) -> tuple[float, float]:
    """Peak resident set in bytes, and seconds. Raises RuntimeError with the last line of a call that failed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        started = time.perf_counter()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *command(method, profile, str(Path(folder) / "run"))], stdout=out, stderr=out
            )
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{method}, {profile}: {log.read_text().strip().splitlines()[-1:]}")
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", action="append", choices=tuple(METHODS), help="repeatable; none: all")
    rows = []
    for method in parser.parse_args().method or METHODS:
        paper, seconds = measured(method, "paper")
        small, _ = measured(method, "cpu")
        rows.append(
            {
                "method": method,
                "paper (GB)": round(paper / 1e9, 1),
                "cpu (GB)": round(small / 1e9, 1),
                "ratio": round(paper / small, 1),
                "paper, all in all (s)": round(seconds),
            }
        )
        print(rows[-1], flush=True)
    most = max(row["paper (GB)"] for row in rows)
    text = (
        "One training step on the CPU, in bfloat16 where it has that, random weights, procedural scenes. The largest "
        f"takes {most} GB (goal: at most 24, {'met' if most <= GOAL / 1e9 else 'missed'}). Seconds: all in all."
    )
    record("One step at the papers' size: memory", "benchmarks/paper_step.py", rows, text)


if __name__ == "__main__":
    main()
