"""What the tests of this room share."""

import pytest
import torch

from coseglib.data.synthetic import load_synthetic


@pytest.fixture
def awake(tiny):
    """A function (method, …) -> a small random model whose batch normalisation has seen images: features differ."""

    def build(method, variant="paper", input_size=64, **options):
        model = tiny(method, variant, input_size, **options)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            model.train()(torch.rand(2, 2, 3, 64, 64))
        return model.eval()

    return build


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def groups():
    return load_synthetic(groups=("star", "ring"), photos=8, size=32)
