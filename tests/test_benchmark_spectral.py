import pytest
import torch

from coseglib.core.paths import REPOSITORY


@pytest.fixture
def spectral(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # the module sets them: put back afterwards
    import spectral_mask

    return spectral_mask


def test_all_ways_find_one_mask_and_are_measured(spectral):
    x = spectral.columns(2, 6, 16)
    assert x.shape == (1, 16, 72)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(1, 72))
    found = spectral.measure(x, list(spectral.WAYS), 1)
    assert found[spectral.LOW_RANK]["cosine"] > 0.9999 and found[spectral.BOTH]["cosine"] > 0.9999
    assert found[spectral.ADAM]["cosine"] > 0.9
    assert all(one["seconds"] > 0 and one["peak"] > 0 for one in found.values())
