"""Which classes training has seen, by their names in other sets."""

import pytest

from coseglib.analysis.channels import channel_table
from coseglib.analysis.seen import classes_trained_on, seen_in_training
from coseglib.core.errors import CosegError
from coseglib.data.record import Group


def test_seen_is_by_the_names_of_training_and_drawn_classes_are_their_own():
    for name in ("Aero", "plane", "airplane", "aeroplane"):
        assert seen_in_training(Group("pascal", name, (), (name,)), {"aeroplane"})
    assert not seen_in_training(Group("icoseg8", "panda1", (), ("panda1",)), {"aeroplane"})
    flower = Group("synthetic", "flower", (), ("flower",))
    assert seen_in_training(flower, {"synthetic/flower"}) and not seen_in_training(flower, {"flower"})


def test_what_a_model_was_trained_on_is_read_from_its_card(tiny):
    model = tiny("ca")
    with pytest.raises(CosegError, match="trained on nothing"):
        classes_trained_on(model)
    model.card = {"training": {"data": "real"}}
    known = classes_trained_on(model)
    assert {"aeroplane", "person", "cow", "flower"} <= known and not {
        "grass",
        "face",
        "panda",
        "synthetic/star",
    } & known
    assert "building" not in known
    model.card = {"training": {"data": "real", "scenery": True}}
    assert classes_trained_on(model) == known | {"building"}
    model.card = {"training": {"data": "synthetic"}}
    assert "synthetic/star" in classes_trained_on(model)


def test_a_drawn_flower_is_not_seen_by_training_on_photographs_and_a_plane_is_an_aeroplane(awake, groups):
    flower = Group("synthetic", "flower", groups[0].photos[:1], ("flower",))
    plane = Group("pascal", "plane", groups[0].photos[:1], ("plane",))
    found = channel_table(awake("ca"), [flower, plane], trained_on={"flower", "aeroplane"})
    assert found.rows["seen"].tolist() == [False, True]
