"""What the tests of this room share."""

import pytest
import torch

from coseglib.data.synthetic import load_synthetic


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def groups():
    return load_synthetic(groups=("star", "ring"), photos=8, size=32)
