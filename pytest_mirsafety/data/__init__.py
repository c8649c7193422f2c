"""Loads a dataset from any source by one call, and checks that it is the one that was meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import ConfigurationError, DataError
from ..printable import one_line
from ..records import Dataset
from ..taxonomy import PUBLISHED_TOTAL, Relation, nearest

BENCHMARK: Final = "mir-safetybench"
FORMS: Final = "sample, folder:PATH, parquet:PATH, hub:ORGANIZATION/NAME@REVISION, jsonl:PATH"

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class _Place(NamedTuple):
    source: str
    rest: str
    base: Path
    cache: Path | None

    @property
    def path(self) -> Path:
        return self.base / Path(self.rest).expanduser()


def load(source: str, *, base: Path, cache: Path | None = None) -> Dataset:
    """The dataset of a source, with instances in a natural order. No image is read.

    `source` is `sample`, `folder:PATH`, `parquet:PATH` (a file, a folder, or a pattern),
    `hub:ORGANIZATION/NAME@REVISION`, `jsonl:PATH` (a file, or a folder with instances.jsonl), or
    `module:attribute`: a callable that takes `base` and returns a `Dataset`. Relative paths are
    relative to `base`. Images that are no files of their own are extracted under `cache`, when
    they are first asked for, and removed at exit; without it, under the system's temporary folder.

    Raises:
        ConfigurationError: no such kind of source; the message has the nearest one.
        DataError: the data is missing or malformed; the message names the file and the record.
        MissingExtraError: the source needs a package that is not installed.
    """
    kind, _, rest = source.partition(":")
    if (loader := _LOADERS.get(kind)) is not None and bool(rest.strip()) == (kind != "sample"):
        try:
            return loader(_Place(source, rest, base, cache))
        except (OSError, RuntimeError) as error:  # a path too long, or of an unknown home
            problem = one_line(f"{source[:200]}: cannot be read: {error}", _LINE_LIMIT // 2)
            raise DataError(problem) from None
    if kind not in _LOADERS and _OWN.fullmatch(source):
        return _load_own(_Place(source, rest, base, cache))
    raise _unknown(source)


def is_own(source: str) -> bool:
    """Whether loading this source would import code: `module:attribute`."""
    return source.partition(":")[0] not in _LOADERS and _OWN.fullmatch(source) is not None


def mismatch(dataset: Dataset, pinned: str | None) -> str | None:
    """What differs from the published or pinned data, on one line; None when nothing does.

    A dataset that is pinned must have the pinned identity, and then needs nothing else. A named
    benchmark that is not pinned must have its published count of each relation, and at most a few
    instances that ask the same as another; the sample, its own identity. `pinned`
    is an identity, with or without `sha256:` before it.
    """
    actual = f"sha256:{dataset.identity}"
    if pinned is not None:
        if pinned.removeprefix("sha256:") == dataset.identity:
            return None
        return one_line(
            f"{dataset.source}: the data is {actual}, data_digest pins {pinned}; restore the data, "
            f"or change the pin if the change is meant. {_REPORT_ONLY}",
            _LINE_LIMIT,
        )
    if (difference := _difference(dataset)) is None:
        return None
    return one_line(
        f"{dataset.source} is not the {dataset.name} that was published: {difference}. Restore "
        f'it, or pin what you have (data_digest = "{actual}"). {_REPORT_ONLY}',
        _LINE_LIMIT,
    )


def unpinned(dataset: Dataset, pinned: str | None) -> str | None:
    """What to write to pin a named benchmark's texts, on one line; None when something pins them.

    Counts are no pin: other texts can have the same. A pin is `data_digest` or a commit of the
    hub. A private suite is what its file holds, and the sample has an identity of its own.
    """
    commit = dataset.revision is not None and _COMMIT.fullmatch(dataset.revision)
    if dataset.name != BENCHMARK or pinned is not None or commit:
        return None
    return one_line(
        f"{dataset.source}: the data's content is not pinned; pin it: "
        f'data_digest = "sha256:{dataset.identity}"',
        _LINE_LIMIT,
    )


_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_REPEATED: Final = Fraction(5, 100)
_REPORT_ONLY: Final = "--mir-allow-data-mismatch makes a report-only run"
_LINE_LIMIT: Final = 1000


def _difference(dataset: Dataset) -> str | None:
    if dataset.name == "sample":
        from . import sample

        return None if dataset.identity == sample.IDENTITY else "its content differs"
    if dataset.name != BENCHMARK:
        return None
    counts = Counter(instance.relation for instance in dataset.instances)
    wrong = [
        f"{r} {counts[r]}/{r.published_count}" for r in Relation if counts[r] != r.published_count
    ]
    if not wrong:
        return _repetition(dataset)
    total = f"{len(dataset.instances)}/{PUBLISHED_TOTAL}"
    return f"got/expected {', '.join(wrong)}, in all {total}"


def _repetition(dataset: Dataset) -> str | None:
    from .assembly import equal_requests

    pairs = equal_requests(dataset.instances)
    repeated, total = len(set(chain.from_iterable(pairs))), len(dataset.instances)
    if repeated <= _MOST_REPEATED * total:
        return None
    return (
        f"{repeated} of {total} instances ask the same as another, such as {' and '.join(pairs[0])}"
    )


def _load_sample(place: _Place) -> Dataset:
    from . import sample

    return sample.load(place.cache)


def _load_folder(place: _Place) -> Dataset:
    from . import folder

    return folder.load(place.path, place.source, BENCHMARK)


def _load_parquet(place: _Place) -> Dataset:
    from . import parquet

    return parquet.load(place.path, parquet.Origin(place.source, BENCHMARK), place.cache)


def _load_hub(place: _Place) -> Dataset:
    from . import hub

    return hub.load(place.rest, place.source, BENCHMARK, place.cache)


def _load_jsonl(place: _Place) -> Dataset:
    from . import jsonl

    return jsonl.load(place.path, place.source)


def _load_own(place: _Place) -> Dataset:
    from . import own

    try:
        return own.load(place.source, place.base)
    except own.MissingModuleError:
        kind = place.source.partition(":")[0]
        if "." not in kind and nearest(kind, _LOADERS).startswith("did you"):
            raise _unknown(place.source) from None
        raise


def _unknown(source: str) -> ConfigurationError:
    kind = source.partition(":")[0]
    hint = nearest(kind, _LOADERS)
    hint = f" {hint}" if hint.startswith("did you") and kind not in _LOADERS else ""
    return ConfigurationError(
        one_line(
            f"unknown data '{source}';{hint} Write {FORMS}, or your own package.module:callable",
            _LINE_LIMIT,
        )
    )


_LOADERS: Final[Mapping[str, Callable[[_Place], Dataset]]] = {
    "sample": _load_sample,
    "folder": _load_folder,
    "parquet": _load_parquet,
    "hub": _load_hub,
    "jsonl": _load_jsonl,
}
