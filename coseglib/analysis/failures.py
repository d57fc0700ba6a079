"""What goes wrong: every mask scored and sorted into a kind of failure, and J against what the photograph shows.

    rows, masks = failure_table({"CA": load_model("ca-mobilenet_v2")}, load("icoseg8"))
    by_kind(rows)      binned(rows, "area")      sweep(rows, GRID)      disagreement(rows)

The kinds of a mask. The first rule that holds decides, so every mask has exactly one; `Thresholds` has the numbers.

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

Lengths are in sides of the object, √(its pixels), so that neither the photograph's size nor the object's matters. An
object is a connected part of the truth (diagonals connect), specks left out (`OBJECT`). Void pixels, 255 in a truth,
are neither marked nor object nor background.

The multi-class system's kinds are those of its thesis, section 4.6: see `class_kind`.
"""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor

from coseglib.analysis.maps import seen
from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, Group
from coseglib.scoring.evaluation import answers, own_masks
from coseglib.scoring.metrics import jaccard
from coseglib.unsupervised.scores import assignment, confusion

KINDS = (
    "good",
    "boundary-only",
    "over-segmentation",
    "under-segmentation",
    "fragmented",
    "missed object",
    "wrong object",
)
CLASS_KINDS = ("good", "overextended", "confused", "incomplete", "lost")
OBJECT = 0.1  # parts of a truth below this share of its largest part's area are specks
MOST = 0.9  # of the wrong pixels lie within `reach`
FRAME = 0.03  # of a photograph's shorter side: VOC and MSRC have void along the border, which hides what is cut there
RING = 0.25  # width of the surroundings that contrast is measured against, in sides of the object
RESAMPLES = 2000  # of the bootstrap; intervals are 95 %
PLACE = ["dataset", "group"]  # photographs of one group are alike: intervals draw groups, not photographs
PHOTO = [*PLACE, "name"]


@dataclass(frozen=True)
class Thresholds:
    """The numbers in the rules of the module's head. All are choices; `sweep` shows what hangs on them.

    good     J from which a mask is no failure              half   share, of both the mask and the object
    missed   share of an object, below which it is missed   piece  share of an object
    outline  distance in sides of the object
    """

    good: float = 0.8
    half: float = 0.5
    missed: float = 0.1
    outline: float = 0.1
    piece: float = 0.1


GRID = {
    "good": (0.6, 0.7, 0.75, 0.8, 0.85, 0.9),
    "half": (0.3, 0.4, 0.5, 0.6, 0.7),
    "missed": (0.02, 0.05, 0.1, 0.2, 0.3),
    "outline": (0.05, 0.075, 0.1, 0.15, 0.2),
    "piece": (0.02, 0.05, 0.1, 0.2, 0.3),
}


# A photograph and its truth -------------------------------------------------------------------------------------------


class Truth:
    """A photograph's mask, looked at once for all systems.

    inside   bool (H, W), the objects                    counted  bool (H, W), not void
    objects  int (H, W): 1 … of the connected parts that are no specks, 0 elsewhere
    side     √(pixels of the objects), the unit of lengths
    away     float (H, W): distance of the pixels' centres to the outline, in pixels. Void is on neither side of it: the
             outline is somewhere in there. inf where there is none
    """

    def __init__(self, mask: Tensor):
        self.mask = mask
        labels = np.asarray(mask)
        self.counted = labels != VOID
        self.inside = self.counted & (labels != 0)
        self.pixels = int(self.inside.sum())
        self.side = float(np.sqrt(self.pixels))

    @cached_property
    def objects(self) -> np.ndarray:
        parts, count = _connected(self.inside)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept = sizes >= max(1, OBJECT * sizes.max())
        return (np.cumsum(kept) * kept)[parts]

    @cached_property
    def away(self) -> np.ndarray:
        return np.where(self.inside, _depth(self.inside), _depth(self.counted & ~self.inside)) - 0.5


def _connected(mask: np.ndarray) -> tuple[np.ndarray, int]:
    return ndimage.label(mask, structure=np.ones((3, 3)))


