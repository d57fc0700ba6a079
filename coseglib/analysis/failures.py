"""What goes wrong: every mask of every system scored and sorted into a kind of failure, and tables of the kinds.

The first rule that holds decides, so every mask has exactly one kind; `Thresholds` has the numbers.

| kind               | rule                                                                                           |
|--------------------|------------------------------------------------------------------------------------------------|
| good               | J is `good` or more                                                                            |
| wrong object       | less than `half` of what is marked is object, and less than `half` of the object is marked,    |
|                    | while something is marked: `missed` of the object's area or more                               |
| missed object      | of some object of the truth less than `missed` is marked                                       |
| boundary-only      | nine tenths of the wrong pixels lie within `outline` of the true outline                       |
| fragmented         | of some object a second piece of the mask holds `piece` or more                                |
| over-segmentation  | more pixels are marked wrongly than are missing                                                |
| under-segmentation | all others                                                                                     |

Lengths are in sides of the object, √(its pixels), so that neither the photograph's size nor the object's matters. The
multi-class system's kinds are those of `class_kind`.
"""

from collections import UserDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from pycocotools import mask as run_lengths
from torch import Tensor

from coseglib.analysis.photographs import Truth, connected_parts, cut_by_border, describe_photograph, mean_colour
from coseglib.analysis.seen import seen_in_training
from coseglib.answering.masks import segment_group
from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, Group
from coseglib.scoring.metrics import jaccard
from coseglib.scoring.rows import check_one_class
from coseglib.unsupervised.scores import assignment, confusion

GROUP_KEY = ["dataset", "group"]  # photographs of one group are alike: intervals draw groups, not photographs
PHOTO_KEY = [*GROUP_KEY, "name"]
FAILURE_KINDS = (
    "good", "boundary-only", "over-segmentation", "under-segmentation", "fragmented", "missed object", "wrong object",
)  # fmt: skip
NEARLY_ALL = 0.9  # of the wrong pixels lie within `reach`


@dataclass(frozen=True)
class Thresholds:
    """The numbers in the rules of the module's head. All are choices; `sweep_thresholds` shows what hangs on them."""

    good: float = 0.8  # J
    half: float = 0.5  # share, of both the mask and the object
    missed: float = 0.1  # share of an object
    outline: float = 0.1  # distance in sides of the object
    piece: float = 0.1  # share of an object


THRESHOLD_GRID = {
    "good": (0.6, 0.7, 0.75, 0.8, 0.85, 0.9),
    "half": (0.3, 0.4, 0.5, 0.6, 0.7),
    "missed": (0.02, 0.05, 0.1, 0.2, 0.3),
    "outline": (0.05, 0.075, 0.1, 0.15, 0.2),
    "piece": (0.02, 0.05, 0.1, 0.2, 0.3),
}


def mask_measures(pred: Tensor, truth: Truth) -> dict[str, float]:
    """What the rules ask of a mask; pred (H, W), not 0 where foreground.

    J          intersection over union; two empty masks: 1
    recall     share of the objects that is marked; precision: share of the marked pixels that is object; 0 of nothing
    size       marked pixels over the objects' pixels; inf where there are no objects
    least      recall of the object that is found worst; 1 where there is none
    reach      `NEARLY_ALL` of the wrong pixels lie so near the outline, in sides of the object; 0 where none is wrong
    second     what the second largest piece of the mask holds of an object, as its share; of the worst such object
    excess     pixels marked wrongly, lack: pixels missing; both over the photograph's counted pixels
    Raises ValueError for two sizes.
    """
    score = jaccard(torch.as_tensor(pred), truth.mask)
    marked = (np.asarray(pred) != 0) & truth.counted
    right, wrong = marked & truth.inside, marked ^ truth.inside
    hits, size, counted = int(right.sum()), int(marked.sum()), max(1, int(truth.counted.sum()))
    pieces, count = connected_parts(marked)
    number = int(truth.objects.max())
    # Pixels of each object (a row) in each piece of the mask (a column); the first row and column are neither.
    place = truth.objects[truth.inside] * (count + 1) + pieces[truth.inside]
    held = np.bincount(place, minlength=(number + 1) * (count + 1)).reshape(number + 1, count + 1)[1:]
    shares = np.sort(held[:, 1:] / np.maximum(1, held.sum(axis=1, keepdims=True)), axis=1)
    reach = float(np.quantile(truth.away[wrong], NEARLY_ALL, method="higher")) if wrong.any() else 0.0
    return {
        "J": score,
        "recall": hits / max(1, truth.pixels),
        "precision": hits / max(1, size),
        "size": size / truth.pixels if truth.pixels else float("inf"),
        "least": float(shares.sum(axis=1).min()) if number else 1.0,
        "reach": reach / max(1.0, truth.side),
        "second": float(shares[:, -2].max()) if number and count > 1 else 0.0,
        "excess": (size - hits) / counted,
        "lack": (truth.pixels - hits) / counted,
    }


