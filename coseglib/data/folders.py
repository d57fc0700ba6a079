"""What in a folder is a photograph: by its name, and not where we wrote it ourselves.

Systems and file servers keep thumbnails and bins beside photographs (`is_hidden`); `coseg segment` and the explorer
leave masks, overlays and cutouts, which look like photographs of the same things (`is_ours`, `is_results`).
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from coseglib.core.errors import CosegError

# What Pillow reads, and what it may lack: a photograph that cannot be read is named, and not passed by.
_READ = """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .bmp .dib .tif .tiff .webp .gif .ppm .pgm .pbm .pnm .jp2 .j2k .jpf .jpx .tga
    .pcx .qoi .psd .avif .heic .heif .hif .jxl"""
_RAW = ".3fr .arw .cr2 .cr3 .crw .dng .iiq .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 .srw .x3f"
RAW = frozenset(_RAW.split())
PICTURES = frozenset(_READ.split()) | RAW

_HEIF = "HEIC, which needs pillow-heif: pip install pillow-heif, or save it as JPEG"
_AVIF = "AVIF, which needs Pillow 11.3 or newer: pip install -U pillow, or save it as JPEG"
_JXL = "JPEG XL, which Pillow does not read; save it as JPEG or PNG"
LACKING = dict.fromkeys((".heic", ".heif", ".hif"), _HEIF) | {".avif": _AVIF, ".jxl": _JXL}  # by suffix
_BRANDS = dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), _HEIF) | dict.fromkeys((b"avif", b"avis"), _AVIF)

_KEPT = """@eadir @__thumb @recently-snapshot @recycle #recycle #snapshot $recycle.bin __macosx lost+found thumbs.db
    ehthumbs.db desktop.ini picasa.ini"""
_SYSTEMS = {*_KEPT.split(), "system volume information"}

IMAGES, TRUTH = "images", "ground_truth"  # the folders of a set of one's own
EXPORTS = {"cutouts": (), "coco": ("coco.json", "coco_rle.json"), "page": ("page.html",)}  # of --export, files beside
WRITTEN = ("masks", "overlays", "cutouts")  # the folders of results
RECORDS = ("result.json", "session.json")  # beside them: of `coseg segment`, of the explorer
MARK = "written by coseg"
_CHUNKS = PngInfo()
_CHUNKS.add_text("Software", MARK)
AS_OURS = {"PNG": {"pnginfo": _CHUNKS}, "JPEG": {"comment": MARK}}  # options with which Pillow leaves the mark


def is_hidden(name: str) -> bool:
    """A file or folder that systems and file servers keep for themselves; .name, thumbnails, bins."""
    return name.startswith(".") or name.casefold() in _SYSTEMS


def is_ours(file: str | Path) -> bool:
    """Was this picture written `AS_OURS`? The mark stands in its first bytes; a file edited elsewhere loses it."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.stat(file).st_mode):  # a pipe would keep us waiting
            with open(file, "rb") as opened:
                return MARK.encode() in opened.read(256)
    return False


def signed(text: str) -> str:
    """A text of ours, whose first 256 characters hold the `MARK`: with what tells that nobody has edited it since."""
    return text.replace(MARK, f"{MARK}, {_sum(text)}", 1)


def is_signed(file: Path) -> bool:
    """Is this text as `signed` gave it?"""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = file.read_text(encoding="utf-8") if is_ours(file) else ""
        if found := re.search(f"{MARK}, ([0-9a-f]{{16}})", text[:300]):
            return _sum(text.replace(found[0], MARK, 1)) == found[1]
    return False


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def is_output(folder: Path) -> bool:
    """Has `coseg segment`, or a session of the explorer, written its results to this folder, or begun to?"""
    for record in RECORDS:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads((folder / record).read_text(encoding="utf-8")).keys() >= {"checkpoint", "photos"}:
                return True
    return os.path.isdir(folder / ".coseg")


def is_results(folder: str | Path) -> bool:
    """What is `WRITTEN`, wherever it was moved to with its record or is linked from; a set's masks."""
    real = Path(os.path.realpath(folder))
    if real.name == TRUTH:
        return os.path.isdir(real.parent / IMAGES)
    return real.name in WRITTEN and is_output(real.parent)


def lacking(file: Path) -> str | None:
    """What is to be installed or done where Pillow does not know a file's format: by its first bytes, or its name."""
    with contextlib.suppress(OSError), open(file, "rb") as opened:
        head = opened.read(12)
        if head[4:8] == b"ftyp" and head[8:] in _BRANDS:
            return _BRANDS[head[8:]]
    return LACKING.get(file.suffix.lower())


def _shown(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not is_hidden(p.name))
    except OSError as fault:
        raise CosegError(f"{folder}: cannot be looked into ({fault.strerror}); mend its permissions") from fault


def pictures_in(folder: Path) -> list[Path]:
    """The photographs of a folder by name, broken links too; hidden ones and what we wrote are left out."""
    return [p for p in _shown(folder) if p.suffix.lower() in PICTURES and not p.is_dir() and not is_ours(p)]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder by name; hidden ones and our results are left out."""
    return [p for p in _shown(folder) if p.is_dir() and not is_results(p)]


def dataset_folder(root: Path, *parts: str, get: str) -> Path:
    """`root`/`parts`…; raises CosegError that says where the set comes from (`get`) where it is missing."""
    folder = root.joinpath(*parts)
    if not folder.is_dir():
        get += ", see data/README.md, or point --data or COSEG_DATA elsewhere"
        raise CosegError(f"{folder}: no such folder; {get}")
    return folder
