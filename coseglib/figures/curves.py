"""Several trainings side by side: made unless they are there, their curves in one tidy table, and what they cost.

    runs = train_all(plan(("ca", "dcnet"), "smoke", {"steps": 20}), folder)      trains what is not there yet
    tidy(runs)      costs(runs)      shipped()      terms(runs["ca"])      show_curves(tidy(runs))

A training is there when a folder holds its checkpoint and a log to the last step under the very same configuration. One
that was broken off goes on from its last state. Which folder: `home`, named by method and configuration, so that other
settings never meet the files of these.

How memory is measured. Each training has a process of its own, made anew from one that has imported the library and
done nothing else, so that no training sees what another one left behind. Its figure is the largest resident set of that
process (`ru_maxrss`), libraries and photographs among it; `before`, taken just before the training starts, is what the
process held by then. On a GPU it is the most that torch had allocated there, and nothing before.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import resource
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.paths import CHECKPOINTS
from coseglib.data.sampler import GroupSampler
from coseglib.evaluation.reproduction import cards
from coseglib.figures.plots import SERIES, STYLE
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model
from coseglib.training.loop import MAY_CHANGE, Log, TrainConfig, load_profile, photographs, train

COLUMNS = ("system", "step", "seconds", "images", "loss", "J", "val_J", "images_per_s")
CURVES = {"J": "J in training", "val_J": "J in validation"}
MEMORY = "memory.json"  # beside log.csv: before and peak in bytes, and of what
LOOK = 15.0  # seconds between two looks at a log that is being written
AXES = {
    "step": "optimisation step",
    "images": "images seen",
    "seconds": "seconds of training",
}


@dataclass(frozen=True)
class Run:
    """A training that is there. log: columns COLUMNS but for `system`; memory: {} where it was not measured."""

    name: str
    folder: Path
    config: TrainConfig
    log: pd.DataFrame
    memory: dict


# Training -------------------------------------------------------------------------------------------------------------


def plan(methods: Sequence[str], profile: str, overrides: Mapping | None = None) -> dict[str, TrainConfig]:
    """{method: its configuration} in a profile of `coseglib.training.loop`, single fields set anew for all of them.

    Raises CosegError for methods, profiles, fields and values that do not exist, and for no method at all.
    """
    if not methods:
        raise CosegError(f"no method is named; one or more of {', '.join(m for m in METHODS if not METHODS[m].online)}")
    return {method: load_profile(profile, method, dict(overrides or {})) for method in methods}


def _deciding(config: TrainConfig) -> dict:
    """The fields that decide a training's result, as YAML and JSON give them back: lists for tuples."""
    fields = json.loads(json.dumps(dataclasses.asdict(config)))
    return {name: value for name, value in fields.items() if name not in MAY_CHANGE}


def home(root: str | Path, name: str, config: TrainConfig) -> Path:
    """Where a training is kept: `root`/<name>-<8 digits of its configuration>."""
    text = json.dumps(_deciding(config), sort_keys=True)
    return Path(root) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def config_of(folder: str | Path) -> TrainConfig:
    """The configuration that a run's folder holds. Raises CosegError where it has none, or one of another version."""
    file = Path(folder) / "config.yaml"
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TrainConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except OSError as error:
        raise CosegError(f"{file}: {error.strerror}; give a folder that `coseg train` wrote") from error
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise CosegError(
            f"{file}: no configuration of this version ({str(error).splitlines()[0]}); train anew"
        ) from error


