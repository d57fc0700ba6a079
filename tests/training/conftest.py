"""What the tests of training share: where caches go, and a run of six steps."""

import pytest
from hand_made import SIX_STEPS

from coseglib.training.configuration import load_profile


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Caches go to a folder that all tests of this session share, not into the repository."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("coseglib.data.cache.training_set.__defaults__", (folder, True))
    return folder


@pytest.fixture
def config():
    return load_profile("smoke", "ca", SIX_STEPS)
