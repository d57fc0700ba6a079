"""The page without a browser: every control does what it says, and trouble is one line that costs nothing."""

import datetime
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ImageColor import getrgb

from coseglib.answering.masks import post_of
from coseglib.core.errors import CosegError
from coseglib.core.paths import REPOSITORY
from coseglib.data.images import write_png
from coseglib.data.synthetic import load_synthetic
from coseglib.explorer import page as explorer
from coseglib.explorer import pictures
from coseglib.explorer.controls import BRUSH, MATCH, NOT_THIS, THIS
from coseglib.explorer.page import Explorer
from coseglib.explorer.pictures import CELLS, GRAD_CAM, LOOKS, MASKS, MATCHES, OVERLAYS, PROBABILITY, cell_of
from coseglib.explorer.session import Heat
from coseglib.explorer.uploads import file_name
from coseglib.models.checkpoints import load_model


@pytest.fixture
def page(checkpoint, tmp_path, monkeypatch):
    """Three scenes and a small untrained CA; no data set is looked for."""
    monkeypatch.setenv("COSEG_DATA", str(tmp_path))
    return Explorer("synthetic", "ring", 3, checkpoint, tmp_path / "saved")


def pixels(page) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(card.stage.value)), float) for card in page._cards]


def chosen(*files: tuple[str, bytes]) -> tuple[dict, ...]:
    """What a browser hands over."""
    now = datetime.datetime.now(datetime.UTC)
    return tuple(
        {"name": name, "type": "", "size": len(data), "content": memoryview(data), "last_modified": now}
        for name, data in files
    )


