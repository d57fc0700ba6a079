"""Every fault of a folder of one's own is told at once, with what to do, before anything runs."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coseglib.cli.main import main
from coseglib.core.errors import CosegError
from coseglib.segmenting.check import check_folder
from coseglib.segmenting.groups import find_groups

SQUARE = np.zeros((36, 48), np.uint8)
SQUARE[5:20, 5:20] = 255


def photo(path: Path, width: int = 48, height: int = 36) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(path)


def mask(path: Path, pixels: np.ndarray = SQUARE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def whole(tmp_path):
    """Two groups with masks, nothing wrong."""
    for name in ("cats/a", "cats/b", "dogs/a", "dogs/b"):
        photo(tmp_path / "set" / "images" / f"{name}.jpg")
        mask(tmp_path / "set" / "ground_truth" / f"{name}.png")
    return tmp_path / "set"


def told(folder: Path) -> dict[str, str]:
    """{name below the folder: "FAIL " or "--   ", and what is said}."""
    lines = [str(remark) for remark in check_folder(folder, quiet=True).remarks]
    assert all("\n" not in line for line in lines)
    return {os.path.relpath(line[5:].split(": ")[0], folder): line[:5] + line.split(": ", 1)[1] for line in lines}


def test_a_folder_without_faults_says_what_can_be_done_with_it(whole, capsys):
    assert main(["doctor", str(whole)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{whole}: photographs 4 (cats 2, dogs 2), masks 4, faults 0, remarks 0"
    assert lines[0] == f"segment   coseg segment {whole} -o out  # {find_groups([whole]).note}"
    assert "2 groups, a folder each (cats 2, dogs 2)" in lines[0]
    assert lines[1] == f"evaluate  coseg evaluate --dataset {whole} -o table.csv"
    assert lines[2] == f"train     coseg train --data-folder {whole} --start ca-mobilenet_v2 -o run"
    assert lines[3].startswith(
        f"train     coseg train --method multiclass --photos {whole}/images/cats --classes K -o "
    )
    assert main([*lines[1].split()[2:-1], str(whole / "t.csv"), "--checkpoint", "ellipse"]) == 0


def test_all_faults_are_told_at_once_a_line_each(whole, capsys):
    images, truth = whole / "images", whole / "ground_truth"
    (images / "cats" / "a.jpg").write_bytes((images / "cats" / "a.jpg").read_bytes()[:800])
    (images / "cats" / "c.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(9))
    mask(truth / "cats" / "c.png")
    photo(images / "cats" / "b.png")
    mask(truth / "dogs" / "a.png", SQUARE.T)
    (truth / "dogs" / "b.png").write_text("no mask")
    photo(images / "dogs" / "d.jpg")
    photo(truth / "dogs" / "d_mask.jpg")
    photo(images / "cows" / "a.jpg")
    (images / "gone").symlink_to(whole / "an unmounted disk")
    faults = {name: line for name, line in told(whole).items() if line.startswith("FAIL")}
    expected = {
        "images/cats/a.jpg": "truncated",
        "images/cats/c.heic": "pip install pillow-heif",
        "images/cats/b.jpg": "another photograph here has this name too",
        "images/cats/b.png": "another photograph here has this name too",
        "ground_truth/dogs/a.png": "36 × 48 pixels, its photograph a.jpg has 48 × 36",
        "ground_truth/dogs/b.png": "no image format",
        "images/dogs/d.jpg": "is it d_mask.jpg? Save that as PNG by this name, in black and white",
        "ground_truth/cows": "no such folder",
        "images/gone": "leads nowhere",
    }
    assert faults.keys() == expected.keys()
    for name, why in expected.items():
        assert why in faults[name], name
    assert main(["doctor", str(whole)]) == 1
    assert "evaluate  not before what is marked FAIL is mended" in capsys.readouterr().out


def test_what_is_worth_knowing_is_no_fault(whole):
    images, truth = whole / "images", whole / "ground_truth"
    mask(truth / "cats" / "a.png", SQUARE * 0)
    mask(truth / "cats" / "b.png", np.full_like(SQUARE, 255))
    mask(truth / "dogs" / "a.png", SQUARE // 255 * (1 + np.arange(48, dtype=np.uint8) % 3))
    cut_out = Image.open(images / "dogs" / "b.jpg")
    cut_out.putalpha(Image.fromarray(SQUARE))
    cut_out.save(truth / "dogs" / "b.png")  # of many colours, and told by its alpha: nothing to say
    mask(truth / "dogs" / "z.png")
    photo(images / "loose.jpg", 20, 20)
    mask(truth / "loose.png", SQUARE[:20, :20])
    photo(images / "dogs" / "deep" / "c.jpg")
    photo(images / "all" / "a.jpg")
    mask(truth / "all" / "a.png")
    (images / "notes.txt").touch()
    assert main(["segment", str(images / "cats"), "-o", str(images / "out"), "--checkpoint", "ellipse"]) == 0
    remarks = told(whole)
    assert all(line.startswith("--   ") for line in remarks.values()) and check_folder(whole, quiet=True).good
    expected = {
        "ground_truth/cats/a.png": "nothing of it is object",
        "ground_truth/cats/b.png": "all of it is object",
        "ground_truth/dogs/a.png": "3 colours besides black",
        "ground_truth/dogs/z.png": "no photograph in images has this name",
        "images/loose.jpg": "20 × 20 pixels",
        "images/out": "results of an earlier run",
        "images/dogs/deep": "one photograph only",
        "images/all": "its row in a table",
        "images": "one photograph only",
    }
    assert remarks.keys() == expected.keys() and all(why in remarks[name] for name, why in expected.items())


def test_a_jpeg_saved_as_a_png_is_no_mask_and_a_soft_edge_is_one(whole):
    noise = np.where(SQUARE > 0, 250, 0).astype(np.uint8)
    noise[0:3] = np.arange(144, dtype=np.uint8).reshape(3, 48) % 23  # what a JPEG leaves on black
    mask(whole / "ground_truth" / "cats" / "a.png", noise)
    soft = SQUARE.copy()
    soft[5:20, 19], soft[5:20, 5] = np.arange(100, 250, 10), np.arange(105, 255, 10)
    mask(whole / "ground_truth" / "cats" / "b.png", soft)
    assert told(whole) == {
        "ground_truth/cats/a.png": "FAIL 38% of what counts as object is nearly black (23 greys): the noise of a JPEG? "
        "Save it in black and white, cut at mid-grey",
        "ground_truth/cats/b.png": "--   31 colours besides black: all of them are taken as one object",
    }


def test_where_only_masks_are_missing_the_photographs_can_be_segmented(whole):
    for file in whole.glob("ground_truth/*/*.png"):
        file.unlink()
    found = check_folder(whole, quiet=True)
    assert not found.good and found.advice[1].startswith(f"segment   coseg segment {whole} -o out")
    assert found.advice[2].startswith("evaluate  not without masks")


def test_what_segment_takes_for_groups_is_told_where_evaluate_does_not(whole):
    photo(whole / "more" / "a.jpg")
    photo(whole / "more" / "b.jpg")
    (whole / "images" / "cows").mkdir()
    remarks = told(whole)
    assert remarks == {
        "images/cows": "--   no photographs of its own, so no group",
        "more": "--   lies beside images: a group for `segment`, and passed by in `evaluate`",
    }
    assert main(["segment", str(whole), "-o", str(whole / "out"), "--checkpoint", "ellipse"]) == 0
    assert told(whole) == remarks  # the results lie beside images


def test_photographs_alone_can_be_segmented_and_learned_on(tmp_path, capsys):
    for name in ("a.jpg", "a.png", "b.jpg"):
        photo(tmp_path / "my photos" / name)
    assert main(["doctor", str(tmp_path / "my photos")]) == 0  # names that collide: masks keep the suffixes
    out = capsys.readouterr().out
    assert f"segment   coseg segment '{tmp_path}/my photos' -o out\n" in out and "evaluate  not without masks" in out
    mask(tmp_path / "my photos" / "ground_truth" / "a.png")
    (fault,) = [r for r in check_folder(tmp_path / "my photos", quiet=True).remarks if r.grave]
    assert fault.path.name == "ground_truth" and fault.text.startswith("masks, and no folder images beside it")


def test_an_empty_folder_and_none_are_told(tmp_path, capsys):
    assert main(["doctor", str(tmp_path)]) == 1
    assert "no photographs in this folder" in capsys.readouterr().out
    with pytest.raises(CosegError, match="none: no such folder"):
        check_folder(tmp_path / "none")
    assert main(["doctor", str(tmp_path), "--self-test"]) == 1
    assert "--self-test: asks about this installation" in capsys.readouterr().err


def test_the_masks_of_a_set_are_not_segmented_with_its_photographs(whole):
    from coseglib.segmenting.finding import find_photos

    assert {p.parent.parent.name for p in find_photos([whole])[0]} == {"images"}
