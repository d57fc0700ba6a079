"""Online optimisation: a generator learns on the very photographs that it is to segment; no masks, only K.

Where this differs from the thesis (see also `coseglib.models.multiclass`)
  * The learning rate's exponent is lost: a short list is tried, and the loss alone chooses. Adam, weight decay 5e-4,
    mini-batches of three and ten epochs are as printed; the early stop by the loss, and keeping the weights of the
    epoch of the lowest, are ours. The last mini-batch of an epoch is filled up from its first images.
  * The generator's batch normalisation (VGG16 has none) keeps ImageNet's averages: three images are too few.
  * The cpu profile is not the paper's: small backbone and input, larger mini-batches, `masking="features"`, `balance`,
    `border`, and a faster γ. Its figures are the workbook's, and its table's rows name the profile.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import Tensor

from coseglib.answering.answers import Engine, whole_group
from coseglib.answering.masks import masks
from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.core.files import clear_parts, write_text
from coseglib.core.tables import write_table
from coseglib.data.record import Group, Photo
from coseglib.models.checkpoints import load_model, save_model
from coseglib.models.multiclass import MultiClass
from coseglib.training.memory import kept_memory
from coseglib.training.state import STATE, check_same
from coseglib.unsupervised.clustered import ClusterJob
from coseglib.unsupervised.configuration import OnlineConfig, check_classes
from coseglib.unsupervised.jobs import LearningJob, Say, silent
from coseglib.unsupervised.trust import Trust, propose_classes, trust_in


@dataclass
class CoSegmentation:
    """A group, co-segmented. Its maps and labels are the answers that `coseg segment` has of the saved generator."""

    photos: Sequence[Tensor | Photo]
    config: OnlineConfig
    generator: MultiClass  # trained on the group, in evaluation mode
    log: pd.DataFrame  # of `LearningJob.optimise`
    learning_rate: float  # that was used
    trials: pd.DataFrame  # learning_rate, epochs, loss of each that was tried; empty where the rate was given
    seconds: float  # that learning took
    trust: Trust  # what speaks for and against it
    proposed: pd.DataFrame | None = None  # of `propose_classes`, where K was not given

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.generator, self.photos)

    def _answers(self):
        return self._engine.answers(whole_group(len(self.photos)))

    @cached_property
    def maps(self) -> Tensor:
        """Soft-max maps (n, K+1, S, S) in [0, 1], channel 0 the background; float32, on the CPU."""
        return torch.stack([answer.logits.softmax(dim=0) for answer in self._answers()])

    def labels(self, post: str | None = None) -> list[Tensor]:
        """A label map for each photograph, uint8 (H, W), 0 … K, at its own size.

        post  "crf" or "argmax"; None: as the configuration says
        """
        return [labels for _, labels in masks(self.generator, self._answers(), post, len(self.photos))]


def job_of(photos: Sequence[Tensor | Photo], classes: int | None, config: OnlineConfig) -> LearningJob:
    """The job by which a configuration's variant is learned. Raises CosegError where K is to be found and cannot be."""
    if config.variant == "workbook":
        return ClusterJob(photos, 1 if classes is None else classes, config)
    if classes is None:
        raise CosegError("--classes auto: is for --profile workbook; give K")
    return LearningJob(photos, classes, config)


@kept_memory()
def co_segment(
    photos: Sequence[Tensor | Photo], classes: int | None, config: OnlineConfig, progress: Say = silent
) -> CoSegmentation:
    """Optimise a generator on the photographs themselves, and segment them with it.

    photos    uint8 RGB (3, H, W) each, of any sizes, or `Photo`s; one or more. Masks are never read
    classes   K, how many classes they have in common; it may be more than there are. None: as many as are proposed
    progress  called with lines of text: epoch, loss, time left
    The same photographs, configuration and machine give the same result; torch's generator is left as it was.
    Raises CosegError for no photographs, a K below 1, missing weights, or a loss that is not finite.
    """
    began, proposed = time.perf_counter(), None
    job = job_of(photos, classes, config)
    if classes is None:
        classes, proposed = propose_classes(job, progress)
        job.look_for(classes)
    rate, trials = config.learning_rate, pd.DataFrame(columns=["learning_rate", "epochs", "loss"])
    if rate is None:
        rate, trials = job.choose_learning_rate(progress)
    model = job.generator()
    log = job.optimise(model, rate, config.epochs, progress)
    if log.loss.isna().any():
        raise CosegError(f"learning rate {rate:g}: the loss is not finite in epoch {len(log)}; give a smaller one")
    trust = trust_in(job, model.eval(), log)
    return CoSegmentation(photos, config, model, log, rate, trials, time.perf_counter() - began, trust, proposed)


