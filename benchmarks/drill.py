"""What is left when something interferes: SIGKILL, a full disk, damaged files. Counts, not times.

kills    train (one process and two) and segment, killed at random moments and started again until they are done: are
         weights and masks, bit for bit, those of an undisturbed run?
fills    train, segment, evaluate and report on a small disk (a tmpfs) that is full at random moments: one line,
         nothing half written under a final name, and the same command is right once there is room
mutants  photographs, masks, checkpoints, cards, profiles, tables and COCO annotations with a few bytes or lines
         changed: a right result or one line that says what is wrong; nothing written outside the output folder

    python benchmarks/drill.py                                  # half an hour of two cores
    python benchmarks/drill.py --only mutants --seed 3
"""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from record import record

from coseglib.core.paths import SCENES
from coseglib.data import load
from coseglib.models.checkpoints import read_tensors

COSEG = (sys.executable, "-m", "coseglib.cli")
TRAIN = "train --method ca --profile smoke --set steps=24 --set save_every=4 --set groups=2 --set validate_every=12"
DISK = 96  # MB of the disk that fills up
SLOW = 90  # seconds that one damaged file may take


def photographs(folder: Path, count: int, kind: str = "jpg") -> list[Path]:
    """Drawn scenes with a star, four times as large, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, photo in enumerate(load("synthetic")[0].photos[:count]):
        picture = Image.fromarray(photo.image().permute(1, 2, 0).numpy())
        files.append(folder / f"scene{i}.{kind}")
        picture.resize((4 * picture.width, 4 * picture.height)).save(files[-1])
    return files


def masked(folder: Path, count: int) -> Path:
    """A folder of one's own with one group and its masks."""
    for i, photo in enumerate(load("synthetic")[0].photos[:count]):
        for part, pixels in (("images", photo.image().permute(1, 2, 0)), ("ground_truth", 255 * photo.mask(("star",)))):
            file = folder / part / "star" / f"scene{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.numpy()).save(file)
    return folder


def weights(run: Path) -> dict[str, bytes]:
    """Every tensor of a run's model."""
    tensors = sorted(read_tensors(run / "model.safetensors")[0].items())  # a file gives them in any order
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in tensors}


def outcome(folder: Path) -> dict[str, str]:
    """What a command left but for times: a checksum of every picture, table and model, and of what result.json says."""
    found = {}
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        name, content = str(file.relative_to(folder)), file.read_bytes()
        if file.name == "result.json":
            about = json.loads(content)
            content = json.dumps([{k: v for k, v in p.items() if k != "seconds"} for p in about["photos"]]).encode()
        elif file.name == "model.safetensors":
            content = b"".join(weights(file.parent).values())
        elif file.name == "log.csv":
            continue  # a row is the mean since the last one, or since the start of this process
        elif file.suffix == ".csv":
            rows = list(csv.DictReader(content.decode().splitlines()))
            content = json.dumps(
                [{k: v for k, v in r.items() if "second" not in k and "per_s" not in k} for r in rows]
            ).encode()
        if file.suffix in {".png", ".jpg", ".csv"} or file.name in {"result.json", "model.safetensors"}:
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def half_written(folder: Path) -> list[str]:
    """Files under a final name that cannot be read to their end, and files that should have been cleared away."""
    wrong = []
    for file in (f for f in folder.rglob("*") if f.is_file()):
        try:
            if file.suffix == ".safetensors":
                read_tensors(file)
            elif file.suffix in {".png", ".jpg"}:
                Image.open(file).load()
            elif file.suffix in {".json", ".ipynb"}:
                json.loads(file.read_text())
            elif file.suffix == ".csv":
                head, *rows = csv.reader(file.read_text().splitlines())
                assert all(len(row) == len(head) for row in rows)
        except Exception as fault:
            wrong.append(f"{file.name}: {type(fault).__name__}")
    return wrong


