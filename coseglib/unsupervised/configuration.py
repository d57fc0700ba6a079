"""What a run is given: the fields that decide how a group of several classes is learned, profiles, and the group."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from coseglib.answering.reading import picture_of
from coseglib.core.config import Config, Count, Natural, Seed, Weight, profile_fields
from coseglib.core.errors import CosegError
from coseglib.data import load
from coseglib.data.images import read_image
from coseglib.data.record import Group, Photo
from coseglib.models import METHODS
from coseglib.models.backbones import BACKBONES
from coseglib.models.contract import POSTS
from coseglib.models.multiclass import FILLS, MASKINGS, MultiClass
from coseglib.segmenting.finding import find_photos

ONLINE_PROFILES = Path(__file__).parent / "profiles"
Rate = Annotated[float, Field(gt=0)]


class OnlineConfig(Config):
    """Everything that decides a group's result. The defaults are the paper's, as far as its text survives."""

    backbone: Literal[*BACKBONES] = "vgg16"  # of the generator
    extractor: Literal[*BACKBONES] = "resnet50"  # the frozen network
    pretrained: bool = True  # ImageNet weights for both; False: random, normalised on the group's own images
    variant: Literal[*MultiClass.VARIANTS] = "paper"  # of the generator; "workbook": see `coseglib.models.clusters`
    self_attention: bool = True
    mutual_attention: bool = True
    masking: Literal[*MASKINGS] = "image"  # what is multiplied by the map: the image, or the extractor's features
    fill: Literal[*FILLS] = "mean"  # what a masked image turns to
    balance: Weight = 0.0  # of the maps' imbalance beside the co-attention loss; the paper has none
    border: Weight = 0.0  # of what is not background at the image's border; the paper has none
    extractor_size: Natural = 0  # pixels, of the extractor's squares where masking is "features"; 0: as input_size
    input_size: Annotated[int, Field(ge=64, multiple_of=32)] = 384  # pixels, of both networks' squares
    stride: Literal[16, 32] = 16  # of the workbook's frozen maps, as all down to `evident`
    layer: Literal[3, 4] = 4  # the frozen network's last stage, or the one before
    axes: Annotated[int, Field(ge=2, le=512)] = 24  # of the features, principal and half whitened
    centred: bool = True  # over the group
    backgrounds: Count = 2  # prototypes of the background
    start: Literal["clusters", "random"] = "clusters"  # of the prototypes
    starts: Count = 12  # clusterings, of which the loss chooses the start
    evident: bool = True  # evidence of objects counts: at the start, and against the background
    epochs: Count = 10
    batch: Count = 3  # images a step; all pairs of them are compared
    learning_rate: Rate | None = None  # None: chosen of `learning_rates` by the loss alone; its exponent is lost
    learning_rates: tuple[Rate, ...] = (1e-6, 1e-5, 1e-4)
    trial_epochs: Count = 2  # that each of them is tried for
    gamma_rate: Weight = 1.0  # γ's learning rate over that of the others: it starts at 0, and moves a rate a step
    weight_decay: Weight = 5e-4
    patience: Count = 3  # epochs without improvement before the run stops
    tolerance: Weight = 1e-3  # what counts as one, in the loss a pair and class (log 2 = .693 at chance)
    post: Literal[*POSTS] = "crf"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"  # "auto": bfloat16 where GPU or CPU has it
    device: str = "auto"  # "auto": a GPU where there is one
    seed: Seed = 0

    @field_validator("device", mode="after")
    @classmethod
    def _known(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError("one of auto, cpu, mps, cuda, cuda:1, …")
        return device

    @model_validator(mode="after")
    def _has_a_rate(self) -> "OnlineConfig":
        if self.learning_rate is None and not self.learning_rates:
            raise CosegError("learning_rates = (): one or more, where learning_rate is none")
        return self


def check_classes(classes: int) -> None:
    """Raises CosegError for a K that is none."""
    if not 1 <= classes <= 254:
        raise CosegError(f"classes = {classes}: K is 1 to 254, as a label map has 8 bits, 0 background and 255 void")


def load_online(profile: str, overrides: Mapping[str, Any] | None = None) -> OnlineConfig:
    """A profile ("smoke", "cpu", "paper", or a YAML file, such as a run's config.yaml) with single fields replaced.

    overrides  as text or values ("0.001", "none", "1e-5,1e-4", "false")
    Raises CosegError for an unknown profile, section or field, or a value that does not fit.
    """
    on_what = ("method", "group", "photos", "classes")  # that a run has learned
    fields = profile_fields(profile, ONLINE_PROFILES, OnlineConfig, METHODS, "multiclass", on_what)
    return OnlineConfig(**fields | dict(overrides or {}))


def group_of_files(
    named: Sequence[str | Path], leave_out: Path | None = None, say: Callable[[str], None] | None = None
) -> Group:
    """The photographs of files and folders as a group without masks.

    named, leave_out  as for `segmenting.finding.find_photos`     say  called with a line for each that cannot be read
    Raises CosegError where none is left.
    """
    files, empty, _ = find_photos(named, leave_out)
    faults = [f"{folder}: {why}" for folder, why in empty]
    photos = []
    for file in files:
        try:
            picture_of(file)
            photos.append(Photo("files", str(file), (), partial(read_image, file), None, file))
        except CosegError as fault:
            faults.append(str(fault))
    if not photos:
        raise CosegError(f"{faults[0] if faults else 'no photographs were named'}; no photograph is left to learn on")
    for fault in faults if say else ():
        say(f"{fault}; left out")
    return Group("files", photos[0].path.resolve().parent.name, tuple(photos))


def named_group(name: str, data_root: str | Path | None = None) -> Group:
    """A group of two or three classes by its name: procedural ("star+ring"), else of VOC 2012 ("dog+person").

    Raises CosegError where there is none of that name, or no VOC 2012.
    """
    scenes = {group.name: group for group in load("synthetic-multiclass")}
    return scenes.get(name) or named_groups(load("voc-multiclass", data_root), [name])[0]


def named_groups(groups: Sequence[Group], names: Sequence[str] | None) -> list[Group]:
    """The groups of these names; without names all. Raises CosegError for one that is not there."""
    if not names:
        return list(groups)
    known = {group.name: group for group in groups}
    for name in names:
        if name not in known:
            raise CosegError(f"{name}: no such group; one of {', '.join(known) or 'none: this data set has no groups'}")
    return [known[name] for name in names]