def _depth(region: np.ndarray) -> np.ndarray:
    """Distance of each of the region's pixels to the nearest one that is not in it; inf where that is none."""
    return np.full(region.shape, np.inf) if region.all() else ndimage.distance_transform_edt(region)


def cielab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 255 (3, …) -> CIELAB (3, …), D65: L* in 0 … 100; a distance of 2.3 can just be seen."""
    share = np.asarray(rgb, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = np.tensordot(to_xyz / to_xyz.sum(axis=1, keepdims=True), linear, axes=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _colour(image: Tensor, where: np.ndarray) -> np.ndarray:
    """Mean CIELAB (3,) of some pixels; NaN where there are none."""
    chosen = np.asarray(image)[:, where]
    return cielab(chosen).mean(axis=1) if chosen.size else np.full(3, np.nan)


def _cut(inside: np.ndarray, counted: np.ndarray) -> float:
    """How far the photograph's border cuts through an object: its pixels there, over its side. 0 for nothing.

    A void pixel on the border is what the nearest counted one is, up to `FRAME` away.
    """
    border = np.ones(inside.shape, bool)
    border[1:-1, 1:-1] = False
    there = inside
    if counted.any() and not counted.all():
        away, (row, column) = ndimage.distance_transform_edt(~counted, return_indices=True)
        there = inside[row, column] & (away <= FRAME * min(inside.shape))
    return float((there & border).sum() / np.sqrt(max(1, inside.sum())))


def describe(image: Tensor, truth: Truth) -> dict[str, float]:
    """What a photograph asks of a system; image uint8 (3, H, W).

    area      the objects' share of the counted pixels, 0 … 1
    objects   how many
    contrast  distance of the mean colours of the objects and of the ring around them (`RING`), in CIELAB
    position  distance of the objects' centre of mass from the photograph's, 0 in the middle, 1 in a corner
    cut       pixels of the objects on the photograph's border, in sides of the object; 0: nothing is cut off
    NaN for what a photograph without objects, or without surroundings, does not have.
    """
    found = {
        "area": truth.pixels / max(1, int(truth.counted.sum())),
        "objects": int(truth.objects.max()),
        "contrast": float("nan"),
        "position": float("nan"),
        "cut": _cut(truth.inside, truth.counted),
    }
    if truth.pixels:
        ring = truth.counted & ~truth.inside & (ndimage.distance_transform_edt(~truth.inside) <= 1 + RING * truth.side)
        found["contrast"] = float(np.linalg.norm(_colour(image, truth.inside) - _colour(image, ring)))
        h, w = truth.inside.shape
        centre = (np.argwhere(truth.inside) + 0.5).mean(axis=0)
        found["position"] = float(np.hypot(*(centre - (h / 2, w / 2))) / np.hypot(h / 2, w / 2))
    return found


# A mask ---------------------------------------------------------------------------------------------------------------


def measures(pred: Tensor, truth: Truth) -> dict[str, float]:
    """What the rules ask of a mask; pred (H, W), not 0 where foreground.

    J          intersection over union; two empty masks: 1
    recall     share of the objects that is marked; precision: share of the marked pixels that is object; 0 of nothing
    size       marked pixels over the objects' pixels; inf where there are no objects
    least      recall of the object that is found worst; 1 where there is none
    reach      `MOST` of the wrong pixels lie so near the outline, in sides of the object; 0 where none is wrong
    second     what the second largest piece of the mask holds of an object, as its share; of the worst such object
    excess     pixels marked wrongly, lack: pixels missing; both over the photograph's counted pixels
    Raises ValueError for two sizes.
    """
    score = jaccard(torch.as_tensor(pred), truth.mask)
    marked = (np.asarray(pred) != 0) & truth.counted
    right, wrong = marked & truth.inside, marked ^ truth.inside
    hits, size, counted = int(right.sum()), int(marked.sum()), max(1, int(truth.counted.sum()))
    pieces, count = _connected(marked)
    number = int(truth.objects.max())
    # Pixels of each object (a row) in each piece of the mask (a column); the first row and column are neither.
    place = truth.objects[truth.inside] * (count + 1) + pieces[truth.inside]
    held = np.bincount(place, minlength=(number + 1) * (count + 1)).reshape(number + 1, count + 1)[1:]
    shares = np.sort(held[:, 1:] / np.maximum(1, held.sum(axis=1, keepdims=True)), axis=1)
    return {
        "J": score,
        "recall": hits / max(1, truth.pixels),
        "precision": hits / max(1, size),
        "size": size / truth.pixels if truth.pixels else float("inf"),
        "least": float(shares.sum(axis=1).min()) if number else 1.0,
        "reach": float(np.quantile(truth.away[wrong], MOST, method="higher")) / max(1.0, truth.side)
        if wrong.any()
        else 0.0,
        "second": float(shares[:, -2].max()) if number and count > 1 else 0.0,
        "excess": (size - hits) / counted,
        "lack": (truth.pixels - hits) / counted,
    }


def kind(of: Mapping[str, float], by: Thresholds = Thresholds()) -> str:
    """One of `KINDS`, by the rules of the module's head. of: `measures`, or a row of `failure_table`."""
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