def faults(code: int, said: str) -> list[str]:
    """What is wrong with an end that is to be 0, or an error of one line."""
    lines = [line for line in said.splitlines() if line.startswith("coseg:")]
    wrong = ["a traceback"] if "Traceback (most recent" in said else []
    if code < 0 or code > 2:
        wrong.append(f"exit code {code}")
    if code and not lines:
        wrong.append("no line that says why")
    if code == 1 and len(lines) > 1:
        wrong.append(f"{len(lines)} lines")
    return wrong + ["an error that nobody foresaw"] * any("with --debug for" in line for line in lines)


# SIGKILL ----------------------------------------------------------------------------------------------------------


def kills(rng: np.random.Generator, count: int, work: Path, wanted: Sequence[str]) -> Iterator[dict]:
    """`count` kills of each command, at moments drawn over an undisturbed run's time. A run that ends is compared."""
    files = [str(file) for file in photographs(work / "photos", 24)]
    commands = {
        "train, 1 process": [*TRAIN.split(), "--devices", "1", "-o"],
        "train, 2 processes": [*TRAIN.split(), "--devices", "2", "--accelerator", "cpu", "-o"],
        "segment": ["segment", *files, "-o"],
    }
    for name, command in commands.items():
        if wanted and name not in wanted:
            continue
        resume = ["--resume"] if name.startswith("train") else []
        undisturbed = work / name.replace(",", "")
        for _ in range(2):  # the first decodes the scenes
            shutil.rmtree(undisturbed, ignore_errors=True)
            started = time.perf_counter()
            subprocess.run([*COSEG, *command, str(undisturbed)], check=True, capture_output=True)
            took = time.perf_counter() - started
        right, killed, equal, runs, pending = outcome(undisturbed), 0, 0, 0, 0
        out = work / "killed"
        while killed < count or pending:
            running = subprocess.Popen(
                [*COSEG, *command, str(out), *(resume if out.exists() else [])],
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                said = running.communicate(timeout=rng.uniform(0, took) if killed < count else None)[1]
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.communicate()
                killed, pending = killed + 1, pending + 1
                continue
            runs, same = runs + 1, running.returncode == 0 and outcome(out) == right and not half_written(out)
            if not same:
                print(f"{name}: exit code {running.returncode}, {said[-300:]}", flush=True)
            equal, pending = equal + pending * same, 0
            shutil.rmtree(out, ignore_errors=True)
        yield {"what": f"SIGKILL, {name}", "tried": killed, "right": equal, "how": f"{runs} runs to their end"}


# A disk that is full ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of DISK MB, or None where this machine mounts none."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fills(rng: np.random.Generator, count: int, work: Path, wanted: Sequence[str]) -> Iterator[dict]:
    """`count` full disks for each command: the room left is drawn between nothing and what an undisturbed run needs."""
    files, own = photographs(work / "photos", 8), masked(work / "own", 4)
    commands = {
        "train": TRAIN.replace("steps=24", "steps=8").split(),
        "segment": ["segment", *map(str, files)],
        "evaluate": ["evaluate", "--checkpoint", "ca-scenes", "--dataset", str(own)],
        "report": ["report", "--profile", "smoke", "--only", "01"],
    }
    with small_disk(work / "disk") as disk:
        if disk is None:
            yield {"what": "full disk", "tried": 0, "right": 0, "how": "skipped: no tmpfs can be mounted here"}
            return
        for name, command in commands.items():
            if wanted and name not in wanted:
                continue
            place, filler = disk / "out", disk / "filler"
            ends = {"evaluate": ["-o", str(place / "table.csv")], "report": []}.get(name, ["-o", str(place)])
            environment = os.environ | {"COSEG_REPORTS": str(place), "COSEG_CACHE": str(disk / "cache")}

            def run(more: Sequence[str] = (), command=command, ends=ends, environment=environment):
                return subprocess.run(
                    [*COSEG, *command, *ends, *more], env=environment, capture_output=True, text=True, timeout=600
                )

            def fresh(place=place, filler=filler, name=name) -> None:
                for folder in (place, disk / "cache"):
                    shutil.rmtree(folder, ignore_errors=True)
                filler.unlink(missing_ok=True)
                if name == "evaluate":
                    place.mkdir()

            fresh()
            before = shutil.disk_usage(disk).free
            done = run()
            assert done.returncode == 0, done.stderr
            need, right, good = before - shutil.disk_usage(disk).free, outcome(place), 0
            for _ in range(count):
                fresh()
                room = int(rng.integers(0, need))
                filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
                full = run()
                wrong = faults(full.returncode, full.stderr) if name != "report" else []
                wrong += half_written(place) if place.exists() else []
                if full.returncode == 0 and outcome(place) != right:
                    wrong.append("says that all is well, and it is not")
                filler.unlink()
                again = run(["--resume"] if name == "train" else ())
                if again.returncode or outcome(place) != right:
                    wrong.append(f"not right with room either: {again.stderr[-200:]}")
                good += not wrong
                for what in wrong:
                    print(f"full disk, {name}, {room} of {need} bytes left: {what}", flush=True)
            yield {"what": f"full disk, {name}", "tried": count, "right": good, "how": f"of {need / 1e6:.2f} MB"}
            fresh()


# Damaged files ----------------------------------------------------------------------------------------------------


def mutated(content: bytes, rng: np.random.Generator, text: bool) -> bytes:
    """A few bits, bytes, digits or lines of a file are others now."""
    data, n = bytearray(content), len(content)
    at, some = int(rng.integers(0, n)), int(rng.integers(1, max(2, n // 4)))
    digits = [i for i, byte in enumerate(content) if 48 <= byte < 58] if text else []
    lines = content.split(b"\n")
    row = int(rng.integers(0, len(lines)))
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + content[at + some :],
        lambda: content[:at] + content[at : at + some] + content[at:],
        lambda: content[:at] + bytes(min(some, n - at)) + content[at + some :],
        lambda: content[:at] + rng.bytes(min(some, 64)) + content[at:],
    ]
    if text:
        ways += [
            lambda: b"\n".join(lines[:row] + lines[row + 1 :]),
            lambda: b"\n".join(lines[: row + 1] + lines[row:]),
            lambda: content.replace(b'"', b"'", int(rng.integers(1, 4))),
        ]
        if digits:
            digit, new = digits[int(rng.integers(len(digits)))], [b"nan", b"-1", b"7", b"", b"x", b"null"]
            ways += [lambda: content[:digit] + new[int(rng.integers(len(new)))] + content[digit + 1 :]] * 4
    else:
        for place in rng.integers(0, n, int(rng.integers(1, 9))):
            data[place] ^= 1 << int(rng.integers(8))
        ways += [lambda: bytes(data)] * 4
    return ways[int(rng.integers(len(ways)))]()


@dataclass
class Kind:
    """One kind of file to damage: where it lies, what is run, and whether a result may differ from the sound file's."""

    name: str
    files: Sequence[Path]
    command: Sequence[str]
    may_differ: bool
    start: Path | None = None  # a folder that the output begins as
    inside: str = ""  # the file to damage, in the output folder
    sound: dict[str, str] = field(default_factory=dict)


def serve() -> None:
    """Run commands one after another in this process, which has its torch: {"arguments", "log"} a line, a code back."""
    from coseglib.cli.main import main

    answers = os.fdopen(os.dup(1), "w")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))  # a damaged number is not to fill this disk
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
    for line in sys.stdin:
        asked = json.loads(line)
        with open(asked["log"], "w") as log:
            os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
            code = main(asked["arguments"])
            sys.stdout.flush(), sys.stderr.flush()
        print(code, file=answers, flush=True)


class Server:
    """`serve` in a process of its own, started anew where a command ended it."""

    def __init__(self, log: Path):
        self.log, self.process = log, None

    def run(self, arguments: Sequence[str]) -> tuple[int | None, str]:
        """Exit code and what was said; None: more than SLOW seconds."""
        if self.process is None:
            given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
            self.process = subprocess.Popen([sys.executable, __file__, "--serve"], **given)
        print(json.dumps({"arguments": list(arguments), "log": str(self.log)}), file=self.process.stdin, flush=True)
        timer = subprocess.Popen(["sleep", str(SLOW)])
        try:
            while timer.poll() is None:
                ready, *_ = select.select([self.process.stdout], [], [], 0.2)
                if ready:
                    answer = self.process.stdout.readline()
                    code = int(answer) if answer else self.stop()
                    return code, self.log.read_text(errors="replace")
            self.stop()
            return None, self.log.read_text(errors="replace")
        finally:
            timer.kill(), timer.wait()

    def stop(self) -> int:
        """Ends it where it is still there; its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        self.process.kill()
        code, self.process = self.process.wait(), None
        return code


def kinds_of_files(work: Path) -> list[Kind]:
    """Sound files of every kind, and the command that reads them."""
    photos = [*photographs(work / "photos", 2), *photographs(work / "photos", 3, "png")[2:]]
    own, carded = masked(work / "own", 3), work / "carded" / "ca-scenes.safetensors"
    carded.parent.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(SCENES / f"ca-scenes{suffix}", carded.parent)
    run, coco, table = work / "run", work / "sets" / "coco", work / "table"
    short = ["--method", "ca", "--profile", "smoke"]
    for given in ("groups=2", "save_every=1", "log_every=1", "synthetic_photos=120"):
        short += ["--set", given]
    subprocess.run([*COSEG, "train", *short, "--set", "steps=2", "-o", str(run)], check=True, capture_output=True)
    profile = work / "profile.yaml"
    shutil.copy(run / "config.yaml", profile)
    (coco / "val2017").mkdir(parents=True), (coco / "annotations").mkdir()
    listed = {"categories": [{"id": 1, "name": "star"}, {"id": 2, "name": "ring"}], "images": [], "annotations": []}
    for i, file in enumerate(photographs(coco / "val2017", 3)):
        width, height = Image.open(file).size
        listed["images"].append({"id": i, "file_name": file.name, "width": width, "height": height})
        box = [40.0 + 9 * i, 50.0, 200.0, 60.0, 180.0, 190.0]
        about = {"id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 9500.0, "segmentation": [box]}
        listed["annotations"].append(about)
    annotations = coco / "annotations" / "instances_val2017.json"
    annotations.write_text(json.dumps(listed))
    learn = ["evaluate", "--method", "multiclass", "--dataset", "synthetic-multiclass", "--profile", "smoke"]
    learn += ["--only", "star+ring", "--set", "epochs=1", "--limit", "4"]
    table.mkdir()
    subprocess.run([*COSEG, *learn, "-o", str(table / "table.csv")], check=True, capture_output=True)
    segment, score = ["segment", *map(str, photos)], ["evaluate", "--checkpoint", "ca-scenes", "--dataset"]
    resume = ["train", *short, "--set", "steps=2", "--resume"]
    return [
        Kind("photograph", photos, [*segment, "--checkpoint", "ca-scenes"], True),
        Kind("mask", sorted((own / "ground_truth" / "star").iterdir()), [*score, str(own)], True),
        Kind("model", [run / "model.safetensors"], [*segment, "--checkpoint", str(run)], False),
        Kind("checkpoint with a card", [carded], [*segment, "--checkpoint", str(carded)], False),
        Kind("card", [carded.with_suffix(".json")], [*segment, "--checkpoint", str(carded)], False),
        Kind("training state", [run / "state.safetensors"], resume, False, run, "state.safetensors"),
        Kind("a run's log", [run / "log.csv"], resume, True, run, "log.csv"),
        Kind("profile", [profile], ["train", "--profile", str(profile), "--set", "steps=1", "--set", "groups=2"], True),
        Kind("COCO annotations", [annotations], [*score, "coco-seg-val", "--data", str(work / "sets")], True),
        Kind("table to go on with", [table / "table.photos.csv"], learn, True, table, "table.photos.csv"),
    ]


def listing(folder: Path, leave_out: Path) -> dict[str, tuple[int, int]]:
    """Size and date of all that lies below a folder, but for one folder in it."""
    files = (f for f in folder.rglob("*") if f.is_file() and leave_out not in f.parents)
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}


def mutants(rng: np.random.Generator, count: int, work: Path, _: Sequence[str] = ()) -> Iterator[dict]:
    """`count` damaged files of each kind."""
    server, out = Server(Path(tempfile.mkstemp(suffix=".log")[1])), work / "out"
    for kind in kinds_of_files(work):
        evaluates = kind.command[0] == "evaluate"
        command = [*kind.command, "-o", str(out / "table.csv" if evaluates else out)]

        def fresh(kind=kind, evaluates=evaluates) -> None:
            shutil.rmtree(out, ignore_errors=True)
            if kind.start:
                shutil.copytree(kind.start, out)
            elif evaluates:
                out.mkdir()

        fresh()
        code, said = server.run(command)
        assert code == 0, said
        kind.sound, ends = outcome(out), Counter()
        for _ in range(count):
            fresh()
            file = kind.files[int(rng.integers(len(kind.files)))]
            sound, stamp = file.read_bytes(), file.stat()
            text = file.suffix in {".json", ".csv", ".yaml"}
            place = out / kind.inside if kind.inside else file
            place.write_bytes(mutated(sound, rng, text))
            before = listing(work, out)
            code, said = server.run(command)
            wrong = [f"over {SLOW} s"] if code is None else faults(code, said)
            wrong += half_written(out) if code is not None and code >= 0 and not kind.inside else []
            wrong += ["something else was written"] * (listing(work, out) != before)
            wrong += ["a part was left"] * any(out.rglob("*.part"))
            if code == 0 and not kind.may_differ and outcome(out) != kind.sound:
                wrong.append("another result without a word")
            ends["a fault" if wrong else "a result" if code == 0 else "left out" if code == 2 else "one line"] += 1
            for what in wrong:
                print(f"{kind.name}: {what}: {said[-300:]}", flush=True)
            place.write_bytes(sound)
            os.utime(place, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        how = ", ".join(f"{what} {number}" for what, number in sorted(ends.items()))
        right = count - ends["a fault"]
        yield {"what": f"damaged {kind.name}", "tried": count, "right": right, "how": how}
    if server.process:
        server.stop()
    server.log.unlink()


PARTS = {"kills": (kills, 20, "killed"), "fills": (fills, 10, "full disks"), "mutants": (mutants, 30, "damaged files")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PARTS, action="append", help="repeatable")
    parser.add_argument(
        "--commands", nargs="+", default=(), help="kills, fills: these alone, in a section of their own"
    )
    parser.add_argument("--times", type=int, help="of each; default: 20 kills, 10 full disks, 30 damaged files")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    text = f"Seed {given.seed}. Right: as an undisturbed run's, bit for bit, or an error of one line with nothing half"
    of = f" ({', '.join(given.commands)})" if given.commands else ""
    for name in given.only or PARTS:
        part, usual, title = PARTS[name]
        with tempfile.TemporaryDirectory() as folder:
            rows = []
            for row in part(np.random.default_rng(given.seed), given.times or usual, Path(folder), given.commands):
                rows.append(row)  # written as they come: the whole takes half an hour
                record(f"A drill: {title}{of}", "benchmarks/drill.py", rows, f"{text} written.")


if __name__ == "__main__":
    main()
