"""Images side by side: every pixel of every image is in the one that is sent, and nothing else."""

from __future__ import annotations

import gc
import hashlib
import io
import struct
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from dataset_builders import png_chunk, tiny_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from pytest_mirsafety.errors import BadInputError
from pytest_mirsafety.images import ImageLimits, SideBySide
from pytest_mirsafety.images.checks import check
from pytest_mirsafety.images.composing import GAP, LAYOUT, side_by_side
from pytest_mirsafety.images.pixels import as_shown, to_png
from pytest_mirsafety.records import LoadedImage

WHITE = (255, 255, 255)
LIMITS = ImageLimits()


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def pictures(mode: str = "RGB", most: int = 12) -> st.SearchStrategy[Image.Image]:
    """Small ones, of any pixels."""
    sides = st.integers(1, most)
    return st.tuples(sides, sides).flatmap(
        lambda size: st.binary(
            min_size=len(mode) * size[0] * size[1], max_size=len(mode) * size[0] * size[1]
        ).map(lambda pixels: Image.frombytes(mode, size, pixels))
    )


def cut_up(composed: Image.Image, sizes: list[tuple[int, int]]) -> list[Image.Image]:
    """The images at their places, after a look that all else is white."""
    rest, parts, left = composed.copy(), [], 0
    for width, height in sizes:
        box = (left, 0, left + width, height)
        parts.append(composed.crop(box))
        rest.paste(WHITE, box)
        left += width + GAP
    assert composed.size == (left - GAP, max(height for _, height in sizes))
    assert rest.getcolors() == [(rest.width * rest.height, WHITE)]
    return parts


def batched(pixels: bytes, size: int) -> list[bytes]:
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]


def loaded(content: bytes) -> LoadedImage:
    return LoadedImage(hashlib.sha256(content).hexdigest(), "image/png", content)


@given(st.lists(pictures(), min_size=1, max_size=4))
def test_cut_up_again_it_gives_every_image_in_order(images: list[Image.Image]) -> None:
    content = side_by_side([encoded(image) for image in images], LIMITS)
    check(content, "image/png", LIMITS.max_pixels, pixels=True)
    parts = cut_up(opened(content), [image.size for image in images])
    assert [part.tobytes() for part in parts] == [image.tobytes() for image in images]


@given(st.lists(pictures(most=4), min_size=2, max_size=3))
def test_the_same_images_give_the_same_bytes(images: list[Image.Image]) -> None:
    contents = [encoded(image) for image in images]
    assert side_by_side(contents, LIMITS) == side_by_side(contents, LIMITS)


@given(pictures())
def test_a_png_of_ours_holds_the_pixels(image: Image.Image) -> None:
    content = to_png(image)
    check(content, "image/png", LIMITS.max_pixels, pixels=True)
    read = opened(content)
    read.load()
    assert (read.mode, read.size, read.tobytes()) == ("RGB", image.size, image.tobytes())


@given(pictures("RGBA", most=6))
def test_what_is_transparent_is_white(image: Image.Image) -> None:
    shown = as_shown(encoded(image), "image/png", LIMITS.max_pixels)
    for dot, found in zip(batched(image.tobytes(), 4), batched(shown.tobytes(), 3), strict=True):
        *colours, alpha = dot
        for colour, seen in zip(colours, found, strict=True):
            assert abs(seen - (colour * alpha + 255 * (255 - alpha)) / 255) <= 1


GREY = Image.linear_gradient("L").resize((7, 5))
KEYED = encoded(Image.new("RGB", (3, 2), "red"), transparency=(255, 0, 0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(GREY), GREY.convert("RGB")),
        (encoded(GREY.convert("1")), GREY.convert("1").convert("RGB")),
        (encoded(GREY.convert("RGB").quantize(4)), GREY.convert("RGB").quantize(4).convert("RGB")),
        (encoded(GREY.convert("LA")), GREY.convert("RGB")),
        (encoded(Image.new("LA", (2, 2), (0, 0))), Image.new("RGB", (2, 2), "white")),
        (KEYED, Image.new("RGB", (3, 2), "white")),
    ],
    ids=["grey", "1 bit", "palette", "grey, opaque", "grey, transparent", "colour key"],
)
def test_every_kind_of_png_becomes_rgb(content: bytes, expected: Image.Image) -> None:
    shown = as_shown(content, "image/png", LIMITS.max_pixels)
    assert (shown.mode, shown.tobytes()) == ("RGB", expected.tobytes())


