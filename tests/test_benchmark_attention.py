import subprocess
import sys

import pytest
import torch

from coseglib.core.paths import REPOSITORY
from coseglib.layers.mutual_attention import matched


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


def test_the_plain_way_that_memory_is_compared_with_gives_the_same_numbers():
    from multiclass_attention import plain_matched

    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 10, 4), torch.randn(2, 3, 10, 4)
    torch.testing.assert_close(plain_matched(query, key), matched(query, key, 50))


def test_overheads_are_medians_of_paired_ratios():
    from multiclass_attention import overheads

    found = {"w/o ATT": [1.0, 2.0, 4.0], "SA": [1.1, 2.4, 40.0]}
    assert overheads(found) == pytest.approx({"w/o ATT": 0, "SA": 20})


def test_all_four_ablations_are_timed():
    from multiclass_attention import times

    found = times("mobilenet_v2", 64, 2, 2, rounds=1)
    assert set(found) == {"w/o ATT", "SA", "MA", "SA+MA"}
    assert all(len(some) == 1 and some[0] > 0 for some in found.values())


def test_a_process_of_its_own_measures_time_and_memory_each_way():
    script = REPOSITORY / "benchmarks" / "multiclass_attention.py"
    for way in ("plain", "blocked"):
        command = [sys.executable, str(script), "--batch", "2", "--measure", way, "8"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert '"seconds"' in done.stdout and '"memory"' in done.stdout
