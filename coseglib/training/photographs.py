"""The photographs that a configuration trains on."""

from collections.abc import Callable

from coseglib.data.cache import TrainingSet, training_set
from coseglib.training.configuration import TrainConfig


def cached_photographs(
    config: TrainConfig, data_root=None, progress: Callable[[int, int], None] | None = None
) -> TrainingSet:
    """Decoded and resized once, kept on disk. progress: called with how many are done, and of how many."""
    if config.data == "synthetic":
        from coseglib.data.synthetic import synthetic_photos

        photos = synthetic_photos("train", config.synthetic_photos, size=config.cache_side)
    else:
        from coseglib.data import training_photos

        photos = training_photos(data_root, dataset="coco-seg" if config.data == "coco-seg" else "voc+msrc")
    return training_set(photos, config.cache_side, progress=progress)
