"""page.html: the photographs of a folder of results, their masks on or off, what to look at first, what was left out.

Of label maps also each class: its colour and name, how much there is of it, and crops that show it best
(`coseglib.segmenting.exemplars`), CROP pixels of the longer side.

One file that opens from disk, on a phone, printed, and where its folder was moved to: thumbnails are inside it, links
to masks, overlays and cutouts are relative. A thumbnail's longer side has SIDE pixels, of more than MANY photographs so
many fewer that all of them take some 20 to 30 MB together. AT_ONCE photographs are shown, and so many more each time
that this is asked for, all when it is printed; without JavaScript these first ones are there, and no buttons. The looks
are in `page.html.j2`.
"""

import base64
import io
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image

from coseglib.data.record import resize_labels
from coseglib.segmenting.coco import home_of
from coseglib.segmenting.exemplars import Exemplars, crop_of, shown_of
from coseglib.segmenting.finding import class_cutout_file, cutout_file
from coseglib.segmenting.labels import class_colours, class_names, shares_of
from coseglib.segmenting.look_first import look_first
from coseglib.segmenting.overlays import mark_colour, outline, veil

CROP = 176  # pixels of a crop's longer side
LISTED = 6  # classes of a photograph, the largest
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
    home, side, classes = (
        home_of(entry["file"] for entry in done),
        thumbnail_side(len(done)),
        result.get("classes") or 0,
    )
    given, names_of = result.get("names"), {g: class_names(classes, n) for g, n in result["names_of"].items()}
    names, best = class_names(classes, given), Exemplars(classes, by_group=not given)
    cards = []
    for number, (entry, labels) in enumerate(found, start=1):
        best.add(number, entry, labels)
        own = names_of.get(entry.get("group"), names)
        cards.append(_card(out, home, number, entry, labels, own, side) | {"rank": rank.get(entry["file"])})
    of_file = {card["file"]: card for card in cards}
    facts = {
        "cards": cards,
        "first": [item | {"card": of_file[item["file"]]} for item in first if item["file"] in of_file],
        "skipped": [{"file": _text(e["file"]), "why": _text(e["skipped"])} for e in photos if "skipped" in e],
        "checkpoint": result.get("checkpoint"),
        "note": _text(result.get("note") or ""),
        "ignored": result.get("ignored") or 0,
        "at_once": AT_ONCE,
        "classes": _classes(out, best, names, names_of, cards),
        "names": names,
        "named": bool(given) or (bool(names_of) and len(names_of) == len(result["groups"])),
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


def _classes(out: Path, best: Exemplars, names: list[str], names_of: dict, cards: list[dict]) -> list[dict]:
    """What the page says of each class, of each group where they are learned apart."""
    colours, of_group = class_colours(len(names)), Counter(card["group"] if best.by_group else "" for card in cards)
    found = []
    for (group, label), (shown, share) in best.seen.items():
        name = names_of.get(group, names)[label - 1]
        about = {"name": name, "colour": colours[label - 1], "group": _text(group), "shown": shown}
        crops = []
        for place in best.found[group, label]:
            if (crop := crop_of(out, place, label, CROP)) is None:
                continue
            picture, mask = crop
            size = {"width": picture.shape[2], "height": picture.shape[1], "card": cards[place.number - 1]}
            seen = _data(veil(outline(mask, 2), [colours[label - 1]]), "png") if mask is not None else None
            crops.append({"picture": _jpeg(picture), "veil": seen, **size})
        found.append(about | {"share": share, "of": of_group[_text(group)], "crops": crops})
    return found


def _card(out: Path, home: Path, number: int, entry: dict, labels: np.ndarray, names: list[str], side: int) -> dict:
    """What the page says of one photograph. names: of the classes; none: a mask of one thing."""
    name = os.path.relpath(os.path.abspath(entry["file"]), home)
    height, width = labels.shape
    scale = side / max(width, height)
    size = [max(1, round(n * min(1, scale))) for n in (height, width)]
    colours, shares = class_colours(len(names)), shares_of(labels, len(names))
    classes = [{"name": n, "colour": c, "share": s} for n, c, s in zip(names, colours, shares, strict=True) if s]
    classes.sort(key=lambda one: -one["share"])
    card = {"id": f"p{number}", "file": entry["file"], "name": _text(name), "group": _text(entry.get("group") or "")}
    card |= {
        "links": _links(out, entry, names),
        "score": entry.get("score"),
        "share": float((labels != 0).mean()),
        "shares": shares,
        "classes": classes[:LISTED],
        "more": len(classes[LISTED:]),
    }
    card |= {"picture": None, "veil": None, "width": size[1], "height": size[0]}
    if shown := shown_of(out, entry, labels.shape, 2 * max(size)):
        pixels, plain = shown
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2)).transpose(2, 0, 1)
        card["picture"] = _jpeg(pixels)
        if plain:
            small = resize_labels(torch.from_numpy(labels), size).numpy()
            card["veil"] = _data(veil(small, colours or [mark_colour([pixels], [small])]), "png")
    return card


def _links(out: Path, entry: dict, names: list[str]) -> list[dict]:
    """What of a photograph there is to open, and where, relative to the page; a class's cutout by the class's name."""
    files = [(kind, kind, entry[kind]) for kind in ("overlay", "mask") if kind in entry]
    cutouts = [("cutout", "cutout", cutout_file(entry["mask"]))]
    for label, name in enumerate(names, start=1):
        cutouts.append((name, f"cutout of {name}", class_cutout_file(entry["mask"], label)))
    files += [cutout for cutout in cutouts if (out / cutout[-1]).is_file()]
    return [{"text": text, "what": what, "href": quote(os.fsencode(file))} for text, what, file in files]


def _jpeg(pixels: np.ndarray) -> str:
    """uint8 (3, H, W) as an address that holds it."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(content := io.BytesIO(), "JPEG", quality=75)
    return _data(content.getvalue(), "jpeg")


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
