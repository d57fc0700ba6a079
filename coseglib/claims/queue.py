"""The queue of `coseg ablate`: what the papers' claims need, trained and scored one after the other, resumable.

Its table has a row a training, set, kind of answer and group; `coseglib.claims.verdicts` reads it.
"""

import dataclasses
import math
import shutil
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from coseglib.answering.answers import Engine, Question
from coseglib.answering.masks import masks
from coseglib.claims import papers_claims as papers
from coseglib.claims.papers_claims import Claim, Training, Variant
from coseglib.core.devices import device_name
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.progress import clock
from coseglib.core.tables import read_table, write_table
from coseglib.data import load, validation_groups
from coseglib.data.record import Group
from coseglib.data.sets.multiclass import drawn_groups, sample_photos
from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation.choosing import few, read_once
from coseglib.evaluation.kept import LEARNED, Say, code_hash, digest_of
from coseglib.evaluation.tables import evaluate_groups
from coseglib.models.checkpoints import load_model, sha256
from coseglib.models.contract import POSTS
from coseglib.scoring import metrics
from coseglib.scoring.rows import evaluate, partner_swap, refusal
from coseglib.training.configuration import TrainConfig
from coseglib.training.loop import train
from coseglib.training.state import MODEL, STATE, Log
from coseglib.unsupervised.configuration import OnlineConfig

TABLE = "ablations.csv"  # in the queue's folder
COLUMNS = (
    "system", "variant", "profile", "seed", "set", "how", "dataset", "group", "images", "P", "J", "swap", "AUROC",
    "steps", "seconds", "device", "date", "recipe", "checkpoint", "key", "code",
)  # fmt: skip
NUMBERS = dict.fromkeys(("seed", "images", "steps"), int)
NUMBERS |= dict.fromkeys(("P", "J", "swap", "AUROC", "seconds"), float)
ROOMS = (*LEARNED, "training")  # whose code a row depends on


# Photographs ----------------------------------------------------------------------------------------------------------


def photographs(profile: str) -> dict[str, list[Group]]:
    """SEEN and UNSEEN of a profile; smoke: scenes, other ones for each. Raises CosegError where a set is missing."""
    budget = papers.BUDGETS[profile]
    if profile == "smoke":
        seen = load_synthetic("val", groups=3, photos=budget.photos, size=64)
        unseen = load_synthetic("test", groups=("leaf", "drop", "bolt"), photos=budget.unseen, size=64)
    else:
        seen, unseen = validation_groups(), load("icoseg8")
    return {papers.SEEN: read_once(few(seen, budget.photos)), papers.UNSEEN: read_once(few(unseen, budget.unseen))}


def several_classes(profile: str) -> list[Group]:
    """The groups of two classes that the multi-class system learns on."""
    budget = papers.BUDGETS[profile]
    if profile == "smoke":
        return drawn_groups(budget.groups, budget.each, size=64)
    groups = [g for g in load("voc-multiclass") if len(g.targets) == 2][: budget.groups]
    return [dataclasses.replace(g, photos=sample_photos(g.photos, budget.each)) for g in groups]


# One training ---------------------------------------------------------------------------------------------------------


