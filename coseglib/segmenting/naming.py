"""Names for the classes of results that are there already; the work behind `coseg name`.

Which class a label is can only be said after a look at the masks. `name_classes` writes the names to the record (of
each group too), draws the legends of the overlays anew, and makes the exports that are there anew; masks stay as they
are.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from coseglib.answering.reading import picture_of
from coseglib.core.errors import CosegError
from coseglib.core.files import read_json, write_text
from coseglib.data.folders import AS_OURS, EXPORTS, RECORDS, is_ours, is_output
from coseglib.data.images import read_labels, write_jpg
from coseglib.data.record import resize_labels
from coseglib.segmenting.exports import export, made_before, record_in, results_in
from coseglib.segmenting.finding import refuse_theirs, theirs_of_exports
from coseglib.segmenting.labels import check_names, class_colours, legend_of
from coseglib.segmenting.overlays import overlay, with_legend


def name_classes(out: str | Path, names: Sequence[str]) -> list[dict]:
    """Name the classes of a folder of results, in the order of the labels; the photographs whose overlays stay as they
    are: those that are gone, or whose overlays were edited.

    Raises CosegError before anything is written: for names that cannot be (`check_names`), results that are none or
    have no classes, groups that each learned classes of their own, and exports that were edited.
    """
    out = Path(out)
    result = results_in(out)
    classes = result.get("classes")
    if not classes:
        raise CosegError(f"{record_in(out)}: its masks are of one thing, and have no classes to name")
    check_names(names, classes)
    if result.get("groups") and result.get("sha256") is None:
        raise CosegError(f"{out}: each group learned classes of its own; name those of each, {out}/GROUP")
    done = [entry for entry in result["photos"] if "mask" in entry]
    kinds = [kind for kind, files in EXPORTS.items() if files and (out / files[0]).exists()]
    refuse_theirs(theirs_of_exports(out, (), kinds))
    groups = result["groups"] if isinstance(result.get("groups"), dict) else ()
    try:
        for record in (record_in(out), *(out / group / RECORDS[0] for group in groups)):
            about = read_json(record, "segment the photographs anew") | {"names": list(names)}
            write_text(record, json.dumps(about, indent=1, allow_nan=False) + "\n")
        left = [entry for entry in done if not _drawn_anew(out, entry, classes, names)]
    except OSError as fault:
        raise CosegError(f"{fault.filename or out}: {fault.strerror or fault}; make room or mend its rights") from fault
    export(out, kinds)
    _export_above(Path(os.path.abspath(out)))
    return left


def _export_above(group: Path) -> None:
    """Make anew what was made of all groups, where the results are those of one of them."""
    if is_output(group.parent):
        above = results_in(group.parent)
        if group.name in (above.get("groups") or ()):
            made = made_before(group.parent, above["photos"])
            export(group.parent, [kind for kind in made if EXPORTS[kind]])


def _drawn_anew(out: Path, entry: dict, classes: int, names: Sequence[str]) -> bool:
    """Draw an overlay of ours with these names; False where that cannot be done."""
    file = out / entry.get("overlay", ".")
    if not is_ours(file):
        return False
    labels = read_labels(out / entry["mask"])
    try:
        picture = picture_of(Path(entry["file"]))
    except CosegError:
        return False
    if picture.size != tuple(labels.shape):
        return False
    shown = resize_labels(labels, tuple(picture.pixels.shape[-2:]))
    drawn = overlay(picture.pixels, shown, class_colours(classes))
    write_jpg(file, with_legend(drawn, legend_of(labels, classes, names)), **AS_OURS["JPEG"])
    return True
