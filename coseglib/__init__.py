"""coseglib: object co-segmentation, five papers behind one interface. `from coseglib import segment`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from coseglib.answering.reference import Reference

__version__ = "0.1.0"


def segment(
    photos: Sequence[str | Path | np.ndarray],
    reference: Reference | Sequence[Reference] = (),
    checkpoint: str | Path | None = None,
    group: Literal["mean", "min"] = "mean",
    post: Literal["argmax", "crf"] | None = None,
) -> list[np.ndarray]:
    """What photographs have in common: a mask each, uint8 (H, W), 0 and 1, at the photograph's own size as displayed.

    photos      of one group: files, or arrays uint8 (H, W, 3)
    reference   `coseglib.answering.reference.Reference`: pictures in which the object that is meant is marked
    checkpoint  a shipped name, a run's folder or a file; None: the default's
    group, post as of `coseg segment`, whose masks these are
    Raises CosegError (`coseglib.core.errors`) for the first photograph that cannot be read, and what is not known.

        masks = segment(["a.jpg", "b.jpg"])
    """
    import torch

    from coseglib.answering.masks import segment_group
    from coseglib.answering.reference import Reference
    from coseglib.core.errors import CosegError
    from coseglib.core.paths import DEFAULT_CHECKPOINT
    from coseglib.models import load_model

    if isinstance(photos, str | Path):
        raise CosegError(f"{photos}: one name; give a list of photographs")

    def picture(photo):
        if isinstance(photo, str | Path):
            return Path(photo)
        if getattr(photo, "dtype", None) != "uint8" or photo.ndim != 3 or photo.shape[2] != 3:
            raise CosegError(f"an array of {getattr(photo, 'shape', photo)}: photographs are uint8 (H, W, 3), or files")
        return torch.from_numpy(photo.copy()).permute(2, 0, 1)

    references = [reference] if isinstance(reference, Reference) else reference
    model = load_model(checkpoint or DEFAULT_CHECKPOINT)
    pictures = [picture(photo) for photo in photos]
    return [mask.numpy() for mask in segment_group(model, pictures, group, post=post, references=references)]
