"""A session that was saved is opened as it was; what is damaged, gone or the user's own is one line."""

import json
from functools import partial

import pytest
import torch
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.data.folders import MARK, is_ours, is_output
from coseglib.data.images import photo_of, read_image, read_labels, read_mask, write_png
from coseglib.data.record import Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.explorer.said import Marks, Stroke
from coseglib.explorer.saved import SETTINGS, read
from coseglib.explorer.session import Session
from coseglib.segmenting.exports import export
from coseglib.segmenting.finding import find_photos


@pytest.fixture
def files(tmp_path) -> list[Photo]:
    photos = []
    for photo in load_synthetic(groups=("star", "ring"), photos=3, size=64)[0].photos:
        file = tmp_path / "photos" / f"{photo.name.replace('/', '-')}.png"
        file.parent.mkdir(exist_ok=True)
        write_png(file, photo.image())
        photos.append(photo_of("folder", file.name, ("object",), file))
    return photos


@pytest.fixture
def session(files, tiny) -> Session:
    session = Session(tiny("ca", "workbook"), files)
    session.set_partners([0, 2])
    session.say(0, point=(30, 32))
    session.say(1, not_point=(3, 4))
    session.say(2, box=(10, 12, 50, 52))
    session.correct(1, Stroke(((20, 20), (50, 20)), 5), 0.6)
    session.say(1, mask=True)
    return session


def test_it_goes_on_where_it_was(session, tmp_path, tiny):
    session.save(tmp_path / "out", 0.6)
    other = Session(tiny("ca", "workbook"))
    found = other.open(tmp_path / "out")
    assert (found.threshold, found.post, found.group) == (0.6, "argmax", "mean")
    assert other.partners == (0, 2) and other.said == session.said and list(other.marks.corrected) == [1]
    for mask, was in zip(other.masks(0.6, own=True), session.masks(0.6, own=True), strict=True):
        assert mask.equal(was)
    with pytest.raises(CosegError, match="nothing to undo"):
        other.undo()
    other.correct(1, Stroke(((20, 20),), 9, erase=True))  # and on
    assert not other.masks(own=True)[1].equal(session.masks(0.6, own=True)[1])


def test_the_record_is_as_that_of_coseg_segment(session, tmp_path):
    masks = session.save(tmp_path / "out")
    made = json.loads((tmp_path / "out" / SETTINGS).read_text())
    entry = made["photos"][1]
    assert set(entry) == {"corrected", "score", "foreground_share", "width", "height", "file", "mask", "overlay"}
    assert set(made["photos"][0]) == set(entry) - {"corrected"}
    assert (entry["mask"], entry["overlay"]) == (f"masks/{masks[1].name}", f"overlays/{masks[1].stem}.jpg")
    mask = read_mask(masks[1])
    assert (entry["height"], entry["width"]) == tuple(mask.shape)
    assert entry["foreground_share"] == pytest.approx(float(mask.float().mean()), abs=1e-6)
    assert mask.equal(session.masks(own=True)[1]) and mask[20, 35] == 1  # as it was painted
    for kind in ("mask", "overlay"):
        assert all(is_ours(tmp_path / "out" / e[kind]) for e in made["photos"])
    with Image.open(masks[0]) as written:
        assert written.info["Software"] == MARK
    about = [{"file": str(session.photos[0].photo.path), "points": [[30, 32]]}]
    assert made["references"][:1] == about and len(made["references"]) == 4
    assert is_output(tmp_path / "out") and not find_photos([tmp_path / "out"])[0]
    session.clear()
    session.save(tmp_path / "out")  # again, into its own
    assert not json.loads((tmp_path / "out" / SETTINGS).read_text())["said"]


def test_a_mask_of_the_users_own_is_not_written_over(session, tmp_path):
    (mask, *_) = session.save(tmp_path / "out")
    Image.new("L", (64, 64), 255).save(mask)  # mended elsewhere: our mark is gone
    with pytest.raises(CosegError, match="is there already, and not from here"):
        session.save(tmp_path / "out")
    assert read_mask(mask).all()


