"""What was learned on a group, kept: a model with its card, and a run's folder."""

import hashlib
from pathlib import Path

import yaml

from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.tables import write_table
from coseglib.data.record import Group
from coseglib.models.checkpoints import load_model, save_model
from coseglib.models.multiclass import MultiClass
from coseglib.training.state import STATE, check_same
from coseglib.unsupervised.configuration import OnlineConfig, check_classes
from coseglib.unsupervised.learner import CoSegmentation, Say, co_segment, silent


def _contents(group: Group) -> str:
    """SHA-256 of the photographs, whatever they are called and wherever they lie."""
    return hashlib.sha256("\n".join(p.content() for p in group.photos).encode()).hexdigest()


def _about(group: Group, found: CoSegmentation) -> dict:
    """What a checkpoint's header says of a generator."""
    config, device = found.config, next(found.generator.parameters()).device
    return {
        "method": "multiclass",
        "backbone": config.backbone,
        "classes": found.generator.classes,
        "training": config.fields(),
        "group": {"name": group.name, "photos": [p.name for p in group.photos], "contents": _contents(group)},
        "learning_rate": found.learning_rate,
        "epochs": len(found.log),
        "loss": float(found.log.loss.min()),
        "seconds": round(found.seconds, 1),
        "device": str(device),
        "precision": precision_of(config.precision, device),
    }


def learn(group: Group, classes: int, config: OnlineConfig, progress: Say = silent) -> MultiClass:
    """The generator of a group, in evaluation mode, with `card`: what a checkpoint's header says. See `co_segment`."""
    found = co_segment(group.photos, classes, config, progress)
    found.generator.card = _about(group, found)
    return found.generator


def train_on_group(
    group: Group, classes: int, config: OnlineConfig, output: str | Path, resume: bool = False, progress: Say = silent
) -> Path:
    """Learn on a group, and leave model.safetensors, log.csv (a row an epoch) and config.yaml in the folder `output`.

    resume  keep the finished run that the folder holds. A run of minutes has no state in between: one that was killed
            starts anew
    Returns the path of model.safetensors. Raises CosegError for a folder in use, or a run that was another one.
    """
    check_classes(classes)
    output, ours = Path(output), {"classes": classes, **config.fields()}
    model = output / "model.safetensors"
    if (output / STATE).exists():
        raise CosegError(f"{output}: holds a run of another method; choose another folder")
    if model.exists() and not resume:
        raise CosegError(f"{output}: already holds a run; add --resume to keep it, or choose another folder")
    if model.exists():
        card = load_model(model, "multiclass").card
        check_same(model, {"classes": card["classes"], **card["training"]}, ours)
        if card["group"].get("contents") != _contents(group):
            raise CosegError(f"{model}: learned on other photographs ({card['group']['name']}); use another folder")
        progress(f"{model}: done before")
        return model
    output.mkdir(parents=True, exist_ok=True)
    about = {"method": "multiclass", "group": group.name, "photos": len(group), **ours}
    write_text(output / "config.yaml", yaml.safe_dump(about, sort_keys=False))
    progress("\n".join(f"  {k}: {v}" for k, v in about.items()))
    found = co_segment(group.photos, classes, config, progress)
    write_table(found.log, output / "log.csv")
    save_model(model, found.generator, _about(group, found))
    return model
