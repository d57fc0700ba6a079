from pathlib import Path

import pytest
from tiny_sets import all_sets

from coseglib.core import paths


@pytest.fixture
def sets(tmp_path, monkeypatch) -> Path:
    """Small iCoseg, PASCAL, MSRC and VOC in a folder of their own (`tiny_sets.all_sets`), with a cache of their own."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return all_sets(tmp_path / "sets")