class Masks:
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
) -> tuple[pd.DataFrame, Masks]:
    """Every photograph by every system: a row each, and the masks that it speaks of.

    models      by the name that their rows get; each is asked as protocol `common` asks: by the whole group, own size
    trained_on  for each name the classes whose masks it learned from; a name that is not there has seen none
    progress    called with (group's name, done, total)
    Columns dataset, group, name, system, backbone ("" without one), seen; those of `describe`; agreement, the mean J of
    the photograph's masks two by two (NaN of one system); those of `measures`; kind, by the default `Thresholds`.
    Raises CosegError for no groups, photographs without masks, and kinds of models that `answers` does not know.
    """
    if not models or not sum(map(len, groups)):
        raise CosegError("no photographs or no systems: there is nothing to score")
    trained_on, rows, kept = trained_on or {}, [], Masks()
    for number, group in enumerate(groups, start=1):
        questions = [(i, tuple(range(len(group)))) for i in range(len(group))]
        answered = {}
        for name, model in models.items():
            found = zip(group.photos, answers(model, group.photos, questions), strict=True)
            asked = ((photo, *answer) for photo, answer in found)
            answered[name] = list(own_masks(model, asked, len(group)))
        for i, photo in enumerate(group.photos):
            truth, masks = Truth(group.mask(i)), {name: some[i] for name, some in answered.items()}
            pairs = [jaccard(a, b) for a, b in combinations(masks.values(), 2)]
            shown = describe(photo.image(), truth) | {"agreement": float(np.mean(pairs)) if pairs else float("nan")}
            for name, mask in masks.items():
                about = {
                    **dict(zip(PHOTO, (group.dataset, group.name, photo.name), strict=True)),
                    "system": name,
                    "backbone": getattr(models[name], "card", {}).get("backbone", ""),
                    "seen": seen(group, trained_on.get(name, ())),
                }
                found = measures(mask, truth)
                rows.append({**about, **shown, **found, "kind": kind(found)})
                kept[name, group.dataset, group.name, photo.name] = mask
        if progress:
            progress(group.name, number, len(groups))
    return pd.DataFrame(rows), kept


# Tables of kinds ------------------------------------------------------------------------------------------------------


def by_kind(rows: pd.DataFrame, kinds: Sequence[str] = KINDS) -> pd.DataFrame:
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


def shares(rows: pd.DataFrame, by: str = "system", kinds: Sequence[str] = KINDS) -> pd.DataFrame:
    """Which share of its rows each kind has: a row a value of `by`, in order of appearance, a column a kind."""
    table = pd.crosstab(rows[by], rows.kind, normalize="index").reindex(columns=kinds, fill_value=0.0)
    return table.loc[list(dict.fromkeys(rows[by]))]


