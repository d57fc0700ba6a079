"""Made photographs of two classes, a red square and a blue disc, for tests that learn on them in seconds."""

import numpy as np
import torch

from coseglib.data.record import Group, Photo


def scene(number: int, size: tuple[int, int] = (48, 64)) -> tuple[torch.Tensor, torch.Tensor]:
    """A red square and a blue disc on green noise, and who is where: 1 the square, 2 the disc."""
    rng = np.random.default_rng(number)
    h, w = size
    image = rng.integers(60, 120, (3, h, w)).astype(np.uint8)
    image[1] += 80
    labels = np.zeros((h, w), np.uint8)
    y, x = np.mgrid[:h, :w]
    labels[h // 8 : h // 2, w // 8 : w // 2] = 1
    labels[(y - 0.7 * h) ** 2 + (x - 0.7 * w) ** 2 < (0.22 * min(h, w)) ** 2] = 2
    image[:, labels == 1] = np.array([[220], [30], [30]], np.uint8)
    image[:, labels == 2] = np.array([[30], [30], [230]], np.uint8)
    return torch.from_numpy(image), torch.from_numpy(labels)


def photos_of(count: int, size: tuple[int, int] = (48, 64)) -> list[torch.Tensor]:
    return [scene(i, size)[0] for i in range(count)]


def group_of(count: int, name: str = "square+disc") -> Group:
    made = []
    for i in range(count):
        image, labels = scene(i)
        made.append(Photo("made", f"p{i}", ("square", "disc"), lambda x=image: x, lambda x=labels: x))
    return Group("made", name, tuple(made), ("square", "disc"))
