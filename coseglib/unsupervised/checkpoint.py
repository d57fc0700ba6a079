"""What was learned on a group, kept: a model with its card, and a run's folder."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import yaml

from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.data.record import Group
from coseglib.models.checkpoints import load_model, save_model
from coseglib.models.multiclass import MultiClass
from coseglib.training.log import Log
from coseglib.unsupervised.configuration import OnlineConfig
from coseglib.unsupervised.job import check_classes, device_of
from coseglib.unsupervised.learner import CoSegmentation, co_segment


def _contents(group: Group) -> str:
    """SHA-256 of the photographs, whatever they are called and wherever they lie."""
    return hashlib.sha256("\n".join(p.content() for p in group.photos).encode()).hexdigest()


def _about(group: Group, found: CoSegmentation) -> dict:
    """What a checkpoint's header says of a generator."""
    config = found.config
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
        "device": str(device_of(config.device)),
        "precision": precision_of(config.precision, device_of(config.device)),
    }


def learn(
    group: Group,
    classes: int,
    config: OnlineConfig,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> MultiClass:
    """The generator of a group, in evaluation mode, with `card`: what a checkpoint's header says. See `co_segment`."""
    found = co_segment(group.photos, classes, config, progress, weights_root)
    found.generator.card, found.generator.post = _about(group, found), config.post
    return found.generator


def train_on_group(
    group: Group,
    classes: int,
    config: OnlineConfig,
    output: str | Path,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> Path:
    """Learn on a group, and leave model.safetensors, log.csv (a row an epoch) and config.yaml in the folder `output`.

    resume  keep the finished run that the folder holds. A run of minutes has no state in between: one that was killed
            starts anew
    Returns the path of model.safetensors. Raises CosegError for a folder in use, or a run that was another one.
    """
    check_classes(classes)
    output, say = Path(output), progress or (lambda text: None)
    model = output / "model.safetensors"
    if (output / "state.safetensors").exists():
        raise CosegError(f"{output}: holds a run of another method; choose another folder")
    if model.exists() and not resume:
        raise CosegError(f"{output}: already holds a run; add --resume to keep it, or choose another folder")
    if model.exists():
        _check_same(model, group, classes, config)
        say(f"{model}: done before")
        return model
    output.mkdir(parents=True, exist_ok=True)
    fields = config.fields()
    about = {"method": "multiclass", "group": group.name, "photos": len(group), "classes": classes, **fields}
    write_text(output / "config.yaml", yaml.safe_dump(about, sort_keys=False))
    say("".join(f"  {k}: {v}\n" for k, v in about.items()).rstrip())
    found = co_segment(group.photos, classes, config, say, weights_root)
    log = Log(output / "log.csv", columns=tuple(found.log))
    for row in found.log.to_dict("records"):
        log.row(**row)
    save_model(model, found.generator, _about(group, found))
    return model


def _check_same(model: Path, group: Group, classes: int, config: OnlineConfig) -> None:
    card = load_model(model, "multiclass").card
    ours = {"classes": classes, **config.fields()}
    theirs = {"classes": card["classes"], **card["training"]}
    for name, value in ours.items():
        if value != theirs.get(name):
            has = f"was trained with {name} = {theirs.get(name)}, not {value}"
            raise CosegError(f"{model}: {has}; resume with the same or use another folder")
    learned_on = card["group"]  # earlier runs keep a checksum of names as well
    if learned_on.get("contents", learned_on.get("sha256")) not in (_contents(group), group.content()):
        raise CosegError(f"{model}: learned on other photographs ({card['group']['name']}); use another folder")
