"""Pictures and masks stay in line: a drawn disc's centroids, in the picture and in the mask, along training's path.

A mask that is sampled from the corners of pixels lies about half a pixel too low; the flip hides the horizontal part,
so that it is looked at without as well.
"""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from coseglib.data.cache import TrainingSet, training_set
from coseglib.data.pasting import paste
from coseglib.data.record import Photo, resize_labels
from coseglib.data.sampler import GroupSampler

DARK, LIGHT = 80, 150  # far enough from 0 and 255 for any change of brightness and contrast
CLASSES = ("disc", "ground")


def _disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A light disc on dark ground, with a soft edge, and its label map; in pixels, (0, 0) is the corner."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    distance = np.hypot(y - centre[0], x - centre[1]) - radius
    grey = DARK + (LIGHT - DARK) * np.clip(0.5 - distance, 0, 1)
    image = torch.from_numpy(np.broadcast_to(np.rint(grey).astype(np.uint8), (3, *size)).copy())
    return image, torch.from_numpy((distance < 0).astype(np.uint8))


def _photographs(side: int, folder, count: int = 16) -> TrainingSet:
    """As many discs as empty grounds, whose other class is the lower half and cannot be seen; larger than the cache."""
    rng = np.random.default_rng(0)
    photos = []
    for i in range(count):
        size = tuple(rng.integers(int(1.4 * side), int(1.9 * side), 2))
        centre = [n * rng.uniform(0.4, 0.6) for n in size]
        image, labels = _disc(size, centre, 0.3 * min(size))
        photos.append(Photo("made", f"disc{i}", CLASSES, lambda x=image: x, lambda x=labels: x))
        bare = torch.full((3, *size), DARK, dtype=torch.uint8)
        low = torch.zeros(size, dtype=torch.uint8)
        low[size[0] // 2 :] = 2
        photos.append(Photo("made", f"ground{i}", CLASSES, lambda x=bare: x, lambda x=low: x))
    return training_set(photos, side, folder)


def _off(image: torch.Tensor, mask: torch.Tensor) -> np.ndarray | None:
    """How far (rows, columns) the mask's centroid lies from the light's, in pixels; None where there is no disc."""
    light = image.float().mean(0)
    light = light - light.min()
    if light.max() < 20 or mask.float().mean() < 0.03:
        return None
    at = [torch.arange(n) + 0.5 for n in mask.shape]

    def centroid(weight):
        return np.array([float((weight.sum(1 - axis) * at[axis]).sum() / weight.sum()) for axis in (0, 1)])

    return centroid((mask == 1).float()) - centroid(light)


@pytest.mark.parametrize("side", [64, 160, 288])
@pytest.mark.parametrize("flipped", [True, False])
@pytest.mark.parametrize("shares", [(1, 0, 0), (0, 1, 0)], ids=["plain", "pasted"])
def test_picture_and_mask_agree_from_the_cache_to_the_batch(tmp_path, monkeypatch, side, flipped, shares):
    if not flipped:
        monkeypatch.setattr(v2.RandomHorizontalFlip, "transform", lambda self, inpt, params: inpt)
    sampler = GroupSampler(_photographs(int(1.3 * side), tmp_path, 8), groups=8, side=side, shares=shares, pasted=1)
    found = []
    for step in range(12 if side < 100 else 5):
        batch = sampler[step]
        of_disc = batch.classes[:, 0] == 1
        for images, targets in zip(batch.images[of_disc], batch.targets[of_disc], strict=True):
            found += [_off(image, target) for image, target in zip(images, targets, strict=True)]
    found = np.array([f for f in found if f is not None])
    assert len(found) >= 20
    rows, columns = found.mean(0)
    assert abs(rows) < 0.05 and abs(columns) < 0.05, (rows, columns, len(found))


@pytest.mark.parametrize("side", [64, 160, 288])
def test_the_cache_alone_and_a_pasted_disc_alone_agree(tmp_path, side):
    photographs = _photographs(side, tmp_path)
    cached, pasted = [], []
    bare = torch.full((3, 2 * side, 2 * side), DARK, dtype=torch.uint8)
    for i in range(0, len(photographs), 2):
        image, labels = photographs.photo(i)
        cached.append(_off(image, labels))
        for seed in range(4):
            rng = np.random.default_rng(seed)
            image_with, labels_with = paste(bare, torch.zeros_like(bare[0]), image, labels, 1, rng, scale=(0.4, 0.9))
            pasted.append(_off(image_with, labels_with))
    for found in (cached, pasted):
        rows, columns = np.mean([f for f in found if f is not None], 0)
        assert abs(rows) < 0.05 and abs(columns) < 0.05, (rows, columns)


def test_a_resized_mask_has_the_pixel_under_each_centre():
    labels = torch.arange(35, dtype=torch.uint8).reshape(5, 7)
    for size in ((3, 4), (5, 7), (11, 2), (10, 14)):
        rows, columns = ([int((i + 0.5) * n / m) for i in range(m)] for n, m in zip((5, 7), size, strict=True))
        assert torch.equal(resize_labels(labels, size), labels[rows][:, columns])
        assert torch.equal(resize_labels(labels[None], size), labels[rows][:, columns][None])
