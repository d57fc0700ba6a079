"""page.html: the photographs of a folder of results, their masks on or off, what to look at first, what was left out.

One file that opens from disk, on a phone, printed, and where its folder was moved to: thumbnails are inside it, links
to masks, overlays and cutouts are relative. A thumbnail's longer side has SIDE pixels, of more than MANY photographs so
many fewer that all of them take some 20 to 30 MB together. AT_ONCE photographs are shown, and so many more each time
that this is asked for, all when it is printed; without JavaScript these first ones are there, and no buttons. The looks
are in `page.html.j2`.
"""

import base64
import io
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.data.images import read_image
from coseglib.data.record import resize_labels
from coseglib.segmenting.coco import home_of
from coseglib.segmenting.finding import cutout_file
from coseglib.segmenting.look_first import look_first
from coseglib.segmenting.overlays import class_colours, mark_colour, veil

SIDE, LEAST, MANY = 200, 48, 2000  # pixels of a thumbnail; photographs from which on it is smaller
AT_ONCE = 300  # photographs: of thousands, sorting and drawing all would take a browser many seconds
TEMPLATE = "page.html.j2"


def results_page(out: Path, result: dict, found: Iterable[tuple[dict, np.ndarray]]) -> str:
    """HTML of a folder of results.

    result  what its result.json holds     found  entries of it, each with its labels uint8 (H, W), one after the other
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    photos = result["photos"]
    done = [entry for entry in photos if "mask" in entry]
    first = result.get("look_first")
    first = look_first([e for e in done if "foreground_share" in e]) if first is None else first
    rank = {item["file"]: place for place, item in enumerate(first)}
    home, side = home_of(entry["file"] for entry in done), thumbnail_side(len(done))
    cards = [
        _card(out, home, number, entry, labels, result.get("classes") or 0, side) | {"rank": rank.get(entry["file"])}
        for number, (entry, labels) in enumerate(found, start=1)
    ]
    of_file = {card["file"]: card for card in cards}
    facts = {
        "cards": cards,
        "first": [item | {"card": of_file[item["file"]]} for item in first if item["file"] in of_file],
        "skipped": [{"file": _text(e["file"]), "why": _text(e["skipped"])} for e in photos if "skipped" in e],
        "checkpoint": result.get("checkpoint"),
        "note": _text(result.get("note") or ""),
        "ignored": result.get("ignored") or 0,
        "at_once": AT_ONCE,
        "colours": class_colours(result.get("classes") or 0),
        "title": _text(home.name or out.resolve().name),
        "groups": len({entry.get("group") for entry in done}),
    }
    how = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined, "autoescape": True}
    return Environment(loader=FileSystemLoader(Path(__file__).parent), **how).get_template(TEMPLATE).render(facts)


def thumbnail_side(count: int) -> int:
    """Pixels of the longer side, of a page of so many photographs."""
    return max(LEAST, int(SIDE * min(1, MANY / max(count, 1)) ** 0.5))


def _text(name: str) -> str:
    """A file's name as UTF-8 can hold it: other bytes as \\xff."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _card(out: Path, home: Path, number: int, entry: dict, labels: np.ndarray, classes: int, side: int) -> dict:
    """What the page says of one photograph."""
    name = os.path.relpath(os.path.abspath(entry["file"]), home)
    share = float((labels != 0).mean())
    files = {kind: entry[kind] for kind in ("overlay", "mask") if kind in entry}
    if (out / (cutout := cutout_file(entry["mask"]))).is_file():
        files["cutout"] = cutout
    height, width = labels.shape
    scale = side / max(width, height)
    size = [max(1, round(n * min(1, scale))) for n in (height, width)]
    picture, shown = _thumbnail(out, entry, size)
    card = {"id": f"p{number}", "file": entry["file"], "name": _text(name), "group": _text(entry.get("group") or "")}
    card |= {
        "links": {kind: quote(os.fsencode(file)) for kind, file in files.items()},
        "score": entry.get("score"),
        "share": share,
    }
    card |= {"picture": picture, "veil": None, "width": size[1], "height": size[0]}
    if shown is not None:
        small = resize_labels(torch.from_numpy(labels), size).numpy()
        colours = class_colours(classes) if classes else [mark_colour([shown], [small])]
        card["veil"] = _data(veil(small, colours), "png")
    return card


def _thumbnail(out: Path, entry: dict, size: list[int]) -> tuple[str | None, np.ndarray | None]:
    """A JPEG of (H, W), and its pixels uint8 (3, H, W) to lay a mask over; of the overlay, and no pixels, where the
    photograph is gone; nothing where both are."""
    for file, plain in ((Path(entry["file"]), True), (out / entry.get("overlay", "."), False)):
        try:
            image = read_image(file, at_most=2 * max(size)).numpy().transpose(1, 2, 0)
        except CosegError:
            continue
        made = Image.fromarray(np.ascontiguousarray(image)).resize(
            size[::-1], Image.Resampling.BILINEAR, reducing_gap=2
        )
        made.save(content := io.BytesIO(), "JPEG", quality=75)
        return _data(content.getvalue(), "jpeg"), np.asarray(made).transpose(2, 0, 1) if plain else None
    return None, None


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