def read_log(file: str | Path, training: Mapping) -> pd.DataFrame:
    """A training's log, a row a step: COLUMNS but for `system`; a validation joins the row of its step.

    training  its configuration's fields, as cards have them
    images    seen so far: groups × photographs a group × steps; NaN where batches of several sides hold several numbers
    Raises CosegError for a log that is missing, damaged or empty.
    """
    try:
        rows = pd.read_csv(file)
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable bytes are ValueErrors
        raise CosegError(
            f"{file}: not read ({str(error).splitlines()[0]}); give a run's folder, or train anew"
        ) from error
    missing = [name for name in ("step", "seconds", "loss", "J", "images_per_s") if name not in rows]
    if missing or rows.loss.notna().sum() == 0:
        why = f"lacks the column {missing[0]}" if missing else "holds no row of training yet"
        raise CosegError(f"{file}: {why}; train on, or train anew")
    rows = rows.reindex(columns=list(Log.COLUMNS)).groupby("step", as_index=False).first().sort_values("step")
    a_step = training["groups"] * training["group_size"] if len(training.get("sides", ())) < 2 else np.nan
    return rows.assign(images=rows.step * a_step)[list(COLUMNS[1:])].reset_index(drop=True)


def log_of(folder: str | Path, config: TrainConfig) -> pd.DataFrame:
    """`read_log` of a run's folder."""
    return read_log(Path(folder) / "log.csv", dataclasses.asdict(config))


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """A run's folder; name: what it is called in tables, None: the folder's name. Raises CosegError as its parts do."""
    folder = Path(folder)
    config = config_of(folder)
    memory = {}
    with contextlib.suppress(OSError, json.JSONDecodeError):
        memory = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
    return Run(name or folder.name, folder, config, log_of(folder, config), memory)


def is_there(folder: str | Path, config: TrainConfig) -> bool:
    """Whether a folder holds this training to its end: its checkpoint, its log to the last step, its configuration.

    Raises CosegError where the folder holds another configuration: its files are not to be written over.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        return False
    ours, theirs = _deciding(config), _deciding(config_of(folder))
    for name in ours:
        if ours[name] != theirs[name]:
            raise CosegError(f"{folder}: holds a training with {name} = {theirs[name]}, not {ours[name]}; give another")
    if not (folder / "model.safetensors").is_file():
        return False
    try:
        log = log_of(folder, config)
    except CosegError:
        return False
    # The checkpoint of a run that validates is the best one so far: it alone does not say that the run is at its end.
    return int(log.step[log.loss.notna()].max()) >= config.steps


def train_all(
    plans: Mapping[str, TrainConfig],
    root: str | Path,
    say: Callable[[str], None] = print,
    apart: bool = True,
    data_root=None,
    weights_root=None,
) -> dict[str, Run]:
    """{name: Run} of all trainings; those that are not there are made, those that were broken off go on.

    root   the folder that holds them, see `home`
    apart  each in a process of its own, which is how memory is measured; False: here, and memory is not known
    One device each, a GPU where there is one.
    A training that cannot be made (no photographs here, no weights) is named and left out; where none can, CosegError.
    """
    runs, failed = {}, []
    for name, config in plans.items():
        folder = home(root, name, config)
        try:
            if is_there(folder, config):
                say(f"{name}: there already, {config.steps} steps")
            else:
                _made(name, config, folder, say, apart, data_root, weights_root)
            runs[name] = read_run(folder, name)
        except CosegError as error:
            failed.append(f"{name}: {error}")
            say(f"{name}: left out, {error}")
    if not runs:
        raise CosegError(failed[0] if failed else "no training is asked for; name a method")
    return runs


def _made(name, config, folder: Path, say, apart: bool, data_root, weights_root) -> None:
    """Train one, tell how it goes, and keep how much memory it took."""
    begun = (folder / "state.safetensors").is_file()
    say(f"{name}: {'goes on' if begun else 'trains'}, {config.steps} steps")
    if not apart:
        train(config, folder, True, data_root, weights_root, devices=1, quiet=True)
        return
    told = [0]

    def look() -> None:
        with contextlib.suppress(CosegError, OSError):
            last = log_of(folder, config).dropna(subset=["loss"]).iloc[-1]
            if last.step > told[0]:
                told[0] = last.step
                say(f"{name}: step {last.step:.0f} of {config.steps}, loss {last.loss:.4f}, J {last.J:.3f}")

    _, memory = in_a_process(_trained, config, folder, data_root, weights_root, while_it_runs=look)
    with contextlib.suppress(OSError, json.JSONDecodeError):  # what the part before the interruption took
        memory["peak"] = max(memory["peak"], json.loads((folder / MEMORY).read_text(encoding="utf-8"))["peak"])
    write_text(folder / MEMORY, json.dumps(memory) + "\n")
    (folder / "state.safetensors").unlink(missing_ok=True)  # of use to what goes on, and three times the model's size


def _trained(config: TrainConfig, folder: Path, data_root, weights_root) -> None:
    train(config, folder, True, data_root, weights_root, devices=1, quiet=True)


def _resident() -> int:
    """The largest resident set of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return size if sys.platform == "darwin" else size * 1024


