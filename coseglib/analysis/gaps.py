"""J against what photographs show: gaps, bins and slopes, with 95 % intervals by the bootstrap.

Photographs of one group are alike, so whole groups are drawn. scipy's own bootstrap has no interval where a single
drawing lacks a part, which happens with few groups: here such a drawing is left out.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from coseglib.analysis.failures import GROUP_KEY

RESAMPLES = 2000


def _drawn(rows: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's group (n,), and groups drawn with replacement (RESAMPLES, groups)."""
    code = rows.groupby(GROUP_KEY, sort=False).ngroup().to_numpy()
    groups = code.max() + 1
    return code, np.random.default_rng(seed).integers(groups, size=(RESAMPLES, groups))


def _means(rows: pd.DataFrame, chosen: np.ndarray, code: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean J of the chosen rows in each drawing of groups (RESAMPLES,); NaN where fewer than two groups have any."""
    groups = draws.shape[1]
    counts = np.bincount(code, chosen, groups)
    if (counts > 0).sum() < 2:
        return np.full(len(draws), np.nan)
    sums, there = np.bincount(code, chosen * rows.J.to_numpy(), groups)[draws].sum(1), counts[draws].sum(1)
    return np.divide(sums, there, out=np.full(len(draws), np.nan), where=there > 0)


def _interval(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    return tuple(np.quantile(known, (0.025, 0.975)).tolist()) if len(known) else (float("nan"),) * 2


class Gap(NamedTuple):
    """Mean J of some rows minus that of others, its 95 % interval, and how many rows these are."""

    difference: float
    low: float
    high: float
    first: int
    second: int


def bootstrap_gap(rows: pd.DataFrame, first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> Gap:
    """How far two parts of the rows differ in J; first, second: (n,) which rows they are.

    A difference that rests on one group has a wide interval; where either part lies in a single group it is NaN.
    Raises ValueError where a part has no rows.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if not first.any() or not second.any():
        raise ValueError(f"{first.sum()} and {second.sum()} rows: nothing to compare")
    code, draws = _drawn(rows, seed)
    found = _means(rows, first, code, draws) - _means(rows, second, code, draws)
    difference = rows.J[first].mean() - rows.J[second].mean()
    return Gap(float(difference), *_interval(found), int(first.sum()), int(second.sum()))


def gap_in_words(first: str, second: str, found: Gap) -> str:
    """A gap in words, with its numbers: "J of A is 0.21 lower than of B (…)", or that none can be told."""
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
    rows, between = f"{found.first} and {found.second} masks", f"Between {first} and {second}"
    if np.isnan(found.low):
        return f"{between} J differs by {found.difference:+.2f}; {rows}, of too few groups to judge it."
    if found.low <= 0 <= found.high:
        return f"{between} no difference of J can be told: {found.difference:+.2f} ({interval}; {rows})."
    way = "lower" if found.difference < 0 else "higher"
    return f"J of {first} is {abs(found.difference):.2f} {way} than of {second} ({interval}; {rows})."


def mean_by_bin(rows: pd.DataFrame, column: str, bins: int = 4, seed: int = 0) -> pd.DataFrame:
    """J by a column: bin (text), masks, groups, J, low and high, the ends of its 95 % interval.

    Numbers are cut into `bins` parts of equally many rows, fewer where many are equal; text and truth values, and
    numbers of as few values as bins, each are a bin. Rows without a value are left out; ValueError where all are.
    """
    rows = rows[rows[column].notna()]
    if rows.empty:
        raise ValueError(f"{column}: no row has a value")
    values = rows[column]
    place, names = pd.factorize(values, sort=True)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and len(names) > bins:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
        place = np.searchsorted(edges[1:-1], values, side="right")
        shown = [np.format_float_positional(e, 2, unique=False, fractional=False, trim="-") for e in edges]
        names = [f"{low} to {high}" for low, high in pairwise(shown)]
    code, draws = _drawn(rows, seed)
    table = []
    for i, name in enumerate(names):
        chosen = place == i
        if chosen.any():
            ends = _interval(_means(rows, chosen, code, draws))
            table.append((str(name), chosen.sum(), len(set(code[chosen])), rows.J[chosen].mean(), *ends))
    return pd.DataFrame(table, columns=["bin", "masks", "groups", "J", "low", "high"])


def gap_of_ends(rows: pd.DataFrame, column: str, share: float = 0.25, seed: int = 0) -> Gap:
    """The gap of J between the rows with the lowest and those with the highest `share` of a column's values."""
    low, high = rows[column].quantile([share, 1 - share])
    return bootstrap_gap(rows, rows[column] <= low, rows[column] >= high, seed)


def fit_together(rows: pd.DataFrame, columns: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """All columns at once, a least-squares fit: column, slope, low, high. Small objects may also be the unseen ones.

    slope  by how much J changes when the column grows by one standard deviation and the others stay
    A column that is the same everywhere is left out, rows with a NaN as well.
    """
    rows = rows.dropna(subset=[*columns, "J"])
    x = rows[list(columns)].to_numpy(float)
    kept = x.std(axis=0) > 1e-12
    x = (x[:, kept] - x[:, kept].mean(axis=0)) / x[:, kept].std(axis=0)
    x, y = np.column_stack([np.ones(len(x)), x]), rows.J.to_numpy()
    code, draws = _drawn(rows, seed)
    groups = draws.shape[1]
    # Normal equations are sums over photographs, so those of a drawing are sums over its groups.
    squares = np.stack([x[code == g].T @ x[code == g] for g in range(groups)])
    products = np.stack([x[code == g].T @ y[code == g] for g in range(groups)])
    fits = [np.linalg.pinv(squares[d].sum(0)) @ products[d].sum(0) for d in (np.arange(groups), *draws)]
    slope, *drawn = np.stack(fits)[:, 1:]
    enough = groups > x.shape[1]
    ends = [_interval(values) if enough else (float("nan"),) * 2 for values in np.stack(drawn).T]
    table = pd.DataFrame({"column": np.array(columns)[kept], "slope": slope})
    return table.join(pd.DataFrame(ends, columns=["low", "high"]))
