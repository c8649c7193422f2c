"""Images before they are sent: original bytes or a named bad input, and nothing in between."""

from __future__ import annotations

import gc
import hashlib
import io
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from dataset_builders import png_chunk, tiny_png, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pytest_mirsafety.data.files import FileImages
from pytest_mirsafety.errors import BadInputError
from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.records import Completion, ImageRef, LoadedImage, Request


class MemoryImages:
    """Images held in memory, and a list of those that were read."""

    def __init__(self, **images: bytes) -> None:
        self.images = images
        self.version = 0
        self.reads: list[str] = []

    def stamp(self, locator: str) -> str:
        return f"{locator}:{self.version}"

    def read(self, locator: str) -> bytes:
        self.reads.append(locator)
        return self.images[locator]

    def path(self, locator: str) -> Path | None:  # noqa: ARG002 - the protocol's
        return None

    def ref(self, locator: str, sha256: str | None = None) -> ImageRef:
        return ImageRef(f"pictures/{locator}", locator, self, sha256)


class MemoryStore:
    """The part of a store that keeps digests."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    def get(self, key: str) -> Completion | None:
        raise NotImplementedError

    def held(self, keys: Collection[str]) -> set[str]:
        raise NotImplementedError

    def put_all(self, answers: Sequence[tuple[Request, Completion]]) -> list[Completion]:
        raise NotImplementedError

    def image_digest(self, stamp: str) -> str | None:
        return self.digests.get(stamp)

    def image_digests(self, stamps: Collection[str]) -> dict[str, str]:
        return {stamp: self.digests[stamp] for stamp in stamps if stamp in self.digests}

    def put_image_digest(self, stamp: str, sha256: str) -> None:
        self.digests[stamp] = sha256


def encode(kind: str, size: tuple[int, int] = (6, 5), **options: object) -> bytes:
    """A gradient in this format."""
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def inspect(
    content: bytes, limits: ImageLimits | None = None, *, pixels: bool = False
) -> LoadedImage:
    source = MemoryImages(picture=content)
    reader = ImageReader(limits or ImageLimits(), None, pixels=pixels)
    return reader.inspect(source.ref("picture"))


GOOD = {
    "PNG": (encode("PNG"), "image/png"),
    "PNG, interlaced or not, with text": (tiny_png(), "image/png"),
    "JPEG": (encode("JPEG"), "image/jpeg"),
    "JPEG, progressive": (encode("JPEG", progressive=True), "image/jpeg"),
    "JPEG with EXIF": (encode("JPEG", exif=Image.Exif(), comment=b"hello"), "image/jpeg"),
    "WebP": (encode("WEBP"), "image/webp"),
    "WebP, lossless": (encode("WEBP", lossless=True), "image/webp"),
    "WebP, extended": (encode("WEBP", exif=b"Exif\0\0", icc_profile=b"x"), "image/webp"),
    "bytes after the end": (tiny_png() + b"more", "image/png"),
}


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_a_good_image_is_passed_on_untouched(name: str, pixels: bool) -> None:
    content, kind = GOOD[name]
    image = inspect(content, pixels=pixels)
    assert image.content == content
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    assert image.media_type == kind


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def png_header(width: int, height: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def webp_of(width: int, height: int) -> bytes:
    """The header of an extended WebP file of this size, and nothing after it."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose frame claims this size."""
    content = encode("JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


IDAT = zlib.compress((b"\0" + bytes(12)) * 4)
BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "is not PNG, JPEG or WebP: it starts with b'hello'"),
    "HTML": (b"<!DOCTYPE html><img>", "is not PNG"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not PNG"),
    "GIF": (encode("GIF"), "is not PNG"),
    "BMP": (encode("BMP"), "is not PNG"),
    "TIFF": (encode("TIFF"), "is not PNG"),
    "a pointer of git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "is not PNG"),
    "animated PNG": (animated("PNG"), "is animated"),
    "animated WebP": (animated("WEBP"), "is animated"),
    "signature only": (b"\x89PNG\r\n\x1a\n", "is cut off"),
    "PNG without header": (png_of((b"IDAT", IDAT), (b"IEND", b"")), "first chunk is not IHDR"),
    "PNG without pixels": (
        png_of((b"IHDR", png_header(4, 4)), (b"IEND", b"")),
        "its pixels are cut off",
    ),
    "PNG with few pixels": (
        png_of((b"IHDR", png_header(4, 5)), (b"IDAT", IDAT), (b"IEND", b"")),
        "its pixels are cut off",
    ),
    "PNG with noise for pixels": (
        png_of((b"IHDR", png_header(4, 4)), (b"IDAT", b"noise"), (b"IEND", b"")),
        "cannot be decoded",
    ),
    "PNG with a sixth filter": (
        png_of(
            (b"IHDR", png_header(4, 4)),
            (b"IDAT", zlib.compress((b"\5" + bytes(12)) * 4)),
            (b"IEND", b""),
        ),
        "a row has no valid filter",
    ),
    "PNG of an unknown kind": (
        png_of((b"IHDR", png_header(4, 4)[:8] + bytes((8, 5, 0, 0, 0))), (b"IEND", b"")),
        "kind 5-8-[0, 0, 0] is unknown",
    ),
    "PNG with a short header": (png_of((b"IHDR", bytes(9)), (b"IEND", b"")), "is cut off"),
    "PNG of no width": (
        png_of((b"IHDR", png_header(0, 4)), (b"IDAT", IDAT), (b"IEND", b"")),
        "has 0 x 4 pixels",
    ),
    "PNG bomb": (
        png_of((b"IHDR", png_header(2**31 - 1, 2**31 - 1)), (b"IDAT", IDAT), (b"IEND", b"")),
        "has 2147483647 x 2147483647 pixels; the limit is 50,000,000",
    ),
    "JPEG bomb": (jpeg_of(65535, 65535), "has 65535 x 65535 pixels"),
    "WebP bomb": (webp_of(2**24, 2**24), "has 16777216 x 16777216 pixels"),
    "JPEG without frame": (b"\xff\xd8\xff\xda" + bytes(20), "does not tell its size"),
    "JPEG without markers": (b"\xff\xd8\xff\xe0\0\x04ab" + bytes(9), "no marker at byte 8"),
    "JPEG signature only": (b"\xff\xd8\xff", "is cut off"),
    "WebP of nothing": (webp_of(4, 4), "cannot be decoded"),
    "WebP of another kind": (b"RIFF\0\0\0\0WEBPVP9 " + bytes(20), "no WebP"),
    "PNG named by its start only": (b"\x89PNG\r\n\x1a\n<html></html>" + bytes(20), "is cut off"),
}


