"""Small pictures: made of images that were checked, and kept such that no file is trusted."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from dataset_builders import tiny_png
from PIL import Image

from pytest_mirsafety.digests import digest
from pytest_mirsafety.errors import BadInputError, DataError
from pytest_mirsafety.images.thumbnails import LONG_SIDE, thumbnail
from pytest_mirsafety.records import LoadedImage
from pytest_mirsafety.run_folder import thumbnails
from pytest_mirsafety.run_folder.thumbnails import THUMBNAIL_LIMIT, Thumbnails

A, B = digest("a"), digest("b")
WEBP = b"RIFF\0\0\0\0WEBP" + b"p" * 50
LIMIT = 2**24


def loaded(content: bytes, kind: str = "image/png") -> LoadedImage:
    return LoadedImage("", kind, content)


@pytest.mark.parametrize(("size", "small"), [((800, 400), (200, 100)), ((30, 40), (30, 40))])
def test_the_long_side_is_bounded(size: tuple[int, int], small: tuple[int, int]) -> None:
    content = thumbnail(loaded(tiny_png(width=size[0], height=size[1])))
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("WEBP", small)
    assert len(content) < THUMBNAIL_LIMIT


def test_it_is_upright_and_without_metadata() -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "somebody's garden"
    Image.new("RGB", (80, 40)).save(file, "JPEG", exif=exif)
    with Image.open(io.BytesIO(thumbnail(loaded(file.getvalue(), "image/jpeg")))) as image:
        assert image.size == (40, 80)
        assert not image.getexif()


def test_noise_stays_within_the_limit_of_the_file() -> None:
    file = io.BytesIO()
    Image.effect_noise((LONG_SIDE, LONG_SIDE), 100).save(file, "PNG")
    assert len(thumbnail(loaded(file.getvalue()))) < THUMBNAIL_LIMIT


def test_what_cannot_be_decoded_is_bad_input() -> None:
    with pytest.raises(BadInputError, match="cannot be decoded"):
        thumbnail(loaded(tiny_png(width=100, height=100)[:60]))


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    kept = Thumbnails({A: WEBP}, {"x/y/1": (A, B)})
    thumbnails.write(path, kept)
    first = path.read_bytes()
    assert thumbnails.read(path, LIMIT) == kept
    thumbnails.write(path, kept)
    assert path.read_bytes() == first
    assert [one.name for one in tmp_path.iterdir()] == ["thumbnails.zip"]


def test_no_file_has_nothing(tmp_path: Path) -> None:
    assert thumbnails.read(tmp_path / "none", LIMIT) == Thumbnails()


def test_foreign_members_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.webp", WEBP)
        archive.writestr(f"{A.upper()}.webp", WEBP)
        archive.writestr(f"{digest('svg')}.webp", "<svg onload=alert(1)>")
        archive.writestr(f"{digest('huge')}.webp", WEBP + b"\0" * THUMBNAIL_LIMIT)
        archive.writestr(f"{digest('bomb')}.webp", WEBP, zipfile.ZIP_DEFLATED)
        archive.writestr("of-the-data.json", '{"a": ["no digest"], "b": 1, "c": [1]}')
        archive.writestr(f"{B}.webp", WEBP)
    assert thumbnails.read(path, LIMIT) == Thumbnails({B: WEBP})


def test_no_more_is_read_than_the_page_takes(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    thumbnails.write(path, Thumbnails({A: WEBP, B: WEBP}))
    assert thumbnails.read(path, len(WEBP)).small == {A: WEBP}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\0" * 100])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thumbnails.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"thumbnails\.zip: cannot be read: .*; remove it") as error:
        thumbnails.read(path, LIMIT)
    assert "\n" not in str(error.value)


def test_an_entry_beyond_the_end_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    thumbnails.write(path, Thumbnails({A: WEBP}))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    for place in (entry + 20, entry + 24):  # the sizes in the index: of what is there, and of it
        content[place : place + 4] = (2**17).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        thumbnails.read(path, LIMIT)


def test_a_broken_index_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("of-the-data.json", "{")
    with pytest.raises(DataError, match="remove it"):
        thumbnails.read(path, LIMIT)
