"""A scene's pixels and its label map."""

import numpy as np

from coseglib.data.synthetic.scenes import Layer, Scene, Texture, centres, distance, local
from coseglib.data.synthetic.shapes import Array


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


def _window(layer: Layer, size: int, margin: float) -> tuple[slice, slice]:
    """Rows and columns that a layer, its soft edge and its shadow can touch."""
    reach = layer.radius * 1.45 + margin  # wider than any shape, stretched and turned
    spans = [(int(np.floor((c - reach) * size)), int(np.ceil((c + reach) * size))) for c in (layer.y, layer.x)]
    rows, columns = (slice(min(max(low, 0), size), min(max(high, 0), size)) for low, high in spans)
    return rows, columns


def draw(scene: Scene, size: int) -> tuple[Array, Array]:
    """image uint8 (3, size, size), labels uint8 (size, size), 0 where no category is seen."""
    x, y = centres(size)
    base, pattern = (_paint(t, x, y) for t in scene.background)
    light = (x - 0.5) * np.cos(scene.light) + (y - 0.5) * np.sin(scene.light)
    image = (0.65 * base + 0.35 * pattern) * (1 + 0.3 * light)
    labels = np.zeros((size, size), np.uint8)
    for layer in scene.layers:
        rows, columns = _window(layer, size, 0.04)
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
    grain = np.random.Generator(np.random.PCG64(scene.seed)).random((size, size))
    return np.floor(np.clip(image + 0.05 * (grain - 0.5), 0, 1) * 255 + 0.5).astype(np.uint8), labels
