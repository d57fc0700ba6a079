"""What the still lifes show, as distances and materials (`render.py` draws them).

A *thing* is the radius and the height of a sphere around it, a function p -> its parts' distances (below 0 inside), and
a material a part: a function (p, n) -> colour (3, n), and how much of a mirror it is, 0 to 1. p and the normals n are
float32 (3, n), in the thing's own coordinates: x forward, y up, z to a side.
"""

import numpy as np

SEED = 7
LATTICE = np.random.default_rng(SEED).random((32, 32, 32), np.float32) * 2 - 1


def noise(p, octaves=1):
    """Smooth noise of about −1 to 1 in space: random numbers on a lattice, with finer ones of half the weight."""
    total = 0
    for k in range(octaves):
        cell = np.floor(p).astype(np.int32)
        f = p - cell
        f = f * f * (3 - 2 * f)
        for corner in np.ndindex(2, 2, 2):
            x, y, z = (cell + np.int32(corner)[:, None]) & 31
            u, v, w = (f[i] if c else 1 - f[i] for i, c in enumerate(corner))
            total = total + LATTICE[x, y, z] * (u * v * w) * 0.5**k
        p = p * 2.03 + 17.3
    return total


# Distances. Axes are 0, 1, 2.
def length(*v):
    return np.sqrt(sum(c * c for c in v))


def ball(p, centre, radii):
    q = [(c - o) / r for c, o, r in zip(p, centre, radii, strict=True)]
    k = length(*q)
    return k * (k - 1) / (length(*(c / r for c, r in zip(q, radii, strict=True))) + 1e-6)


def box(p, centre, half, round=0.03):
    q = [np.abs(c - o) - h + round for c, o, h in zip(p, centre, half, strict=True)]
    return length(*(np.maximum(c, 0) for c in q)) + np.minimum(np.maximum(np.maximum(q[0], q[1]), q[2]), 0) - round


def limb(p, a, b, ra, rb):
    """A rod from a to b with round ends, its radius from ra to rb."""
    a, b = np.float32(a), np.float32(b)
    q, line = p - a[:, None], b - a
    h = np.clip((line @ q) / (line @ line), 0, 1)
    return length(*(q - line[:, None] * h)) - (ra + (rb - ra) * h)


def disc(p, centre, radius, half, axis, round=0.03):
    """A cylinder along an axis."""
    q = [c - o for c, o in zip(p, centre, strict=True)]
    across = length(*(c for k, c in enumerate(q) if k != axis)) - radius + round
    along = np.abs(q[axis]) - half + round
    return length(np.maximum(across, 0), np.maximum(along, 0)) + np.minimum(np.maximum(across, along), 0) - round


def outline(x, y, corners):
    """Signed distance to a polygon in the plane."""
    corners = np.float32(corners)
    d, sign = np.full(x.shape, np.inf, np.float32), np.ones(x.shape, np.float32)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, 1, 0), strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        h = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        d = np.minimum(d, (wx - ex * h) ** 2 + (wy - ey * h) ** 2)
        crossed = np.stack([y >= ay, y < by, ex * wy > ey * wx])
        sign = np.where(crossed.all(0) | ~crossed.any(0), -sign, sign)
    return sign * np.sqrt(d)


def joined(a, b, k):
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def turned(p, angle, axis=1):
    """p in coordinates that are turned about an axis."""
    c, s = np.cos(angle, dtype=np.float32), np.sin(angle, dtype=np.float32)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    q = np.array(p)
    q[i], q[j] = c * p[i] + s * p[j], c * p[j] - s * p[i]
    return q


# Materials.
def plain(colour, shine=0.0, grain=0.04):
    colour = np.float32(colour)[:, None]
    return lambda p, n: (colour * (1 + grain * noise(p * 9, 3)), shine)


def mixed(a, b, share, shine=0.0):
    """Two colours by a function p -> 0 to 1."""
    a, b = np.float32(a)[:, None], np.float32(b)[:, None]
    return lambda p, n: (a + (b - a) * np.clip(share(p), 0, 1), shine)


def wood(light, dark, width=1.1, shine=0.12):
    """Planks along x, each with rings of its own."""

    def grain(p):
        plank = np.floor(p[2] / width)
        q = np.stack([p[0] * 0.35 + plank * 5.7, p[1] + plank * 3.1, p[2] * 2.2])
        rings = 0.5 + 0.5 * np.sin(14 * (q[2] * 0.6 + noise(q * 0.9, 3)))
        fibres = noise(np.stack([p[0] * 2.5, p[1] * 30, p[2] * 38]), 2)
        gap = np.abs(p[2] / width - plank - 0.5) > 0.492
        return 0.5 * rings + 0.25 * fibres + 0.12 + 0.3 * LATTICE[plank.astype(int) & 31, 3, 5] + gap * 2

    return mixed(light, dark, grain, shine)


