from itertools import combinations

import numpy as np
import torch

from coseglib.data.by_class import areas_of, class_areas, count_pairs, groups_of, multiclass_groups, pairs, sample_pairs
from coseglib.data.record import Group, Photo

CLASSES = ("cat", "dog", "person")


def _photo(name: str, shares: dict[str, int], void: int = 0) -> Photo:
    """A label map of 100 pixels of which `shares` say who has how many."""
    labels = [CLASSES.index(c) + 1 for c, n in shares.items() for _ in range(n)] + [255] * void
    grid = torch.tensor(labels + [0] * (100 - len(labels)), dtype=torch.uint8).reshape(10, 10)
    return Photo("made", name, CLASSES, lambda: grid.expand(3, 10, 10), lambda: grid)


PHOTOS = [
    _photo("a", {"cat": 40}),
    _photo("b", {"cat": 1}),
    _photo("c", {"cat": 30, "dog": 30}, void=20),
    _photo("d", {"dog": 50}),
    _photo("e", {"dog": 20, "person": 20}),
    _photo("f", {"cat": 20, "dog": 20, "person": 20}),
    _photo("g", {}),
]


def _names(groups):
    return {g.name: "".join(p.name for p in g.photos) for g in groups}


def test_areas_are_shares_of_the_whole_photograph_void_included():
    np.testing.assert_allclose(class_areas(PHOTOS)[2], [0.3, 0.3, 0])
    np.testing.assert_allclose(areas_of(np.full((3, 5), 255, np.uint8), 2), [0, 0])
    assert class_areas([]).shape[0] == 0


def test_a_group_holds_the_photographs_that_its_class_covers_enough_of():
    assert _names(groups_of(PHOTOS, CLASSES)) == {"cat": "abcf", "dog": "cdef", "person": "ef"}
    assert _names(groups_of(PHOTOS, CLASSES, min_area=0.25)) == {"cat": "ac", "dog": "cd"}
    assert _names(groups_of(PHOTOS, CLASSES, least=3)) == {"cat": "abcf", "dog": "cdef"}
    assert _names(groups_of(PHOTOS, ("dog",), areas=class_areas(PHOTOS))) == {"dog": "cdef"}


def test_a_group_of_several_classes_holds_exactly_these():
    combos = [c for n in (1, 2, 3) for c in combinations(CLASSES, n)]
    groups = multiclass_groups(PHOTOS, combos)
    assert _names(groups) == {"cat": "ab", "dog": "d", "cat+dog": "c", "dog+person": "e", "cat+dog+person": "f"}
    both = next(g for g in groups if g.name == "cat+dog")
    assert both.targets == ("cat", "dog")
    assert [int((both.mask(0) == k).sum()) for k in (0, 1, 2, 255)] == [20, 30, 30, 20]


def test_pairs_come_once_each_and_know_all_that_they_share():
    groups = groups_of(PHOTOS, CLASSES)
    found = {p.first.name + p.second.name: p.groups for p in pairs(groups)}
    expected = {}
    for group in groups:
        for a, b in combinations(sorted(p.name for p in group.photos), 2):
            expected[a + b] = (*expected.get(a + b, ()), group.name)
    assert {"".join(sorted(k)): v for k, v in found.items()} == expected
    assert len(list(pairs(groups))) == len(found)


def test_the_pair_formula_counts_a_pair_for_each_class_that_it_shares():
    groups = groups_of(PHOTOS, CLASSES)
    once, each = count_pairs(groups)
    assert each == sum(len(g) * (len(g) - 1) // 2 for g in groups) == 13
    assert once == len(list(pairs(groups))) == each - 2  # c and f share cat and dog, e and f dog and person


def test_one_name_in_two_data_sets_is_two_photographs():
    twins = [Photo(d, "x", CLASSES, lambda: None) for d in ("one", "other")]
    assert count_pairs([Group("mixed", "cat", tuple(twins), ("cat",))]) == (1, 1)


def test_a_sample_of_pairs_is_the_same_every_time_and_another_for_another_seed():
    groups = [Group("made", "all", tuple(_photo(f"{i:02d}", {"cat": 9}) for i in range(20)), ("cat",))]

    def sample(count, seed=0):
        return [(p.first.name, p.second.name) for p in sample_pairs(groups, count, seed)]

    every = [(p.first.name, p.second.name) for p in pairs(groups)]
    assert len(sample(50)) == len(set(sample(50))) == 50
    assert sample(50) == sample(50) == [p for p in every if p in set(sample(50))]
    assert sample(50) != sample(50, seed=1)
    assert set(sample(20)) < set(sample(50))
    assert sample(190) == sample(1000) == every
    shares = np.bincount([int(a) for a, _ in sample(95)] + [int(b) for _, b in sample(95)], minlength=20)
    assert shares.min() >= 3  # nobody is left out: 9.5 expected
