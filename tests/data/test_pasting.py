"""Pieces cut out and stuck on, and things that are made of them."""

import numpy as np
import pytest
import torch

from coseglib.data.pasting import SIDE, Piece, cut_out, make_thing, paste, stick

S = 64


def _donor(value: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(S, S, dtype=torch.uint8)
    labels[16:48, 16:32] = 2
    return torch.full((3, S, S), value, dtype=torch.uint8), labels


def test_a_pasted_object_brings_its_own_pixels_and_covers_the_others():
    image, labels = torch.zeros(3, S, S, dtype=torch.uint8), torch.ones(S, S, dtype=torch.uint8)
    new, new_labels = paste(image, labels, *_donor(), 2, np.random.default_rng(0), scale=(0.5, 0.5))
    assert (new_labels == 2).sum() == 16 * 8
    assert (new[:, new_labels == 2] == 200).all() and (new[:, new_labels == 1] == 0).all()
    assert image.sum() == 0 and (labels == 1).all()  # the originals are untouched
    with pytest.raises(ValueError, match="no pixel of class 3"):
        paste(image, labels, *_donor(), 3, np.random.default_rng(0))


def test_a_turned_piece_keeps_its_size_and_its_own_pixels():
    piece = cut_out(*_donor(), 2)
    assert piece.inside.shape == (32, 16) and piece.inside.all()
    image, labels = torch.zeros(3, S, S, dtype=torch.uint8), torch.zeros(S, S, dtype=torch.uint8)
    shapes = set()
    for seed in range(8):
        new, there = stick(image, labels, piece, 7, np.random.default_rng(seed), (1.0, 1.0), turn=40)
        assert 0.75 < (there == 7).sum() / (32 * 16) <= 1.05  # the border cuts some off
        assert new[:, there == 7].float().mean() > 180 and not new[:, there == 0].any()
        rows, columns = (there == 7).nonzero().T
        shapes.add((int(rows.max() - rows.min()), int(columns.max() - columns.min())))
    assert len(shapes) > 3


@pytest.mark.parametrize("outlined", [True, False])
def test_a_made_thing_has_its_outline_and_another_look(outlined):
    rng = np.random.default_rng(3)
    texture = torch.from_numpy(rng.integers(0, 256, (3, S, S), dtype=np.uint8))
    piece = Piece(*cut_out(*_donor(), 2)) if outlined else None
    thing = make_thing(piece, texture, np.random.default_rng(1))
    longest = round(SIDE * S)
    assert thing.pixels.dtype == torch.uint8 and thing.pixels.shape[1:] == thing.inside.shape
    assert thing.inside.shape == ((longest, round(longest / 2)) if outlined else (longest, longest))
    assert thing.inside.all() == outlined and thing.inside.any()
    again, other = (make_thing(piece, texture, np.random.default_rng(seed)) for seed in (1, 2))
    assert torch.equal(again.pixels, thing.pixels) and not torch.equal(other.pixels, thing.pixels)


def test_a_made_things_colours_are_a_photographs_exchanged_scaled_and_shifted():
    """By loops: a plain piece without a texture has one colour, gain · (colours in another order) + shift."""
    donor, labels = _donor()
    black = torch.zeros(3, S, S, dtype=torch.uint8)
    donor[0], donor[1], donor[2] = 40, 90, 160
    for seed in range(12):
        thing = make_thing(cut_out(donor, labels, 2), black, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        for n in thing.inside.shape:
            rng.integers(0, S - n + 1)
        share = rng.uniform(0.3, 0.7) if rng.random() < 0.5 else 0.0
        gain, shift, order = rng.uniform(0.6, 1.4, (3, 1, 1)), rng.uniform(-50, 50, (3, 1, 1)), rng.permutation(3)
        for c in range(3):
            want = gain[c, 0, 0] * (1 - share) * (40, 90, 160)[order[c]] + shift[c, 0, 0]
            assert thing.pixels[c].unique().tolist() == [int(min(max(round(want), 0), 255))]
