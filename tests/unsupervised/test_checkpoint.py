import pandas as pd
import pytest
import torch
from square_and_disc import group_of, scene

from coseglib.answering.reading import resize_to_input
from coseglib.core.errors import CosegError
from coseglib.data.images import write_png
from coseglib.models.checkpoints import load_model
from coseglib.unsupervised import learner
from coseglib.unsupervised.configuration import group_of_files, load_online
from coseglib.unsupervised.learner import co_segment, train_on_group

FAST = load_online("smoke", {"epochs": 1})


def test_a_run_leaves_a_model_that_gives_the_very_maps(tmp_path):
    group, said = group_of(3), []
    model = load_model(train_on_group(group, 2, FAST, tmp_path / "run", progress=said.append), "multiclass")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["config.yaml", "log.csv", "model.safetensors"]
    found = co_segment(group.photos, 2, FAST)
    images = torch.stack([resize_to_input(p.image(), 64) for p in group.photos])
    with torch.no_grad():
        torch.testing.assert_close(model(images[None]).logits[0].softmax(1), found.maps)
    card = model.card
    assert (card["method"], card["backbone"], card["classes"]) == ("multiclass", "mobilenet_v2", 2)
    assert card["training"]["epochs"] == 1 and card["group"]["photos"] == ["p0", "p1", "p2"]
    assert pd.read_csv(tmp_path / "run" / "log.csv").loss.tolist() == pytest.approx(found.log.loss.tolist(), abs=1e-6)
    assert any("epoch 1 of 1" in line and "left" in line for line in said)


def test_a_finished_run_is_kept_and_another_one_is_refused(tmp_path, monkeypatch):
    group, run = group_of(2), tmp_path / "run"
    train_on_group(group, 2, FAST, run)
    monkeypatch.setattr(learner, "co_segment", None)
    said = []
    assert train_on_group(group, 2, FAST, run, resume=True, progress=said.append) == run / "model.safetensors"
    assert said == [f"{run / 'model.safetensors'}: done before"]
    slower = FAST.replaced(epochs=2)
    for given, words in (
        ((group, 2, FAST, run), "already holds a run; add --resume"),
        ((group, 2, slower, run, True), "epochs = 1, not 2; resume with the same"),
        ((group, 3, FAST, run, True), "classes = 2, not 3"),
        ((group_of(3), 2, FAST, run, True), "other photographs"),
        ((group, 255, FAST, tmp_path / "new"), "K is 1 to 254"),
    ):
        with pytest.raises(CosegError, match=words):
            train_on_group(*given)
    assert not (tmp_path / "new").exists()
    (run / "state.safetensors").touch()
    with pytest.raises(CosegError, match="a run of another method"):
        train_on_group(group, 2, FAST, run, resume=True)


def test_the_same_photographs_by_another_path_are_the_same(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for i in range(2):
        write_png(tmp_path / "photos" / f"{i}.png", scene(i, (40, 50))[0])
    monkeypatch.chdir(tmp_path)
    model = train_on_group(group_of_files(["photos"]), 1, FAST, "run")
    assert train_on_group(group_of_files(["photos/1.png", "photos/0.png"]), 1, FAST, "run", resume=True) == model
    before = model.read_bytes()
    assert train_on_group(group_of_files([tmp_path / "photos"]), 1, FAST, "run", resume=True) == model
    write_png(tmp_path / "photos" / "0.png", scene(7, (40, 50))[0])
    with pytest.raises(CosegError, match="learned on other photographs"):
        train_on_group(group_of_files(["photos"]), 1, FAST, "run", resume=True)
    assert model.read_bytes() == before
