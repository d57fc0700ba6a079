"""Pictures from disk and back: upright 8-bit RGB, masks, label maps; what cannot be read is a CosegError of one line.

Alpha is laid over white; 16-bit grey keeps its range (65535 is white); the first frame of several is read.
"""

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from coseglib.core.errors import CosegError
from coseglib.core.files import write_bytes
from coseglib.data.folders import RAW, lacking
from coseglib.data.record import Photo

with suppress(Exception):  # where it is installed, and loads
    from pillow_heif import register_heif_opener

    register_heif_opener()

MOST_PIXELS = 160_000_000  # a 12,000 × 9,000 photograph has 108 million; more than this is refused unread
_TOO_MANY = f"more than {MOST_PIXELS // 10**6} megapixels; scale it down first"

_FAULTS = {
    FileNotFoundError: "no such file; check the name",
    IsADirectoryError: "is a folder, not a picture; name the files in it",
    UnidentifiedImageError: "no image format that Pillow knows; save it as JPEG or PNG",
    PermissionError: "may not be read; change its permissions",
    Image.DecompressionBombError: _TOO_MANY,
}


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The picture, its header read and its size judged. Whatever goes wrong inside the block is a CosegError too."""
    path = Path(path)
    if os.path.exists(path) and not path.is_file() and not path.is_dir():  # a pipe is read only once, and waits
        raise CosegError(f"{path}: no regular file; name a file that can be read twice")
    if path.suffix.lower() in RAW:  # Pillow would take the camera's small preview for the photograph
        raise CosegError(f"{path}: a camera's raw file; develop it and save it as JPEG or TIFF")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large photographs; the limit here is our own
            with Image.open(path) as picture:
                width, height = picture.size
                if width * height > MOST_PIXELS:
                    raise CosegError(f"{path}: {width} × {height} is {_TOO_MANY}")
                yield picture
    except CosegError:
        raise
    except Exception as fault:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        reason = " ".join(str(fault).split()) or type(fault).__name__
        size = path.stat().st_size if os.path.isfile(path) else 0
        why = _FAULTS.get(type(fault), f"cannot be decoded ({reason}; the file has {size:,} bytes); get it anew")
        if isinstance(fault, UnidentifiedImageError):
            why = (lacking(path) or why) if size else "an empty file; get it anew"
        raise CosegError(f"{path}: {why}") from fault


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in picture.info


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise CosegError(f"{picture.filename}: floating-point pixels have no agreed white; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):  # 16-bit grey, by its range
        grey = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        picture = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if _has_alpha(picture):
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


_ORIENTATION, _SIDEWAYS = 0x0112, range(5, 9)  # EXIF's tag, and its values that swap width and height
_WAYS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"  # to upright, from 2 on
_TURNS = {value: Image.Transpose[way] for value, way in enumerate(_WAYS.split(), start=2)}


def _orientation(picture: Image.Image) -> int:
    """1 to 8, from the header; 1 where there is none, none that can be read, or no turn that is left to us."""
    # Pillow turns a TIFF while it decodes it, and decodes a PNG without EXIF to look behind the pixels.
    if picture.format == "TIFF" or (picture.format == "PNG" and "exif" not in picture.info):
        return 1
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block; the picture may still be sound
        return 1


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def read_image(path: str | Path, at_most: int | None = None) -> torch.Tensor:
    """uint8 RGB (3, H, W), turned as its EXIF orientation says.

    at_most  pixels: a longer side is brought to this or less, but more than half of it, by a whole-number factor (means
             of blocks; a JPEG is not even decoded in full). None: as it is.
    Raises CosegError, as all that reads here: missing, truncated, no picture, floating-point, above `MOST_PIXELS`.
    """
    with _opened(path) as picture:
        orientation = _orientation(picture)
        longer = max(picture.size)
        if at_most is not None and longer > at_most:
            # A JPEG is decoded at 1/2, 1/4 or 1/8, as long as that is more than half of what is asked for.
            picture.draft(None, tuple(side * at_most // (2 * longer) + 1 for side in picture.size))
            factor = -(-max(picture.size) // at_most)
            picture = (picture if picture.mode in ("L", "RGB", "CMYK") else _rgb(picture)).reduce(factor)
        upright = _turned(_rgb(picture), orientation)
        pixels = np.empty((3, upright.height, upright.width), np.uint8)
        for c, channel in enumerate(upright.split()):  # one at a time: a huge photograph is in memory once, not twice
            pixels[c] = np.asarray(channel)
        return torch.from_numpy(pixels)


def _mask(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Mask uint8 (H, W), and the colours (H, W) or (H, W, 3) that told it; None: alpha did."""
    with _opened(path) as picture:
        lossy, transparent = picture.format in ("JPEG", "MPO"), _has_alpha(picture)
        upright = _turned(picture, _orientation(picture))
        if transparent:
            opaque = np.asarray(upright.convert("RGBA").getchannel("A")) > 127
            if opaque.any() and not opaque.all():
                return opaque.astype(np.uint8), None
        one_channel = upright.mode in ("1", "L", "F") or upright.mode.startswith("I")
        colours = np.asarray(upright if one_channel else upright.convert("RGB"))
        grey = colours if one_channel else colours.max(axis=2)
        return (grey > (127 if lossy else 0)).astype(np.uint8), colours


