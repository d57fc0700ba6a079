"""The systems of a benchmark: checkpoints and floors, loaded, with what a doubter asks of them.

Trainings that differ in nothing but their seed become one row, mean ± sd, from SEEDS on.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import pandas as pd
import torch
from torch import nn

from coseglib.answering.floors import FLOORS, Floor, build_floor, is_floor
from coseglib.answering.saliency import PREFIX, is_onnx
from coseglib.evaluation.cards import beyond, cards, field_note, runs_of, trained_on_field, withdrawn
from coseglib.evaluation.kept import PRECISION
from coseglib.evaluation.shipping import TRAINED_ON
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model

SEEDS = 3  # trainings that a mean over seeds, or a verdict on a claim, needs
FACTS = ("system", "method", "variant", "backbone", "trained on", "seeds", "checkpoint")
NONE = "–"


@dataclass(frozen=True)
class System:
    """A checkpoint or a floor by its name, its model in evaluation mode."""

    name: str
    model: nn.Module

    @property
    def floor(self) -> bool:
        return isinstance(self.model, Floor)

    @property
    def blind(self) -> bool:
        """A floor whose answers do not depend on partners."""
        return self.floor and self.model.alone

    @property
    def sha256(self) -> str:
        """Of the file; a floor's own, see `Floor.card`."""
        return self.model.card["sha256"]

    def _trainings(self) -> list[dict]:
        return [run["training"] for run in runs_of(self.model.card) if "training" in run]

    @property
    def recipe(self) -> str:
        """What two trainings share that differ in nothing but their seed; a floor's is its checksum."""
        if self.floor:
            return self.sha256
        known = [{k: v for k, v in t.items() if k not in ("seed", "start")} for t in self._trainings()]
        card = self.model.card
        about = [card[key] for key in ("method", "variant", "backbone", "input_size")]
        about += [card.get("options"), self.model.looks, self.model.post, len(card.get("averaged", ()))]
        return json.dumps([*about, known or self.sha256], sort_keys=True, default=str, allow_nan=False)

    @property
    def trained_on_field(self) -> list[str]:
        """Of `coseglib.evaluation.cards.trained_on_field`."""
        return [] if self.floor else trained_on_field(self._trainings(), self.model.card.get("kept_apart", ()))

    def facts(self) -> dict[str, str]:
        """FACTS: what a doubter asks for. The checksum by its first 8 digits, seeds of all runs."""
        card, trainings = self.model.card, self._trainings()
        if self.floor:
            backbone = self.model.name.partition(":")[2] or NONE
            known = (self.name, "floor", NONE, backbone, self.model.learned_on, NONE)
        else:
            trained = TRAINED_ON.get(trainings[0].get("data", ""), "not said") if trainings else "not said"
            seeds = ", ".join(dict.fromkeys(str(t.get("seed", "?")) for t in trainings)) or "not said"
            variant = ", ".join(filter(None, [card["variant"], *beyond(card), withdrawn(card)]))
            known = (self.name, card["method"], variant, card["backbone"], trained.split(" (")[0], seeds)
        return dict(zip(FACTS, (*known, self.sha256[:8]), strict=True))


def shipped() -> list[str]:
    """The names of the shipped checkpoints that are trained with masks, of any method, but for those withdrawn."""
    return [card["name"] for card in cards() if not METHODS[card["method"]].online and not withdrawn(card)]


def learned_from(model: nn.Module | None, dataset: str | None) -> str:
    """What is to be said where a model is scored on `msrc7-field` and learned from photographs of it, else ""."""
    if model is None or model.online or str(dataset) != "msrc7-field":
        return ""
    name = model.card["name"]
    return field_note({name: System(name, model).trained_on_field})


def own_floors() -> list[str]:
    """A saliency network of the user's, where COSEG_SALIENCY names its file: ["onnx:FILE"], else []."""
    file = os.environ.get("COSEG_SALIENCY")
    return [f"{PREFIX}{file}"] if file else []


def load_systems(names: Sequence[str] = (), floors: Sequence[str] = FLOORS) -> list[System]:
    """Checkpoints (names or files; none: all that are shipped), then floors, loaded, on the GPU where there is one.

    They answer in PRECISION, so that a table is the same on every machine. Raises CosegError for names that do not
    exist, where `features` finds no ImageNet weights, and as `read_network`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for name in (*(names or shipped()), *floors):
        model = build_floor(name) if is_floor(name) else load_model(name, precision=PRECISION)
        known = is_floor(name) and not is_onnx(name)  # of a file the name, without its folder
        found.append(System(str(name) if known else model.card["name"], model.to(device)))
    return found


def families(some: Sequence[System]) -> list[list[System]]:
    """Systems of one recipe together, where they are SEEDS or more; all others alone. In order of appearance."""
    alike: dict[str, list[System]] = {}
    for system in some:
        alike.setdefault(system.recipe, []).append(system)
    families = []
    for members in alike.values():
        families += [members] if len(members) >= SEEDS else [[system] for system in members]
    return families


def as_one(members: Sequence[System]) -> dict[str, str]:
    """The facts of a family: what its members' names begin with, their seeds and checksums in a row."""
    facts = [system.facts() for system in members]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*(f["system"] for f in facts), strict=False))
    name = re.sub(r"[-_.](s|seed)?[-_.]?$", "", "".join(letters[0] for letters in alike))
    joined = {key: ", ".join(dict.fromkeys(f[key] for f in facts)) for key in ("seeds", "checkpoint")}
    return facts[0] | {"system": name or facts[0]["system"]} | joined


def over_seeds(tables: Sequence[pd.DataFrame], members: Sequence[System], figures: Sequence[str]) -> pd.DataFrame:
    """One table of a family: `figures` are means over its members, "sd …" their sample standard deviations.

    tables  of one shape, a member each; of one member: as it is, sd NaN
    """
    of_all = pd.concat([table.reset_index(drop=True) for table in tables]).groupby(level=0)[list(figures)]
    means, sds = of_all.mean(), of_all.std().drop(columns="seconds", errors="ignore").add_prefix("sd ")
    facts = as_one(members) if len(members) > 1 else members[0].facts()
    return tables[0].reset_index(drop=True).assign(**means, **sds, **facts)
