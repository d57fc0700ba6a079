"""What models are chosen by: the mean of J on kinds that train and on kinds that never do."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from coseglib.answering.floors import build_floor
from coseglib.data.synthetic import load_synthetic
from coseglib.scoring.metrics import aggregate
from coseglib.scoring.rows import evaluate
from coseglib.training import loop
from coseglib.training.configuration import TrainConfig
from coseglib.training.state import Log, Progressed


def few(groups, count):
    return [replace(group, photos=group.photos[:4]) for group in groups[:count]]


def test_val_j_is_the_mean_of_seen_and_unseen_kinds(monkeypatch):
    seen, unseen = load_synthetic("val"), few(load_synthetic("test"), 2)
    monkeypatch.setattr(loop, "validation_groups", lambda: seen)
    monkeypatch.setattr(loop, "unseen_groups", lambda: unseen)
    ellipse = build_floor("ellipse")
    marks = loop.build_validation(TrainConfig(validate_photos=2))(ellipse)
    by_hand = [float(aggregate(evaluate(ellipse, groups, limit=2)).J.iloc[-1]) for groups in (seen, unseen)]
    assert [marks["val_seen"], marks["val_unseen"]] == pytest.approx(by_hand)
    assert marks["val_J"] == pytest.approx(sum(by_hand) / 2) and by_hand[0] != by_hand[1]
    assert set(marks) <= set(Log.COLUMNS)


def test_of_drawn_scenes_there_are_no_unseen_ones():
    marks = loop.build_validation(TrainConfig(data="synthetic", validate_photos=1))(build_floor("ellipse"))
    assert set(marks) == {"val_J", "val_swap", "val_refusal"}


def test_a_log_of_before_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(",".join(Log.COLUMNS[:-2]) + "\n2,1.0,0.5,0.4,3,0.1,0.3,1,0.5\n")
    Log(path, keep=2).row(step=4, val_seen=0.5, val_unseen=0.7)
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(Log.COLUMNS) and lines[1].startswith("2,1.0") and lines[2].endswith("0.5,0.7")


@pytest.mark.parametrize(
    ("fields", "before", "apart"),
    [
        ({}, None, True),
        ({"data": "synthetic"}, None, False),
        ({"start": "x"}, {"sha256": "0"}, False),  # what it goes on from has seen them
        ({"start": "x"}, {"sha256": "0", "kept_apart": ["msrc7-field"]}, True),
    ],
)
def test_a_model_says_what_all_its_trainings_kept_apart(tmp_path, fields, before, apart):
    fabric, config = SimpleNamespace(device=torch.device("cpu"), world_size=1), TrainConfig(**fields)
    model = SimpleNamespace(started_from=before)
    run = loop.Run(fabric, config, tmp_path, model, model, None, None, None, Progressed())
    assert run._about().get("kept_apart") == (["msrc7-field"] if apart else None)