def picture(colour: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(colour).integers(0, 256, (30, 40, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def test_the_page_is_made_without_a_browser_and_shows_what_was_asked_for(page):
    assert repr(page) == "Explorer: 3 photographs, model"
    assert page.source.value == "synthetic" and page.group.label.startswith("ring") and page.count.value == 3
    assert page.system.value == "ca" and page.checkpoint.value == "model" and not page.trouble.value
    assert len(pixels(page)) == 3 and "3 of 3 photographs are partners" in page.status.value
    assert [o.photo for o in page.session.photos] == list(load_synthetic()[1].photos[:3])


def test_a_threshold_changes_every_view_of_masks(page):
    page.view.value = MASKS
    page.crf.value = False
    marked = []
    for threshold in (0.05, 0.5, 0.95):
        page.threshold.value = threshold
        for card, mask in zip(page._cards, page.session.masks(threshold), strict=True):
            assert card.stage.kind == "png"
            shown = np.asarray(Image.open(io.BytesIO(card.stage.value)))
            assert (shown == 255 * mask.numpy()).all()
        marked.append(page.table().marked.sum())
    assert marked[0] >= marked[1] >= marked[2] and marked[0] > marked[2]


def test_a_partner_less_is_another_group(page):
    page._cards[1].partner.value = False
    assert page.session.partners == (0, 2) and "2 of 3 photographs are partners" in page.status.value
    assert list(page.table().partner) == [True, False, True]
    for card in page._cards:
        card.partner.value = False
    assert "no partners: leave at least one" in page.trouble.value
    assert page.session.partners == (2,) and page._cards[2].partner.value  # the last one stays, and the box says so
    page._cards[0].partner.value = True
    assert not page.trouble.value and page.session.partners == (0, 2)


def hand(page, i, *path, shift=False) -> None:
    """What the browser tells of a hand in picture i; places in shares of its sides."""
    page._cards[i].stage.hear({"path": [list(place) for place in path], "shift": shift})


def test_a_click_shows_what_the_place_matches_and_marks_it(page):
    assert not any(card.stage.marks for card in page._cards)
    before = pixels(page)
    page.tool.value = MATCH
    hand(page, 1, (5.5 / CELLS, 3.2 / CELLS))
    assert page.view.value == MATCHES and "cosine" in page.scale.value
    cell = {"kind": "cell", "at": cell_of(3 * CELLS + 5, page.session.photos[1].picture.size)}
    assert [card.stage.marks for card in page._cards] == [[], [cell], []]
    heat = page.session.matches(1, 3.5 / CELLS, 5.5 / CELLS)
    for i, (card, was) in enumerate(zip(page._cards, before, strict=True)):
        data, _ = pictures.encoded(pictures.heated(page.session.photos[i].shown, heat.maps[i], heat.limits, i != 1))
        assert card.stage.value == data and not np.array_equal(pixels(page)[i], was)
        assert ("best" in card.values.value) == (i != 1)
    hand(page, 2, (0, 0))
    assert [bool(card.stage.marks) for card in page._cards] == [False, False, True]


@pytest.mark.parametrize("view", [OVERLAYS, PROBABILITY, GRAD_CAM, MATCHES])
def test_every_view_draws_every_photograph(page, view):
    page.view.value = view
    assert not page.trouble.value and len({card.stage.value for card in page._cards}) == 3


def test_the_file_of_another_system_is_asked_instead(page, tiny, tmp_path, monkeypatch):
    from coseglib.models.checkpoints import save_model

    shipped = [card for card in explorer.cards() if card["method"] != "dcnet"]
    monkeypatch.setattr(explorer, "cards", lambda *_: shipped)
    save_model(tmp_path / "other.safetensors", tiny("csa"), {"method": "csa", "backbone": "mobilenet_v2"})
    assert LOOKS not in page.view.options
    page.file.value = str(tmp_path / "other.safetensors")
    assert page.system.value == "csa" and page.checkpoint.value == "other" and LOOKS in page.view.options
    page.view.value = LOOKS
    assert "alpha^s" in page.scale.value
    page.file.value = str(tmp_path / "none.safetensors")
    assert "no such checkpoint" in page.trouble.value and page.checkpoint.value == "other"
    page.system.value = "dcnet"
    assert "dcnet: no checkpoint of it is shipped" in page.trouble.value and page.system.value == "csa"
    page.system.value = "ca"
    assert not page.trouble.value and page.checkpoint.value == "ca-mobilenet_v2" and LOOKS not in page.view.options
    assert page.crf.value == (post_of(load_model("ca-mobilenet_v2")) == "crf") and page.view.value == OVERLAYS


def test_masks_are_seen_before_their_contours_are_drawn(page):
    page.view.value = MASKS
    page.crf.value = False
    seen = []
    page._cards[0].stage.observe(lambda change: seen.append(change.new), "value")
    page._cards[1].partner.value = False
    page.threshold.value = float(page.session.probability().maps[0].median())  # some of it is foreground
    plain, seen[:] = page._cards[0].stage.value, []
    page.session._forget()
    page.crf.value = True
    contours = page._cards[0].stage.value
    assert contours != plain and seen == [contours]  # the first picture was the one before
    seen.clear()
    page.crf.value = False
    page.crf.value = True
    assert seen == [plain, contours] and "drawn in" in page.status.value  # kept: at once


def test_the_benchmark_measures_every_change(page, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from explorer import GOALS, POSTS, measure

    found = measure(page, 1)
    assert {f"{what}, {post}" for what in GOALS for post in POSTS} < set(found) and min(found.values()) > 0
    assert page.session.partners == (0, 1, 2) and not page.trouble.value


def test_pooling_is_for_context_models(page, tiny, tmp_path):
    from coseglib.models.checkpoints import save_model

    page.pooling.value = "min"
    assert page.session.how == "min"
    save_model(tmp_path / "pairs.safetensors", tiny("dcnet"), {"method": "dcnet", "backbone": "mobilenet_v2"})
    page.file.value = str(tmp_path / "pairs.safetensors")
    assert not page.trouble.value and page.pooling.disabled and page.pooling.value == "mean"


def test_uploads_are_added_and_bad_ones_cost_nothing(page):
    shown = page.session.photos
    page.upload.value = chosen(("empty.jpg", b""), ("text.png", b"no picture"), ("half.png", picture(1)[:900]))
    for fault in ("empty.jpg: an empty file", "text.png: no image format", "half.png: cannot be decoded"):
        assert fault in page.trouble.value
    assert page.trouble.value.count("<div>") == 3 and "coseg-" not in page.trouble.value.replace("coseg-trouble", "")
    assert page.session.photos is shown and page.upload.value == ()
    page.upload.value = chosen(("a.png", picture(1)), ("bad.png", b"x"))
    assert page.session.names == ["a"] and page.trouble.value.count("<div>") == 1
    page.upload.value = chosen(("b.jpg", picture(2, "JPEG")), ("a.png", picture(1)), ("../a.png", picture(3)))
    assert len(page.session.photos) == 3 and len(set(page.session.names)) == 3
    assert "a.png: is here already" in page.trouble.value
    assert "uploads: 3 photographs" in page.source.label and page.session.partners == (0, 1, 2)
    page.source.value = "synthetic"
    assert page.session.photos[0].photo.dataset == "synthetic" and len(page.session.photos) == 3
    page.source.value = page.source.options[-1][1]
    assert page.session.names[1] == "b" and "uploads" in page.source.label
    page.forget.click()
    assert page.source.value == "synthetic" and page.forget.layout.display == "none"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("cat.jpg", "cat.jpg"),
        ("../../etc/x.png", "x.png"),
        ("C:\\photos\\x.png", "x.png"),
        ("", "photo"),
        ("...", "photo"),
        ("a\n\x00b.jpg", "ab.jpg"),
        ("ä" * 300 + ".jpg", "ä" * 50 + ".jpg"),
        (".hidden", "hidden"),
    ],
)
def test_a_browsers_file_name_becomes_one_for_any_folder(given, name):
    assert file_name(given) == name


def test_a_folder_is_looked_at_and_a_missing_one_is_named(page, tmp_path, monkeypatch):
    page.folder.value = str(tmp_path / "none")
    assert "none: no such folder; check the path" in page.trouble.value and page.source.value == "synthetic"
    for name in ("cats/a", "cats/b", "dogs/c"):
        file = tmp_path / "mine" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_png(file, torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8))
    (tmp_path / "mine" / "cats" / "bad.jpg").write_bytes(b"<b>x</b>")
    page.folder.value = str(tmp_path / "mine")
    assert page.session.names == ["a", "b"] and "bad.jpg: no image format" in page.trouble.value
    assert [label for label, _ in page.group.options] == ["cats (3)", "dogs (1)"] and "mine" in page.source.label
    page.group.value = 1
    assert page.session.names == ["c"] and not page.trouble.value
    with monkeypatch.context() as patch:  # of a name that a data set has
        patch.chdir(tmp_path)
        (tmp_path / "mine" / "dogs").rename(tmp_path / "synthetic")
        page.folder.value = "synthetic"
    assert page.source.label.endswith(str(tmp_path / "synthetic")) and page.group.label == "synthetic (1)"
    (tmp_path / "synthetic").rename(tmp_path / "mine" / "dogs")
    page.folder.value = str(tmp_path / "mine")
    page.group.value = 1
    empty = tmp_path / "empty"
    empty.mkdir()
    page.folder.value = str(empty)
    assert "no photographs in it" in page.trouble.value and page.session.names == ["c"] and page.group.value == 1


def test_how_many_photographs_are_looked_at_can_be_changed(page):
    page.count.value = 5
    assert len(page.session.photos) == 5 == len(page._cards) and page.count.max == 12
    page.group.value = 0
    assert len(page.session.photos) == 5


def test_masks_are_saved_where_the_page_says(page, tmp_path):
    page.threshold.value = 0.6
    page.save.click()
    assert "3 masks saved in" in page.status.value and len(list((tmp_path / "saved" / "masks").glob("*.png"))) == 3
    assert json.loads((tmp_path / "saved" / "session.json").read_text())["threshold"] == 0.6
    page.exports.value = ("coco", "page")
    page.save.click()
    assert "3 masks saved in" in page.status.value and ", and coco, page" in page.status.value, page.trouble.value
    assert (tmp_path / "saved" / "page.html").is_file() and (tmp_path / "saved" / "coco.json").is_file()
    page.exports.value = ("cutouts",)  # drawn scenes are no files that an object could be cut from
    page.save.click()
    assert "3 photographs have no cutout" in page.trouble.value
    page.exports.value = ()
    (tmp_path / "theirs" / "masks").mkdir(parents=True)
    page.save_to.value = str(tmp_path / "theirs")
    page.save.click()
    assert "name another folder" in page.trouble.value


def test_an_error_that_nobody_foresaw_is_a_line_too(page, monkeypatch):
    monkeypatch.setattr(page.session, "masks", lambda *given: 1 / 0)
    page.threshold.value = 0.7
    assert "ZeroDivisionError: division by zero; nothing was changed" in page.trouble.value


def everything(page) -> tuple:
    """What a user sees, and what the next action starts from."""
    names = ["source", "group", "count", "system", "checkpoint", "pooling", "threshold", "crf", "view", "scale"]
    shown = [(card.stage.value, card.values.value, card.partner.value, card.stage.marks) for card in page._cards]
    session = page.session.model, page.session.photos, page.session.partners, page.session.how, page.session.marks
    boxes = [card.box for card in page._cards]
    return (
        {name: getattr(page, name).value for name in (*names, "status")},
        shown,
        session,
        boxes,
        list(page.pictures.children),
        [row.children[0].value for row in page.said.children],
    )


def broken(*given):
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("system", "csa"),
        ("checkpoint", "ca-mobilenet_v2"),
        ("group", 0),
        ("count", 5),
        ("source", "synthetic-multiclass"),
        ("upload", "photograph"),
        ("threshold", 0.7),
        ("pooling", "min"),
        ("crf", None),
        ("view", MASKS),
        ("view", GRAD_CAM),
        ("partner", False),
        (MATCH, [(0.5, 0.5)]),
        (THIS, [(0.5, 0.5)]),
        (THIS, [(0.2, 0.2), (0.8, 0.8)]),
        (BRUSH, [(0.2, 0.2), (0.8, 0.8)]),
    ],
)
def test_a_fault_in_the_middle_of_an_action_leaves_everything_as_it_was(page, monkeypatch, control, value):
    """The fault comes late: the model is loaded, the photographs are read, and then nothing can be drawn."""
    page.threshold.value = 0.6
    before = everything(page)
    shipped = {"method": "csa", "name": "ca-mobilenet_v2"}
    monkeypatch.setattr(explorer, "cards", lambda *_: [shipped])
    with monkeypatch.context() as patch:
        patch.setattr("coseglib.explorer.session.Session.masks", broken)
        if control == "partner":
            page._cards[1].partner.value = value
        elif control in (THIS, NOT_THIS, MATCH, BRUSH):
            page.tool.value = control
            hand(page, 1, *value)
        elif control == "upload":
            page.upload.value = chosen(("a.png", picture(1)))
        else:
            getattr(page, control).value = not page.crf.value if value is None else value
        assert "division by zero; nothing was changed" in page.trouble.value
    assert everything(page) == before
    page.threshold.value = 0.5  # and it goes on
    assert not page.trouble.value and page.session.model is before[2][0]