def sweep(
    rows: pd.DataFrame,
    grid: Mapping[str, Sequence[float]] = GRID,
    start=Thresholds(),
    of: Callable[[Mapping, object], str] = kind,
    kinds: Sequence[str] = KINDS,
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
    for key, some in rows.groupby(PHOTO, sort=False):
        table.append(
            {
                **dict(zip(PHOTO, key, strict=True)),
                "J": some.J.mean(),
                "spread": some.J.max() - some.J.min(),
                "agreement": some.agreement.iloc[0],
                "best": some.system[some.J.idxmax()],
                "worst": some.system[some.J.idxmin()],
            }
        )
    return pd.DataFrame(table).sort_values("spread", ascending=False, kind="stable", ignore_index=True)


# J against what the photographs show ----------------------------------------------------------------------------------


def _drawn(rows: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's group (n,), and groups drawn with replacement (RESAMPLES, groups)."""
    code = rows.groupby(PLACE, sort=False).ngroup().to_numpy()
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
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


class Gap(NamedTuple):
    """Mean J of some rows minus that of others, its 95 % interval, and how many rows these are."""

    difference: float
    low: float
    high: float
    first: int
    second: int


def gap(rows: pd.DataFrame, first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> Gap:
    """How far two parts of the rows differ in J; first, second: (n,) which rows they are.

    The interval comes from a bootstrap that draws whole groups of photographs, since those of one group are alike: a
    difference that rests on one group has a wide one, and where either part lies in a single group it is NaN.
    Raises ValueError where a part has no rows.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if not first.any() or not second.any():
        raise ValueError(f"{first.sum()} and {second.sum()} rows: nothing to compare")
    code, draws = _drawn(rows, seed)
    found = _means(rows, first, code, draws) - _means(rows, second, code, draws)
    difference = rows.J[first].mean() - rows.J[second].mean()
    return Gap(float(difference), *_interval(found), int(first.sum()), int(second.sum()))


def told(first: str, second: str, found: Gap) -> str:
    """A gap in words, with its numbers: "J of A is 0.21 lower than of B (…)", or that none can be told."""
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
    rows = f"{found.first} and {found.second} masks"
    if np.isnan(found.low):
        return (
            f"Between {first} and {second} J differs by {found.difference:+.2f}; {rows}, of too few groups to judge it."
        )
    if found.low <= 0 <= found.high:
        numbers = f"{found.difference:+.2f} ({interval}; {rows})"
        return f"Between {first} and {second} no difference of J can be told: {numbers}."
    way = "lower" if found.difference < 0 else "higher"
    return f"J of {first} is {abs(found.difference):.2f} {way} than of {second} ({interval}; {rows})."


def binned(rows: pd.DataFrame, column: str, bins: int = 4, seed: int = 0) -> pd.DataFrame:
    """J by a column: bin (text), masks, groups, J, low and high, the ends of its 95 % interval (see `gap`).

    Numbers are cut into `bins` parts of equally many rows, fewer where many are equal; text and truth values, and
    numbers of as few values as bins, each are a bin. Rows without a value are left out; ValueError where all are.
    """
    rows = rows[rows[column].notna()]
    if rows.empty:
        raise ValueError(f"{column}: no row has a value")
    values, names = rows[column], sorted(set(rows[column]))
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and len(names) > bins:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
        place = np.searchsorted(edges[1:-1], values, side="right")
        shown = [np.format_float_positional(e, 2, unique=False, fractional=False, trim="-") for e in edges]
        names = [f"{low} to {high}" for low, high in pairwise(shown)]
    else:
        place = values.map({name: i for i, name in enumerate(names)}).to_numpy(int)
    code, draws = _drawn(rows, seed)
    table = []
    for i, name in enumerate(names):
        chosen = place == i
        if not chosen.any():
            continue
        low, high = _interval(_means(rows, chosen, code, draws))
        here = {"bin": str(name), "masks": int(chosen.sum()), "groups": len(set(code[chosen]))}
        table.append({**here, "J": rows.J[chosen].mean(), "low": low, "high": high})
    return pd.DataFrame(table)


def ends(rows: pd.DataFrame, column: str, share: float = 0.25, seed: int = 0) -> Gap:
    """The gap of J between the rows with the lowest and those with the highest `share` of a column's values."""
    low, high = rows[column].quantile([share, 1 - share])
    return gap(rows, rows[column] <= low, rows[column] >= high, seed)


def together(rows: pd.DataFrame, columns: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """All columns at once, a least-squares fit: column, slope, low, high. Small objects may also be the unseen ones.

    slope  by how much J changes when the column grows by one standard deviation and the others stay; its 95 % interval
           by drawing groups (`gap`). A column that is the same everywhere is left out, rows with a NaN as well
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
    fit = np.linalg.pinv(squares.sum(0)) @ products.sum(0)
    drawn = np.stack([np.linalg.pinv(squares[d].sum(0)) @ products[d].sum(0) for d in draws])
    table = pd.DataFrame({"column": np.array(columns)[kept], "slope": fit[1:]})
    enough = groups > x.shape[1]
    table[["low", "high"]] = [_interval(v) if enough else (float("nan"),) * 2 for v in drawn.T[1:]]
    return table


# Several classes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassThresholds:
    """good: J of a class in a photograph from which it is no failure. cut: as in `describe`, of incomplete objects."""

    good: float = 0.5
    cut: float = 0.5


CLASS_GRID = {"good": (0.3, 0.4, 0.5, 0.6, 0.7), "cut": (0.1, 0.25, 0.5, 1.0, 1.5)}


def class_measures(pred: Tensor, truth: Tensor, label: int) -> dict[str, float]:
    """How one class of a photograph was found. pred, truth uint8 (H, W): 0 background, 1 …; 255 void in the truth.

    J           of the class against all else; NaN where neither map holds it
    background  share of the class's wrong pixels that are background marked as the class
    others      … that are taken from another class, or given to one
    lost        … that are the class's, marked as background. The three sum to 1, to 0 where nothing is wrong
    area        the class's share of the counted pixels; cut: as in `describe`
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
        "cut": _cut(own, counted),
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


def named(group: Group, labels: Sequence[Tensor], clusters: int, background: int | None = 0) -> list[Tensor]:
    """Label maps whose labels are the group's classes, uint8 (H, W), 0 background.

    labels, clusters, background  as `multiclass_scores.score_group` has them: clusters get their classes group by group
    """
    truths = (group.mask(i) for i in range(len(group)))
    counts = sum(confusion(p, t, clusters, len(group.targets)) for p, t in zip(labels, truths, strict=True))
    lookup = torch.from_numpy(assignment(counts, background)).to(torch.uint8)
    return [lookup[clustered.long()] for clustered in labels]


def class_table(group: Group, maps: Sequence[Tensor]) -> pd.DataFrame:
    """A row a photograph and class: dataset, group, name, class, those of `class_measures`, alike, kind.

    maps    label maps of `named`, one a photograph
    alike   distance of the class's mean colour to that of the nearest other class of the photograph, in CIELAB; NaN
            where it is alone
    Classes that neither a photograph nor its map holds have no row.
    """
    classes = range(1, len(group.targets) + 1)
    rows = []
    for i, (photo, pred) in enumerate(zip(group.photos, maps, strict=True)):
        truth, image = group.mask(i), photo.image()
        colours = {k: _colour(image, np.asarray(truth) == k) for k in classes}
        for k in classes:
            found = class_measures(pred, truth, k)
            if np.isnan(found["J"]):
                continue
            others = [np.linalg.norm(colours[k] - colours[j]) for j in classes if j != k]
            others = [d for d in others if d == d]
            about = dict(zip(PHOTO, (group.dataset, group.name, photo.name), strict=True))
            alike = float(min(others)) if others else float("nan")
            rows.append({**about, "class": group.targets[k - 1], **found, "alike": alike, "kind": class_kind(found)})
    return pd.DataFrame(rows)
