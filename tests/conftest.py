"""What the tests share: small models with random weights, and where the real data are, if anywhere."""

import os
from pathlib import Path

import pytest
import torch

from coseglib.answering import crf
from coseglib.models import build_model
from coseglib.models.checkpoints import save_model


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Where the dense CRF could not be built, what fails for want of it is skipped, by name."""
    if crf.crf_installed():
        return (yield)
    wanted = []
    with pytest.MonkeyPatch.context() as patch:
        missing, says = crf._pydensecrf, crf.crf_installed
        patch.setattr(crf, "_pydensecrf", lambda: wanted.append(True) or missing())
        patch.setattr(crf, "crf_installed", lambda: wanted.append(True) or says())
        try:
            return (yield)
        except Exception as error:
            if wanted or (isinstance(error, ImportError) and "pydensecrf" in str(error.name or error.msg)):
                pytest.skip(f"{item.name}: pydensecrf is not installed ({error})")
            raise


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors: threads only cost, and they would make sums depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny():
    """A function (method, variant="paper") -> a small model with random weights, in evaluation mode."""

    def build(method: str = "ca", variant: str = "paper", input_size: int = 64, **options):
        torch.manual_seed(0)
        model = build_model(method, "mobilenet_v2", variant, input_size, None, origin="tf-slim", options=options)
        model.precision = "32-true"  # on every processor
        return model.eval()

    return build


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
def checkpoint(tiny, tmp_path):
    """A file with a small untrained CA."""
    file = tmp_path / "model.safetensors"
    save_model(file, tiny("ca"), {"method": "ca", "backbone": "mobilenet_v2"})
    return file


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data sets; the test is skipped where COSEG_DATA does not name one."""
    folder = os.environ.get("COSEG_DATA")
    if not folder or not (Path(folder) / "iCoseg").is_dir():
        pytest.skip("COSEG_DATA names no folder with the real data sets")
    return Path(folder)


@pytest.fixture
def real_weights() -> Path:
    """The folder of ImageNet weights; the test is skipped where COSEG_WEIGHTS does not name one."""
    folder = os.environ.get("COSEG_WEIGHTS")
    if not folder or not (Path(folder) / "reference.json").is_file():
        pytest.skip("COSEG_WEIGHTS names no folder with weights and their reference.json")
    return Path(folder)


@pytest.fixture
def made_run(tiny):
    """A function (folder, rows, method="ca", **fields) -> a run's folder as `train` leaves it, its log made by hand."""
    from hand_made import run_folder  # not at the top: training takes seconds to import

    return lambda folder, rows, method="ca", **fields: run_folder(tiny(method), folder, rows, method, **fields)
