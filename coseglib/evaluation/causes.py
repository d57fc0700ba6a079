"""What each part of the workbook's variant of several classes is worth: one thing changed at a time, J each time.

    python -m coseglib.evaluation.causes -o causes.csv [--only GROUP …] [--cause NAME …] [--seeds N]
    python -m coseglib.evaluation.causes --made -o made.csv

Rows are written as they come, and a run that was killed goes on. On photographs these are ablations: the variant was
chosen by made groups (`coseglib.data.sets.made`, `reports/trials.md`, 24), and no row of photographs chooses anything.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from coseglib.answering.crf import asked_of_crf, enlarged, labels_from
from coseglib.answering.densecrf import solve
from coseglib.answering.reading import picture_of
from coseglib.core.errors import CosegError
from coseglib.core.paths import REPORTS
from coseglib.core.tables import read_table, write_table
from coseglib.data import load
from coseglib.data.record import Group
from coseglib.evaluation.tables import ABLATIONS
from coseglib.models.clusters import DOUBT
from coseglib.scoring import metrics
from coseglib.unsupervised.clustered import ClusterJob
from coseglib.unsupervised.configuration import OnlineConfig, load_online, named_groups
from coseglib.unsupervised.scores import score_group

CHOSEN = "as chosen"
CAUSES = {
    CHOSEN: {},
    "without learning (rate 1e-9)": {"learning_rate": 1e-9},
    **{name: parts for name, parts in ABLATIONS.items() if name != "SA+MA"},
    "random start": {"start": "random"},
    "no evidence of objects": {"evident": False},
    "features not centred": {"centred": False},
    "64 axes": {"axes": 64},
    "one background": {"backgrounds": 1},
    "no balance": {"balance": 0.0},
    "no border": {"border": 0.0},
    "neither balance nor border": {"balance": 0.0, "border": 0.0},
    "batches of three": {"batch": 3},
    "rate 3e-4": {"learning_rate": 3e-4},
    "rate 3e-2": {"learning_rate": 3e-2},
    "stride 32": {"stride": 32},
    "384 pixels": {"input_size": 384},
    "256 pixels": {"input_size": 256},
    "the stage before the last": {"layer": 3},
    "640 pixels": {"input_size": 640},
    "640 pixels, stride 32": {"input_size": 640, "stride": 32},
    "768 pixels, stride 32": {"input_size": 768, "stride": 32},
    "MobileNetV2": {"backbone": "mobilenet_v2"},
}
GROUPS = ("dog+person", "horse+person", "cat+person", "person+sheep")
FROZEN = ("backbone", "input_size", "stride", "layer", "pretrained", "precision")  # what the frozen maps depend on
TABLE = REPORTS / "cpu" / "tables" / "multiclass_causes.csv"  # that is kept
COLUMNS = {"group": str, "cause": str, "post": str, "seed": float, "images": float, "P": float, "J": float}
COLUMNS |= {"pairs": float, "seconds": float}


def labels_of(maps: Tensor, group: Group, post: str) -> list[Tensor]:
    """Logits (n, K+1, h, w) of a group -> label maps at the photographs' own sizes, uint8.

    post  "argmax", of the maps as they are, or "crf", as `coseg segment` decides
    """
    found = []
    for logits, photo in zip(DOUBT * maps, group.photos, strict=True):
        picture = picture_of(photo)
        if post == "crf":
            (p,) = torch.from_numpy(solve(asked_of_crf(picture.pixels, logits[None], online=True)))
            found.append(labels_from(p, picture.size))
        else:
            found.append(enlarged(logits, picture.size).argmax(dim=0).to(torch.uint8))
    return found


def cause_rows(group: Group, wanted: Sequence[tuple[str, int, str]], config: OnlineConfig) -> Iterator[dict]:
    """A row each of (cause, seed, post), of one group; those of one frozen map together: it is computed once."""
    frozen, described = None, None
    for cause, seed, posts in _together(wanted, config):
        changed = config.replaced(seed=seed, **CAUSES[cause])
        maps_of = tuple(getattr(changed, name) for name in FROZEN)
        if maps_of != frozen:
            frozen, described = maps_of, None
        job = ClusterJob(group.photos, len(group.targets), changed, described)
        described, began, model = job.described, time.perf_counter(), job.generator()
        log = job.optimise(model, changed.learning_rate, changed.epochs, lambda text: None)
        logits, spent = job.answers(model), time.perf_counter() - began
        for post in posts:
            rows = score_group(group, labels_of(logits, group, post), len(group.targets) + 1)
            scores = metrics.aggregate(rows, "multiclass").iloc[-1]
            about = {"group": group.name, "cause": cause, "post": post, "seed": seed, "images": len(group)}
            pairs = float(log.pairs[log.loss.idxmin()])
            yield about | {"P": scores.P, "J": scores.J, "pairs": pairs, "seconds": spent}


def _together(wanted, config: OnlineConfig) -> list[tuple[str, int, list[str]]]:
    """(cause, seed, posts) with those of equal frozen maps beside each other, in the causes' order otherwise."""
    posts: dict[tuple[str, int], list[str]] = {}
    for cause, seed, post in wanted:
        posts.setdefault((cause, seed), []).append(post)
    keys = [tuple(getattr(config.replaced(**CAUSES[cause]), name) for name in FROZEN) for cause, _ in posts]
    order = {key: k for k, key in reversed(list(enumerate(keys)))}
    ranked = sorted(zip(keys, posts.items(), strict=True), key=lambda one: order[one[0]])
    return [(cause, seed, some) for _, ((cause, seed), some) in ranked]


