import pytest

from coseglib.core.paths import REPOSITORY


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


def test_overheads_are_medians_of_paired_ratios():
    from multiclass_attention import overheads

    found = {"w/o ATT": [1.0, 2.0, 4.0], "SA": [1.1, 2.4, 40.0]}
    assert overheads(found) == pytest.approx({"w/o ATT": 0, "SA": 20})


def test_all_four_ablations_are_timed():
    from multiclass_attention import times

    found = times("mobilenet_v2", 64, 2, 2, rounds=1)
    assert set(found) == {"w/o ATT", "SA", "MA", "SA+MA"}
    assert all(len(some) == 1 and some[0] > 0 for some in found.values())