def read_mask(path: str | Path) -> torch.Tensor:
    """uint8 (H, W): 1 where the picture is opaque or, where alpha does not tell, not black; in a JPEG past mid-grey."""
    return torch.from_numpy(_mask(path)[0])


def read_grey(path: str | Path) -> torch.Tensor:
    """uint8 (H, W): a picture's brightness, 0 to 255; one of 16 bits by its range, alpha laid over white."""
    with _opened(path) as picture:
        return torch.from_numpy(np.array(_turned(_rgb(picture), _orientation(picture)).convert("L")))


def colours_of_mask(path: str | Path) -> int:
    """How many colours what `read_mask` takes for the object has: more than one may mean more than one thing."""
    inside, colours = _mask(path)
    return 1 if colours is None else len(np.unique(colours[inside == 1], axis=0))


def read_labels(path: str | Path) -> torch.Tensor:
    """uint8 (H, W): the raw values of a palette or 8-bit grey picture, 255 void; CosegError for one in colours."""
    with _opened(path) as picture:
        if picture.mode not in ("P", "L", "1"):
            raise CosegError(f"{path}: has mode {picture.mode}, a label map one 8-bit index a pixel; convert it")
        return torch.from_numpy(np.array(picture, np.uint8))


def _check_size(size_of: Callable[[Path], tuple[int, int]], mask: Path, image: Path) -> None:
    """CosegError for a mask whose (width, height), `size_of` it, are not the photograph's."""
    (w, h), (width, height) = size_of(mask), image_size(image)
    if (w, h) != (width, height):
        has = f"{w} × {h} pixels, its photograph {image.name} has {width} × {height}"
        raise CosegError(f"{mask}: {has}; give a mask of the photograph's size")


def _sized_labels(read: Callable[[Path], torch.Tensor], mask: Path, image: Path) -> torch.Tensor:
    labels = read(mask)
    _check_size(lambda _: labels.shape[::-1], mask, image)
    return labels


def photo_of(
    dataset: str, name: str, classes, path: Path, mask: Path | None = None, read=read_mask, holds=(), size_of=None
) -> Photo:
    """A `Photo` whose files are read when asked for, its mask by `read`; one of another size is a CosegError then.

    size_of  the function path -> (width, height) of what `read` gives; None: of a picture's header
    """
    labels = partial(_sized_labels, read, mask, path) if mask else None
    size_of = size_of or (image_size if read is read_mask else _stored_size)
    check = partial(_check_size, size_of, mask, path) if mask else None
    return Photo(dataset, name, classes, partial(read_image, path), labels, path, mask, holds, check)


def read_colours(path: str | Path) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a mask that is painted in colours."""
    with _opened(path) as picture:
        return np.array(picture.convert("RGB"))


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels as displayed; only the header is read."""
    with _opened(path) as picture:
        (width, height), orientation = picture.size, _orientation(picture)
        if picture.format == "TIFF":  # its size may be swapped already, or be so by decoding: the tags tell
            width, height, orientation = (picture.tag_v2.get(tag, 1) for tag in (256, 257, _ORIENTATION))
        return (height, width) if orientation in _SIDEWAYS else (width, height)


def _stored_size(path: Path) -> tuple[int, int]:
    """(width, height) as the file has them, whatever it says of its orientation: label maps are read so."""
    with _opened(path) as picture:
        return picture.size


def write_png(
    path: str | Path, pixels: torch.Tensor | np.ndarray, kind: str = "PNG", palette: bytes | None = None, **options
) -> None:
    """uint8 (H, W) or RGB (3, H, W) to `path`, there whole or not at all. kind, options: Pillow's, for other formats.

    palette  256 colours of 3 bytes each, in which (H, W) is shown; its values stay as they are (`read_labels`)
    Raises CosegError where the folder is missing, full or closed to us; ValueError for other shapes.
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] != 3):
        raise ValueError(f"{path}: uint8 (H, W) or (3, H, W) can be written, not {array.dtype} {array.shape}")
    picture = Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0) if array.ndim == 3 else array))
    if palette is not None:
        picture.putpalette(palette)
    picture.save(content := io.BytesIO(), format=kind, **options)
    try:
        write_bytes(path, content.getvalue())
    except OSError as fault:
        raise CosegError(f"{path}: cannot be written ({fault.strerror or fault}); check folder and space") from fault


def write_jpg(path: str | Path, pixels: torch.Tensor | np.ndarray, **options) -> None:
    """As `write_png`, as a JPEG."""
    write_png(path, pixels, "JPEG", quality=90, **options)
