"""Edited pictures: the same bytes for the same edit, nothing clipped or lost, bad input refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from dataset_builders import tiny_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scripted import MemoryStore, make_instance

from pytest_mirsafety.data.files import FileImages
from pytest_mirsafety.edits import Edit, ImageKind, ImageStep, Reorder, TextKind, TextStep
from pytest_mirsafety.errors import BadInputError
from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.images.checks import check, media_type
from pytest_mirsafety.images.editing import ImageEditor, edited_bytes
from pytest_mirsafety.images.pixels import as_shown, to_png
from pytest_mirsafety.metamorphic import drawing
from pytest_mirsafety.records import ImageRef, Instance

LIMITS = ImageLimits()
STEPS = drawing.image_edits().map(lambda edit: edit.image_steps)


def pictures(least: int = 1) -> st.SearchStrategy[Image.Image]:
    sides = st.integers(least, 24)
    return st.tuples(sides, sides).flatmap(
        lambda size: st.binary(min_size=3 * size[0] * size[1], max_size=3 * size[0] * size[1]).map(
            lambda pixels: Image.frombytes("RGB", size, pixels)
        )
    )


def shown(content: bytes) -> Image.Image:
    return as_shown(content, media_type(content), LIMITS.max_pixels)


def step(kind: ImageKind, level: int = 8) -> list[ImageStep]:
    return [ImageStep(kind, level)]


@settings(deadline=None)
@given(pictures(), STEPS)
def test_every_edit_gives_a_whole_image_and_always_the_same(
    picture: Image.Image, steps: Sequence[ImageStep]
) -> None:
    content = to_png(picture)
    found = edited_bytes(content, steps, LIMITS)
    check(found, media_type(found), LIMITS.max_pixels, pixels=True)
    assert found == edited_bytes(content, steps, LIMITS)
    assert (found == content) or steps


@settings(deadline=None)
@given(pictures(8), STEPS)
def test_a_picture_keeps_its_size_within_the_bounds(
    picture: Image.Image, steps: Sequence[ImageStep]
) -> None:
    found = shown(edited_bytes(to_png(picture), steps, LIMITS))
    for side, other, after in zip(picture.size, reversed(picture.size), found.size, strict=True):
        longer = max(side, other)
        assert 0.6 * side - 1 <= after <= side + 0.16 * longer + 0.08 * other + 4


@settings(deadline=None)
@given(pictures(), drawing.image_edits(), st.data())
def test_two_edits_in_turn_are_the_edit_of_both(
    picture: Image.Image, edit: Edit, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(edit.steps)))
    first, then = edit.image_steps[:cut], edit.image_steps[cut:]
    content = to_png(picture)
    in_turn = edited_bytes(edited_bytes(content, first, LIMITS), then, LIMITS)
    assert in_turn == edited_bytes(content, edit.image_steps, LIMITS)


TONES = (
    ImageKind.BRIGHTER,
    ImageKind.DARKER,
    ImageKind.MORE_CONTRAST,
    ImageKind.LESS_CONTRAST,
)


@pytest.mark.parametrize("kind", TONES)
@pytest.mark.parametrize("level", [1, 8])
def test_tones_are_never_clipped(kind: ImageKind, level: int) -> None:
    """Shades that differ by three or more still differ, and none changes places with another."""
    ramp = Image.new("L", (256, 1))
    ramp.putdata(range(256))
    content = to_png(ramp.convert("RGB"))
    found = list(shown(edited_bytes(content, step(kind, level), LIMITS)).getchannel(0).tobytes())
    assert found == sorted(found)
    assert all(found[at + 3] > found[at] for at in range(253))


def mean(content: bytes) -> float:
    pixels = shown(content).convert("L").tobytes()
    return sum(pixels) / len(pixels)


def test_a_brighter_picture_is_brighter_by_level() -> None:
    content = to_png(Image.new("RGB", (4, 4), (100, 100, 100)))
    levels = [mean(edited_bytes(content, step(ImageKind.BRIGHTER, at), LIMITS)) for at in (1, 4, 8)]
    assert [100, *levels] == sorted([100, *levels])
    assert levels[-1] == round(100 + 0.4 * 155)
    assert mean(edited_bytes(content, step(ImageKind.DARKER), LIMITS)) == 60


def test_the_encoding_is_the_last_steps() -> None:
    content = tiny_png()
    assert media_type(edited_bytes(content, step(ImageKind.JPEG), LIMITS)) == "image/jpeg"
    assert media_type(edited_bytes(content, step(ImageKind.PNG, 1), LIMITS)) == "image/png"
    assert shown(edited_bytes(content, step(ImageKind.PNG, 1), LIMITS)).tobytes() == (
        shown(content).tobytes()
    )


def test_nothing_is_cut_off_by_a_turn_and_the_rest_is_white() -> None:
    content = to_png(Image.new("RGB", (40, 20)))
    found = shown(edited_bytes(content, step(ImageKind.ROTATE_LEFT), LIMITS))
    assert found.width >= 40
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert sum(value < 128 for value in found.convert("L").tobytes()) >= 0.97 * 800


def test_an_edit_is_of_the_picture_as_a_viewer_shows_it() -> None:
    """EXIF turns it, transparency is white, and what else the file said is gone."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 3), "red").save(buffer, "JPEG", exif=exif)
    found = edited_bytes(buffer.getvalue(), step(ImageKind.PNG, 1), LIMITS)
    assert shown(found).size == (3, 6)
    assert b"Exif" not in found
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(buffer, "PNG")
    assert mean(edited_bytes(buffer.getvalue(), step(ImageKind.PNG, 1), LIMITS)) == 255


