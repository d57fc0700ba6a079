"""`coseg evaluate` and `coseg segment` with a saliency network, as a floor and as a prior."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coseglib.cli import main as cli
from coseglib.data import load
from coseglib.data.images import read_mask, write_png

pytest.importorskip("onnx", reason="onnx and onnxruntime are an extra")
pytest.importorskip("onnxruntime", reason="onnx and onnxruntime are an extra")
from toy_onnx import red


@pytest.fixture
def network(tmp_path):
    return red(tmp_path / "toy.onnx")


@pytest.fixture
def maps(tmp_path):
    """The drawn scenes' masks, as <group>/<stem>.png."""
    for group in load("synthetic")[:2]:
        for i, photo in enumerate(group.photos):
            file = tmp_path / "maps" / photo.name.split("/")[-2] / f"{photo.name.split('/')[-1]}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_png(file, 255 * group.mask(i).clamp(max=1))
    return tmp_path / "maps"


@pytest.fixture
def two_groups(monkeypatch):
    """The first two groups of the drawn scenes stand for a data set, and for what chooses."""
    groups = [replace(group, photos=group.photos[:3]) for group in load("synthetic")[:2]]
    for name in ("load", "validation_groups", "unseen_groups"):
        monkeypatch.setattr(f"coseglib.evaluation.tables.{name}", lambda *_: groups)
    return groups


def evaluate(tmp_path, *more):
    table = tmp_path / "table.csv"
    assert cli.main(["evaluate", "-o", str(table), "--accelerator", "cpu", *map(str, more)]) == 0
    return pd.read_csv(table, keep_default_na=False)


def refused(capsys, tmp_path, *more):
    assert cli.main(["evaluate", "-o", str(tmp_path / "none.csv"), *map(str, more)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert not (tmp_path / "none.csv").exists()
    return line


def test_a_network_is_scored_and_segments_as_a_floor(network, two_groups, tmp_path):
    rows = evaluate(tmp_path, "--checkpoint", f"onnx:{network}", "--dataset", "synthetic")
    assert set(rows["checkpoint sha256"]) == {hashlib.sha256(network.read_bytes()).hexdigest()}
    assert "prior" not in rows and rows.group.tolist()[-1] == "all"
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[:, 30:, 0] = 255
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{name}.png")
    given = ["--checkpoint", f"onnx:{network}", "--accelerator", "cpu"]
    assert cli.main(["segment", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), *given]) == 0
    mask = read_mask(tmp_path / "out" / "masks" / "a.png")
    assert mask[:, 32:].all() and not mask[:, :28].any()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["checkpoint"] == "onnx:toy.onnx" and result["prior"] is None


def test_a_prior_is_named_in_every_row_with_weight_and_checksum(checkpoint, maps, two_groups, tmp_path):
    given = ["--checkpoint", checkpoint, "--dataset", "synthetic", "--prior", maps]
    alone = evaluate(tmp_path, "--checkpoint", checkpoint, "--dataset", "synthetic")
    rows = evaluate(tmp_path, *given)
    assert set(rows["prior"]) == {str(maps)} and set(rows["prior weight"]) == {1.0}
    assert rows["prior sha256"].str.len().eq(64).all() and rows["prior sha256"].nunique() == 1
    assert rows.J.iloc[-1] > alone.J.iloc[-1] + 0.1  # the maps are the truth
    heavy = evaluate(tmp_path, *given, "--prior-weight", "50")
    assert heavy.J.iloc[-1] > rows.J.iloc[-1] and set(heavy["prior weight"]) == {50.0}
    asked = evaluate(tmp_path, *given, "--protocol", "refusal")
    assert "AUROC" in asked and set(asked["prior"]) == {str(maps)}


def test_result_json_names_the_prior_of_a_network(checkpoint, network, tmp_path):
    (tmp_path / "photos").mkdir()
    for k in range(2):
        write_png(tmp_path / "photos" / f"{k}.png", np.full((3, 40, 60), 90 * k, np.uint8))
    given = ["segment", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    assert cli.main([*given, "--accelerator", "cpu", "--prior", f"onnx:{network}", "--prior-weight", "0.5"]) == 0
    said = json.loads((tmp_path / "out" / "result.json").read_text())["prior"]
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    assert said == {"name": f"onnx:{network}", "weight": 0.5, "sha256": digest}


def test_a_weight_is_chosen_on_what_chooses_and_on_nothing_else(checkpoint, maps, two_groups, tmp_path, capsys):
    given = ["--checkpoint", checkpoint, "--prior", maps, "--choose-prior-weight"]
    rows = evaluate(tmp_path, *given)
    assert rows.dataset.unique().tolist() == ["seen", "unseen", "all"]
    whole, parts = rows[rows.dataset == "all"], rows[rows.dataset != "all"]
    assert whole.J.tolist() == pytest.approx(parts.groupby("prior weight").J.mean().tolist())
    (best,) = rows[rows.chosen == "yes"].to_dict("records")
    assert best["dataset"] == "all" and best["J"] == whole.J.max() and best["prior weight"] > 0
    one = evaluate(tmp_path, *given, "--dataset", "icoseg30")
    assert set(one.dataset) == {"icoseg30"} and (one.chosen == "yes").sum() == 1
    capsys.readouterr()
    assert "icoseg8: chooses no weight; one of voc-val" in refused(capsys, tmp_path, *given, "--dataset", "icoseg8")
    assert "--prior-weight" in refused(capsys, tmp_path, *given, "--prior-weight", "1")
    assert "--protocol" in refused(capsys, tmp_path, *given, "--protocol", "ssnm")
    assert "name one with --prior" in refused(
        capsys, tmp_path, "--checkpoint", checkpoint, "--choose-prior-weight", "--dataset", "voc-val"
    )


def test_what_does_not_go_together_is_refused(checkpoint, maps, tmp_path, capsys):
    score = ["--checkpoint", checkpoint, "--dataset", "synthetic"]
    assert "--prior-weight: is of a --prior" in refused(capsys, tmp_path, *score, "--prior-weight", "2")
    multi = ["--method", "multiclass", "--dataset", "synthetic-multiclass"]
    assert "--prior: says where objects are" in refused(capsys, tmp_path, *multi, "--prior", maps)
    assert "no folder of maps" in refused(capsys, tmp_path, *score, "--prior", tmp_path / "nowhere")
    assert "leave one of both out" in refused(capsys, tmp_path, *score, "--prior", maps, "--protocol", "reference")


def test_a_set_that_chooses_says_that_it_is_no_test(checkpoint, two_groups, tmp_path, capsys):
    for name, told in (("icoseg", "coseg: icoseg: no test set: 30 of its 38 groups choose models"),
                       ("icoseg30", "coseg: icoseg30: no test set: models are chosen by it")):  # fmt: skip
        evaluate(tmp_path, "--checkpoint", checkpoint, "--dataset", name)
        assert told in capsys.readouterr().err
    evaluate(tmp_path, "--checkpoint", checkpoint, "--dataset", "icoseg8")
    assert "no test" not in capsys.readouterr().err


def test_a_model_that_learned_from_the_field_s_photographs_says_so(two_groups, tmp_path, capsys):
    evaluate(tmp_path, "--checkpoint", "ca-mobilenet_v2-paper", "--dataset", "msrc7-field", "--limit", 1)
    told = [line for line in capsys.readouterr().err.splitlines() if "msrc7-field" in line]
    assert len(told) == 1 and "no test of ca-mobilenet_v2-paper: 9 of its 15" in told[0] and "16_14_s" in told[0]
