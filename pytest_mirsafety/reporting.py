"""A run as a page and as Markdown, with small copies of its images where its data is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import whole_files
from .circumstances import Circumstances
from .errors import BadInputError, DataError
from .evaluation import evaluate, remarks
from .exchanges import Exchange
from .ordering import in_order
from .printable import one_line
from .records import item_id, origin_id
from .redaction import redacted_exchange, redacted_result
from .results import MARKDOWN, PAGE, THUMBNAILS, InstanceOutcome, RecordedRun, RunResult

if TYPE_CHECKING:
    from .comparison.sides import Side
    from .images import ImageReader
    from .metamorphic import SearchResult
    from .records import Dataset, ImageRef, Instance
    from .reports.html.instances import Pictures
    from .run_folder.thumbnails import Thumbnails

_THREADS: Final = 4
_AT_ONCE: Final = 16  # instances whose images are in work, each with its pixels


@dataclass(frozen=True, slots=True)
class Reported:
    """A run to be reported, from the folder it is in.

    `images` says whether the page may have pictures; `trouble` why the data is not at hand, if it
    is not. A `redacted` report has neither texts nor pictures of instances. `earlier`
    runs are points in the picture of the arms, beside the baseline.
    """

    folder: Path
    result: RunResult
    exit_code: int
    exchanges: Callable[[str], Exchange | None]
    dataset: Dataset | None = None
    trouble: str = ""
    images: bool = True
    circumstances: Circumstances = field(default_factory=Circumstances)
    redacted: bool = False
    earlier: tuple[Side, ...] = ()


def recorded(
    folder: Path,
    *,
    dataset: Dataset | None = None,
    images: bool = True,
    redacted: bool = False,
) -> Reported:
    """The run in this folder, decided again, with what it asked and got.

    Raises:
        DataError: there is no run that has ended, or not as it was written.
    """
    from . import run_folder

    run = run_folder.read(folder)
    result, exchanges = decided_again(run), run_folder.Exchanges([(folder, run)])
    redacted = redacted or run.redacted
    return Reported(
        folder=folder,
        result=redacted_result(result) if redacted else result,
        exit_code=run.exit_code,
        exchanges=partial(_redacted, exchanges) if redacted else exchanges,
        dataset=dataset,
        images=images,
        circumstances=run.circumstances,
        redacted=redacted,
    )


def _redacted(exchanges: Callable[[str], Exchange | None], instance_id: str) -> Exchange | None:
    found = exchanges(instance_id)
    return None if found is None else redacted_exchange(found)


def decided_again(run: RecordedRun) -> RunResult:
    """The result of a run that was read, as it was when the run wrote it.

    Raises:
        DataError: its instances are not those of its design.
    """
    counted = remarks(run.all_outcomes)
    notes = [note for note in run.notes if note not in counted]
    try:
        about = run.provenance, notes, run.baseline
        return evaluate(run.design, run.all_outcomes, *about, run.flips)
    except ValueError as error:
        raise DataError(one_line(f"{run.where}: does not make up its data: {error}", 400)) from None


def write_markdown(run: Reported, path: Path | None = None, *, page: Path | None = None) -> Path:
    """Write report.md into the folder, or what else it is to be; `page` is linked if beside it.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from .reports import markdown

    target = path or run.folder / MARKDOWN
    beside = page is not None and page.parent.resolve() == target.parent.resolve()
    name = page.name if page is not None and beside else None
    text = markdown.render(
        run.result, exit_code=run.exit_code, page=name, circumstances=run.circumstances
    )
    whole_files.write(target, [text.encode()], named=path is not None)
    return target


def closing_lines(run: Reported, width: int) -> list[str]:
    """The closing section of the run, as its terminal had it."""
    from .reports import terminal

    return [line.text for line in terminal.render(run.result, width=width)]


def write_machines(run: Reported, *, junit: Path | None, summary: Path | None) -> list[Path]:
    """Write JUnit XML and the JSON summary, each where it was asked for; gives those written.

    Raises:
        ConfigurationError: one cannot be written.
        RunError: an exchange cannot be read any more.
    """
    from .reports import junit as xml
    from .reports import summary as facts

    if junit is not None:
        whole_files.write(junit, [xml.of_run(run.result, run.exchanges, run.circumstances)])
    if summary is not None:
        pieces = facts.to_json(run.result, run.exit_code)
        whole_files.write(summary, map(str.encode, pieces))
    return [path for path in (junit, summary) if path is not None]


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
        circumstances=run.circumstances,
        redacted=run.redacted,
        earlier=_earlier(run),
    )
    whole_files.write(target, map(str.encode, render(page)), named=path is not None)
    return target


def _earlier(run: Reported) -> list[Side]:
    """The baseline and what else is given, each once, by their time."""
    base = run.result.baseline
    given = (*(() if base is None else (base,)), *run.earlier)
    found = {side.terms.run or side.where: side for side in given}
    return sorted(found.values(), key=lambda side: side.terms.started)