def _child(sender, threads: int, function: Callable, arguments: tuple) -> None:
    """What the process of `in_a_process` does: call, measure, send."""

    def end_with_parent() -> None:  # a training whose notebook is gone would go on for hours, beside the next one
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the precision stands in the tables
    torch.set_num_threads(threads)
    before = _resident()
    try:
        result = function(*arguments)
    except CosegError as error:
        sender.send((error, None))
        return
    if torch.cuda.is_initialized():
        memory = {"of": torch.cuda.get_device_name(), "before": 0, "peak": torch.cuda.max_memory_allocated()}
    else:
        memory = {"of": "process", "before": before, "peak": _resident()}
    sender.send((result, memory))


def in_a_process(function: Callable, *arguments, while_it_runs: Callable[[], None] | None = None) -> tuple:
    """function(*arguments) in a process of its own -> its result, and {"of", "before", "peak"}, memory in bytes.

    Function, arguments and result are sent by pickling. The process ends when this one does, or is interrupted.
    Raises the function's CosegError, and CosegError where the process ends without an answer (killed, out of memory).
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(
            ["coseglib.figures.curves"]
        )  # imports once, then each process takes milliseconds
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, torch.get_num_threads(), function, arguments))
    process.start()
    sender.close()
    try:
        while not receiver.poll(LOOK):
            if while_it_runs:
                while_it_runs()
        result, memory = receiver.recv()
    except EOFError as error:
        process.join()
        raise CosegError(f"the training's process ended with {process.exitcode}; call again to go on") from error
    except BaseException:  # an interruption, above all
        process.terminate()
        raise
    finally:
        receiver.close()
        process.join()
    if isinstance(result, CosegError):
        raise result
    return result, memory


# Tables ---------------------------------------------------------------------------------------------------------------


def tidy(runs: Mapping[str, Run]) -> pd.DataFrame:
    """COLUMNS: a row a system and a logged step. seconds: of training so far, validations among it.

    J        mean over the training images since the row before, in train mode; what was asked there is the sampler's
    val_J    on validation photographs, protocol `common`; NaN but at validations
    Raises CosegError for no runs.
    """
    if not runs:
        raise CosegError("no trainings to show; name a method, or a folder that `coseg train` wrote")
    return pd.concat([run.log.assign(system=name) for name, run in runs.items()], ignore_index=True)[list(COLUMNS)]


def time_to(table: pd.DataFrame, share: float = 0.9, curve: str | None = None) -> pd.DataFrame:
    """By system: when J first was at `share` of its last value. Columns curve, final, step, images, seconds, between.

    table    `tidy`'s     curve  "J", "val_J"; None: val_J where it is known twice or more, else J
    between  steps to the row before, that is, how exactly the time is known
    NaN where the final J is 0. Raises CosegError for another curve or share, and where the curve is not known.
    """
    if curve is not None and curve not in CURVES:
        raise CosegError(f"{curve}: no such curve; one of {', '.join(CURVES)}")
    if not 0 < share <= 1:
        raise CosegError(f"share = {share}: above 0, at most 1")
    rows = {}
    for system, log in table.groupby("system", sort=False):
        used = curve or ("val_J" if log.val_J.notna().sum() > 1 else "J")
        known = log.dropna(subset=[used]).sort_values("step")
        if known.empty:
            raise CosegError(f"{system}: has no {CURVES[used]}; set validate_every, or ask for another curve")
        final = float(known[used].iloc[-1])
        row = {"curve": used, "final": final, "step": np.nan, "images": np.nan, "seconds": np.nan, "between": np.nan}
        if final > 0:
            place = int((known[used] >= share * final).to_numpy().argmax())  # the last row is one at the latest
            first = known.iloc[place]
            before = known.step.iloc[place - 1] if place else 0
            row |= {name: float(first[name]) for name in ("step", "images", "seconds")}
            row["between"] = float(first.step - before)
        rows[system] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def costs(runs: Mapping[str, Run], share: float = 0.9) -> pd.DataFrame:
    """A row a system: what its training cost, and when it was at `share` of its final J (`time_to`).

    images/s  median over the log's rows, of training alone         parameters  millions
    memory    peak, and before the training, in MB; NaN: not measured
    device, checkpoint  of model.safetensors: where it was trained, first 8 digits of its SHA-256
    """
    when, rows = time_to(tidy(runs), share), {}
    for name, run in runs.items():
        model = load_model(run.folder / "model.safetensors", run.config.method)
        last, reached = run.log.dropna(subset=["loss"]).iloc[-1], when.loc[name]
        rows[name] = {
            "backbone": run.config.backbone,
            "variant": run.config.variant,
            "parameters (M)": sum(p.numel() for p in model.parameters()) / 1e6,
            "steps": int(last.step),
            "images": last.images,
            "seconds": last.seconds,
            "images/s": float(run.log.images_per_s.median()),
            "memory (MB)": run.memory.get("peak", np.nan) / 1e6,
            "before (MB)": run.memory.get("before", np.nan) / 1e6,
            "final J": reached.final,
            "of": CURVES[reached.curve].removeprefix("J in "),
            f"s to {share:.0%}": reached.seconds,
            f"steps to {share:.0%}": reached.step,
            "known to (steps)": reached["between"],
            "device": f"{model.card.get('device', '–')}, {model.card.get('precision', '–')}",
            "checkpoint": model.card["sha256"][:8],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def shipped(folder: Path = CHECKPOINTS) -> pd.DataFrame:
    """By checkpoint that is shipped: what its card says of its cost, and J on two test sets. No log is needed.

    runs       trainings, one after the other, each from the weights of the one before
    images/s   over the whole time, validations among it. NaN, as `images`, where the runs' steps differ in images: the
               card has the steps' sum alone
    minutes    on the card's device; MB: of the file
    """
    rows = {}
    for card in cards(folder):
        a_step = {t["groups"] * t["group_size"] for t in card["training"]}
        images = card["steps"] * a_step.pop() if len(a_step) == 1 else np.nan
        row = {name: card[name] for name in ("method", "variant", "backbone")}
        row |= {"runs": len(card["training"]), "steps": card["steps"], "images": images, "minutes": card["minutes"]}
        row |= {"images/s": images / card["minutes"] / 60, "device": card["device"], "MB": card["bytes"] / 1e6}
        for name in ("msrc7", "icoseg8"):
            row[f"J {name}"] = card["figures"].get(name, {}).get("group", {}).get("J", np.nan)
        rows[card["name"]] = {**row, "checkpoint": card["sha256"][:8]}
    columns = ["method", "variant", "backbone", "runs", "steps", "images", "minutes", "images/s", "device", "MB"]
    columns += ["J msrc7", "J icoseg8", "checkpoint"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("name")


def shipped_curves(folder: Path = CHECKPOINTS) -> pd.DataFrame:
    """`tidy`'s columns, by checkpoint that is shipped with the log of its (last) training; empty where none is."""
    logs = {
        card["name"]: read_log(file, card["training"][-1])
        for card in cards(folder)
        if (file := folder / f"{card['name']}.log.csv").is_file()
    }
    told = [log.assign(system=name) for name, log in logs.items()]
    return pd.concat(told, ignore_index=True)[list(COLUMNS)] if told else pd.DataFrame(columns=list(COLUMNS))


