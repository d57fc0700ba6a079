"""What a training step frees stays with the process, for the next step.

A step on a CPU makes and frees hundreds of arrays of 10 to 100 MB. glibc maps each from the system and unmaps it again,
and the system clears every page anew: a third to a half of a step on one core (`benchmarks/training_memory.py`). Kept,
it is a sixth more memory: 3.7 GB in place of 3.2 for 30 images of 192² (PFCC).
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from threading import Lock

from coseglib.core.devices import give_back_memory

# mallopt(3): names by their numbers in malloc.h. A threshold of -1 is never passed.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 2**28}
# glibc's own, and the thresholds that it comes to by itself in a process that has freed large arrays.
USUAL = {MMAP_MAX: 65536, TRIM_THRESHOLD: 2**26, TOP_PAD: 2**17, MMAP_THRESHOLD: 2**25}
SET_BY_HAND = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")

_users, _lock = 0, Lock()


@cache
def _mallopt():
    """glibc's, or None: other C libraries have none."""
    with suppress(OSError, AttributeError, TypeError):
        return ctypes.CDLL(None).mallopt
    return None


def _set(values: Mapping[int, int]) -> None:
    if mallopt := _mallopt():
        for name, value in values.items():
            mallopt(name, value)


def _count(more: int) -> int:
    """Blocks that are open now, in whatever threads."""
    global _users
    with _lock:
        _users += more
        return _users


@contextmanager
def kept_memory() -> Iterator[None]:
    """What is freed meanwhile stays with the process; after the last such block it goes back to the system.

    Without effect where the C library has no mallopt, and where the environment says how memory is to be kept.
    """
    by_hand = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in SET_BY_HAND)
    if by_hand:
        yield
        return
    if _count(+1) == 1:
        _set(KEEP)
    try:
        yield
    finally:
        if _count(-1) == 0:
            _set(USUAL)
            give_back_memory()
