"""Calls a backend or a judge: what comes of it is a value, or an error of ours in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Final, cast

from ..defended import Blocked, Passed
from ..errors import (
    BackendError,
    BadInputError,
    BlankError,
    FilteredError,
    JudgeError,
    RetryableError,
    RunError,
    TruncatedError,
    UnscoredError,
)
from ..printable import one_line
from ..protocols import Backend, Defence, Judge, SeeingJudge
from ..records import (
    Completion,
    LoadedImage,
    Request,
    Response,
    SafeMode,
    Verdict,
    VerdictKind,
)
from .turns import Side, Turns

_DETAIL: Final = 300
"""Characters of an adapter's message that are kept."""

_DOING: Final = 80

_COMPLETE: Final = frozenset(
    {
        *("stop", "unrecorded"),
        *("eos", "eos_token", "stop_sequence"),  # text-generation servers, Together, Groq
        *("end_turn", "complete"),  # Anthropic, Cohere
    }
)
"""What servers say of an answer that the model ended itself. Any other word may mean a cut."""

_CUT: Final = frozenset({"length", "max_tokens", "model_length"})
_FILTERED: Final = "content_filter"


def check_judgeable(response: Response, *, judge_cut_answers: bool = False) -> None:
    """Do nothing when a judge may see this answer.

    Raises:
        FilteredError: the provider's filter withheld the answer, all of it.
        TruncatedError: the reasoning never ended, or the answer is not known to be whole.
        BlankError: there is no final answer.
    """
    reason = response.completion.finish_reason.lower()
    blank = not response.answer.strip()
    if reason == _FILTERED:
        if blank and not response.completion.text.strip():
            raise FilteredError("the provider's content filter withheld the answer")
        raise TruncatedError("the answer was cut off by the provider's content filter")
    if not response.reasoning_closed:
        raise TruncatedError("the reasoning never ended")
    if reason in _CUT and (blank or not judge_cut_answers):
        raise TruncatedError(f"the answer was cut off (finish_reason {reason})")
    if reason not in _COMPLETE | _CUT:
        word = one_line(reason, 40) or "is empty"
        raise TruncatedError(f"the answer may have been cut off (finish_reason {word})")
    if blank:
        raise BlankError("the final answer is empty")


def check_images(
    request: Request, images: Sequence[LoadedImage], *, needs_bytes: bool, composed: bool = True
) -> None:
    """Do nothing when these are the request's images, all of them and in order, or one of them all.

    Where they are not `composed` they are as many as they were, also for a request with a layout.

    Raises:
        BadInputError: they are not, or one has no bytes to send.
    """
    sent = tuple(image.sha256 for image in images)
    if request.layout and composed:
        sent = images[0].parts if len(images) == 1 else ()
    if sent != request.images:
        raise BadInputError("the images changed between being inspected and being sent")
    if needs_bytes and not all(image.content for image in images):
        raise BadInputError("an image has no bytes to send")


class Caller:
    """Calls one backend and one judge, which may be a user's own and do anything.

    Whatever they raise that is not an error of ours concerns one instance only: it must leave
    nobody waiting, and it can never be a verdict. `RunError` passes, as does the cancellation
    of a run that was halted. Where there are `turns`, each is called in its own. `others`, of
    arms, are closed with the rest.
    """

    def __init__(
        self,
        backend: Backend,
        judge: Judge,
        halted: Callable[[], bool],
        turns: Turns | None = None,
        others: Sequence[tuple[str, Judge | Defence]] = (),
    ) -> None:
        self._backend = backend
        self._judge = judge
        self._others = others
        self._halted = halted
        self._turns = turns

    async def complete(
        self, request: Request, images: Sequence[LoadedImage], instance_id: str
    ) -> Completion:
        """The backend's completion of this request, with exactly its images; one attempt.

        Raises:
            RetryableError: there is none yet.
            UnscoredError: there is none.
        """
        composed = bool(request.layout) and not is_recorded(self._backend)
        check_images(request, images, needs_bytes=self._backend.needs_bytes, composed=composed)
        async with self._turn("model"):
            completion = await self._guarded(
                lambda: self._backend.complete(request, images, instance_id), BackendError
            )
        if not isinstance(completion, Completion):
            raise BackendError(f"the backend returned {type(completion).__name__}, no Completion")
        one = images[0].sha256 if composed else None
        return completion if completion.composed == one else replace(completion, composed=one)

    async def verdict(
        self,
        question: str,
        answer: str,
        images: Sequence[LoadedImage] = (),
        judge: Judge | None = None,
    ) -> Verdict:
        """The judge's verdict on this answer; one attempt. It gets the images if it wants them.

        It is the run's judge, unless another one is given.

        Raises:
            RetryableError: there is none yet.
            UnscoredError: there is none.
        """
        async with self._turn("judge"):
            verdict = await self._guarded(
                lambda: ask_judge(judge or self._judge, question, answer, images), JudgeError
            )
        return check_verdict(verdict)

    async def decided(self, call: Callable[[], Awaitable[object]]) -> Passed | Blocked:
        """What a defence decides when it is called so; one attempt.

        Raises:
            RetryableError: nothing yet.
            UnscoredError: nothing.
        """
        return check_decided(await self._guarded(call, BackendError))

    async def close(self, patience: float) -> list[str]:
        """Close all within `patience` seconds each; gives what went wrong, a line each."""
        troubles = []
        adapters: list[tuple[str, Backend | Judge | Defence]] = [("backend", self._backend)]
        adapters += (("judge", self._judge), *self._others)
        for name, adapter in adapters:
            try:
                await asyncio.wait_for(adapter.aclose(), patience)
            except Exception as error:  # noqa: BLE001 - it may raise anything; the other must close
                troubles.append(f"the {name} did not close: {_one_line(error)}")
        return troubles

    def _turn(self, side: Side) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._turns is None else self._turns.of(side)

    async def _guarded(
        self, call: Callable[[], Awaitable[object]], kind: type[UnscoredError]
    ) -> object:
        try:
            return await call()
        except (RunError, UnscoredError, RetryableError):
            raise
        except asyncio.CancelledError:
            if self._halted():
                raise
            raise kind("CancelledError: the call was cancelled from within") from None
        except (Exception, SystemExit) as error:  # see the class
            raise kind(_one_line(error)) from error


