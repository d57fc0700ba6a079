"""Who is in which list: groups, what trains, what chooses models, pairs. Written to `data/lists`, the same every time.

    python -m coseglib.data.lists [--data FOLDER] [--out FOLDER] [--multiclass]

groups_<set>.csv    dataset, split, group, target, photo
training.csv        dataset, photo                     what trains
validation.csv      dataset, group, target, photo      what models are chosen by
pairs_<set>.csv     dataset, first, second, groups     each pair once; "+" joins the groups that it shares
multiclass.csv      as groups_<set>.csv                groups of two and three classes, see `sets.multiclass`
fingerprints.csv    photo, split, bits, flipped        see `fingerprints`
counts.csv          dataset, what, formula, here, paper

The papers' numbers, as formulae; n_c photographs hold class c.
  Chen et al. 2018   Pairs of the VOC 2012 training list with a class in common: Σ_c n_c (n_c − 1) / 2, less what shares
                     several classes, since their released code takes each pair once; any area counts. Over 160,000.
                     The 1449 of the validation list halved at random into 724 and 725: 46,973 and 37,700 pairs. Their
                     halves are not published; ours go by the SHA-256 of the names: these two cannot be met exactly.
  Li et al. (DCNet)  13,200 pairs sampled of those with an object in common, of 1743 from VOC and 430 from MSRC.
  multi-class        Groups of two or three classes of about 80: photographs that hold exactly these.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.core.files import writable
from coseglib.core.tables import write_table
from coseglib.data import load, training_photos, unseen_groups, validation_groups
from coseglib.data.by_class import class_areas, count_pairs, groups_of, multiclass_groups, pairs, sample_pairs
from coseglib.data.fingerprints import KEPT_APART, fingerprints_of, write_fingerprints
from coseglib.data.record import Group, Photo
from coseglib.data.sets import msrc, multiclass, voc

SPLIT_OF = {
    "icoseg8": "test", "msrc7": "test", "msrc7-field": "test", "pascal": "test",
    "msrc-train": "train", "voc-train": "train", "msrc-val": "val", "voc-val": "val", "icoseg30": "val",
}  # fmt: skip
GROUP_HEADER = "dataset split group target photo"
SAMPLED = 13_200  # pairs, as Li et al.; a list of more is a sample, and counts.csv has the number of all
WORTH = 20  # photographs: smaller groups of several classes get no row in counts.csv


def _write(file: Path, header: str, rows: Iterable[Sequence]) -> Path:
    write_table(pd.DataFrame(rows, columns=header.split(), dtype=object), file)
    return file


def halves(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The first half (the smaller) of the names by SHA-256, and the others; both in alphabetical order."""
    ranked = sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    return sorted(ranked[: len(ranked) // 2]), sorted(ranked[len(ranked) // 2 :])


def pairs_of_any_area(photos: Sequence[Photo], areas: np.ndarray) -> int:
    """Pairs with a class in common, however small, each once: as Chen et al. 2018 count. areas: (n, K)."""
    return count_pairs(groups_of(photos, photos[0].classes if photos else (), min_area=1e-9, areas=areas))[0]


def _counts(root: Path, groups: dict[str, list[Group]], training: list[Photo]) -> list[tuple]:
    rows = []
    for name, members in groups.items():
        once, each = count_pairs(members)
        photos = len({p.name for g in members for p in g.photos})
        rows += [(name, "groups", "", len(members), ""), (name, "photographs", "", photos, "")]
        rows += [(name, "pairs", "sum of n(n-1)/2", each, ""), (name, "different pairs", "each once", once, "")]
    parts = {split: voc.photos(root, split) for split in ("train", "val")}
    areas = {split: class_areas(photos) for split, photos in parts.items()}
    rule = "a class in common, any area, each once"
    rows.append(("voc", "photographs of train.txt", "", len(parts["train"]), "1464"))
    rows.append(("voc", "pairs of train.txt", rule, pairs_of_any_area(parts["train"], areas["train"]), "over 160000"))
    papers = {"first": ("724", "46973"), "second": ("725", "37700")}
    for (which, (photos, couples)), names in zip(papers.items(), halves(p.name for p in parts["val"]), strict=True):
        at = [i for i, p in enumerate(parts["val"]) if p.name in names]
        here = pairs_of_any_area([parts["val"][i] for i in at], areas["val"][at])
        rows.append(("voc", f"photographs of val.txt, {which} half", "halved by SHA-256", len(at), photos))
        rows.append(("voc", f"pairs of val.txt, {which} half", rule, here, couples))
    combos = [c for n in (2, 3) for c in combinations(voc.CLASSES, n)]
    both = np.concatenate([areas["train"], areas["val"]])
    for group in multiclass_groups(parts["train"] + parts["val"], combos, areas=both):
        if len(group) >= WORTH:
            rows.append(("voc", f"photographs of {group.name}", "exactly these, 1 % or more", len(group), "about 80"))
    for name, paper in (("voc", "1743"), ("msrc", "430")):
        rows.append((name, "photographs that train", "", sum(p.dataset == name for p in training), paper))
    return rows


def _group_rows(groups: Sequence[Group], split: str) -> list[tuple]:
    return [(p.dataset, split, g.name, "+".join(g.targets), p.name) for g in groups for p in g.photos]


def write_multiclass(root: str | Path | None = None, out: str | Path = paths.LISTS) -> list[Path]:
    """Write multiclass.csv alone. Raises CosegError where VOC or `out`'s fingerprints are missing."""
    groups = multiclass.load(paths.data_root(root), Path(out))
    return [_write(Path(out) / "multiclass.csv", GROUP_HEADER, _group_rows(groups, "test"))]


def write_lists(root: str | Path | None = None, out: str | Path = paths.LISTS) -> list[Path]:
    """Write all lists of the sets under `root` (None: `paths.data_root`) into `out`; returns the files.

    The same data give the same bytes. Every photograph is read once, for the fingerprints.
    Raises CosegError where iCoseg, MSRC, PASCAL or VOC is missing: what is not there cannot be kept from training.
    """
    root, out = paths.data_root(root), writable(Path(out), folder=True)
    groups = {name: load(name, root) for name in SPLIT_OF}
    of = {split: voc.photos(root, split) + msrc.photos(root, split) for split in ("train", "val")}
    of["test"] = [p for name in ("icoseg8", "pascal") for g in groups[name] for p in g.photos]
    of["test"] += [p for split in ("test", "never", "field") for p in msrc.photos(root, split)]
    of["unseen"] = [p for g in groups["icoseg30"] for p in g.photos]
    splits = [split for split, photos in of.items() for _ in photos]
    known = fingerprints_of([p for photos in of.values() for p in photos], splits)
    known = known.apart("unseen", "test").apart("val", "test").apart("train", *KEPT_APART)
    write_fingerprints(known, out / "fingerprints.csv")
    training, choosing = training_photos(root, out), validation_groups(root, out) + unseen_groups(root, out)
    chosen = [(g.dataset, g.name, "+".join(g.targets), p.name) for g in choosing for p in g.photos]
    tables = {f"groups_{name}": (GROUP_HEADER, _group_rows(of, SPLIT_OF[name])) for name, of in groups.items()}
    tables["training"] = "dataset photo", [(p.dataset, p.name) for p in training]
    tables["validation"] = "dataset group target photo", chosen
    sampled = {"train": groups["voc-train"] + groups["msrc-train"], "voc-val": groups["voc-val"]}
    couples = {name: pairs(groups[name]) for name in ("icoseg8", "msrc7")}
    for name, found in (couples | {name: sample_pairs(of, SAMPLED) for name, of in sampled.items()}).items():
        rows = [(p.first.dataset, p.first.name, p.second.name, "+".join(p.groups)) for p in found]
        tables[f"pairs_{name}"] = "dataset first second groups", rows
    tables["counts"] = "dataset what formula here paper", _counts(root, groups, training)
    written = [_write(out / f"{name}.csv", header, rows) for name, (header, rows) in tables.items()]
    return [out / "fingerprints.csv", *written, *write_multiclass(root, out)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line, see above. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m coseglib.data.lists", description="Write the lists of data/lists.")
    parser.add_argument("--data", help="folder of the data sets (default: COSEG_DATA, else data/)")
    parser.add_argument("--out", default=paths.LISTS, help="where to write (default: data/lists)")
    parser.add_argument("--multiclass", action="store_true", help="multiclass.csv alone, by the fingerprints in --out")
    given = parser.parse_args(arguments)
    try:
        for file in (write_multiclass if given.multiclass else write_lists)(given.data, given.out):
            print(f"{file}  {file.stat().st_size:,} bytes")
    except CosegError as fault:
        print(f"coseg: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
