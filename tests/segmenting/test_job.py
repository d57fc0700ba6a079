import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TinyContext

from coseglib.answering.answers import pooled_context
from coseglib.answering.masks import foreground_score, segment_group
from coseglib.answering.reading import resize_to_input
from coseglib.core.errors import CosegError
from coseglib.data.images import image_size, read_image
from coseglib.segmenting.finding import find_photos, output_names
from coseglib.segmenting.job import segment_photos

HERE = Path(__file__).parents[1]  # tests/


def scene(seed: int, width: int = 48, height: int = 36) -> Image.Image:
    """Coarse noise: different in every corner, so that turned pictures have turned masks."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture
def folder(tmp_path):
    """A function: so many photographs in tmp_path/photos, 00.png … ."""

    def make(count: int) -> Path:
        home = tmp_path / "photos"
        home.mkdir()
        for i in range(count):
            scene(i, 40 + i, 30 + i % 5).save(home / f"{i:02d}.png")
        return home

    return make


def segment(named, out, model=None, **options):
    return segment_photos(named, out, model or TinyContext(), quiet=True, **options)


def entries(out: Path) -> dict[str, dict]:
    return {Path(e["file"]).name: e for e in json.loads((out / "result.json").read_text())["photos"]}


def masks(out: Path) -> dict[str, np.ndarray]:
    return {p.name: np.array(Image.open(p)) for p in sorted((out / "masks").iterdir())}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


# What is written


def test_masks_overlays_and_the_table_are_those_of_the_group_in_memory(folder, tmp_path):
    photos, out = folder(11), tmp_path / "out"
    summary = segment([photos], out)
    assert (summary.photos, summary.done, summary.skipped, summary.exit_code) == (11, 11, (), 0)
    images = [read_image(p) for p in sorted(photos.iterdir())]
    written = masks(out)
    for i, mask in enumerate(segment_group(TinyContext(), images)):
        name = f"{i:02d}.png"
        assert np.array_equal(written[name], 255 * mask.numpy())
        entry = entries(out)[name]
        assert (entry["width"], entry["height"]) == (40 + i, 30 + i % 5)
        assert entry["foreground_share"] == pytest.approx(mask.float().mean().item(), abs=1e-6)
        assert entry["seconds"] > 0
        assert entry["mask"] == f"masks/{name}" and entry["overlay"] == f"overlays/{i:02d}.jpg"
        assert Image.open(out / entry["overlay"]).size == (40 + i, 30 + i % 5)
    assert Image.open(out / "masks" / "00.png").mode == "L"
    assert sorted(p.name for p in out.iterdir()) == ["masks", "overlays", "result.json"]  # nothing is left over
    assert not list(out.rglob(".*"))


def test_the_minimum_gives_other_masks_than_the_mean(folder, tmp_path):
    photos = folder(5)
    segment([photos], tmp_path / "mean")
    segment([photos], tmp_path / "min", how="min")
    assert not same(masks(tmp_path / "mean"), masks(tmp_path / "min"))
    assert json.loads((tmp_path / "min" / "result.json").read_text())["group"] == "min"


def test_an_overlay_is_at_most_1600_pixels_long_and_the_mask_is_not(tmp_path):
    scene(0, 2000, 50).save(tmp_path / "wide.png")
    segment([tmp_path / "wide.png"], tmp_path / "out")
    assert Image.open(tmp_path / "out/overlays/wide.jpg").size == (1600, 40)
    assert Image.open(tmp_path / "out/masks/wide.png").size == (2000, 50)


def test_a_low_mean_score_says_that_perhaps_nothing_is_common(folder, tmp_path):
    photos, model = folder(3), TinyContext()
    summary = segment([photos], tmp_path / "out", model)
    assert summary.note == ""  # of this model nothing is known
    scores = [entry["score"] for entry in json.loads((tmp_path / "out/result.json").read_text())["photos"]]
    context = pooled_context(model, files := [read_image(p) for p in sorted(photos.iterdir())])
    for score, file in zip(scores, files, strict=True):
        with torch.no_grad():
            logits = model.answer(model.encode(resize_to_input(file, model.input_size)[None]), context)[0]
        assert score == pytest.approx(foreground_score(logits), abs=1e-4)
    for margin, told in ((-0.01, ""), (0.01, "perhaps nothing is common to these photographs: their mean score is")):
        model.card = {"common_from": {"score": float(np.mean(scores)) + margin, "on": "voc-val"}}
        summary = segment([photos], tmp_path / f"out{margin}", model)
        assert summary.note.startswith(told) and bool(summary.note) == bool(told)
        assert json.loads((tmp_path / f"out{margin}/result.json").read_text())["note"] == summary.note


def test_a_group_of_one_is_attended_by_itself_and_the_result_says_so(folder, tmp_path):
    photos = folder(1)
    summary = segment([photos], tmp_path / "out")
    assert summary.exit_code == 0 and "one photograph" in summary.note
    assert "one photograph" in json.loads((tmp_path / "out/result.json").read_text())["note"]
    (mask,) = segment_group(TinyContext(), [read_image(photos / "00.png")])
    assert np.array_equal(masks(tmp_path / "out")["00.png"], 255 * mask.numpy())


# Odd photographs


@pytest.mark.parametrize("kind", ["L", "RGBA", "CMYK", "P", "1", "I;16"])
def test_photographs_of_any_mode_have_masks_of_their_size(folder, tmp_path, kind):
    photos, picture = folder(3), scene(50)
    if kind == "I;16":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(photos / "odd.png")
        Image.fromarray((grey // 257).astype(np.uint8)).save(photos.parent / "even.png")
    elif kind == "CMYK":
        picture.convert("CMYK").save(photos / "odd.tif")
        picture.save(photos.parent / "even.png")
    else:
        picture = picture.convert("RGB" if kind == "RGBA" else kind)
        picture.convert("RGB").save(photos.parent / "even.png")
        picture.convert(kind).save(photos / "odd.png")
    assert segment([photos], tmp_path / "odd").exit_code == 0
    next(photos.glob("odd*")).unlink()
    (photos.parent / "even.png").rename(photos / "odd.png")  # the same picture as plain RGB or grey
    assert segment([photos], tmp_path / "even").exit_code == 0
    odd, even = masks(tmp_path / "odd")["odd.png"], masks(tmp_path / "even")["odd.png"]
    assert odd.shape == (36, 48) and (odd != even).mean() < 0.02


@pytest.mark.parametrize(("orientation", "turn"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270)])
def test_a_photo_turned_by_exif_has_the_mask_of_what_is_displayed(folder, tmp_path, orientation, turn):
    photos, picture = folder(2), scene(51)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(photos / "turned.png", exif=exif)
    segment([photos], tmp_path / "stored")
    picture.transpose(turn).save(photos / "turned.png")
    segment([photos], tmp_path / "displayed")
    assert same(masks(tmp_path / "stored"), masks(tmp_path / "displayed"))
    entry = entries(tmp_path / "stored")["turned.png"]
    assert (entry["width"], entry["height"]) == ((36, 48) if orientation == 6 else (48, 36))


def test_one_pixel_is_a_photograph_too(folder, tmp_path):
    photos = folder(2)
    Image.new("RGB", (1, 1), "red").save(photos / "dot.png")
    assert segment([photos], tmp_path / "out").exit_code == 0
    assert masks(tmp_path / "out")["dot.png"].shape == (1, 1)


def test_a_photo_of_12000_by_9000_has_a_mask_of_that_size(folder, tmp_path):
    photos = folder(2)
    Image.new("RGB", (12000, 9000), (90, 120, 40)).save(photos / "huge.jpg", quality=30)
    assert segment([photos], tmp_path / "out").exit_code == 0
    assert Image.open(tmp_path / "out/overlays/huge.jpg").size == (1600, 1200)
    assert image_size(tmp_path / "out/masks/huge.png") == (12000, 9000)


def test_bad_files_are_named_and_the_rest_is_done(folder, tmp_path):
    photos, out = folder(20), tmp_path / "out"
    segment([photos], tmp_path / "clean")
    whole = tmp_path / "whole.jpg"
    scene(1, 300, 200).save(whole)
    (photos / "05a.jpg").write_bytes(whole.read_bytes()[:2000])
    (photos / "05b.jpg").write_text("not a photograph")
    (photos / "05c.jpg").touch()
    (photos / "notes.txt").write_text("not named as a photograph either")
    (photos / ".05d.jpg").write_text("hidden")
    summary = segment([photos, tmp_path / "gone.jpg", tmp_path / "whole.txt"], out)
    assert (summary.done, summary.exit_code, summary.ignored) == (20, 2, 1)
    reasons = {Path(file).name: why for file, why in summary.skipped}
    assert list(reasons) == ["05a.jpg", "05b.jpg", "05c.jpg", "gone.jpg", "whole.txt"]
    assert "truncated" in reasons["05a.jpg"] and "no image" in reasons["05b.jpg"]
    assert "no such file" in reasons["gone.jpg"]
    assert str(photos) not in reasons["05a.jpg"]  # the file is named once
    listed = entries(out)
    assert listed["05a.jpg"] == {"file": str(photos / "05a.jpg"), "skipped": reasons["05a.jpg"]}
    assert len(masks(out)) == 20
    for name, clean in masks(tmp_path / "clean").items():  # the bad files took no part in the pool
        assert (masks(out)[name] != clean).mean() < 0.002


def test_a_file_named_as_no_photo_is_tried_when_it_is_named_itself(folder, tmp_path):
    photos = folder(2)
    (photos / "00.png").rename(photos / "00.upload")
    assert segment([photos / "00.upload", photos], tmp_path / "out").done == 2


def test_where_nothing_can_be_done_the_result_says_why(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_text("no")
    for named, word in (("empty", "no photographs"), ("broken.jpg", "no image"), ("gone", "no such file")):
        summary = segment([tmp_path / named], tmp_path / "out")
        assert (summary.done, summary.exit_code) == (0, 1)
        assert word in summary.skipped[0][1] and word in entries(tmp_path / "out")[named]["skipped"]


def test_a_mistyped_name_costs_nothing_of_what_is_there_or_was_begun(folder, tmp_path):
    photos, out = folder(2), tmp_path / "out"
    segment([photos], out)
    record, begun = (out / "result.json").read_bytes(), out / ".coseg" / "abc"
    begun.mkdir(parents=True)
    summary = segment([tmp_path / "typo"], out)
    assert (summary.done, summary.exit_code) == (0, 1) and "no such file" in summary.skipped[0][1]
    assert (out / "result.json").read_bytes() == record and begun.is_dir() and list(begun.parent.iterdir()) == [begun]
    assert segment([photos], out).done == 2 and not begun.parent.exists()  # what is written anew, it no longer fits


def test_an_empty_folder_among_others_is_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    summary = segment([folder(2), tmp_path / "empty"], tmp_path / "out")
    assert (summary.done, summary.exit_code) == (2, 2) and summary.skipped[0][0] == str(tmp_path / "empty")


def test_an_output_that_cannot_be_written_is_one_line(folder, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(CosegError, match="out: "):
        segment([folder(1)], tmp_path / "out")


def test_unknown_pooling_and_kinds_are_refused_before_anything_is_written(folder, tmp_path):
    photos, model = folder(1), TinyContext()
    with pytest.raises(CosegError, match="median"):
        segment([photos], tmp_path / "out", how="median")
    model.kind = "oracle"
    with pytest.raises(CosegError, match="oracle"):
        segment_photos([photos], tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


# Which files, and what they are called


def test_a_folder_is_searched_below_in_order_once_and_not_where_masks_are_written(tmp_path):
    for name in ("b/2.JPG", "a.png", "b/1.png", "b/.hidden/x.png", "out/masks/a.png", "readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    photos, empty, ignored = find_photos([tmp_path, tmp_path / "b" / "1.png"], leave_out=tmp_path / "out")
    assert [p.relative_to(tmp_path).as_posix() for p in photos] == ["a.png", "b/1.png", "b/2.JPG"]
    assert (empty, ignored) == ([], 1)
    assert len(find_photos([tmp_path], leave_out=tmp_path)[0]) == 4  # masks/ of another run is not ours to guess


def test_writing_into_the_photos_own_folder_does_not_make_photos_of_masks(folder):
    photos = folder(3)
    assert segment([photos], photos).photos == 3
    assert segment([photos], photos).photos == 3


def test_cutouts_of_the_users_own_are_photographs_beside_results_too(folder):
    photos = folder(2)
    (photos / "cutouts").mkdir()
    scene(5).save(photos / "cutouts" / "mine.png")
    assert len(find_photos([photos], photos)[0]) == 3
    segment([photos], photos)
    assert "mine.png" in entries(photos) and len(find_photos([photos])[0]) == 3


def test_results_of_an_earlier_run_are_no_photographs(folder):
    photos = folder(3)
    for out in ("out", "out2"):
        assert segment([photos], photos / out).photos == 3
    assert segment([photos], photos.parent / "beside").photos == 3
    (photos / "out2").rename(photos / "moved")
    (photos / "linked").symlink_to(photos / "moved" / "masks")
    shutil.copytree(photos / "out" / "overlays", photos / "nested" / "copies")  # without its result.json
    shutil.copy(photos / "out" / "masks" / "00.png", photos / "00 mask.png")
    found, left, ignored = find_photos([photos])
    assert [p.name for p in found] == ["00.png", "01.png", "02.png"] and not left and ignored == 4
    found, left, _ = find_photos(sorted(photos.iterdir()))  # as a shell's * names them
    assert [p.name for p in found] == ["00.png", "01.png", "02.png"]
    assert {Path(p).name for p, _ in left} == {"00 mask.png", "linked", "moved", "nested", "out"}
    assert not find_photos([photos / "out" / "masks"])[0]


def test_masks_of_the_users_own_are_not_written_over(folder, tmp_path):
    photos = folder(2)
    (tmp_path / "out" / "masks").mkdir(parents=True)
    own = tmp_path / "out" / "masks" / "00.png"
    Image.new("L", (4, 4), 77).save(own)
    (tmp_path / "out" / "result.json").write_text('{"mine": 1}')
    before = own.read_bytes()
    with pytest.raises(CosegError, match="masks: is there already, and not from here"):
        segment([photos], tmp_path / "out")
    assert own.read_bytes() == before and (tmp_path / "out" / "result.json").read_text() == '{"mine": 1}'
    own.unlink()
    with pytest.raises(CosegError, match=r"result\.json: is there already, and not from here"):
        segment([photos], tmp_path / "out")
    (tmp_path / "out" / "result.json").unlink()
    (tmp_path / "out" / "overlays").write_text("a file")
    with pytest.raises(CosegError, match="overlays: is there already, and not from here"):
        segment([photos], tmp_path / "out")
    (tmp_path / "out" / "overlays").unlink()
    assert segment([photos], tmp_path / "out").exit_code == 0  # an empty folder holds nothing to lose


def test_a_mask_that_was_mended_by_hand_is_the_users(folder, tmp_path):
    photos, out = folder(2), tmp_path / "out"
    segment([photos], out)
    assert segment([photos], out).exit_code == 0
    Image.open(out / "masks" / "01.png").point(lambda v: 255 - v).save(out / "masks" / "01.png")
    before = (out / "masks" / "01.png").read_bytes()
    with pytest.raises(CosegError, match=r"masks/01\.png: is there already"):
        segment([photos], out)
    (out / "session.json").write_text((out / "result.json").read_text())  # the explorer's
    with pytest.raises(CosegError, match=r"masks/01\.png: is there already.*\(and 1 more\)"):
        segment([photos], out)
    assert (out / "masks" / "01.png").read_bytes() == before


def test_masks_of_an_earlier_run_on_other_photographs_are_named_and_stay(folder, tmp_path):
    photos, out = folder(3), tmp_path / "out"
    assert segment([photos], out).older == ()
    (photos / "02.png").unlink()
    (out / "masks" / "mine.png").write_bytes(b"the user's own")
    assert segment([photos], out).older == ("02.png",)
    assert (out / "masks" / "02.png").is_file() and list(entries(out)) == ["00.png", "01.png"]


def test_linked_folders_are_entered_once(folder, tmp_path):
    photos, more = folder(2), tmp_path / "more"
    more.mkdir()
    scene(7).save(more / "linked.png")
    for name in ("a", "b"):
        (photos / name).symlink_to(more)
    found, empty, _ = find_photos([photos])
    assert [p.name for p in found] == ["00.png", "01.png", "linked.png"] and not empty


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.jpg", "b.png"], ["a", "b"]),
        (["cat.jpg", "cat.png", "dog.jpg"], ["cat.jpg", "cat.png", "dog"]),
        (["cat.jpg", "CAT.png"], ["cat.jpg", "CAT.png"]),
        (["x/cat.jpg", "y/cat.jpg"], ["x__cat.jpg", "y__cat.jpg"]),
        (["x/cat.jpg", "y/cat.jpg", "y/cat.png"], ["x__cat.jpg", "y__cat.jpg", "cat.png"]),
        (["p/x/cat.jpg", "q/x/cat.jpg"], ["p__x__cat.jpg", "q__x__cat.jpg"]),
        (["cat.jpg", "cat.png", "cat.jpg.tif"], ["cat.jpg", "cat.png", "cat.jpg.tif"]),
        (["x/cat.jpg", "X/cat.jpg"], ["x__cat.jpg", "X__cat.jpg"]),
    ],
)
def test_names_that_would_collide_keep_their_extension_then_their_folders(files, names):
    got = output_names([Path("/photos") / f for f in files])
    assert len({n.casefold() for n in got}) == len(got)
    if files[-1][0] != "X":
        assert got == names


def test_names_that_differ_in_case_alone_are_numbered():
    names = output_names([Path("/photos/x/cat.jpg"), Path("/photos/X/cat.jpg")])
    assert [n.casefold() for n in names] == ["photos__x__cat.jpg", "photos__x__cat.jpg-2"]


def test_long_names_are_cut_and_stay_distinct(folder, tmp_path):
    photos = folder(0)
    for i, name in enumerate(("x" * 249 + "a", "x" * 249 + "b", "é" * 120)):
        scene(i).save(photos / f"{name}.png")
    assert segment([photos], tmp_path / "out").exit_code == 0
    assert len(masks(tmp_path / "out")) == 3


def test_what_is_no_regular_file_is_not_waited_for(folder, tmp_path):
    photos = folder(2)
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (photos / "below").symlink_to(photos)  # a link back: every folder is entered once
    summary = segment([photos], tmp_path / "out")
    assert summary.done == 2 and [Path(file).name for file, _ in summary.skipped] == ["gone.jpg", "pipe.jpg"]
    assert "no regular file" in summary.skipped[1][1]


def test_no_photo_overwrites_anothers_mask(tmp_path):
    for i, name in enumerate(("x/cat.png", "y/cat.png", "y/cat.bmp", "dog.png")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        scene(i, 20 + i, 20).save(tmp_path / "in" / name)
    segment([tmp_path / "in"], tmp_path / "out")
    sizes = {name: mask.shape[1] for name, mask in masks(tmp_path / "out").items()}
    assert sizes == {"x__cat.png.png": 20, "y__cat.png.png": 21, "cat.bmp.png": 22, "dog.png": 23}


# Killed and continued, alone and in company

RUN = r"""
import os, signal, sys
import torch
from coseglib.segmenting import job
from tiny_models import TinyContext