def _pictures(run: Reported, target: Path) -> tuple[Pictures, str]:
    """The pictures of the page, and why some or all are missing."""
    from .reports.html.instances import PICTURES_LIMIT, Pictures
    from .run_folder import thumbnails

    if run.redacted:
        return Pictures(), ""
    if not run.images:
        return Pictures(), "Pictures were left out on demand; their digests are there."
    kept = thumbnails.read(run.folder / THUMBNAILS, PICTURES_LIMIT)
    if run.dataset is None:
        return Pictures(kept.small.get, of=kept.of.get), "" if kept.small else run.trouble
    gallery = _Gallery(run.dataset, run.exchanges, kept)
    gallery.fill(run.result, PICTURES_LIMIT)
    with suppress(OSError):  # the page has them, and they can be made again
        thumbnails.write(run.folder / THUMBNAILS, kept)
    images = "1 image" if gallery.unfit == 1 else f"{gallery.unfit:,} images"
    note = f"{images} cannot be shown: {gallery.problem}." if gallery.unfit else ""
    links = partial(gallery.link, base=target.parent)
    return Pictures(kept.small.get, links, kept.of.get), note


@dataclass(slots=True)
class _Gallery:
    """Small copies of the images that were sent, each checked against the digest in its record.

    Where the run recorded none, as one that replays answers, they are those that the data has.
    """

    dataset: Dataset
    exchanges: Callable[[str], Exchange | None]
    kept: Thumbnails
    unfit: int = 0
    problem: str = ""
    _refs: dict[str, ImageRef] = field(default_factory=dict)

    def fill(self, result: RunResult, limit: int) -> None:
        """Make what is missing, of unsafe instances first, up to so many bytes."""
        from .images import ImageLimits, ImageReader

        size = sum(map(len, self.kept.small.values()))
        reader = ImageReader(ImageLimits(), None)
        known = {instance.id: instance for instance in self.dataset.instances}
        with ThreadPoolExecutor(_THREADS) as pool:
            for wanted in self._all_wanted(result, known):
                if size >= limit:
                    return
                made = pool.map(lambda one: _thumbnail(reader, one), wanted)
                for one, (sha256, content) in zip(wanted, made, strict=True):
                    if sha256 is None:
                        self.unfit += 1
                        self.problem = self.problem or content.decode()
                        continue
                    self._refs.setdefault(sha256, one.ref)
                    if one.sha256 is None:
                        self.kept.of[one.item] = (*self.kept.of.get(one.item, ()), sha256)
                    if content and sha256 not in self.kept.small:
                        self.kept.small[sha256] = content
                        size += len(content)

    def _all_wanted(
        self, result: RunResult, known: Mapping[str, Instance]
    ) -> Iterator[list[_Wanted]]:
        """Those of flips before all others, a few at once."""
        for found in result.flips:
            yield list(self._of_search(found, known))
        for entries in _several(in_order(result.outcomes)):
            yield [one for entry in entries for one in self._wanted(entry, known)]

    def _of_search(self, found: SearchResult, known: Mapping[str, Instance]) -> Iterator[_Wanted]:
        """The images of a flip before and after the edit, where there is one."""
        from .images.editing import ImageEditor

        instance = known.get(origin_id(found.instance_id))
        flips = [flip for flip in (found.flip, found.order) if flip is not None]
        exchange = self.exchanges(found.instance_id) if flips else None
        if instance is None:
            return
        given: list[tuple[str, ImageRef]] = []
        if exchange is not None and exchange.images is not None:
            given += zip(exchange.images.originals, instance.images, strict=False)
        for flip in flips:
            if all(len(step.order) == len(instance.images) for step in flip.edit.orders):
                edited = ImageEditor().edited(instance, flip.edit)
                given += zip(flip.images, edited.images, strict=False)
        for sha256, ref in given:
            if sha256 not in self.kept.small:
                yield _Wanted(instance.id, ref, sha256)

    def _wanted(self, entry: InstanceOutcome, known: Mapping[str, Instance]) -> Iterator[_Wanted]:
        """The images of an instance that there is no picture of yet."""
        item = item_id(entry.instance_id)[0]
        instance, exchange = known.get(item), self.exchanges(entry.instance_id)
        if instance is None:
            return
        if exchange is not None and exchange.images is not None:
            for sha256, ref in zip(exchange.images.originals, instance.images, strict=False):
                if sha256 not in self._refs:
                    self._refs[sha256] = ref
                    if sha256 not in self.kept.small:
                        yield _Wanted(item, ref, sha256)
        elif item not in self.kept.of and entry.instance_id == item:
            for ref in instance.images:
                yield _Wanted(item, ref, None)

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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An image of an instance, and the digest in the record, if it has one."""

    item: str
    ref: ImageRef
    sha256: str | None


def _several(entries: Sequence[InstanceOutcome]) -> Iterator[Sequence[InstanceOutcome]]:
    for start in range(0, len(entries), _AT_ONCE):
        yield entries[start : start + _AT_ONCE]


def _thumbnail(reader: ImageReader, wanted: _Wanted) -> tuple[str | None, bytes]:
    """The digest and the small picture of an image; or no digest, and why it cannot be shown."""
    from .images.thumbnails import thumbnail

    ref = wanted.ref
    try:
        image = reader.fill(ref, reader.inspect(ref))
        if wanted.sha256 not in (None, image.sha256):
            return None, f"image {ref.name} is no longer the one that was sent".encode()
        return image.sha256, thumbnail(image)
    except BadInputError as error:
        return None, one_line(error.detail).encode()
