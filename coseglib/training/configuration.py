"""What decides a training's result: the fields, and the profiles that set them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from coseglib.core.config import Config, Count, Natural, Seed, Share, Side, Weight, profile_fields, read_text
from coseglib.core.errors import CosegError
from coseglib.models import METHODS
from coseglib.models.backbones import BACKBONES

PROFILES = Path(__file__).parent / "profiles"
# Fields that a resumed run may change: they decide how it is computed and reported, not what.
# What a folder of one's own holds is compared by content, wherever it lies.
MAY_CHANGE = frozenset({"workers", "log_every", "save_every", "folder"})
# Fields that came later: at their defaults they change nobody's digest.
YOUNGER = frozenset({"frozen_norms", "example_share", "made", "boundary", "scenery"})


class TrainConfig(Config):
    """Everything that decides a run's result. A profile sets it, the command line overrides single fields."""

    method: str = "ca"
    backbone: Literal[*BACKBONES] = "mobilenet_v2"
    variant: str = "paper"  # "paper", "workbook" or another of the method's, see the model's file
    options: dict[str, Any] = Field({})  # of the method: what its model's constructor takes besides
    pretrained: bool = True  # ImageNet weights; False: random
    start: str = ""  # a checkpoint, by name or file, whose weights training starts from instead
    data: Literal["real", "coco-seg", "synthetic", "folder"] = "real"  # "real": VOC train + MSRC training part
    folder: str = ""  # of one's own photographs and masks, for data = folder (`coseglib.training.tuning`)
    synthetic_photos: Count = 240  # of the synthetic set
    steps: Count = 1000
    groups: Count = 8  # B, groups a step, over all processes and accumulated parts
    group_size: Annotated[int, Field(ge=2)] = 2  # N, photographs a group
    input_size: Side = 224  # pixels; what the checkpoint is used at
    sides: tuple[Side, ...] = ()  # network sides drawn from in training; () : input_size alone
    cache_side: Count = 256  # pixels; photographs are decoded and resized to this square once
    scenery: bool = False  # ask for MSRC's buildings, too, in photographs that hold no object
    crop: tuple[Share, Share] = (0.4, 1.0)  # random crops' share of the area, at least and at most
    shares: tuple[Weight, Weight, Weight] = (1.0, 0.0, 0.0)  # plain, hard, empty groups
    pasted: Share = 0.5  # share of the hard groups whose second class is pasted in
    by_set: bool = False  # draw a class's photographs of two data sets as two classes
    example_share: Share = 0.0  # of the groups, asked by example: their partners come with masks; ca, fca and csa
    twins: Share = 0.0  # share of the plain groups that are crops of one photograph
    made: Share = 0.0  # share of the plain groups in whose place groups with made things stand, see data.sampler
    dice: Weight = 0.0  # of the foreground dice beside cross-entropy
    boundary: Weight = 0.0  # of the cross-entropy near contours beside the loss
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: Weight = 1e-5
    backbone_learning_rate: Weight = 1e-5
    weight_decay: Weight = 0.0
    schedule: Literal["constant", "cosine", "halving"] = "constant"  # after a warm-up; ½ every `halve_every` steps
    warmup: Natural = 0  # steps
    halve_every: Count = 25000  # steps
    stem_every: Count = 1  # steps between those in which the layers below stride 8 learn too; 1: all
    frozen_norms: bool = False  # batch norms keep the means and variances that they start with
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' moving average; 0: none
    accumulate: Count = 1  # parts that a step's groups are split into
    precision: Literal["auto", "32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"] = "auto"
    seed: Seed = 0
    workers: Natural = 0  # processes that prepare batches
    log_every: Count = 20  # steps
    save_every: Count = 200  # steps
    validate_every: Natural = 0  # steps; 0: never
    validate_photos: Count = 40  # a group

    @field_validator("method", mode="after")
    @classmethod
    def _learns_from_masks(cls, method: str) -> str:
        if method not in METHODS:
            raise CosegError(f"{method}: no such method; one of {', '.join(METHODS)}")
        if METHODS[method].online:
            raise CosegError(f"{method}: learns on one group, without masks; coseglib.unsupervised.learner does it")
        return method

    @field_validator("crop", "shares", mode="after")
    @classmethod
    def _of_use(cls, value: tuple, info) -> tuple:
        if info.field_name == "crop" and not 0 < value[0] <= value[1]:
            raise ValueError("the least and the most, above 0 and not above 1")
        if info.field_name == "shares" and not any(value):
            raise ValueError("three numbers, none negative, not all 0")
        return value

    @model_validator(mode="after")
    def _together(self) -> "TrainConfig":
        if self.variant not in METHODS[self.method].VARIANTS:
            known = ", ".join(METHODS[self.method].VARIANTS)
            raise CosegError(f"variant = {self.variant}: {self.method} has no such variant; one of {known}")
        known = METHODS[self.method].options
        for name in self.options:
            if name not in known:
                has = ", ".join(known) or "it has none"
                raise CosegError(f"options.{name}: {self.method} has no such option; {has}")
        if (self.data == "folder") != bool(self.folder):
            raise CosegError(
                f"data = {self.data}, folder = {self.folder or 'none'}: go together; --data-folder sets both"
            )
        if self.example_share and METHODS[self.method].kind != "context":
            raise CosegError(
                f"example_share = {self.example_share}: is for ca, fca and csa; leave it out for {self.method}"
            )
        if self.scenery and self.data != "real":
            raise CosegError(f"scenery = true: is of MSRC's photographs; leave it out for data = {self.data}")
        if self.groups % self.accumulate:
            raise CosegError(f"accumulate = {self.accumulate}: must divide groups = {self.groups}")
        return self

    def deciding(self) -> dict[str, Any]:
        """The fields that decide a result; two trainings that agree in them are one."""
        usual = {name: type(self).model_fields[name].default for name in YOUNGER}
        return {k: v for k, v in self.fields().items() if k not in MAY_CHANGE and usual.get(k, self) != v}


def method_of(profile: str) -> str:
    """The method that a file of one's own, such as a run's config.yaml, says it is of; else CA."""
    return profile_fields(profile, PROFILES, TrainConfig, METHODS, "").get("method") or "ca"


def load_profile(profile: str, method: str | None = None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration of a method in a profile ("smoke", "cpu", "workbook", "paper", or a YAML file of one's own).

    method     None: see `method_of`
    overrides  single fields over the profile's, as text or values; `options.NAME` is one of the method's options
    Raises CosegError for unknown profiles, sections, fields, options and values.
    """
    given, options = {}, {}
    for name, value in (overrides or {}).items():
        if name.startswith("options."):
            options[name.removeprefix("options.")] = read_text(value, name) if isinstance(value, str) else value
        else:
            given[name] = value
    method = given.pop("method", None) or method or method_of(profile)
    values = profile_fields(profile, PROFILES, TrainConfig, METHODS, method) | {"method": method} | given
    known = values.get("options") or {}
    known = read_text(known, "options") if isinstance(known, str) else known
    return TrainConfig(**values | {"options": known | options if isinstance(known, dict) else known})
