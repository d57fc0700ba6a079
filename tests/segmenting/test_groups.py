"""A folder of folders is so many groups: which they are, where each is written, and that a killed run goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import TinyContext

from coseglib.cli.main import main
from coseglib.core.errors import CosegError
from coseglib.segmenting.finding import find_photos
from coseglib.segmenting.groups import find_groups, segment_groups
from coseglib.segmenting.job import segment_photos

HERE = Path(__file__).parents[1]  # tests/


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((40 + seed, 36), Image.Resampling.BILINEAR).save(path)


@pytest.fixture
def make(tmp_path):
    """A function: photographs by their names below tmp_path/animals."""

    def draw(*names: str) -> Path:
        for seed, name in enumerate(names):
            photo(tmp_path / "animals" / name, seed)
        return tmp_path / "animals"

    return draw


@pytest.fixture
def animals(make):
    return make("cats/a.png", "cats/b.png", "cats/c.png", "dogs/a.png", "dogs/day 1/b.png")


def layout(folder: Path, **options) -> dict[str, list[str]]:
    """{group: its photographs, below the folder}."""
    groups = find_groups([folder], **options).groups
    return {g.name: [p.relative_to(folder).as_posix() for p in g.photos] for g in groups}


def segment(folder: Path, out: Path, model=None, **options):
    model = model or TinyContext()
    return segment_groups(find_groups([folder], out), out, lambda *_: model, quiet=True, **options)


def result(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def pictures(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*.*g")) if p.is_file()}


# Which groups


def test_each_folder_in_a_folder_is_a_group_with_what_lies_below_it_and_loose_photographs_are_one_more(animals):
    cats, dogs = ["cats/a.png", "cats/b.png", "cats/c.png"], ["dogs/a.png", "dogs/day 1/b.png"]
    assert layout(animals) == {"cats": cats, "dogs": dogs}
    assert find_groups([animals]).note == "2 groups, a folder each (cats 3, dogs 2); --together makes one of them"
    photo(animals / "a.png")
    assert list(layout(animals).items()) == [("cats", cats), ("dogs", dogs), ("animals", ["a.png"])]


def test_together_and_what_is_named_one_by_one_are_one_group(animals, tmp_path):
    for named, together, why in (
        ([animals], True, "--together"),
        ([animals / "cats", animals / "dogs"], False, "named one by one"),
        (find_photos([animals])[0], False, "named one by one"),
    ):
        found = find_groups(named, together=together)
        (group,) = found.groups
        assert len(group.photos) == 5 and found.note.startswith(f"one group, {why}: 5 photographs in 3 folders")
    assert find_groups([animals / "cats"]).note == ""
    (tmp_path / "outer").mkdir()
    animals.rename(tmp_path / "outer" / "animals")  # one folder in a folder is one group, and a line says of what
    found = find_groups([tmp_path / "outer"])
    assert len(found.groups) == 1 and f"all below {tmp_path}/outer/animals: 5 photographs in 3 folders" in found.note


def test_images_of_a_set_of_ones_own_are_looked_into_and_its_masks_are_not(make):
    folder = make("images/cats/a.png", "images/dogs/a.png", "images/b.png", "ground_truth/cats/a.png", "cats/z.png")
    assert layout(folder) == {
        "cats": ["cats/z.png"],
        "cats-2": ["images/cats/a.png"],
        "dogs": ["images/dogs/a.png"],
        "animals": ["images/b.png"],
    }


def test_the_names_of_groups_are_folders_that_may_be_made(make):
    folder = make(*(f"{name}/a.png" for name in ("masks", "Result.json", "cutouts", "Cats", "cats", "a:b", "x.")))
    os.rename(folder / "x.", os.fsencode(folder) + b"/\xff\n")
    names = list(layout(folder))
    assert names == ["Cats", "Result.json-2", "a_b", "cats-2", "cutouts-2", "masks-2", "__"]


def test_folders_without_photographs_are_named_but_for_hidden_ones_and_our_results(animals):
    for name in ("birds", ".hidden", "dogs/none", "out"):
        (animals / name).mkdir()
    (animals / "birds" / "notes.txt").touch()
    (animals / "again").symlink_to(animals / "cats")  # each folder once: the first by name
    (animals / "gone").symlink_to(animals / "an unmounted disk")
    found = find_groups([animals], animals / "out")
    assert [p.name for p in found.empty] == ["birds", "cats"] and found.groups[0].name == "again"
    assert found.left[0][0] == str(animals / "gone") and found.ignored == 1
    (animals / "again").unlink()
    assert [p.name for p in find_groups([animals]).empty] == ["birds", "out"]


# What is written


def test_each_group_is_written_as_a_call_of_its_own_writes_it_and_one_table_is_of_all(animals, tmp_path):
    photo(animals / "lone" / "z.png", 9)
    (animals / "dogs" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (animals / "gone").symlink_to(animals / "an unmounted disk")
    out, said = tmp_path / "out", []
    summary = segment(animals, out, say=lambda each, name: said.append((name, each.done)))
    assert (summary.photos, summary.done, summary.exit_code) == (7, 6, 2)
    assert said == [("cats", 3), ("dogs", 2), ("lone", 1)]
    assert [Path(path).name for path, _ in summary.skipped] == ["torn.jpg", "gone"]
    record = result(out)
    assert record["checkpoint"] is None and record["group"] == "mean" and "lone: a group of one" in record["note"]
    assert [(e["group"], Path(e["file"]).name) for e in record["photos"][:-1]] == [
        *(("cats", f"{x}.png") for x in "abc"),
        *(("dogs", name) for name in ("a.png", "b.png", "torn.jpg")),
        ("lone", "z.png"),
    ]
    assert "leads nowhere" in record["photos"][-1]["skipped"] and "group" not in record["photos"][-1]
    for name in ("cats", "dogs", "lone"):
        alone = tmp_path / f"alone {name}"
        segment_photos([animals / name], alone, TinyContext(), quiet=True)
        assert pictures(alone) == pictures(out / name)
        entries = result(alone)["photos"]
        about, scores = record["groups"][name], [e["score"] for e in entries if "score" in e]
        assert about["folder"] == str(animals / name) and about["done"] == len(scores)
        assert about["score"] == pytest.approx(np.mean(scores), abs=1e-4)
        for mine, theirs in zip([e for e in record["photos"] if e.get("group") == name], entries, strict=True):
            if "mask" in mine:
                assert mine["mask"] == f"{name}/{theirs['mask']}" and (out / mine["overlay"]).is_file()
                assert mine["score"] == theirs["score"]
    assert not list(out.rglob(".*"))


def test_a_second_run_into_the_folder_itself_takes_nothing_of_ours_for_a_group(animals):
    first = layout(animals)
    for out in (animals / "out", animals):
        assert segment(animals, out).done == 5
        mask = Image.open(out / "cats" / "masks" / "a.png")
        mended = Image.fromarray(255 - np.asarray(mask))
        mended.save(out / "cats" / "masks" / "mine.png")  # without our mark
        assert layout(animals, out=out) == layout(animals) == first
        assert not find_groups([animals], out).empty
        assert segment(animals, out).done == 5
        assert np.array_equal(np.asarray(Image.open(out / "cats" / "masks" / "mine.png")), np.asarray(mended))


def test_what_is_the_users_in_any_groups_way_is_told_before_any_work(animals, tmp_path):
    out = tmp_path / "out"
    own = out / "dogs" / "masks" / "a.png"
    photo(own)
    before = own.read_bytes()
    for model in (TinyContext(), None):
        with pytest.raises(CosegError, match="dogs/masks: is there already, and not from here"):
            segment_groups(find_groups([animals], out), out, lambda *_, m=model: m, quiet=True)
    assert own.read_bytes() == before and not (out / "cats").exists()
    shutil.rmtree(out)
    out.mkdir()
    (out / "result.json").write_text("[]")
    with pytest.raises(CosegError, match=r"result\.json: is there already"):
        segment(animals, out)


def test_where_no_photograph_of_any_group_can_be_read_the_exit_code_is_1(tmp_path):
    for name in ("cats/a.jpg", "dogs/a.jpg"):
        photo(tmp_path / "in" / name)
        (tmp_path / "in" / name).write_text("no")
    summary = segment(tmp_path / "in", tmp_path / "out")
    assert (summary.done, summary.exit_code) == (0, 1) and len(summary.skipped) == 2


# Killed and continued, alone and in company

RUN = r"""
import os, signal, sys
from pathlib import Path
import torch
from coseglib.segmenting import job
from coseglib.segmenting.groups import find_groups, segment_groups
from tiny_models import TinyContext

