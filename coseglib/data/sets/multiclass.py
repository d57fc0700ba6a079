"""Groups of two and of three common classes: what multi-class co-segmentation is measured on.

The thesis took VOC's photographs of two or three classes and added others from the web, about 80 a group; its set was
never released. Ours are VOC's alone: photographs that hold exactly these classes, each on 1 % or more of the area.
They come from the training list without near duplicates of any test photograph, so no group shares a photograph with
another table's test set. A method that trained on VOC's masks has seen these photographs: only methods that need no
masks can be compared here. `coseglib.data.lists` writes the list, data/lists/multiclass.csv.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from coseglib.data.by_class import class_areas, multiclass_groups, sample
from coseglib.data.fingerprints import without_test_photos
from coseglib.data.record import Group, Photo
from coseglib.data.sets import voc
from coseglib.data.synthetic import CATEGORIES, load_synthetic

PHOTOS_AT_MOST = 80  # photographs a group: "about 80" in the thesis
PHOTOS_AT_LEAST = 10  # smaller groups are left out


def sample_photos(photos: Sequence[Photo], most: int = PHOTOS_AT_MOST, seed: int = 0) -> tuple[Photo, ...]:
    """`most` of the photographs, the `by_class.sample` by their names."""
    return tuple(sample(photos, [p.name for p in photos], most, seed))


def groups_of_several(photos: Sequence[Photo], areas=None, most=PHOTOS_AT_MOST, least=PHOTOS_AT_LEAST, seed=0) -> list:
    """The groups of two classes, then those of three; within each the largest first, equal ones by name.

    areas   as for `by_class.groups_of`
    most    photographs a group, a seeded choice of all; least: with fewer there is no group
    """
    classes = photos[0].classes if photos else ()
    combos = [combo for size in (2, 3) for combo in combinations(classes, size)]
    found = [g for g in multiclass_groups(photos, combos, areas) if len(g) >= least]
    found.sort(key=lambda g: (len(g.targets), -len(g), g.name))
    return [replace(g, photos=sample_photos(g.photos, most, seed)) for g in found]


def load(root: Path, lists: Path | None = None) -> list[Group]:
    """The groups from VOC 2012's training list; `lists`, with the fingerprints, as for `without_test_photos`."""
    members = voc.photos(root, "train")
    areas = class_areas(members)
    kept = {p.name for p in without_test_photos(members, lists)}
    at = [i for i, p in enumerate(members) if p.name in kept]
    return groups_of_several([members[i] for i in at], areas[at])


def drawn_groups(groups: int = 3, photos: int = 8, size: int = 128) -> list[Group]:
    """Procedural groups of two classes ("star+ring", …), each of the `photos` (an even number) that hold both."""
    found = []
    for pair in zip(CATEGORIES[: 2 * groups : 2], CATEGORIES[1 : 2 * groups : 2], strict=True):
        one, other = load_synthetic(groups=pair, photos=2 * photos, size=size)
        both = tuple(p for p in one.photos if p in other.photos)
        found.append(Group("synthetic-multiclass", "+".join(pair), both, pair))
    return found