def test_names_cannot_become_part_of_the_page(page):
    page.upload.value = chosen(("<img src=x onerror=alert(1)>.png", b"x"))
    assert "<img" not in page.trouble.value and "&lt;img" in page.trouble.value


def test_what_does_not_exist_is_refused_at_once(checkpoint):
    with pytest.raises(CosegError, match="no group dog; one of star, ring"):
        Explorer(group="dog", checkpoint=checkpoint)
    with pytest.raises(CosegError, match="nowhere: neither a data set"):
        Explorer("nowhere", checkpoint=checkpoint)


def test_the_figure_and_the_table_are_of_the_present_masks(page):
    table = page.table()
    assert list(table.photo) == page.session.names and table.J.between(0, 1).all()
    titles = [ax.get_title("left") for ax in page.figure().axes]
    assert all(f"J {j:.2f}" in t for j, t in zip(page.session.scores(*page._asked), titles, strict=False))


def test_heat_is_drawn_on_one_scale_and_no_map_is_grey():
    picture = torch.full((3, 20, 40), 128, dtype=torch.uint8)
    map_ = torch.zeros(2, 4)
    map_[1, 3] = 2
    cold, hot = pictures.heated(picture, torch.zeros(2, 4), (0, 2)), pictures.heated(picture, map_, (0, 2))
    assert cold.shape == (3, 20, 40) and len(np.unique(cold[0])) == 1
    assert (hot[:, :5, :5] == cold[:, :5, :5]).all() and hot[0, -1, -1] > cold[0, 0, 0] + 100
    ringed = pictures.heated(picture, map_, (0, 2), peak=True)
    rows, columns = np.nonzero((ringed != hot).any(axis=0))
    assert rows.min() > 10 and columns.min() > 30  # around (15, 35)
    grey = pictures.heated(picture, None, (0, 2))
    assert (grey[0] == grey[1]).all() and (grey[0] == grey[2]).all()
    bar = pictures.scale_bar(Heat([], "a < b", (0.0, 0.5)))
    assert "0.5" in bar and "a &lt; b" in bar


