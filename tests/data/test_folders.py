"""What in a folder counts as a photograph, for every way in: `find_photos`, a folder of one's own, the explorer."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.core.tables import read_table, write_table
from coseglib.data import load
from coseglib.data.folders import AS_OURS, MARK, PICTURES, is_ours, is_signed, signed
from coseglib.data.images import read_image, read_mask, write_jpg, write_png
from coseglib.segmenting.finding import find_photos, output_names


def photo(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def found(*named) -> list[str]:
    return [p.name for p in find_photos(named)[0]]


def test_what_file_servers_and_systems_keep_is_no_photograph(tmp_path):
    photo(tmp_path / "a.jpg")
    for kept in ("@eaDir/a.jpg", "__MACOSX/a.jpg", ".thumbnails/a.png", ".comments/a.jpg", "$RECYCLE.BIN/b.jpg"):
        photo(tmp_path / kept)
    for name in ("._a.jpg", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"not read")
    assert find_photos([tmp_path]) == ([tmp_path / "a.jpg"], [], 0)
    assert [p.name for g in load(tmp_path) for p in g.photos] == ["a.jpg"]
    photos, left, _ = find_photos([tmp_path / "a.jpg", tmp_path / "@eaDir"])  # as a shell's * names them
    assert len(photos) == 1 and "thumbnails" in left[0][1]


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "mpo", "apng", "avif", "jp2", "tga", "qoi", "pbm", "webp", "dib"])
def test_what_pillow_reads_is_found_and_read(tmp_path, suffix):
    if suffix == "avif":
        pytest.importorskip("PIL._avif")
    kind = {"apng": {"format": "PNG"}}.get(suffix, {})
    Image.new("1" if suffix == "pbm" else "RGB", (16, 12), 1).save(tmp_path / f"A.{suffix.upper()}", **kind)
    assert len(found(tmp_path)) == 1 and read_image(tmp_path / f"A.{suffix.upper()}").shape == (3, 12, 16)


def test_pictures_that_cannot_be_read_here_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("AVIF", "HEIF")])
    heif = b"\0\0\0\x18ftypheic" + bytes(40)
    files = {"a.HEIC": heif, "b.jpg": heif, "c.avif": b"x" * 40, "d.CR2": b"II*\0", "e.jxl": b"\xff\x0a"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert found(tmp_path) == sorted(files)  # found, so that each is named
    for name, told in zip(
        sorted(files), ["pillow-heif", "pillow-heif", "-U pillow", "raw file", "as JPEG"], strict=True
    ):
        with pytest.raises(CosegError, match=rf"{name}: .*{told}"):
            read_image(tmp_path / name)
    photo(tmp_path / "f.heic", format="JPEG")  # a JPEG by another name is read
    assert read_image(tmp_path / "f.heic").shape == (3, 12, 16)


def test_the_explorer_and_folders_know_the_same_pictures():
    assert {".heic", ".avif", ".jfif", ".nef", ".jpg"} <= PICTURES and all(s == s.lower() for s in PICTURES)


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, monkeypatch):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "closed" / "b.jpg")
    (tmp_path / "gone").symlink_to(tmp_path / "an unmounted disk")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    scandir, iterdir = os.scandir, Path.iterdir

    def closed(look):  # root, whom the tests may run as, may look anywhere
        def looked(path):
            if Path(path).name == "closed":
                raise PermissionError(13, "Permission denied", str(path))
            return look(path)

        return looked

    monkeypatch.setattr(os, "scandir", closed(scandir))
    monkeypatch.setattr(Path, "iterdir", closed(iterdir))
    photos, left, ignored = find_photos([tmp_path])
    assert photos == [tmp_path / "a.jpg"] and not ignored
    why = {Path(p).name: w for p, w in left}
    assert set(why) == {"closed", "gone", "round"}
    assert "mend its permissions" in why["closed"] and "leads nowhere" in why["gone"]
    with pytest.raises(CosegError, match="closed: cannot be looked into"):
        load(tmp_path)


def test_loops_of_links_end_and_links_are_followed(tmp_path):
    photo(tmp_path / "photos" / "a.jpg")
    photo(tmp_path / "more" / "b.jpg")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "back").symlink_to(tmp_path / "photos")
    assert found(tmp_path / "photos") == ["a.jpg", "b.jpg"]


def test_photographs_below_the_output_are_photographs_all_the_same(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "out" / "b.jpg")
    assert find_photos([tmp_path], leave_out=tmp_path / "out")[0] == [tmp_path / "a.jpg", tmp_path / "out" / "b.jpg"]


def test_what_we_wrote_bears_a_mark_that_other_software_drops(tmp_path):
    grey = np.zeros((12, 16), np.uint8)
    write_png(tmp_path / "mask.png", grey, **AS_OURS["PNG"])
    write_jpg(tmp_path / "overlay.jpg", np.stack([grey] * 3), **AS_OURS["JPEG"])
    write_png(tmp_path / "plain.png", grey)
    assert is_ours(tmp_path / "mask.png") and is_ours(tmp_path / "overlay.jpg") and not is_ours(tmp_path / "plain.png")
    assert read_mask(tmp_path / "mask.png").shape == (12, 16)
    Image.open(tmp_path / "mask.png").save(tmp_path / "edited.png")
    assert found(tmp_path) == ["edited.png", "plain.png"]
    assert [p.name for g in load(tmp_path) for p in g.photos] == ["edited.png", "plain.png"]


def test_a_text_of_ours_is_known_until_somebody_edits_it(tmp_path):
    file, text = tmp_path / "page.html", signed(f"<!-- {MARK} -->\né and more\n")
    file.write_text(text, encoding="utf-8")
    assert is_signed(file) and is_ours(file)
    for other in (text.replace("more", "less"), text + " ", f"<!-- {MARK} -->\n", "mine", ""):
        file.write_text(other, encoding="utf-8")
        assert not is_signed(file)
    file.write_bytes(MARK.encode() + b", 0123456789abcdef \xff")
    assert not is_signed(file) and not is_signed(tmp_path) and not is_signed(tmp_path / "none")


NAMES = ["007", "nan", "None", "NA", "1e5", "2020-01-01", " ", "all", "true", "-", "a,b", "a\nb", "é", "\udcff\udcfe"]


def test_names_that_look_like_something_else_survive_tables_and_results(tmp_path):
    for name in NAMES:
        photo(tmp_path / "set" / "images" / name / f"{name}.png")
    groups = load(tmp_path / "set")
    names = sorted(name.replace("\udcff\udcfe", r"\xff\xfe") for name in NAMES)  # bytes that no table can hold
    assert sorted(g.name for g in groups) == names and all(g.photos[0].name == f"{g.name}/{g.name}.png" for g in groups)
    write_table(pd.DataFrame({"group": [g.name for g in groups], "J": 0.5}), tmp_path / "t.csv")
    assert sorted(read_table(tmp_path / "t.csv", {"group": str, "J": float}).group) == names
    photos, _, _ = find_photos([tmp_path / "set"])
    assert sorted(output_names(photos)) == sorted(NAMES)
    assert [Path(p) for p in json.loads(json.dumps([str(p) for p in photos]))] == photos


def test_results_inside_a_folder_are_no_groups(tmp_path):
    photo(tmp_path / "a.jpg")
    for name in ("masks", "overlays"):  # of a version that left no mark
        photo(tmp_path / name / "a.png")
    assert len(load(tmp_path)) == 3
    (tmp_path / "result.json").write_text('{"checkpoint": "ca", "photos": []}')
    assert [p.name for g in load(tmp_path) for p in g.photos] == ["a.jpg"]
    shutil.move(tmp_path / "masks", tmp_path / "other")  # without its record it may be anyone's
    assert len(load(tmp_path)) == 2
