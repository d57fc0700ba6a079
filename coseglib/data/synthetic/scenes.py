"""Scenes: what stands where, in which texture, hidden by what; then their pixels and label maps.

A shape is a function of (x, y) in object coordinates -> signed distance in object units, negative inside.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import dist

import numpy as np

Array = np.ndarray
Distance = Callable[[Array, Array], Array]
Colour = tuple[float, float, float]
PLAN = 48  # side of the grid on which overlaps are measured, so that a scene does not depend on the size it is drawn at


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


class Dice:
    """Uniform numbers from one seeded stream, and what is made of them."""

    def __init__(self, *key: int):
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def below(self, n: int) -> int:
        return int(self.rng.random() * n)

    def pick(self, options: Sequence):
        return options[self.below(len(options))]


@dataclass(frozen=True)
class Texture:
    """Two colours, RGB in [0, 1], and the pattern that mixes them: `frequency` a unit, turned by `angle` (radians)."""

    kind: str
    colours: tuple[Colour, Colour]
    frequency: float
    angle: float
    seed: int


@dataclass(frozen=True)
class Layer:
    """One shape in the unit square: centre, radius and angle (radians), aspect = width : height. label 0: clutter."""

    shape: str
    label: int
    x: float
    y: float
    radius: float
    angle: float
    aspect: float
    texture: Texture
    shadow: float  # strength in [0, 1]


@dataclass(frozen=True)
class Scene:
    """Background textures (the second mixed into the first) and layers, from the bottom to the top."""

    background: tuple[Texture, Texture]
    layers: tuple[Layer, ...]
    light: float  # direction of the light over the background, radians
    seed: int


def _colour(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1, saturation, value)


def _texture(dice: Dice, colours: tuple[Colour, Colour], low: float, high: float, kinds: tuple[str, ...]) -> Texture:
    """Of a frequency between low and high, turned at will."""
    return Texture(dice.pick(kinds), colours, dice.between(low, high), dice.between(0, np.pi), dice.below(2**31))


def centres(size: int) -> tuple[Array, Array]:
    """x (1, size) and y (size, 1) of the pixels' centres in the unit square."""
    at = (np.arange(size) + 0.5) / size
    return at[None, :], at[:, None]


def local(layer: Layer, x: Array, y: Array) -> tuple[Array, Array]:
    """Unit square -> object coordinates."""
    c, s = np.cos(layer.angle), np.sin(layer.angle)
    dx, dy = x - layer.x, y - layer.y
    stretch = np.sqrt(layer.aspect)
    return (dx * c + dy * s) / (layer.radius * stretch), (dy * c - dx * s) * stretch / layer.radius


def distance(layer: Layer, x: Array, y: Array) -> Array:
    """Signed distance in object units at points of the unit square; coordinates broadcast."""
    return (SHAPES | CLUTTER)[layer.shape](*np.broadcast_arrays(*local(layer, x, y)))


def coverage(layer: Layer, size: int) -> Array:
    """The pixels that a layer covers when nothing hides it. bool (size, size)."""
    return distance(layer, *centres(size)) < 0


PATTERNS = ("plain", "stripes", "checks", "dots", "gradient", "noise", "rings")


def _object_texture(dice: Dice, category: int, ground: Colour) -> Texture:
    """Saturated, near the category's own hue in two cases of three; redrawn while too like the background."""
    best = None
    for _ in range(8):
        hue = category / len(CATEGORIES) + dice.between(-0.05, 0.05) if dice.chance(0.67) else dice.rng.random()
        first = _colour(hue, dice.between(0.6, 0.95), dice.between(0.65, 1.0))
        if best is None or dist(first, ground) > dist(best[1], ground):
            best = hue, first
        if dist(first, ground) > 0.5:
            break
    hue, first = best
    second = _colour(hue + dice.between(-0.09, 0.09), dice.between(0.35, 0.9), dice.between(0.45, 1.0))
    return _texture(dice, (first, second), 1.2, 3.0, PATTERNS)


def _ground_textures(dice: Dice) -> tuple[Texture, Texture]:
    """Two muted textures of one family of colours."""
    hue, value = dice.rng.random(), dice.between(0.35, 0.85)

    def one(kinds, low, high):
        colours = tuple(
            _colour(hue + dice.between(-0.08, 0.08), dice.between(0.08, 0.38), min(1, value * dice.between(0.75, 1.25)))
            for _ in range(2)
        )
        return _texture(dice, colours, low, high, kinds)

    return one(("noise", "gradient", "noise"), 2, 5), one(PATTERNS[1:], 3, 9)


