from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch

from coseglib.core.errors import CosegError
from coseglib.data.record import Group, Photo
from coseglib.scoring.metrics import aggregate
from coseglib.unsupervised.scores import assignment, class_scores, colour_kmeans, confusion, score_group, stripes

CLASSES = ("cat", "dog")


def _labels(text: str) -> torch.Tensor:
    """Rows of digits; "v" is void."""
    return torch.tensor([[255 if c == "v" else int(c) for c in row] for row in text.split()], dtype=torch.uint8)


def _photo(name: str, truth: torch.Tensor, image: torch.Tensor | None = None) -> Photo:
    image = torch.zeros(3, *truth.shape, dtype=torch.uint8) if image is None else image
    return Photo("made", name, CLASSES, lambda: image, lambda: truth)


def test_confusion_counts_pixels_and_skips_void():
    found = confusion(_labels("0012 3012"), _labels("001v 2211"), clusters=4, classes=2)
    want = np.zeros((4, 3), int)
    for c, t in zip("0013012", "0012211", strict=True):
        want[int(c), int(t)] += 1
    np.testing.assert_array_equal(found, want)
    with pytest.raises(ValueError, match="one size"):
        confusion(_labels("00"), _labels("000"), 2, 1)
    with pytest.raises(ValueError, match="clusters"):
        confusion(_labels("05"), _labels("00"), 2, 1)


def _brute(counts: np.ndarray, background: int | None) -> float:
    """The largest sum of the classes' J that any one-to-one assignment reaches."""
    clusters, classes = counts.shape[0], counts.shape[1] - 1
    free = [c for c in range(clusters) if c != background] + [None] * classes
    best = 0.0
    for chosen in permutations(free, classes):
        total = 0.0
        for k, c in enumerate(chosen, start=1):
            if c is not None:
                union = counts[c].sum() + counts[:, k].sum() - counts[c, k]
                total += counts[c, k] / union if union else 0
        best = max(best, total)
    return best


@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize(("clusters", "classes"), [(3, 2), (5, 2), (3, 3), (2, 3), (4, 1)])
def test_the_assignment_is_the_best_of_all(clusters, classes, background):
    rng = np.random.default_rng(clusters * 10 + classes)
    counts = rng.integers(0, 50, (clusters, classes + 1))
    found = assignment(counts, background)
    given = [c for c in range(clusters) if found[c]]
    assert len(set(found[given])) == len(given) and (background is None or found[background] == 0)
    union = {c: counts[c].sum() + counts[:, found[c]].sum() - counts[c, found[c]] for c in given}
    assert sum(counts[c, found[c]] / union[c] for c in given) == pytest.approx(_brute(counts, background))


def test_clusters_are_named_once_a_group_and_those_left_over_are_background():
    truth = _labels("0011 0022")
    clusters = _labels("0033 0011")  # K = 3 where two classes are
    rows = score_group(Group("made", "cat+dog", (_photo("a", truth),), CLASSES), [clusters], 4)
    assert rows.J[0] == 1 and rows.P[0] == 1 and rows.classes[0] == "1=dog 3=cat"
    # Two photographs whose labels are swapped: one naming serves both, so one of them is wrong.
    pair = Group("made", "cat+dog", (_photo("a", truth), _photo("b", truth)), CLASSES)
    swapped = score_group(pair, [_labels("0011 0022"), _labels("0022 0011")], 3)
    assert sorted(swapped.J) == [0, 1]


def test_a_methods_background_stays_background_unless_it_is_freed():
    truth = _labels("0111 0222")
    group = Group("made", "cat+dog", (_photo("a", truth),), CLASSES)
    inverted = _labels("1000 1222")
    assert score_group(group, [inverted], 3).J[0] == pytest.approx((0 + 1) / 2)
    assert score_group(group, [inverted], 3, background=None).J[0] == 1


def test_fewer_clusters_than_classes_leave_a_class_with_nothing():
    truth = _labels("0111 0222")
    rows = score_group(Group("made", "cat+dog", (_photo("a", truth),), CLASSES), [_labels("0111 0000")], 2)
    assert (rows.J_1[0], rows.J_2[0]) == (1, 0)


