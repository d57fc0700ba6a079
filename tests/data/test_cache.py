"""The training cache: what it is made from, and what becomes of a full disk and of runs that were killed."""

import os
import resource
import subprocess

import numpy as np
import pytest
import torch
from tiny_sets import MSRC, VOC, box, msrc_set, picture, save, voc_set

from coseglib.core.errors import CosegError
from coseglib.core.files import clear_parts
from coseglib.data import load
from coseglib.data.cache import training_set
from coseglib.data.record import Photo
from coseglib.data.sets import msrc, voc


@pytest.fixture
def photos(tmp_path):
    voc_set(tmp_path, VOC)
    msrc_set(tmp_path, MSRC)
    return voc.photos(tmp_path, "train")[:3] + msrc.photos(tmp_path, "train")[:2]


def _touched(file, write) -> None:
    """Write the file anew and give it another date, however coarse the file system's clock is."""
    write(file)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000))


def test_a_repaired_mask_and_a_changed_picture_are_trained_on(tmp_path, photos):
    before = training_set(photos, 32, tmp_path / "cache")
    _touched(photos[0].mask_path, lambda file: save(box(value=VOC["train"]["2007_000000"].max(), rows=36), file))
    repaired = training_set(photos, 32, tmp_path / "cache")
    assert (repaired.labels[0] == before.labels[0].max()).all() and not (before.labels[0] > 0).all()
    assert repaired.areas[0].max() == 1 and np.array_equal(repaired.images, before.images)
    _touched(photos[4].path, lambda file: save(picture("another"), file, quality=95))
    changed = training_set(photos, 32, tmp_path / "cache")
    assert not np.array_equal(changed.images[4], repaired.images[4])
    assert np.array_equal(changed.labels, repaired.labels)


def test_every_set_says_where_its_masks_are(sets):
    for name in ("icoseg", "icoseg8", "pascal", "msrc7", "msrc-train", "voc-train", sets / "iCoseg"):
        for group in load(name, sets):
            assert all(p.path.is_file() and p.mask_path.is_file() for p in group.photos), name


def test_a_missing_mask_is_named_before_anything_is_decoded(tmp_path, photos):
    photos[1].mask_path.unlink()
    with pytest.raises(CosegError, match=r"2007_000001\.png: no such file"):
        training_set(photos, 32, tmp_path / "cache")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, photos):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))  # bytes; the images take 3 · 32² · 5
    try:
        with pytest.raises(CosegError, match=r"cache: File too large; .* GB are needed") as fault:
            training_set(photos, 32, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(fault.value)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(training_set(photos, 32, tmp_path / "cache")) == 5


def test_what_a_killed_run_left_is_cleared(tmp_path, photos):
    for name in ("32-0123.part", "64-0123.4711.part"):
        save(picture("x"), tmp_path / "cache" / name / "images.npy", format="PNG")
    (tmp_path / "cache" / "areas.part").write_text("a file of another kind")
    found = training_set(photos, 32, tmp_path / "cache")
    left = {p.name for p in (tmp_path / "cache").iterdir()}
    assert len(left) == 3 and left > {".lock", "areas.part"} and len(found) == 5


def test_parts_of_processes_that_are_gone_are_cleared_and_no_others(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    parts = {f".areas-0.npy.{number}.part" for number in (gone.pid, os.getpid(), "x")}
    for name in parts:
        (tmp_path / name).touch()
    clear_parts(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == parts - {f".areas-0.npy.{gone.pid}.part"}


def test_a_cache_that_is_cut_short_is_one_line(tmp_path, photos):
    training_set(photos, 32, tmp_path / "cache")
    (images,) = (tmp_path / "cache").glob("*/images.npy")
    os.truncate(images, 500)
    with pytest.raises(CosegError, match=r"cannot be read .*; remove this folder") as fault:
        training_set(photos, 32, tmp_path / "cache")
    assert "\n" not in str(fault.value)


def test_the_same_photographs_elsewhere_are_the_same_and_others_are_not(tmp_path, photos):
    voc_set(tmp_path / "elsewhere", VOC)
    same = voc.photos(tmp_path / "elsewhere", "train")[:3] + photos[3:]
    _touched(same[0].path, lambda file: None)
    found = [training_set(some, 32, tmp_path / "cache").content for some in (photos, same, photos[1:], photos[::-1])]
    assert found[0] == found[1] and len(set(found)) == 3 and len(found[0]) == 64


def test_a_folder_that_cannot_be_written_is_named(tmp_path, photos):
    (tmp_path / "file").write_text("")
    with pytest.raises(CosegError, match="file/cache: Not a directory"):
        training_set(photos, 32, tmp_path / "file" / "cache")
    with pytest.raises(CosegError, match="name another folder in COSEG_CACHE"):
        training_set(photos, 32, tmp_path / "file" / "cache")


def test_the_arrays_hold_what_was_read(tmp_path, photos):
    found = training_set(photos, 36, tmp_path / "cache")
    assert found.images.shape == (5, 3, 36, 36) and found.labels.shape == (5, 36, 36)
    dog = found.classes.index("dog") + 1
    assert (found.labels[0][:10] == dog).all() and (found.labels[0][10:] == 0).all()
    assert (found.labels[3][35] == 255).all()  # void


def test_what_is_too_small_for_the_cache_is_held_all_the_same(tmp_path):
    labels = torch.zeros(90, 90, dtype=torch.uint8)
    labels[:30], labels[60, 60] = 1, 2  # the pixel of the dog is under no centre of the smaller map
    image = torch.zeros(3, 90, 90, dtype=torch.uint8)
    photo = Photo("made", "a", ("cat", "dog", "grass"), lambda: image, lambda: labels, holds=("person", "grass"))
    found = training_set([photo], 30, tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.areas[0].tolist() == pytest.approx([1 / 3, 0]) and found.holds[0].tolist() == [True, True, True]
