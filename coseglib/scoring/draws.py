"""Random choices that depend on what is chosen for alone, not on what else is chosen or in which order."""

import hashlib

import numpy as np


def generator_of(*key: object) -> np.random.Generator:
    """A generator that the key's text seeds: the same in every run, on every machine, for every order of asking."""
    digest = hashlib.sha256("\n".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
