"""The library as others install it: from a wheel, with no repository around it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from coseglib.core.paths import REPOSITORY

TRACKED = ("lists", "checkpoints", "measured")  # folders of data/ that ship


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built in a copy, without a network."""
    home = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(REPOSITORY / name, home)
    shutil.copytree(REPOSITORY / "coseglib", home / "coseglib", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "data").symlink_to(REPOSITORY / "data")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        home / "out",
        home,
    ]
    subprocess.run(list(map(str, command)), check=True)
    (built,) = (home / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs a command line in a folder of its own, with the wheel's library and this Python's packages.

    Without `site` (-S) no .pth file is read: an editable install of the repository cannot be found.
    """
    home = tmp_path_factory.mktemp("installed")
    target = home / "packages"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(list(map(str, command)), check=True)
    before = {p for p in target.rglob("*") if "__pycache__" not in p.parts}
    path = [str(target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    own = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(path)), "XDG_CACHE_HOME": str(home / "cache")}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("COSEG_")}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-S", *arguments], cwd=home, env=kept | own, capture_output=True, text=True
        )
        assert {p for p in target.rglob("*") if "__pycache__" not in p.parts} == before, "something was written there"
        return done

    run.home = home
    return run


def test_the_wheel_holds_what_the_library_reads(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for file in (REPOSITORY / "coseglib").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert file.relative_to(REPOSITORY).as_posix() in held
    shipped = [REPOSITORY / "data" / "reported.csv", *(f for d in TRACKED for f in (REPOSITORY / "data" / d).glob("*"))]
    for file in shipped:
        assert f"coseglib/shipped/{file.relative_to(REPOSITORY / 'data').as_posix()}" in held
    assert not any(name.startswith(("tests/", "coseglib/shipped/cache")) for name in held)


def test_what_is_the_users_own_is_not_in_the_installed_package(installed):
    code = (
        "from coseglib.core import paths as p; print(p.SHIPPED, p.CACHE, p.data_root(), p.REPORTS.resolve(), sep='\\n')"
    )
    shipped, *own = installed("-c", code).stdout.splitlines()
    assert shipped == str(installed.home / "packages" / "coseglib" / "shipped")
    cache = installed.home / "cache" / "coseglib"
    assert own == [str(cache / "cache"), str(cache), str(installed.home / "reports")]


def test_doctor_finds_the_installed_checkpoints(installed):
    done = installed("-m", "coseglib.cli", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for file in (REPOSITORY / "data" / "checkpoints").glob("*.safetensors"):
        assert f"OK   checkpoint {file.stem}: " in done.stdout
    code = "from coseglib.evaluation.self_test import self_test; self_test(print, ('ca-scenes', 'ca-mobilenet_v2'))"
    done = installed("-c", code)
    assert "2 of 2 checkpoints answer as they did where they were shipped" in done.stdout, done.stderr


def test_photographs_are_segmented_by_the_shipped_default(installed):
    (installed.home / "photos").mkdir()
    for i in range(3):
        picture = Image.new("RGB", (96, 80), (40, 90 + 10 * i, 60))
        ImageDraw.Draw(picture).ellipse((20 + 5 * i, 20, 60 + 5 * i, 60), fill=(220, 60, 40))
        picture.save(installed.home / "photos" / f"{i}.png")
    done = installed("-m", "coseglib.cli", "segment", "photos", "-o", "out", "--accelerator", "cpu")
    assert done.returncode == 0, done.stderr
    result = json.loads((installed.home / "out" / "result.json").read_text())
    assert [Image.open(installed.home / "out" / p["mask"]).size for p in result["photos"]] == [(96, 80)] * 3


def test_a_model_is_trained_by_the_smoke_profile(installed):
    quick = ["steps=2", "groups=2", "input_size=64", "cache_side=72", "synthetic_photos=48"]
    options = [part for field in quick for part in ("--set", field)]
    done = installed("-m", "coseglib.cli", "train", "--profile", "smoke", "--accelerator", "cpu", "-o", "run", *options)
    assert done.returncode == 0, done.stderr
    assert (installed.home / "run" / "model.safetensors").is_file()
    assert any((installed.home / "cache" / "coseglib" / "cache").iterdir())
