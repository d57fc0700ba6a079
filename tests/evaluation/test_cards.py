"""What cards and the logs beside them say of trainings."""

import json

import numpy as np

from coseglib.core.paths import LISTS, MEASURED
from coseglib.core.tables import read_table
from coseglib.evaluation.cards import (
    cards,
    field_note,
    precision_note,
    shipped_costs,
    shipped_logs,
    trained_on_field,
)


def test_cards_tell_the_cost_of_what_is_shipped(tmp_path):
    training = {"groups": 12, "group_size": 2, "steps": 400}
    card = {"name": "x", "method": "ca", "variant": "paper", "backbone": "vgg16", "steps": 300, "minutes": 5.0}
    card |= {"device": "one", "bytes": 2_000_000, "sha256": "0123456789", "training": [training]}
    card |= {"figures": {"msrc7": {"group": {"J": 0.5}}}}
    two = {**card, "name": "y", "training": [training, {**training, "groups": 6}]}
    for one in (card, two):
        (tmp_path / f"{one['name']}.json").write_text(json.dumps(one))
    table = shipped_costs(tmp_path)
    assert table.images.tolist()[0] == 300 * 24 and table["images/s"].tolist()[0] == 24
    assert np.isnan(table.loc["y", "images"]) and table.loc["y", "runs"] == 2  # which run made how many, no card says
    assert table["J msrc7"].tolist() == [0.5, 0.5] and table["J icoseg8"].isna().all()
    assert shipped_costs(tmp_path / "none").empty


def test_logs_beside_the_cards_become_curves(tmp_path):
    assert shipped_logs(tmp_path).empty
    for name in "xy":
        training = [{"groups": 9, "group_size": 9}, {"groups": 12, "group_size": 2, "sides": []}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, "training": training}))
    (tmp_path / "y.log.csv").write_text("step,seconds,loss,J,images_per_s\n20,4.5,0.7,0.4,30\n40,9.0,0.6,0.5,31\n")
    table = shipped_logs(tmp_path)
    assert table.system.tolist() == ["y", "y"]  # x has none
    assert table.images.tolist() == [20 * 24, 40 * 24] and table.J.tolist() == [0.4, 0.5]  # of the last training


def test_figures_of_16_bits_are_named_beside_those_of_32():
    every, few = ({"name": name, "measured": {"precision": p}} for name, p in (("a", "32-true"), ("b", "bf16-mixed")))
    old = {"name": "c", "measured": {"date": "2026-11-26"}}  # there were no others then
    assert precision_note([every, few, old]).endswith(": b.") and precision_note([every, old, {"name": "d"}]) == ""


def test_the_cards_in_the_repository_can_be_read():
    known, last = {card["name"]: card for card in cards()}, shipped_logs().groupby("system").step.max()
    assert len(last) and {name: known[name]["training"][-1]["steps"] for name in last.index} == last.to_dict()
    table = shipped_costs()
    assert len(table) and (table.minutes > 0).all() and table.checkpoint.str.len().eq(8).all()


def test_a_card_that_kept_nothing_apart_trained_on_what_its_list_held_of_the_field_s_photographs():
    """Drawn scenes and COCO hold none of them; whoever says kept_apart has kept them."""
    real, drawn = {"data": "real"}, {"data": "synthetic"}
    seen = trained_on_field([drawn, real])
    assert len(seen) == 9 and "1_27_s" in seen and "12_11_s" not in seen  # that one chose, and 4_2_s tests
    assert trained_on_field([real], ["msrc7-field"]) == trained_on_field([drawn]) == []
    assert trained_on_field([{"data": "coco-seg"}]) == []
    for card in (*cards(), *cards(MEASURED)):
        kept = card.get("kept_apart", ())
        assert trained_on_field(card["training"], kept) == ([] if kept else seen), card["name"]
    now = read_table(LISTS / "training.csv", {"dataset": str, "photo": str})
    assert not set(seen) & set(now.photo)


def test_the_note_on_the_field_names_models_and_photographs():
    assert field_note({"a": [], "b": []}) == field_note({}) == ""
    note = field_note({"a": ["1_27_s", "4_11_s"], "b": []})
    assert note == "msrc7-field is no test of a: 2 of its 15 photographs trained it (1_27_s, 4_11_s)."
    assert "of each of these models: 1 of its 15" in field_note({name: ["1_27_s"] for name in "abcd"})
