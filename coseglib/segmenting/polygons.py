"""Masks as polygons that labelling tools read: rings along the edges of pixels, a hole cut in from its outer ring.

Pixel (x, y) covers x … x + 1 and y … y + 1, as pycocotools takes polygons. COCO's polygons have no inner rings, and two
of them are united, so that a ring for a hole would fill it: the outer ring goes to the hole, around it and back.
"""

import numpy as np

TOLERANCE = 0.75  # pixels: a staircase of single pixels becomes a line
LARGE = 2000  # pixels: of masks with longer sides it is a share of these
AT_LEAST = 0.99  # J with the mask; where simpler rings have less, they follow every pixel's edge


def polygons_of(mask: np.ndarray) -> list[list[int]]:
    """Polygons [x0, y0, x1, y1, …], one a part, whose union is the mask (H, W), J at least `AT_LEAST`."""
    rings = _rings(mask != 0)
    tolerance = TOLERANCE * max(1, max(mask.shape) / LARGE)
    simple = _with_holes([(part, hole, _simplified(ring, tolerance)) for part, hole, ring in rings])
    return simple if _overlap(simple, mask) >= AT_LEAST else _with_holes(rings)


def _overlap(polygons: list[list[int]], mask: np.ndarray) -> float:
    from pycocotools import mask as rle

    if not polygons:
        return 1.0
    drawn = rle.merge(rle.frPyObjects(polygons, *mask.shape))
    own = rle.encode(np.asfortranarray(mask != 0, np.uint8))
    return float(rle.iou([drawn], [own], [0])[0, 0])


def _edges(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Edges between the object and what is beside it, the object on their right: each one's direction (0 to the right,
    1 down, 2 left, 3 up), start x, start y, and the part of the object that it is of (4-connected, from 1)."""
    from scipy import ndimage

    parts = np.pad(ndimage.label(mask)[0], 1)
    inside, found = parts != 0, []
    for direction, (dy, dx, sx, sy) in enumerate(((-1, 0, 0, 0), (0, 1, 1, 0), (1, 0, 1, 1), (0, -1, 0, 1))):
        y, x = np.nonzero(inside & ~np.roll(inside, (-dy, -dx), (0, 1)))
        found.append((np.full(len(y), direction), x - 1 + sx, y - 1 + sy, parts[y, x]))
    return tuple(np.concatenate(values) for values in zip(*found, strict=True))


def _rings(mask: np.ndarray) -> list[tuple[int, bool, np.ndarray]]:
    """(part, whether it is a hole, corners int (n, 2) of x and y) of every closed line around the object's parts."""
    direction, x, y, part = _edges(mask)
    width = mask.shape[1] + 1
    key = 4 * (y * width + x) + direction  # of an edge: where it begins, and whereto
    order = np.argsort(key)
    ends = 4 * ((y + np.array([0, 1, 0, -1])[direction]) * width + x + np.array([1, 0, -1, 0])[direction])
    following = np.full(len(key), -1)
    for turn in (3, 0, 1):  # to the left, straight on, and, which counts more, to the right: around the same pixel
        wanted = ends + (direction + turn) % 4
        place = order[np.searchsorted(key, wanted, sorter=order).clip(max=max(len(key) - 1, 0))]
        following = np.where(key[place] == wanted, place, following)
    corner = direction[following] != direction
    ahead, left, rings = following.tolist(), np.ones(len(key), bool), []
    for first in range(len(key)):
        if left[first]:
            line, edge = [], first
            while left[edge]:
                left[edge] = False
                line.append(edge)
                edge = ahead[edge]
            turns = following[np.array(line)[corner[line]]]  # a corner is where the next edge begins
            ring = np.stack([x[turns], y[turns]], axis=1)
            rings.append((int(part[first]), _area(ring) < 0, ring))
    return rings


def _area(ring: np.ndarray) -> float:
    """Signed: above 0 where the object lies inside."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Ramer, Douglas and Peucker: fewer corners, none that is left out farther than `tolerance` from the line."""
    far = int(np.linalg.norm(ring - ring[0], axis=1).argmax())
    line, kept = np.concatenate([ring, ring[:1]]).astype(float), {0, far}
    waiting = [(0, far), (far, len(ring))]
    while waiting:
        a, b = waiting.pop()
        if b - a < 2:
            continue
        (dx, dy), between = line[b] - line[a], line[a + 1 : b] - line[a]
        away = np.abs(between[:, 0] * dy - between[:, 1] * dx) / np.hypot(dx, dy)
        if away.max() > tolerance:
            middle = a + 1 + int(away.argmax())
            kept.add(middle)
            waiting += [(a, middle), (middle, b)]
    return ring[sorted(kept)] if len(kept) > 2 else ring


def _with_holes(rings: list[tuple[int, bool, np.ndarray]]) -> list[list[int]]:
    """One polygon for each part: to the hole from the nearest corner, around it and back; there and back cancel out."""
    polygons = {part: ring for part, hole, ring in rings if not hole}
    for part, hole, ring in rings:
        if hole:
            outer = polygons[part]
            near = int(np.abs(outer - ring[0]).sum(axis=1).argmin())
            polygons[part] = np.concatenate([outer[: near + 1], ring, ring[:1], outer[near:]])
    return [ring.flatten().tolist() for ring in polygons.values()]
