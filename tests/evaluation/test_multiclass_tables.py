import dataclasses
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from square_and_disc import group_of

from coseglib.core.errors import CosegError
from coseglib.evaluation import tables
from coseglib.evaluation.tables import evaluate_groups, multiclass_table, table_of
from coseglib.unsupervised.configuration import load_online

FAST = load_online("smoke", {"epochs": 1})


@pytest.fixture
def ran(monkeypatch) -> list[int]:
    """co_segment replaced by a stand-in that knows the answer; the sizes of the groups that it was asked for."""
    asked: list[int] = []

    def stand_in(photos, classes, config, progress=None, weights_root=None):
        asked.append(len(photos))
        log = pd.DataFrame({"epoch": [1, 2], "loss": [0.6, 0.5], "seconds": [1.0, 2.0]})
        labels = [photo.labels() for photo in photos]
        return SimpleNamespace(labels=lambda post: labels, log=log, learning_rate=1e-3, seconds=2.0)

    monkeypatch.setattr(tables, "co_segment", stand_in)
    return asked


def test_the_table_has_baselines_and_both_ways_for_every_group_and_over_them(tmp_path, ran):
    groups, out = [group_of(3), group_of(4, "other")], tmp_path / "table.csv"
    table = evaluate_groups(groups, FAST, out)
    systems = ["colour k-means", "stripes across", "stripes down", "feature k-means", "feature factors"]
    systems += ["SA+MA, argmax", "SA+MA, crf"]
    assert table.system.tolist() == [s for s in systems for _ in range(3)]
    assert table.group.tolist() == ["square+disc", "other", "all"] * 7
    assert set(table.protocol) == {"multiclass"} and table.J.between(0, 1).all()
    colours = table[table.system == "colour k-means"]
    assert colours.J.min() > 0.9  # scenes of three colours
    assert table.J[table.system == "SA+MA, argmax"].tolist() == [1, 1, 1]
    overall = table[table.group == "all"].set_index("system").J
    for system, rows in table[table.group != "all"].groupby("system"):
        assert rows.J.mean() == pytest.approx(overall[system])
    written = pd.read_csv(out)
    assert written.J.tolist() == pytest.approx(table.J.tolist(), abs=1e-6)
    assert "square" in written.classes[0] and set(written.profile.dropna()) == {"changed"}
    learned = written[written.system == "SA+MA, argmax"].iloc[0]
    assert learned.learning_rate == pytest.approx(1e-3) and learned.loss == 0.5 and learned.epochs == 2


def test_a_run_that_was_killed_does_only_what_is_missing(tmp_path, ran):
    first, second, out = group_of(3), group_of(4, "other"), tmp_path / "table.csv"
    evaluate_groups([first], FAST, out)
    table = evaluate_groups([first, second], FAST, out)
    assert ran == [3, 4] and set(table.group) == {"square+disc", "other", "all"}
    evaluate_groups([first], FAST.replaced(seed=1), out)  # another configuration is another run
    assert ran == [3, 4, 3]
    again = evaluate_groups([first, second], FAST, out)
    assert ran == [3, 4, 3]
    pd.testing.assert_frame_equal(again, table, check_dtype=False, atol=1e-6)
    both = pd.read_csv(tmp_path / "table.photos.csv")
    assert set(both.seed) == {0, 1} and len(table_of(both.query("seed == 0"))) == len(table)


def test_the_same_file_takes_each_kind_of_table_again_and_again(tmp_path, ran):
    group, out = group_of(3), tmp_path / "table.csv"
    for _ in range(3):
        multiclass_table([group], FAST, out)  # its rows have no seed
        evaluate_groups([group], FAST, out)
    assert ran == [3, 3]


def test_other_photographs_of_the_same_names_are_other_rows(tmp_path, ran):
    group, out = group_of(3), tmp_path / "table.csv"
    bare = [dataclasses.replace(p, read_labels=lambda: torch.zeros(48, 64, dtype=torch.uint8)) for p in group.photos]
    for photos in (group.photos, tuple(bare), group.photos):
        evaluate_groups([dataclasses.replace(group, photos=photos)], FAST, out)
    assert ran == [3, 3]


def test_a_table_of_one_way_has_the_columns_of_every_evaluation_and_goes_on_after_a_kill(tmp_path, ran):
    first, second, out = group_of(3), group_of(4, "other"), tmp_path / "table.csv"
    multiclass_table([first], FAST, out)
    table = multiclass_table([first, second], FAST, out)
    assert ran == [3, 4] and table.group.tolist() == ["square+disc", "other", "all"]
    names = ["dataset", "group", "images", "P", "J", "protocol", "checkpoint sha256", "precision", "seconds"]
    assert list(table.columns) == names and list(pd.read_csv(out).columns) == names
    assert table.J.tolist() == [1, 1, 1] and set(table.protocol) == {"multiclass"}
    multiclass_table([first], FAST, out, post="crf")  # another way, or another K, is another run
    multiclass_table([first], FAST, out, classes=3)
    assert ran == [3, 4, 3, 3]
    changed = [dataclasses.replace(p, read_labels=lambda: torch.zeros(48, 64, dtype=torch.uint8)) for p in first.photos]
    multiclass_table(
        [dataclasses.replace(first, photos=tuple(changed))], FAST, out
    )  # so are other masks under these names
    assert ran == [3, 4, 3, 3, 3]
    with pytest.raises(CosegError, match="no groups"):
        multiclass_table([], FAST, out)
    with pytest.raises(CosegError, match=r"square\+disc: no classes to score by"):
        multiclass_table([dataclasses.replace(first, targets=())], FAST, out)
