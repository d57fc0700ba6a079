import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.data.images import image_size, read_image, read_labels, read_mask, write_jpg, write_png

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), np.uint8)  # (H, W, 3)


def _png(path, width, height, depth, colour, rows=b""):
    """A PNG written by hand: modes that Pillow does not write, and headers that promise more than there is."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def _pixels(path, **options):
    image = read_image(path, **options)
    assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.is_contiguous()
    return image.permute(1, 2, 0).numpy()


def test_rgb_is_read_as_it_is(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(_pixels(tmp_path / "a.png"), COLOURS)
    assert image_size(tmp_path / "a.png") == (7, 5)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_fills_three_channels(tmp_path, mode):
    grey = Image.fromarray(COLOURS[..., 0]).convert(mode)
    grey.save(tmp_path / "a.png")
    np.testing.assert_array_equal(_pixels(tmp_path / "a.png"), np.repeat(np.array(grey.convert("L"))[..., None], 3, 2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert _pixels(tmp_path / f"a.{suffix}")[0, :, 1].tolist() == [0, 0, 1, 1, 128, 255]


def test_sixteen_bit_colours_keep_their_range(tmp_path):
    path = _png(tmp_path / "a.png", 2, 1, 16, 2, b"\0" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 257))
    assert _pixels(path).tolist() == [[[255, 0, 128], [0, 255, 1]]]


def test_cmyk_becomes_the_colours_that_it_prints(tmp_path):
    for name, ink, colour in (("red", (0, 255, 255, 0), (255, 0, 0)), ("black", (0, 0, 0, 255), (0, 0, 0))):
        Image.new("CMYK", (16, 16), ink).save(tmp_path / f"{name}.jpg", quality=100)
        assert np.abs(_pixels(tmp_path / f"{name}.jpg").astype(int) - colour).max() <= 2
        Image.new("CMYK", (16, 16), ink).save(tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(_pixels(tmp_path / f"{name}.tif")[0, 0], colour)


def test_alpha_is_laid_over_white(tmp_path):
    layer = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 128]]], np.uint8)
    Image.fromarray(layer).save(tmp_path / "a.png")
    mixed = np.rint(np.array([200, 0, 0]) * 128 / 255 + 255 * 127 / 255)
    np.testing.assert_allclose(_pixels(tmp_path / "a.png")[0], [[200, 0, 0], [255, 255, 255], mixed], atol=1)


def test_a_palette_is_looked_up_and_its_transparent_entry_is_white(tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "a.png")
    assert _pixels(tmp_path / "a.png").tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    palette.save(tmp_path / "b.png", transparency=1)
    assert _pixels(tmp_path / "b.png").tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


TURNED = {  # EXIF orientation -> the upright pixels as they are stored
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.swapaxes(0, 1),
    6: lambda u: np.rot90(u),
    7: lambda u: u[::-1, ::-1].swapaxes(0, 1),
    8: lambda u: np.rot90(u, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_turns_photograph_mask_and_size_alike(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(np.ascontiguousarray(TURNED[orientation](COLOURS))).save(path, exif=exif, **options)
    np.testing.assert_array_equal(_pixels(path), COLOURS)
    assert image_size(path) == (7, 5)
    assert read_mask(path).shape == (5, 7)


def test_a_damaged_exif_block_does_not_cost_the_photograph(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff")
    assert _pixels(tmp_path / "a.jpg").shape == (5, 7, 3)


def test_a_photograph_of_one_pixel_is_a_photograph(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[9]], [[8]], [[7]]]
    assert read_image(tmp_path / "a.png", at_most=1).shape == (3, 1, 1)


def _broken(tmp_path):
    whole = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
    for suffix in ("jpg", "png", "webp", "tif", "gif", "bmp"):
        path = tmp_path / f"truncated.{suffix}"
        whole.save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        yield path
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    _png(tmp_path / "nothing.png", 8, 8, 8, 2)
    yield from (tmp_path / n for n in ("text.jpg", "empty.png", "folder.jpg", "nothing.png", "missing.jpg"))


def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path):
    for path in _broken(tmp_path):
        for read in (read_image, read_mask, lambda p: read_image(p, at_most=16)):
            with pytest.raises(CosegError) as fault:
                read(path)
            assert str(fault.value).startswith(f"{path}: ") and "\n" not in str(fault.value), path


def test_a_truncated_file_says_how_many_bytes_it_has(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    with pytest.raises(CosegError, match=r"truncated.*1,500 bytes"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(("width", "height"), [(13_000, 12_500), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_unread(tmp_path, width, height):
    path = _png(tmp_path / "bomb.png", width, height, 8, 2)
    for read in (read_image, read_mask, read_labels, image_size):
        with pytest.raises(CosegError, match="megapixels; scale it down"):
            read(path)


def test_a_photograph_of_108_megapixels_is_read_small(tmp_path):
    large = Image.new("L", (12_000, 9_000), 50)
    large.paste(200, (0, 0, 6_000, 9_000))
    large.save(tmp_path / "a.jpg", quality=50)
    large.save(tmp_path / "a.png", compress_level=1)
    for name in ("a.jpg", "a.png"):
        assert image_size(tmp_path / name) == (12_000, 9_000)
        small = read_image(tmp_path / name, at_most=400)
        assert small.shape == {"a.jpg": (3, 282, 375), "a.png": (3, 300, 400)}[name]  # 1/8 · 1/4, and 1/30
        np.testing.assert_allclose(small[:, 150, [100, 300]].numpy(), [[200, 50]] * 3, atol=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_at_most_bounds_the_longer_side_and_keeps_the_mean(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.fromarray(RNG.integers(0, 256, (90, 121, 3), np.uint8)).convert(mode).save(path)
    whole, small = read_image(path).float(), read_image(path, at_most=41).float()
    assert small.shape == (3, 30, 41)
    np.testing.assert_allclose(small.mean((1, 2)), whole.mean((1, 2)), atol=2.5)
    assert torch.equal(read_image(path, at_most=121).float(), whole)


def test_at_most_follows_the_exif_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (160, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", at_most=80).shape == (3, 80, 20)


def test_a_mask_is_what_is_not_black_in_any_mode(tmp_path):
    expected = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    palette = Image.fromarray(expected * 3)
    palette.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 128, 0])
    inverted = Image.fromarray(1 - expected)  # index 0 is white here
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    stored = {
        "one.png": Image.fromarray(expected * 255).convert("1"),
        "grey.png": Image.fromarray(expected),
        "sixteen.png": Image.fromarray(expected.astype(np.uint16)),
        "colour.png": Image.fromarray(np.stack([expected * 0, expected, expected * 0], 2)),
        "palette.png": palette,
        "inverted.png": inverted,
    }
    for name, image in stored.items():
        image.save(tmp_path / name)
        assert read_mask(tmp_path / name).tolist() == expected.tolist(), name


def _transparent(tmp_path, inside):
    """Masks whose background is transparent, in every mode that can be so, whatever colours lie beneath."""
    alpha = Image.fromarray(inside * 255)
    grey = Image.fromarray(np.full(inside.shape, 200, np.uint8))
    photo = Image.fromarray(RNG.integers(0, 256, (*inside.shape, 3), np.uint8))
    black = Image.new("RGB", grey.size)
    for name, plain in (("white", grey.convert("RGB")), ("cut out", photo), ("black", black), ("grey", grey)):
        plain.putalpha(alpha)
        for suffix in ("png", "tif", "webp"):
            plain.save(tmp_path / f"{name}.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
            yield tmp_path / f"{name}.{suffix}"
    palette = Image.fromarray(inside * 2 + 1)
    palette.putpalette([0, 0, 0, 9, 9, 9, 0, 0, 0, 0, 0, 0])
    for name in ("palette.png", "palette.gif"):
        palette.save(tmp_path / name, transparency=1)
        yield tmp_path / name
    Image.fromarray(inside * 50 + 10).save(tmp_path / "key.png", transparency=10)
    yield tmp_path / "key.png"
    soft = Image.fromarray(np.where(inside, 128, 127).astype(np.uint8))
    for value in (0, 255):
        half = Image.new("L", grey.size, value)
        half.putalpha(soft)
        half.save(tmp_path / f"soft {value}.png")
        yield tmp_path / f"soft {value}.png"


def test_where_alpha_varies_it_is_the_mask_and_else_the_colour(tmp_path):
    inside = np.zeros((6, 9), np.uint8)
    inside[2:5, 3:8] = 1
    for path in _transparent(tmp_path, inside):
        assert read_mask(path).tolist() == inside.tolist(), path.name
    for name, alpha in (("opaque", 255), ("clear", 0)):
        colours = Image.fromarray(inside * 255)
        colours.putalpha(alpha)
        colours.save(tmp_path / f"{name}.png")
        assert read_mask(tmp_path / f"{name}.png").tolist() == inside.tolist(), name


def test_the_noise_of_a_jpeg_mask_is_no_object(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 13:] = 255
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=30)
    assert (read_mask(tmp_path / "a.jpg").numpy() == mask // 255).all()


def test_label_maps_keep_their_indices_and_colours_are_refused(tmp_path):
    labels = np.array([[0, 1], [20, 255]], np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette([7] * 768)
    for image in (palette, Image.fromarray(labels)):
        image.save(tmp_path / "a.png")
        assert read_labels(tmp_path / "a.png").tolist() == labels.tolist()
    Image.fromarray(COLOURS).save(tmp_path / "b.png")
    with pytest.raises(CosegError, match="RGB"):
        read_labels(tmp_path / "b.png")


def test_what_is_written_is_read_again(tmp_path):
    image = torch.from_numpy(COLOURS).permute(2, 0, 1)
    write_png(tmp_path / "a.png", image)
    assert torch.equal(read_image(tmp_path / "a.png"), image)
    write_png(tmp_path / "m.png", image[0])
    assert torch.equal(read_labels(tmp_path / "m.png"), image[0])
    smooth = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    write_jpg(tmp_path / "a.jpg", smooth)
    assert (read_image(tmp_path / "a.jpg").int() - smooth.int()).abs().max() <= 1
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "f.png", torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "f.png", torch.zeros(4, 4, 3, dtype=torch.uint8))


@pytest.mark.parametrize("missing", [1, 100, 10_000], ids=lambda n: f"{n} bytes")
def test_a_picture_that_does_not_fit_on_the_disk_is_an_error_and_the_old_one_stays(tmp_path, missing):
    """A limit for files stands for the full disk; Pillow's own writing takes the last bytes' absence for a success."""
    resource = pytest.importorskip("resource", reason="no limits of file sizes here")
    noise = torch.randint(256, (3, 96, 96), dtype=torch.uint8)
    write_jpg(tmp_path / "whole.jpg", noise)
    before, limits = (tmp_path / "whole.jpg").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(1, len(before) - missing), limits[1]))
        with pytest.raises(CosegError, match=r"whole\.jpg: cannot be written \(File too large"):
            write_jpg(tmp_path / "whole.jpg", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["whole.jpg"] and (tmp_path / "whole.jpg").read_bytes() == before


def test_a_folder_that_is_missing_is_named_by_the_writer(tmp_path):
    with pytest.raises(CosegError, match="missing"):
        write_png(tmp_path / "missing" / "a.png", torch.zeros(2, 2, dtype=torch.uint8))
