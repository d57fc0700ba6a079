"""Trainings in folders: made unless they are there, resumed where they were broken off, and read back."""

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from coseglib.core.config import read_yaml
from coseglib.core.errors import CosegError
from coseglib.core.files import read_json, write_text
from coseglib.core.tables import read_table
from coseglib.models import METHODS
from coseglib.models.checkpoints import in_half, read_tensors, write_tensors
from coseglib.training.configuration import MAY_CHANGE, TrainConfig, load_profile
from coseglib.training.loop import train
from coseglib.training.state import MODEL, STATE, Log, check_same

CURVE_COLUMNS = ("system", "step", "seconds", "images", "loss", "J", "val_J", "images_per_s")
MEMORY_FILE = "memory.json"  # beside log.csv: before and peak in bytes, and of what
POLL_SECONDS = 15.0  # seconds between two looks at a log that is being written


@dataclass(frozen=True)
class TrainingRun:
    """A training that is there. log: CURVE_COLUMNS but for `system`; memory: {} where it was not measured."""

    name: str
    folder: Path
    config: TrainConfig
    log: pd.DataFrame
    memory: dict


def plan_trainings(methods: Sequence[str], profile: str, overrides: Mapping | None = None) -> dict[str, TrainConfig]:
    """{method: its configuration} in a profile of `coseglib.training`, single fields set anew for all of them.

    Raises CosegError for methods, profiles, fields and values that do not exist, and for no method at all.
    """
    if not methods:
        raise CosegError(f"no method is named; one or more of {', '.join(m for m in METHODS if not METHODS[m].online)}")
    return {method: load_profile(profile, method, overrides) for method in methods}


def training_folder(root: str | Path, name: str, config: TrainConfig) -> Path:
    """`root`/<name>-<8 digits of the fields that decide the result>, so that other settings never meet its files."""
    deciding = json.dumps(config.deciding(), sort_keys=True)
    return Path(root) / f"{name}-{hashlib.sha256(deciding.encode()).hexdigest()[:8]}"


def run_config(folder: str | Path) -> TrainConfig:
    """The configuration that a run's folder holds. Raises CosegError where it has none, or one of another version."""
    file = Path(folder) / "config.yaml"
    if not file.is_file():
        raise CosegError(f"{file}: No such file; give a folder that `coseg train` wrote")
    try:
        return TrainConfig(**read_yaml(file))
    except CosegError as error:
        raise CosegError(f"{file}: no configuration of this version ({error}); train anew") from error


def read_log(file: str | Path, training: Mapping) -> pd.DataFrame:
    """A training's log, a row a step: CURVE_COLUMNS but for `system`; a validation joins the row of its step.

    training  its configuration's fields, as cards have them
    images    seen so far: groups × photographs a group × steps; NaN where batches of several sides hold several numbers
    Raises CosegError for a log that is missing, damaged or empty.
    """
    needed = {"step": int} | dict.fromkeys(("seconds", "loss", "J", "images_per_s"), float)
    others = dict.fromkeys(Log.COLUMNS, float)
    rows = read_table(file, needed, "give a run's folder, or train anew", optional=others)
    if rows.loss.isna().all():
        raise CosegError(f"{file}: holds no row of training yet; train on, or train anew")
    rows = rows.reindex(columns=list(Log.COLUMNS)).groupby("step", as_index=False).first().sort_values("step")
    a_step = training["groups"] * training["group_size"] if len(training.get("sides", ())) < 2 else np.nan
    return rows.assign(images=rows.step * a_step)[list(CURVE_COLUMNS[1:])].reset_index(drop=True)


def _memory(folder: Path) -> dict:
    with contextlib.suppress(CosegError):
        return read_json(folder / MEMORY_FILE, "train anew")
    return {}


def read_run(folder: str | Path, name: str | None = None) -> TrainingRun:
    """A run's folder; name: what it is called in tables, None: the folder's name. Raises CosegError as its parts do."""
    folder = Path(folder)
    config = run_config(folder)
    log = read_log(folder / "log.csv", config.fields())
    return TrainingRun(name or folder.name, folder, config, log, _memory(folder))


