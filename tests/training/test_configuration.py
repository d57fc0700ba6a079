import os
import subprocess
import sys

import pytest
import yaml

from coseglib.core.errors import CosegError
from coseglib.core.paths import MEASURED, SCENES
from coseglib.evaluation.cards import cards
from coseglib.models import METHODS
from coseglib.training.configuration import MAY_CHANGE, TrainConfig, load_profile


def test_profiles_take_overrides_and_refuse_what_they_do_not_know():
    config = load_profile("smoke", "fca", {"steps": "12", "shares": "[1, 2, 1]", "sides": "[64, 96]"})
    assert (config.steps, config.shares, config.sides) == (12, (1.0, 2.0, 1.0), (64, 96))
    for bad, message in (
        ({"step": 1}, "step: no such field"),
        ({"steps": "many"}, "steps = many: must be a whole number"),
        ({"steps": "1.5"}, "steps = 1.5: must be a whole number"),
        ({"steps": 0}, "steps = 0: must be 1 or more"),
        ({"scenery": True}, "scenery = true: is of MSRC's photographs; leave it out for data = synthetic"),
        ({"variant": "mine"}, "variant = mine: ca has no such variant; one of paper, workbook"),
        ({"shares": "[0, 0, 0]"}, "none negative, not all 0"),
        ({"accumulate": 5}, "must divide groups"),
    ):
        with pytest.raises(CosegError, match=message):
            load_profile("smoke", "ca", bad)
    with pytest.raises(CosegError, match="one of cpu, gpu, late, paper, scenes, smoke"):
        load_profile("big", "ca")
    with pytest.raises(CosegError, match="one of ca, fca, csa"):
        load_profile("smoke", "coattention")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("learning_rate", -1, "must be 0 or more"),
        ("backbone_learning_rate", float("nan"), "must be a finite number"),
        ("weight_decay", "1e-", "must be a number"),
        ("average", 2, "must be below 1"),
        ("average", 1, "must be below 1"),
        ("crop", [0.4], "must hold 2 values"),
        ("crop", [1.0, 0.4], "the least and the most"),
        ("crop", "[0, 1]", "the least and the most"),
        ("shares", [1, 0], "must hold 3 values"),
        ("shares", [1, -1, 0], "must be 0 or more"),
        ("sides", [64, 100], "must be a multiple of 32"),
        ("input_size", 100, "must be a multiple of 32"),
        ("input_size", 0, "must be 32 or more"),
        ("precision", "foo", "one of auto, 32-true"),
        ("backbone", "resnet99", "one of vgg16, resnet10"),
        ("seed", -1, "must be 0 or more"),
        ("seed", 2**32, "must be below 4294967296"),
        ("steps", float("inf"), "must be a whole number"),
        ("steps", ".inf", "must be a whole number"),
        ("steps", True, "must be a whole number"),
        ("steps", None, "must be a whole number"),
        ("group_size", 1, "must be 2 or more"),
        ("pasted", 1.5, "must be 1 or less"),
        ("twins", -0.1, "must be 0 or more"),
        ("pretrained", "perhaps", "must be true or false"),
        ("start", 3, "must be text"),
        ("workers", -1, "must be 0 or more"),
        ("data", "voc", "one of real, coco-seg, synthetic"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(field, value, allowed):
    for refused in (lambda: TrainConfig(**{field: value}), lambda: TrainConfig().replaced(**{field: value})):
        with pytest.raises(CosegError) as error:
            refused()
        assert str(error.value).startswith(f"{field} = {value}: {allowed}") and "\n" not in str(error.value)


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu", "workbook", "late", "scenes", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_every_profile_has_every_method_that_learns_from_masks(profile, method):
    if METHODS[method].online:
        with pytest.raises(CosegError, match="learns on one group, without masks"):
            load_profile(profile, method)
    else:
        assert load_profile(profile, method).method == method


def test_the_paper_profile_is_as_printed():
    config = load_profile("paper", "ca")
    assert (config.backbone, config.input_size, config.optimiser, config.learning_rate) == ("vgg16", 512, "adam", 1e-5)
    assert (config.variant, config.dice, config.shares, config.group_size) == ("paper", 0, (1, 0, 0), 2)


def _deciding(config: dict) -> dict:
    """What decides a run's result; fields that are younger than it have their defaults."""
    return {name: value for name, value in TrainConfig(**config).fields().items() if name not in MAY_CHANGE}


SMALL = [c for c in cards() if c["variant"] == "workbook" and c["method"] != "ca"]


@pytest.mark.parametrize(
    "profile, kept, overrides",
    [
        ("workbook", SMALL, {}),
        ("late", SMALL, {}),
        ("workbook", [c for c in cards(MEASURED) if c["name"].endswith("-plain")], {"shares": [1, 0, 0]}),
        ("gpu", [c for c in cards(MEASURED) if c["backbone"] == "resnet50"], {}),
        ("scenes", [c for c in cards(SCENES) if (SCENES / f"{c['name']}.safetensors").is_file()], {}),
    ],
    ids=["shipped", "shipped, late stage", "plain pairs", "ResNet-50", "scenes"],
)
def test_a_profile_trains_what_the_cards_say(profile, kept, overrides):
    assert len(kept) >= 4
    for card in kept:
        run = card["training"][0 if profile == "workbook" else -1]
        asked = {"workbook": ("fca-mobilenet_v2",), "late": ("fca-mobilenet_v2", "csa-mobilenet_v2")}
        more = {"example_share": 0.2} if card["name"] in asked.get(profile, ()) else {}  # reports/trials.md, 25 and 30
        more |= {"start": run["start"]} if profile == "late" else {}
        ours = load_profile(profile, card["method"], overrides | more).fields()
        assert _deciding(run) == _deciding(ours), card["name"]


def test_a_runs_own_configuration_is_a_profile(tmp_path):
    config = load_profile("smoke", "csa", {"learning_rate": "1e-4", "sides": "64, 96", "seed": 3})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.fields()))
    file = str(tmp_path / "config.yaml")
    assert load_profile(file) == load_profile(file, "csa") == config
    assert load_profile(file, None, {"seed": "4"}) == config.replaced(seed=4)
    with pytest.raises(CosegError, match=r"config\.yaml: is of method csa, not ca"):
        load_profile(file, "ca")


def test_an_options_section_is_not_a_method_and_options_are_set_one_by_one(tmp_path):
    (tmp_path / "flat.yaml").write_text("method: pfcc\noptions: {width: 16, kernels: [3]}\n")
    config = load_profile(str(tmp_path / "flat.yaml"), None, {"options.kernels": "[5, 7]", "options.normalise": "no"})
    assert config.options == {"width": 16, "kernels": [5, 7], "normalise": False}
    given = {"options": "{width: 8}", "options.kernels": "[3]"}  # neither is lost for the other
    assert load_profile("smoke", "pfcc", given).options == {"width": 8, "kernels": [3]}


def test_a_refused_profile_is_told_before_any_data_set_is_looked_for(tmp_path):
    (tmp_path / "typo.yaml").write_text("al:\n  data: real\n")
    command = [sys.executable, "-m", "coseglib.cli", "train", "--profile", "typo.yaml", "-o", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COSEG_DATA": "."})
    assert done.returncode == 1 and done.stderr.startswith("coseg: typo.yaml: al: no such section of a profile; one of")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()