def failure_kind(of: Mapping[str, float], by: Thresholds = Thresholds()) -> str:
    """One of `FAILURE_KINDS`, by the rules of the module's head. of: `mask_measures`, or a row of `failure_table`."""
    if of["J"] >= by.good:
        return "good"
    if of["recall"] < by.half and of["precision"] < by.half and of["size"] >= by.missed:
        return "wrong object"
    if of["least"] < by.missed:
        return "missed object"
    if of["reach"] <= by.outline:
        return "boundary-only"
    if of["second"] >= by.piece:
        return "fragmented"
    return "over-segmentation" if of["excess"] > of["lack"] else "under-segmentation"


class PackedMasks(UserDict):
    """Masks, uint8 (H, W), 0 and 1, by key (system, dataset, group, name), packed to a few kilobytes each."""

    def __setitem__(self, key: tuple[str, ...], mask: Tensor) -> None:
        self.data[key] = run_lengths.encode(np.asfortranarray(np.asarray(mask) != 0, np.uint8))

    def __getitem__(self, key: tuple[str, ...]) -> Tensor:
        return torch.from_numpy(run_lengths.decode(self.data[key])).contiguous()


def failure_table(
    models: Mapping[str, torch.nn.Module],
    groups: Sequence[Group],
    trained_on: Mapping[str, Collection[str]] | None = None,
    limit: Mapping[str, int] | None = None,
) -> tuple[pd.DataFrame, PackedMasks]:
    """Every photograph by every system: a row each, and the masks that it speaks of.

    models      by the name that their rows get, asked as in protocol `common`: by the whole group, at own size
    trained_on  {name: the classes whose masks it learned from}
    limit       {data set: only the first so many photographs of its groups}, asked with the whole group
    Columns dataset, group, name, system, backbone ("" without one), seen; those of `describe_photograph`; agreement,
    the mean J of the photograph's masks two by two (NaN of one system); those of `mask_measures`; kind, by the default
    `Thresholds`.
    Raises CosegError for no groups, photographs without masks, and multi-class models.
    """
    if not models or not sum(map(len, groups)):
        raise CosegError("no photographs or no systems: there is nothing to score")
    for model in models.values():
        check_one_class(model)
    rows, kept = [], PackedMasks()
    for group in groups:
        most = (limit or {}).get(group.dataset)
        answered = {name: list(segment_group(model, group.photos, limit=most)) for name, model in models.items()}
        seen = {name: seen_in_training(group, (trained_on or {}).get(name, ())) for name in models}
        for i, photo in enumerate(group.photos[:most]):
            truth, masks = Truth(group.mask(i)), {name: some[i] for name, some in answered.items()}
            pairs = [jaccard(a, b) for a, b in combinations(masks.values(), 2)]
            about = {"dataset": group.dataset, "group": group.name, "name": photo.name}
            shown = describe_photograph(photo.image(), truth)
            shown["agreement"] = float(np.mean(pairs)) if pairs else float("nan")
            for name, mask in masks.items():
                found = mask_measures(mask, truth)
                system = {"system": name, "backbone": models[name].card.get("backbone", ""), "seen": seen[name]}
                rows.append({**about, **system, **shown, **found, "kind": failure_kind(found)})
                kept[name, *about.values()] = mask
    return pd.DataFrame(rows), kept


def by_kind(rows: pd.DataFrame, kinds: Sequence[str] = FAILURE_KINDS) -> pd.DataFrame:
    """A row a kind, the index: photographs, their share, mean J, and which share of all J that is lost, Σ(1 − J)."""
    by = rows.assign(lost=1 - rows.J).groupby("kind")
    table = by.agg(photographs=("J", "size"), J=("J", "mean"), lost=("lost", "sum"))
    table = table.reindex(kinds).fillna({"photographs": 0, "lost": 0}).astype({"photographs": int})
    table.insert(1, "share", table.photographs / len(rows))
    table["lost"] /= max(table.lost.sum(), 1e-12)
    return table.rename(columns={"lost": "share of lost J"})


def kind_shares(rows: pd.DataFrame, kinds: Sequence[str] = FAILURE_KINDS) -> pd.DataFrame:
    """Which share of its rows each kind has: a row a system, in order of appearance, a column a kind."""
    table = pd.crosstab(rows.system, rows.kind, normalize="index").reindex(columns=kinds, fill_value=0.0)
    return table.loc[list(dict.fromkeys(rows.system))]


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
    photos = rows.groupby(PHOTO_KEY, sort=False)
    table = photos.agg(J=("J", "mean"), spread=("J", np.ptp), agreement=("agreement", "first"))
    for end, place in (("best", photos.J.idxmax()), ("worst", photos.J.idxmin())):
        table[end] = rows.system[place].to_numpy()
    return table.reset_index().sort_values("spread", ascending=False, kind="stable", ignore_index=True)


