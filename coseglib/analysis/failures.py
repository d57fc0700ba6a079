"""What goes wrong: every mask of every system scored and sorted into a kind of failure, and tables of the kinds.

rows, masks = failure_table({"CA": load_model("ca-mobilenet_v2")}, load("icoseg8"))
by_kind(rows)      mean_by_bin(rows, "area")      sweep_thresholds(rows)      disagreement(rows)
"""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coseglib.analysis.kinds import FAILURE_KINDS, THRESHOLD_GRID, Thresholds, failure_kind, mask_measures
from coseglib.analysis.photographs import Truth, describe_photograph
from coseglib.analysis.seen import seen_in_training
from coseglib.answering.masks import segment_group
from coseglib.core.errors import CosegError
from coseglib.data.record import Group
from coseglib.scoring.metrics import jaccard
from coseglib.scoring.rows import check_one_class

GROUP_KEY = ["dataset", "group"]  # photographs of one group are alike: intervals draw groups, not photographs
PHOTO_KEY = [*GROUP_KEY, "name"]


class PackedMasks:
    """Masks by key (system, dataset, group, name), packed to a few kilobytes each."""

    def __init__(self):
        self._packed: dict[tuple[str, ...], tuple[tuple[int, int], bytes]] = {}

    def __setitem__(self, key: tuple[str, ...], mask: Tensor) -> None:
        self._packed[key] = tuple(mask.shape), zlib.compress(np.packbits(np.asarray(mask) != 0))

    def __getitem__(self, key: tuple[str, ...]) -> Tensor:
        """uint8 (H, W), 0 and 1."""
        (h, w), packed = self._packed[key]
        bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=h * w)
        return torch.from_numpy(bits.reshape(h, w))

    def __len__(self) -> int:
        return len(self._packed)


def failure_table(
    models: Mapping[str, torch.nn.Module],
    groups: Sequence[Group],
    trained_on: Mapping[str, Collection[str]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[pd.DataFrame, PackedMasks]:
    """Every photograph by every system: a row each, and the masks that it speaks of.

    models      by the name that their rows get; each is asked as protocol `common` asks: by the whole group, own size
    trained_on  for each name the classes whose masks it learned from; a name that is not there has seen none
    progress    called with (group's name, done, total)
    Columns dataset, group, name, system, backbone ("" without one), seen; those of `describe_photograph`; agreement,
    the mean J of the photograph's masks two by two (NaN of one system); those of `mask_measures`; kind, by the default
    `Thresholds`.
    Raises CosegError for no groups, photographs without masks, and multi-class models.
    """
    if not models or not sum(map(len, groups)):
        raise CosegError("no photographs or no systems: there is nothing to score")
    for model in models.values():
        check_one_class(model)
    trained_on, rows, kept = trained_on or {}, [], PackedMasks()
    for number, group in enumerate(groups, start=1):
        answered = {name: list(segment_group(model, group.photos)) for name, model in models.items()}
        for i, photo in enumerate(group.photos):
            truth, masks = Truth(group.mask(i)), {name: some[i] for name, some in answered.items()}
            pairs = [jaccard(a, b) for a, b in combinations(masks.values(), 2)]
            shown = describe_photograph(photo.image(), truth) | {
                "agreement": float(np.mean(pairs)) if pairs else float("nan")
            }
            for name, mask in masks.items():
                about = {
                    **dict(zip(PHOTO_KEY, (group.dataset, group.name, photo.name), strict=True)),
                    "system": name,
                    "backbone": models[name].card.get("backbone", ""),
                    "seen": seen_in_training(group, trained_on.get(name, ())),
                }
                found = mask_measures(mask, truth)
                rows.append({**about, **shown, **found, "kind": failure_kind(found)})
                kept[name, group.dataset, group.name, photo.name] = mask
        if progress:
            progress(group.name, number, len(groups))
    return pd.DataFrame(rows), kept


def by_kind(rows: pd.DataFrame, kinds: Sequence[str] = FAILURE_KINDS) -> pd.DataFrame:
    """A row a kind, the index: photographs, their share, mean J, and which share of all J that is lost, Σ(1 − J)."""
    table = (
        rows.assign(lost=1 - rows.J)
        .groupby("kind")
        .agg(photographs=("J", "size"), J=("J", "mean"), lost=("lost", "sum"))
    )
    table = table.reindex(kinds).fillna({"photographs": 0, "lost": 0}).astype({"photographs": int})
    table.insert(1, "share", table.photographs / len(rows))
    table["lost"] /= max(table.lost.sum(), 1e-12)
    return table.rename(columns={"lost": "share of lost J"})


def kind_shares(rows: pd.DataFrame, by: str = "system", kinds: Sequence[str] = FAILURE_KINDS) -> pd.DataFrame:
    """Which share of its rows each kind has: a row a value of `by`, in order of appearance, a column a kind."""
    table = pd.crosstab(rows[by], rows.kind, normalize="index").reindex(columns=kinds, fill_value=0.0)
    return table.loc[list(dict.fromkeys(rows[by]))]


def sweep_thresholds(
    rows: pd.DataFrame,
    grid: Mapping[str, Sequence[float]] = THRESHOLD_GRID,
    start=Thresholds(),
    of: Callable[[Mapping, object], str] = failure_kind,
    kinds: Sequence[str] = FAILURE_KINDS,
) -> pd.DataFrame:
    """The kinds' shares with one threshold at a time moved away from `start`: columns threshold, value and the kinds.

    rows  of `failure_table`, whose measures are sorted anew; or of `class_table`, with of=class_kind, kinds=CLASS_KINDS
    """
    measured, table = rows.to_dict("records"), []
    for name, values in grid.items():
        for value in values:
            found = pd.Series([of(row, replace(start, **{name: value})) for row in measured])
            counts = found.value_counts(normalize=True).reindex(kinds, fill_value=0.0)
            table.append({"threshold": name, "value": value, **counts})
    return pd.DataFrame(table)


def disagreement(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a photograph, the most disagreed on first: dataset, group, name, J (mean over the systems), spread (highest
    J minus lowest), agreement (see `failure_table`), best and worst (systems)."""
    table = []
    for key, some in rows.groupby(PHOTO_KEY, sort=False):
        table.append(
            {
                **dict(zip(PHOTO_KEY, key, strict=True)),
                "J": some.J.mean(),
                "spread": some.J.max() - some.J.min(),
                "agreement": some.agreement.iloc[0],
                "best": some.system[some.J.idxmax()],
                "worst": some.system[some.J.idxmin()],
            }
        )
    return pd.DataFrame(table).sort_values("spread", ascending=False, kind="stable", ignore_index=True)