def is_trained(folder: str | Path, config: TrainConfig) -> bool:
    """Whether a folder holds this training to its end: its checkpoint, its log to the last step, its configuration.

    Raises CosegError where the folder holds another configuration: its files are not to be written over.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        return False
    check_same(folder, run_config(folder).fields(), config.fields(), MAY_CHANGE)
    with contextlib.suppress(CosegError):
        log = read_log(folder / "log.csv", config.fields()).dropna(subset=["loss"])
        # The checkpoint of a run that validates is the best so far: it alone does not say that the run is at its end.
        return (folder / MODEL).is_file() and int(log.step.max()) >= config.steps
    return False


def train_all(plans: Mapping[str, TrainConfig], root: str | Path, say=print, apart=True) -> dict[str, TrainingRun]:
    """{name: TrainingRun} of all; those that are not there are made, those that were broken off go on.

    plans  `plan_trainings`'     root  the folder that holds them, see `training_folder`
    apart  each in a process of its own, which is how memory is measured; False: here, and memory is not known
    One device each, a GPU where there is one.
    A training that cannot be made (no photographs here, no weights) is named and left out; where none can, CosegError.
    """
    runs, failed = {}, []
    for name, config in plans.items():
        folder = training_folder(root, name, config)
        try:
            if is_trained(folder, config):
                say(f"{name}: there already, {config.steps} steps")
            else:
                _made(name, config, folder, say, apart)
            runs[name] = read_run(folder, name)
        except CosegError as error:
            failed.append(f"{name}: {error}")
            say(f"{name}: left out, {error}")
    if not runs:
        raise CosegError(failed[0] if failed else "no training is asked for; name a method")
    return runs


def _made(name: str, config: TrainConfig, folder: Path, say: Callable[[str], None], apart: bool) -> None:
    """Train one, and keep its model in half precision: a report holds many."""
    say(f"{name}: {'goes on' if (folder / STATE).is_file() else 'trains'}, {config.steps} steps")
    training = partial(train, config, folder, resume=True, devices=1, quiet=True)
    if apart:
        _measured(name, config, folder, say, training)
    else:
        training()
    (folder / STATE).unlink(missing_ok=True)  # of use to what goes on, and three times the model's size
    tensors, header = read_tensors(folder / MODEL)
    write_tensors(folder / MODEL, in_half(tensors), header)


def _measured(name: str, config: TrainConfig, folder: Path, say: Callable[[str], None], training: Callable) -> None:
    """Train one in a process, tell how it goes, and keep how much memory it took."""
    told = [0]

    def look() -> None:
        with contextlib.suppress(CosegError, OSError):
            last = read_log(folder / "log.csv", config.fields()).dropna(subset=["loss"]).iloc[-1]
            if last.step > told[0]:
                told[0] = last.step
                say(f"{name}: step {last.step:.0f} of {config.steps}, loss {last.loss:.4f}, J {last.J:.3f}")

    _, memory = in_a_process(training, while_it_runs=look)
    memory["peak"] = max(memory["peak"], _memory(folder).get("peak", 0))  # of the part before an interruption
    write_text(folder / MEMORY_FILE, json.dumps(memory, allow_nan=False) + "\n")


def _resident() -> int:
    """The largest resident set of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return size if sys.platform == "darwin" else size * 1024


def _end_with_parent() -> None:
    """A training whose notebook is gone would go on for hours, beside the next one."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _child(sender, threads: int, function: Callable, arguments: tuple) -> None:
    """What the process of `in_a_process` does: call, measure, send."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the precision stands in the tables
    torch.set_num_threads(threads)
    memory = {"of": "process", "before": _resident()}
    try:
        result = function(*arguments)
    except CosegError as error:
        result = error
    memory["peak"] = _resident()
    if torch.cuda.is_initialized():
        memory = {"of": torch.cuda.get_device_name(), "before": 0, "peak": torch.cuda.max_memory_allocated()}
    sender.send((result, memory))


def in_a_process(function: Callable, *arguments, while_it_runs: Callable[[], None] = lambda: None) -> tuple:
    """function(*arguments) in a process of its own -> its result, and {"of", "before", "peak"}, memory in bytes.

    The process is made anew from one that has imported the library and done nothing else, so that no training sees what
    another one left behind. `peak` is its largest resident set (`ru_maxrss`), libraries and photographs among it, and
    `before` what it held when the function started. On a GPU peak is the most that torch had allocated there, before 0.
    Function, arguments and result are sent by pickling. The process ends when this one does, or is interrupted.
    Raises the function's CosegError, and CosegError where the process ends without an answer (killed, out of memory).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coseglib.training.runs"])  # imports once, then a process takes milliseconds
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, torch.get_num_threads(), function, arguments))
    process.start()
    sender.close()
    try:
        while not receiver.poll(POLL_SECONDS):
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