def terms(run: Run, data_root=None) -> pd.DataFrame:
    """The loss of a training, term by term, on the batch of its first step, with the weights that it ended with.

    value     of the term, weighted as it is minimised; their sum is the loss
    gradient  the norm of the term's gradient over all weights: how hard it pulls, whatever its value is
    """
    config = run.config
    photos = photographs(config, data_root)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(run.folder / "model.safetensors", config.method).train().to(device)
    weights = [p for p in model.parameters() if p.requires_grad]
    sampler = GroupSampler(
        photos,
        size=config.group_size,
        groups=config.groups // config.accumulate,
        side=config.sides or config.input_size,
        shares=config.shares,
        pasted=config.pasted,
        twins=config.twins,
        crop=config.crop,
        steps=1,
        seed=config.seed,
        by_set=config.by_set,
    )
    batch = sampler[0]
    torch.manual_seed(config.seed)  # dropout
    rows = []
    with torch.enable_grad():
        output = model(batch.images.to(device).float() / 255, batch.weights.to(device))
        found = model.loss(output, batch.targets.to(device), batch.classes.to(device), config.dice)
        for name, value in found.items():
            gradients = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            pull = float(torch.stack([g.norm() for g in gradients if g is not None]).norm())
            row = {"system": run.name, "term": name.replace("_", " "), "value": float(value.detach())}
            rows.append(row | {"gradient": pull})
    return pd.DataFrame(rows)


