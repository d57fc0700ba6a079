"""Trainings that are skipped, resumed and left out; tables and times against logs made by hand."""

import csv
import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from coseglib.core.errors import CosegError
from coseglib.evaluation.reproduction import cards
from coseglib.figures import curves
from coseglib.figures.curves import (
    COLUMNS,
    MEMORY,
    Run,
    config_of,
    costs,
    home,
    in_a_process,
    is_there,
    log_of,
    plan,
    read_run,
    shipped,
    shipped_curves,
    show_costs,
    show_curves,
    show_race,
    terms,
    tidy,
    time_to,
    train_all,
)
from coseglib.models.checkpoints import read_tensors, save_model
from coseglib.training.loop import Log, load_profile, train

TINY = {"steps": 4, "groups": 2, "input_size": 32, "cache_side": 40, "synthetic_photos": 48, "log_every": 2}
TINY |= {"save_every": 2, "precision": "32-true"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Caches go to a folder that all tests of this session share, not into the repository."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("coseglib.data.cache.training_set.__defaults__", (folder, None))


@pytest.fixture
def made(tiny):
    """A function (folder, rows, method="ca", **fields) -> a run's folder as `train` leaves it, its log made by hand."""

    def make(folder: Path, rows: list[dict], method: str = "ca", **fields) -> Path:
        folder.mkdir(parents=True)
        config = load_profile("smoke", method, {**TINY, **fields})
        plain = json.loads(json.dumps(dataclasses.asdict(config)))
        (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
        with open(folder / "log.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, Log.COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        save_model(folder / "model.safetensors", tiny(method), {"method": method, "backbone": "mobilenet_v2"})
        return folder

    return make


def row(step: int, seconds: float, J: float, loss: float = 0.5, rate: float = 40.0) -> dict:
    return {"step": step, "seconds": seconds, "loss": loss, "J": J, "images_per_s": rate}


def logs(**J: list[float]) -> pd.DataFrame:
    """`tidy`'s table of systems whose J is given at steps 10, 20, …, a second each, 100 images each; no validation."""
    parts = []
    for name, values in J.items():
        steps = 10 * np.arange(1, len(values) + 1)
        part = {
            "system": name,
            "step": steps,
            "seconds": steps / 10.0,
            "images": steps * 10.0,
            "loss": 1 - np.array(values),
        }
        parts.append(pd.DataFrame(part | {"J": values, "val_J": np.nan, "images_per_s": 100.0}))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


# Training -------------------------------------------------------------------------------------------------------------


def test_a_training_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    plans, said = plan(("ca",), "smoke", TINY), []
    first = train_all(plans, tmp_path, said.append, apart=False)
    before = {f: f.stat().st_mtime_ns for f in first["ca"].folder.iterdir()}
    monkeypatch.setattr(curves, "train", lambda *a, **k: pytest.fail("trained again"))
    again = train_all(plans, tmp_path, said.append, apart=False)
    assert said == ["ca: trains, 4 steps", "ca: there already, 4 steps"]
    assert {f: f.stat().st_mtime_ns for f in again["ca"].folder.iterdir()} == before
    pd.testing.assert_frame_equal(first["ca"].log, again["ca"].log)
    assert first["ca"].log.step.tolist() == [2, 4] and first["ca"].log.images.tolist() == [8, 16]


def test_a_training_that_was_broken_off_goes_on_and_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    plans, said = plan(("csa",), "smoke", TINY), []
    whole = train_all(plans, tmp_path / "whole", said.append, apart=False)["csa"]
    rates, count = curves.train.__globals__["learning_rate_factor"], [0]

    def broken(config, step):
        count[0] += 1
        if count[0] > 3:
            raise KeyboardInterrupt  # in the fourth step, after the state of the second
        return rates(config, step)

    with monkeypatch.context() as patch:
        patch.setitem(curves.train.__globals__, "learning_rate_factor", broken)
        with pytest.raises(KeyboardInterrupt):
            train_all(plans, tmp_path / "broken", said.append, apart=False)
    folder = home(tmp_path / "broken", "csa", plans["csa"])
    assert (folder / "state.safetensors").is_file() and not is_there(folder, plans["csa"])
    resumed = train_all(plans, tmp_path / "broken", said.append, apart=False)["csa"]
    assert said[-1] == "csa: goes on, 4 steps" and resumed.log.step.tolist() == [2, 4]
    theirs, ours = (read_tensors(run.folder / "model.safetensors")[0] for run in (whole, resumed))
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_settings_that_decide_the_result_have_a_folder_each_and_others_share_it(tmp_path):
    config = load_profile("smoke", "ca", TINY)
    same = dataclasses.replace(config, log_every=1, save_every=1, workers=2)
    assert home(tmp_path, "ca", config) == home(tmp_path, "ca", same)
    for change in ({"seed": 1}, {"steps": 5}, {"options": {}, "dice": 0.5}, {"crop": (0.5, 1.0)}):
        assert home(tmp_path, "ca", config) != home(tmp_path, "ca", dataclasses.replace(config, **change)), change


def test_a_checkpoint_alone_is_not_a_training_that_is_there(made, tmp_path):
    """A run that validates keeps its best so far: the file is there long before the last step."""
    folder = made(tmp_path / "a", [row(2, 1, 0.2)])
    config = config_of(folder)
    assert not is_there(folder, config)
    with open(folder / "log.csv", "a", newline="") as file:
        csv.DictWriter(file, Log.COLUMNS).writerow({"step": 4, "seconds": 2, "val_J": 0.3})
    assert not is_there(folder, config)  # the row of step 4 is a validation's, of a log that was cut
    with open(folder / "log.csv", "a", newline="") as file:
        csv.DictWriter(file, Log.COLUMNS).writerow(row(4, 2, 0.3))
    assert is_there(folder, config)
    (folder / "model.safetensors").unlink()
    assert not is_there(folder, config) and not is_there(tmp_path / "nothing", config)


def test_another_training_in_the_folder_is_not_written_over(made, tmp_path):
    folder = made(tmp_path / "a", [row(4, 1, 0.2)])
    with pytest.raises(CosegError, match=r"holds a training with learning_rate = 0\.002, not 0\.1"):
        is_there(folder, dataclasses.replace(config_of(folder), learning_rate=0.1))


def test_a_training_that_cannot_be_made_is_named_and_the_others_are_made(tmp_path):
    plans, said = plan(("ca",), "smoke", TINY), []
    plans["other"] = dataclasses.replace(plans["ca"], start=str(tmp_path / "none.safetensors"))
    assert list(train_all(plans, tmp_path, said.append, apart=False)) == ["ca"]
    assert said[-1].startswith("other: left out, ") and "no such checkpoint" in said[-1]
    with pytest.raises(CosegError, match=r"other: .*no such checkpoint"):
        train_all({"other": plans["other"]}, tmp_path, said.append, apart=False)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(CosegError, match="sift: no such method"):
        plan(("ca", "sift"), "smoke")
    with pytest.raises(CosegError, match="multiclass: learns on one group"):
        plan(("multiclass",), "smoke")
    with pytest.raises(CosegError, match="fast: no such profile"):
        plan(("ca",), "fast")
    with pytest.raises(CosegError, match="step: no such field"):
        plan(("ca",), "smoke", {"step": 3})
    with pytest.raises(CosegError, match="no method is named"):
        plan((), "smoke")
    with pytest.raises(CosegError, match="no trainings to show"):
        tidy({})
    with pytest.raises(CosegError, match="val_K: no such curve; one of J, val_J"):
        time_to(logs(a=[0.1]), curve="val_K")
    with pytest.raises(CosegError, match="a: has no J in validation"):
        time_to(logs(a=[0.1]), curve="val_J")
    with pytest.raises(CosegError, match=r"share = 1\.5"):
        time_to(logs(a=[0.1]), share=1.5)
    with pytest.raises(CosegError, match="hours: no such axis"):
        show_curves(logs(a=[0.1]), "t", x="hours")


# A process of its own -------------------------------------------------------------------------------------------------


def test_a_process_of_its_own_gives_the_result_and_the_memory_that_it_took():
    size = 200_000_000
    found, large = in_a_process(len, bytes(size))
    assert found == size and large["of"] == "process"
    _, small = in_a_process(len, b"1")
    assert large["peak"] - small["peak"] > 0.9 * size
    assert small["peak"] < small["before"] + 0.1 * size  # the process before left nothing behind


def test_errors_in_the_process_are_ours_and_its_death_is_named():
    with pytest.raises(CosegError, match="no such profile"):
        in_a_process(load_profile, "none", "ca")
    with pytest.raises(CosegError, match="ended with 3"):
        in_a_process(os._exit, 3)


def test_what_waits_for_the_process_looks_on(monkeypatch):
    monkeypatch.setattr(curves, "LOOK", 0.05)
    looks = []
    in_a_process(time.sleep, 0.6, while_it_runs=lambda: looks.append(1))
    assert len(looks) >= 3


def test_an_interruption_ends_the_process(monkeypatch):
    monkeypatch.setattr(curves, "LOOK", 0.05)

    def interrupted():
        raise KeyboardInterrupt

    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        in_a_process(time.sleep, 60, while_it_runs=interrupted)
    assert time.perf_counter() - started < 30


def test_the_memory_of_a_training_in_two_parts_is_that_of_the_larger(tmp_path, monkeypatch):
    config = load_profile("smoke", "ca", TINY)
    peaks = iter((900, 700))
    monkeypatch.setattr(
        curves, "in_a_process", lambda *a, **k: (None, {"of": "process", "before": 500, "peak": next(peaks)})
    )
    said = []
    for name in ("state.safetensors", "other"):
        (tmp_path / name).touch()
        curves._made("ca", config, tmp_path, said.append, True, None, None)
    assert json.loads((tmp_path / MEMORY).read_text())["peak"] == 900
    # The state is of use to what goes on; of what is done it is dropped.
    assert said == ["ca: goes on, 4 steps", "ca: trains, 4 steps"]
    assert sorted(f.name for f in tmp_path.iterdir()) == [MEMORY, "other"]


# Tables ---------------------------------------------------------------------------------------------------------------


def test_a_log_becomes_one_row_a_step_with_its_validation_beside_it(made, tmp_path):
    rows = [row(2, 1.0, 0.1), {"step": 2, "seconds": 1.0, "val_J": 0.15}, row(4, 5.0, 0.4, 0.3, 60.0)]
    a = read_run(made(tmp_path / "a", rows), "one")
    b = read_run(made(tmp_path / "b", [row(4, 7.0, 0.2)], "ssnm", groups=1))
    want = pd.DataFrame(
        [
            ("one", 2, 1.0, 8, 0.5, 0.1, 0.15, 40.0),
            ("one", 4, 5.0, 16, 0.3, 0.4, np.nan, 60.0),
            ("b", 4, 7.0, 20, 0.5, 0.2, np.nan, 40.0),  # groups of five
        ],
        columns=list(COLUMNS),
    )
    pd.testing.assert_frame_equal(tidy({run.name: run for run in (a, b)}), want, check_dtype=False)
    assert log_of(a.folder, dataclasses.replace(a.config, sides=(32, 64))).images.isna().all()


def test_a_log_that_cannot_be_read_says_why(made, tmp_path):
    folder = made(tmp_path / "a", [])
    config = config_of(folder)
    with pytest.raises(CosegError, match=r"log\.csv: holds no row of training"):
        log_of(folder, config)
    (folder / "log.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(CosegError, match="lacks the column seconds"):
        log_of(folder, config)
    for text in (b"", b"\xff\xfe\x00"):
        (folder / "log.csv").write_bytes(text)
        with pytest.raises(CosegError, match=r"log\.csv: (not read|lacks)"):
            log_of(folder, config)
    with pytest.raises(CosegError, match=r"config\.yaml: No such file"):
        read_run(tmp_path / "none")
    for text in ("steps: [", "nothing: 3", "3"):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(CosegError, match=r"config\.yaml: no configuration"):
            read_run(folder)


def test_the_time_to_a_share_of_the_final_j_is_that_of_a_search_row_by_row():
    rng = np.random.default_rng(0)
    for share in (0.5, 0.9, 1.0):
        table = logs(**{f"s{i}": rng.random(int(rng.integers(1, 12))).tolist() for i in range(30)})
        when = time_to(table, share)
        for name, log in table.groupby("system"):
            values = list(zip(log.step, log.seconds, log.images, log.J, strict=True))
            first, before = None, 0
            for step, seconds, images, J in values:
                if share * values[-1][3] <= J:
                    first = (step, seconds, images, step - before if step > 10 else step)
                    break
                before = step
            found = when.loc[name]
            assert (found.step, found.seconds, found.images, found["between"]) == first, name
            assert found.final == values[-1][3] and found.curve == "J"


def test_validation_is_asked_where_it_is_known_twice_and_training_elsewhere():
    table = logs(a=[0.1, 0.2, 0.9, 1.0], b=[0.1, 0.2, 0.9, 1.0], c=[0.0, 0.0, 0.0, 0.0])
    table.loc[table.system.eq("a") & table.step.isin([20, 40]), "val_J"] = [0.48, 0.5]
    table.loc[table.system.eq("b") & table.step.eq(40), "val_J"] = 0.5
    when = time_to(table)
    assert when.curve.tolist() == ["val_J", "J", "J"]
    assert when.step.tolist()[:2] == [20, 30] and when.final.tolist() == [0.5, 1.0, 0.0]
    assert when.loc["c", ["step", "images", "seconds", "between"]].isna().all()  # it never had a J
    assert time_to(table[table.system == "a"], curve="J").step.tolist() == [30]


def test_costs_say_what_was_logged_and_measured(made, tmp_path):
    rows = [row(2, 1.0, 0.1, rate=10.0), row(3, 2.0, 0.5, rate=90.0), row(4, 3.0, 0.5, rate=30.0)]
    folder = made(tmp_path / "a", rows)
    (folder / MEMORY).write_text('{"of": "process", "before": 400000000, "peak": 900000000}')
    runs = {"a": read_run(folder, "a"), "b": read_run(made(tmp_path / "b", rows, "dcnet"), "b")}
    cost = costs(runs)
    assert cost["images/s"].tolist() == [30.0, 30.0] and cost.seconds.tolist() == [3.0, 3.0]
    assert cost["memory (MB)"].tolist()[0] == 900 and cost["before (MB)"].tolist()[0] == 400
    assert np.isnan(cost.loc["b", "memory (MB)"])
    assert cost["s to 90%"].tolist() == [2.0, 2.0] and cost["of"].tolist() == ["training"] * 2
    tensors, _ = read_tensors(folder / "model.safetensors")
    weights = sum(t.numel() for key, t in tensors.items() if "running_" not in key)
    assert cost.loc["a", "parameters (M)"] == pytest.approx(weights / 1e6)


def test_cards_tell_the_cost_of_what_is_shipped(tmp_path):
    training = {"groups": 12, "group_size": 2, "steps": 400}
    card = {"name": "x", "method": "ca", "variant": "paper", "backbone": "vgg16", "steps": 300, "minutes": 5.0}
    card |= {"device": "one", "bytes": 2_000_000, "sha256": "0123456789", "training": [training]}
    card |= {"figures": {"msrc7": {"group": {"J": 0.5}}}}
    two = {**card, "name": "y", "training": [training, {**training, "groups": 6}]}
    for one in (card, two):
        (tmp_path / f"{one['name']}.json").write_text(json.dumps(one))
    table = shipped(tmp_path)
    assert table.images.tolist()[0] == 300 * 24 and table["images/s"].tolist()[0] == 24
    assert np.isnan(table.loc["y", "images"]) and table.loc["y", "runs"] == 2  # which run made how many, no card says
    assert table["J msrc7"].tolist() == [0.5, 0.5] and table["J icoseg8"].isna().all()
    assert shipped(tmp_path / "none").empty


def test_logs_beside_the_cards_become_curves(tmp_path):
    assert shipped_curves(tmp_path).empty
    for name in "xy":
        training = [{"groups": 9, "group_size": 9}, {"groups": 12, "group_size": 2, "sides": []}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, "training": training}))
    (tmp_path / "y.log.csv").write_text("step,seconds,loss,J,images_per_s\n20,4.5,0.7,0.4,30\n40,9.0,0.6,0.5,31\n")
    table = shipped_curves(tmp_path)
    assert table.system.tolist() == ["y", "y"]  # x has none
    assert table.images.tolist() == [20 * 24, 40 * 24] and table.J.tolist() == [0.4, 0.5]  # of the last training


def test_the_cards_in_the_repository_can_be_read():
    known, last = {card["name"]: card for card in cards()}, shipped_curves().groupby("system").step.max()
    assert len(last) and {name: known[name]["training"][-1]["steps"] for name in last.index} == last.to_dict()
    table = shipped()
    assert len(table) and (table.minutes > 0).all() and table.checkpoint.str.len().eq(8).all()


def test_each_term_of_a_loss_has_its_value_and_its_gradient(made, tiny, tmp_path):
    run = read_run(made(tmp_path / "a", [row(4, 1, 0.2)], "ssnm", groups=1), "ssnm")
    model = tiny("ssnm", categories=len(curves.photographs(run.config).classes))
    save_model(run.folder / "model.safetensors", model, {"method": "ssnm", "backbone": "mobilenet_v2"})
    table = terms(run)
    assert table.term.tolist() == ["segmentation", "spatial", "semantic"]
    assert (table.gradient > 0).all() and -1 <= table.value[1] <= 0
    assert terms(run).equals(table)


# Figures --------------------------------------------------------------------------------------------------------------


def test_each_system_has_its_loss_above_and_its_j_below_with_the_others_in_grey():
    table = logs(a=[0.1, 0.5], b=[0.2, 0.3], c=[0.0, 0.9])
    table.loc[1, "val_J"] = 0.4
    fig = show_curves(table, "All", {"b": "dice"}, x="seconds", columns=2)
    drawn = [ax for ax in fig.axes if ax.lines]
    assert len(fig.axes) == 8 and len(drawn) == 6
    above = [ax for ax in drawn if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in above] == ["a", "b\ndice", "c"]
    assert above[1].lines[0].get_xdata().tolist() == [1, 2] and above[1].lines[0].get_ydata().tolist() == [0.8, 0.7]
    below = [ax for ax in drawn if ax not in above]
    assert all(ax.get_ylim() == (0, 1) and len(ax.lines) == 4 for ax in below)
    assert below[0].lines[2].get_ydata().tolist() == [0.1, 0.5]
    assert below[0].lines[3].get_ydata().tolist() == [0.4]
    assert [ax.xaxis.get_tick_params()["labelbottom"] for ax in below] == [False, True, True]  # b has none below it
    assert "dots: in validation" in fig.get_supxlabel()


def test_the_race_has_a_ring_at_the_share_and_names_in_the_order_of_the_final_j():
    fig = show_race(logs(a=[0.1, 0.5, 0.5], b=[0.2, 0.3, 0.9], c=[0, 0, 0]), "Race")
    images, seconds = fig.axes
    rings = [line for line in seconds.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in rings] == [[2], [3], []]
    assert [line.get_ydata().tolist() for line in images.lines[:2]] == [[0.1, 0.5, 0.5], [0.5]]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["b  0.90", "a  0.50", "c  0.00"]


def test_bars_of_cost_have_a_dash_for_what_is_not_known(made, tmp_path):
    folder = made(tmp_path / "a", [row(4, 3.0, 0.5)])
    cost = costs({"a": read_run(folder, "a"), "b": Run("b", *_parts(folder, {"before": 3e8, "peak": 7e8}))})
    rates, memory, times = show_costs(cost, "Cost").axes
    assert [bar.get_width() for bar in rates.patches] == [40, 40]
    assert [bar.get_width() for bar in memory.patches] == [0, 700, 0, 300]
    assert [t.get_text() for t in memory.texts] == ["–", "700"]
    assert times.get_xlabel() == "seconds to 90% of final J"


def _parts(folder: Path, memory: dict) -> tuple:
    run = read_run(folder)
    return folder, run.config, run.log, memory


def test_a_run_of_the_command_line_stands_beside_them(tmp_path):
    train(load_profile("smoke", "fca", TINY), tmp_path / "mine", quiet=True)
    run = read_run(tmp_path / "mine")
    assert run.name == "mine" and run.memory == {} and run.log.step.tolist() == [2, 4]
    assert is_there(run.folder, load_profile("smoke", "fca", TINY))
