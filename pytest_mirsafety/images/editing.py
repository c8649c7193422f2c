"""Pictures changed as an edit says: deterministic, so that equal edits of equal bytes are equal."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..digests import digest
from ..edits import Edit, ImageKind, ImageStep, reworded
from ..errors import BadInputError
from ..records import ImageRef, Instance
from .checks import media_type
from .pixels import as_shown, to_png
from .reading import ImageLimits

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

_AT_ONCE: Final = 4  # each takes some 10 bytes a pixel
_TONES: Final = 256
_WHITE: Final = (255, 255, 255)
_MOST: Final = 255


def edited_bytes(content: bytes, steps: Sequence[ImageStep], limits: ImageLimits) -> bytes:
    """The image after these steps: a PNG, or a JPEG if that is the last step.

    It is changed as a viewer shows it: upright, what is transparent on white, without metadata.
    Without steps its bytes stay. Equal input gives equal bytes, with the same libraries.

    Raises:
        BadInputError: it is damaged, none of the formats that are sent, or too large.
    """
    if len(content) > limits.max_bytes:
        raise BadInputError(f"has {len(content):,} bytes; the limit is {limits.max_bytes:,}")
    kind = media_type(content)
    if not steps:
        return content
    picture = as_shown(content, kind, limits.max_pixels)
    for step in steps[:-1]:
        picture = _changed(picture, step)
    last = steps[-1]
    return _jpeg(picture, last) if last.kind is ImageKind.JPEG else to_png(_changed(picture, last))


class ImageEditor:
    """Makes edited instances, whose pictures are changed when they are read. Threads may share it.

    Larger images than `limits` allow are bad input, and are not decoded.
    """

    def __init__(self, limits: ImageLimits | None = None) -> None:
        self.limits = limits or ImageLimits()
        self.turns = threading.BoundedSemaphore(_AT_ONCE)

    def edited(self, instance: Instance, edit: Edit) -> Instance:
        """The instance after this edit: its prompt, its images, and their order. Nothing is read.

        The identity gives the instance itself. Its id stays: what is asked tells the two apart.

        Raises:
            ValueError: the edit orders another number of images than there are.
        """
        if edit.identity:
            return instance
        images = edit.ordered(instance.images)
        if edit.image_steps:
            images = tuple(self._image(ref, edit.image_steps) for ref in images)
        return replace(instance, prompt=reworded(instance.prompt, edit.text_steps), images=images)

    def _image(self, ref: ImageRef, steps: tuple[ImageStep, ...]) -> ImageRef:
        source = ref.source
        if isinstance(source, EditedImage):  # so that two edits in turn are the edit of both
            ref, steps = source.original, (*source.steps, *steps)
        plain = Edit(steps)
        return ImageRef(
            f"{ref.name} ({plain})",
            f"{ref.locator}#{digest(plain.plain())[:16]}",
            EditedImage(ref, steps, self),
        )


class EditedImage:
    """The source of one image: another one, after some steps. It is made whenever it is read."""

    def __init__(
        self, original: ImageRef, steps: tuple[ImageStep, ...], editor: ImageEditor
    ) -> None:
        self.original = original
        self.steps = steps
        self._editor = editor

    def stamp(self, locator: str) -> str:  # noqa: ARG002 - it is the only one
        """Digest of the steps, of the original's stamp, and of the libraries that write the bytes.

        Raises:
            BadInputError: the original is missing.
        """
        original = self.original
        stamp = original.source.stamp(original.locator)
        return f"edited:{digest([_VERSION, _libraries(), Edit(self.steps).plain(), stamp])}"

    def read(self, locator: str) -> bytes:  # noqa: ARG002 - it is the only one
        """The changed image.

        Raises:
            BadInputError: the original is missing, damaged, too large, or not what is declared.
        """
        original, limits = self.original, self._editor.limits
        path = original.source.path(original.locator)
        if path is not None and (size := _size(path)) > limits.max_bytes:
            raise BadInputError(f"has {size:,} bytes; the limit is {limits.max_bytes:,}")
        content = original.source.read(original.locator)
        if original.sha256 is not None:
            found = hashlib.sha256(content).hexdigest()
            if found != original.sha256:
                raise BadInputError(f"has SHA-256 {found}; the dataset declares {original.sha256}")
        with self._editor.turns:
            return edited_bytes(content, self.steps, limits)

    def path(self, locator: str) -> None:
        """It is no file."""


_VERSION: Final = 1  # raised when a step gives other pixels


def _libraries() -> list[str]:
    import isal
    import PIL

    return [PIL.__version__, isal.__version__]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror or error}") from None


def _changed(picture: Image.Image, step: ImageStep) -> Image.Image:
    return _CHANGES[step.kind](picture, step)


def _resized(picture: Image.Image, step: ImageStep) -> Image.Image:
    from PIL.Image import Resampling

    share = 1 - step.amount
    width, height = (max(1, round(side * share)) for side in picture.size)
    return picture.resize((width, height), Resampling.LANCZOS)


def _bordered(picture: Image.Image, step: ImageStep) -> Image.Image:
    from PIL import Image

    width, height = picture.size
    border = max(1, round(max(width, height) * step.amount))
    canvas = Image.new("RGB", (width + 2 * border, height + 2 * border), _WHITE)
    canvas.paste(picture, (border, border))
    return canvas


def _cropped(picture: Image.Image, step: ImageStep) -> Image.Image:
    width, height = picture.size
    across, down = int(width * step.amount), int(height * step.amount)
    return picture.crop((across, down, width - across, height - down))


def _turned(picture: Image.Image, step: ImageStep) -> Image.Image:
    from PIL.Image import Resampling

    degrees = float(step.amount if step.kind is ImageKind.ROTATE_LEFT else -step.amount)
    return picture.rotate(degrees, Resampling.BICUBIC, expand=True, fillcolor=_WHITE)


def _toned(picture: Image.Image, step: ImageStep) -> Image.Image:
    """Each value by a table that rises throughout and clips nothing."""
    table = [_tone(step, value) for value in range(_TONES)]
    return picture.point(table * 3)


def _tone(step: ImageStep, value: int) -> int:
    """Towards white, black or the middle by a share; or that share of an S-shaped curve."""
    match step.kind:
        case ImageKind.BRIGHTER:
            target = float(_MOST)
        case ImageKind.DARKER:
            target = 0.0
        case ImageKind.LESS_CONTRAST:
            target = _MOST / 2
        case _:
            x = value / _MOST
            target = _MOST * x * x * (3 - 2 * x)
    return round(value + (target - value) * float(step.amount))


def _jpeg(picture: Image.Image, step: ImageStep) -> bytes:
    """With colours in full, since thin coloured lines would blur at any quality otherwise."""
    file = io.BytesIO()
    try:
        picture.save(file, "JPEG", quality=int(step.amount), subsampling=0)
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot be written as JPEG: {error}") from None
    return file.getvalue()


def _through_jpeg(picture: Image.Image, step: ImageStep) -> Image.Image:
    from .pixels import upright

    return upright(_jpeg(picture, step), "image/jpeg")


def _same(picture: Image.Image, _: ImageStep) -> Image.Image:
    return picture


_CHANGES: Final[Mapping[ImageKind, Callable[[Image.Image, ImageStep], Image.Image]]] = {
    ImageKind.RESIZE: _resized,
    ImageKind.BORDER: _bordered,
    ImageKind.CROP: _cropped,
    ImageKind.ROTATE_LEFT: _turned,
    ImageKind.ROTATE_RIGHT: _turned,
    ImageKind.BRIGHTER: _toned,
    ImageKind.DARKER: _toned,
    ImageKind.MORE_CONTRAST: _toned,
    ImageKind.LESS_CONTRAST: _toned,
    ImageKind.PNG: _same,
    ImageKind.JPEG: _through_jpeg,
}
