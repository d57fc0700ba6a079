import contextvars
import os
import subprocess
import sys

import pytest

from coseglib.core import paths
from coseglib.core.errors import CosegError


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("COSEG_DATA", "COSEG_WEIGHTS", "COSEG_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("given", "named", "environment"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_a_root_is_the_callers_then_the_command_lines_then_the_environments_then_our_own(folders, monkeypatch):
    assert paths.data_root() == paths.OWN and paths.weights_root() is None
    monkeypatch.setenv("COSEG_DATA", str(folders / "environment"))
    assert paths.data_root() == folders / "environment"

    def named():
        paths.name_root("COSEG_DATA", folders / "named")
        assert paths.data_root() == folders / "named" and paths.data_root(folders / "given") == folders / "given"
        assert paths.named_roots() == {"COSEG_DATA": str(folders / "named")}

    contextvars.copy_context().run(named)
    assert paths.data_root() == folders / "environment"  # what was named was so for that context alone


def test_an_empty_variable_is_as_if_it_were_not_set(folders, monkeypatch):
    monkeypatch.setenv("COSEG_DATA", "")
    monkeypatch.setenv("COSEG_WEIGHTS", "")
    assert paths.data_root() == paths.OWN and paths.weights_root() is None and paths.named_roots() == {}


def test_the_cache_is_where_the_environment_says(folders, monkeypatch):
    asks = [sys.executable, "-c", "from coseglib.core.paths import CACHE; print(CACHE)"]
    for value, where in ((str(folders / "mine"), folders / "mine"), ("", paths.OWN / "cache")):
        env = {**os.environ, "COSEG_CACHE": value}
        assert subprocess.run(asks, env=env, capture_output=True, text=True).stdout == f"{where}\n"
    monkeypatch.chdir(folders)
    monkeypatch.setenv("COSEG_CACHE", "mine")
    assert paths.named_roots() == {"COSEG_CACHE": str(folders / "mine")}


def test_a_folder_that_is_not_there_is_named_and_what_named_it(folders, monkeypatch):
    monkeypatch.setenv("COSEG_WEIGHTS", str(folders / "gone"))
    with pytest.raises(CosegError, match=r"gone: no such folder; .*COSEG_WEIGHTS"):
        paths.weights_root()
    with pytest.raises(CosegError, match=r"gone: no such folder"):
        paths.name_root("COSEG_DATA", folders / "gone")


def test_a_processs_folders_are_absolute(folders, monkeypatch):
    monkeypatch.chdir(folders)
    monkeypatch.setenv("COSEG_DATA", "environment")
    assert paths.named_roots() == {"COSEG_DATA": str(folders / "environment")}