# What is said --------------------------------------------------------------------------------------------------------


@pytest.fixture
def scenes_page(tmp_path, monkeypatch):
    """Three scenes and a system that knows them: what is said means something."""
    monkeypatch.setenv("COSEG_DATA", str(tmp_path))
    return Explorer("synthetic", "ring", 3, "ca-scenes", tmp_path / "saved")


def listed(page) -> list[str]:
    return [row.children[0].value for row in page.said.children]


def test_a_click_says_this_with_shift_not_this_and_a_drawn_box_where(scenes_page):
    page = scenes_page
    before, (height, width) = pixels(page), page.session.photos[0].picture.size
    hand(page, 0, (0.5, 0.25))
    at = width // 2, height // 4
    assert page.session.said == ((0, "point", at),) and page._cards[0].stage.marks == [{"kind": "point", "at": at}]
    assert page.view.value == OVERLAYS and any((a != b).any() for a, b in zip(pixels(page), before, strict=True))
    hand(page, 1, (0.05, 0.95), shift=True)
    hand(page, 1, (0.8, 0.9), (0.5, 0.3), (0.25, 0.25))
    box = (width // 4, height // 4, -(-4 * width // 5), -(-9 * height // 10))
    assert [(s.photo, s.kind) for s in page.session.said[1:]] == [(1, "not_point"), (1, "box")]
    assert page.session.said[2].at == box
    name = page.session.names[1]
    assert listed(page)[1:] == [
        f"{name}: not this, at {width // 20},{19 * height // 20}",
        f"{name}: this, in {','.join(map(str, box))}",
    ]
    page.said.children[1].children[1].click()
    assert len(page.session.said) == 2 == len(page.said.children) and page.session.said[1].kind == "box"
    page.tool.value = NOT_THIS
    assert {card.stage.tool for card in page._cards} == {"not"}
    hand(page, 0, (0.02, 0.02))
    assert page.session.said[-1].kind == "not_point"
    hand(page, 0, (0.02, 0.02), (0.5, 0.5))
    assert "a box says where the object is; click what it is not" in page.trouble.value and len(listed(page)) == 3
    page.clear.click()
    assert not page.session.said and not listed(page) and not page._cards[0].stage.marks
    assert all((a == b).all() for a, b in zip(pixels(page), before, strict=True))
    page.undo.click()
    assert len(listed(page)) == 3 and not page.trouble.value


def test_without_a_mouse_places_are_typed(scenes_page):
    page = scenes_page
    page.typed_in.value = 2
    page.typed.value = "40,30"
    assert page.session.said == ((2, "point", (40, 30)),) and page.typed.value == "" and page.typed_in.value == 2
    page.typed.value = "10,12 60,70"
    assert page.session.said[-1] == (2, "box", (10, 12, 60, 70))
    page.tool.value = MATCH
    page.typed.value = "5,5"
    assert page.view.value == MATCHES and page._cards[2].stage.marks[-1]["kind"] == "cell"
    for wrong, why in (
        ("5", "type a place as x,y"),
        ("a,b", "type a place"),
        ("nan,3", "type a place"),
        ("5,500", "outside"),
    ):
        page.typed.value = wrong
        assert why in page.trouble.value and page.trouble.value.count("<div>") == 1
    for tool in (THIS, NOT_THIS):
        page.tool.value = tool
        page.typed.value = "-4,5"
        assert "point -4,5 is outside the photograph" in page.trouble.value and len(page.session.said) == 2
    page.tool.value = THIS
    page.typed.value = "5,5 500,20"
    assert "box 5,5,500,20 is not within" in page.trouble.value
    hand(page, 2, (0.5, 0.5), (1.3, 0.9))  # a hand may leave the picture
    assert not page.trouble.value and page.session.said[-1].at[2] == page.session.photos[2].picture.size[1]


def test_a_brush_corrects_a_mask_which_is_saved_and_opened_again(scenes_page, tmp_path):
    page = scenes_page
    page.tool.value, page.radius.value = BRUSH, 5
    assert page._cards[0].stage.tool == "line"
    assert page._cards[0].stage.radius == pytest.approx(0.05 * max(page.session.photos[0].picture.size))
    before = page.session.masks(*page._asked, own=True)[0]
    hand(page, 0, (0.1, 0.1), (0.3, 0.1))
    height, width = page.session.photos[0].picture.size
    mask = page.session.masks(*page._asked, own=True)[0]
    assert mask[height // 10, width // 5] == 1 and listed(page) == [
        f"{page.session.names[0]}: mask corrected, 1 stroke"
    ]
    hand(page, 0, (0.2, 0.1), shift=True)
    assert page.session.masks(*page._asked, own=True)[0][height // 10, width // 5] == 0
    page.typed_in.value = 0
    page.typed.value = f"{width // 2},{height // 2} {width // 2 + 9},{height // 2}"
    assert len(page.session.marks.corrected[0].strokes) == 3
    page.example.click()
    assert listed(page)[0] == f"{page.session.names[0]}: its corrected mask" and not page.trouble.value
    page.typed_in.value = 1
    page.example.click()
    assert "its mask is not corrected; paint in it first" in page.trouble.value
    page.threshold.value, mask = 0.6, page.session.masks(*page._asked, own=True)[0]
    page.save.click()
    others = [m.clone() for m in page.session.masks(*page._asked, own=True)]
    page.count.value = 2
    assert not listed(page)
    page.file.value = str(tmp_path / "model.safetensors")  # another system: that of the session comes back
    page.reopen.click()
    assert not page.trouble.value and len(page.session.photos) == 3 and page.threshold.value == 0.6
    assert page.session.model.card["name"] == "ca-scenes" == page.checkpoint.value
    assert all(a.equal(b) for a, b in zip(page.session.masks(*page._asked, own=True), others, strict=True))
    assert listed(page)[1] == f"{page.session.names[0]}: mask corrected"
    page.said.children[1].children[1].click()  # taken back, and the reference that it was
    assert not listed(page) and page.session.masks(*page._asked, own=True)[0].equal(mask) is False
    assert before.shape == mask.shape


def test_what_cannot_be_opened_is_one_line_and_costs_nothing(page, tmp_path):
    page.reopen.click()
    assert "session.json: cannot be read" in page.trouble.value and len(page.session.photos) == 3
    page.save.click()
    file = tmp_path / "saved" / "session.json"
    file.write_text(file.read_text().replace('"sha256": "', '"sha256": "0'))
    before = everything(page)
    page.reopen.click()
    assert "model: no such checkpoint" in page.trouble.value and everything(page) == before
    page.file.value = str(tmp_path / "none.safetensors")


def test_label_maps_have_their_labels_colours_and_a_legend_in_every_view(page, awake, tmp_path):
    from coseglib.explorer.pictures import drawn
    from coseglib.models.checkpoints import save_model
    from coseglib.segmenting.labels import class_colours

    about = {"method": "multiclass", "backbone": "mobilenet_v2", "classes": 2}
    save_model(tmp_path / "m.safetensors", awake("multiclass", classes=2), about)
    page.file.value = str(tmp_path / "m.safetensors")
    page.crf.value = False
    assert not page.trouble.value
    masks = page.session.masks()
    for view in (OVERLAYS, MASKS):
        page.view.value = view
        for label, colour in enumerate(class_colours(2), start=1):
            assert f"background: {colour}" in page.scale.value and f"class {label}" in page.scale.value
    pictures, _, heat = drawn(page.session, MASKS, masks, "argmax", (0, 0))
    assert heat is None
    for picture, mask in zip(pictures, masks, strict=True):
        for label, colour in enumerate(((0, 0, 0), *map(getrgb, class_colours(2)))):
            assert (picture[:, mask.numpy() == label] == np.array(colour, np.uint8)[:, None]).all()
    share = float((masks[0] == 1).float().mean())
    assert not share or f"class 1 {share:.0%}" in page._cards[0].values.value
    legend = {text.get_text() for of in page.figure().legends for text in of.get_texts()}
    assert legend == {"class 1", "class 2"}


def test_to_a_system_of_several_classes_nothing_is_said(page, tiny, tmp_path):
    from coseglib.models.checkpoints import save_model

    about = {"method": "multiclass", "backbone": "mobilenet_v2", "classes": 2}
    save_model(tmp_path / "m.safetensors", tiny("multiclass", classes=2), about)
    page.file.value = str(tmp_path / "m.safetensors")
    assert not page.trouble.value and page.session.model.online
    for tool, why in ((THIS, "has no use for a reference"), (BRUSH, "are not painted in")):
        page.tool.value = tool
        hand(page, 0, (0.5, 0.5))
        assert why in page.trouble.value and not listed(page)


def test_the_page_and_the_browser_agree_on_the_words_they_exchange():
    from coseglib.explorer.controls import TOOLS
    from coseglib.explorer.stage import Stage

    script = str(Stage._esm)
    for name in ("value", "kind", "name", "size", "tool", "radius", "marks"):
        assert f'model.get("{name}")' in script
    for word in ("path:", "shift:", "message.done", *(f'"{tool}"' for tool, _ in TOOLS.values())):
        assert word in script