def marble(a, b, scale=0.9, shine=0.2):
    return mixed(a, b, lambda p: (1 - np.abs(np.sin(2 * p[0] + p[2] + 3.5 * noise(p * scale, 5)))) ** 6, shine)


def speckled(a, b, scale=22.0, shine=0.05):
    return mixed(a, b, lambda p: noise(p * scale, 2) * 6 - 2.2, shine)


def chequered(a, b, width=0.8):
    """Cloth: where threads of both ways are dyed it is dark."""

    def dye(p):
        x, z = ((np.sin(c * np.pi / width) > 0) for c in (p[0], p[2]))
        return 0.5 * x + 0.5 * z + 0.12 * noise(np.stack([p[0] * 45, p[1], p[2] * 45]))

    return mixed(a, b, dye)


def striped(a, b, width=0.5):
    return mixed(a, b, lambda p: (np.sin(p[0] * np.pi / width) * 20) + 0.1 * noise(p * 20))


def bricks(clay, mortar):
    def joints(p):
        row = np.floor(p[1] / 0.42)
        x = p[0] / 1.05 + 0.5 * (row % 2)
        edge = np.maximum(np.abs(x - np.floor(x) - 0.5) - 0.46, np.abs(p[1] / 0.42 - row - 0.5) - 0.42)
        return edge * 60 + 0.35 * noise(p * 7, 4) + 0.3 * LATTICE[np.floor(x).astype(int) & 31, row.astype(int) & 31, 1]

    return mixed(clay, mortar, joints)


# Things.
def car(colour):
    profile = [(-1.0, 0.22), (-1.02, 0.5), (-0.92, 0.6), (-0.62, 0.64), (-0.42, 0.93), (0.22, 0.95), (0.52, 0.66)]
    profile += [(0.98, 0.54), (1.05, 0.4), (1.03, 0.22)]
    panes = [(-0.52, 0.67), (-0.37, 0.87), (-0.12, 0.88), (-0.12, 0.66)]
    panes = [panes, [(-0.04, 0.66), (-0.04, 0.88), (0.18, 0.88), (0.38, 0.66)]]

    def body(p, n):
        x, y, z = p[0], p[1], np.abs(p[2])
        glass = np.minimum(*(outline(x, y, pane) for pane in panes)) < 0
        glass |= (np.abs(n[0]) > 0.45) & (n[1] > 0.2) & (y > 0.68) & (y < 0.9) & (z < 0.36) & (np.abs(x) < 0.6)
        seam = (np.abs(np.abs(x + 0.08) - 0.3) < 0.008) & (y < 0.66) & (y > 0.28)
        black = glass | (x > 0.95) & (y < 0.36) & (z < 0.3) & (np.sin(y * 120) > 0)
        paint = plain(colour)(p, n)[0] * np.where(seam, 0.35, 1)
        return np.where(black, np.float32(0.02), paint), np.where(glass, 0.3, 0.18)

    def wheel(p, n):
        x, y = np.abs(p[0]) - 0.62, p[1] - 0.22
        hub = (length(x, y) < 0.125) & (np.cos(5 * np.arctan2(y, x)) > -0.5)
        return np.where(hub, np.float32(0.6), 0.035) + 0 * p, np.where(hub, 0.35, 0.02)

    def parts(p):
        x, y, z = p[0], p[1], np.abs(p[2])
        both = np.stack([np.abs(x), y, z])  # what stands at all four corners
        side = np.stack([x, y, z])
        flat, deep = outline(x, y, profile) + 0.07, z - 0.35 + 0.16 * np.clip(y - 0.55, 0, 1)
        shell = length(np.maximum(flat, 0), np.maximum(deep, 0)) + np.minimum(np.maximum(flat, deep), 0) - 0.07
        shell = -joined(-shell, disc(both, (0.62, 0.22, 0.4), 0.27, 0.25, 2), 0.02)
        shell = np.minimum(shell, ball(side, (0.36, 0.68, 0.45), (0.05, 0.045, 0.06)))
        bumper = box(both, (1.035, 0.28, 0), (0.04, 0.035, 0.4))
        plate = box(both, (1.075, 0.3, 0), (0.015, 0.045, 0.16), 0.01)
        lamps = ball(side, (1.0, 0.45, 0.3), (0.05, 0.06, 0.09))
        rear = box(side, (-1.0, 0.46, 0.3), (0.03, 0.05, 0.08), 0.02)
        return [shell, disc(both, (0.62, 0.22, 0.36), 0.22, 0.085, 2, 0.04), bumper, plate, lamps, rear]

    steel, white, lamp = plain((0.6, 0.6, 0.62), 0.4), plain((0.85, 0.85, 0.8)), plain((0.9, 0.9, 0.8), 0.4)
    return 1.3, 0.5, parts, [body, wheel, steel, white, lamp, plain((0.6, 0.02, 0.02), 0.2)]