# Figures --------------------------------------------------------------------------------------------------------------


def _colours(systems: Sequence[str]) -> dict[str, str]:
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(systems)}


def show_curves(
    table: pd.DataFrame, title: str, losses: Mapping[str, str] | None = None, x: str = "images", columns: int = 6
) -> Figure:
    """All systems on one page: above each one's loss on an axis of its own, below its J, with the others' in grey.

    table    `tidy`'s
    losses   {system: what it minimises}, written below its name: values of two losses do not compare
    x        "step", "images" or "seconds"
    columns  systems side by side
    Raises CosegError for another x.
    """
    if x not in AXES:
        raise CosegError(f"{x}: no such axis; one of {', '.join(AXES)}")
    logs = {name: log.sort_values("step") for name, log in table.groupby("system", sort=False)}
    colours, across = _colours(list(logs)), min(columns, len(logs))
    down = -(-len(logs) // across)
    with plt.rc_context(STYLE):
        size = (0.9 + 1.75 * across, 0.5 + 3.3 * down)
        fig, grid = plt.subplots(2 * down, across, figsize=size, squeeze=False, sharex=True)
        for place in range(down * across):
            row, column = 2 * (place // across), place % across
            above, below = grid[row][column], grid[row + 1][column]
            if place >= len(logs):
                above.set_axis_off(), below.set_axis_off()
                continue
            name = list(logs)[place]
            log, colour = logs[name], colours[name]
            for other, known in logs.items():
                if other != name:
                    below.plot(known[x], known.J, color="0.82", linewidth=0.9, zorder=1)
            above.plot(log[x], log.loss, color=colour)
            below.plot(log[x], log.J, color=colour, linewidth=1.1)
            checked = log.dropna(subset=["val_J"])
            below.plot(checked[x], checked.val_J, "o", color=colour, markersize=4, markeredgecolor="black")
            below.set_ylim(0, 1)
            above.set_title("\n".join([name, *textwrap.wrap((losses or {}).get(name, ""), 22)]), fontsize=8)
            above.tick_params(labelbottom=False)
            below.tick_params(labelbottom=place + across >= len(logs))  # the lowest one of its column
            below.locator_params(axis="x", nbins=4)
            if place % across == 0:
                above.set_ylabel("its loss")
                below.set_ylabel("J (0 to 1)")
        told = f"{AXES[x]}; line: J in training"
        told += ", dots: in validation" if table.val_J.notna().any() else ""
        told += "; grey: the other systems" if len(logs) > 1 else ""
        fig.supxlabel(textwrap.fill(told, round(14 * size[0])), fontsize=8)
        fig.suptitle(textwrap.fill(title, round(10 * size[0])))
        plt.close(fig)
        return fig


def show_race(table: pd.DataFrame, title: str, share: float = 0.9, curve: str | None = None) -> Figure:
    """J of all systems against images seen and against time; a ring where a system is at `share` of its final J.

    curve  as in `time_to`. Names stand at the right, in the order of the final J.
    """
    when = time_to(table, share, curve)
    colours = _colours(list(when.index))
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(8.2, 3.1), sharey=True)
        for ax, x in zip(axes, ("images", "seconds"), strict=True):
            for i, (name, log) in enumerate(table.groupby("system", sort=False)):
                reached = when.loc[name]
                known = log.dropna(subset=[reached.curve]).sort_values("step")
                style = ("solid", "dashed", "dashdot")[i // len(SERIES) % 3]
                label = f"{name}  {reached.final:.2f}"
                ax.plot(
                    known[x], known[reached.curve], color=colours[name], linestyle=style, label=label, linewidth=1.3
                )
                at = known[known.step == reached.step]
                ax.plot(at[x], at[reached.curve], "o", color=colours[name], markerfacecolor="white", markersize=6)
            ax.set_xlabel(AXES[x])
            ax.set_ylim(0, 1)
            ax.set_xlim(left=0)
        axes[0].set_ylabel("Jaccard index J (0 to 1)")
        handles, labels = axes[1].get_legend_handles_labels()
        order = np.argsort([-when.final[label.rsplit("  ", 1)[0]] for label in labels], kind="stable")
        used = " / ".join(CURVES[c].removeprefix("J in ") for c in dict.fromkeys(when.curve))
        legend_title = f"final J, {used}\nring: {share:.0%} of it"
        chosen = [handles[i] for i in order], [labels[i] for i in order]
        fig.legend(*chosen, loc="outside right center", title=legend_title, title_fontsize=8)
        fig.suptitle(title)
        plt.close(fig)
        return fig


def show_costs(cost: pd.DataFrame, title: str) -> Figure:
    """Bars, a row a system: images a second, memory (of it before training: grey), seconds to a share of the final J.

    cost  `costs`'. What is not known has no bar and a dash.
    """
    timed = next(name for name in cost if name.startswith("s to "))
    panels = {
        "images/s": "images a second",
        "memory (MB)": "peak memory (MB)",
        timed: f"seconds to {timed[5:]} of final J",
    }
    colours, places = _colours(list(cost.index)), np.arange(len(cost))
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(8.4, 0.9 + 0.3 * len(cost)), sharey=True)
        for ax, (column, unit) in zip(axes, panels.items(), strict=True):
            values = cost[column].to_numpy(float)
            ax.barh(places, np.nan_to_num(values), 0.75, color=[colours[name] for name in cost.index])
            if column == "memory (MB)":
                ax.barh(places, cost["before (MB)"].fillna(0), 0.75, color="#d0d0d0")
            most = np.nanmax(values) if np.isfinite(values).any() else 1.0
            for place, value in zip(places, values, strict=True):
                text = "–" if np.isnan(value) else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
                at = 0 if np.isnan(value) else value
                ax.annotate(text, (at, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
            ax.set_xlim(0, 1.2 * most)
            ax.set_xlabel(f"{unit}, grey: before training" if column == "memory (MB)" else unit, fontsize=8)
            ax.grid(False, axis="y")
            ax.grid(True, axis="x")
            ax.locator_params(axis="x", nbins=4)
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(places, [str(name) for name in cost.index])
        axes[0].set_ylim(len(cost) - 0.5, -0.5)
        fig.suptitle(title)
        plt.close(fig)
        return fig
