"""Losses on logits (…, K, H, W) and label maps (…, H, W) with 255 for void. Losses are means."""

import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.data.record import VOID

BAND = 3  # pixels to either side of a contour


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that are not void; 0 where all are."""
    k, h, w = logits.shape[-3:]
    logits, labels = logits.reshape(-1, k, h, w), labels.reshape(-1, h, w).long()
    total = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp(min=1)


def _dice(p: Tensor, g: Tensor, valid: Tensor, epsilon: float) -> Tensor:
    """1 − (2 Σ p g + ε) / (Σ p + Σ g + ε), mean over the images. p probabilities, g and valid bool: all (…, H, W)."""
    p, g = p * valid, (g & valid).to(p.dtype)
    overlap, total = (p * g).sum(dim=(-2, -1)), (p + g).sum(dim=(-2, -1))
    return (1 - (2 * overlap + epsilon) / (total + epsilon)).mean()


def foreground_dice(logits: Tensor, labels: Tensor, epsilon: float = 1.0) -> Tensor:
    """Dice loss of the foreground: p is the soft-max probability of not being background.

    epsilon  ε, in pixels: an empty prediction of an empty mask loses nothing.
    """
    return _dice(1 - logits.softmax(dim=-3).select(-3, 0), labels != 0, labels != VOID, epsilon)


def two_sided_dice(logits: Tensor, labels: Tensor, epsilon: float = 1.0) -> Tensor:
    """Mean of the dice losses of foreground and background, DCNet's eqs. (8), (9)."""
    p_background, valid = logits.softmax(dim=-3).select(-3, 0), labels != VOID
    background = _dice(p_background, labels == 0, valid, epsilon)
    return (background + _dice(1 - p_background, labels != 0, valid, epsilon)) / 2


def boundary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that lie within BAND pixels of a contour, void ones apart; 0 without a contour.

    Most pixels lie far from any contour and are soon right: beside `cross_entropy` this weighs those that decide it.
    """
    labels = labels.reshape(-1, 1, *labels.shape[-2:])
    foreground = ((labels != 0) & (labels != VOID)).float()
    near, far = (F.max_pool2d(sign * foreground, 2 * BAND + 1, 1, BAND) for sign in (1, -1))
    return cross_entropy(logits.flatten(0, -4), torch.where(near + far > 0, labels, VOID)[:, 0])


OBJECTIVES = {"dice": two_sided_dice, "cross_entropy": cross_entropy}


def segmentation_loss(logits: Tensor, labels: Tensor, dice: float = 0.0) -> Tensor:
    """Cross-entropy + dice · foreground dice; dice = 0 is Chen et al. 2018, dice = ½ the workbook variant."""
    loss = cross_entropy(logits, labels)
    return loss + dice * foreground_dice(logits, labels) if dice else loss


def batch_jaccard(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean J of the foreground over the images of a batch, empty against empty = 1: a training curve, not a result."""
    with torch.no_grad():
        valid = labels != VOID
        # As argmax != 0, which takes a twentieth of a training step on a CPU.
        found = logits[..., 1:, :, :].amax(dim=-3) > logits[..., 0, :, :]
        p, t = found & valid, (labels != 0) & valid
        union = (p | t).sum(dim=(-2, -1))
        return torch.where(union == 0, 1.0, (p & t).sum(dim=(-2, -1)) / union.clamp(min=1)).mean()
