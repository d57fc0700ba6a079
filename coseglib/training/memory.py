"""What a training step frees stays with the process, for the next step.

A step on a CPU makes and frees hundreds of arrays of 10 to 100 MB. glibc maps each from the system and unmaps it again,
and the system clears every page anew: a third to a half of a step on one core (`benchmarks/training_memory.py`).
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache

from coseglib.core.devices import give_back_memory

# mallopt(3): names by their numbers in malloc.h. A threshold of -1 is never passed.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 2**28}
# glibc's own, and the thresholds that it comes to by itself in a process that has freed large arrays.
USUAL = {MMAP_MAX: 65536, TRIM_THRESHOLD: 2**26, TOP_PAD: 2**17, MMAP_THRESHOLD: 2**25}
SET_BY_HAND = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


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


@contextmanager
def kept_memory() -> Iterator[None]:
    """Nothing that is freed meanwhile goes back to the system; afterwards all of it does.

    Without effect where the C library has no mallopt, and where the environment says how memory is to be kept.
    """
    if any(name in os.environ for name in SET_BY_HAND):
        yield
        return
    _set(KEEP)
    try:
        yield
    finally:
        _set(USUAL)
        give_back_memory()
