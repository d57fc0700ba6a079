"""Shapes: (x, y) in object coordinates -> signed distance in object units."""

from collections.abc import Callable
from functools import partial

import numpy as np

Array = np.ndarray
Distance = Callable[[Array, Array], Array]


def _polygon(*points: tuple[float, float]) -> Distance:
    """Distance to the nearest edge, its sign by counting the edges to the right of the point."""

    def distance(x: Array, y: Array) -> Array:
        nearest, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
            ex, ey = bx - ax, by - ay
            t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
            if ay != by:
                inside ^= ((ay <= y) != (by <= y)) & (x < ax + (y - ay) * ex / ey)
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    return distance


def _regular(corners: int, inner: float | None = None) -> Distance:
    """A regular polygon with a corner at the top, or, with an inner radius, a star."""
    n = corners if inner is None else 2 * corners
    turn = [2 * np.pi * i / n for i in range(n)]
    radius = [1 if inner is None or i % 2 == 0 else inner for i in range(n)]
    return _polygon(*((r * np.sin(a), -r * np.cos(a)) for r, a in zip(radius, turn, strict=True)))


def _disc(x: Array, y: Array, cx: float = 0, cy: float = 0, radius: float = 1) -> Array:
    return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - radius


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    return np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2) + np.minimum(np.maximum(dx, dy), 0)


def _heart(x: Array, y: Array) -> Array:
    """Two quarter discs on a square that stands on its corner."""
    x, y = np.abs(x) * 0.66, 0.56 - y * 0.66
    lobe = np.sqrt((x - 0.25) ** 2 + (y - 0.75) ** 2) - np.sqrt(2) / 4
    foot = 0.5 * np.maximum(x + y, 0)
    body = np.sqrt(np.minimum(x**2 + (y - 1) ** 2, (x - foot) ** 2 + (y - foot) ** 2)) * np.where(x < y, -1, 1)
    return np.where(x + y > 1, lobe, body) / 0.66


def _gear(x: Array, y: Array) -> Array:
    teeth = np.clip(1.8 * np.cos(9 * np.arctan2(y, x)), -1, 1)
    return np.maximum((_disc(x, y, radius=0.82) - 0.16 * teeth) * 0.8, -_disc(x, y, radius=0.34))


_TIP = _polygon((0.0, -1.0), (0.563, -0.025), (-0.563, -0.025))


def _spiral(x: Array, y: Array, pitch: float = 0.43, half_width: float = 0.13) -> Array:
    """The band around r = pitch · turns, from 0.15 to 2 turns, with round ends."""
    r, turn = np.sqrt(x**2 + y**2), np.arctan2(y, x) / (2 * np.pi) % 1
    nearest = np.full(x.shape, np.inf)
    for turns in (turn, turn + 1):
        nearest = np.minimum(nearest, np.where(turns >= 0.15, np.abs(r - pitch * turns), np.inf))
    for end in (0.15, 2.0):
        ex, ey = pitch * end * np.cos(2 * np.pi * end), pitch * end * np.sin(2 * np.pi * end)
        nearest = np.minimum(nearest, np.sqrt((x - ex) ** 2 + (y - ey) ** 2))
    return nearest - half_width


SHAPES: dict[str, Distance] = {
    "star": _regular(5, 0.45),
    "ring": lambda x, y: np.abs(_disc(x, y, radius=0.7)) - 0.28,
    "heart": _heart,
    "arrow": _polygon((-1, -0.27), (0.1, -0.27), (0.1, -0.72), (1, 0), (0.1, 0.72), (0.1, 0.27), (-1, 0.27)),
    "gear": _gear,
    "crescent": lambda x, y: np.maximum(_disc(x, y), -_disc(x, y, 0.48, 0, 0.82)),
    "triangle": _regular(3),
    "flower": lambda x, y: (_disc(x, y, radius=0.68) - 0.3 * np.cos(5 * np.arctan2(x, -y))) * 0.75,
    "disc": _disc,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.31), _box(x, y, 0.31, 0.95)),
    "leaf": lambda x, y: np.maximum(_disc(x, y, -0.72, 0, 1.23), _disc(x, y, 0.72, 0, 1.23)),
    "square": partial(_box, half_width=0.74, half_height=0.74),
    "spiral": _spiral,
    "drop": lambda x, y: np.minimum(_disc(x, y, 0, 0.3, 0.65), _TIP(x, y)),
    "bolt": _polygon((0.2, -0.95), (-0.6, 0.15), (-0.08, 0.15), (-0.25, 1), (0.6, -0.25), (0.08, -0.25), (0.45, -0.95)),
    "hexagon": _regular(6),
}
CATEGORIES = tuple(SHAPES)  # label k is CATEGORIES[k - 1]
UPRIGHT = frozenset(("heart", "drop", "flower", "leaf", "bolt", "triangle", "crescent"))  # turned by less than 50°

# What clutters and hides but has no name: irregular, or much longer than wide.
CLUTTER: dict[str, Distance] = {
    "bar": partial(_box, half_width=1.0, half_height=0.13),
    "wave": lambda x, y: np.maximum(np.abs(y - 0.22 * np.sin(4.5 * x)) * 0.75 - 0.11, np.abs(x) - 0.97),
    "blob": lambda x, y: (
        _disc(x, y, radius=0.62) - 0.28 * np.sin(2 * np.arctan2(y, x)) - 0.07 * np.sin(5 * np.arctan2(y, x) + 1)
    ) * 0.8,
    "shard": _polygon((-0.9, 0.2), (-0.2, -0.35), (0.95, -0.1), (0.1, 0.4)),
}  # fmt: skip