def test_scores_of_a_photograph_equal_loops_over_pixels():
    torch.manual_seed(0)
    pred = torch.randint(0, 3, (6, 7), dtype=torch.uint8)
    truth = torch.randint(0, 3, (6, 7), dtype=torch.uint8)
    truth[0, :3] = 255
    found = class_scores(pred, truth, 2)
    pixels = [(int(p), int(t)) for p, t in zip(pred.flatten(), truth.flatten(), strict=True) if t != 255]
    assert found["P"] == pytest.approx(sum(p == t for p, t in pixels) / len(pixels))
    each = []
    for k in (1, 2):
        both, either = sum(p == t == k for p, t in pixels), sum(k in (p, t) for p, t in pixels)
        each.append(both / either)
        assert found[f"J_{k}"] == pytest.approx(both / either)
    assert found["J"] == pytest.approx(sum(each) / 2)


def test_a_class_in_neither_map_is_left_out_and_a_wrong_one_is_not():
    assert class_scores(_labels("0011"), _labels("0011"), 2)["J"] == 1
    assert class_scores(_labels("0211"), _labels("0011"), 2)["J"] == pytest.approx((1 + 0) / 2)
    nothing = class_scores(_labels("0000"), _labels("000v"), 2)
    assert nothing["P"] == 1 and np.isnan(nothing["J"])
    assert class_scores(_labels("01"), _labels("vv"), 1)["P"] == 1


def test_rows_fit_the_multiclass_protocol():
    truth = _labels("0011 0022")
    group = Group("made", "cat+dog", (_photo("a", truth), _photo("b", truth)), CLASSES)
    rows = score_group(group, [truth, torch.zeros_like(truth)], 3)
    table = aggregate(rows, "multiclass")
    assert table.protocol[0] == "multiclass" and table.images[0] == 2
    assert table.J[0] == pytest.approx(0.5) and table.P[0] == pytest.approx((1 + 0.5) / 2)
    with pytest.raises(CosegError, match="no classes"):
        score_group(Group("made", "x", group.photos), [truth, truth], 3)
    with pytest.raises(ValueError, match="label maps"):
        score_group(group, [truth], 3)


def test_stripes_are_of_one_width_and_as_many_as_asked():
    across = stripes((9, 4), 3)
    assert across[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and bool((across == across[:, :1]).all())
    torch.testing.assert_close(stripes((4, 9), 3, across=False), across.T.contiguous())
    sizes = stripes((100, 7), 4).unique(return_counts=True)[1]
    assert len(sizes) == 4 and int(sizes.max() - sizes.min()) <= 7


def test_kmeans_clusters_the_groups_colours_not_each_photographs():
    red, blue = torch.tensor([250, 0, 0]), torch.tensor([0, 0, 250])
    images = []
    for size, order in (((6, 8), (red, blue)), ((5, 5), (blue, red))):
        image = torch.empty(3, *size, dtype=torch.uint8)
        image[:, :3], image[:, 3:] = order[0][:, None, None], order[1][:, None, None]
        images.append(image)
    one, two = colour_kmeans(images, 2)
    assert one.shape == (6, 8) and two.shape == (5, 5)
    assert int(one[0, 0]) == int(two[4, 4]) != int(one[5, 5]) == int(two[0, 0])
    assert set(torch.cat([one.flatten(), two.flatten()]).tolist()) == {0, 1}


def test_kmeans_is_seeded_and_bears_images_with_fewer_colours_than_clusters():
    torch.manual_seed(1)
    images = [torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8) for _ in range(2)]
    for one, other in zip(colour_kmeans(images, 3, seed=4), colour_kmeans(images, 3, seed=4), strict=True):
        torch.testing.assert_close(one, other)
    flat = colour_kmeans([torch.full((3, 4, 4), 9, dtype=torch.uint8)], 3)
    assert int(flat[0].max()) == 0


def test_baselines_may_name_any_cluster_after_a_class():
    """A picture that is nothing but its two classes: stripes are as good as can be."""
    truth = stripes((9, 9), 3)
    group = Group("made", "cat+dog", (_photo("a", truth),), CLASSES)
    turned = (truth + 1) % 3
    assert score_group(group, [turned], 3, background=None).J[0] == 1
    assert isinstance(score_group(group, [turned], 3), pd.DataFrame)
