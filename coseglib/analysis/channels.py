"""Which channels matter in which image: the attention of many images as one table."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coseglib.analysis.grad_cam import backbone_maps, offering
from coseglib.analysis.seen import seen_in_training
from coseglib.answering.reading import resize_to_input
from coseglib.core.errors import CosegError
from coseglib.data.record import VOID, Group


@dataclass(frozen=True)
class ChannelTable:
    """What the channels of n images say; row i of all three is the same image.

    rows        dataset, class (the group's name), photo (its name), seen (did training hold the class?)
    importance  float32 (n, D): alpha, in [0, 1] (rounding reaches the ends), or gamma
    pooled      float32 (n, C): the mean over the positions of the map that the importance is computed from
    """

    rows: pd.DataFrame
    importance: np.ndarray
    pooled: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """(n,) names."""
        return self.rows["class"].to_numpy(str)

    def table(self) -> pd.DataFrame:
        """The rows with the importance beside them, its columns named 0 … D − 1: to be written to a file."""
        return pd.concat([self.rows, pd.DataFrame(self.importance)], axis=1)


def single_class(groups: Sequence[Group], most: int | None = None, seed: int = 0) -> list[Group]:
    """The groups without the photographs that stand in several of them: an image of two classes has no one colour.

    most  photographs a group, drawn by the seed; None: all. Groups with fewer than two are left out.
    """
    times: dict[tuple[str, str], int] = {}
    for photo in (p for group in groups for p in group.photos):
        times[photo.dataset, photo.name] = times.get((photo.dataset, photo.name), 0) + 1
    kept = []
    for group in groups:
        photos = [p for p in group.photos if times[p.dataset, p.name] == 1]
        drawn = np.random.default_rng(seed).permutation(len(photos))[:most]
        if len(drawn) > 1:
            kept.append(replace(group, photos=tuple(photos[i] for i in sorted(drawn))))
    return kept


def hide_object(image: Tensor, mask: Tensor) -> Tensor:
    """The box around the foreground filled with the mean colour around it: the scene without the object.

    image uint8 (3, H, W), mask uint8 (H, W), 0 background, 255 void -> a new image. No foreground: as it was.
    """
    ys, xs = torch.nonzero((mask != 0) & (mask != VOID), as_tuple=True)
    image = image.clone()
    if len(ys):
        box = slice(int(ys.min()), int(ys.max()) + 1), slice(int(xs.min()), int(xs.max()) + 1)
        around = torch.ones(mask.shape, dtype=torch.bool)
        around[box] = False
        colour = image[:, around if around.any() else ~around].float().mean(dim=1).round().to(image.dtype)
        image[:, box[0], box[1]] = colour[:, None, None]
    return image


@torch.no_grad()
def channel_importance(model, images: Tensor) -> tuple[Tensor, Tensor]:
    """How much each channel matters, by each image alone. (N, 3, H, W) -> (N, D), and the pooled map (N, C).

    CA, FCA, CSA  alpha, eqs. (1), (2), in (0, 1)      SSNM  gamma of the image as a group of its own, eq. (3)
    The pooled map is what these start from: the mean over the positions of the stride-32 map, after the embedding
    that a backbone has in the workbook variant. Raises CosegError for models that weigh no channels.
    """
    with backbone_maps(model) as calls:
        if model.kind == "context":
            importance = model.attention(model.encode(images))
        elif "gamma" in model.EXTRAS:
            importance = model(images[:, None]).extra("gamma")[:, 0]  # N groups of one
        else:
            raise CosegError(
                f"{type(model).__name__}: weighs no channels; {offering('alpha')} and {offering('gamma')} do"
            )
        pooled = model.backbone.embed(calls[-1][-1]).float().mean(dim=(-2, -1))
    return importance.float().cpu(), pooled.cpu()


def channel_table(
    model, groups: Sequence[Group], trained_on: Collection[str] = (), hidden: bool = False, batch: int = 8
) -> ChannelTable:
    """`channel_importance` of every image of some groups, in their order; n is the sum of their sizes.

    trained_on  classes, from `classes_trained_on`; a group is seen where its target is one of them
    hidden      True: of the images with their objects hidden (`hide_object`); the groups need masks
    batch       images that go through the network at once; memory does not grow with n
    Raises CosegError for no groups, models that weigh no channels, photographs that cannot be read or have no mask.
    """
    members = [(group, i) for group in groups for i in range(len(group))]
    if not members:
        raise CosegError("no groups: there is no image to describe")
    device, found = next(model.parameters()).device, []
    for start in range(0, len(members), batch):
        inputs = []
        for group, i in members[start : start + batch]:
            image = group.photos[i].image()
            image = hide_object(image, group.mask(i)) if hidden else image
            inputs.append(resize_to_input(image, model.input_size))
        found.append(channel_importance(model, torch.stack(inputs).to(device)))
    rows = [
        {
            "dataset": group.dataset,
            "class": group.name,
            "photo": group.photos[i].name,
            "seen": seen_in_training(group, trained_on),
        }
        for group, i in members
    ]
    importance, pooled = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return ChannelTable(pd.DataFrame(rows), importance, pooled)