def _contents(group: Group) -> str:
    """SHA-256 of the photographs, whatever they are called, wherever they lie and in whatever order."""
    return hashlib.sha256("\n".join(sorted(p.content() for p in group.photos)).encode()).hexdigest()


def _about(group: Group, found: CoSegmentation) -> dict:
    """What a checkpoint's header says of a generator."""
    config, device = found.config, next(found.generator.parameters()).device
    about = {"method": "multiclass", "backbone": config.backbone, "classes": found.generator.classes}
    about |= {"training": config.fields(), "learning_rate": found.learning_rate, "epochs": len(found.log)}
    about |= {"loss": float(found.log.loss.min()), "seconds": round(found.seconds, 1)}
    about |= {"device": str(device), "precision": precision_of(config.precision, device)}
    about |= {"trust": found.trust.about(), "nothing_learned": found.trust.why}
    if found.proposed is not None:
        rows = found.proposed.round(4).astype(object)
        about["classes_proposed"] = rows.where(found.proposed.notna(), None).to_dict("records")
    names = [p.name for p in group.photos]
    return about | {"group": {"name": group.name, "photos": names, "contents": _contents(group)}}


def learn(group: Group, classes: int | None, config: OnlineConfig, progress: Say = silent) -> MultiClass:
    """The generator of a group, in evaluation mode, with `card`: what a checkpoint's header says. See `co_segment`."""
    found = co_segment(group.photos, classes, config, progress)
    found.generator.card = _about(group, found)
    return found.generator


def train_on_group(
    group: Group,
    classes: int | None,
    config: OnlineConfig,
    output: str | Path,
    resume: bool = False,
    progress: Say = silent,
) -> Path:
    """Learn on a group, and leave model.safetensors, log.csv (a row an epoch) and config.yaml in the folder `output`.

    resume  keep the finished run that the folder holds. A run of minutes has no state in between: one that was killed
            starts anew
    Returns the path of model.safetensors. Raises CosegError for a folder in use, or a run that was another one.
    """
    if classes is not None:
        check_classes(classes)
    output, ours = Path(output), {"classes": "auto" if classes is None else classes, **config.fields()}
    model = output / "model.safetensors"
    if (output / STATE).exists():
        raise CosegError(f"{output}: holds a run of another method; choose another folder")
    if model.exists() and not resume:
        raise CosegError(f"{output}: already holds a run; add --resume to keep it, or choose another folder")
    if model.exists():
        card = load_model(model, "multiclass").card
        was = "auto" if "classes_proposed" in card else card["classes"]
        check_same(model, {"classes": was, **card["training"]}, ours)
        if card["group"].get("contents") != _contents(group):
            raise CosegError(f"{model}: learned on other photographs ({card['group']['name']}); use another folder")
        progress(f"{model}: done before")
        return model
    about = {"method": "multiclass", "group": group.name, "photos": len(group), **ours}
    progress("\n".join(f"  {k}: {v}" for k, v in about.items()))
    found = co_segment(group.photos, classes, config, progress)
    output.mkdir(parents=True, exist_ok=True)
    clear_parts(output)
    write_text(output / "config.yaml", yaml.safe_dump(about, sort_keys=False))
    write_table(found.log, output / "log.csv")
    save_model(model, found.generator, _about(group, found))
    return model
