from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sets import picture, save

from coseglib.core import paths
from coseglib.core.errors import CosegError
from coseglib.data import fingerprints
from coseglib.data.fingerprints import (
    BITS,
    NEAR,
    Fingerprints,
    fingerprint,
    fingerprints_of,
    nearest,
    read_fingerprints,
    without_test_photos,
    write_fingerprints,
)
from coseglib.data.images import read_image
from coseglib.data.record import Photo


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _photo(path, name=None) -> Photo:
    return Photo("made", name or path.stem, (), partial(read_image, path), None, path)


def _bits(image) -> np.ndarray:
    return np.frombuffer(fingerprint(image), np.uint8)[None]


def _known(images) -> Fingerprints:
    tables = [
        np.frombuffer(b"".join(fingerprint(i, f) for i in images), np.uint8).reshape(-1, BITS // 8)
        for f in (False, True)
    ]
    return Fingerprints(tuple(map(str, range(len(images)))), ("test",) * len(images), *tables)


def test_the_share_of_differing_bits_is_the_angle_between_thumbnails():
    rng = np.random.default_rng(0)
    for mix in (0.2, 0.5, 1.0):
        shares, angles = [], []
        for _ in range(20):
            a = rng.integers(0, 256, (16, 16))
            b = np.clip((1 - mix) * a + mix * rng.integers(0, 256, (16, 16)), 0, 255).astype(int)
            r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
            greys = [torch.from_numpy(x.astype(np.uint8)).expand(3, 16, 16) for x in (a, b)]
            shares.append(nearest(_bits(greys[0]), Fingerprints(("b",), ("",), _bits(greys[1]), _bits(greys[1])))[0])
            angles.append(np.arccos(r) / np.pi * BITS)
        assert abs(np.mean(shares) - np.mean(angles)) < 4


def test_a_photograph_scaled_saved_anew_or_mirrored_is_near_and_others_are_far(tmp_path):
    photos = [picture(f"p{i}", 480, 360) for i in range(40)]
    known = _known([_tensor(p) for p in photos])
    for i, photo in enumerate(photos):
        photo.resize((320, 240), Image.Resampling.LANCZOS).save(tmp_path / "a.jpg", quality=60)
        again = read_image(tmp_path / "a.jpg", at_most=256)
        for image in (again, again.flip(2)):
            assert nearest(_bits(image), known)[0] <= 10
            others = Fingerprints(
                known.names, known.splits, np.delete(known.bits, i, 0), np.delete(known.flipped, i, 0)
            )
            assert nearest(_bits(image), others)[0] > 2 * NEAR


def test_nearest_counts_bits():
    rng = np.random.default_rng(0)
    bits, table, flipped = (rng.integers(0, 256, (n, BITS // 8), np.uint8) for n in (5, 7, 7))
    expected = [min(bin(int.from_bytes(a.tobytes()) ^ int.from_bytes(b.tobytes())).count("1")
                    for b in (*table, *flipped)) for a in bits]  # fmt: skip
    assert nearest(bits, Fingerprints(("",) * 7, ("",) * 7, table, flipped)).tolist() == expected
    assert nearest(bits, Fingerprints((), (), table[:0], flipped[:0])).tolist() == [BITS] * 5


def test_a_blank_photograph_has_a_fingerprint_of_its_own_kind():
    blank = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    assert fingerprint(blank) == bytes(BITS // 8)
    assert fingerprint(blank[:, :1, :1]) == bytes(BITS // 8)


def test_fingerprints_are_the_same_after_writing(tmp_path):
    photos = [_photo(save(picture(f"p{i}"), tmp_path / f"{i}.png")) for i in range(3)]
    known = fingerprints_of(photos, ["test", "train", "val"])
    write_fingerprints(known, tmp_path / "a.csv")
    again = read_fingerprints(tmp_path / "a.csv")
    assert (
        (again.names, again.splits)
        == (known.names, known.splits)
        == (
            ("made/0", "made/1", "made/2"),
            ("test", "train", "val"),
        )
    )
    np.testing.assert_array_equal(again.bits, known.bits)
    np.testing.assert_array_equal(again.flipped[0], known.flipped[0])
    for text in ("photo,split\nx,test\n", "photo,split,bits,flipped\nx,test,AAAA,AAAA\n"):
        (tmp_path / "b.csv").write_text(text)
        read_fingerprints.cache_clear()
        with pytest.raises(CosegError, match=r"b\.csv: (damaged|cannot be read)"):
            read_fingerprints(tmp_path / "b.csv")
    with pytest.raises(CosegError, match="no such file"):
        read_fingerprints(tmp_path / "c.csv")


def test_unknown_photographs_are_compared_once_and_those_of_the_test_sets_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    tested, cleared = (picture(name, 320, 240) for name in ("tested", "cleared"))
    first = [_photo(save(tested, tmp_path / "t.png")), _photo(save(cleared, tmp_path / "c.png"))]
    write_fingerprints(fingerprints_of(first, ["test", "train"]), tmp_path / "fingerprints.csv")
    mirrored = tested.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((200, 150))
    photos = [
        _photo(save(cleared, tmp_path / "c.png")),
        _photo(save(mirrored, tmp_path / "twin.jpg")),
        _photo(save(picture("new"), tmp_path / "new.jpg")),
    ]
    assert [p.name for p in without_test_photos(photos, tmp_path)] == ["c", "new"]
    monkeypatch.setattr(fingerprints, "read_image", lambda *a, **k: pytest.fail("read again"))
    assert [p.name for p in without_test_photos(photos, tmp_path)] == ["c", "new"]
    assert [p.name for p in without_test_photos(photos[:1], tmp_path)] == ["c"]
    (tmp_path / "new.jpg").unlink()
    with pytest.raises(CosegError, match=r"new\.jpg: no such file"):
        without_test_photos(photos, tmp_path)
