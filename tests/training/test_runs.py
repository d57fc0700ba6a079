"""Trainings that are skipped, resumed and left out, and logs that are read back."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hand_made import TINY, logs, row

from coseglib.core.errors import CosegError
from coseglib.figures import show_curves
from coseglib.models.checkpoints import read_tensors, write_tensors
from coseglib.training import loop, runs
from coseglib.training.configuration import load_profile
from coseglib.training.costs import tidy_logs, time_to
from coseglib.training.loop import train
from coseglib.training.runs import (
    CURVE_COLUMNS,
    MEMORY_FILE,
    is_trained,
    plan_trainings,
    read_log,
    read_run,
    run_config,
    train_all,
    training_folder,
)
from coseglib.training.state import Log


def test_a_training_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    plans, said = plan_trainings(("ca",), "smoke", TINY), []
    first = train_all(plans, tmp_path, said.append, apart=False)
    before = {f: f.stat().st_mtime_ns for f in first["ca"].folder.iterdir()}
    assert "state.safetensors" not in {f.name for f in before}  # three times the model's size, and of no further use
    kept = read_tensors(first["ca"].folder / "model.safetensors")[0]  # a report holds many: matrices in half precision
    assert {t.dtype for t in kept.values() if t.ndim > 1} == {torch.float16}
    monkeypatch.setattr(runs, "train", lambda *a, **k: pytest.fail("trained again"))
    again = train_all(plans, tmp_path, said.append, apart=False)
    assert said == ["ca: trains, 4 steps", "ca: there already, 4 steps"]
    assert {f: f.stat().st_mtime_ns for f in again["ca"].folder.iterdir()} == before
    pd.testing.assert_frame_equal(first["ca"].log, again["ca"].log)
    assert first["ca"].log.step.tolist() == [2, 4] and first["ca"].log.images.tolist() == [8, 16]


def test_a_training_that_was_broken_off_goes_on_and_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    plans, said = plan_trainings(("csa",), "smoke", TINY), []
    whole = train_all(plans, tmp_path / "whole", said.append, apart=False)["csa"]
    step = loop.Run.step

    def broken(run):
        if run.at.step == 3:
            raise KeyboardInterrupt  # in the fourth step, after the state of the second
        step(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            train_all(plans, tmp_path / "broken", said.append, apart=False)
    folder = training_folder(tmp_path / "broken", "csa", plans["csa"])
    assert (folder / "state.safetensors").is_file() and not is_trained(folder, plans["csa"])
    resumed = train_all(plans, tmp_path / "broken", said.append, apart=False)["csa"]
    assert said[-1] == "csa: goes on, 4 steps" and resumed.log.step.tolist() == [2, 4]
    theirs, ours = (read_tensors(run.folder / "model.safetensors")[0] for run in (whole, resumed))
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_settings_that_decide_the_result_have_a_folder_each_and_others_share_it(tmp_path):
    config = load_profile("smoke", "ca", TINY)
    same = config.replaced(log_every=1, save_every=1, workers=2)
    assert training_folder(tmp_path, "ca", config) == training_folder(tmp_path, "ca", same)
    for change in ({"seed": 1}, {"steps": 5}, {"options": {}, "dice": 0.5}, {"crop": (0.5, 1.0)}):
        assert training_folder(tmp_path, "ca", config) != training_folder(tmp_path, "ca", config.replaced(**change)), (
            change
        )


def test_a_checkpoint_alone_is_not_a_training_that_is_there(made_run, tmp_path):
    """A run that validates keeps its best so far: the file is there long before the last step."""
    folder = made_run(tmp_path / "a", [row(2, 1, 0.2)])
    config = run_config(folder)
    assert not is_trained(folder, config)
    with open(folder / "log.csv", "a", newline="") as file:
        csv.DictWriter(file, Log.COLUMNS).writerow({"step": 4, "seconds": 2, "val_J": 0.3})
    assert not is_trained(folder, config)  # the row of step 4 is a validation's, of a log that was cut
    with open(folder / "log.csv", "a", newline="") as file:
        csv.DictWriter(file, Log.COLUMNS).writerow(row(4, 2, 0.3))
    assert is_trained(folder, config)
    (folder / "model.safetensors").unlink()
    assert not is_trained(folder, config) and not is_trained(tmp_path / "nothing", config)


def test_another_training_in_the_folder_is_not_written_over(made_run, tmp_path):
    folder = made_run(tmp_path / "a", [row(4, 1, 0.2)])
    with pytest.raises(CosegError, match=r"was trained with learning_rate = 0\.002, not 0\.1"):
        is_trained(folder, run_config(folder).replaced(learning_rate=0.1))


def test_a_training_that_cannot_be_made_is_named_and_the_others_are_made(tmp_path):
    plans, said = plan_trainings(("ca",), "smoke", TINY), []
    plans["other"] = plans["ca"].replaced(start=str(tmp_path / "none.safetensors"))
    assert list(train_all(plans, tmp_path, said.append, apart=False)) == ["ca"]
    assert said[-1].startswith("other: left out, ") and "no such checkpoint" in said[-1]
    with pytest.raises(CosegError, match=r"other: .*no such checkpoint"):
        train_all({"other": plans["other"]}, tmp_path, said.append, apart=False)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(CosegError, match="sift: no such method"):
        plan_trainings(("ca", "sift"), "smoke")
    with pytest.raises(CosegError, match="multiclass: learns on one group"):
        plan_trainings(("multiclass",), "smoke")
    with pytest.raises(CosegError, match="fast: no such profile"):
        plan_trainings(("ca",), "fast")
    with pytest.raises(CosegError, match="step: no such field"):
        plan_trainings(("ca",), "smoke", {"step": 3})
    with pytest.raises(CosegError, match="no method is named"):
        plan_trainings((), "smoke")
    with pytest.raises(CosegError, match="no trainings to show"):
        tidy_logs({})
    with pytest.raises(CosegError, match="val_K: no such curve; one of J, val_J"):
        time_to(logs(a=[0.1]), curve="val_K")
    with pytest.raises(CosegError, match="a: has no J in validation"):
        time_to(logs(a=[0.1]), curve="val_J")
    with pytest.raises(CosegError, match=r"share = 1\.5"):
        time_to(logs(a=[0.1]), share=1.5)
    with pytest.raises(CosegError, match="hours: no such axis"):
        show_curves(logs(a=[0.1]), "t", x="hours")


def test_the_memory_of_a_training_in_two_parts_is_that_of_the_larger(tmp_path, monkeypatch):
    config = load_profile("smoke", "ca", TINY)
    peaks = iter((900, 700))
    monkeypatch.setattr(
        runs, "in_a_process", lambda *a, **k: (None, {"of": "process", "before": 500, "peak": next(peaks)})
    )
    said = []
    write_tensors(tmp_path / "model.safetensors", {}, {"format": "coseg-1"})
    for name in ("state.safetensors", "other"):
        (tmp_path / name).touch()
        runs._made("ca", config, tmp_path, said.append, apart=True)
    assert json.loads((tmp_path / MEMORY_FILE).read_text())["peak"] == 900
    # The state is of use to what goes on; of what is done it is dropped.
    assert said == ["ca: goes on, 4 steps", "ca: trains, 4 steps"]
    assert sorted(f.name for f in tmp_path.iterdir()) == [MEMORY_FILE, "model.safetensors", "other"]


def test_a_log_becomes_one_row_a_step_with_its_validation_beside_it(made_run, tmp_path):
    rows = [row(2, 1.0, 0.1), {"step": 2, "seconds": 1.0, "val_J": 0.15}, row(4, 5.0, 0.4, 0.3, 60.0)]
    a = read_run(made_run(tmp_path / "a", rows), "one")
    b = read_run(made_run(tmp_path / "b", [row(4, 7.0, 0.2)], "ssnm", groups=1))
    want = pd.DataFrame(
        [
            ("one", 2, 1.0, 8, 0.5, 0.1, 0.15, 40.0),
            ("one", 4, 5.0, 16, 0.3, 0.4, np.nan, 60.0),
            ("b", 4, 7.0, 20, 0.5, 0.2, np.nan, 40.0),  # groups of five
        ],
        columns=list(CURVE_COLUMNS),
    )
    pd.testing.assert_frame_equal(tidy_logs({run.name: run for run in (a, b)}), want, check_dtype=False)
    assert read_log(a.folder / "log.csv", a.config.replaced(sides=(32, 64)).fields()).images.isna().all()


def test_a_log_that_cannot_be_read_says_why(made_run, tmp_path):
    folder = made_run(tmp_path / "a", [])
    config = run_config(folder)
    with pytest.raises(CosegError, match=r"log\.csv: holds no row of training"):
        read_log(folder / "log.csv", config.fields())
    (folder / "log.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(CosegError, match="lacks the column seconds"):
        read_log(folder / "log.csv", config.fields())
    for text in (b"", b"\xff\xfe\x00"):
        (folder / "log.csv").write_bytes(text)
        with pytest.raises(CosegError, match=r"log\.csv: cannot be read as a table"):
            read_log(folder / "log.csv", config.fields())
    with pytest.raises(CosegError, match=r"config\.yaml: No such file"):
        read_run(tmp_path / "none")
    for text in ("steps: [", "nothing: 3", "3"):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(CosegError, match=r"config\.yaml: no configuration"):
            read_run(folder)


def test_a_run_of_the_command_line_stands_beside_them(tmp_path):
    train(load_profile("smoke", "fca", TINY), tmp_path / "mine", quiet=True)
    run = read_run(tmp_path / "mine")
    assert run.name == "mine" and run.memory == {} and run.log.step.tolist() == [2, 4]
    assert is_trained(run.folder, load_profile("smoke", "fca", TINY))
