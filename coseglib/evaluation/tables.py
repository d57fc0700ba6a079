"""Tables of results, a row a group and a last row `all`: `coseg evaluate`, and what learns on each group.

Those of several classes are written after each group, the photographs' rows beside them: a run that was killed goes on.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from coseglib.answering.masks import post_of, segment_group
from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.core.files import writable
from coseglib.core.tables import write_table
from coseglib.data import CHOOSING, load, unseen_groups, validation_groups
from coseglib.data.record import Group, check_masks
from coseglib.evaluation.kept import LEARNED, Part, Say, digest_of, resumable_rows
from coseglib.models.contract import POSTS
from coseglib.models.multiclass import MultiClass
from coseglib.scoring import metrics
from coseglib.scoring.prior_weight import weight_rows
from coseglib.scoring.references import reference_rows, swap_by_reference
from coseglib.scoring.rows import evaluate, partner_swap, refusal
from coseglib.unsupervised.configuration import ONLINE_PROFILES, OnlineConfig, load_online
from coseglib.unsupervised.floors import FEATURE_FLOORS, label_maps
from coseglib.unsupervised.learner import co_segment
from coseglib.unsupervised.scores import colour_kmeans, score_group, stripes

SPECIAL = ("partner-swap", "refusal", "reference")  # protocols that choose what they ask about
SOURCES = {"voc-val": "voc-train"}  # where the partners of a set's two-class photographs come from, if not from itself


def _swap(questions: pd.DataFrame) -> pd.DataFrame:
    """Means of J_asked, J_other and score by the class asked for; `all`: over the questions. images: questions."""
    table = pd.concat([questions, questions.assign(asked="all")]).groupby("asked", sort=False)
    figures = {name: (name, "mean") for name in ("J_asked", "J_other", "score")}
    return table.agg(images=("score", "size"), **figures).rename_axis("group").reset_index()


def _refused(answers: pd.DataFrame) -> pd.DataFrame:
    """AUROC by group; `all`: over all photographs. images: photographs, each asked about twice."""
    table = pd.concat([answers, answers.assign(group="all")]).groupby("group", sort=False)
    rows = ((name, len(some) // 2, metrics.auroc(some.score, some.common)) for name, some in table)
    return pd.DataFrame(rows, columns=["group", "images", "AUROC"])


def _with_model(table: pd.DataFrame, checksum: str, precision: str) -> pd.DataFrame:
    place = table.columns.get_loc("protocol") + 1
    table.insert(place, "checkpoint sha256", checksum)
    table.insert(place + 1, "precision", precision)
    return table


def cuts(limit: int | None, groups: Sequence[Group]) -> bool:
    """Whether a limit leaves photographs of a group out. Then nobody knows what an answer takes.

    The whole group is read and encoded for the few that are scored, and their seconds would hold it all.
    """
    return limit is not None and any(len(group) > limit for group in groups)


def evaluation_table(
    model: torch.nn.Module,
    dataset: str,
    protocol: str = "common",
    partner: str = "group",
    how: str = "mean",
    limit: int | None = None,
    quiet: bool = True,
    references: int | None = None,
) -> pd.DataFrame:
    """Columns dataset, group, images, P, J, protocol, "checkpoint sha256", precision, seconds (an
    image), and where a prior was added its name, weight and checksum; last row of group "all".

    model       from `load_model` or `build_floor`, on the device where it is to answer
    dataset     a name of `coseglib.data.NAMES` or a folder
    protocol    a key of `metrics.PROTOCOLS`; "partner-swap": J_asked, J_other, score for P and J, images counts
                questions; "refusal": AUROC for P and J; "reference": as `common`, a table for each number of references
    references  partner-swap: so many of a question's partners come with their masks
    partner, how, limit, quiet  as of `scoring.rows.evaluate`; partner-swap knows `how` alone, refusal none. Seconds are
                NaN where the limit cuts a group, see `cuts`
    Raises CosegError for names that do not exist, photographs without masks, and options that a protocol ignores.
    """
    known = (*metrics.PROTOCOLS, *SPECIAL)
    if protocol not in known:
        raise CosegError(f"{protocol}: no such protocol; one of {', '.join(known)}")
    if protocol in SPECIAL and (partner != "group" or limit is not None):
        raise CosegError(f"{protocol}: chooses partners and photographs itself; leave out --partner and --limit")
    if references and protocol != "partner-swap":
        raise CosegError(
            f"{protocol}: takes no --references; partner-swap does, and --protocol reference shows 1, 3 and 5"
        )
    groups = load(dataset)
    started = time.perf_counter()
    if protocol in metrics.PROTOCOLS:
        rows = evaluate(model, groups, protocol, partner, how, limit, quiet=quiet)
        table = metrics.aggregate(rows.assign(seconds=math.nan) if cuts(limit, groups) else rows, protocol)
    elif protocol == "reference":
        by_count = reference_rows(model, groups, how=how, quiet=quiet).groupby("references", sort=False)
        tables = [metrics.aggregate(rows).assign(references=count) for count, rows in by_count]
        table = pd.concat(tables, ignore_index=True).assign(protocol=protocol)
    else:
        sources = load(SOURCES[dataset]) if dataset in SOURCES else None
        if protocol == "partner-swap":
            asked = {"how": how, "sources": sources}
            by_mask = references and swap_by_reference(model, groups, references, **asked)
            table = _swap(by_mask if references else partner_swap(model, groups, **asked))
        else:
            table = _refused(refusal(model, groups))
        table.insert(0, "dataset", groups[0].dataset)
        table["protocol"] = protocol
        table["seconds"] = (time.perf_counter() - started) / table.images.iloc[-1]
    precision = precision_of(model.precision, next(model.parameters()).device)
    return _with_prior(_with_model(table, model.card["sha256"], precision), model.prior)


def _with_prior(table: pd.DataFrame, prior) -> pd.DataFrame:
    """Where a prior was added, columns prior, "prior weight" and "prior sha256", as the last ones."""
    if prior is None:
        return table
    about = prior.about()
    return table.assign(**{"prior": about["name"], "prior weight": about["weight"], "prior sha256": about["sha256"]})


def weight_table(
    model: torch.nn.Module, dataset: str | None = None, how: str = "mean", limit: int | None = None, quiet: bool = True
) -> pd.DataFrame:
    """Which weight a model's prior should have: a row a validation set and weight, and rows over all of them.

    dataset  one of `coseglib.data.CHOOSING`; None: all, kinds that train ("seen") and kinds that never do ("unseen"),
             and the mean of the two J ("all") decides, as it does for models
    Columns dataset, "prior weight", images, P, J, chosen ("yes" where J is the largest, of equal ones at the smallest
    weight), protocol, "checkpoint sha256", precision, prior, "prior sha256". how, limit, quiet: of `evaluate`.
    Raises CosegError for a set that chooses nothing, and as `weight_rows` does.
    """
    if dataset is not None and dataset not in CHOOSING:
        raise CosegError(f"{dataset}: chooses no weight; one of {', '.join(CHOOSING)}, or none of them for all")
    sets = {dataset: load(dataset)} if dataset else {"seen": validation_groups(), "unseen": unseen_groups()}
    tables = []
    for name, groups in sets.items():
        rows = weight_rows(model, groups, how=how, limit=limit, quiet=quiet)
        each = [(weight, metrics.aggregate(some).iloc[-1]) for weight, some in rows.groupby("weight")]
        about = [{"prior weight": w, "images": whole.images, "P": whole.P, "J": whole.J} for w, whole in each]
        tables.append(pd.DataFrame(about).assign(dataset=name))
    if len(tables) > 1:
        means = sum(table[["P", "J"]] for table in tables) / len(tables)
        images = sum(table.images for table in tables)
        tables.append(tables[0].assign(**means, images=images, dataset="all"))
    last = tables[-1]
    tables[-1] = last.assign(chosen=["yes" if place == last.J.argmax() else "" for place in range(len(last))])
    table = pd.concat(tables, ignore_index=True).fillna({"chosen": ""}).assign(protocol="common")
    table = table[["dataset", "prior weight", "images", "P", "J", "chosen", "protocol"]]
    precision = precision_of(model.precision, next(model.parameters()).device)
    table = _with_model(table, model.card["sha256"], precision)
    return table.assign(**{"prior": model.prior.name, "prior sha256": model.prior.sha256})


# Several classes ------------------------------------------------------------------------------------------------------

ABLATIONS = {
    "w/o ATT": {"self_attention": False, "mutual_attention": False},
    "SA": {"self_attention": True, "mutual_attention": False},
    "MA": {"self_attention": False, "mutual_attention": True},
    "SA+MA": {"self_attention": True, "mutual_attention": True},
}
# What may be numbers in photographs' rows.
NUMBERS = ("P", "J", *(f"J_{k}" for k in range(1, 256)), "seconds", "learning_rate", "loss", "epochs", "seed")
NUMBERS = dict.fromkeys(NUMBERS, float)  # whole ones too: rows of another table in the same file have none
WITHOUT_NETWORK = ("colour k-means", "stripes across", "stripes down")
BASELINES = (*WITHOUT_NETWORK, *FEATURE_FLOORS)


def _key(group: Group, system: object, *more: object) -> str:
    """What a group's rows depend on: the configuration's fields, or a checkpoint's SHA-256, its files, and more."""
    return digest_of([system, group.name, group.content(masks=True), *more])