def with_stranger(model, groups: Sequence[Group], how: str = papers.MEAN) -> pd.DataFrame:
    """J of a group's photographs when one that lacks its class is among their partners: rows as `evaluate`'s, in part.

    The stranger is a photograph of the group half the table away, or the next one that lacks the class. N + 1 images
    have nothing in common then, and all but one have. Columns dataset, group, name, P, J.
    """
    rows = []
    for g, group in enumerate(groups):
        own = {p.content() for p in group.photos}
        away = (groups[(g + max(1, len(groups) // 2) + k) % len(groups)] for k in range(len(groups) - 1))
        others = (p for other in away for p in other.photos if p.content() not in own)
        strangers = (p for p in others if not (p.mask(group.targets) == 1).any())
        stranger = next(strangers, None)
        if stranger is None:
            raise CosegError(f"{group.name}: no photograph lacks its class; give groups of several classes")
        photos = [*group.photos, stranger]
        questions = [Question(i, range(len(photos))) for i in range(len(group))]
        for answer, mask in masks(model, Engine(model, photos).answers(questions, how), count=len(group)):
            truth = group.mask(answer.photo)
            scores = {"P": metrics.precision(mask, truth), "J": metrics.jaccard(mask, truth)}
            rows.append({"dataset": group.dataset, "group": group.name, "name": photos[answer.photo].name, **scores})
    return pd.DataFrame(rows)


def _groupwise(rows: pd.DataFrame, where: str, how: str = papers.MEAN) -> pd.DataFrame:
    """A row a group and one of group "all"."""
    return metrics.aggregate(rows).assign(set=where, how=how)


def rows_of(model, sets: Mapping[str, list[Group]]) -> pd.DataFrame:
    """All that is asked of one model: J and P by set, kind of answer and group, swap and AUROC on SEEN, all groups."""
    seen = sets[papers.SEEN]
    tables = [_groupwise(evaluate(model, some), where) for where, some in sets.items()]
    first = tables[0].group == "all"
    tables[0].loc[first, "swap"] = float(partner_swap(model, seen).score.mean())
    unsure = refusal(model, seen)
    tables[0].loc[first, "AUROC"] = metrics.auroc(unsure.score, unsure.common)
    if model.kind == "context":
        tables.append(_groupwise(evaluate(model, seen, how=papers.MIN), papers.SEEN, papers.MIN))
        tables += [
            _groupwise(with_stranger(model, seen, how), papers.STRANGER, how) for how in (papers.MEAN, papers.MIN)
        ]
    return pd.concat(tables, ignore_index=True)


def _trained(one: Training, config: TrainConfig, folder: Path, sets) -> pd.DataFrame:
    """Train, or go on with a training that was killed, and score. A finished model whose state is gone is scored."""
    file = folder / MODEL
    finished = file.is_file() and not (folder / STATE).exists() and Log.last_step(folder / "log.csv") >= config.steps
    if not finished:
        train(config, folder, resume=True, quiet=True)
    model = load_model(file, one.variant.method, precision=config.precision)  # as it was trained
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = rows_of(model.to(device), sets)
    return rows.assign(steps=config.steps, checkpoint=sha256(file))


def _learned(one: Training, config: OnlineConfig, folder: Path, groups) -> pd.DataFrame:
    """Learn on each group, see `coseglib.evaluation.tables`: rows by argmax and by CRF."""
    name = one.variant.name
    found = evaluate_groups(groups, config, folder / "groups.csv", (name,))
    tables = [found[found.system == f"{name}, {post}"].assign(how=post) for post in POSTS]
    rows = pd.concat(tables, ignore_index=True)[["dataset", "group", "images", "P", "J", "how"]]
    return rows.assign(set=papers.TWO, steps=config.epochs, checkpoint="")


# The queue ------------------------------------------------------------------------------------------------------------


def read_ablations(path: str | Path) -> pd.DataFrame:
    """The rows of a queue's table, `COLUMNS`; none of a file that is not there. Raises CosegError for another file.

    code  "" of rows that were written before tables said it
    """
    if not Path(path).is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    wanted = dict.fromkeys(COLUMNS[:-1], str) | NUMBERS
    table = read_table(path, wanted, "it is no table of `coseg ablate`: move it away, or choose another folder")
    return table if "code" in table else table.assign(code="")


def _alone(folder: Path):
    """A block in which no other queue works in the folder. The lock goes with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise CosegError(f"{folder}: another queue is at work there; wait, or choose another folder") from error
    except OSError as error:
        raise CosegError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error


def _key(config: TrainConfig | OnlineConfig, groups: Iterable[Group]) -> str:
    """What a run's rows depend on: its recipe and seed, and the photographs that it is asked about."""
    return digest_of([papers.recipe(config), config.seed, *((g.dataset, g.name, g.content()) for g in groups)])


def _named(one: Training, profile: str) -> dict[str, str | int]:
    return {"system": one.variant.system, "variant": one.variant.name, "seed": one.seed, "profile": profile}


def _here() -> dict[str, str]:
    """Device and date. Rows of two kinds of device differ by its rounding, much as those of two seeds do."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"device": device_name(device), "date": date.today().isoformat()}


def _twin(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Rows of the same training under another variant's name; none where it was not run.

    The smoke profile's maps are so small that PFCC's kernels of 11 and of 15 become one size, and a configuration and a
    seed decide a training: to run it again would give these rows again.
    """
    same = table[table.key == key]
    return same[same.variant == same.variant.iloc[0]] if len(same) else same


def _grown(table: pd.DataFrame, rows: pd.DataFrame, output: Path) -> pd.DataFrame:
    """The table and more rows, written."""
    table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
    write_table(table, output / TABLE)
    return table


class Outcome(NamedTuple):
    """table: all rows of the profile so far; failed: {run: why}."""

    table: pd.DataFrame
    failed: dict[str, str]


def ablate(
    output: str | Path,
    profile: str = "cpu",
    only: Sequence[str] = (),
    seeds: int = papers.SEEDS,
    say: Say = print,
    keep: bool = True,
) -> Outcome:
    """Train and score what some claims need (see `chosen_claims`), one after the other; `output`/ablations.csv grows.

    What stands there of the same recipe, seed, photographs and code is not run again, what was killed goes on where it
    was, what fails is named and the others go on. keep: models stay in `output`/<run>/; a failure's error.txt does.
    Raises CosegError for unknown names, for data sets that are missing, and where another queue is at work.
    """
    output, wanted = Path(output), papers.plan(papers.chosen_claims(only), seeds, papers.asked_besides(only))
    configs = {one: papers.config_of(one.variant, profile, one.seed) for one in wanted}
    online = {one for one, config in configs.items() if isinstance(config, OnlineConfig)}
    with _alone(output):
        sets = photographs(profile) if len(online) < len(wanted) else {}
        several = several_classes(profile) if online else []
        masked = [group for some in sets.values() for group in some]
        keys = {one: _key(configs[one], several if one in online else masked) for one in wanted}
        code, table = code_hash(ROOMS), read_ablations(output / TABLE)
        stale = table.key.isin(keys.values()) & (table.code != code)
        if stale.any():
            say(f"{TABLE}: {table[stale].key.nunique()} trainings are of other code and run anew")
        table = table[~stale]
        there = set(zip(table.key, table.variant, strict=True))
        missing = [one for one in wanted if (keys[one], one.variant.name) not in there]
        say(f"{len(wanted)} trainings, {len(wanted) - len(missing)} done before, {len(missing)} to run: {output}")
        spent, failed = defaultdict(list), {}
        for number, one in enumerate(missing, start=1):
            config, began = configs[one], time.perf_counter()
            folder = output / f"{one.variant.method}-{keys[one]}-{code}"
            if len(twin := _twin(table, keys[one])):
                table = _grown(table, twin.assign(**_named(one, profile)), output)
                say(f"{number}/{len(missing)} {one}: the same training as {twin.variant.iloc[0]}, whose scores it has")
                continue
            try:
                rows = _learned(one, config, folder, several) if one in online else _trained(one, config, folder, sets)
            except Exception as error:  # whatever it is, the others are not to be lost
                failed[str(one)] = f"{type(error).__name__}: {' '.join(str(error).split())}"
                folder.mkdir(exist_ok=True)
                write_text(folder / "error.txt", traceback.format_exc())
                say(f"{number}/{len(missing)} {one}: failed, {failed[str(one)]}; the others go on")
                continue
            seconds = time.perf_counter() - began
            about = {"recipe": papers.recipe(config), "key": keys[one], "code": code, "seconds": seconds}
            rows = rows.assign(**_named(one, profile), **about, **_here()).reindex(columns=list(COLUMNS))
            table = _grown(table, rows, output)
            (folder / STATE).unlink(missing_ok=True)  # three times the model's size, and of no use once its row stands
            if not keep:
                shutil.rmtree(folder)
            spent[one.variant.system].append(seconds)
            first = rows[rows.group == "all"].iloc[0]
            eta, where = clock(remaining(missing[number:], spent)), papers.set_in_words(first["set"], profile)
            say(f"{number}/{len(missing)} {one}: J {first.J:.3f} on {where}, {seconds:.0f} s; ETA {eta}")
        for name, why in failed.items():
            say(f"failed: {name}: {why}")
    return Outcome(table[table.profile == profile].reset_index(drop=True), failed)


def remaining(trainings: Sequence[Training], spent: Mapping[str, list[float]]) -> float:
    """Seconds that some trainings will take: each what its system's took so far, or the mean of all systems'."""
    everything = [seconds for of_system in spent.values() for seconds in of_system] or [0.0]
    return float(sum(np.mean(spent.get(one.variant.system, everything)) for one in trainings))


def planned(
    claims: Iterable[Claim],
    profile: str,
    seeds: int = papers.SEEDS,
    table: pd.DataFrame | None = None,
    besides: Iterable[Variant] = (),
) -> pd.DataFrame:
    """What the queue has before it: a row a system, and one of all.

    Columns system, variants, trainings, done, "steps a training", "photographs a step", "side (pixels)", and minutes of
    all its trainings, by the mean of those that are done, NaN before the first; the sum is of those that are known.
    table: of `read_ablations`.
    """
    table = pd.DataFrame(columns=list(COLUMNS)) if table is None else table[table.profile == profile]
    trainings, rows = papers.plan(claims, seeds, besides), []
    for system in dict.fromkeys(one.variant.system for one in trainings):
        own = [one for one in trainings if one.variant.system == system]
        config = papers.config_of(own[0].variant, profile)
        online = isinstance(config, OnlineConfig)
        once = table[table.system == system].drop_duplicates(["variant", "seed"])
        done = set(zip(once.variant, once.seed, strict=True)) & {(one.variant.name, one.seed) for one in own}
        row = {"system": system, "variants": len({one.variant for one in own}), "trainings": len(own)}
        row |= {"done": len(done), "steps a training": f"{config.epochs} epochs" if online else str(config.steps)}
        row |= {"photographs a step": config.batch if online else config.groups * config.group_size}
        minutes = once.seconds.mean() * len(own) / 60 if len(once) else math.nan
        rows.append({**row, "side (pixels)": config.input_size, "minutes": minutes})
    whole = {"system": "all", **{k: sum(row[k] for row in rows) for k in ("variants", "trainings", "done")}}
    known = [row["minutes"] for row in rows if not math.isnan(row["minutes"])]
    whole["minutes"] = sum(known) if known else math.nan
    return pd.DataFrame([*rows, whole])


def results(
    profile: str,
    kept: str | Path,
    queue: str | Path | None = None,
    claims: Sequence[str] = (),
    seeds: int = papers.SEEDS,
    say: Say = print,
) -> pd.DataFrame:
    """A profile's rows for the notebook: those of the table `kept`, a copy of a queue's.

    queue  a folder: what some claims lack there is trained first, models not kept, `kept` made anew. None: no training
    Raises CosegError where there is no row: `coseg ablate` makes the table.
    """
    if queue is not None:
        write_table(ablate(queue, profile, claims, seeds, say, keep=False).table, kept)
    table = read_ablations(kept)
    table = table[table.profile == profile].reset_index(drop=True)
    if table.empty:
        raise CosegError(f"{kept}: no rows; run coseg ablate --profile {profile} -o DIR and copy DIR/{TABLE} there")
    return table