@pytest.mark.parametrize("kind", [ImageKind.PNG, ImageKind.BRIGHTER])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"GIF89a", "is not PNG, JPEG or WebP"),
        (tiny_png()[:-30], "cut off|checksum"),
        (tiny_png(width=101, height=100), "has 101 x 100 pixels; the limit is 10,000 in all"),
        (bytes(3000), "has 3,000 bytes; the limit is 2,000"),
    ],
)
def test_what_cannot_be_sent_cannot_be_edited(
    kind: ImageKind, content: bytes, problem: str
) -> None:
    with pytest.raises(BadInputError, match=problem):
        edited_bytes(content, [ImageStep(kind, 1)], ImageLimits(2000, 10_000))


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    source = FileImages(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(tiny_png(number))
    refs = tuple(ImageRef(f"{n}.png", f"{n}.png", source) for n in range(3))
    return replace(make_instance("a", prompt="What now?"), images=refs)


BRIGHT = Edit((ImageStep(ImageKind.BRIGHTER, 2),))
TURNED = Edit((Reorder((2, 0, 1)), TextStep(TextKind.CASE, 3)))


def test_the_identity_is_the_instance_itself(instance: Instance) -> None:
    assert ImageEditor().edited(instance, Edit()) is instance


def test_an_edited_instance_has_the_order_the_prompt_and_the_pictures(instance: Instance) -> None:
    found = ImageEditor().edited(instance, BRIGHT.then(TURNED))
    assert found.prompt == "WHAT NOW?"
    assert found.question == instance.question
    assert [ref.name for ref in found.images] == [
        f"{n}.png (pictures 10% brighter)" for n in (2, 0, 1)
    ]
    for ref, number in zip(found.images, (2, 0, 1), strict=True):
        expected = edited_bytes(tiny_png(number), BRIGHT.image_steps, LIMITS)
        assert ref.source.read(ref.locator) == expected


def test_an_order_alone_sends_the_originals(instance: Instance) -> None:
    found = ImageEditor().edited(instance, TURNED)
    assert found.images == (instance.images[2], instance.images[0], instance.images[1])
    assert found.images[0].source is instance.images[2].source


def test_editing_twice_is_the_edit_of_both(instance: Instance) -> None:
    editor, jpeg = ImageEditor(), Edit((ImageStep(ImageKind.JPEG, 3),))
    twice = editor.edited(editor.edited(instance, BRIGHT), jpeg)
    once = editor.edited(instance, BRIGHT.then(jpeg))
    assert [r.locator for r in twice.images] == [r.locator for r in once.images]
    for a, b in zip(twice.images, once.images, strict=True):
        assert a.source.stamp(a.locator) == b.source.stamp(b.locator)
        assert a.source.read(a.locator) == b.source.read(b.locator)
    with pytest.raises(ValueError, match="tone once"):
        editor.edited(editor.edited(instance, BRIGHT), BRIGHT)


def test_the_reader_reads_checks_and_remembers_edited_images(instance: Instance) -> None:
    store = MemoryStore()
    ref = ImageEditor().edited(instance, BRIGHT).images[0]
    image = ImageReader(LIMITS, store).inspect(ref)
    expected = edited_bytes(tiny_png(0), BRIGHT.image_steps, LIMITS)
    assert image.sha256 == hashlib.sha256(expected).hexdigest()
    assert image.path is None
    reader = ImageReader(LIMITS, store)
    again = reader.inspect(ImageEditor().edited(instance, BRIGHT).images[0])
    assert (again.sha256, again.content) == (image.sha256, b"")  # by its stamp, unread
    assert reader.fill(ref, again).content == expected


def test_the_stamp_tells_edits_and_originals_apart(instance: Instance) -> None:
    editor = ImageEditor()
    other = Edit((ImageStep(ImageKind.BRIGHTER, 3),))
    refs = [*editor.edited(instance, BRIGHT).images, *editor.edited(instance, other).images]
    assert len({ref.source.stamp(ref.locator) for ref in refs}) == 6


def test_an_original_that_is_not_as_declared_is_bad_input(instance: Instance) -> None:
    declared = replace(instance.images[0], sha256="0" * 64)
    found = ImageEditor().edited(replace(instance, images=(declared,)), BRIGHT).images[0]
    with pytest.raises(BadInputError, match="the dataset declares 000"):
        found.source.read(found.locator)


def test_a_file_that_is_too_large_is_not_read(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(tiny_png() + bytes(5000))
    ref = ImageEditor(ImageLimits(max_bytes=1000)).edited(instance, BRIGHT).images[0]
    with pytest.raises(BadInputError, match="the limit is 1,000"):
        ref.source.read(ref.locator)
    (tmp_path / "1.png").unlink()
    gone = ImageEditor().edited(instance, BRIGHT).images[1]
    with pytest.raises(BadInputError, match="there is no such file"):
        gone.source.stamp(gone.locator)