torch.set_num_threads(1)
photos, out, kill_at, devices = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
write, written = job.write_png, []

def counted(path, mask):
    write(path, mask)
    written.append(path)
    if len(written) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

job.write_png = counted
summary = job.segment_photos([photos], out, TinyContext(), devices=devices, accelerator="cpu", batch=3)
line = f"exit {summary.exit_code} rank {summary.rank} done {summary.done} wrote {len(written)}\n"
os.write(1, line.encode())  # at once: two processes share the pipe
"""


def run(tmp_path, *arguments, launcher=()):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Ten photographs, one of them broken, and their masks from one process in one go, in chunks of three."""
    home = tmp_path_factory.mktemp("undisturbed")
    (home / "photos").mkdir()
    for i in range(10):
        scene(i, 40 + i, 30 + i % 5).save(home / "photos" / f"{i:02d}.png")
    (home / "photos" / "03.png").write_text("broken")
    assert segment([home / "photos"], home / "out", batch=3).exit_code == 2
    return home


@pytest.fixture(scope="module")
def killed(undisturbed, tmp_path_factory):
    """What a process leaves that was killed between its fifth mask and the overlay."""
    home = tmp_path_factory.mktemp("killed")
    ended = run(home, undisturbed / "photos", home / "out", 5, 1)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return home / "out"


