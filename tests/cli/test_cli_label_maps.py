"""`coseg segment` and `coseg name` with several classes: colours, names, shares, crops and annotations."""

import html
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from in_browser import shown_in_browser, size_in_browser
from PIL import Image
from PIL.ImageColor import getrgb

from coseglib.cli import main as cli
from coseglib.data.images import read_image, read_labels, write_png
from coseglib.models.checkpoints import save_model
from coseglib.segmenting.labels import class_colours, label_palette
from coseglib.unsupervised import learner

NASTY = '<script>document.title="got"</script>,"a" & \'b\''
NASTY_NAMES = NASTY.split(",")


def _run(*arguments) -> int:
    return cli.main([str(a) for a in arguments])


def _refused(capsys, *arguments) -> str:
    """The one line on stderr of a command that is refused with exit code 1."""
    capsys.readouterr()
    assert _run(*arguments) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("coseg: ") and said.err.count("\n") == 1, said
    return said.err


def _scene(number: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A red square, larger from scene to scene, and a blue one on green noise, and who is where: 1 and 2."""
    h, w = size
    image = np.random.default_rng(number).integers(60, 160, (3, h, w)).astype(np.uint8)
    labels = np.zeros(size, np.uint8)
    labels[10 : 40 + 10 * number, 10 : 40 + 10 * number], labels[h - 40 :, w - 40 :] = 1, 2
    for k, colour in enumerate(([220, 30, 30], [30, 30, 230]), start=1):
        image[:, labels == k] = np.array(colour, np.uint8)[:, None]
    return image, labels


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        write_png(folder / f"{i}.png", _scene(i, (150, 200 + i))[0])
    return folder


@pytest.fixture
def multi(awake, tmp_path):
    """A file with a small untrained generator of two classes, which sees them everywhere."""
    file = tmp_path / "multi.safetensors"
    about = {"method": "multiclass", "backbone": "mobilenet_v2", "training": {"post": "argmax"}}
    save_model(file, awake("multiclass", classes=2), about)
    return file


@pytest.fixture
def segmented(photos, multi, tmp_path):
    """A function (further options) -> results of the photographs."""

    def segment(*more):
        out = tmp_path / "out"
        assert _run("segment", photos, "-o", out, "--checkpoint", multi, *more) == 0
        return out

    return segment


@pytest.fixture
def drawn(segmented):
    """Results whose label maps are the true ones: an untrained network knows none."""
    out = segmented()
    record = json.loads((out / "result.json").read_text())
    for i, entry in enumerate(record["photos"]):
        labels = _scene(i, (150, 200 + i))[1]
        if i == 3:
            labels[labels == 2] = 0
        write_png(out / entry["mask"], labels, palette=label_palette())
        entry["class_scores"] = [0.9, 0.8 if i < 3 else None]
    (out / "result.json").write_text(json.dumps(record))
    return out


def result(out) -> dict:
    return json.loads((out / "result.json").read_text())


class Page(HTMLParser):
    """Tags, and the text of each heading and card."""

    def __init__(self, out):
        super().__init__()
        self.tags, self.words = [], []
        self.feed((out / "page.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, **attributes) -> list[dict]:
        return [of for name, of in self.tags if name == tag and attributes.items() <= of.items()]


# Masks, overlays, result.json


def test_masks_have_the_labels_colours_and_the_record_each_class_share_and_score(segmented):
    out = segmented("--names", "dog,person")
    record = result(out)
    assert record["classes"] == 2 and record["names"] == ["dog", "person"]
    for entry in record["photos"]:
        labels = read_labels(out / entry["mask"])
        assert entry["class_shares"] == pytest.approx([float((labels == k).float().mean()) for k in (1, 2)], abs=1e-6)
        for k, score in enumerate(entry["class_scores"], start=1):
            assert (score is None) if not (labels == k).any() else (score is None or 0 < score <= 1)
        with Image.open(out / entry["mask"]) as picture:
            assert picture.mode == "P"
            shown = np.array(picture.convert("RGB"))
        for k, colour in enumerate(class_colours(2), start=1):
            assert (shown[labels.numpy() == k] == getrgb(colour)).all()


def test_overlays_have_a_legend_below_and_without_names_it_says_the_labels(segmented):
    plain = segmented()
    assert result(plain)["names"] is None
    sizes = [Image.open(plain / entry["overlay"]).size for entry in result(plain)["photos"]]
    shown = [any(entry["class_shares"]) for entry in result(plain)["photos"]]
    assert all((h > 150) == some and w == 200 + i for i, ((w, h), some) in enumerate(zip(sizes, shown, strict=True)))
    assert any(shown)
    before = [(plain / entry["overlay"]).read_bytes() for entry in result(plain)["photos"]]
    named = segmented("--names", "dog,person")
    after = [(named / entry["overlay"]).read_bytes() for entry in result(named)["photos"]]
    assert all((a != b) == some for a, b, some in zip(before, after, shown, strict=True))


def test_wrong_names_are_one_line_before_anything_is_learned_or_written(photos, multi, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(learner, "learn", lambda *_: pytest.fail("it learned"))
    out = tmp_path / "out"
    learn, use = ["--method", "multiclass", "--classes", 2], ["--checkpoint", multi]
    for how in (learn, use):
        for names, told in (
            ("dog", "names dog: 1 for 2 classes; give one each"),
            ("a,b,c", "names a, b, c: 3 for 2 classes"),
            ("a,", "the name of class 2 is empty"),
            ("", "the name of class 1 is empty"),
            ("a,A", "A is there twice"),
            ("a,b\tc", "of class 2, has letters that cannot be shown"),
        ):
            assert told in _refused(capsys, "segment", photos, "-o", out, *how, "--names", names)
    told = _refused(capsys, "segment", photos, "-o", out, "--names", "dog")
    assert "--names: names the classes of multiclass; leave it out" in told
    assert not out.exists()


def test_groups_that_learn_apart_cannot_be_named_together(photos, multi, tmp_path, capsys, monkeypatch):
    for i in range(4):
        (photos / f"{i // 2}").mkdir(exist_ok=True)
        os.rename(photos / f"{i}.png", photos / f"{i // 2}" / f"{i}.png")
    monkeypatch.setattr(learner, "learn", lambda *_: pytest.fail("it learned"))
    out = tmp_path / "out"
    learn = ["--method", "multiclass", "--classes", 2]
    told = _refused(capsys, "segment", photos, "-o", out, *learn, "--names", "dog,person")
    assert "each group learns classes of its own" in told and not out.exists()
    assert _run("segment", photos, "-o", out, "--checkpoint", multi, "--names", "dog,person", "--export", "coco") == 0
    assert result(out)["names"] == ["dog", "person"]
    assert [c["name"] for c in json.loads((out / "coco.json").read_text())["categories"]] == ["dog", "person"]
    assert _run("name", out, "ox,ass") == 0  # of the groups' own records too
    assert result(out)["names"] == result(out / "0")["names"] == ["ox", "ass"]


# Exports


def test_annotations_are_one_a_class_and_photograph_under_the_classes_names(drawn):
    assert _run("name", drawn, "red,blue") == 0
    from coseglib.segmenting.exports import export

    export(drawn)
    from pycocotools.coco import COCO

    for name in ("coco.json", "coco_rle.json"):
        coco = COCO(drawn / name)
        assert {c["id"]: c["name"] for c in coco.dataset["categories"]} == {1: "red", 2: "blue"}
        assert len(coco.anns) == 4 + 3  # the last photograph shows no blue
        for image in coco.imgs.values():
            entry = result(drawn)["photos"][image["id"] - 1]
            labels = read_labels(drawn / entry["mask"]).numpy()
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
                k = annotation["category_id"]
                assert np.array_equal(coco.annToMask(annotation), labels == k)
                assert annotation["score"] == entry["class_scores"][k - 1]


def test_each_class_is_cut_out_by_itself_and_a_cutout_of_what_is_no_longer_there_goes(drawn, photos, capsys):
    from coseglib.segmenting.exports import export

    made = export(drawn, ["cutouts"])
    assert len(made) == 4 + 4 + 3 and not (drawn / "cutouts" / "2" / "3.png").exists()
    for k in (1, 2):
        layers = np.array(Image.open(drawn / "cutouts" / f"{k}" / "1.png"))
        alone = read_labels(drawn / "masks" / "1.png").numpy() == k
        assert np.array_equal(layers[..., 3], 255 * alone) and not layers[~alone].any()
        picture = read_image(photos / "1.png").numpy().transpose(1, 2, 0)
        assert np.array_equal(layers[alone][:, :3], picture[alone])
    labels = read_labels(drawn / "masks" / "0.png")
    write_png(drawn / "masks" / "0.png", torch.where(labels == 1, 0, labels), palette=label_palette())
    export(drawn, ["cutouts"])
    assert not (drawn / "cutouts" / "1" / "0.png").exists() and (drawn / "cutouts" / "2" / "0.png").exists()
    own = drawn / "cutouts" / "2" / "0.png"
    Image.new("RGBA", (5, 5)).save(own)  # edited elsewhere
    before = own.read_bytes()
    segment = ["segment", photos, "-o", drawn, "--checkpoint", drawn.parent / "multi.safetensors"]
    assert "0.png: is there already" in _refused(capsys, *segment, "--export", "cutouts")
    assert own.read_bytes() == before


# The page


def test_the_page_shows_each_class_by_its_best_crops_and_its_share_of_each_photograph(drawn):
    from coseglib.segmenting.exports import export

    assert _run("name", drawn, "red,blue") == 0
    export(drawn)
    page, record = Page(drawn), result(drawn)
    assert [of["style"] for of in page.all("span", **{"class": "swatch"})] == [
        f"background: {colour}" for colour in class_colours(2)
    ]
    assert "red in 4 of 4 photographs" in page.text and "blue in 3 of 4 photographs" in page.text
    crops = [of["alt"] for of in page.all("img") if of.get("alt", "").startswith(("red in", "blue in"))]
    reds = [alt for alt in crops if alt.startswith("red")]
    assert reds == [f"red in {i}.png" for i in (3, 2, 1, 0)]  # the largest first
    assert sorted(alt for alt in crops if alt.startswith("blue")) == [f"blue in {i}.png" for i in (0, 1, 2)]
    assert all(of["src"].startswith("data:image/") for of in page.all("img"))
    for entry, card in zip(record["photos"], page.all("li", **{"class": "card"}), strict=True):
        shares = [float((read_labels(drawn / entry["mask"]) == k).float().mean()) for k in (1, 2)]
        assert [float(share) for share in card["data-shares"].split()] == pytest.approx(shares, abs=1e-6)
        for name, share in zip(("red", "blue"), shares, strict=True):
            assert not share or f"{name} {share:.1%}" in page.text
    assert [of["value"] for of in page.all("option")] == ["found", "first", "name", "0", "1"]
    linked = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert all((drawn / file).is_file() for file in linked) and "cutouts/2/0.png" in linked
    assert "Nobody has named them" not in page.text


def test_names_are_text_wherever_they_stand(drawn, tmp_path):
    from coseglib.segmenting.exports import export

    assert _run("name", drawn, NASTY) == 0
    export(drawn)
    text, page = (drawn / "page.html").read_text(encoding="utf-8"), Page(drawn)
    assert len(page.all("script")) == 1 and html.escape(NASTY_NAMES[0], quote=False) in text.replace("&#34;", '"')
    assert NASTY_NAMES[1] in page.text and not page.all("b")
    assert any(of.get("alt", "").startswith(NASTY_NAMES[1]) for of in page.all("img"))
    assert [c["name"] for c in json.loads((drawn / "coco.json").read_text())["categories"]] == NASTY_NAMES
    for width in (390, 1280):
        assert size_in_browser(drawn / "page.html", width, tmp_path)[0] <= width


def test_photographs_are_sorted_by_how_much_of_a_class_they_show(drawn, tmp_path):
    from coseglib.segmenting.exports import export

    export(drawn, ["page"])
    page = drawn / "page.html"
    chosen = 'const s = document.getElementById("order"); s.value = "0"; s.dispatchEvent(new Event("change"));'
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{{ {chosen} }}</script></body>")
    page.write_text(text, encoding="utf-8")
    shown = shown_in_browser(page, tmp_path)
    assert re.findall(r'class="card" id="p(\d)"', shown) == ["4", "3", "2", "1"] and "sorted by most class 1" in shown


def test_without_names_the_page_says_how_to_give_some(segmented):
    page = Page(segmented("--export", "page"))
    assert "class 1" in page.text and "Nobody has named them" in page.text and "coseg name" in page.text


def test_of_groups_without_names_each_has_crops_of_its_own(photos, multi, tmp_path):
    for i in range(4):
        (photos / f"g{i // 2}").mkdir(exist_ok=True)
        os.rename(photos / f"{i}.png", photos / f"g{i // 2}" / f"{i}.png")
    out = tmp_path / "out"
    assert _run("segment", photos, "-o", out, "--checkpoint", multi, "--export", "page,coco") == 0
    text = Page(out).text
    assert all(
        f"{group}: class {k} in" in text and "of 2 photographs" in text for group in ("g0", "g1") for k in (1, 2)
    )
    names = [c["name"] for c in json.loads((out / "coco.json").read_text())["categories"]]
    assert names == ["g0 class 1", "g0 class 2", "g1 class 1", "g1 class 2"]


# Names afterwards


def test_names_that_are_given_afterwards_are_as_those_given_at_once(segmented, tmp_path):
    at_once = segmented("--names", "dog,person", "--export", "page,coco,cutouts")
    files = [f for f in sorted(at_once.rglob("*")) if f.is_file() and f.name != "result.json"]
    wanted = {f: f.read_bytes() for f in files}
    record = result(at_once)
    segmented("--export", "page,coco,cutouts")
    assert {f: f.read_bytes() for f in files} != wanted
    assert _run("name", at_once, "dog,person") == 0
    assert {f: f.read_bytes() for f in files} == wanted
    again = result(at_once)
    for entry in (*record["photos"], *again["photos"]):
        del entry["seconds"]
    assert again == record


def test_what_cannot_be_named_is_one_line_and_nothing_is_written(drawn, photos, tmp_path, capsys):
    before = (drawn / "result.json").read_bytes()
    for names, told in (("a", "1 for 2 classes"), ("a,a", "a is there twice"), ("a,", "is empty")):
        assert told in _refused(capsys, "name", drawn, names)
    assert "name a folder that `coseg segment` has written to" in _refused(capsys, "name", photos, "a,b")
    from coseglib.segmenting.exports import export

    export(drawn, ["page"])
    edited = (drawn / "page.html").read_text(encoding="utf-8") + "<!-- mine -->"
    (drawn / "page.html").write_text(edited, encoding="utf-8")
    assert "page.html: is there already" in _refused(capsys, "name", drawn, "a,b")
    assert (drawn / "result.json").read_bytes() == before
    one = tmp_path / "one"
    one.mkdir()
    (one / "result.json").write_text(json.dumps({"checkpoint": None, "photos": []}))
    assert "its masks are of one thing" in _refused(capsys, "name", one, "a")
    apart = result(drawn) | {"sha256": None, "groups": {"g": {}}}
    (drawn / "result.json").write_text(json.dumps(apart))
    assert "each group learned classes of its own; name those of each" in _refused(capsys, "name", drawn, "a,b")


def test_overlays_that_cannot_be_drawn_anew_stay_and_are_named(drawn, photos, capsys):
    (photos / "0.png").unlink()
    Image.new("RGB", (9, 9)).save(drawn / "overlays" / "1.jpg")
    before = {i: (drawn / "overlays" / f"{i}.jpg").read_bytes() for i in range(4)}
    assert _run("name", drawn, "red,blue") == 0
    told = capsys.readouterr().err
    assert re.findall(r"(\d)\.jpg: stays as it is", told) == ["0", "1"]
    after = {i: (drawn / "overlays" / f"{i}.jpg").read_bytes() for i in range(4)}
    assert [after[i] == before[i] for i in range(4)] == [True, True, False, False]


def test_names_in_the_record_that_do_not_fit_are_one_line(drawn):
    from coseglib.core.errors import CosegError
    from coseglib.segmenting.exports import export

    record = result(drawn) | {"names": ["one"]}
    (drawn / "result.json").write_text(json.dumps(record))
    with pytest.raises(CosegError, match=r"result\.json: names one: 1 for 2 classes"):
        export(drawn)