def _clutter(dice: Dice, ground: tuple[Texture, Texture], loud: bool) -> Layer:
    """A nameless piece: muted like the background, or as loud as an object."""
    hue, _, value = colorsys.rgb_to_hsv(*ground[0].colours[0])
    colours = tuple(
        _colour(dice.rng.random(), dice.between(0.4, 0.8), dice.between(0.3, 0.9))
        if loud
        else _colour(hue + dice.between(-0.15, 0.15), dice.between(0.1, 0.45), min(1, value * dice.between(0.55, 1.35)))
        for _ in range(2)
    )
    texture = _texture(dice, colours, 1.5, 4, PATTERNS)
    place = dice.between(0, 1), dice.between(0, 1), dice.between(0.06, 0.2), dice.between(0, 2 * np.pi)
    return Layer(dice.pick(tuple(CLUTTER)), 0, *place, dice.between(0.8, 1.25), texture, 0.25)


def _named(dice: Dice, category: str, radius: tuple[float, float], ground: Colour) -> Layer:
    k, r = CATEGORIES.index(category), dice.between(*radius)
    turn = dice.between(-0.85, 0.85) if category in UPRIGHT else dice.between(0, 2 * np.pi)
    x, y = dice.between(0.8 * r, 1 - 0.8 * r), dice.between(0.8 * r, 1 - 0.8 * r)
    return Layer(category, k + 1, x, y, r, turn, dice.between(0.85, 1.18), _object_texture(dice, k, ground), 0.45)


def scene(categories: tuple[str, ...], *key: int) -> Scene:
    """The scene of these categories that the integers `key` stand for.

    A scene of one category may show it twice. Of what a later shape hides, the least of 16 drawn places is taken; an
    occluder (one scene in three) hides 8 to 40 % of the first category and no more than that of the others.
    """
    dice = Dice(*key, *(CATEGORIES.index(c) for c in categories))
    ground = _ground_textures(dice)
    # Two textures of one hue: their mean is what an object has to stand out from.
    mean = tuple(float(np.mean(channel)) for channel in zip(*ground[0].colours, *ground[1].colours, strict=True))
    layers = [_clutter(dice, ground, loud=False) for _ in range(3 + dice.below(5))]
    layers += [_clutter(dice, ground, loud=True) for _ in range(dice.below(3))]
    radii = {1: (0.2, 0.36), 2: (0.17, 0.27)}.get(len(categories), (0.16, 0.22))
    wanted = list(categories)
    if len(categories) == 1 and dice.chance(0.25):
        wanted, radii = wanted * 2, (0.16, 0.24)
    shown = np.zeros((PLAN, PLAN), np.uint8)  # label of what is seen, on the planning grid
    for category in wanted:
        layer = _named(dice, category, radii, mean)
        r, best = layer.radius, None
        for _ in range(16):
            x, y = dice.between(0.8 * r, 1 - 0.8 * r), dice.between(0.8 * r, 1 - 0.8 * r)
            candidate = replace(layer, x=x, y=y)
            hidden = int((shown[coverage(candidate, PLAN)] > 0).sum())
            if best is None or hidden < best[0]:
                best = hidden, candidate
            if hidden == 0:
                break
        layers.append(best[1])
        shown[coverage(best[1], PLAN)] = best[1].label
    if dice.chance(0.35):
        for _ in range(12):
            over = next(layer for layer in layers if layer.label)
            piece = _clutter(dice, ground, loud=dice.chance(0.5))
            x, y = (c + dice.between(-0.8, 0.8) * over.radius for c in (over.x, over.y))
            piece = replace(piece, x=x, y=y, radius=over.radius * dice.between(0.8, 1.6), shadow=0.45)
            covered = coverage(piece, PLAN)
            shares = [float(covered[shown == k].mean()) for k in sorted(set(shown[shown > 0].tolist()))]
            first = float(covered[shown == over.label].mean())
            if first >= 0.08 and max(shares) <= 0.4:
                layers.append(piece)
                break
    return Scene(ground, tuple(layers), dice.between(0, 2 * np.pi), dice.below(2**31))


