"""What a user says is what the library is told, in the photograph's own pixels; strokes, undo, and what is refused."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import coseglib
from coseglib.answering.answers import Engine
from coseglib.answering.masks import segment_group
from coseglib.answering.reading import LONGEST
from coseglib.answering.reference import Reference, evidence_of
from coseglib.cli import main as cli
from coseglib.core.errors import CosegError
from coseglib.data.images import photo_of, read_image, read_mask, write_png
from coseglib.data.record import Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.explorer.said import Corrected, Marks, Said, Stroke, painted, references_of
from coseglib.explorer.session import Session
from coseglib.explorer.stage import box_between, pixels_of, point_of
from coseglib.models.checkpoints import load_model


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[Photo]:
    """Three scenes as files."""
    folder, photos = tmp_path_factory.mktemp("scenes"), []
    for photo in load_synthetic(groups=("star", "ring"), photos=3, size=96)[0].photos:
        file = folder / f"{photo.name.replace('/', '-')}.png"
        write_png(file, photo.image())
        photos.append(photo_of("folder", file.name, ("object",), file))
    return photos


@pytest.fixture
def session(scenes) -> Session:
    return Session(load_model("ca-scenes"), scenes)


def middle(photo: Photo) -> tuple[int, int]:
    return photo.image().shape[-1] // 2, photo.image().shape[-2] // 2


# As the library and the command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("post", ["argmax", "crf"])
def test_masks_after_a_click_are_those_of_the_library_call_bit_for_bit(scenes, post):
    session, (x, y) = Session(load_model("ca-scenes"), scenes), middle(scenes[0])
    session.say(0, point=(x, y))
    session.say(0, not_point=(3, 4))
    reference = Reference(scenes[0].path, points=((x, y),), not_points=((3, 4),))
    expected = coseglib.segment([p.path for p in scenes], reference, "ca-scenes", post=post)
    plain = coseglib.segment([p.path for p in scenes], (), "ca-scenes", post=post)
    assert any((a != b).any() for a, b in zip(expected, plain, strict=True))  # it says something
    for mask, other in zip(session.masks(post=post, own=True), expected, strict=True):
        assert (mask.numpy() == other).all()


def test_and_those_of_the_command(scenes, tmp_path):
    session, (x, y) = Session(load_model("ca-scenes"), scenes), middle(scenes[1])
    session.say(1, box=(x - 20, y - 20, x + 25, y + 20))
    command = ["segment", *(p.path for p in scenes), "-o", tmp_path, "--checkpoint", "ca-scenes", "--post", "argmax"]
    command += ["--reference", scenes[1].path, "--box", f"{x - 20},{y - 20},{x + 25},{y + 20}"]
    assert cli.main([str(part) for part in command]) == 0
    written = json.loads((tmp_path / "result.json").read_text())["photos"]
    for mask, entry in zip(session.masks(own=True), written, strict=True):
        assert mask.equal(read_mask(tmp_path / entry["mask"]))


@pytest.mark.parametrize("name", ["ca-scenes", "ssnm-scenes", "pfcc-scenes"])  # one of each kind
def test_several_references_are_pooled_and_partners_are_those_of_the_session(scenes, name):
    model, session = load_model(name), Session(load_model(name), scenes)
    for i in (0, 2):
        session.say(i, point=middle(scenes[i]))
    session.say(1, not_point=(2, 2))
    references = [Reference(scenes[i], points=(middle(scenes[i]),)) for i in (0, 2)]
    references.insert(1, Reference(scenes[1], not_points=((2, 2),)))
    for mask, other in zip(
        session.masks(own=True), segment_group(model, scenes, post="argmax", references=references), strict=True
    ):
        assert mask.equal(other)
    if session.model.kind == "context":
        session.set_partners([1])
        told, engine = session.logits(), Engine(model, scenes)
        evidence = evidence_of(engine, references, (1,))
        for answer in engine.answers([(i, (1,)) for i in range(3)], evidence=evidence):
            torch.testing.assert_close(answer.logits, told[answer.photo])  # attention of other batches


def test_a_click_asks_the_network_nothing_that_it_has_answered(scenes):
    model = load_model("ca-scenes")
    session, calls, plain = Session(model, scenes), [], model.encode
    model.encode = lambda images: calls.append(len(images)) or plain(images)
    session.masks()
    session.say(0, point=(40, 40))
    first = session.masks(own=True)
    before = len(calls)
    session.say(0, point=(50, 40))
    session.masks()
    session.say(0, not_point=(5, 5))
    session.masks()
    assert len(calls) == before
    session.undo()
    session.undo()
    assert all(a.equal(b) for a, b in zip(session.masks(own=True), first, strict=True)) and len(calls) == before


# What is said --------------------------------------------------------------------------------------------------------


def test_what_is_said_is_listed_taken_back_and_brought_back(session):
    alone = session.masks()
    session.say(0, point=(10, 20))
    session.say(1, box=(5, 6, 50, 60))
    session.say(1, box=(7, 8, 50, 60))  # another one in the same photograph gives way
    session.say(0, point=(10, 20))  # not twice
    assert session.said == (Said(1, "box", (7, 8, 50, 60)), Said(0, "point", (10, 20)))
    session.unsay(0)
    assert session.said == (Said(0, "point", (10, 20)),)
    session.clear()
    assert not session.said and all(a.equal(b) for a, b in zip(session.masks(), alone, strict=True))
    session.undo()
    session.undo()
    assert len(session.said) == 2
    for _ in range(4):
        session.undo()
    assert not session.said
    for nothing in (session.undo, session.unsay, lambda: session.unsay(3)):
        with pytest.raises(CosegError, match="nothing"):
            nothing()


def test_points_a_box_and_a_mask_become_references():
    pictures, mask = ["a", "b"], torch.tensor([[0, 1]], dtype=torch.uint8)
    said = [Said(1, "not_point", (1, 1)), Said(0, "point", (2, 3)), Said(0, "not_point", (4, 5))]
    told = [(r.photo, r.points, r.not_points, r.box) for r in references_of(Marks(tuple(said)), pictures)]
    assert told == [("a", ((2, 3),), ((4, 5),), None), ("b", (), ((1, 1),), None)]
    said = [Said(1, "box", (0, 1, 2, 3)), Said(1, "not_point", (1, 1)), Said(0, "mask")]
    boxed = list(references_of(Marks(tuple(said), {0: Corrected(mask)}), pictures))
    assert boxed[0].mask.equal(mask) and (boxed[1].box, boxed[1].not_points) == ((0, 1, 2, 3), ((1, 1),))


def test_what_is_not_meant_counts_once_something_is(session):
    alone = session.masks()
    session.say(1, not_point=(5, 5))
    assert all(a.equal(b) for a, b in zip(session.masks(), alone, strict=True))
    with pytest.raises(CosegError, match="says only what is not meant; mark the object"):
        evidence_of(
            Engine(session.model, [session.photos[0].photo]),
            [Reference(session.photos[0].picture, not_points=((1, 1),))],
            (0,),
        )


@pytest.mark.parametrize(
    ("mark", "why"),
    [
        ({"point": (96, 3)}, r"\.png: point 96,3 is outside the photograph's 96 × 96"),
        ({"not_point": (3, -1)}, "point 3,-1 is outside"),
        ({"box": (10, 10, 10, 20)}, "box 10,10,10,20 is not within"),
        ({"box": (0, 0, 96, 96)}, "the whole photograph"),
        ({"mask": True}, "its mask is not corrected; paint in it first"),
    ],
)
def test_marks_that_cannot_be_meant_are_one_line_and_change_nothing(session, mark, why):
    with pytest.raises(CosegError, match=why) as error:
        session.say(0, **mark)
    assert "\n" not in str(error.value) and session.marks == Marks()


def test_one_thing_is_said_at_a_time_of_a_photograph_that_is_there(session):
    for given in ({}, {"point": (1, 1), "box": (1, 1, 9, 9)}):
        with pytest.raises(ValueError, match="one at a time"):
            session.say(0, **given)
    with pytest.raises(ValueError, match="places from 0 to 2"):
        session.say(3, point=(1, 1))


def test_a_system_of_several_classes_takes_no_marks(scenes, tiny):
    session = Session(tiny("multiclass", classes=2), scenes)
    session.say(0, point=(9, 9))
    with pytest.raises(CosegError, match="has no use for a reference"):
        session.masks()
    with pytest.raises(CosegError, match="not painted in; choose a system of one class"):
        session.correct(0, Stroke(((9, 9),), 3))


# Where a hand was ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [40, 400, 1234])
def test_a_place_is_the_same_pixel_at_every_size_it_is_shown_at(shown):
    height, width = 30, 50
    for x, y in ((0, 0), (49, 29), (17, 5)):
        left, top = ((n + 0.5) * shown / width for n in (x, y))  # in the browser's pixels
        assert point_of(pixels_of([(left / shown, top / (shown * height / width))], (height, width))) == (x, y)
    assert point_of(pixels_of([(1, 1)], (height, width))) == (49, 29)  # at the very edge
    path = pixels_of([(0.9, 0.5), (0.5, 0.7), (-0.1, 1.3)], (height, width))
    assert box_between(path, (height, width)) == (0, 15, 45, 30)
    assert box_between(((3, 4), (20, 9))) == (3, 4, 20, 9) and box_between(((9, 9), (-2, 3))) == (-2, 3, 9, 9)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pixels_are_those_of_the_photograph_as_displayed(tmp_path, tiny, orientation):
    """A red spot in a photograph that its EXIF turns, larger than what is kept in memory: it is where it is seen."""
    height, width = 1200, LONGEST + 200
    stored = np.full((height, width, 3), 90, np.uint8)
    stored[100:180, 300:380] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.jpg"
    Image.fromarray(stored).save(file, exif=exif, quality=95)
    session = Session(tiny("ca", "workbook"), [Photo("folder", "t", ("a",), partial(read_image, file), None, file)])
    (o,) = session.photos
    shown = o.shown.float()
    red = (shown[0] - shown[1] > 100).nonzero().float().mean(dim=0) + 0.5  # its middle on the page
    share = (float(red[1]) / shown.shape[2], float(red[0]) / shown.shape[1])
    x, y = point_of(pixels_of([share], o.picture.size))
    seen = read_image(file)
    assert o.picture.size == tuple(seen.shape[-2:]) and max(o.picture.pixels.shape) == LONGEST < max(o.picture.size)
    assert seen[0, y, x] > 200 and seen[1, y, x] < 60
    spot = (seen[0].float() - seen[1].float() > 100).nonzero().float().mean(dim=0)
    assert abs(float(spot[0]) - y) < 8 and abs(float(spot[1]) - x) < 8
    session.correct(0, Stroke(((x, y),), 30))
    mask = session.masks(own=True)[0]
    assert mask.shape == seen.shape[-2:] and mask[y, x] == 1


# Strokes -------------------------------------------------------------------------------------------------------------


def distance(path, height, width) -> np.ndarray:
    """From each pixel's middle to a path, written as plain loops."""
    found = np.full((height, width), np.inf)
    for y in range(height):
        for x in range(width):
            for (ax, ay), (bx, by) in zip(path, [*path[1:], path[-1]], strict=True):
                dx, dy = bx - ax, by - ay
                t = ((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-9)
                t = min(1, max(0, t))
                found[y, x] = min(found[y, x], np.hypot(x - ax - t * dx, y - ay - t * dy))
    return found


@pytest.mark.parametrize("path", [[(12, 9)], [(5, 5), (30, 22)], [(-10, 12), (20, 12), (20, 60)], [(39, 29), (39, 0)]])
def test_a_stroke_is_what_lies_near_its_path(path):
    mask, near = torch.zeros(30, 40, dtype=torch.uint8), distance(path, 30, 40)
    assert painted(mask, Stroke(tuple(path), 4))
    assert (mask.numpy()[near < 2.5] == 1).all() and (mask.numpy()[near > 5.5] == 0).all()
    full = torch.ones(30, 40, dtype=torch.uint8)
    painted(full, Stroke(tuple(path), 4, erase=True))
    assert (full == 1 - mask).all()


def test_a_corrected_mask_stays_whatever_else_changes_until_it_is_taken_back(session):
    before = session.masks(own=True)
    session.correct(1, Stroke(((20, 20), (40, 20)), 6))
    session.correct(1, Stroke(((30, 20),), 3, erase=True))
    mended = before[1].clone()
    painted(mended, Stroke(((20, 20), (40, 20)), 6))
    painted(mended, Stroke(((30, 20),), 3, erase=True))
    for change in (lambda: None, lambda: session.say(0, point=(50, 50)), lambda: session.set_partners([0])):
        change()
        assert session.masks(0.7, own=True)[1].equal(mended)
    assert session.masks()[1].shape == session.photos[1].shown.shape[-2:]
    session.set_partners(range(3))
    session.undo()  # what was said
    session.undo()  # the eraser
    once = before[1].clone()
    painted(once, Stroke(((20, 20), (40, 20)), 6))
    assert session.masks(own=True)[1].equal(once)
    session.uncorrect(1)
    assert all(a.equal(b) for a, b in zip(session.masks(own=True), before, strict=True))
    session.undo()
    assert session.masks(own=True)[1].equal(once)


def test_a_corrected_mask_is_a_reference_that_follows_the_strokes(session, scenes):
    session.correct(0, Stroke(((0, 0), (96, 96)), 200, erase=True))
    with pytest.raises(CosegError, match="its mask marks nothing"):
        session.say(0, mask=True)
    session.correct(0, Stroke(((48, 48),), 20))
    session.say(0, mask=True)
    for _ in range(2):
        mask = session.masks(own=True)[0]
        expected = segment_group(session.model, scenes, post="argmax", references=[Reference(scenes[0], mask)])
        for i, (told, other) in enumerate(zip(session.masks(own=True), expected, strict=True)):
            assert i == 0 or told.equal(other)
        session.correct(0, Stroke(((48, 80),), 15))
    session.uncorrect(0)
    assert not session.said and not session.marks.corrected


def test_a_stroke_beside_the_photograph_is_refused(session):
    with pytest.raises(CosegError, match="the stroke is outside the photograph"):
        session.correct(0, Stroke(((-40, 5), (-20, 30)), 6))
    assert session.marks == Marks()


def test_other_photographs_know_nothing_of_what_was_said(session, scenes):
    session.say(0, point=(9, 9))
    session.correct(0, Stroke(((9, 9),), 3))
    session.set_photos(scenes[1:])
    assert session.marks == Marks()
    with pytest.raises(CosegError, match="nothing to undo"):
        session.undo()
