"""The words of a run in JSON and back: what a controller and its workers say to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from .errors import (
    BackendError,
    BadInputError,
    BlankError,
    ConfigurationError,
    DataError,
    FilteredError,
    GoneError,
    JudgeError,
    MisconfiguredError,
    NotRunError,
    RunError,
    StartError,
    StoreError,
    TruncatedError,
    UnscoredError,
    unscored,
)
from .records import (
    Completion,
    ImageRef,
    Instance,
    Outcome,
    Response,
    SafeMode,
    Verdict,
    VerdictKind,
)
from .taxonomy import Category, Reason, Relation, Status

Plain = Mapping[str, Any]

_ERRORS: Final[Mapping[str, type[UnscoredError | RunError]]] = {
    error.__name__: error
    for error in (
        GoneError,
        MisconfiguredError,
        BadInputError,
        BackendError,
        JudgeError,
        TruncatedError,
        BlankError,
        FilteredError,
        NotRunError,
        ConfigurationError,
        DataError,
        StartError,
        StoreError,
        RunError,
    )
}
"""The errors that travel, a class before the one that it extends."""


def plain_response(response: Response) -> dict[str, Any]:
    """A response as JSON; whole, since a judge and the ledger look at all of it."""
    return asdict(response)


def response_from(plain: Plain) -> Response:
    """The response that `plain_response` gave."""
    return Response(**{**plain, "completion": Completion(**plain["completion"])})


def plain_verdict(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON."""
    return asdict(verdict)


def verdict_from(plain: Plain) -> Verdict:
    """The verdict that `plain_verdict` gave."""
    mode = plain["mode"]
    return Verdict(
        VerdictKind(plain["kind"]),
        plain["judge"],
        plain["evidence"],
        mode=None if mode is None else SafeMode(mode),
        flags=tuple(plain["flags"]),
        scores=tuple((str(name), float(value)) for name, value in plain["scores"]),
        members=tuple(map(verdict_from, plain["members"])),
    )


def plain_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    return asdict(outcome)


def outcome_from(plain: Plain) -> Outcome:
    """The outcome that `plain_outcome` gave."""
    reason = plain["reason"]
    return Outcome(
        Status(plain["status"]),
        None if reason is None else Reason(reason),
        plain["detail"],
        None if plain["mode"] is None else SafeMode(plain["mode"]),
        plain["mode_by_rules"],
        plain["mode_open"],
    )


def plain_error(error: Exception) -> dict[str, str]:
    """An error as its class and its text; one that nobody foresaw has no class."""
    if isinstance(error, UnscoredError | RunError):
        for name, kind in _ERRORS.items():
            if isinstance(error, kind):
                return {"class": name, "text": str(error)}
        if isinstance(error, UnscoredError):
            return plain_error(unscored(error.reason, error.detail))
    return {"class": "", "text": f"{type(error).__name__}: {error}"}


def error_from(plain: Plain) -> Exception:
    """The error that `plain_error` gave, without its traceback."""
    kind = _ERRORS.get(plain["class"])
    return RuntimeError(plain["text"]) if kind is None else kind(plain["text"])


def plain_instance(instance: Instance, image: Callable[[ImageRef], Plain]) -> dict[str, Any]:
    """An instance as JSON, its images as `image` names or packs each."""
    return {
        "id": instance.id,
        "relation": instance.relation,
        "category": instance.category,
        "question": instance.question,
        "prompt": instance.prompt,
        "draw": instance.draw,
        "arm": instance.arm,
        "system": instance.system,
        "composed": instance.composed,
        "images": [image(ref) for ref in instance.images],
    }


def instance_from(plain: Plain, image: Callable[[Plain], ImageRef]) -> Instance:
    """The instance that `plain_instance` gave, its images as `image` finds or unpacks each."""
    return Instance(
        plain["id"],
        Relation(plain["relation"]),
        Category(plain["category"]),
        plain["question"],
        plain["prompt"],
        tuple(image(ref) for ref in plain["images"]),
        plain["draw"],
        plain["arm"],
        plain["system"],
        plain["composed"],
    )
