"""Times and costs of trainings against logs made by hand."""

import numpy as np
import pytest
from hand_made import SIX_STEPS, logs, row

from coseglib.models.checkpoints import read_tensors, save_model
from coseglib.training.configuration import load_profile
from coseglib.training.costs import guessing, loss_terms, time_to, training_costs
from coseglib.training.loop import build_batches, cached_photographs
from coseglib.training.runs import (
    MEMORY_FILE,
    read_run,
)


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


def test_costs_say_what_was_logged_and_measured(made_run, tmp_path):
    rows = [row(2, 1.0, 0.1, rate=10.0), row(3, 2.0, 0.5, rate=90.0), row(4, 3.0, 0.5, rate=30.0)]
    folder = made_run(tmp_path / "a", rows)
    (folder / MEMORY_FILE).write_text('{"of": "process", "before": 400000000, "peak": 900000000}')
    runs = {"a": read_run(folder, "a"), "b": read_run(made_run(tmp_path / "b", rows, "dcnet"), "b")}
    cost = training_costs(runs)
    assert cost["images/s"].tolist() == [30.0, 30.0] and cost.seconds.tolist() == [3.0, 3.0]
    assert cost["memory (MB)"].tolist()[0] == 900 and cost["before (MB)"].tolist()[0] == 400
    assert np.isnan(cost.loc["b", "memory (MB)"])
    assert cost["s to 90%"].tolist() == [2.0, 2.0] and cost["of"].tolist() == ["training"] * 2
    tensors, _ = read_tensors(folder / "model.safetensors")
    weights = sum(t.numel() for key, t in tensors.items() if "running_" not in key)
    assert cost.loc["a", "parameters (M)"] == pytest.approx(weights / 1e6)


def test_each_term_of_a_loss_has_its_value_and_its_gradient(made_run, tiny, tmp_path):
    run = read_run(made_run(tmp_path / "a", [row(4, 1, 0.2)], "ssnm", groups=1), "ssnm")
    model = tiny("ssnm", categories=len(cached_photographs(run.config).classes))
    save_model(run.folder / "model.safetensors", model, {"method": "ssnm", "backbone": "mobilenet_v2"})
    table = loss_terms(run)
    assert table.term.tolist() == ["segmentation", "spatial", "semantic"]
    assert (table.gradient > 0).all() and -1 <= table.value[1] <= 0
    assert loss_terms(run).equals(table)


def test_guessing_reaches_what_the_areas_of_the_objects_alone_allow():
    """Against closed forms in the areas a of the objects, on a grid of p: cross-entropy + ½ dice; DCNet's two dices."""
    asking = SIX_STEPS | {"input_size": 64, "shares": (0, 0.6, 0.4), "groups": 8, "dice": 0.5}
    config = load_profile("smoke", "ca", asking)
    sampler = build_batches(config, cached_photographs(config))
    targets = np.concatenate([sampler[step].targets.flatten(0, 1).numpy() for step in range(6)])
    a, n, p = (targets == 1).mean(axis=(1, 2))[:, None], targets[0].size, 1 / (1 + np.exp(-np.linspace(-17, 17, 3401)))

    def dice(share, q):
        return 1 - (2 * q * share * n + 1) / ((q + share) * n + 1)

    entropy = -a * np.log(p) - (1 - a) * np.log(1 - p)
    found = guessing(config)
    assert found["loss"] == {
        "the same p everywhere": pytest.approx((entropy + dice(a, p) / 2).mean(axis=0).min(), abs=1e-4)
    }
    assert found["J"] == pytest.approx({"everything marked": a.mean(), "nothing marked": (a == 0).mean()}, abs=1e-6)
    both = guessing(load_profile("smoke", "dcnet", asking | {"dice": 0.0}))["loss"]["the same p everywhere"]
    assert both == pytest.approx(((dice(a, p) + dice(1 - a, 1 - p)) / 2).mean(axis=0).min(), abs=1e-4)
    assert set(guessing(load_profile("smoke", "ssnm", asking))) == {"J"}  # its loss reads more than logits