# Of several classes: each class of a photograph is measured and sorted by the thesis's three cases, section 4.6.
CLASS_KINDS = ("good", "overextended", "confused", "incomplete", "lost")


@dataclass(frozen=True)
class ClassThresholds:
    good: float = 0.5  # J of a class in a photograph from which it is no failure
    cut: float = 0.5  # of incomplete objects, in their sides


CLASS_GRID = {"good": (0.3, 0.4, 0.5, 0.6, 0.7), "cut": (0.1, 0.25, 0.5, 1.0, 1.5)}


def class_measures(pred: Tensor, truth: Tensor, label: int) -> dict[str, float]:
    """How one class of a photograph was found. pred, truth uint8 (H, W): 0 background, 1 …; 255 void in the truth.

    J           of the class against all else; NaN where neither map holds it
    background  share of the class's wrong pixels that are background marked as the class
    others      … that are taken from another class, or given to one
    lost        … that are the class's, marked as background. The three sum to 1, to 0 where nothing is wrong
    area, cut   as in `describe_photograph`
    """
    pred, truth = np.asarray(pred), np.asarray(truth)
    counted = truth != VOID
    own, marked = truth == label, (pred == label) & counted
    union = int((own | marked).sum())
    wrong = {
        "background": int((marked & (truth == 0)).sum()),
        "others": int((marked & ~own & (truth != 0)).sum() + (own & ~marked & (pred != 0)).sum()),
        "lost": int((own & (pred == 0)).sum()),
    }
    total = max(1, sum(wrong.values()))
    return {
        "J": int((own & marked).sum()) / union if union else float("nan"),
        **{name: count / total for name, count in wrong.items()},
        "area": int(own.sum()) / max(1, int(counted.sum())),
        "cut": cut_by_border(own, counted),
    }


def class_kind(of: Mapping[str, float], by: ClassThresholds = ClassThresholds()) -> str:
    """One of `CLASS_KINDS`: the thesis's three failures as rules, ours, since it shows one picture each.

    good          J is `good` or more
    overextended  most wrong pixels are background: its case (a), small objects in clutter
    confused      most are taken from another class or given to one: (b), two classes of one colour
    incomplete    most are the class's own, marked as background, and the photograph's border cuts through the object:
                  (c), a car half in the picture
    lost          the same, and the object is whole. The thesis has no such case
    Of equal shares the first counts.
    """
    if of["J"] >= by.good:
        return "good"
    first = max(("background", "others", "lost"), key=lambda name: of[name])
    if first == "lost":
        return "incomplete" if of["cut"] >= by.cut else "lost"
    return {"background": "overextended", "others": "confused"}[first]


def name_clusters(group: Group, labels: Sequence[Tensor], clusters: int, background: int | None = 0) -> list[Tensor]:
    """Label maps whose labels are the group's classes, uint8 (H, W), 0 background.

    labels, clusters, background  as `unsupervised.scores.score_group` has them: each group names its clusters
    """
    truths = (group.mask(i) for i in range(len(group)))
    counts = sum(confusion(p, t, clusters, len(group.targets)) for p, t in zip(labels, truths, strict=True))
    lookup = torch.from_numpy(assignment(counts, background)).to(torch.uint8)
    return [lookup[clustered.long()] for clustered in labels]


def class_table(group: Group, maps: Sequence[Tensor]) -> pd.DataFrame:
    """A row a photograph and class: dataset, group, name, class, those of `class_measures`, alike, kind.

    maps   label maps of `name_clusters`; classes that neither a photograph nor its map holds have no row
    alike  distance of the class's mean colour to the nearest other class's in the photograph, in CIELAB; NaN alone
    """
    classes = range(1, len(group.targets) + 1)
    rows = []
    for i, (photo, pred) in enumerate(zip(group.photos, maps, strict=True)):
        truth, image = group.mask(i), photo.image()
        colours = {k: mean_colour(image, np.asarray(truth) == k) for k in classes}
        for k in classes:
            found = class_measures(pred, truth, k)
            if np.isnan(found["J"]):
                continue
            others = [d for j in classes if j != k and (d := np.linalg.norm(colours[k] - colours[j])) == d]
            about = {"dataset": group.dataset, "group": group.name, "name": photo.name, "class": group.targets[k - 1]}
            alike = float(min(others)) if others else float("nan")
            rows.append({**about, **found, "alike": alike, "kind": class_kind(found)})
    return pd.DataFrame(rows)
