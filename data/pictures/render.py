"""Draws the still lifes of this folder and their exact masks: `python data/pictures/render.py`, ten minutes of a core.

Nothing here is a photograph. A ray from each of 3 × 3 points of a pixel, through a lens of some width, walks by the
distance to the nearest surface until it hits; two lamps with soft shadows, the light of a room with ambient occlusion,
and mirrored rays on what shines give its colour. A mask is 1 where most of a pixel's rays hit the object.

Axes: x to the right, y up, z towards the viewer; the table is y = 0. p is float32 (3, n), n points in space.
"""

import argparse
from pathlib import Path

import numpy as np
import things
from PIL import Image
from things import length, turned


class Scene:
    """Things on a table before a wall, and the camera. things: (name, thing, (x, z), turn, size) each."""

    def __init__(self, things, table, wall, eye, aim, angle=0.0, lamp=(-4.5, 6.5, 4.0), focus=54.0, distance=4.0):
        self.things, self.table, self.wall = things, table, wall
        self.eye, self.aim, self.focus = np.float32(eye), np.float32(aim), focus
        self.lamp, self.distance = np.float32(lamp), distance
        self.across = np.float32([np.sin(angle), 0, np.cos(angle)])  # the wall's normal
        self.names = ["table", "wall", *(name for name, *_ in things)]

    def local(self, p, k):
        _, _, (x, z), turn, size = self.things[k]
        return turned(p - np.float32([[x], [0], [z]]), turn) / size

    def nearest(self, p, margin=0.06, parts=False):
        """Distance to the nearest surface, whose it is, which part's; of a thing that is far, to its sphere."""
        closest, whose = np.minimum(p[1], wall := self.across @ p + self.distance), np.int32(wall < p[1])
        which = np.zeros_like(whose)
        for k, (_, (radius, height, parts_of, _), (x, z), _, size) in enumerate(self.things):
            bound = length(p[0] - x, p[1] - height * size, p[2] - z) - radius * size
            near = np.flatnonzero(bound < margin)
            far, part = np.maximum(bound, 0.05), np.zeros_like(which)
            if len(near):
                own = parts_of(self.local(p[:, near], k))
                far[near] = np.maximum(np.minimum.reduce(own) * size, bound[near])
                part[near] = np.argmin(own, 0) if parts else 0
            both = ((far, closest), (k + 2, whose), (part, which))
            closest, whose, which = (np.where(far < closest, *pair) for pair in both)
        return (closest, whose, which) if parts else closest

    def walk(self, start, way, far=24.0, steps=110):
        """How far along each ray the first surface is; `far` where there is none."""
        t = np.full(start.shape[1:], 0.02, np.float32)
        active = np.arange(len(t))
        for _ in range(steps):
            d = self.nearest(start[:, active] + way[:, active] * t[active])
            t[active] += d * 0.9
            active = active[(d > 0.0006 * t[active]) & (t[active] < far)]
            if not len(active):
                break
        return np.minimum(t, far)

    def normal(self, p):
        e = np.float32([[1, -1, -1, 1], [-1, -1, 1, 1], [-1, 1, -1, 1]]) * 0.0015
        n = sum(e[:, k : k + 1] * self.nearest(p + e[:, k : k + 1]) for k in range(4))
        return n / (length(*n) + 1e-9)

    def lit(self, p, n, lamp, width):
        """Share of a lamp of some width that p sees, by how near its ray comes to other things."""
        way = lamp[:, None] - p
        reach = length(*way)
        way = way / reach
        seen, t = np.ones(p.shape[1:], np.float32), np.full(p.shape[1:], 0.03, np.float32)
        active = np.flatnonzero((n * way).sum(0) > 0)
        for _ in range(45):
            s = t[active]
            d = self.nearest(p[:, active] + way[:, active] * s, np.maximum(0.06, s * width))
            seen[active] = np.minimum(seen[active], d / (width * s))
            t[active] += np.clip(d, 0.02, 0.4)
            active = active[(seen[active] > 0.01) & (t[active] < np.minimum(reach[active], 9))]
            if not len(active):
                break
        seen = np.clip(seen, 0, 1)
        return seen * seen * (3 - 2 * seen) * np.maximum((n * way).sum(0), 0) * (7.5 / reach) ** 2, way

    def colours(self, start, way, mirrors=1):
        """(colours (3, n), index of the thing that is hit (n,)); linear light."""
        t = self.walk(start, way)
        p = start + way * t
        n = self.normal(p)
        _, hit, part = self.nearest(p, parts=True)
        albedo, shine = np.zeros_like(p), np.zeros(t.shape, np.float32)
        for k in np.unique(hit):
            materials = [self.table] if k == 0 else [self.wall] if k == 1 else self.things[k - 2][1][3]
            for m in np.unique(part[hit == k]):
                mine = np.flatnonzero((hit == k) & (part == m))
                q = p[:, mine] if k < 2 else self.local(p[:, mine], k - 2)
                at = n[:, mine] if k < 2 else turned(n[:, mine], self.things[k - 2][3])
                albedo[:, mine], shine[mine] = materials[m](q, at)
        steps = ((0.05, 0.2), (0.15, 0.3), (0.4, 0.5))
        free = sum(np.clip(self.nearest(p + n * h, h) / h, 0, 1) * share for h, share in steps)
        up = (0.62 + 0.38 * n[1])[None] * np.float32([[0.30], [0.33], [0.38]]) * free
        key, towards = self.lit(p, n, self.lamp, 0.16)
        fill, _ = self.lit(p, n, np.float32([5.5, 4.0, 6.0]), 0.35)
        light = up + key * np.float32([[1.05], [0.97], [0.85]]) + fill * np.float32([[0.22], [0.25], [0.3]])
        half = towards - way
        gleam = np.maximum((n * half).sum(0) / length(*half), 0) ** 60 * (key > 0.05)
        colour = np.clip(albedo, 0, 1) * light + gleam * shine * 1.5
        bent = np.flatnonzero(shine > 0.03)
        if mirrors and len(bent):
            cosine = (n * way).sum(0)[bent]
            away = way[:, bent] - 2 * cosine * n[:, bent]
            seen, _ = self.colours(p[:, bent] + n[:, bent] * 0.01, away, 0)
            share = shine[bent] * (0.25 + 0.75 * (1 - np.abs(cosine)) ** 4)
            colour[:, bent] = colour[:, bent] * (1 - share) + seen * share
        lost = t >= 23.9  # a window of the room, behind the viewer
        return np.where(lost, 0.5 + 1.6 * (np.abs(way[0] + 0.3) < 0.35) * (way[1] > 0.1), colour), hit

    def picture(self, width, height, rays=3):
        """uint8 RGB (height, width, 3), and which thing each pixel shows (height, width), an index into `names`."""
        chance = np.random.default_rng(things.SEED)
        forward = self.aim - self.eye
        sharp = length(*forward)  # how far away the lens is focused
        right = np.cross(forward, (0, 1, 0))
        frame = np.stack([right, np.cross(right, forward), forward], 1)
        frame /= np.sqrt((frame**2).sum(0))
        y, x = np.mgrid[:height, :width].reshape(2, -1)
        light, votes = np.zeros((x.size, 3)), np.zeros((len(self.names), x.size), np.uint8)
        for k in range(rays * rays):
            jitter = (np.array(divmod(k, rays))[:, None] + chance.random((2, x.size))) / rays
            angle, radius = chance.random(x.size) * 2 * np.pi, 0.035 * np.sqrt(chance.random(x.size))
            lens = np.stack([np.cos(angle) * radius, np.sin(angle) * radius, 0 * angle])
            film = np.stack([x + jitter[0] - width / 2, height / 2 - y - jitter[1]]) * (36 / width / self.focus)
            start = (self.eye[:, None] + frame @ lens).astype(np.float32)
            way = (frame @ (np.stack([*film, np.ones(x.size)]) * sharp - lens)).astype(np.float32)
            for some in np.array_split(np.arange(x.size), max(1, x.size // 20000)):  # what fits into a cache
                colour, hit = self.colours(start[:, some], way[:, some] / length(*way[:, some]))
                light[some] += colour.T
                votes[hit, some] += 1
        return developed(light.reshape(height, width, 3) / rays**2, chance), votes.argmax(0).reshape(height, width)


def developed(light, chance):
    """Linear light -> 8 bits as a camera's: a film's curve, darker corners, noise."""
    height, width, _ = light.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - 0.16 * (x * x + y * y))[..., None] * 1.15
    light = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    shown = np.clip(light, 0, 1) ** (1 / 2.2) + chance.normal(0, 0.009, light.shape)
    return np.uint8(np.clip(shown, 0, 1) * 255 + 0.5)


def scenes():
    """name -> scene: two that hold a car and a sheep, two of cars, two of sheep, each with other things elsewhere."""
    oak, pine = (
        things.wood((0.45, 0.27, 0.13), (0.2, 0.1, 0.045)),
        things.wood((0.62, 0.45, 0.27), (0.42, 0.26, 0.12), 0.8),
    )
    cloth, stone = (
        things.chequered((0.6, 0.6, 0.58), (0.12, 0.2, 0.4)),
        things.marble((0.7, 0.7, 0.68), (0.25, 0.26, 0.28)),
    )
    felt, granite = (
        things.speckled((0.05, 0.16, 0.07), (0.08, 0.22, 0.1)),
        things.speckled((0.35, 0.34, 0.33), (0.12, 0.12, 0.12)),
    )
    plaster, blue = things.plain((0.55, 0.58, 0.55)), things.plain((0.2, 0.3, 0.42))
    clay = things.bricks((0.35, 0.13, 0.08), (0.5, 0.48, 0.45))
    paper = things.striped((0.5, 0.42, 0.28), (0.42, 0.34, 0.22))
    plant = things.pot((0.5, 0.2, 0.1), (0.03, 0.15, 0.03))
    apple, pear = things.fruit((0.6, 0.08, 0.03), (0.5, 0.45, 0.1)), things.fruit((0.35, 0.45, 0.08), (0.5, 0.5, 0.15))
    novels, atlas = (
        things.books((0.1, 0.2, 0.4), (0.5, 0.1, 0.1)),
        things.books((0.5, 0.35, 0.1), (0.1, 0.3, 0.2), (0.4, 0.1, 0.1)),
    )
    white, cream = things.sheep((0.75, 0.7, 0.6), (0.06, 0.045, 0.04)), things.sheep((0.6, 0.5, 0.36), (0.5, 0.4, 0.3))
    black, red = (
        things.sheep((0.16, 0.11, 0.08), (0.05, 0.035, 0.03)),
        things.toy_ball((0.6, 0.1, 0.1), (0.6, 0.6, 0.5)),
    )

    def car_(r, g, b, x, z, turn, size=1.0):
        return "car", things.car((r, g, b)), (x, z), turn, size

    return {
        "both_1": Scene(
            [car_(0.55, 0.03, 0.03, -1.0, 0.4, -0.5, 1.05), ("sheep", white, (1.0, -0.3), 0.5, 1),
             ("books", novels, (-2.4, -1.5), 0.4, 0.9), ("apple", apple, (0.5, 1.3), 0, 0.6)],
            oak, plaster, (0.3, 2.6, 7.6), (0.1, 0.6, 0)),
        "both_2": Scene(
            [car_(0.05, 0.2, 0.12, 1.1, 0.1, -2.6, 1.05), ("sheep", cream, (-1.1, -0.2), -0.4, 1),
             ("pear", pear, (0, 1.2), 0, 0.6), ("plant", plant, (2.4, -1.8), 0.4, 0.9)],
            cloth, blue, (-0.5, 2.4, 7.4), (0.1, 0.6, 0), lamp=(4, 6, 4)),
        "car_1": Scene(
            [car_(0.05, 0.12, 0.4, 0.1, 0.3, -0.45, 1.25), ("plant", plant, (-2.3, -1.2), 0.4, 0.8),
             ("ball", red, (2.1, -0.8), 0.3, 0.9)],
            pine, paper, (-0.3, 2.2, 7.3), (0.1, 0.5, 0), focus=52),
        "car_2": Scene(
            [car_(0.6, 0.4, 0.03, 0, 0.3, 2.5, 1.25), ("books", atlas, (-2.3, -1.3), 0.4, 0.8),
             ("apple", apple, (1.9, 0.9), 0.3, 0.6)],
            granite, clay, (0.3, 2.4, 7.2), (0.1, 0.5, 0), focus=52, lamp=(3, 7, 5)),
        "sheep_1": Scene(
            [("sheep", white, (0, 0), 0.4, 1), ("plant", plant, (-2.4, -1.0), 0.4, 0.7),
             ("books", novels, (2.2, -1.0), 0.3, 0.8)],
            felt, clay, (-0.3, 2.2, 7.2), (0.1, 0.7, 0)),
        "sheep_2": Scene(
            [("sheep", black, (0.1, 0), 2.7, 1.05), ("ball", red, (-1.9, 0.5), 0.4, 0.7),
             ("pear", pear, (2.0, -0.4), 2.3, 0.8)],
            stone, paper, (0.8, 2.8, 7.0), (0.1, 0.6, 0), lamp=(4, 6, 4)),
    }  # fmt: skip


def write(out, width, rays):
    """Pictures and masks as data/README.md has a folder of one's own; a picture of both stands in both groups."""
    for name, scene in scenes().items():
        picture, shown = scene.picture(width, width * 3 // 4, rays)
        for group in sorted({"car", "sheep"} & set(scene.names)):
            image, mask = (Path(out, kind, group) for kind in ("images", "ground_truth"))
            for folder in (image, mask):
                folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(image / f"{name}.jpg", quality=85, optimize=True)
            truth = Image.fromarray(np.uint8(shown == scene.names.index(group)) * 255)
            truth.convert("1").save(mask / f"{name}.png", optimize=True)
            print(image / f"{name}.jpg", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=Path(__file__).parent, help="the folder to write to")
    parser.add_argument("--width", type=int, default=480, help="pixels; three quarters of it are the height")
    parser.add_argument("--rays", type=int, default=3, help="rays of a pixel, each way; their square decides the time")
    write(**vars(parser.parse_args()))