def sheep(fleece, skin):
    def parts(p):
        side = np.stack([p[0], p[1], np.abs(p[2])])
        wool = joined(ball(p, (-0.08, 0.98, 0), (0.78, 0.5, 0.5)), ball(p, (0.5, 1.12, 0), (0.36, 0.36, 0.32)), 0.2)
        wool = joined(wool, ball(p, (-0.86, 1.02, 0), (0.14, 0.2, 0.1)), 0.08)
        wool = joined(wool, ball(p, (0.76, 1.52, 0), (0.2, 0.13, 0.19)), 0.05)
        curls = np.abs(noise(p * 7)) + 0.4 * np.abs(noise(p * 14 + 9))
        head = joined(
            limb(p, (0.72, 1.38, 0), (1.08, 1.2, 0), 0.19, 0.125), ball(p, (0.64, 1.2, 0), (0.2, 0.3, 0.2)), 0.06
        )
        ear = turned(side - np.float32([[0.72], [1.4], [0.3]]), -0.5, 0)
        head = joined(head, ball(ear, (0, 0, 0), (0.07, 0.05, 0.17)), 0.03)
        fore = limb(side, (0.38, 0.75, 0.24), (0.4, 0.06, 0.25), 0.14, 0.085)
        legs = np.minimum(fore, limb(side, (-0.5, 0.75, 0.24), (-0.5, 0.06, 0.26), 0.15, 0.085))
        eyes = np.minimum(
            ball(side, (0.9, 1.37, 0.135), (0.035, 0.04, 0.03)), ball(side, (1.19, 1.2, 0.05), (0.02,) * 3)
        )
        return [(wool - 0.1 * curls + 0.02) * 0.65, np.minimum(head, legs), eyes]

    return 1.35, 0.85, parts, [plain(fleece, 0, 0.12), plain(skin), plain((0.01, 0.01, 0.01), 0.4)]


def fruit(a, b):
    def parts(p):
        hollow = 0.16 * np.exp(-((p[0] ** 2 + p[2] ** 2) / 0.02)) * (p[1] > 0.4)
        skin = (ball(p, (0, 0.42, 0), (0.46, 0.42, 0.46)) + hollow) * 0.8
        return [skin, limb(p, (0, 0.7, 0), (0.06, 0.98, 0.02), 0.02, 0.025)]

    def ripe(p):
        return 0.9 * noise(p * 1.6 + 4, 2) + 0.25 * noise(p * np.float32([[9], [2], [9]])) + 0.3

    return 0.65, 0.45, parts, [mixed(a, b, ripe, 0.08), plain((0.15, 0.08, 0.03))]


def books(*colours):
    def parts(p):
        covers, pages = [], []
        for k in range(len(colours)):
            q = turned(p - np.float32([[0], [0.14 + 0.28 * k], [0]]), 0.5 * LATTICE[k, 2, 3])
            cut = box(q, (0.1, 0, 0.1), (0.88, 0.105, 0.6), 0.005)
            covers.append(np.maximum(box(q, (0, 0, 0), (0.8, 0.14, 0.58), 0.02), -cut))
            pages.append(box(q, (0.02, 0, 0.04), (0.78, 0.1, 0.56), 0.01))
        return [*covers, np.minimum.reduce(pages)]

    leaves = mixed((0.85, 0.8, 0.68), (0.6, 0.55, 0.45), lambda p: 0.5 + 0.5 * np.sin(p[1] * 160))
    return 1.15, 0.3, parts, [*(plain(c, 0.05) for c in colours), leaves]


def pot(clay, leaf):
    def parts(p):
        r = 0.32 + 0.2 * np.clip(p[1], 0, 0.7)
        vessel = np.maximum((length(p[0], p[2]) - r) * 0.95, np.abs(p[1] - 0.33) - 0.33)
        blades = []
        for k in range(13):
            q = turned(turned(p - np.float32([[0], [0.72], [0]]), 2.4 * k), 0.25 + 0.9 * (k % 4) / 4, 2)
            high = 0.5 + 0.17 * (k % 5)
            blades.append(ball(q, (0, high * 0.6, 0), (0.055, high * 0.62, 0.15)) * 0.7)
        vessel = np.minimum(vessel, disc(p, (0, 0.66, 0), 0.5, 0.08, 1))
        return [vessel, disc(p, (0, 0.7, 0), 0.43, 0.06, 1), np.minimum.reduce(blades)]

    green = mixed(leaf, [c * 2.2 for c in leaf], lambda p: 0.5 + 0.5 * noise(p * 6, 2), 0.06)
    return 1.4, 0.85, parts, [plain(clay), plain((0.06, 0.04, 0.03), 0, 0.4), green]


def toy_ball(a, b):
    return 0.5, 0.42, lambda p: [ball(p, (0, 0.42, 0), (0.42, 0.42, 0.42))], [striped(a, b, 0.2)]