def group_rows(
    group: Group, config: OnlineConfig, systems: Sequence[str] = ("SA+MA",), progress: Say = lambda text: None
) -> pd.DataFrame:
    """A row a photograph and system: the floors, and each of `systems` (see ABLATIONS) by argmax and by CRF.

    Columns as `score_group`'s, and system, learning_rate, epochs, loss, seconds (an image), seed, and the profile,
    "changed" where single fields were. The clusters of colours and stripes may all become classes; of the maps of what
    sees features the first stays background.
    """
    clusters, tables = len(group.targets) + 1, []
    for name in WITHOUT_NETWORK:
        began = time.perf_counter()
        if name == "colour k-means":
            labels = colour_kmeans(group.photos, clusters, config.seed)
        else:
            sizes = [tuple(p.image().shape[-2:]) for p in group.photos]
            labels = [stripes(size, clusters, across=name.endswith("across")) for size in sizes]
        rows = score_group(group, labels, clusters, background=None)
        tables.append(rows.assign(system=name, seconds=(time.perf_counter() - began) / len(group)))
    for name in FEATURE_FLOORS:
        began = time.perf_counter()
        rows = score_group(group, label_maps(name, group.photos, clusters - 1, config), clusters)
        tables.append(rows.assign(system=name, seconds=(time.perf_counter() - began) / len(group)))
    for name in systems:
        chosen, say = config.replaced(**ABLATIONS[name]), lambda text, name=name: progress(f"{name}: {text}")
        found = co_segment(group.photos, clusters - 1, chosen, say)
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
    part_of: Callable[[Group], Part],
    table_from: Callable[[pd.DataFrame], pd.DataFrame],
    progress: Say,
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
    check_masks(photo for group in groups for photo in group.photos)
    kept = writable(Path(out).with_name(f"{Path(out).stem}.photos.csv"), folder=False)
    parts = {f"{g.name} ({i} of {len(groups)}, {len(g)} photos)": part_of(g) for i, g in enumerate(groups, start=1)}
    for rows in resumable_rows(parts, kept, progress, NUMBERS, LEARNED):
        found = table_from(rows)
        write_table(found, out)
    return found


