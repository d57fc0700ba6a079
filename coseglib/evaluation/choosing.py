"""Which of several models is the best one, by the photographs that choose: kinds that train, kinds that never do.

    python -m coseglib.evaluation.choosing MODEL … [--looks 1 2] [--post argmax crf] [--photographs 8] [-o FILE.csv]

MODEL is a checkpoint's name, a run's folder or a safetensors file; A+B is the mean of the weights of both, A+A+B counts
A twice. Each is asked as `coseg ship` would hand it on. The mean of J on both kinds decides; partner swap and refusal
stand beside it. Two or three minutes a row on a core; rows are written as they come, and a run that was killed goes on.
No test photograph is among them.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd

from coseglib.core.errors import CosegError
from coseglib.core.paths import REPORTS
from coseglib.core.tables import read_table, write_table
from coseglib.data import unseen_groups, validation_groups
from coseglib.data.record import Group, Photo
from coseglib.evaluation.kept import Say, code_hash
from coseglib.evaluation.shipping import as_shipped
from coseglib.models.contract import POSTS
from coseglib.scoring.metrics import aggregate, auroc
from coseglib.scoring.rows import evaluate, partner_swap, refusal

TABLE = REPORTS / "cpu" / "tables" / "choosing.csv"  # of shipped models, for the aims
LEAST, PHOTOGRAPHS = 4, 8  # of a group: with fewer it falls out; asked about, where nobody says
COLUMNS = {"model": str, "sha256": str, "looks": int, "post": str, "seen": float, "unseen": float, "mean": float}
COLUMNS |= {"swap": float, "refusal": float, "photographs": int, "code": str, "seconds": float}
COMMAND = "python -m coseglib.evaluation.choosing"


# Photographs ----------------------------------------------------------------------------------------------------------


def few(groups: Sequence[Group], most: int) -> list[Group]:
    """At most `most` photographs a group, in their order; 0: all. Groups of which fewer than LEAST are left fall out.

    A photograph that stands in two groups stays in all of its groups or in none. Such ones are preferred for half of
    the places, of these the partner swap asks; small groups choose first, one photograph in turn.
    """
    if not most:
        return list(groups)
    content = [[p.content() for p in g.photos] for g in groups]
    places: dict[str, list[int]] = {}
    for g, names in enumerate(content):
        for name in names:
            places.setdefault(name, []).append(g)
    kept: list[set[str]] = [set() for _ in groups]
    shared = [[name for name in names if len(places[name]) > 1] for names in content]
    for _ in range(most // 2):
        for g in sorted(range(len(groups)), key=lambda g: len(groups[g])):
            for name in shared[g]:
                if name not in kept[g] and all(len(kept[h]) < max(1, most // 2) for h in places[name]):
                    for h in places[name]:
                        kept[h].add(name)
                    break
    for g, names in enumerate(content):
        alone = [name for name in names if len(places[name]) == 1]
        kept[g].update(alone[: most - len(kept[g])])
    found = [
        replace(g, photos=tuple(p for p, name in zip(g.photos, names, strict=True) if name in some))
        for g, names, some in zip(groups, content, kept, strict=True)
    ]
    return [g for g in found if len(g) >= min(LEAST, most)]


def read_once(groups: Sequence[Group]) -> list[Group]:
    """The same photographs, decoded once and kept: they are asked of many models."""

    @cache
    def kept(photo: Photo) -> Photo:
        readers = {"read_image": cache(photo.read_image), "read_labels": cache(photo.read_labels)}
        return replace(photo, **readers)

    return [replace(g, photos=tuple(map(kept, g.photos))) for g in groups]


# Models ---------------------------------------------------------------------------------------------------------------


def figures_of(model, seen: Sequence[Group], unseen: Sequence[Group], limit: int | None = None) -> dict[str, float]:
    """seen, unseen, mean, swap and refusal of COLUMNS."""
    sides = {"seen": seen, "unseen": unseen}
    tables = {kind: aggregate(evaluate(model, groups, limit=limit), "common") for kind, groups in sides.items()}
    found = {kind: float(table.J.iloc[-1]) for kind, table in tables.items()}
    found |= {"mean": sum(found.values()) / 2, "swap": 100 * float(partner_swap(model, seen).score.mean())}
    unsure = refusal(model, seen)
    return found | {"refusal": auroc(unsure.score, unsure.common)}


def _model(name: str, looks: int | None, post: str | None):
    first, *others = name.split("+")
    return as_shipped(first, looks, post, others)


def choice_rows(
    names: Sequence[str],
    looks: Sequence[int | None] = (None,),
    posts: Sequence[str | None] = (None,),
    photographs: int = PHOTOGRAPHS,
    out: str | Path | None = None,
    say: Say = print,
) -> pd.DataFrame:
    """A row a model, number of looks and way from maps to masks, in the order asked for, of COLUMNS.

    seen, unseen   J under protocol `common` on `validation_groups` and on `unseen_groups`; mean: of both
    swap, refusal  partner swap in points and the AUROC of refusal, on kinds that train
    looks, posts   None: as the model's file says
    photographs    asked about a group: of kinds that train `few`, of the others the first ones, with their whole group
    out            a CSV of such rows that grows; those of the same weights, answer and code are not computed again
    Raises CosegError for models and sets that are missing, weights of two systems, and another file in out's place.
    """
    table, found = read_choices(out), []
    models = [(name, _model(name, look, post)) for name, look, post in product(names, looks, posts)]
    seen, unseen = read_once(few(validation_groups(), photographs)), read_once(unseen_groups())
    for name, model in models:
        began = time.perf_counter()
        about = {key: model.card[key] for key in ("sha256", "looks", "post")}
        about |= {"photographs": photographs, "code": code_hash()}
        rows = table[(table[list(about)] == pd.Series(about)).all(axis=1)]
        if rows.empty:
            figures = figures_of(model, seen, unseen, photographs or None)
            row = {"model": name, **about, **figures, "seconds": time.perf_counter() - began}
            rows = pd.DataFrame([row])[list(COLUMNS)]
            table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
            if out:
                write_table(table, out)
        row = rows.iloc[0]
        say(
            f"{name}, looks {row.looks}, {row.post}: J {row['mean']:.3f} ({row.seen:.3f} seen, {row.unseen:.3f} unseen)"
        )
        found.append(row)
    return pd.DataFrame(found).reset_index(drop=True)


def read_choices(path: str | Path | None) -> pd.DataFrame:
    """The rows of a file of `choice_rows`, TABLE or another; none of a file that is not there.

    Raises CosegError for another table.
    """
    if path is None or not Path(path).is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    return read_table(path, COLUMNS, "it is no table of choices: move it away, or choose another")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a checkpoint, a run, a file; A+B: their mean")
    parser.add_argument("--looks", nargs="+", type=int, choices=(1, 2), default=[None], help="default: as shipped")
    parser.add_argument("--post", nargs="+", choices=POSTS, default=[None], help="default: as shipped")
    parser.add_argument("--photographs", type=int, default=PHOTOGRAPHS, metavar="N", help="a group, 0: all")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.csv")
    given = parser.parse_args(arguments)
    try:
        how = {"photographs": given.photographs, "out": given.output, "say": lambda text: print(text, flush=True)}
        rows = choice_rows(given.models, given.looks, given.post, **how)
    except CosegError as error:
        print(f"coseg: {error}", file=sys.stderr)
        return 1
    best_first = rows.sort_values("mean", ascending=False, kind="stable").drop(columns=["code", "seconds"])
    print(best_first.assign(sha256=best_first.sha256.str[:8]).to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
