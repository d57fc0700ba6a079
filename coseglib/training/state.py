"""What a run keeps: to go on with state.safetensors, one file that is there whole or not at all; and log.csv.

Only weights that have shown a sound loss are kept (the loop sees to it), so that after a loss that was not finite a
run goes on from before it. Then, and only then, other learning rates are taken; the state and the model say so.
"""

import contextlib
import csv
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from coseglib.core.errors import CosegError
from coseglib.core.files import atomic, write_text
from coseglib.models.checkpoints import FORMAT, read_tensors, write_tensors
from coseglib.training.configuration import MAY_CHANGE, TrainConfig

STATE, MODEL, STOPPED = "state.safetensors", "model.safetensors", "stopped.json"
RATES = frozenset({"learning_rate", "backbone_learning_rate"})


@dataclass
class Progressed:
    """How far a run is.

    earlier_rates  {until, learning_rate, backbone_learning_rate} of rates given up at a step
    before         J in validation of what a tuning starts from; −1: not known
    trained_with   {since, photographs, content, processes}, one where nothing changed on resuming; content: a SHA-256
    """

    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    earlier_rates: list[dict[str, float]] = field(default_factory=list)
    trained_with: list[dict] = field(default_factory=list)
    before: float = -1.0

    def go_on_with(self, now: dict, anyway: bool, where: Path) -> None:
        """Note what is trained with from here on; CosegError, unless it is to be `anyway`, where that is another."""
        then = self.trained_with[-1] if self.trained_with else {}
        if then and any(then[name] != value for name, value in now.items()) and not anyway:
            what = "{photographs:,} photographs ({content:.8}) in {processes} processes"
            has, here = (what.format(**of) for of in (then, now))
            raise CosegError(f"{where}: was trained on {has}, here are {here}; mend that, or add --resume-anyway")
        if {**then, **now} != then:
            self.trained_with.append({"since": self.step, **now})


class Saved(NamedTuple):
    """A state that was read and belongs to the configuration."""

    tensors: dict[str, Tensor]
    progressed: Progressed

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def find_state(folder: Path, config: TrainConfig, resume: bool) -> Saved | None:
    """The state to go on from; None: a run begins. Nothing is written.

    Raises CosegError for a folder that holds a run where none is to be resumed, a run of another configuration, or one
    that is at its end and has no state: a new one would write over its model.
    """
    state, model = folder / STATE, folder / MODEL
    if not resume and (state.exists() or model.exists()):
        raise CosegError(f"{folder}: already holds a run; add --resume to go on with it, or choose another folder")
    ours, free = config.fields(), MAY_CHANGE | (RATES if (folder / STOPPED).exists() else set())
    usual = TrainConfig().fields()  # of fields that are younger than the run
    if not state.exists():
        if model.exists():  # the best so far of a run that was killed before its first state
            header = read_tensors(model)[1]
            check_same(model, usual | header.get("training", {}) | {"method": header.get("method")}, ours, free)
            if Log.last_step(folder / "log.csv") >= config.steps:
                raise CosegError(f"{model}: is there, and {STATE}, to go on from, is not; choose another folder")
        return None
    tensors, header = read_tensors(state)
    if header.get("kind") != "state":
        raise CosegError(f"{state}: a model, not a training state; leave out --resume or name the run's folder")
    theirs = usual | header["config"]
    check_same(state, theirs, ours, free)
    earlier = list(header.get("earlier_rates", []))
    if any(theirs[name] != getattr(config, name) for name in RATES):
        earlier.append({"until": header["step"], **{name: theirs[name] for name in sorted(RATES)}})
    far = (header["step"], header["seconds"], header["best"], earlier, list(header.get("trained_with", [])))
    far += (header.get("before", -1.0),)
    return Saved(tensors, Progressed(*far))


def check_same(file: Path, theirs: Mapping, ours: Mapping, free: Set[str] = frozenset()) -> None:
    """Raises CosegError for the first field of `ours`, but for those that are free, that is another one in `theirs`."""
    for name, value in ours.items():
        if name not in free and value != theirs.get(name):
            has = f"was trained with {name} = {theirs.get(name)}, not {value}"
            raise CosegError(f"{file}: {has}; resume with the same or use another folder")


def restore(saved: Saved, model: nn.Module, optimiser: torch.optim.Optimizer, average: AveragedModel | None) -> None:
    """Bring all to a saved state. They are on their device by now: an optimiser's state goes where its weights are."""
    model.load_state_dict(saved.part("model."))
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.part("optimiser.").items():
        number, name = key.split(".", 1)
        entries.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    if average is not None:
        average.module.load_state_dict(saved.part("average."))


def save_state(run, buffers: Mapping[str, Tensor]) -> None:
    """The state of a `loop.Run`; buffers: over the model's own, which a forward pass may have moved on since."""
    tensors = {f"model.{k}": v for k, v in {**run.model.state_dict(), **buffers}.items()}
    if run.average is not None:
        tensors |= {f"average.{k}": v for k, v in run.average.module.state_dict().items()}
    for i, entry in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": torch.as_tensor(v) for k, v in entry.items()}
    header = {"format": FORMAT, "kind": "state", "config": run.config.fields(), **vars(run.at)}
    write_tensors(run.output / STATE, tensors, header)
    (run.output / STOPPED).unlink(missing_ok=True)


def note_stop(folder: Path, step: int, config: TrainConfig) -> None:
    """Leave a word that a loss was not finite: the rates may be changed on resuming."""
    said = {"step": step, "why": "the loss is not finite", **{name: getattr(config, name) for name in sorted(RATES)}}
    write_text(folder / STOPPED, json.dumps(said, allow_nan=False) + "\n")


class Log:
    """log.csv, which grows row by row. Rows of an earlier run stay up to the step `keep`; 0: begin anew.

    Fabric's CSVLogger loses rows when a run is killed or resumed.
    """

    COLUMNS = ("step", "seconds", "loss", "J", "images_per_s", "learning_rate", "val_J", "val_swap", "val_refusal")
    COLUMNS += ("val_seen", "val_unseen")  # younger: earlier logs have none

    def __init__(self, path: Path, keep: int = 0):
        self.path, rows = path, []
        if keep and path.is_file():
            try:
                whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # a full disk may have cut the last line
                rows = [row for row in csv.DictReader(whole.splitlines()) if row["step"] and int(row["step"]) <= keep]
                assert all(set(self.COLUMNS[:-2]) <= row.keys() <= set(self.COLUMNS) for row in rows)
            except (ValueError, LookupError, csv.Error, AssertionError) as fault:
                raise CosegError(f"{path}: damaged, no log of a training; move it away and --resume") from fault
        with atomic(path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    @staticmethod
    def last_step(path: Path) -> int:
        """That was logged; 0 where there is no log."""
        with contextlib.suppress(OSError, ValueError, KeyError), open(path, newline="") as file:
            return max(int(row["step"]) for row in csv.DictReader(file))
        return 0

    def row(self, **values) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.COLUMNS).writerow(values)