torch.set_num_threads(1)
photos, out, kill_at, devices = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
write, written, model = job.write_png, [], TinyContext()

def counted(path, mask):
    write(path, mask)
    written.append(path)
    if len(written) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

job.write_png = counted
where = {"devices": devices, "accelerator": "cpu"}
s = segment_groups(find_groups([photos], out), out, lambda *_: model, where=where, batch=2)
os.write(1, f"exit {s.exit_code} rank {s.rank} done {s.done} earlier {s.earlier} wrote {len(written)}\n".encode())
"""


def run(tmp_path, *arguments):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return ended, sorted(line for line in ended.stdout.splitlines() if line.startswith("exit"))


def test_a_killed_run_goes_on_with_the_groups_and_photographs_not_yet_done(animals, tmp_path):
    out = tmp_path / "out"
    segment(animals, tmp_path / "whole", batch=2)
    ended, _ = run(tmp_path, animals, out, 5, 1)  # within the second group, between mask and overlay
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (out / "result.json").exists()
    assert find_photos([out])[0] == []  # masks of a run that is not over are no photographs either
    kept = (out / "cats" / "masks" / "a.png").stat().st_mtime_ns
    summary = segment(animals, out, batch=2)
    assert (summary.done, summary.earlier) == (5, 4)
    assert (out / "cats" / "masks" / "a.png").stat().st_mtime_ns == kept
    assert pictures(out) == pictures(tmp_path / "whole") and not list(out.rglob(".*"))
    assert segment(animals, out, batch=2).earlier == 0  # a run that is over is not gone on with


def test_two_processes_give_the_masks_of_one(animals, tmp_path):
    segment(animals, tmp_path / "whole", batch=2)
    ended, said = run(tmp_path, animals, tmp_path / "out", 0, 2)
    # batches of two: [a b] [c] of cats, [a b] of dogs
    assert said == ["exit 0 rank 0 done 5 earlier 0 wrote 4", "exit 0 rank 1 done 5 earlier 0 wrote 1"], ended.stderr
    assert pictures(tmp_path / "out") == pictures(tmp_path / "whole")
    one, two = (json.dumps(result(tmp_path / name), sort_keys=True) for name in ("out", "whole"))
    strip = [
        [{k: v for k, v in e.items() if k != "seconds"} for e in json.loads(text)["photos"]] for text in (one, two)
    ]
    assert strip[0] == strip[1]


# The command


def test_segment_says_how_it_reads_a_folder_a_line_a_group_and_one_of_all(animals, checkpoint, tmp_path, capsys):
    (animals / "birds").mkdir()
    out = tmp_path / "out"
    common = ["segment", str(animals), "--checkpoint", str(checkpoint), "--accelerator", "cpu", "-o", str(out)]
    assert main(common) == 0
    told, empty, cats, dogs, of_all = capsys.readouterr().out.splitlines()
    assert told == find_groups([animals]).note and empty == f"{animals}/birds: no photographs of its own, so no group"
    assert cats.startswith("cats: 3 of 3 photographs in ") and cats.endswith(f": {out}/cats")
    assert dogs.startswith("dogs: 2 of 2 photographs in ") and of_all.startswith("2 groups, 5 of 5 photographs in ")
    assert main([*common, "--together"]) == 0
    told, *older, of_all = capsys.readouterr().out.splitlines()
    assert told.startswith("one group, --together") and of_all.startswith("5 of 5 photographs")
    assert older == [
        f"{out / n}: of an earlier run, and not of these photographs; it stays there" for n in ("cats", "dogs")
    ]
    assert len(list((out / "masks").iterdir())) == 5 and "groups" not in result(out)


def test_a_map_that_is_missing_is_told_before_the_first_group(animals, checkpoint, tmp_path, capsys):
    photo(animals / "dogs" / "z.png")
    for name in "abc":
        photo(tmp_path / "maps" / "cats" / f"{name}.png")
    prior = ["--checkpoint", str(checkpoint), "--prior", str(tmp_path / "maps")]
    assert main(["segment", str(animals), "-o", str(tmp_path / "out"), *prior]) == 1
    assert "no map" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_reference_is_every_groups(animals, checkpoint, tmp_path):
    common = ["segment", str(animals), "--checkpoint", str(checkpoint), "--accelerator", "cpu", "-o"]
    assert main([*common, str(tmp_path / "plain")]) == 0
    marked = ["--reference", str(animals / "cats" / "a.png"), "--box", "4,4,20,20"]
    assert main([*common, str(tmp_path / "marked"), *marked]) == 0
    assert result(tmp_path / "marked")["references"]
    for name in ("cats", "dogs"):
        scores = [[e["score"] for e in result(tmp_path / o / name)["photos"]] for o in ("plain", "marked")]
        assert scores[0] != scores[1]


def test_multiclass_learns_on_each_group_by_itself(animals, tmp_path):
    quick = ["--method", "multiclass", "--classes", "1", "--profile", "smoke"]
    quick += [part for field in ("epochs=1", "input_size=64", "learning_rates=0.001") for part in ("--set", field)]
    out = tmp_path / "out"
    assert main(["segment", str(animals), "-o", str(out), *quick]) == 0
    assert main(["segment", str(animals / "dogs"), "--together", "-o", str(tmp_path / "dogs"), *quick]) == 0
    record = result(out)
    assert record["classes"] == 1 and record["learning"] is None and record["groups"]["dogs"]["learning"]["epochs"] == 1
    assert main(["segment", str(animals), "-o", str(out), *quick, "--export", "coco,page"]) == 0
    for group, name in (("cats", "cat"), ("dogs", "dog")):
        assert main(["name", str(out / group), name]) == 0
    coco, page = json.loads((out / "coco.json").read_text()), (out / "page.html").read_text()
    assert [kind["name"] for kind in coco["categories"]] == ["cat", "dog"] and "Nobody has named" not in page
    masks = {name: data for name, data in pictures(tmp_path / "dogs").items() if name.startswith("masks")}
    assert masks == {name: data for name, data in pictures(out / "dogs").items() if name.startswith("masks")}
