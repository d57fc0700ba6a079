import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from coseglib.cli import main as cli
from coseglib.core import devices
from coseglib.core.errors import CosegError
from coseglib.core.files import atomic
from coseglib.core.paths import OWN, data_root, named_roots, weights_root
from coseglib.data.images import read_mask, write_png
from coseglib.models import checkpoints

COMMANDS = ("doctor", "segment", "name", "train", "evaluate", "ship", "ablate", "report", "download")


def _refused(capsys, *arguments) -> str:
    """The one line on stderr of a command that is refused with exit code 1."""
    assert cli.main([str(a) for a in arguments]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("coseg: ") and said.err.count("\n") == 1, said
    return said.err


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        write_png(folder / f"{i}.png", torch.randint(0, 256, (3, 40, 50 + i), dtype=torch.uint8))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command):
    shown = CliRunner().invoke(cli.app, [command, "--help"])
    assert shown.exit_code == 0
    example = shown.output.split("Example:")[1]
    assert f"\n    coseg {command}" in example and "--debug" in example


def test_the_overview_names_every_command(capsys):
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in COMMANDS)


def test_help_does_not_load_torch():
    code = "import sys; from coseglib.cli import main as cli; cli.main(['--help']); cli.main(['train', '--help']); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--mehtod", "ca"], "coseg train --help"),
        (["segment", "a.jpg", "-o", "out", "--group", "max"], "'mean', 'min'"),
        (["segment", "a.jpg"], "--output"),
        (["evaluate", "-o", "t.csv"], "--dataset"),
        (["train", "-o", "out", "--devices", "0"], "--devices"),
        (["train", "-o", "out", "--set", "steps"], "for example --set steps=200"),
        (["train", "-o", "out", "--set", "stepps=2"], "no such field"),
        (["train", "-o", "out", "--method", "xa"], "one of ca, fca, csa"),
        (["train", "-o", "out", "--profile", "huge"], "one of cpu, gpu, late, paper, scenes, smoke"),
        (["train", "-o", "out", "--data", "nowhere"], "nowhere: no such folder"),
        (["evaluate", "--dataset", "synthetic", "-o", "t.csv", "--protocol", "swap"], "one of common"),
        (
            ["evaluate", "--dataset", "synthetic", "-o", "t.csv", "--checkpoint", "nothing"],
            "nothing: no such checkpoint",
        ),
        (["segment", "a.jpg", "-o", "out", "--checkpoint", "x.safetensors"], "x.safetensors: no such checkpoint"),
        (["report", "--profile", "huge"], "huge: no such profile; one of cpu, paper, smoke"),
        (["download", "icoseg"], "data/README.md"),
        (["segmnt"], "No such command 'segmnt'"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_remedy(capsys, monkeypatch, tmp_path, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert told in _refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_options_name_are_so_for_one_call(capsys, monkeypatch, tmp_path):
    """And the environment of this process stays as it is."""
    seen = []
    monkeypatch.setattr("coseglib.cli.doctor.examine", lambda _: seen.append((data_root(), weights_root())) or True)
    monkeypatch.delenv("COSEG_WEIGHTS", raising=False)
    monkeypatch.setenv("COSEG_DATA", "")
    before = dict(os.environ)
    assert cli.main(["doctor", "--data", str(tmp_path), "--weights", str(tmp_path)]) == 0
    assert cli.main(["doctor"]) == 0
    assert cli.main(["doctor", "--data", "", "--weights="]) == 0  # of variables that are not set
    assert seen == [(tmp_path, tmp_path), (OWN, None), (OWN, None)] and dict(os.environ) == before


def test_the_notebooks_processes_get_the_folders_that_options_name(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("coseglib.report.run.run_report", lambda *_, **__: seen.append(named_roots()))
    assert cli.main(["report", "--data", str(tmp_path)]) == 0
    assert seen[0]["COSEG_DATA"] == str(tmp_path)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["evaluate", "--dataset", "set", "-o", "folder"], "folder: is a folder; name a file"),
        (["evaluate", "--dataset", "set", "-o", "file/t.csv"], "file is no folder"),
        (["evaluate", "--dataset", "set", "-o", "closed/t.csv"], "closed/t.csv: not to be written to"),
        (["evaluate", "--dataset", "set", "-o", "closed/there.csv"], "closed/there.csv: not to be written to"),
        (["segment", "a.jpg", "-o", "file"], "file: is a file; name a folder"),
        (["segment", "a.jpg", "-o", "closed/new/out"], "closed/new/out: not to be written to"),
        (["train", "-o", "file"], "file: is a file; name a folder"),
        (["ablate", "-o", "closed"], "closed: not to be written to"),
        (["ship", "run", "ca-x", "-o", "file"], "file: is a file; name a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_anything_is_read(capsys, monkeypatch, tmp_path, command, told):
    access = os.access  # everything is open to root, whom the tests may run as
    monkeypatch.setattr(
        os, "access", lambda path, mode: (Path(path).name, mode) != ("closed", os.W_OK) and access(path, mode)
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "closed").mkdir()
    for name in ("file", "closed/there.csv"):
        (tmp_path / name).write_text("mine")
    assert told in _refused(capsys, *command)
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "closed", "file"}


def test_evaluate_writes_over_a_table_of_its_own_and_over_nothing_else(capsys, photos, tmp_path):
    given = ["evaluate", "--dataset", "synthetic", "--limit", "1", "--checkpoint", "ellipse", "-o"]
    (tmp_path / "diary.csv").write_text("my own")
    (tmp_path / "t.csv").touch()
    for own in (photos / "0.png", tmp_path / "diary.csv"):
        before = own.read_bytes()
        assert f"{own}: is there already, and no table of scores" in _refused(capsys, *given, own)
        assert own.read_bytes() == before
    for _ in range(2):
        assert cli.main([*given, str(tmp_path / "t.csv")]) == 0


@pytest.mark.parametrize("command", ["segment", "evaluate", "train"])
def test_an_accelerator_that_is_not_there_is_one_line(command, capsys, checkpoint, photos, tmp_path):
    given = {
        "segment": [photos, "-o", tmp_path / "out", "--checkpoint", checkpoint],
        "evaluate": ["--dataset", "synthetic", "-o", tmp_path / "t.csv", "--checkpoint", checkpoint],
        "train": ["--profile", "smoke", "-o", tmp_path / "run"],
    }
    assert "--accelerator abacus: " in _refused(capsys, command, *given[command], "--accelerator", "abacus")


def test_evaluate_computes_where_it_is_asked_to_and_reads_its_checkpoint_once(checkpoint, monkeypatch, tmp_path):
    asked, read = [], []
    where, find = devices.device_of, checkpoints.find
    monkeypatch.setattr(devices, "device_of", lambda name: asked.append(name) or where("cpu"))
    monkeypatch.setattr(checkpoints, "find", lambda name: read.append(name) or find(name))
    given = ["--checkpoint", str(checkpoint), "--dataset", "synthetic", "--limit", "1", "-o", str(tmp_path / "t.csv")]
    assert cli.main(["evaluate", *given, "--accelerator", "mps"]) == 0
    assert asked == ["mps"] and read == [str(checkpoint)]


def test_a_damaged_checkpoint_is_one_line(capsys, tmp_path, photos):
    (tmp_path / "half.safetensors").write_bytes(b"not tensors")
    told = _refused(capsys, "segment", photos, "-o", tmp_path / "out", "--checkpoint", tmp_path / "half.safetensors")
    assert "half.safetensors: not a readable safetensors file" in told


@pytest.mark.parametrize("fault", [CosegError("a.jpg: torn; mend it"), ValueError("two\nlines")])
def test_a_traceback_is_shown_with_debug_only(monkeypatch, capsys, fault):
    def fail(*_):
        raise fault

    monkeypatch.setattr("coseglib.cli.doctor.examine", fail)
    told = _refused(capsys, "doctor")
    expected = (
        "a.jpg: torn; mend it" if isinstance(fault, CosegError) else "ValueError: two lines; run it again with --debug"
    )
    assert expected in told
    for arguments in (["doctor", "--debug"], ["--debug", "doctor"]):
        assert cli.main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err


def test_a_disk_that_is_full_is_one_line_and_names_the_file(monkeypatch, capsys, tmp_path):
    def full(*_):
        with atomic(tmp_path / "state.safetensors"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coseglib.cli.doctor.examine", full)
    told = _refused(capsys, "doctor")
    assert told.endswith(
        "state.safetensors: No space left on device; make room and start it again: what is whole is kept\n"
    )


def test_segment_writes_masks_and_ends_with_0_or_2_or_1(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out"
    common = ["--checkpoint", str(checkpoint), "--accelerator", "cpu", "-o"]
    assert cli.main(["segment", str(photos), *common, str(out)]) == 0
    assert read_mask(out / "masks" / "1.png").shape == (40, 51)
    assert len(json.loads((out / "result.json").read_text())["photos"]) == 2
    (photos / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    capsys.readouterr()
    assert cli.main(["segment", str(photos), *common, str(tmp_path / "two")]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("coseg: ")]
    assert len(told) == 1 and "torn.jpg" in told[0]
    assert cli.main(["segment", str(photos / "torn.jpg"), *common, str(tmp_path / "three")]) == 1
    capsys.readouterr()
    assert cli.main(["segment", str(photos / "1.png"), *common, str(out)]) == 0
    stays = f"{out}/masks: 1 of an earlier run that are not of these photographs stay there (0.png)"
    assert stays in capsys.readouterr().out


def test_segment_exports_what_is_asked_for_and_names_what_there_is(checkpoint, photos, tmp_path, capsys):
    where = (photos, "-o", tmp_path / "out", "--checkpoint", checkpoint)
    assert "--export pages: no such export; cutouts, coco, page" in _refused(
        capsys, "segment", *where, "--export", "pages"
    )
    assert not (tmp_path / "out").exists()
    assert cli.main([str(a) for a in ("segment", *where, "--export", "coco,page")]) == 0
    names = {"masks", "overlays", "result.json", "coco.json", "coco_rle.json", "page.html"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    assert cli.main([str(a) for a in ("segment", *where, "--export", "cutouts")]) == 0
    assert len(list((tmp_path / "out" / "cutouts").iterdir())) == 2


def test_a_floor_segments_too(photos, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["segment", str(photos), "-o", str(out), "--checkpoint", "everything", "--accelerator", "cpu"]) == 0
    assert (read_mask(out / "masks" / "1.png") > 0).all()


def test_without_the_dense_crf_masks_are_made_by_argmax_and_a_line_says_so(tiny, photos, tmp_path, monkeypatch, capsys):
    file = tmp_path / "drawn.safetensors"
    checkpoints.save_model(file, tiny("ca"), {"method": "ca", "backbone": "mobilenet_v2", "post": "crf"})
    monkeypatch.setattr("coseglib.answering.crf.crf_installed", lambda: False)
    given = ["segment", str(photos), "--checkpoint", str(file), "--accelerator", "cpu", "-o", str(tmp_path / "out")]
    assert cli.main(given) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("coseg: ")]
    assert told == [
        "coseg: drawn: its masks are the dense CRF's; the dense CRF is not installed (coseg doctor says more): argmax "
        "in its place"
    ]
    assert json.loads((tmp_path / "out" / "result.json").read_text())["post"] == "argmax"
    assert "--post crf: the dense CRF is not installed" in _refused(capsys, *given, "--post", "crf")


def test_the_model_that_train_leaves_is_what_evaluate_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("coseglib.data.cache.training_set.__defaults__", (tmp_path / "cache", True))
    sizes = ["steps=2", "groups=2", "input_size=32", "cache_side=40", "synthetic_photos=48", "precision=32-true"]
    options = [part for size in sizes for part in ("--set", size)]
    run = tmp_path / "run"
    train = ["train", "--method", "fca", "--profile", "smoke", "-o", str(run), "--accelerator", "cpu", *options]
    assert cli.main(train) == 0
    assert {"state.safetensors", "model.safetensors", "log.csv", "config.yaml"} <= {p.name for p in run.iterdir()}
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "model.safetensors")
    assert "--resume" in _refused(capsys, *train)
    assert cli.main([*train, "--resume"]) == 0
    table, model = tmp_path / "table.csv", run / "model.safetensors"
    score = ["evaluate", "--checkpoint", str(model), "--dataset", "synthetic", "--limit", "2", "-o", str(table)]
    assert cli.main(score) == 0
    rows = pd.read_csv(table)
    names = ["dataset", "group", "images", "P", "J", "protocol", "checkpoint sha256", "precision", "seconds"]
    assert list(rows.columns) == names and rows.group.iloc[-1] == "all"


def test_an_interrupted_command_says_that_it_stopped(tmp_path):
    # Tests that run in the background ignore interruptions, and so would the processes that they start.
    command = [sys.executable, "-c", "import signal, time; from coseglib.cli import doctor, main as cli\n"
               "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
               "def wait(*_):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
               "doctor.examine = wait\nraise SystemExit(cli.main(['doctor']))"]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert told == "coseg: stopped\n" and running.returncode == 130


def test_a_command_says_nothing_on_stderr_when_all_is_well():
    """Extension modules report what they think has leaked where the end of a process is cut short."""
    done = subprocess.run([sys.executable, "-m", "coseglib.cli", "doctor"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
