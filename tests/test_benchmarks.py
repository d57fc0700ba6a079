import sys

import pytest
import torch

from coseglib.core.paths import REPOSITORY
from coseglib.data.record import resize_labels


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


def test_a_section_is_replaced_in_place_and_others_are_left_alone(benchmarks, tmp_path, monkeypatch):
    from record import record

    file = tmp_path / "reports" / "benchmarks.md"
    monkeypatch.setattr(sys, "argv", ["x.py", "--images", "3"])
    record("First", "benchmarks/first.py", [{"way": "a", "seconds": 1}], file=file)
    record("Second", "benchmarks/second.py", [{"way": "b", "seconds": 2}], "What it shows.", file=file)
    before = file.read_text()
    record("First", "benchmarks/first.py", [{"way": "a", "seconds": 3}], file=file)
    text = file.read_text()
    assert text == before.replace("|         1 |", "|         3 |")
    assert text.startswith("# Benchmarks\n") and text.index("## First") < text.index("## Second")
    assert "`python benchmarks/first.py --images 3`" in text and f"torch {torch.__version__}" in text


def test_the_exponent_of_a_square_is_2(benchmarks):
    from instant_group import exponent

    assert exponent([10, 20, 80], [3 * n**2 for n in (10, 20, 80)]) == pytest.approx(2)


def test_two_images_as_a_stream_and_as_all_pairs_are_both_segmented(benchmarks, tiny):
    from instant_group import Noise, all_pairs, stream

    model = tiny("ca", "workbook")
    for way in (stream, all_pairs):
        assert 0 <= way(model, Noise(2, 40)) <= 2 * 40 * 40


def test_what_is_caught_counts_the_bad_ones_among_the_first_fifth_of_each_group(benchmarks):
    import numpy as np
    from look_first import caught

    doubt, bad = np.array([9, 8, 1, 1, 1, 1, 1, 1, 1, 7.0]), np.array([1, 0, 0, 0, 1, 0, 0, 0, 0, 1], bool)
    assert caught(doubt, bad, np.zeros(10)) == pytest.approx(1 / 3)  # two of ten are looked at
    assert caught(doubt, bad, np.repeat([0, 1], 5)) == pytest.approx(2 / 3)  # one of each five


def test_masks_as_they_were_are_those_of_torchvision_and_half_a_pixel_from_todays(benchmarks):
    from alignment import at_corners
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tvf

    labels = torch.randint(0, 3, (320, 240), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = tvf.resize(labels[None], [160, 150], InterpolationMode.NEAREST)[0]
    assert torch.equal(at_corners(labels, (160, 150)), before)
    edge = (torch.arange(64) >= 32).to(torch.uint8).expand(1, 64)  # an object's edge, 16 times smaller
    assert at_corners(edge, (1, 4)).tolist() == resize_labels(edge, (1, 4)).tolist() == [[0, 0, 1, 1]]
    one = torch.zeros(1, 64, dtype=torch.uint8)
    one[0, 24] = 1  # the middle of the second of four pixels, whose corner is at 16
    assert at_corners(one, (1, 4)).sum() == 0 and resize_labels(one, (1, 4)).tolist() == [[0, 1, 0, 0]]
