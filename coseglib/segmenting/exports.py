"""What others can use, made from a folder of results: cutouts, COCO annotations and a page to look through.

`export` reads out/result.json (or the explorer's session.json), and the masks that its entries name. It can be called
again on any such folder, also where masks lie in folders of groups, as long as the photographs are where they were.

cutouts  out/cutouts/<name>.png beside masks/: RGBA, at the photograph's own size as displayed, alpha the mask, black
         where it is 0, so that nothing else of the photograph is left. Of label maps of several classes that is all of
         them; out/cutouts/<label>/<name>.png is one class alone, where the photograph shows it
coco     out/coco.json and out/coco_rle.json, see `coseglib.segmenting.coco`
page     out/page.html, see `coseglib.segmenting.page`
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.core.files import read_json, write_bytes, write_text
from coseglib.core.progress import Progress
from coseglib.data.folders import AS_OURS, EXPORTS, RECORDS, signed
from coseglib.data.images import read_image, read_labels, read_mask
from coseglib.segmenting.coco import coco_datasets
from coseglib.segmenting.finding import class_cutout_file, cutout_file, refuse_theirs, theirs_of_exports
from coseglib.segmenting.labels import check_names
from coseglib.segmenting.page import results_page


def kinds_of(named: str) -> tuple[str, ...]:
    """The exports in words between commas, each once. Raises CosegError for a word that is none."""
    words = [word.strip() for word in named.split(",")]
    for word in words:
        if word not in EXPORTS:
            raise CosegError(
                f"--export {word or named}: no such export; {', '.join(EXPORTS)}, or some of them, by commas"
            )
    return tuple(dict.fromkeys(words))


def export(out: str | Path, kinds: Sequence[str] = tuple(EXPORTS), quiet: bool = True) -> list[Path]:
    """Write these exports (`EXPORTS`) of a folder of results, anew where they are there; the files that were written.

    Raises CosegError where there are no results, a mask cannot be read, or something that is not ours is in the way,
    before anything is written; for photographs that are no longer there, after all else.
    """
    if not kinds:
        return []
    out = Path(out)
    result = results_in(out)
    done = [entry for entry in result["photos"] if "mask" in entry]
    refuse_theirs(theirs_of_exports(out, [entry["mask"] for entry in done], kinds))
    made: list[Path] = []
    faults: list[str] = []
    try:
        for kind in (kind for kind in EXPORTS if kind in kinds):
            with Progress(kind, len(done), quiet=quiet) as progress:
                made += _MAKERS[kind](out, result, _read(out, result, progress), faults)
    except OSError as fault:
        raise CosegError(f"{fault.filename or out}: {fault.strerror or fault}; make room or mend its rights") from fault
    if faults:
        raise CosegError(f"{faults[0]} ({len(faults)} photographs have no cutout)")
    return made


def made_before(out: Path, entries: Iterable[dict]) -> list[str]:
    """The exports of ours that a folder holds of these photographs: they are of its masks, so made anew with them. One
    that was edited since is the user's, and stays."""
    masks = [entry["mask"] for entry in entries if "mask" in entry]
    places = {kind: files or [cutout_file(mask) for mask in masks] for kind, files in EXPORTS.items()}
    there = [kind for kind, files in places.items() if any((out / file).is_file() for file in files)]
    return [kind for kind in there if not theirs_of_exports(out, masks, [kind])]


def record_in(out: Path) -> Path:
    """The file that says what a folder of results holds."""
    return next((out / name for name in RECORDS if (out / name).is_file()), out / RECORDS[0])


def results_in(out: Path) -> dict:
    """What result.json holds, or a session's record in its shape; names_of: of groups whose classes have names of their
    own, {group: names}; photographs as they are found from here. Raises CosegError where there is none, or no such."""
    record = record_in(out)
    result = read_json(record, "name a folder that `coseg segment` has written to")
    photos = result.get("photos")
    if isinstance(photos, dict):
        result["photos"] = [{"file": file, "mask": f"masks/{name}.png"} for name, file in photos.items()]
    elif not isinstance(photos, list):
        raise CosegError(f"{record}: names no photographs; name a folder that `coseg segment` has written to")
    if names := result.get("names"):
        try:
            check_names(names, result.get("classes") or 0)
        except CosegError as fault:
            raise CosegError(f"{record}: {fault}") from fault
    if result.get("from", os.getcwd()) != os.getcwd():
        for entry in (*result["photos"], *(result.get("look_first") or ())):
            from_there = os.path.join(result["from"], entry["file"])
            entry["file"] = from_there if os.path.exists(from_there) else entry["file"]
    return result | {"names_of": {} if names else _names_of_groups(out, result)}


def _names_of_groups(out: Path, result: dict) -> dict[str, list[str]]:
    """The names that somebody gave the classes of a group by itself, of groups that each learned their own."""
    found, groups = {}, result.get("groups")
    for group in groups if isinstance(groups, dict) and result.get("classes") else ():
        with suppress(CosegError):
            names = read_json(out / group / RECORDS[0], "segment it anew").get("names") or ()
            check_names(names, result["classes"])
            found |= {group: list(names)} if names else {}
    return found


def _read(out: Path, result: dict, progress: Progress) -> Iterator[tuple[dict, np.ndarray]]:
    """Each photograph's entry and its labels uint8 (H, W), 0 and 1 of a mask, also of one that was mended by hand."""
    read = read_labels if result.get("classes") else read_mask
    for entry in result["photos"]:
        if "mask" in entry:
            yield entry, read(out / entry["mask"]).numpy()
            progress.add()


def _cutouts(out: Path, result: dict, found: Iterator, faults: list[str]) -> Iterator[Path]:
    classes = result.get("classes") or 0
    for entry, labels in found:
        try:
            image = _pixels(Path(entry["file"]), labels.shape)
        except CosegError as fault:
            faults.append(str(fault))
            continue
        yield _cutout(image, labels != 0, out / cutout_file(entry["mask"]))
        for label in range(1, classes + 1) if classes > 1 else ():
            file, mask = out / class_cutout_file(entry["mask"], label), labels == label
            if mask.any():
                yield _cutout(image, mask, file)
            else:
                file.unlink(missing_ok=True)  # ours, of an earlier label map that showed the class


def _pixels(photo: Path, size: tuple[int, int]) -> np.ndarray:
    image = read_image(photo).numpy()
    if image.shape[1:] != size:
        raise CosegError(f"{photo}: is not of its mask's size any more; segment it anew")
    return image


def _cutout(image: np.ndarray, mask: np.ndarray, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    layers = np.empty((*mask.shape, 4), np.uint8)
    for channel in range(3):
        np.multiply(image[channel], mask, out=layers[..., channel])
    layers[..., 3] = 255 * mask.view(np.uint8)
    Image.fromarray(layers).save(content := io.BytesIO(), "PNG", **AS_OURS["PNG"])
    write_bytes(file, content.getvalue())
    return file


def _coco(out: Path, result: dict, found: Iterator, _: list[str]) -> Iterator[Path]:
    files = [entry["file"] for entry in result["photos"] if "mask" in entry]
    named = result.get("names"), result["names_of"]
    for name, dataset in coco_datasets(found, files, result.get("classes") or 0, *named).items():
        write_text(out / name, signed(json.dumps(dataset, allow_nan=False) + "\n"))
        yield out / name


def _page(out: Path, result: dict, found: Iterator, _: list[str]) -> Iterator[Path]:
    (name,) = EXPORTS["page"]
    write_text(out / name, signed(results_page(out, result, found)))
    yield out / name


_MAKERS = {"cutouts": _cutouts, "coco": _coco, "page": _page}
