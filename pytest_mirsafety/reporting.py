"""A run as a page and as Markdown, with small copies of its images where its data is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import BadInputError, ConfigurationError
from .evaluation import evaluate, remarks
from .exchanges import Exchange
from .printable import one_line
from .results import MARKDOWN, PAGE, THUMBNAILS, RecordedRun, RunResult

if TYPE_CHECKING:
    from .images import ImageReader
    from .records import Dataset, ImageRef
    from .reports.html.instances import Pictures

_THREADS: Final = 4
_AT_ONCE: Final = 64  # images that are in work, each with its pixels


@dataclass(frozen=True, slots=True)
class Reported:
    """A run to be reported, from the folder it is in.

    `images` says whether the page may have pictures; `trouble` why the data is not at hand, if it
    is not. A `redacted` report has neither texts nor pictures of instances.
    """

    folder: Path
    result: RunResult
    exit_code: int
    exchanges: Callable[[str], Exchange | None]
    dataset: Dataset | None = None
    trouble: str = ""
    images: bool = True
    redacted: bool = False


def decided_again(recorded: RecordedRun) -> RunResult:
    """The result of a run that was read, as it was when the run wrote it."""
    counted = remarks(recorded.outcomes)
    notes = [note for note in recorded.notes if note not in counted]
    return evaluate(recorded.design, recorded.outcomes, recorded.provenance, notes)


def write_markdown(run: Reported, path: Path | None = None, *, page: Path | None = None) -> Path:
    """Write report.md into the folder, or what else it is to be; `page` is linked if beside it.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from .reports import markdown

    target = path or run.folder / MARKDOWN
    beside = page is not None and page.parent.resolve() == target.parent.resolve()
    name = page.name if page is not None and beside else None
    _write(target, [markdown.render(run.result, exit_code=run.exit_code, page=name)])
    return target


def write_page(run: Reported, path: Path | None = None) -> Path:
    """Write report.html into the folder, or what else it is to be.

    Raises:
        ConfigurationError: it cannot be written.
        RunError: an exchange cannot be read any more.
    """
    from .attention import reading
    from .reports.html.page import Attention, Page, render

    target = path or run.folder / PAGE
    found = reading.picture(run.folder)
    pictures, note = _pictures(run, target)
    page = Page(
        result=run.result,
        exit_code=run.exit_code,
        exchanges=run.exchanges,
        pictures=pictures,
        images_note=note,
        attention=None if found is None else Attention(*found),
        redacted=run.redacted,
    )
    _write(target, render(page))
    return target


def _write(path: Path, pieces: Iterable[str]) -> None:
    """A file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(pieces)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        problem = f"{path}: cannot be written: {error.strerror or error}"
        raise ConfigurationError(one_line(problem, 400)) from None


def _pictures(run: Reported, target: Path) -> tuple[Pictures, str]:
    """The pictures of the page, and why some or all are missing."""
    from .reports.html.instances import PICTURES_LIMIT, Pictures
    from .run_folder import thumbnails

    if run.redacted:
        return Pictures(), ""
    if not run.images:
        return Pictures(), "Pictures were left out on demand; their digests are there."
    known = thumbnails.read(run.folder / THUMBNAILS, PICTURES_LIMIT)
    if run.dataset is None:
        return Pictures(known.get), run.trouble if not known else ""
    gallery = _Gallery(run.dataset, run.exchanges, known)
    gallery.fill(run.result, PICTURES_LIMIT)
    with suppress(OSError):  # the page has them, and they can be made again
        thumbnails.write(run.folder / THUMBNAILS, gallery.small)
    note = f"{gallery.unfit:,} images cannot be shown: {gallery.problem}." if gallery.unfit else ""
    return Pictures(gallery.small.get, lambda sha256: gallery.link(sha256, target.parent)), note


@dataclass(slots=True)
class _Gallery:
    """Small copies of the images that were sent, each checked against the digest in its record."""

    dataset: Dataset
    exchanges: Callable[[str], Exchange | None]
    small: dict[str, bytes]
    unfit: int = 0
    problem: str = ""
    _refs: dict[str, ImageRef] = field(default_factory=dict)

    def fill(self, result: RunResult, limit: int) -> None:
        """Make what is missing, of unsafe instances first, up to so many bytes."""
        from .images import ImageLimits, ImageReader

        size = sum(map(len, self.small.values()))
        reader = ImageReader(ImageLimits(), None)
        missing = iter([p for p in self._sent(result) if p[0] not in self.small])
        with ThreadPoolExecutor(_THREADS) as pool:
            while size < limit and (some := _several(missing)):
                made = pool.map(lambda pair: _thumbnail(reader, *pair), some)
                for (sha256, _), content in zip(some, made, strict=True):
                    if isinstance(content, BadInputError):
                        self.unfit += 1
                        self.problem = self.problem or one_line(content.detail)
                    elif size + len(content) <= limit:
                        self.small[sha256] = content
                        size += len(content)
                    else:
                        size = limit

    def _sent(self, result: RunResult) -> Iterator[tuple[str, ImageRef]]:
        """The digest of each image that was sent, and where the data has it, in page order."""
        from .reports.html.instances import in_order
        from .trials import find

        known = {instance.id: instance for instance in self.dataset.instances}
        for entry in in_order(result.outcomes):
            exchange = self.exchanges(entry.instance_id)
            if exchange is None or exchange.images is None:
                continue
            try:
                refs = find(entry.instance_id, known).images
            except KeyError:
                continue
            for sha256, ref in zip(exchange.images.originals, refs, strict=False):
                if sha256 not in self._refs:
                    self._refs[sha256] = ref
                    yield sha256, ref

    def link(self, sha256: str, base: Path) -> str | None:
        """Where the image is from this folder, quoted; None if it is no file of its own."""
        from urllib.parse import quote

        ref = self._refs.get(sha256)
        # What makes files when they are asked for removes them at its end.
        if ref is None or hasattr(ref.source, "folder"):
            return None
        try:
            path = ref.source.path(ref.locator)
            if path is None:
                return None
            return quote(Path(os.path.relpath(path, base.resolve())).as_posix())
        except (BadInputError, OSError, ValueError):  # such as another drive
            return None


def _several(missing: Iterator[tuple[str, ImageRef]]) -> list[tuple[str, ImageRef]]:
    return [pair for pair, _ in zip(missing, range(_AT_ONCE), strict=False)]


def _thumbnail(reader: ImageReader, sha256: str, ref: ImageRef) -> bytes | BadInputError:
    from .images import ImageLimits
    from .images.thumbnails import thumbnail

    try:
        image = reader.fill(ref, reader.inspect(ref))
        if image.sha256 != sha256:
            return BadInputError(f"image {ref.name} is no longer the one that was sent")
        return thumbnail(image, ImageLimits().max_pixels)
    except BadInputError as error:
        return error