def read_causes(path: str | Path = TABLE) -> pd.DataFrame:
    """The rows of a table of `measure_causes`, `COLUMNS`. Raises CosegError where there is none, or another file."""
    if not Path(path).is_file():
        raise CosegError(f"{path}: no such table; python -m coseglib.evaluation.causes -o {path} makes it")
    return read_table(path, COLUMNS, "it is no table of causes: move it away, or choose another")


def measure_causes(
    groups: Sequence[Group], out: str | Path, causes: Sequence[str], seeds: int, say=print, always_crf: bool = False
) -> pd.DataFrame:
    """The rows of these causes, seeds 0 …, and groups: `out` grows. The chosen one and attention's, or all, by CRF."""
    if unknown := [cause for cause in causes if cause not in CAUSES]:
        raise CosegError(f"{unknown[0]}: no such cause; one of {', '.join(CAUSES)}")
    config, out = load_online("workbook"), Path(out)
    table = read_causes(out) if out.is_file() else pd.DataFrame(columns=[*COLUMNS])
    done = set(zip(table.group, table.cause, table.seed, table.post, strict=True))
    for group in groups:
        wanted = [(c, s, post) for c in causes for s in range(seeds) for post in ("argmax", "crf")]
        wanted = [one for one in wanted if one[2] == "argmax" or always_crf or one[0] in (CHOSEN, *ABLATIONS)]
        wanted = [(c, s, post) for c, s, post in wanted if (group.name, c, float(s), post) not in done]
        for row in cause_rows(group, wanted, config):
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True) if len(table) else pd.DataFrame([row])
            write_table(table, out)
            say(f"{group.name}, {row['cause']}, seed {row['seed']}, {row['post']}: J {row['J']:.3f}")
    return table


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `measure_causes` -> a row a cause and post: J, the mean over groups, sd of it over seeds, seeds, groups,
    and change: J less that of the chosen one, decided in the same way and on the same seeds and groups."""
    same = rows[rows.cause == CHOSEN].set_index(["group", "post", "seed"]).J.rename("chosen")
    rows = rows.join(same, on=["group", "post", "seed"])
    each = rows.groupby(["cause", "post", "seed"], sort=False).agg(
        J=("J", "mean"), chosen=("chosen", "mean"), groups=("group", "nunique")
    )
    found = each.groupby(["cause", "post"], sort=False).agg(
        J=("J", "mean"), sd=("J", "std"), seeds=("J", "size"), groups=("groups", "max"), chosen=("chosen", "mean")
    )
    return found.assign(change=found.J - found.chosen).drop(columns="chosen").reset_index()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m coseglib.evaluation.causes", description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="GROUP")
    parser.add_argument("--made", action="store_true", help="on made groups, every row by the CRF too")
    parser.add_argument("--cause", nargs="+", default=list(CAUSES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    try:
        groups = load("made-multiclass" if given.made else "voc-multiclass")
        only = given.only or ([group.name for group in groups] if given.made else GROUPS)
        how = {"say": print_line, "always_crf": given.made}
        rows = measure_causes(named_groups(groups, only), given.output, given.cause, given.seeds, **how)
    except CosegError as error:
        print(f"coseg: {error}", file=sys.stderr)
        return 1
    print(summary(rows).to_string(index=False, float_format="%.3f"))
    return 0


def print_line(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
