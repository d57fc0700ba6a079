"""The photographs of a configuration: what it trains on, in batches, and what it is validated on, never a test set."""

from collections.abc import Callable

from coseglib.data import training_photos, validation_groups
from coseglib.data.cache import TrainingSet, training_set
from coseglib.data.sampler import GroupSampler
from coseglib.data.synthetic import load_synthetic, synthetic_photos
from coseglib.scoring.metrics import aggregate, auroc
from coseglib.scoring.rows import evaluate, partner_swap, refusal
from coseglib.training.configuration import TrainConfig


def cached_photographs(
    config: TrainConfig, data_root=None, progress: Callable[[int, int], None] | None = None
) -> TrainingSet:
    """Decoded and resized once, kept on disk. progress: called with how many are done, and of how many."""
    if config.data == "synthetic":
        photos = synthetic_photos("train", config.synthetic_photos, size=config.cache_side)
    else:
        photos = training_photos(data_root, dataset="coco-seg" if config.data == "coco-seg" else "voc+msrc")
    return training_set(photos, config.cache_side, progress=progress)


def build_batches(config: TrainConfig, photos: TrainingSet, processes: int = 1, rank: int = 0) -> GroupSampler:
    """The batches of one process of several, each a part of a step."""
    same = {name: getattr(config, name) for name in ("shares", "pasted", "twins", "crop", "seed", "by_set")}
    return GroupSampler(
        photos,
        config.group_size,
        config.groups // config.accumulate // processes,
        config.sides or config.input_size,
        steps=config.steps * config.accumulate,
        rank=rank,
        **same,
    )


def build_validation(config: TrainConfig, data_root=None) -> Callable[..., dict[str, float]]:
    """A function model -> {val_J, val_swap, val_refusal}."""
    groups = load_synthetic("val") if config.data == "synthetic" else validation_groups(data_root)

    def score(model) -> dict[str, float]:
        table = aggregate(evaluate(model, groups, "common", limit=config.validate_photos), "common")
        unsure = refusal(model, groups)
        return {
            "val_J": float(table.J.iloc[-1]),
            "val_swap": 100 * float(partner_swap(model, groups).score.mean()),
            "val_refusal": auroc(unsure.score, unsure.common),
        }

    return score