def test_a_killed_run_goes_on_with_the_photos_not_yet_done(undisturbed, killed, tmp_path, monkeypatch):
    out = shutil.copytree(killed, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (out / "masks").iterdir()}
    assert len(before) == 5 and not (out / "result.json").exists()
    (progress,) = out.glob(".coseg/*/progress-0.jsonl")
    (out / "overlays" / ".04.jpg.1234.part").touch()
    with open(progress, "ab") as file:
        file.write(b'{"photo": 9, "mask": "mas')  # as if it had been killed within a line
    pooled = []
    monkeypatch.setattr("coseglib.answering.kinds.Pool.add", lambda *_: pooled.append(1))
    monkeypatch.setattr("coseglib.segmenting.job.find_apart", lambda *_: [])  # which pools the two sides that it sees
    summary = segment([undisturbed / "photos"], out, batch=3)
    assert not pooled  # the first pass was over
    assert (summary.done, summary.earlier, summary.exit_code) == (9, 4, 2)  # the fifth lacked its overlay
    after = {p.name: p.stat().st_mtime_ns for p in (out / "masks").iterdir()}
    kept = sorted(before)[:4]
    assert {n: after[n] for n in kept} == {n: before[n] for n in kept}
    assert same(masks(out), masks(undisturbed / "out"))
    assert [set(e) for e in entries(out).values()] == [set(e) for e in entries(undisturbed / "out").values()]
    assert not list(out.rglob(".*"))  # neither the state nor half a file