def test_sixteen_bits_of_grey_are_not_cut_to_white() -> None:
    values = [0, 0x0180, 0x8000, 0xFFFF]
    picture = Image.frombytes("I;16", (4, 1), struct.pack("<4H", *values))
    shown = as_shown(encoded(picture), "image/png", LIMITS.max_pixels)
    assert list(shown.convert("L").tobytes()) == [value >> 8 for value in values]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize(
    ("kind", "media", "options"),
    [
        ("PNG", "image/png", {}),
        ("WEBP", "image/webp", {"lossless": True}),
        ("JPEG", "image/jpeg", {"quality": 100, "subsampling": 0}),
    ],
)
def test_a_picture_stands_as_its_exif_data_say(
    orientation: int, kind: str, media: str, options: dict[str, object]
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    content = encoded(Image.radial_gradient("L").crop((9, 3, 90, 60)), kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(opened(content)).convert("RGB")
    shown = as_shown(content, media, LIMITS.max_pixels)
    assert (shown.size, shown.tobytes()) == (expected.size, expected.tobytes())


@settings(max_examples=200)
@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_no_exif_data_break_it(rest: bytes, start: bytes) -> None:
    picture = Image.new("RGB", (2, 1), "red")
    content = encoded(picture, "JPEG", exif=b"Exif\0\0" + start + rest)
    assert as_shown(content, "image/jpeg", LIMITS.max_pixels).size in ((2, 1), (1, 2))


def test_a_text_that_is_called_exif_is_no_exif() -> None:
    info = PngInfo()
    info.add_itxt("exif", "II*")
    content = encoded(Image.new("RGB", (2, 1), "red"), pnginfo=info)
    assert as_shown(content, "image/png", LIMITS.max_pixels).size == (2, 1)


def _short_of_pixels(content: bytes) -> bytes:
    """With right checksums, and half of the pixel data."""
    picture = opened(content)
    header = struct.pack(">IIBBBBB", picture.width, picture.height + 3, 8, 2, 0, 0, 0)
    start = content.index(b"IDAT") - 4
    return content[:8] + png_chunk(b"IHDR", header) + content[start:]


def _without_its_palette(_: bytes) -> bytes:
    content = encoded(Image.new("P", (4, 4)))
    start, end = content.index(b"PLTE") - 4, content.index(b"IDAT") - 4
    return content[:start] + content[end:]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda content: content[: len(content) // 2], "image 2: is cut off"),
        (_short_of_pixels, "image 2: cannot be decoded: its pixels are cut off"),
        (_without_its_palette, "image 2: cannot be decoded: it has no palette"),
        (lambda _: b"GIF89a", "image 2: is not PNG, JPEG or WebP"),
    ],
)
def test_no_part_of_a_spoilt_image_is_sent(spoil: Callable[[bytes], bytes], problem: str) -> None:
    good = encoded(Image.new("RGB", (8, 8), "red"))
    with pytest.raises(BadInputError, match=problem):
        side_by_side([good, spoil(good), good], LIMITS)


def test_a_picture_beyond_the_limits_is_refused_and_never_scaled() -> None:
    two = [encoded(Image.effect_noise((30, 20), 90)), encoded(Image.effect_noise((20, 30), 90))]
    whole = (30 + GAP + 20) * 30
    made = side_by_side(two, ImageLimits(max_pixels=whole))
    with pytest.raises(BadInputError, match=r"2 images .* more than 2,999 pixels \(limits.max_p"):
        side_by_side(two, ImageLimits(max_pixels=whole - 1))
    assert side_by_side(two, ImageLimits(max_bytes=len(made))) == made
    with pytest.raises(BadInputError, match=r"bytes \(limits\.max_bytes\); raise the limit"):
        side_by_side(two, ImageLimits(max_bytes=len(made) - 1))


class TestComposer:
    contents = (tiny_png(1), tiny_png(2))

    def test_the_one_image_knows_what_it_is_made_of(self) -> None:
        parts = [loaded(content) for content in self.contents]
        image = SideBySide(LIMITS).compose(parts)
        assert image.parts == tuple(part.sha256 for part in parts)
        assert image.sha256 == hashlib.sha256(image.content).hexdigest()
        assert image.content == side_by_side(self.contents, LIMITS)
        assert (image.media_type, image.path) == ("image/png", None)
        assert SideBySide.layout == LAYOUT == f"side-by-side-{GAP}"

    @pytest.mark.parametrize("keep", [True, False])
    def test_its_file_is_there_as_long_as_it_is_held(self, tmp_path: Path, keep: bool) -> None:
        composer = SideBySide(LIMITS, lambda: tmp_path, keep_content=keep)
        parts = [loaded(content) for content in self.contents]
        first, second = composer.compose(parts), composer.compose(parts)
        assert first.path is not None
        assert second.path is not None
        assert first.sha256 == second.sha256
        assert first.path != second.path, "the end of one would be the end of both"
        content = first.path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == first.sha256
        assert first.content == (content if keep else b"")
        assert first.path.parent == tmp_path
        del first
        gc.collect()
        assert list(tmp_path.iterdir()) == [second.path]

    def test_no_folder_is_made_before_it_is_needed(self) -> None:
        def folder() -> Path:
            raise AssertionError

        SideBySide(LIMITS, folder)

    def test_a_file_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        composer = SideBySide(LIMITS, lambda: tmp_path / "gone")
        with pytest.raises(BadInputError, match="cannot be written: No such file"):
            composer.compose([loaded(content) for content in self.contents])

    def test_many_threads_compose_at_once(self) -> None:
        composer, found = SideBySide(LIMITS), []
        parts = [loaded(content) for content in self.contents]
        threads = [
            threading.Thread(target=lambda: found.append(composer.compose(parts).sha256))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(found)) == 1

    def test_the_originals_are_let_go(self) -> None:
        parts = [loaded(content) for content in self.contents]
        gone = [weakref.ref(part) for part in parts]
        image = SideBySide(LIMITS).compose(parts)
        del parts
        gc.collect()
        assert [ref() for ref in gone] == [None, None]
        assert image.content
