"""The shipped checkpoints answer as their cards pin, and one that answers otherwise is found."""

import json
import shutil

import pytest

from coseglib.cli.main import main
from coseglib.core.paths import CHECKPOINTS, SCENES
from coseglib.evaluation import self_test as module
from coseglib.evaluation.cards import cards
from coseglib.evaluation.self_test import answers, self_test

FEW = ("ca-scenes", "dcnet-scenes", "ssnm-mobilenet_v2")


def test_shipped_checkpoints_answer_as_pinned():
    said = []
    assert self_test(said.append, FEW)
    assert [line.split(":")[0] for line in said[:-1]] == [f"OK   {name}" for name in FEW[2:] + FEW[:2]]
    assert said[-1] == "3 of 3 checkpoints answer as they did where they were shipped"


@pytest.mark.parametrize("folder", [CHECKPOINTS, SCENES], ids=lambda folder: folder.name)
def test_every_shipped_checkpoint_is_pinned(folder):
    """`coseg ship` pins what it ships."""
    shipped = [card for card in cards(folder) if (folder / f"{card['name']}.safetensors").is_file()]
    assert shipped and all(len(card["self_test"]["cells"]) == 4 for card in shipped)


def test_other_answers_are_found(tmp_path, monkeypatch, capsys):
    for suffix in ("json", "safetensors"):
        shutil.copy(SCENES / f"ca-scenes.{suffix}", tmp_path)
    card = json.loads((tmp_path / "ca-scenes.json").read_text())
    monkeypatch.setattr(module, "SCENES", tmp_path)
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path / "none")

    def after(**pinned):
        changed = {**card, "self_test": {**card["self_test"], **pinned}}
        (tmp_path / "ca-scenes.json").write_text(json.dumps(changed))
        code = main(["doctor", "--self-test"])
        return code, capsys.readouterr().out.splitlines()[0]

    assert after()[0] == 0
    assert after(J=card["self_test"]["J"] + 0.02)[0] == 1
    code, line = after(cells=["f" * 16] * 4)
    assert code == 1 and line.startswith("FAIL ca-scenes: J ") and "make -B setup" in line
    (tmp_path / "ca-scenes.json").write_text(json.dumps({k: v for k, v in card.items() if k != "self_test"}))
    assert main(["doctor", "--self-test"]) == 0 and capsys.readouterr().out.startswith("--   ca-scenes")


def test_cells_are_the_masks_in_small(tiny, monkeypatch):
    import torch

    left = torch.zeros(96, 96, dtype=torch.uint8)
    left[:, :36] = 1  # three cells, whole or none
    monkeypatch.setattr(module, "segment_group", lambda model, photos, post: [left] * 4)
    assert answers(tiny("ca"))["cells"] == ["e0" * 8] * 4
