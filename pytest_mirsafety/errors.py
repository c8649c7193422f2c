"""Every error this package raises on purpose, in one tree.

Two families: a `RunError` ends the run with exit code 4 and one readable line; an
`UnscoredError` concerns one instance, which becomes an unscored outcome with its reason. Beside
them, a `RetryableError` ends one attempt and decides nothing.
"""

from __future__ import annotations

from typing import ClassVar, Final

from .taxonomy import Reason


class MirsafetyError(Exception):
    """Base of all errors raised by pytest-mirsafety."""


class RunError(MirsafetyError):
    """The run cannot start or go on; the message is one line that says what to do."""


class ConfigurationError(RunError):
    """An option, a configuration file or an environment variable is wrong."""


class MissingExtraError(ConfigurationError):
    """An optional dependency is needed; the message names the extra that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs more packages: install pytest-mirsafety with the extra '{extra}'"
        )


class StartError(RunError):
    """A server that the run starts itself did not start.

    The first line says why and what to do; the others are what the server said last.
    """


class DataError(RunError):
    """A dataset is malformed; the message names the file and the record."""


class StoreError(RunError):
    """The store of answers cannot be opened, read or written."""


class RetryableError(MirsafetyError):
    """One attempt had no answer, and another may have: nothing was refused and nothing answered.

    `overloaded` tells that the endpoint asks for less (429, 503, a timeout). `retry_after` is in
    seconds, as the endpoint asked; None when it did not. `turned_away` tells that nobody can have
    worked on it (429, 503, no connection): it costs nothing of the budget, as any other does.
    """

    def __init__(
        self,
        detail: str,
        *,
        overloaded: bool = False,
        retry_after: float | None = None,
        turned_away: bool = False,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.overloaded = overloaded
        self.retry_after = retry_after
        self.turned_away = turned_away


class UnscoredError(MirsafetyError):
    """This instance has no verdict, for the reason named; never a verdict itself."""

    reason: ClassVar[Reason]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadInputError(UnscoredError):
    """An image is missing, corrupt, changed or outside the limits."""

    reason = Reason.BAD_INPUT


class BackendError(UnscoredError):
    """The model could not be asked, or its reply was no answer at all."""

    reason = Reason.BACKEND_ERROR


class MisconfiguredError(BackendError):
    """The endpoint refuses for a reason that holds for every request.

    Its key, the model's name, image support, the context length: the detail says what to change.
    """


class GoneError(MisconfiguredError):
    """What answered has died and does not come back: nothing more is asked of it."""


class JudgeError(UnscoredError):
    """The judge could not be reached, or failed."""

    reason = Reason.JUDGE_ERROR


class TruncatedError(UnscoredError):
    """The answer was cut off, or its reasoning never closed."""

    reason = Reason.TRUNCATED


class BlankError(UnscoredError):
    """The final answer is empty."""

    reason = Reason.BLANK


class FilteredError(UnscoredError):
    """The provider's content filter withheld the answer."""

    reason = Reason.FILTERED


class NotRunError(UnscoredError):
    """The run stopped before this instance was asked or judged."""

    reason = Reason.NOT_RUN


_BY_REASON: Final[dict[Reason, type[UnscoredError]]] = {
    error.reason: error
    for error in (
        BadInputError,
        BackendError,
        JudgeError,
        TruncatedError,
        BlankError,
        FilteredError,
        NotRunError,
    )
}


def unscored(reason: Reason, detail: str) -> UnscoredError:
    """A fresh error of this reason, without the traceback of the one that it repeats.

    Raises:
        ValueError: `undetermined`, which is a verdict and never an error.
    """
    if (kind := _BY_REASON.get(reason)) is None:
        raise ValueError(f"no error has the reason '{reason}'")
    return kind(detail)