def _mix(texture: Texture, u: Array, v: Array) -> Array:
    """Share of the second colour in [0, 1] at (u, v)."""
    f, (c, s) = texture.frequency, (np.cos(texture.angle), np.sin(texture.angle))
    p, q = f * (u * c + v * s), f * (v * c - u * s)

    def soft(wave: Array) -> Array:  # a square wave with soft edges
        return np.clip(0.5 + 3 * wave, 0, 1)

    match texture.kind:
        case "plain":
            return np.zeros(np.broadcast(u, v).shape)
        case "stripes":
            return soft(np.sin(2 * np.pi * p)) + 0 * q
        case "checks":
            return soft(np.sin(2 * np.pi * p * 0.6) * np.sin(2 * np.pi * q * 0.6))
        case "dots":
            return np.clip(2.2 - 6 * np.sqrt((p % 1 - 0.5) ** 2 + (q % 1 - 0.5) ** 2), 0, 1)
        case "gradient":
            return 0.5 + 0.5 * np.sin(p * 2 / f) + 0 * q
        case "rings":
            return soft(np.sin(2 * np.pi * np.sqrt(p**2 + q**2)))
    lattice = np.random.Generator(np.random.PCG64(texture.seed)).random((2, 16, 16))  # "noise": two octaves
    total = 0.0
    for octave, weight in enumerate((0.65, 0.35)):
        a, b = p * 2**octave + 100, q * 2**octave + 100
        i, j = np.floor(a).astype(int), np.floor(b).astype(int)
        a, b = a - i, b - j
        a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
        grid = lattice[octave]
        i0, i1, j0, j1 = i % 16, (i + 1) % 16, j % 16, (j + 1) % 16
        top, bottom = grid[j0, i0] * (1 - a) + grid[j0, i1] * a, grid[j1, i0] * (1 - a) + grid[j1, i1] * a
        total = total + weight * (top * (1 - b) + bottom * b)
    return np.clip(1.8 * total - 0.4, 0, 1)


def _paint(texture: Texture, u: Array, v: Array) -> Array:
    """RGB (3, h, w) in [0, 1] of a texture at (u, v)."""
    first, second = (np.array(c)[:, None, None] for c in texture.colours)
    return first + (second - first) * _mix(texture, u, v)


def _window(layer: Layer, size: int) -> tuple[slice, slice]:
    """Rows and columns that a layer, its soft edge and its shadow can touch."""
    reach = layer.radius * 1.45 + 0.04  # wider than any shape, stretched and turned
    spans = [(int(np.floor((c - reach) * size)), int(np.ceil((c + reach) * size))) for c in (layer.y, layer.x)]
    return tuple(slice(min(max(low, 0), size), min(max(high, 0), size)) for low, high in spans)


def draw(one: Scene, size: int) -> tuple[Array, Array]:
    """image uint8 (3, size, size), labels uint8 (size, size), 0 where no category is seen."""
    x, y = centres(size)
    base, pattern = (_paint(t, x, y) for t in one.background)
    light = (x - 0.5) * np.cos(one.light) + (y - 0.5) * np.sin(one.light)
    image = (0.65 * base + 0.35 * pattern) * (1 + 0.3 * light)
    labels = np.zeros((size, size), np.uint8)
    for layer in one.layers:
        rows, columns = _window(layer, size)
        wx, wy, part = x[:, columns], y[rows], image[:, rows, columns]
        if part.size == 0:
            continue
        drop = 0.02 + 0.05 * layer.radius  # the shadow falls to the lower right, softly
        part *= 1 - layer.shadow * np.clip(0.5 - distance(layer, wx - drop, wy - drop) * 3, 0, 1)
        d = distance(layer, wx, wy)
        u, v = local(layer, wx, wy)
        side = np.clip(0.5 - 0.35 * ((wx - layer.x) + (wy - layer.y)) / layer.radius, 0, 1)  # light from the upper left
        rim = np.clip(1 + d / 0.14, 0, 1) ** 2
        colour = _paint(layer.texture, u, v) * (0.8 + 0.35 * side) * (1 - 0.35 * rim)
        alpha = np.clip(0.5 - d * layer.radius * size, 0, 1)  # one pixel of soft edge, half covered where d = 0
        part += (np.clip(colour, 0, 1) - part) * alpha
        labels[rows, columns][d < 0] = layer.label
    grain = np.random.Generator(np.random.PCG64(one.seed)).random((size, size))
    return np.floor(np.clip(image + 0.05 * (grain - 0.5), 0, 1) * 255 + 0.5).astype(np.uint8), labels