@pytest.mark.parametrize("change", ["how", "photo", "model", "batch"])
def test_another_question_starts_anew(undisturbed, tmp_path, change, monkeypatch):
    class Killed(Exception):
        pass

    photos, out, model = tmp_path / "photos", tmp_path / "out", TinyContext()
    photos.mkdir()
    for i in range(4):
        scene(i).save(photos / f"{i}.png")

    def stop(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("coseglib.segmenting.job.overlay", stop)
        with pytest.raises(Killed):
            segment_photos([photos], out, model, quiet=True)
    (log,) = out.glob(".coseg/*/progress-0.jsonl")
    (out / "overlays" / "0.jpg").touch()
    log.write_text('{"photo": 0, "mask": "masks/0.png", "overlay": "overlays/0.jpg"}\n')
    options = {}
    if change == "how":
        options["how"] = "min"
    if change == "batch":
        options["batch"] = 2
    if change == "photo":
        scene(9).save(photos / "3.png")
    if change == "model":
        model.linear.bias.data += 1
    summary = segment_photos([photos], out, model, quiet=True, **options)
    assert (summary.earlier, summary.done) == (0, 4)
    segment_photos([photos], tmp_path / "fresh", model, quiet=True, **options)
    assert same(masks(out), masks(tmp_path / "fresh"))


def says(ended) -> list[str]:
    return sorted(line for line in ended.stdout.splitlines() if line.startswith("exit"))


def test_two_processes_on_gloo_give_the_very_masks_of_one(undisturbed, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = run(tmp_path, undisturbed / "photos", tmp_path / "out", 0, 1, launcher=torchrun)
    # Chunks 0, 2 and 1, 3 of [00 01 02] [03 04 05] [06 07 08] [09]; 03 is broken. Only rank 0 carries the exit code.
    assert says(ended) == ["exit 0 rank 1 done 9 wrote 3", "exit 2 rank 0 done 9 wrote 6"], ended.stderr
    assert same(masks(tmp_path / "out"), masks(undisturbed / "out"))
    one, two = (json.loads((home / "out/result.json").read_text()) for home in (undisturbed, tmp_path))
    for result in (one, two):
        for entry in result["photos"]:
            entry.pop("seconds", None)
    assert one == two


def test_what_one_process_began_two_may_finish(undisturbed, killed, tmp_path):
    out = shutil.copytree(killed, tmp_path / "out")
    ended = run(tmp_path, undisturbed / "photos", out, 0, 2)  # started by Fabric
    # Left: 05 of chunk 1, chunks 2 and 3.
    assert says(ended) == ["exit 0 rank 1 done 9 wrote 3", "exit 2 rank 0 done 9 wrote 2"], ended.stderr
    assert same(masks(out), masks(undisturbed / "out"))


def test_progress_is_lines_with_the_time_left_when_it_is_no_terminal(folder, tmp_path, capsys):
    segment_photos([folder(3)], tmp_path / "out", TinyContext())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("attention (pass 1 of 2): 3 of 3 photos")
    assert lines[1].startswith("masks (pass 2 of 2): 3 of 3 photos") and lines[1].endswith("0:00:00 left")


def test_the_pool_reduced_over_processes_is_the_pool_of_all(monkeypatch):
    """The arithmetic of all_reduce without processes: a stand-in that adds up what two have."""
    from coseglib.answering.kinds import Pool

    torch.manual_seed(0)
    alpha = torch.rand(9, 4)
    for how in ("mean", "min"):
        whole, first, second = (Pool(4, how) for _ in range(3))
        whole.add(alpha), first.add(alpha[:2]), second.add(alpha[2:])

        others = [second.pooled, torch.tensor(second.count)]

        class Two:
            def all_reduce(self, value, reduce_op, others=others):
                other = others.pop(0)
                return torch.minimum(value, other) if reduce_op == "min" else value + other

        first.all_reduce(Two())
        assert torch.equal(first.context(), whole.context()) and first.count == 9
