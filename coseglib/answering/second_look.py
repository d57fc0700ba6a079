"""A second look: where a context model found something, it looks again from nearer, and the two answers are averaged.

A network that reads 224² pixels marks a helicopter far away with twenty of them. Its own first answer says where to
look: the window around the foreground, half as wide again and more, is cut out of the photograph at its own size,
resized to the network's input and decoded by the same context. Two looks at most, so cost stays linear in the number of
images, and memory constant. In none of the papers; a checkpoint says in its card ("looks") how often it looks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.answering.reading import resize_to_input

MARGIN = 0.35  # of the foreground's height and width, added at each side
LEAST = 0.35  # of the photograph's sides: no window is smaller
MOST = 0.85  # of the photograph's area: beyond it nothing is nearer
ENOUGH = 20  # pixels of foreground: fewer say nothing about where


def window(found: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Where to look again: top, bottom, left, right in pixels of a picture of `size` (H, W); None: nowhere.

    found  bool (h, w), the first answer's foreground
    """
    if found.sum() < ENOUGH:
        return None
    edges = []
    for axis, length in ((1, size[0]), (0, size[1])):
        held = found.any(dim=axis).nonzero()[:, 0]
        low, high = float(held[0]) / found.shape[1 - axis], float(held[-1] + 1) / found.shape[1 - axis]
        side = min(1.0, max((high - low) * (1 + 2 * MARGIN), LEAST))
        start = min(max((low + high - side) / 2, 0.0), 1 - side)
        edges += [int(start * length), min(length, math.ceil((start + side) * length))]
    top, bottom, left, right = edges
    return (top, bottom, left, right) if (bottom - top) * (right - left) < MOST * size[0] * size[1] else None


@torch.no_grad()
def second_look(model, pictures: list[Tensor], logits: Tensor, context: Tensor) -> Tensor:
    """logits (B, 2, S, S) -> logarithms of both labels' probabilities (B, 2, 2S, 2S), on the logits' device.

    model     a context model               pictures  uint8 (3, H, W) each, the photographs as they were read
    context   (D,) or (B, D), by which the first answer was decoded
    """
    p = logits.float().softmax(1)[:, 1]  # (B, S, S)
    side = 2 * p.shape[-1]
    mean = F.interpolate(p[:, None], size=(side, side), mode="bilinear")  # (B, 1, 2S, 2S)
    windows = [window(q > 0.5, tuple(x.shape[-2:])) for q, x in zip(p.cpu(), pictures, strict=True)]
    again = [i for i, w in enumerate(windows) if w is not None]
    if again:
        inputs, theta = [], []
        for i in again:
            top, bottom, left, right = windows[i]
            height, width = pictures[i].shape[-2:]
            inputs.append(resize_to_input(pictures[i][:, top:bottom, left:right], model.input_size))
            # from places in the photograph to places in the window, both from -1 to 1
            x, y = width / (right - left), height / (bottom - top)
            theta.append([[x, 0, x - 1 - 2 * left / (right - left)], [0, y, y - 1 - 2 * top / (bottom - top)]])
        stacked = torch.stack(inputs).contiguous(memory_format=torch.channels_last).to(p.device)
        chosen = context if context.ndim == 1 else context[again]
        closer = model.answer(model.encode(stacked), chosen).float().softmax(1)[:, 1:]  # (A, 1, S, S)
        places = F.affine_grid(torch.tensor(theta, device=p.device), [len(again), 1, side, side], align_corners=False)
        closer = F.grid_sample(closer, places, padding_mode="border", align_corners=False)
        inside = (places.abs() <= 1).all(dim=-1)[:, None]
        mean[again] = torch.where(inside, (mean[again] + closer) / 2, mean[again])
    mean = mean.clamp(1e-6, 1 - 1e-6)
    return torch.cat([1 - mean, mean], dim=1).log()