WRITTEN_WRONG = ("PNG with few pixels", "PNG with noise for pixels", "PNG with a sixth filter")
"""Whole by every checksum: what their writer wrote is all there, and is no picture."""


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_named_with_its_reason(name: str, pixels: bool) -> None:
    content, problem = BAD[name]
    if name in WRITTEN_WRONG and not pixels:
        assert inspect(content).content == content
        return
    with pytest.raises(BadInputError) as caught:
        inspect(content, pixels=pixels)
    message = str(caught.value)
    assert message.startswith("image pictures/picture: ")
    assert problem in message
    assert message.isprintable()


def interlaced(width: int, height: int) -> bytes:
    """A black interlaced PNG of 8-bit RGB."""
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    rows = b""
    for x, y, dx, dy in (*starts, (0, 1, 1, 2)):
        columns = len(range(x, width, dx))
        rows += (b"\0" + bytes(3 * columns)) * len(range(y, height, dy)) if columns else b""
    header = png_header(width, height)[:-1] + b"\1"
    return png_of((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def truecolour(width: int, height: int, missing: int) -> bytes:
    """A black PNG of 8-bit RGB whose pixel data lack their last bytes."""
    rows = (b"\0" + bytes(3 * width)) * height
    data = zlib.compress(rows[: len(rows) - missing])
    return png_of((b"IHDR", png_header(width, height)), (b"IDAT", data), (b"IEND", b""))


@given(
    st.sampled_from(("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 9),
)
@settings(deadline=None)
def test_every_kind_of_png_that_pillow_writes_passes(
    mode: str, width: int, height: int, level: int
) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 1).save(buffer, "PNG", compress_level=level)
    assert inspect(buffer.getvalue(), pixels=True).content == buffer.getvalue()


@given(st.integers(1, 20), st.integers(1, 20))
def test_an_interlaced_png_passes_here_and_in_pillow(width: int, height: int) -> None:
    content = interlaced(width, height)
    assert inspect(content, pixels=True).content == content
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_no_png_is_decoded_that_lacks_pixels(width: int, height: int, draw: st.DataObject) -> None:
    inspect(truecolour(width, height, 0), pixels=True)
    missing = draw.draw(st.integers(1, (3 * width + 1) * height))
    with pytest.raises(BadInputError, match="its pixels are cut off"):
        inspect(truecolour(width, height, missing), pixels=True)


@given(
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.tuples(*(st.integers(0, top) for top in (17, 7, 1, 1, 2))),
    st.lists(st.integers(0, 5), max_size=120).map(bytes),
)
@settings(max_examples=300, deadline=None)
def test_a_png_that_is_decoded_here_is_in_pillow(
    size: tuple[int, int], kind: tuple[int, ...], pixels: bytes
) -> None:
    header = struct.pack(">IIBBBBB", *size, *kind)
    palette = (b"PLTE", bytes(range(256)) * 3)
    content = png_of(
        (b"IHDR", header), palette, (b"IDAT", zlib.compress(pixels * 9)), (b"IEND", b"")
    )
    with suppress(BadInputError):
        inspect(content, pixels=True)
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()


@given(st.integers(0, len(tiny_png()) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_png_passes(at: int, change: int) -> None:
    content = bytearray(tiny_png())
    content[at] ^= change
    with pytest.raises(BadInputError):
        inspect(bytes(content))


@given(st.integers(0, len(tiny_png()) - 1))
def test_no_cut_png_passes(length: int) -> None:
    with pytest.raises(BadInputError):
        inspect(tiny_png()[:length])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_no_halved_image_passes(kind: str) -> None:
    content = encode(kind, (64, 64))
    for length in range(0, len(content) * 9 // 10, 7):
        with pytest.raises(BadInputError):
            inspect(content[:length])


@given(
    st.sampled_from([content for content, _ in GOOD.values()]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.integers(0, 50),
    st.binary(max_size=8),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_image_or_a_bad_input(
    content: bytes,
    changes: list[tuple[int, int]],
    cut: int,
    tail: bytes,
    pixels: bool,
) -> None:
    damaged = bytearray(content[: len(content) - cut] + tail)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    with suppress(BadInputError):
        assert inspect(bytes(damaged), pixels=pixels).content == bytes(damaged)


def test_damaged_metadata_of_a_jpeg_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\xff" * 20
    content = encode("JPEG", exif=exif)
    assert exif in content
    assert inspect(content).content == content
    assert not recwarn.list


def test_a_large_image_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    side = int(Image.MAX_IMAGE_PIXELS**0.5) + 10
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    limits = ImageLimits(max_pixels=side * side)
    assert inspect(buffer.getvalue(), limits).media_type == "image/png"
    assert not recwarn.list


def test_limits_are_inclusive() -> None:
    content = encode("PNG", (6, 5))
    fits = ImageLimits(max_bytes=len(content), max_pixels=30)
    assert inspect(content, fits).content == content
    for limits in (replace(fits, max_bytes=len(content) - 1), replace(fits, max_pixels=29)):
        with pytest.raises(BadInputError, match="the limit is"):
            inspect(content, limits)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: no memory could hold it
    ref = ImageRef("huge.png", "huge.png", FileImages(tmp_path))
    with pytest.raises(BadInputError, match=r"^image huge.png: has 1,099,511,627,776 bytes"):
        ImageReader(ImageLimits(), None).inspect(ref)


def test_the_name_tells_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", tiny_png())
    image = ImageReader(ImageLimits(), None).inspect(
        ImageRef("a.jpg", "a.jpg", FileImages(tmp_path))
    )
    assert image.media_type == "image/png"
    assert image.path == (tmp_path / "a.jpg").resolve()


def test_a_declared_digest_must_agree() -> None:
    source = MemoryImages(a=tiny_png())
    right = hashlib.sha256(tiny_png()).hexdigest()
    store = MemoryStore()
    reader = ImageReader(ImageLimits(), store)
    assert reader.inspect(source.ref("a", right)).sha256 == right
    for known in (store, None):
        with pytest.raises(BadInputError, match="the dataset declares 0000"):
            ImageReader(ImageLimits(), known).inspect(source.ref("a", "0" * 64))


def test_a_good_image_is_read_once() -> None:
    source = MemoryImages(a=tiny_png())
    store = MemoryStore()
    first = ImageReader(ImageLimits(), store).inspect(source.ref("a"))
    again = ImageReader(ImageLimits(), store).inspect(source.ref("a"))
    assert source.reads == ["a"]
    assert again == LoadedImage(first.sha256, "", b"")


def test_another_stamp_or_limit_reads_again() -> None:
    source = MemoryImages(a=tiny_png())
    store = MemoryStore()
    ImageReader(ImageLimits(), store).inspect(source.ref("a"))
    ImageReader(ImageLimits(max_pixels=17), store).inspect(source.ref("a"))
    with pytest.raises(BadInputError):
        ImageReader(ImageLimits(max_pixels=15), store).inspect(source.ref("a"))
    source.version, source.images["a"] = 1, tiny_png(1)
    image = ImageReader(ImageLimits(), store).inspect(source.ref("a"))
    assert image.content == tiny_png(1)
    assert len(source.reads) == 4


def test_a_bad_image_is_never_remembered() -> None:
    source = MemoryImages(a=b"bad")
    store = MemoryStore()
    reader = ImageReader(ImageLimits(), store)
    for _ in range(2):
        with pytest.raises(BadInputError):
            reader.inspect(source.ref("a"))
    assert source.reads == ["a", "a"]
    assert not store.digests


class Shifting(MemoryImages):
    """Images that change while they are read."""

    def read(self, locator: str) -> bytes:
        self.version += 1
        return super().read(locator)


def test_an_image_that_changes_while_it_is_read_is_a_bad_input() -> None:
    store = MemoryStore()
    with pytest.raises(BadInputError, match="was changed while it was read"):
        ImageReader(ImageLimits(), store).inspect(Shifting(a=tiny_png()).ref("a"))
    assert not store.digests


def test_fill_reads_what_is_not_there_and_only_that(tmp_path: Path) -> None:
    write(tmp_path / "a.png", tiny_png())
    ref = ImageRef("a.png", "a.png", FileImages(tmp_path))
    reader = ImageReader(ImageLimits(), MemoryStore())
    first = reader.inspect(ref)
    assert reader.fill(ref, first) is first
    known = reader.inspect(ref)
    assert known.content == b""
    assert reader.fill(ref, known) == first


def test_fill_refuses_other_bytes_under_the_same_stamp() -> None:
    source = MemoryImages(a=tiny_png())
    reader = ImageReader(ImageLimits(), MemoryStore())
    reader.inspect(source.ref("a"))
    known = reader.inspect(source.ref("a"))
    source.images["a"] = tiny_png(1)
    with pytest.raises(BadInputError, match="was changed since it was checked"):
        reader.fill(source.ref("a"), known)


def test_paths_come_with_remembered_images_when_they_are_wanted(tmp_path: Path) -> None:
    write(tmp_path / "a.png", tiny_png())
    ref = ImageRef("a.png", "a.png", FileImages(tmp_path))
    store = MemoryStore()
    ImageReader(ImageLimits(), store).inspect(ref)
    assert ImageReader(ImageLimits(), store).inspect(ref).path is None
    wanted = ImageReader(ImageLimits(), store, paths=True).inspect(ref)
    assert wanted.path == (tmp_path / "a.png").resolve()
    assert wanted.content == b""


def broken_pipe(locator: str) -> bytes:
    raise OSError(5, "Input/output error", "/secret/place")


def test_a_source_that_fails_is_a_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryImages(a=tiny_png())
    monkeypatch.setattr(source, "read", broken_pipe)
    with pytest.raises(BadInputError, match=r"^image pictures/a: Input/output error$"):
        ImageReader(ImageLimits(), None).inspect(source.ref("a"))


def test_a_hostile_name_stays_on_one_line() -> None:
    ref = replace(MemoryImages(a=b"").ref("a"), name="a\n\x1b[31m" + "x" * 999)
    with pytest.raises(BadInputError) as caught:
        ImageReader(ImageLimits(), None).inspect(ref)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 400


@pytest.mark.parametrize("make", [MemoryStore, lambda: None])
def test_threads_may_share_a_reader(make: Callable[[], MemoryStore | None]) -> None:
    source = MemoryImages(**{f"n{n}": tiny_png(n) for n in range(40)})
    reader = ImageReader(ImageLimits(), make())
    refs = [source.ref(name) for name in source.images] * 2
    with ThreadPoolExecutor(8) as pool:
        digests = [image.sha256 for image in pool.map(reader.inspect, refs)]
    expected = [hashlib.sha256(content).hexdigest() for content in source.images.values()]
    assert digests == expected * 2


class SlowImages(MemoryImages):
    """Images whose reading takes long enough for others to come along."""

    def read(self, locator: str) -> bytes:
        content = super().read(locator)
        threading.Event().wait(0.02)
        return content


@pytest.mark.parametrize("make", [MemoryStore, lambda: None])
def test_an_image_is_read_once_while_somebody_holds_it(
    make: Callable[[], MemoryStore | None],
) -> None:
    source = SlowImages(a=tiny_png(), twin=tiny_png())
    reader = ImageReader(ImageLimits(), make())

    def load(locator: str) -> LoadedImage:
        ref = source.ref(locator)
        return reader.fill(ref, reader.inspect(ref))

    held = reader.inspect(source.ref("a"))
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(load, ["a"] * 8 + ["twin"] * 8))
    assert all(image is held for image in images)
    assert source.reads == ["a", "twin"]


def test_an_image_that_nobody_holds_is_let_go() -> None:
    source = MemoryImages(a=tiny_png())
    reader = ImageReader(ImageLimits(), None)
    image = weakref.ref(reader.inspect(source.ref("a")))
    gc.collect()
    assert image() is None
    reader.inspect(source.ref("a"))
    assert source.reads == ["a", "a"]


def test_no_damage_is_declared_away() -> None:
    content = truecolour(6, 5, 0)
    damaged = content[:45] + bytes([content[45] ^ 1]) + content[46:]
    source = MemoryImages(a=damaged)
    reader = ImageReader(ImageLimits(), MemoryStore())
    with pytest.raises(BadInputError, match="checksum"):
        reader.inspect(source.ref("a", hashlib.sha256(damaged).hexdigest()))


def test_a_look_at_checksums_is_none_at_pixels() -> None:
    source, store = MemoryImages(a=truecolour(6, 5, 1)), MemoryStore()
    ImageReader(ImageLimits(), store).inspect(source.ref("a"))
    with pytest.raises(BadInputError, match="its pixels are cut off"):
        ImageReader(ImageLimits(), store, pixels=True).inspect(source.ref("a"))
