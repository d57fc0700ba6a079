import importlib.metadata
import json
import shutil
import sys

import pytest
import torch

from coseglib.answering import crf
from coseglib.cli import doctor
from coseglib.cli.main import main
from coseglib.models.checkpoints import save_model


@pytest.fixture
def shipped(tiny, tmp_path, monkeypatch):
    """A folder with the default checkpoint and its card."""
    file = tmp_path / "checkpoints" / f"{doctor.DEFAULT_CHECKPOINT}.safetensors"
    digest = save_model(file, tiny("ca"), {"method": "ca", "backbone": "mobilenet_v2"})
    file.with_suffix(".json").write_text(json.dumps({"sha256": digest}))
    for home in ("coseglib.cli.doctor", "coseglib.models.checkpoints"):
        monkeypatch.setattr(f"{home}.CHECKPOINTS", file.parent)
        monkeypatch.setattr(f"{home}.SCENES", file.parent)
    return file


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("COSEG_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("COSEG_WEIGHTS", raising=False)


def test_without_data_sets_photographs_can_be_segmented_all_the_same(shipped, no_data):
    said = []
    assert doctor.examine(said.append)
    *lines, last = said
    assert all(line.startswith(("OK   ", "--   ")) for line in lines)
    for part, there in (("CRF", crf.crf_installed()), ("GPU", torch.cuda.is_available())):
        assert any(line.startswith(f"{'OK' if there else '--':4} {part}: ") for line in lines), part
    for part in ("Python", "packages", "data set synthetic", f"checkpoint {doctor.DEFAULT_CHECKPOINT}"):
        assert any(line.startswith(f"OK   {part}: ") for line in lines), part
    assert "OK   data set synthetic: 8 groups, 96 drawn scenes" in lines  # nobody's photographs
    (missing,) = [line for line in lines if line.startswith("--   data set icoseg8: ")]  # a folder is named: why
    assert "data/README.md" in missing and "not here (needed to train or to score on it)" in missing
    assert last == "all is well: photographs can be segmented; what is marked -- is not needed for it"


def test_checkpoints_say_what_they_know_photographs_or_drawn_scenes(shipped, monkeypatch, tmp_path):
    monkeypatch.setattr("coseglib.cli.doctor.SCENES", tmp_path / "scenes")
    monkeypatch.setattr("coseglib.models.checkpoints.SCENES", tmp_path / "scenes")
    (tmp_path / "scenes").mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped.with_suffix(suffix), tmp_path / "scenes" / f"ca-scenes{suffix}")
    real, drawn = (f.text.rpartition(", ")[0] for f in doctor.checkpoints())
    assert (real, drawn) == ("ca on mobilenet_v2, of photographs", "ca on mobilenet_v2, of drawn scenes")


def test_where_no_folder_is_named_one_line_says_which_sets_are_not_here(shipped, monkeypatch, tmp_path):
    monkeypatch.delenv("COSEG_DATA", raising=False)
    for place in ("coseglib.core.paths", "coseglib.cli.doctor"):
        monkeypatch.setattr(f"{place}.OWN", tmp_path)
    (line,) = [f"{f.word} {f.text}" for f in doctor.data_sets() if f.part == "data sets"]
    assert line.startswith("-- not here (needed to train or to score on): icoseg8, icoseg30, icoseg, msrc7, ")
    assert "data/README.md" in line


def test_what_is_optional_never_fails_and_says_what_it_is_for(shipped, no_data, monkeypatch, tmp_path, capsys):
    """No data sets, no weights, no GPU, no CRF: the exit code is 0, and each line tells what to do or does without."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    assert main(["doctor"]) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines()[:-1])
    assert not any(part.startswith("FAIL") for part in said)
    assert "masks are made by argmax" in said["--   CRF"] and "make -B setup" in said["--   CRF"]
    assert "needed to train in minutes" in said["--   GPU"] and "COSEG_WEIGHTS" in said["--   weights"]
    monkeypatch.setenv("COSEG_WEIGHTS", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 0 and "--   weights: " in capsys.readouterr().out
    shipped.unlink()
    assert main(["doctor"]) == 1
    (failed,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed.startswith("FAIL checkpoint ca-mobilenet_v2: ")


def test_a_checkpoint_with_a_wrong_checksum_stops_the_main_job(shipped, no_data):
    shutil.copy(shipped, shipped.with_name("other.safetensors"))  # a second one, without a card, is no harm
    shipped.with_suffix(".json").write_text(json.dumps({"sha256": "0" * 64}))
    said = []
    assert not doctor.examine(said.append)
    assert any(line.startswith("FAIL checkpoint ca-mobilenet_v2: ") and "SHA-256" in line for line in said)
    assert any(line.startswith("OK   checkpoint other: ") for line in said)
    assert said[-1].startswith("photographs cannot be segmented, for lack of: checkpoint ca-mobilenet_v2")


def test_a_missing_package_is_named_and_nothing_after_it_is_asked(monkeypatch):
    version = importlib.metadata.version

    def absent(name):
        if name == "timm":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    said = []
    assert not doctor.examine(said.append)
    assert "FAIL packages: timm is missing; run make setup" in said and len(said) == 3


def test_onnx_is_optional_and_its_line_says_what_to_install(monkeypatch):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    finding = doctor.onnx()
    assert finding.word == "--" and finding.text.endswith("pip install onnxruntime onnx")


def test_a_crf_that_does_not_load_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    finding = doctor.crf()
    assert finding.word == "--" and "pydensecrf does not work" in finding.text


def test_an_older_or_newer_python_is_named(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    assert not doctor.python().good and "use 3.11 to 3.14" in doctor.python().text