def test_scenes_and_uploads_are_found_again(tiny, tmp_path):
    scenes = load_synthetic()[0].photos[:2]
    Session(tiny(), scenes).save(tmp_path / "scenes")
    other = Session(tiny())
    other.open(tmp_path / "scenes")
    assert [o.photo.key for o in other.photos] == [p.key for p in scenes]

    def uploaded(folder) -> Photo:
        path = tmp_path / folder / "up.png"
        path.parent.mkdir()
        write_png(path, torch.full((3, 20, 30), 90, dtype=torch.uint8))
        return Photo("folder", "up.png", ("uploads",), partial(read_image, path), None, path)

    first = uploaded("first")
    Session(tiny(), [first]).save(tmp_path / "up")
    first.path.unlink()
    with pytest.raises(CosegError, match=r"up\.png: no such file; put it back, or upload it again"):
        other.open(tmp_path / "up")
    assert len(other.photos) == 2  # as it was
    again = Session(tiny(), [uploaded("second")])
    again.open(tmp_path / "up")
    assert again.names == ["up"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda made: made.pop("said"), "said: Field required"),
        (lambda made: made.update(partners=[7]), "names a photograph that it does not list"),
        (lambda made: made.update(partners=[]), "no partners"),
        (lambda made: made.update(threshold=2), "threshold: "),
        (lambda made: made.update(photos=[]), "photos: "),
        (lambda made: made["said"][0].update(kind="shout"), "said.0.kind: "),
        (lambda made: made["said"][0].update(at=[1, 2, 3]), "a point has 2 numbers"),
        (lambda made: made["said"][0].update(at=[1, 200]), "point 1,200 is outside"),
        (lambda made: made["photos"][1].pop("corrected"), "its mask is not corrected"),
        (lambda made: made["photos"][1].update(mask="masks/none.png"), r"none\.png: no such file"),
        (lambda made: made.update(group="sum"), "sum: no such pooling"),
    ],
)
def test_a_damaged_record_is_one_line_and_changes_nothing(session, tmp_path, change, why):
    session.save(tmp_path / "out")
    file = tmp_path / "out" / SETTINGS
    made = json.loads(file.read_text())
    change(made)
    file.write_text(json.dumps(made))
    before = session.marks, session.photos, session.partners
    with pytest.raises(CosegError, match=why) as error:
        session.open(tmp_path / "out")
    assert "\n" not in str(error.value) and (session.marks, session.photos, session.partners) == before


def test_what_is_no_session_and_a_mask_of_another_size_are_named(session, tmp_path):
    with pytest.raises(CosegError, match=r"session\.json: cannot be read as JSON"):
        read(tmp_path)
    masks = session.save(tmp_path / "out")
    Image.new("L", (9, 8)).save(masks[1])
    with pytest.raises(CosegError, match="9 × 8, its photograph 64 × 64; mend it"):
        session.open(tmp_path / "out")


def test_a_session_with_nothing_said_is_opened_too(files, tiny, tmp_path):
    session = Session(tiny(), files)
    session.save(tmp_path / "out")
    session.say(0, point=(9, 9))
    session.open(tmp_path / "out")
    assert session.marks == Marks()


def test_label_maps_are_saved_as_coseg_segment_writes_them_and_exported_by_class(files, awake, tmp_path):
    session = Session(awake("multiclass", classes=2), files)
    masks = session.save(tmp_path / "out")
    made = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert (made["classes"], made["names"], made["threshold"]) == (2, None, None)
    for file, entry, labels in zip(masks, made["photos"], session.masks(own=True), strict=True):
        assert read_labels(file).equal(labels) and Image.open(file).mode == "P" and is_ours(file)
        assert entry["class_shares"] == pytest.approx([float((labels == k).float().mean()) for k in (1, 2)], abs=1e-6)
        assert len(entry["class_scores"]) == 2 and "score" not in entry
    export(tmp_path / "out", ["coco", "cutouts"])
    kinds = json.loads((tmp_path / "out" / "coco.json").read_text())["categories"]
    assert [kind["name"] for kind in kinds] == ["class 1", "class 2"]
    assert any((tmp_path / "out" / "cutouts" / str(k)).is_dir() for k in (1, 2))
    assert read(tmp_path / "out").photos[0].file == str(files[0].path)
