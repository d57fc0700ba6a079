import importlib.metadata
import json
import shutil
import sys

import pytest

from coseglib.answering import crf
from coseglib.cli import doctor
from coseglib.models.checkpoints import save_model


@pytest.fixture
def shipped(tiny, tmp_path, monkeypatch):
    """A folder with the default checkpoint and its card."""
    file = tmp_path / "checkpoints" / f"{doctor.DEFAULT_CHECKPOINT}.safetensors"
    digest = save_model(file, tiny("ca"), {"method": "ca", "backbone": "mobilenet_v2"})
    file.with_suffix(".json").write_text(json.dumps({"sha256": digest}))
    monkeypatch.setattr(doctor, "CHECKPOINTS", file.parent)
    monkeypatch.setattr("coseglib.models.checkpoints.CHECKPOINTS", file.parent)
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
    assert all(line.startswith(("OK   ", "FAIL ")) for line in lines)
    assert any(line.startswith(f"{'OK  ' if crf.crf_installed() else 'FAIL'} CRF: ") for line in lines)
    for part in ("Python", "packages", "GPU", "data set synthetic", f"checkpoint {doctor.DEFAULT_CHECKPOINT}"):
        assert any(line.startswith(f"OK   {part}: ") for line in lines), part
    assert any(line.startswith("FAIL data set icoseg8: ") and "data/README.md" in line for line in lines)
    assert last.startswith("ready to segment")


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


def test_a_crf_that_does_not_load_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    finding = doctor.crf()
    assert not finding.good and not finding.needed and "pydensecrf does not work" in finding.text


def test_an_older_or_newer_python_is_named(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    assert not doctor.python().good and "use 3.11 to 3.14" in doctor.python().text
