"""Freed arrays stay with the process while a training runs, and go back to the system after it."""

import ctypes
import platform
import resource

import numpy as np
import pytest

from coseglib.core.errors import CosegError
from coseglib.training import loop, memory
from coseglib.training.configuration import load_profile
from coseglib.training.memory import KEEP, SET_BY_HAND, USUAL, kept_memory
from coseglib.unsupervised.configuration import load_online
from coseglib.unsupervised.learner import co_segment

GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.fixture(autouse=True)
def nothing_set_by_hand(monkeypatch):
    for name in (*SET_BY_HAND, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def _pages_cleared(times: int = 3) -> int:
    """By how many arrays of 64 MB, each freed before the next is made."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.empty(2**26, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _megabytes() -> float:
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.skipif(not GLIBC, reason="another C library than glibc keeps memory in its own way")
def test_what_is_freed_is_used_again_and_then_given_back():
    with kept_memory():
        first, again = _pages_cleared(1), _pages_cleared()
        held = _megabytes()
    left = _megabytes()
    assert again < first / 10 + 100
    assert held - left > 50
    assert _pages_cleared() > 2**26 / resource.getpagesize() / 600  # pages of 2 MB at the most: not all was kept


def _calls(monkeypatch) -> list:
    calls = []
    monkeypatch.setattr(memory, "_mallopt", lambda: lambda *pair: calls.append(pair))
    return calls


def test_a_training_keeps_its_memory_while_it_runs_and_no_longer(monkeypatch, tmp_path):
    calls, steps = _calls(monkeypatch), loop._steps
    monkeypatch.setattr(loop, "_steps", lambda *args: (calls.append("steps"), steps(*args)))
    loop.train(load_profile("smoke", "ca", {"steps": 1}), tmp_path / "run", quiet=True)
    assert calls == [*KEEP.items(), "steps", *USUAL.items()]


def test_it_ends_with_an_error_too_and_what_the_environment_says_stands(monkeypatch):
    calls = _calls(monkeypatch)
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
    assert calls == [*KEEP.items(), *USUAL.items()]
    calls.clear()
    for name, value in (("MALLOC_MMAP_MAX_", "0"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0")):
        monkeypatch.setenv(name, value)
        with kept_memory():
            pass
        monkeypatch.delenv(name)
    assert calls == []
    with kept_memory(), kept_memory():
        pass
    assert calls == [*KEEP.items(), *USUAL.items()]


def test_what_learns_on_a_group_keeps_its_memory_too(monkeypatch):
    calls = _calls(monkeypatch)
    with pytest.raises(CosegError):
        co_segment([], 1, load_online("smoke"))
    assert calls == [*KEEP.items(), *USUAL.items()]


def test_another_c_library_is_left_alone(monkeypatch):
    memory._mallopt.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory():
        pass
    assert memory._mallopt() is None
    memory._mallopt.cache_clear()
