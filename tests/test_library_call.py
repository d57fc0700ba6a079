"""`from coseglib import segment`: the masks of `coseg segment`, from files and from arrays."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coseglib import segment
from coseglib.answering.reference import Reference
from coseglib.cli import main as cli
from coseglib.core.errors import CosegError
from coseglib.data import load
from coseglib.data.images import read_mask, write_png


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, photo in enumerate(load("synthetic")[0].photos[:3]):
        write_png(folder / f"{i}.png", photo.image())
    return sorted(folder.iterdir())


@pytest.mark.parametrize("system", ["ca-scenes", "pfcc-scenes", "ssnm-scenes"])
def test_files_and_arrays_give_the_masks_that_the_command_writes(system, files, tmp_path):
    arrays = [photo.image().permute(1, 2, 0).numpy() for photo in load("synthetic")[0].photos[:3]]
    assert cli.main(["segment", *map(str, files), "-o", str(tmp_path / "out"), "--checkpoint", system]) == 0
    for photos in (files, arrays):
        for file, mask in zip(files, segment(photos, checkpoint=system), strict=True):
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, read_mask(tmp_path / "out" / "masks" / file.name).numpy())


def test_a_reference_is_heard(files):
    mask = torch.zeros(load("synthetic")[0].photos[0].labels().shape, dtype=torch.uint8)
    mask[:20, :20] = 1
    plain, told = (segment(files, said, "ca-scenes") for said in ((), Reference(files[0], mask)))
    assert any((a != b).any() for a, b in zip(plain, told, strict=True))


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        ("a.jpg", "give a list"),
        ([np.zeros((4, 5), np.uint8)], r"photographs are uint8 \(H, W, 3\)"),
        ([np.zeros((4, 5, 3))], r"photographs are uint8"),
        ([Path("nowhere.jpg")] * 2, "nowhere.jpg: no such file"),
    ],
)
def test_what_is_no_photograph_is_one_line(photos, said):
    with pytest.raises(CosegError, match=said):
        segment(photos, checkpoint="ca-scenes")
