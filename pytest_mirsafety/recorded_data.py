"""The data that a recorded run asked, from where it was or from where it is now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import DataError, RunError
from .printable import one_line

if TYPE_CHECKING:
    from .records import Dataset
    from .results import Provenance

_HINT: Final = "name where it is now with --data"


def load(provenance: Provenance, source: str | None) -> Dataset:
    """The data of this run; `source` is where it is now, None for where it was.

    Raises:
        DataError: it cannot be loaded, or is other data; one line says what to do.
    """
    from . import data

    if source is None:
        source = provenance.data_source
        if data.is_own(source):  # whoever wrote the folder must not choose what is imported here
            raise DataError(
                one_line(f"the run's data came from code of your own; to load it: --data={source}")
            )
        if source.startswith("hub:") and "@" not in source and provenance.data_revision:
            source = f"{source}@{provenance.data_revision}"
    try:
        dataset = data.load(source, base=Path.cwd())
    except RunError as error:
        raise DataError(one_line(f"the run's data: {error}; {_HINT}", 600)) from None
    if dataset.identity != provenance.data_identity:
        raise DataError(
            one_line(
                f"{source}: is not the data that the run asked: it is sha256:{dataset.identity}, "
                f"the run's was sha256:{provenance.data_identity}; {_HINT}",
                600,
            )
        )
    return dataset
