"""Multi-class tables: a network that learns on each group, or a checkpoint, scored on groups that have masks.

`multiclass_table`  the table that every method has: a row a group, and a last row `all`
`evaluate_groups`   the ablations' (w/o ATT, SA, MA, SA+MA), by argmax and by CRF, beside colour k-means and stripes
Both write after each group, and keep the photographs' rows beside the table, so that a run that was killed goes on.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from coseglib.answering.masks import post_of, segment_group
from coseglib.core.errors import CosegError
from coseglib.core.tables import write_table
from coseglib.data.record import Group
from coseglib.evaluation.kept import LEARNED, resumable_rows
from coseglib.models.contract import POSTS
from coseglib.models.multiclass import MultiClass
from coseglib.scoring import metrics
from coseglib.unsupervised.configuration import ONLINE_PROFILES, OnlineConfig, load_online
from coseglib.unsupervised.learner import co_segment
from coseglib.unsupervised.scores import colour_kmeans, score_group, stripes

ABLATIONS = {
    "w/o ATT": {"self_attention": False, "mutual_attention": False},
    "SA": {"self_attention": True, "mutual_attention": False},
    "MA": {"self_attention": False, "mutual_attention": True},
    "SA+MA": {"self_attention": True, "mutual_attention": True},
}
# What may be numbers in photographs' rows.
NUMBERS = dict.fromkeys(("P", "J", *(f"J_{k}" for k in range(1, 256)), "seconds", "learning_rate", "loss"), float)
NUMBERS |= {"epochs": float, "seed": int}
BASELINES = ("colour k-means", "stripes across", "stripes down")


def _key(group: Group, config: OnlineConfig | str, *more: object) -> str:
    """What a group's rows depend on: the configuration, or a checkpoint's SHA-256, and more."""
    known = [config.fields() if isinstance(config, OnlineConfig) else config]
    known += [group.name, [p.name for p in group.photos], *more]
    return hashlib.sha256(json.dumps(known, allow_nan=False).encode()).hexdigest()[:12]


def group_rows(
    group: Group,
    config: OnlineConfig,
    systems: Sequence[str] = ("SA+MA",),
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> pd.DataFrame:
    """A row a photograph and system: the baselines, and each of `systems` (see ABLATIONS) by argmax and by CRF.

    Columns as `score_group`'s, and system, learning_rate, epochs, loss, seconds (an image), seed, and the profile,
    "changed" where single fields were. Baselines' clusters may all become classes; of the systems' K+1 maps the first
    stays background.
    """
    clusters, say = len(group.targets) + 1, progress or (lambda text: None)
    tables = []
    for name in BASELINES:
        began = time.perf_counter()
        if name == "colour k-means":
            labels = colour_kmeans(group.photos, clusters, config.seed)
        else:
            sizes = [tuple(p.image().shape[-2:]) for p in group.photos]
            labels = [stripes(size, clusters, across=name.endswith("across")) for size in sizes]
        rows = score_group(group, labels, clusters, background=None)
        tables.append(rows.assign(system=name, seconds=(time.perf_counter() - began) / len(group)))
    for name in systems:
        chosen, told = config.replaced(**ABLATIONS[name]), lambda text, name=name: say(f"{name}: {text}")
        found = co_segment(group.photos, clusters - 1, chosen, told, weights_root)
        run = {"learning_rate": found.learning_rate, "epochs": len(found.log), "loss": found.log.loss.min()}
        for post in POSTS:
            began = time.perf_counter()
            rows = score_group(group, found.labels(post), clusters)
            spent = (found.seconds + time.perf_counter() - began) / len(group)
            tables.append(rows.assign(system=f"{name}, {post}", seconds=spent, **run))
    profile = next((p.stem for p in ONLINE_PROFILES.glob("*.yaml") if load_online(p.stem) == config), "changed")
    return pd.concat(tables, ignore_index=True).assign(seed=config.seed, profile=profile)


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Photographs' rows -> a row a system and group and one over its groups, protocol `multiclass`."""
    tables = []
    for system, some in rows.groupby("system", sort=False):
        table = metrics.aggregate(some, "multiclass")
        table.insert(0, "system", system)
        for column in ("classes", "learning_rate", "epochs", "loss", "seed", "profile"):
            if column in some:
                table[column] = table.group.map(some.groupby("group")[column].first())
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _group_by_group(
    groups: Sequence[Group],
    out: str | Path,
    key: Callable[[Group], str],
    run: Callable[[Group, Callable[[str], None]], pd.DataFrame],
    table: Callable[[pd.DataFrame], pd.DataFrame],
    progress: Callable[[str], None] | None,
) -> pd.DataFrame:
    """The table of the photographs' rows, written to `out` after each group.

    The rows are kept in `<out>.photos.csv`, see `coseglib.evaluation.kept`. Raises CosegError before minutes are spent
    where there is no group, or one without masks.
    """
    if not groups:
        raise CosegError("no groups to score in this data set; choose another one")
    for group in groups:
        if not group.targets:
            raise CosegError(f"{group.name}: no classes to score by; give a group with masks")
    kept, say = Path(out).with_name(f"{Path(out).stem}.photos.csv"), progress or (lambda text: None)
    parts = {f"{g.name} ({i} of {len(groups)}, {len(g)} photos)": g for i, g in enumerate(groups, start=1)}
    for rows in resumable_rows(parts, kept, key, run, say, NUMBERS, LEARNED):
        found = table(rows)
        write_table(found, out)
    return found


