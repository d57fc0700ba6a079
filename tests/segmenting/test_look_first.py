import numpy as np
import pytest
import torch

from coseglib.segmenting.look_first import DOUBTFUL, SURE, expected_jaccard, look_first


def logits_of(p: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.zeros_like(p), torch.logit(p)])


def test_expected_j_is_about_the_mean_j_with_truths_drawn_by_the_probabilities():
    p = torch.rand(40, 40, generator=torch.Generator().manual_seed(0)).clamp(0.01, 0.99)
    mask = (p > 0.5).to(torch.uint8)
    rng = np.random.default_rng(0)
    drawn = [rng.random((40, 40)) < p.numpy() for _ in range(200)]
    own = mask.numpy() == 1
    mean = np.mean([(t & own).sum() / (t | own).sum() for t in drawn])
    assert expected_jaccard(logits_of(p), mask) == pytest.approx(mean, abs=0.005)


def test_a_sure_mask_expects_1_its_opposite_and_an_empty_one_0():
    p = torch.full((8, 8), 1e-6)
    p[2:5, 2:6] = 1 - 1e-6
    mask = (p > 0.5).to(torch.uint8)
    assert expected_jaccard(logits_of(p), mask) == pytest.approx(1, abs=1e-3)
    assert expected_jaccard(logits_of(p), 1 - mask) == pytest.approx(0, abs=1e-3)
    assert expected_jaccard(logits_of(p), 0 * mask) == 0
    large = mask.repeat_interleave(10, 0).repeat_interleave(10, 1)  # masks have the photograph's size
    assert expected_jaccard(logits_of(p), large) == pytest.approx(1, abs=1e-3)


def entry(name: str, expected: float | None, share: float = 0.2, **more) -> dict:
    known = {} if expected is None else {"expected_j": expected}
    return {"file": name, "mask": "m", "foreground_share": share, **known, **more}


def test_the_doubtful_come_first_and_the_sure_not_at_all():
    entries = [entry(f"{i}", 0.95) for i in range(8)] + [entry("b", 0.7), entry("a", 0.5), entry("d", 0.8)]
    assert [item["file"] for item in look_first(entries)] == ["a", "b", "d"]  # a fifth of 11, rounded up
    assert look_first([entry(f"{i}", SURE) for i in range(10)]) == []
    doubtful = [entry(f"{i}", DOUBTFUL - 0.01) for i in range(10)]
    assert [item["file"] for item in look_first(doubtful)] == [str(i) for i in range(10)]  # all, in the order found
    assert len(look_first([entry(f"{i}", 0.7) for i in range(10)])) == 2


def test_the_reasons_are_said():
    entries = [
        entry("empty", 0.0, 0.0),
        entry("unsure", 0.41),
        entry("vast", 0.45, 0.9),
        *(entry(f"{i}", 0.95) for i in range(5)),
    ]
    why = {item["file"]: item["why"] for item in look_first(entries)}
    assert why["empty"] == "the mask is empty" and why["unsure"] == "expected J 0.41"
    assert why["vast"] == "expected J 0.45; 90.0% of the photograph, and in most of the others about 20.0%"


def test_a_share_is_compared_within_its_group():
    entries = [entry(f"{g}{i}", 0.5, share, group=g) for g, share in (("a", 0.1), ("b", 0.6)) for i in range(3)]
    assert {item["why"] for item in look_first(entries)} == {"expected J 0.50"}


def test_skipped_photographs_and_label_maps_are_no_matter():
    """Of several classes nothing is expected: empty masks alone are named."""
    entries = [{"file": "x", "skipped": "gone"}, entry("one", None), entry("none", None, 0.0)]
    assert look_first(entries) == [{"file": "none", "why": "the mask is empty"}]
    assert look_first([]) == []