def is_recorded(backend: Backend) -> bool:
    """Whether a backend answers from a recording, so that nothing is sent to anybody."""
    return bool(getattr(backend, "recorded", False))


def wants_images(judge: Judge) -> bool:
    """Whether a judge looks at images; one that does not say so looks at none."""
    return bool(getattr(judge, "wants_images", False))


def ask_judge(
    judge: Judge, question: str, answer: str, images: Sequence[LoadedImage]
) -> Awaitable[Verdict]:
    """Ask a judge in the form that it knows."""
    if wants_images(judge):
        return cast("SeeingJudge", judge).judge(question, answer, images)
    return judge.judge(question, answer)


def check_verdict(verdict: object) -> Verdict:
    """What a judge gave, if it is a verdict in all its parts: a user's own may give anything.

    Raises:
        JudgeError: it is not.
    """
    if not isinstance(verdict, Verdict) or not _is_kind(verdict.kind):
        raise JudgeError(f"the judge returned {type(verdict).__name__}, no Verdict")
    for name, is_valid in _VERDICT_FIELDS.items():
        if not is_valid(value := getattr(verdict, name)):
            raise JudgeError(f"a verdict's {name} cannot be {type(value).__name__}")
    for member in verdict.members:
        check_verdict(member)
    return verdict


def check_decided(decided: object) -> Passed | Blocked:
    """What a defence gave, if it is a decision in all its parts: a user's own may give anything.

    Raises:
        BackendError: it is not, so nothing was decided.
    """
    if decided is None:
        return Passed()
    if not isinstance(decided, Passed | Blocked):
        raise BackendError(
            f"the defence returned {type(decided).__name__}: it must be Passed, Blocked or None"
        )
    for name in ("input_tokens", "output_tokens"):
        if not _is_number(getattr(decided, name)):
            raise BackendError(f"a defence's {name} must be a whole number, or None")
    if isinstance(decided, Blocked) and not (_is_text(decided.text) and _is_text(decided.why)):
        raise BackendError("what a defence shows instead must be text, and so must the reason")
    return decided


def doing(adapter: Backend | Judge | Defence) -> str:
    """What an adapter says it does while it cannot answer yet, on one line; nothing by default."""
    return one_line(str(getattr(adapter, "doing", "") or ""), _DOING)


def plain(
    error: UnscoredError, otherwise: type[UnscoredError], *allowed: type[UnscoredError]
) -> UnscoredError:
    """The same error in one line, fresh: without traceback, cause and context.

    One that is not of an `allowed` kind, with its reason, becomes one of the kind `otherwise`: who
    raised it has no say in another's part, such as a judge in what the provider filtered.
    """
    _forget_frames(error)
    reason = getattr(error, "reason", None)
    detail = one_line(str(error), _DETAIL)
    kinds = (kind for kind in allowed if isinstance(error, kind) and reason is kind.reason)
    return next(kinds, otherwise)(detail)


def plain_retryable(error: RetryableError) -> RetryableError:
    """The same for an attempt that may be repeated; a pause that is no number is none.

    What is not plainly said to have been turned away may have cost something.
    """
    _forget_frames(error)
    told = error.retry_after
    return RetryableError(
        one_line(str(error), _DETAIL),
        overloaded=bool(error.overloaded),
        retry_after=told if isinstance(told, int | float) else None,
        turned_away=error.turned_away is True,
    )


def _forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks: an adapter's frames hold the images.

    Often they also hold the error that holds them, and such a cycle would keep the bytes until
    the next garbage collection.
    """
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _one_line(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}", _DETAIL).rstrip(": ")


def _is_kind(value: object) -> bool:
    return isinstance(value, VerdictKind)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _is_mode(value: object) -> bool:
    return value is None or isinstance(value, SafeMode)


def _is_flags(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


def _is_scores(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_score, value))


def _is_score(value: object) -> bool:
    match value:
        case (str(), float()):
            return isinstance(value, tuple)
    return False


def _is_members(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(member, Verdict) for member in value)


_VERDICT_FIELDS: Final[Mapping[str, Callable[[object], bool]]] = {
    "judge": _is_text,
    "evidence": _is_text,
    "mode": _is_mode,
    "flags": _is_flags,
    "scores": _is_scores,
    "members": _is_members,
}
