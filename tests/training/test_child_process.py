"""A process of its own: its result, its memory, its errors, its end."""

import os
import time

import pytest

from coseglib.core.errors import CosegError
from coseglib.training import runs
from coseglib.training.configuration import load_profile
from coseglib.training.runs import in_a_process


def test_a_process_of_its_own_gives_the_result_and_the_memory_that_it_took():
    size = 200_000_000
    found, large = in_a_process(len, bytes(size))
    assert found == size and large["of"] == "process"
    _, small = in_a_process(len, b"1")
    assert large["peak"] - small["peak"] > 0.9 * size
    assert small["peak"] < small["before"] + 0.1 * size  # the process before left nothing behind


def test_errors_in_the_process_are_ours_and_its_death_is_named():
    with pytest.raises(CosegError, match="no such profile"):
        in_a_process(load_profile, "none", "ca")
    with pytest.raises(CosegError, match="ended with 3"):
        in_a_process(os._exit, 3)


def test_what_waits_for_the_process_looks_on(monkeypatch):
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.05)
    looks = []
    in_a_process(time.sleep, 0.6, while_it_runs=lambda: looks.append(1))
    assert len(looks) >= 3


def test_an_interruption_ends_the_process(monkeypatch):
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.05)

    def interrupted():
        raise KeyboardInterrupt

    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        in_a_process(time.sleep, 60, while_it_runs=interrupted)
    assert time.perf_counter() - started < 30
