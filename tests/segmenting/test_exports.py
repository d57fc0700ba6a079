import html
import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from tiny_models import TinyContext

from coseglib.core.errors import CosegError
from coseglib.data.folders import is_ours, is_signed
from coseglib.data.images import read_image
from coseglib.segmenting import page
from coseglib.segmenting.exports import export, kinds_of
from coseglib.segmenting.finding import find_photos
from coseglib.segmenting.job import segment_photos
from coseglib.segmenting.page import AT_ONCE, LEAST, SIDE, thumbnail_side

ALL = ("cutouts", "coco", "page")


def scene(seed: int, width: int = 48, height: int = 36) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def segment(named, out: Path, exports=ALL, **options):
    return segment_photos([named], out, TinyContext(), exports=exports, quiet=True, **options)


@pytest.fixture
def photos(tmp_path) -> Path:
    home = tmp_path / "photos"
    home.mkdir()
    for i in range(3):
        scene(i, 40 + i, 30).save(home / f"{i}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(7, 50, 30).save(home / "turned.jpg", exif=exif)
    return home


@pytest.fixture
def out(photos, tmp_path) -> Path:
    segment(photos, tmp_path / "out")
    return tmp_path / "out"


def result(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


class Page(HTMLParser):
    """What a page holds, and that its tags are closed in their order."""

    VOID = ("meta", "img", "link", "input", "br")

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(out: Path) -> Page:
    return Page((out / "page.html").read_text(encoding="utf-8"))


# Which


def test_any_of_them_by_commas_and_an_unknown_one_is_a_line_with_the_known_ones(tmp_path, photos):
    assert kinds_of("page, coco,page") == ("page", "coco")
    for wrong in ("pages", "coco,", ""):
        with pytest.raises(CosegError, match="no such export; cutouts, coco, page"):
            kinds_of(wrong)
    segment(photos, tmp_path / "none", exports=())
    assert sorted(p.name for p in (tmp_path / "none").iterdir()) == ["masks", "overlays", "result.json"]
    made = export(tmp_path / "none", ["coco"])
    assert [p.name for p in made] == ["coco.json", "coco_rle.json"] and all(p.is_file() for p in made)


def test_results_have_area_and_box_of_each_mask(out):
    for entry in result(out)["photos"]:
        mask = np.array(Image.open(out / entry["mask"])) != 0
        x, y, width, height = entry["box"]
        assert entry["area"] == mask.sum() == mask[y : y + height, x : x + width].sum()
        assert mask[y].any() and mask[y + height - 1].any() and mask[:, x].any() and mask[:, x + width - 1].any()
        assert 0 <= entry["expected_j"] <= 1
    assert isinstance(result(out)["look_first"], list)


# Cutouts


def test_a_cutout_is_the_photograph_where_the_mask_is_and_nothing_elsewhere(photos, out):
    for entry in result(out)["photos"]:
        name = Path(entry["mask"]).name
        cutout = Image.open(out / "cutouts" / name)
        mask = np.array(Image.open(out / entry["mask"])) != 0
        assert cutout.mode == "RGBA" and cutout.size == (entry["width"], entry["height"])
        layers, image = np.array(cutout), read_image(photos / Path(entry["file"]).name).numpy().transpose(1, 2, 0)
        assert np.array_equal(layers[..., 3], 255 * mask)
        assert np.array_equal(layers[mask][:, :3], image[mask]) and not layers[~mask].any()
        assert is_ours(out / "cutouts" / name)
    assert Image.open(out / "cutouts" / "turned.png").size == (30, 50)  # as displayed


def test_photographs_that_are_gone_or_changed_cost_themselves_alone(photos, out):
    shutil.rmtree(out / "cutouts"), (out / "page.html").unlink()
    (photos / "0.png").unlink()
    scene(1, 99, 30).save(photos / "1.png")
    with pytest.raises(CosegError, match=r"0\.png: no such file.*\(2 photographs have no cutout\)"):
        export(out)
    assert sorted(p.name for p in (out / "cutouts").iterdir()) == ["2.png", "turned.png"]
    assert (out / "page.html").is_file()  # the others are made all the same


def test_a_mask_that_was_mended_by_hand_is_what_is_exported(out):
    mended = np.zeros((30, 40, 3), np.uint8)
    mended[5:9, 10:30] = 255
    Image.fromarray(mended).save(out / "masks" / "0.png")  # other software may save colours
    export(out)
    assert np.array_equal(np.array(Image.open(out / "cutouts" / "0.png"))[..., 3], mended[..., 0])
    first = json.loads((out / "coco.json").read_text())["annotations"][0]
    assert (first["area"], first["bbox"]) == (80, [10, 5, 20, 4])


def test_of_nothing_there_are_empty_annotations_and_a_page_that_says_why(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_text("broken")
    assert segment(tmp_path / "photos", tmp_path / "out").exit_code == 1
    assert json.loads((tmp_path / "out" / "coco.json").read_text())["images"] == []
    assert "broken.png" in (tmp_path / "out" / "page.html").read_text() and page_of(tmp_path / "out").all("section")


# COCO


def test_annotations_on_disk_are_the_masks_on_disk(out):
    from pycocotools.coco import COCO

    coco = COCO(out / "coco_rle.json")
    entries = {Path(e["file"]).name: e for e in result(out)["photos"]}
    assert {image["file_name"] for image in coco.imgs.values()} == entries.keys()
    for annotation in coco.anns.values():
        entry = entries[coco.imgs[annotation["image_id"]]["file_name"]]
        assert np.array_equal(coco.annToMask(annotation), np.array(Image.open(out / entry["mask"])) // 255)
        assert (annotation["area"], annotation["bbox"]) == (entry["area"], entry["box"])
        assert annotation["score"] == entry["score"]


# The page


def test_the_page_needs_nothing_but_its_folder(out, tmp_path):
    moved = shutil.move(out, tmp_path / "elsewhere")
    text, found = (moved / "page.html").read_text(encoding="utf-8"), page_of(moved)
    assert "http" not in text.replace("http-equiv", "") and not found.all("link")
    assert all(image["src"].startswith("data:image/") for image in found.all("img"))
    links = [a["href"] for a in found.all("a")]
    files = [unquote(href) for href in links if not href.startswith("#")]
    assert len(files) == 4 * 4 and all((moved / file).is_file() for file in files)
    ids = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    assert {href[1:] for href in links if href.startswith("#")} <= ids


def test_the_page_shows_each_photograph_with_its_mask_over_it_and_says_so_in_words(out):
    found, entries = page_of(out), result(out)["photos"]
    shown = [image for image in found.all("img") if "class" not in image]
    veils = [image for image in found.all("img") if image.get("class") == "veil"]
    assert len(shown) == len(veils) == len(entries) and all(image["alt"] for image in shown)
    assert all(image["alt"] == "" and image["loading"] == "lazy" for image in veils)
    assert all(max(int(image["width"]), int(image["height"])) <= SIDE for image in shown)
    cards = [li for li in found.all("li") if li.get("class") == "card"]
    assert [card["data-name"] for card in cards] == [Path(e["file"]).name for e in entries]
    assert [float(card["data-score"]) for card in cards] == [e["score"] for e in entries]
    buttons = {b["id"]: b for b in found.all("button")}
    assert buttons["masks"]["type"] == "button" and buttons["masks"]["aria-pressed"] == "true"
    orders = {option["value"] for option in found.all("option")}
    assert orders == {"found", "first", "score", "name"}
    text = (out / "page.html").read_text(encoding="utf-8")
    for order in orders:
        assert f"{order}: (" in text  # each has its comparison
    assert "@media print" in text and "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_names_and_reasons_are_escaped_and_odd_bytes_survive(tmp_path):
    home = tmp_path / "a & b"
    home.mkdir()
    names = ['<b>&"quoted"\'.png', "100%.png", "é#?.png", "\udcff.png"]
    for i, name in enumerate(names):
        scene(i).save(home / name)
    (home / "<i>broken.png").write_text("broken")
    segment(home, tmp_path / "out")
    found = page_of(tmp_path / "out")
    text = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert "<b>&" not in text and "<i>broken" not in text and html.escape("<i>broken.png") in text
    alts = " ".join(image["alt"] for image in found.all("img"))
    assert all(name in alts for name in names[:3]) and r"\xff.png" in alts
    hrefs = [a["href"] for a in found.all("a") if not a["href"].startswith("#")]
    files = {os.path.normpath(os.fsdecode(unquote(href, errors="surrogateescape"))) for href in hrefs}
    assert {f"masks/{Path(name).stem}.png" for name in names} <= files


def test_look_first_notes_and_skipped_ones_are_on_the_page(photos, out):
    (photos / "broken.png").write_text("broken")
    record = result(out)
    record["note"] = "perhaps <nothing> is common"
    record["look_first"] = [{"file": record["photos"][2]["file"], "why": "expected J 0.31"}]
    record["photos"].append({"file": "x/broken.png", "skipped": "truncated"})
    (out / "result.json").write_text(json.dumps(record))
    export(out, ["page"])
    text = (out / "page.html").read_text(encoding="utf-8")
    assert '<a href="#p3">2.png</a>: expected J 0.31' in text and "look first: 1" in text
    assert "perhaps &lt;nothing&gt; is common" in text and "x/broken.png: truncated" in text
    cards = [li for li in page_of(out).all("li") if li.get("class") == "card"]
    assert [card["data-first"] for card in cards] == ["", "", "0", ""]


def test_a_photograph_that_is_gone_is_shown_by_its_overlay_and_without_that_by_words(photos, out):
    (photos / "0.png").unlink(), (photos / "1.png").unlink(), (out / "overlays" / "1.jpg").unlink()
    export(out, ["page"])
    assert len(page_of(out).all("img")) == 2 * 2 + 1
    assert (out / "page.html").read_text(encoding="utf-8").count("is not where it was") == 1


def test_of_thousands_thumbnails_are_smaller_and_some_are_shown_at_first(out, monkeypatch):
    assert thumbnail_side(0) == thumbnail_side(1) == thumbnail_side(2000) == SIDE <= 200
    assert LEAST < thumbnail_side(10_000) < SIDE and thumbnail_side(10**6) == LEAST
    monkeypatch.setattr(page, "AT_ONCE", 3)
    export(out, ["page"])
    text = (out / "page.html").read_text(encoding="utf-8")
    assert text.index('id="p3"') < text.index('<template id="others">') < text.index('id="p4"')
    assert page_of(out).all("noscript") and AT_ONCE >= 100


# Again, and what is not ours


def test_exports_are_made_anew_and_are_the_same(photos, out):
    names = ("page.html", "coco.json", "coco_rle.json")
    before = {name: (out / name).read_bytes() for name in names}
    assert segment(photos, out).exit_code == 0
    made = export(out)
    assert len(made) == 4 + 3
    assert {name: (out / name).read_bytes() for name in names} == before
    assert not list(out.rglob(".*"))


def test_a_run_without_exports_makes_those_that_are_there_anew_with_its_masks(photos, out):
    masks = {p.name: p.read_bytes() for p in (out / "masks").iterdir()}
    segment(photos, out, (), how="min")
    assert masks != {p.name: p.read_bytes() for p in (out / "masks").iterdir()}
    areas = [entry["area"] for entry in result(out)["photos"] if entry["area"]]
    assert [a["area"] for a in json.loads((out / "coco_rle.json").read_text())["annotations"]] == areas
    for mask in (out / "masks").iterdir():
        alpha = np.array(Image.open(out / "cutouts" / mask.name))[..., 3]
        assert np.array_equal(alpha, np.array(Image.open(mask)))
    page, edited = (out / "page.html").read_text(), (out / "coco.json").read_text() + " "
    (out / "coco.json").write_text(edited)
    segment(photos, out, ())
    assert (out / "coco.json").read_text() == edited and (out / "page.html").read_text() != page


def test_photographs_are_found_from_another_folder_than_they_were_named_from(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segment("photos", Path("there"))
    coco, home = (tmp_path / "there" / "coco.json").read_text(), tmp_path / "else"
    (home / "photos").mkdir(parents=True)
    scene(9).save(home / "photos" / "0.png")  # another of that name
    monkeypatch.chdir(home)
    for kind in ALL:
        export("../there", [kind])
    assert (tmp_path / "there" / "coco.json").read_text() == coco
    cutout = np.array(Image.open(tmp_path / "there" / "cutouts" / "0.png"))
    shown = cutout[..., 3] > 0
    assert shown.any() and np.array_equal(cutout[shown][:, :3], np.array(Image.open(photos / "0.png"))[shown])


def test_what_was_made_is_no_photograph(photos):
    segment(photos, photos / "out")
    shutil.copy(photos / "out" / "cutouts" / "0.png", photos / "0 cutout.png")
    found, left, ignored = find_photos([photos])
    assert [p.name for p in found] == ["0.png", "1.png", "2.png", "turned.jpg"] and not left
    assert ignored == 1  # the copy; what lies in the results is passed by
    assert segment(photos, photos).photos == 4 == segment(photos, photos).photos


@pytest.mark.parametrize("name", ["page.html", "coco.json", "coco_rle.json"])
def test_a_file_of_the_users_own_or_edited_since_is_not_written_over(photos, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(CosegError, match=f"{name}: is there already, and not from here"):
        segment(photos, out)
    assert (out / name).read_text() == "mine" and not (out / "masks").exists()
    assert segment(photos, out, exports=()).exit_code == 0
    (out / name).unlink()
    assert segment(photos, out).exit_code == 0 and is_signed(out / name)
    edited = (out / name).read_text(encoding="utf-8").replace("object", "dog").replace("Photographs", "Dogs")
    (out / name).write_text(edited, encoding="utf-8")
    for again in (lambda: segment(photos, out), lambda: export(out)):
        with pytest.raises(CosegError, match=f"{name}: is there already"):
            again()
    assert (out / name).read_text(encoding="utf-8") == edited


def test_a_cutout_of_the_users_own_is_not_written_over(photos, tmp_path):
    out = tmp_path / "out"
    (out / "cutouts").mkdir(parents=True)
    own = out / "cutouts" / "0.png"
    scene(9).save(own)
    before = own.read_bytes()
    with pytest.raises(CosegError, match="cutouts: is there already"):
        segment(photos, out)
    assert segment(photos, out, exports=("coco",)).exit_code == 0  # not written to, so not in the way
    with pytest.raises(CosegError, match=r"cutouts/0\.png: is there already"):
        export(out, ["cutouts"])
    assert own.read_bytes() == before


# Other folders of results


def test_results_of_groups_in_folders_below_are_exported_together(photos, tmp_path):
    entries, out = [], tmp_path / "out"
    for group in ("dogs", "cats"):
        segment(photos, out / group, exports=())
        for entry in json.loads((out / group / "result.json").read_text())["photos"]:
            entries.append(entry | {"group": group} | {k: f"{group}/{entry[k]}" for k in ("mask", "overlay")})
    (out / "result.json").write_text(json.dumps({"checkpoint": None, "look_first": None, "photos": entries}))
    made = export(out)
    assert out / "dogs" / "cutouts" / "0.png" in made and (out / "cats" / "cutouts" / "0.png").is_file()
    coco = json.loads((out / "coco.json").read_text())
    assert [c["name"] for c in coco["categories"]] == ["dogs", "cats"] and len(coco["images"]) == 8
    cards = [li for li in page_of(out).all("li") if li.get("class") == "card"]
    assert cards[0]["data-name"] == "dogs/0.png" and "2 groups" in (out / "page.html").read_text()


def test_label_maps_have_a_category_and_a_colour_for_each_class(photos, out):
    record = result(out) | {"classes": 2, "look_first": []}
    for entry in record["photos"]:
        labels = np.zeros((entry["height"], entry["width"]), np.uint8)
        labels[2:6, 3:9], labels[10:14, 20:25] = 1, 2
        Image.fromarray(labels).save(out / entry["mask"])
        del entry["score"], entry["expected_j"]
    (out / "result.json").write_text(json.dumps(record))
    export(out)
    coco = json.loads((out / "coco.json").read_text())
    assert [c["name"] for c in coco["categories"]] == ["class 1", "class 2"]
    assert [(a["category_id"], a["area"]) for a in coco["annotations"]] == [(1, 24), (2, 20)] * 4
    assert np.array_equal(
        np.array(Image.open(out / "cutouts" / "0.png"))[..., 3] > 0, np.array(Image.open(out / "masks" / "0.png")) > 0
    )
    for label in (1, 2):
        alone = np.array(Image.open(out / "cutouts" / str(label) / "0.png"))
        assert np.array_equal(alone[..., 3] > 0, np.array(Image.open(out / "masks" / "0.png")) == label)
    text = (out / "page.html").read_text()
    assert text.count('class="swatch"') == 2 and 'data-score=""' in text


def test_what_the_explorer_saved_is_exported_as_well(photos, out, tmp_path):
    saved = tmp_path / "saved"
    shutil.copytree(out / "masks", saved / "masks")
    files = {Path(e["mask"]).stem: e["file"] for e in result(out)["photos"]}
    (saved / "session.json").write_text(json.dumps({"checkpoint": None, "sha256": None, "photos": files}))
    assert len(export(saved)) == 4 + 3
    assert len(page_of(saved).all("img")) == 2 * 4


def test_a_folder_without_results_is_one_line(tmp_path):
    with pytest.raises(CosegError, match="name a folder that `coseg segment` has written to"):
        export(tmp_path)
    (tmp_path / "result.json").write_text('{"mine": 1}')
    with pytest.raises(CosegError, match="names no photographs"):
        export(tmp_path)
