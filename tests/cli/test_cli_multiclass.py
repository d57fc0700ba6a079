"""`coseg` with the system of several classes: it learns on the photographs, so each command has its own way for it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from coseglib.cli import main as cli
from coseglib.cli.options import METHOD_NAMES
from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.data.images import read_labels, write_png
from coseglib.evaluation import tables
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model, save_model
from coseglib.unsupervised import learner

QUICK = ["--profile", "smoke", "--set", "epochs=1"]
COLUMNS = ["dataset", "group", "images", "P", "J", "protocol", "checkpoint sha256", "precision", "seconds"]


def _run(*arguments) -> int:
    return cli.main([str(a) for a in arguments])


def _refused(capsys, *arguments) -> str:
    """The one line on stderr of a command that is refused with exit code 1."""
    capsys.readouterr()
    assert _run(*arguments) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("coseg: ") and said.err.count("\n") == 1, said
    return said.err


def _scene(number: int, size: tuple[int, int] = (48, 64)) -> tuple[torch.Tensor, torch.Tensor]:
    """A red square and a blue one on green noise, and who is where: 1 and 2."""
    h, w = size
    image = torch.from_numpy(np.random.default_rng(number).integers(60, 160, (3, h, w)).astype(np.uint8))
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[h // 8 : h // 2, w // 8 : w // 2], labels[h // 2 :, w // 2 :] = 1, 2
    for k, colour in enumerate(([220, 30, 30], [30, 30, 230]), start=1):
        image[:, labels == k] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    return image, labels


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        write_png(folder / f"{i}.png", _scene(i, (40, 50 + i))[0])
    return folder


@pytest.fixture
def multi(tiny, tmp_path):
    """A file with a small untrained generator of two classes."""
    file = tmp_path / "multi.safetensors"
    about = {"method": "multiclass", "backbone": "mobilenet_v2", "training": {"post": "argmax"}}
    save_model(file, tiny("multiclass", classes=2), about)
    return file


def test_the_overview_names_every_method_and_its_paper(capsys):
    assert cli.main([]) == 0
    shown = capsys.readouterr().out.split("papers:")[1].split("Options")[0].splitlines()
    lines = [line for line in shown if ";" in line]
    assert len(lines) == 5 == len({entry.paper.key for entry in METHODS.values()})
    assert METHOD_NAMES.split("|") == list(METHODS)
    assert " ".join(" ".join(line.strip().split("  ")[0] for line in lines).split()) == " ".join(METHODS)


def test_what_is_in_the_way_of_masks_is_told_before_anything_is_learned(photos, tmp_path, capsys, monkeypatch):
    own = tmp_path / "out" / "masks" / "0.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"the user's own")
    monkeypatch.setattr(learner, "learn", lambda *_: pytest.fail("it learned"))
    told = _refused(capsys, "segment", photos, "-o", tmp_path / "out", "--method", "multiclass", "--classes", 2, *QUICK)
    assert "masks: is there already, and not from here" in told and own.read_bytes() == b"the user's own"


@pytest.mark.parametrize(("flag", "precision"), [("--bfloat16", "bf16-mixed"), ("--no-bfloat16", "32-true")])
def test_it_learns_in_the_precision_that_is_asked_for(photos, tmp_path, monkeypatch, flag, precision):
    def learn(group, classes, config, say):
        raise CosegError(config.precision)

    monkeypatch.setattr(learner, "learn", learn)
    given = ["segment", photos, "-o", tmp_path / "out", "--method", "multiclass", "--classes", 2, *QUICK, flag]
    with pytest.raises(CosegError, match=precision):
        cli.app([str(a) for a in given], standalone_mode=False)


def test_training_needs_nothing_but_a_folder_to_write_to_and_keeps_what_is_done(tmp_path, capsys):
    run = tmp_path / "run"
    train = ["train", "--method", "multiclass", *QUICK, "-o", run]
    assert _run(*train) == 0
    said = capsys.readouterr().out
    assert "epoch 1 of 1" in said and " left" in said and said.splitlines()[-1] == str(run / "model.safetensors")
    assert {p.name for p in run.iterdir()} == {"model.safetensors", "log.csv", "config.yaml"}
    card = load_model(run / "model.safetensors", "multiclass").card
    assert card["classes"] == card["options"]["classes"] == 2 and card["group"]["name"] == "star+ring"
    assert "--resume" in _refused(capsys, *train)
    assert _run(*train, "--resume") == 0
    assert "done before" in capsys.readouterr().out
    assert "seed = 0, not 1" in _refused(capsys, *train, "--resume", "--set", "seed=1")


def test_a_trained_model_gives_the_masks_that_learning_on_the_photographs_gives(tmp_path, photos, capsys):
    (photos / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    run, learned, used = (tmp_path / name for name in ("run", "learned", "used"))
    assert _run("train", "--method", "multiclass", *QUICK, "-o", run, "--photos", photos, "--classes", 3) == 0
    assert "torn.jpg" in capsys.readouterr().err
    assert _run("segment", photos, "-o", learned, "--method", "multiclass", "--classes", 3, *QUICK) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("coseg: ")]
    assert len(told) == 1 and "torn.jpg" in told[0] and "left out, 3 photographs done" in told[0]
    assert _run("segment", photos, "-o", used, "--checkpoint", run / "model.safetensors") == 2
    for i in range(3):
        labels = read_labels(learned / "masks" / f"{i}.png")
        assert labels.shape == (40, 50 + i) and int(labels.max()) <= 3
        assert torch.equal(labels, read_labels(used / "masks" / f"{i}.png"))
        assert Image.open(learned / "overlays" / f"{i}.jpg").size == (50 + i, 40)
    result = json.loads((learned / "result.json").read_text())
    assert (result["classes"], result["post"], result["checkpoint"]) == (3, "argmax", None)
    assert result["learning"]["epochs"] == 1 and result["learning"]["seconds"] > 0
    for i, entry in enumerate(result["photos"][:3]):
        labels = read_labels(learned / entry["mask"])
        assert entry["class_shares"] == pytest.approx(
            [float((labels == k).float().mean()) for k in (1, 2, 3)], abs=1e-6
        )
        assert entry["foreground_share"] == pytest.approx(sum(entry["class_shares"]), abs=1e-5)
        assert (entry["width"], entry["height"]) == (50 + i, 40) and entry["seconds"] > 0
    assert "skipped" in result["photos"][3]
    assert json.loads((used / "result.json").read_text())["checkpoint"] == "model"


def test_one_photograph_and_the_crf(tmp_path, photos, multi):
    out = tmp_path / "out"
    assert _run("segment", photos / "0.png", "-o", out, "--method", "multiclass", "--classes", 1, *QUICK) == 0
    assert set(read_labels(out / "masks" / "0.png").unique().tolist()) <= {0, 1}
    assert _run("segment", photos, "-o", out, "--checkpoint", multi, "--post", "crf") == 0
    assert json.loads((out / "result.json").read_text())["post"] == "crf"


def test_an_output_that_cannot_be_written_is_told_before_anything_is_learned(tmp_path, photos, capsys, monkeypatch):
    monkeypatch.setattr(learner, "LearningJob", None)
    for folder in ("own/masks", "closed/out", "table.photos.csv"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "own" / "masks" / "a.png").write_text("mine")
    (tmp_path / "closed" / "out" / "overlays").write_text("a file")
    learn = ["--method", "multiclass", *QUICK, "-o"]
    for out, words in (("own", "masks: is there already"), ("closed/out", "overlays: is there already")):
        told = _refused(capsys, "segment", photos, "--classes", 2, *learn, tmp_path / out)
        assert words in told
    told = _refused(capsys, "evaluate", "--dataset", "synthetic-multiclass", *learn, tmp_path / "table.csv")
    assert "table.photos.csv: is a folder; name a file" in told


def test_photographs_that_cannot_be_read_are_no_group(tmp_path, capsys):
    bad, out = tmp_path / "bad.jpg", tmp_path / "out"
    bad.write_bytes(b"\xff\xd8\xff")
    (tmp_path / "empty").mkdir()
    for given, words in ((bad, "bad.jpg: "), (tmp_path / "empty", "empty: no photographs"), ("gone.jpg", "no such")):
        told = _refused(capsys, "segment", given, "-o", out, "--method", "multiclass", "--classes", 2, *QUICK)
        assert words in told and "no photograph is left to learn on" in told
    assert not out.exists()


def test_a_set_of_groups_is_scored_and_what_is_done_is_not_done_again(tmp_path, multi, capsys, monkeypatch):
    out = tmp_path / "table.csv"
    common = ["evaluate", "--dataset", "synthetic-multiclass", "--limit", 2, "-o", out]
    learn = [*common, "--method", "multiclass", *QUICK, "--only", "heart+arrow"]
    assert _run(*learn) == 0
    table = pd.read_csv(out)
    assert list(table.columns) == COLUMNS and table.group.tolist() == ["heart+arrow", "all"]
    assert table.images.tolist() == [2, 2] and set(table.protocol) == {"multiclass"} and table.J.between(0, 1).all()
    assert table["checkpoint sha256"].isna().all() and (table.seconds > 0).all()
    monkeypatch.setattr(learner, "co_segment", None)
    capsys.readouterr()
    assert _run(*learn) == 0
    assert "heart+arrow (1 of 1, 2 photos): done before" in capsys.readouterr().err
    assert _run(*common, "--checkpoint", multi) == 0
    table = pd.read_csv(out)
    assert len(table) == 4 and set(table["checkpoint sha256"]) == {load_model(multi).card["sha256"]}
    told = _refused(capsys, *learn, "--only", "cat+dog")
    assert "cat+dog: no such group; one of star+ring, heart+arrow" in told


def test_synthetic_and_a_folder_have_one_class_a_group(tmp_path, multi, photos):
    for i in range(3):
        for part, picture in (("images", _scene(i)[0]), ("ground_truth", 255 * (_scene(i)[1] == 1).to(torch.uint8))):
            (tmp_path / "set" / part / "squares").mkdir(parents=True, exist_ok=True)
            write_png(tmp_path / "set" / part / "squares" / f"{i}.png", picture)
    out = tmp_path / "table.csv"
    for given in (["--method", "multiclass", *QUICK], ["--method", "multiclass", "--classes", 2, *QUICK]):
        assert _run("evaluate", "--dataset", tmp_path / "set", "-o", out, *given) == 0
        assert pd.read_csv(out).group.tolist() == ["squares", "all"]
    assert _run("evaluate", "--dataset", "synthetic", "--limit", 1, "--checkpoint", multi, "-o", out) == 0
    assert len(pd.read_csv(out)) == 9


def test_the_ablations_stand_beside_baselines(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ABLATIONS", {name: tables.ABLATIONS[name] for name in ("w/o ATT", "SA+MA")})
    out = tmp_path / "table.csv"
    chosen = ["--only", "star+ring", "--limit", 2, "--ablations"]
    common = ["evaluate", "--method", "multiclass", "--dataset", "synthetic-multiclass", *QUICK, "-o", out]
    assert _run(*common, *chosen) == 0
    found = list(dict.fromkeys(pd.read_csv(out).system))
    assert found == [*tables.BASELINES, "w/o ATT, argmax", "w/o ATT, crf", "SA+MA, argmax", "SA+MA, crf"]
    assert _run(*common, *chosen[:-1], "--baselines") == 0
    found = list(dict.fromkeys(pd.read_csv(out).system))
    assert found == [*tables.BASELINES, "SA+MA, argmax", "SA+MA, crf"]


def test_vocs_groups_are_known_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("COSEG_DATA", str(tmp_path))
    home = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True)
    names = [f"2011_{i:06d}" for i in range(10)]
    for i, name in enumerate(names):
        image, labels = _scene(i)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(home / "JPEGImages" / f"{name}.jpg", quality=95)
        dog_and_person = torch.tensor([0, 12, 15], dtype=torch.uint8)[labels.long()]
        Image.fromarray(dog_and_person.numpy()).save(home / "SegmentationClass" / f"{name}.png")
    (home / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(names))
    out = tmp_path / "table.csv"
    asked = ["evaluate", "--dataset", "voc-multiclass", "--method", "multiclass", "--limit", 3, *QUICK, "-o", out]
    assert _run(*asked) == 0
    assert "dog+person (1 of 1, 3 photos): epoch 1 of 1" in capsys.readouterr().err
    assert pd.read_csv(out).group.tolist() == ["dog+person", "all"]
    run = tmp_path / "run"
    assert _run("train", "--method", "multiclass", "--group", "dog+person", *QUICK, "-o", run) == 0
    assert load_model(run / "model.safetensors").card["group"]["photos"] == names
    asked = ["train", "--method", "multiclass", "--group", "cow+dog", *QUICK, "-o", tmp_path / "none"]
    assert "cow+dog: no such group; one of dog+person" in _refused(capsys, *asked)


LEARN = ["segment", "a.jpg", "-o", "out", "--method", "multiclass"]
TRAIN = ["train", "-o", "out", "--method", "multiclass", "--profile", "smoke"]
SCORE = ["evaluate", "--dataset", "synthetic-multiclass", "-o", "t.csv"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (LEARN, "add --classes K"),
        ([*LEARN, "--classes", "0"], "classes = 0: K is 1 to 254"),
        ([*LEARN, "--classes", "256"], "classes = 256: K is 1 to 254"),
        ([*LEARN, "--classes", "two"], "coseg segment --help"),
        ([*LEARN, "--classes", "2", "--set", "steps=3"], "steps: no such field; one of backbone"),
        ([*LEARN, "--classes", "2", "--profile", "big"], "big: no such profile; one of cpu, paper, scenes, smoke"),
        ([*LEARN, "--classes", "2", "--devices", "2"], "--devices: learning takes one process"),
        ([*LEARN, "--classes", "2", "--post", "best"], "'argmax', 'crf'"),
        (["segment", "a.jpg", "-o", "out", "--classes", "2"], "--classes: is for learning"),
        ([*SCORE, "--checkpoint", "ellipse", "--post", "crf"], "--post: a floor looks once"),
        (["segment", "a.jpg", "-o", "out", "--method", "pfcc"], "holds a ca model, pfcc was asked for"),
        (["segment", "a.jpg", "-o", "out", "--method", "xa"], "xa: no such method; one of ca"),
        ([*TRAIN, "--classes", "300"], "classes = 300: K is 1 to 254"),
        ([*TRAIN, "--set", "steps=3"], "steps: no such field; one of backbone"),
        ([*TRAIN, "--photos", "a.jpg"], "add --classes K"),
        ([*TRAIN, "--photos", "a.jpg", "--classes", "2"], "a.jpg: no such file"),
        ([*TRAIN, "--photos", "a.jpg", "--classes", "2", "--group", "dog+person"], "--group: is a group of its own"),
        ([*TRAIN, "--devices", "2"], "--devices: multiclass learns in one process"),
        (["train", "-o", "out", "--method", "multiclass"], "name it, --group dog+person"),
        (["train", "-o", "out", "--group", "dog+person"], "--group: is for multiclass; others learn from masks"),
        (["train", "-o", "out", "--classes", "2"], "--classes: is for multiclass"),
        ([*SCORE, "--method", "multiclass", "--group", "mean"], "--group: multiclass pools no attention"),
        ([*SCORE, "--method", "multiclass", "--partner", "self"], "--partner: multiclass has no partners"),
        ([*SCORE, "--method", "multiclass", "--protocol", "common"], "--protocol: multiclass has a protocol"),
        ([*SCORE, "--method", "multiclass", "--ablations", "--classes", "2"], "--classes: "),
        ([*SCORE, "--only", "star+ring"], "--only: is for multiclass"),
        ([*SCORE, "--ablations"], "--ablations: is for learning"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_remedy(capsys, monkeypatch, tmp_path, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert told in _refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_several_classes_is_refused_where_it_does_not_fit(capsys, multi, photos, tmp_path):
    told = _refused(capsys, "segment", photos, "-o", tmp_path / "o", "--checkpoint", multi, "--group", "mean")
    assert "--group: multiclass pools no attention" in told
    told = _refused(capsys, "segment", photos, "-o", tmp_path / "o", "--checkpoint", multi, "--classes", 3)
    assert "--classes: is for learning" in told
    told = _refused(capsys, "segment", photos, "-o", tmp_path / "o", "--checkpoint", multi, "--method", "ca")
    assert "multi.safetensors: holds a multiclass model, ca was asked for" in told
    told = _refused(capsys, "segment", photos, "-o", tmp_path / "o", "--checkpoint", multi, "--no-bfloat16")
    assert "--no-bfloat16: what multiclass learned answers as it learned" in told
    told = _refused(capsys, *SCORE[:3], "-o", tmp_path / "t.csv", "--checkpoint", multi, "--protocol", "refusal")
    assert "--protocol: multiclass has a protocol of its own" in told
    told = _refused(capsys, "ship", multi, "multi", "-o", tmp_path / "shipped")
    assert "multi.safetensors: knows its own group of photographs only" in told
    start = ["--profile", "smoke", "--set", f"start={multi}", "-o", tmp_path / "run", "--accelerator", "cpu"]
    assert "holds a multiclass model, ca was asked for" in _refused_late(capsys, "train", *start)


def _refused_late(capsys, *arguments) -> str:
    """As `_refused`, of a command that has begun: on a slow machine lines of progress come before."""
    assert _run(*arguments) == 1
    *before, told = capsys.readouterr().err.splitlines()
    assert told.startswith("coseg: ") and not any(line.startswith("coseg: ") for line in before)
    return told