def evaluate_groups(
    groups: Sequence[Group],
    config: OnlineConfig,
    out: str | Path,
    systems: Sequence[str] = ("SA+MA",),
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> pd.DataFrame:
    """`table_of` the rows of `group_rows` of every group, written to `out` after each, the rows beside it.

    Groups that these hold, of the same photographs and configuration, are not run again. Raises CosegError where
    nothing can be written, and as `co_segment` does.
    """
    return _group_by_group(
        groups,
        out,
        lambda group: f"{_key(group, config)} {'|'.join(systems)}",
        lambda group, say: group_rows(group, config, systems, say, weights_root),
        table_of,
        progress,
    )


def multiclass_table(
    groups: Sequence[Group],
    system: OnlineConfig | MultiClass,
    out: str | Path,
    classes: int | None = None,
    post: str | None = None,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> pd.DataFrame:
    """Columns dataset, group, images, P, J, protocol, "checkpoint sha256", seconds (an image); last row of group "all".

    system   a configuration, by which a generator learns on each group (no checksum then), or one from `load_model`
    classes  K where it learns; None: as many as the group has
    post     "argmax" or "crf"; None: as the configuration says
    Written, resumed and refused as by `evaluate_groups`.
    """
    learns = isinstance(system, OnlineConfig)
    post = post_of(system, post)
    checksum = "" if learns else system.card["sha256"]

    def k(group: Group) -> int:
        return (classes or len(group.targets)) if learns else system.classes

    def run(group: Group, say: Callable[[str], None]) -> pd.DataFrame:
        began = time.perf_counter()
        if learns:
            labels = co_segment(group.photos, k(group), system, say, weights_root).labels(post)
        else:
            labels = list(segment_group(system, group.photos, post=post))
        seconds = (time.perf_counter() - began) / len(group)
        say(f"{seconds:.2f} s an image")
        return score_group(group, labels, k(group) + 1).assign(seconds=seconds)

    def key(group: Group) -> str:
        return _key(group, system if learns else checksum, k(group), post, group.content(masks=True))

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        found = metrics.aggregate(rows, "multiclass")
        found.insert(found.columns.get_loc("protocol") + 1, "checkpoint sha256", checksum)
        return found

    return _group_by_group(groups, out, key, run, table, progress)