def evaluate_groups(
    groups: Sequence[Group],
    config: OnlineConfig,
    out: str | Path,
    systems: Sequence[str] = ("SA+MA",),
    progress: Say = lambda text: None,
) -> pd.DataFrame:
    """`table_of` the rows of `group_rows` of every group, written to `out` after each, the rows beside it.

    Groups that these hold, of the same photographs and configuration, are not run again. Raises CosegError where
    nothing can be written, and as `co_segment` does.
    """

    def part_of(group: Group) -> Part:
        key = f"{_key(group, config.fields())} {'|'.join(systems)}"
        return Part(key, partial(group_rows, group, config, systems))

    return _group_by_group(groups, out, part_of, table_of, progress)


def multiclass_table(
    groups: Sequence[Group],
    system: OnlineConfig | MultiClass,
    out: str | Path,
    classes: int | None = None,
    post: str | None = None,
    progress: Say = lambda text: None,
) -> pd.DataFrame:
    """`evaluation_table`'s columns, of one way to have several classes. Written, resumed, refused as `evaluate_groups`.

    system   a configuration, by which a generator learns on each group (no checksum then), or one from `load_model`
    classes  K where it learns; None: as many as the group has
    post     "argmax" or "crf"; None: as the configuration says
    """
    learns = isinstance(system, OnlineConfig)
    post = post_of(system, post)
    checksum = "" if learns else system.card["sha256"]
    precision = precision_of(system.precision, system.device if learns else next(system.parameters()).device)

    def run(group: Group, k: int, say: Say) -> pd.DataFrame:
        began = time.perf_counter()
        if learns:
            labels = co_segment(group.photos, k, system, say).labels(post)
        else:
            labels = list(segment_group(system, group.photos, post=post))
        seconds = (time.perf_counter() - began) / len(group)
        say(f"{seconds:.2f} s an image")
        return score_group(group, labels, k + 1).assign(seconds=seconds)

    def part_of(group: Group) -> Part:
        k = (classes or len(group.targets)) if learns else system.classes
        key = _key(group, system.fields() if learns else checksum, k, post)
        return Part(key, partial(run, group, k))

    def table_from(rows: pd.DataFrame) -> pd.DataFrame:
        return _with_model(metrics.aggregate(rows, "multiclass"), checksum, precision)

    return _group_by_group(groups, out, part_of, table_from, progress)
