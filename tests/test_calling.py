"""Whatever backend and judge do: no failure is a verdict, and each is named in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from engine_setting import (
    Setting,
    answer,
    outcome,
    seen,
    verdict,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scripted import (
    MemoryStore,
    Reply,
    Ruling,
    ScriptedBackend,
    ScriptedImages,
    ScriptedJudge,
    completion,
    make_instance,
)

from pytest_mirsafety.engine.calling import _COMPLETE
from pytest_mirsafety.engine.engine import EngineSettings, check_judgeable
from pytest_mirsafety.errors import (
    BackendError,
    BadInputError,
    BlankError,
    FilteredError,
    JudgeError,
    NotRunError,
    TruncatedError,
    UnscoredError,
)
from pytest_mirsafety.protocols import Store
from pytest_mirsafety.records import (
    Completion,
    Request,
    Response,
    Verdict,
    VerdictKind,
)
from pytest_mirsafety.taxonomy import Reason, Status

NONSENSE: Completion = None  # type: ignore[assignment]  # what a user's backend may return
NO_VERDICT: Verdict = True  # type: ignore[assignment]  # what a user's judge may return

FATES: dict[str, tuple[Reply, Ruling, Status | Reason]] = {
    "safe": (completion("No."), Verdict(VerdictKind.SAFE, "j"), Status.SAFE),
    "unsafe": (completion("Sure."), Verdict(VerdictKind.UNSAFE, "j"), Status.UNSAFE),
    "unclear": (
        completion("Hm."),
        Verdict(VerdictKind.UNDETERMINED, "j"),
        Reason.UNDETERMINED,
    ),
    "refused": (BackendError("503"), RuntimeError(), Reason.BACKEND_ERROR),
    "raised": (ValueError("bug"), RuntimeError(), Reason.BACKEND_ERROR),
    "left": (SystemExit(3), RuntimeError(), Reason.BACKEND_ERROR),
    "cancelled": (asyncio.CancelledError(), RuntimeError(), Reason.BACKEND_ERROR),
    "bare": (UnscoredError("no reason"), RuntimeError(), Reason.BACKEND_ERROR),
    "nothing": (NONSENSE, RuntimeError(), Reason.BACKEND_ERROR),
    "broken": (completion("No."), Verdict(VerdictKind.SAFE, "j"), Reason.BAD_INPUT),
    "cut": (completion("Firs", "length"), Verdict(VerdictKind.SAFE, "j"), Reason.TRUNCATED),
    "unclosed": (completion("<think>I"), Verdict(VerdictKind.SAFE, "j"), Reason.TRUNCATED),
    "blank": (completion(" \n"), Verdict(VerdictKind.SAFE, "j"), Reason.BLANK),
    "thought": (completion("<think>I</think>"), Verdict(VerdictKind.SAFE, "j"), Reason.BLANK),
    "filtered": (
        completion("", "content_filter"),
        Verdict(VerdictKind.SAFE, "j"),
        Reason.FILTERED,
    ),
    "unjudged": (completion("No."), JudgeError("429"), Reason.JUDGE_ERROR),
    "misjudged": (completion("No."), KeyError("bug"), Reason.JUDGE_ERROR),
    "dropped": (completion("No."), asyncio.CancelledError(), Reason.JUDGE_ERROR),
    "nonsense": (completion("No."), NO_VERDICT, Reason.JUDGE_ERROR),
}
COMPLETED = {n for n, (reply, _, _) in FATES.items() if isinstance(reply, Completion)} - {"broken"}


def fated(fates: Sequence[str], *, concurrency: int = 3, store: Store | None = None) -> Setting:
    """Instances `0-safe`, `1-blank` ... whose name says what becomes of them."""

    def reply(request: Request, instance_id: str) -> Reply:
        found = FATES[instance_id.rsplit("-", 1)[1]][0]
        if isinstance(found, Completion) and found.text.strip().endswith("."):
            return replace(found, text=f"{found.text} {instance_id}")
        return found

    def rule(question: str, text: str) -> Ruling:
        return FATES[question.rsplit("-", 1)[1]][1]

    return Setting(
        ScriptedBackend(reply, concurrency=concurrency),
        ScriptedJudge(rule, concurrency=concurrency),
        ScriptedImages(frozenset(f"{number}-broken-2.png" for number in range(len(fates)))),
        store,
    )


@given(
    fates=st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
    concurrency=st.integers(1, 5),
    stored=st.booleans(),
)
@settings(max_examples=60)
def test_no_fault_schedule_yields_a_verdict(
    fates: list[str], order: object, concurrency: int, stored: bool
) -> None:
    store = MemoryStore() if stored else None
    setting = fated(fates, concurrency=concurrency, store=store)
    instances = [make_instance(f"{number}-{fate}") for number, fate in enumerate(fates)]
    shuffled = list(enumerate(instances))
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    with setting.engine(instances) as engine:
        for number, instance in shuffled:
            expected = FATES[fates[number]][2]
            assert outcome(engine, instance) == expected
            engine.wait(instance, lambda: None, 0.01)
            assert seen(engine.outcome(instance.id)) == expected
        progress = engine.progress()
    scored = [fate for fate in fates if FATES[fate][2] in {*Status, Reason.UNDETERMINED}]
    assert (progress.judged, progress.unscored) == (len(scored), len(fates) - len(scored))
    assert progress.answered == sum(fate in COMPLETED for fate in fates)
    assert progress.in_flight == 0
    if store is not None:  # completed answers are kept, of whatever kind; failures never
        assert len(store.answers) == progress.answered


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (ValueError("a bug\nin two lines"), "ValueError: a bug in two lines"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyError(), "KeyError"),
        (BackendError("503 after 4 attempts"), "503 after 4 attempts"),
        (asyncio.CancelledError(), "CancelledError: the call was cancelled from within"),
        (NONSENSE, "the backend returned NoneType, no Completion"),
    ],
)
def test_what_a_backend_raises_is_named_in_one_line(reply: Reply, detail: str) -> None:
    with (
        Setting(ScriptedBackend(lambda *_: reply)).engine() as engine,
        pytest.raises(BackendError) as raised,
    ):
        answer(engine, make_instance("a"))
    assert raised.value.detail == detail


def test_a_completion_without_text_is_the_backends_error() -> None:
    def script(request: Request, instance_id: str) -> Reply:
        return Completion(None, "stop")  # type: ignore[arg-type]  # what a user's backend may do

    with (
        Setting(ScriptedBackend(script)).engine() as engine,
        pytest.raises(BackendError, match="TypeError: a completion's text cannot be NoneType"),
    ):
        answer(engine, make_instance("a"))


def test_errors_are_raised_afresh() -> None:
    """A stored error that is raised again would collect tracebacks, and all their frames."""
    instance = make_instance("a")
    with Setting(ScriptedBackend(lambda *_: BackendError("503"))).engine([instance]) as engine:
        raised = []
        for _ in range(2):
            with pytest.raises(BackendError) as info:
                answer(engine, instance)
            raised.append(info.value)
    assert raised[0] is not raised[1]
    assert raised[0].__context__ is None


CLOSED, UNCLOSED = True, False


@pytest.mark.parametrize(
    ("finish_reason", "text", "closed", "cut_allowed", "error"),
    [
        ("stop", "No.", CLOSED, False, None),
        ("STOP", "No.", CLOSED, False, None),
        ("eos", "No.", CLOSED, False, None),
        ("eos_token", "No.", CLOSED, False, None),
        ("end_turn", "No.", CLOSED, False, None),
        ("stop_sequence", "No.", CLOSED, False, None),
        ("COMPLETE", "No.", CLOSED, False, None),
        ("unrecorded", "No.", CLOSED, False, None),
        ("", "No.", CLOSED, True, TruncatedError),
        ("safety", "No, bec", CLOSED, True, TruncatedError),
        ("RECITATION", "No, bec", CLOSED, True, TruncatedError),
        ("refusal", "", CLOSED, True, TruncatedError),
        ("insufficient_system_resource", "No, bec", CLOSED, True, TruncatedError),
        ("tool_calls", "No.", CLOSED, True, TruncatedError),
        ("stop\n" * 99, "No.", CLOSED, True, TruncatedError),
        ("stop", " \t\n", CLOSED, False, BlankError),
        ("stop", "No.", UNCLOSED, False, TruncatedError),
        ("stop", "No.", UNCLOSED, True, TruncatedError),
        ("length", "No, bec", CLOSED, False, TruncatedError),
        ("LENGTH", "No, bec", CLOSED, False, TruncatedError),
        ("max_tokens", "No, bec", CLOSED, False, TruncatedError),
        ("length", "No, bec", CLOSED, True, None),
        ("length", "", CLOSED, True, TruncatedError),
        ("length", "No, bec", UNCLOSED, True, TruncatedError),
        ("abort", "No, bec", CLOSED, True, TruncatedError),
        ("error", "No, bec", CLOSED, True, TruncatedError),
        ("content_filter", "", CLOSED, False, FilteredError),
        ("content_filter", " \n", CLOSED, True, FilteredError),
        ("Content_Filter", "", CLOSED, True, FilteredError),
        ("content_filter", "Sure.", CLOSED, False, TruncatedError),
        ("content_filter", "Sure.", CLOSED, True, TruncatedError),
        ("content_filter", "Sure.", UNCLOSED, True, TruncatedError),
    ],
)
def test_judgeable_answers(
    finish_reason: str,
    text: str,
    closed: bool,
    cut_allowed: bool,
    error: type[UnscoredError] | None,
) -> None:
    response = Response("key", completion(text, finish_reason), text, reasoning_closed=closed)
    if error is None:
        check_judgeable(response, judge_cut_answers=cut_allowed)
    else:
        with pytest.raises(error) as raised:
            check_judgeable(response, judge_cut_answers=cut_allowed)
        assert raised.value.detail.isprintable()
        assert len(raised.value.detail) < 100


@given(st.text())
def test_no_unknown_word_lets_an_answer_be_judged(finish_reason: str) -> None:
    assume(finish_reason.lower() not in _COMPLETE)
    response = Response("key", completion("No.", finish_reason), "No.")
    with pytest.raises((TruncatedError, FilteredError)):
        check_judgeable(response)


def test_reasoning_that_the_filter_broke_off_is_no_withheld_answer() -> None:
    thought = completion("<think>I could</think>", "content_filter")
    with pytest.raises(TruncatedError, match="cut off by the provider's content filter"):
        check_judgeable(Response("key", thought, "", "I could"))


UNSCORED = (
    BackendError,
    BadInputError,
    BlankError,
    FilteredError,
    JudgeError,
    NotRunError,
    TruncatedError,
)


class ClaimsAReasonError(JudgeError, BackendError):
    """Claims a reason that its base does not have."""

    reason = Reason.FILTERED


@pytest.mark.parametrize("kind", [*UNSCORED, ClaimsAReasonError, UnscoredError])
def test_each_part_can_only_fail_for_itself(kind: type[UnscoredError]) -> None:
    """A judge's or a backend's FilteredError is not the provider's: it could count as SAFE."""
    error, instance = kind("by a user's own"), make_instance("a")
    for setting, reason in (
        (Setting(judge=ScriptedJudge(lambda *_: error)), Reason.JUDGE_ERROR),
        (Setting(images=ScriptedImages(error=error)), Reason.BAD_INPUT),
        (
            Setting(ScriptedBackend(lambda *_: error)),
            Reason.BAD_INPUT if kind is BadInputError else Reason.BACKEND_ERROR,
        ),
    ):
        with setting.engine([instance]) as engine:
            assert outcome(engine, instance) is reason
            assert seen(engine.outcome(instance.id)) is reason


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *((field, wrong) for field in ("judge", "evidence") for wrong in (None, b"", 0, ["safe"])),
        *(("mode", wrong) for wrong in ("clever-evasion", 1)),
        *(("flags", wrong) for wrong in (None, "clipped", ["clipped"], (1,))),
        *(("scores", wrong) for wrong in (None, {"yes": 0.1}, (("yes", "0.1"),), ((1, 0.1),))),
        *(("members", wrong) for wrong in (None, ["safe"], ("safe",))),
    ],
)
def test_a_verdict_with_a_field_of_another_kind_is_the_judges_error(
    field: str, wrong: object
) -> None:
    said = Verdict(VerdictKind.SAFE, "j", "e")
    object.__setattr__(said, field, wrong)
    instance = make_instance("a")
    with Setting(judge=ScriptedJudge(lambda *_: said)).engine() as engine:
        response = answer(engine, instance)
        with pytest.raises(JudgeError, match=f"a verdict's {field} cannot be"):
            verdict(engine, instance, response)


def test_a_cut_answer_is_judged_where_the_setting_says_so() -> None:
    backend = ScriptedBackend(lambda *_: completion("No, because", "length"))
    instance = make_instance("a")
    allowing = Setting(backend, settings=EngineSettings(judge_cut_answers=True))
    with allowing.engine([instance]) as engine:
        assert outcome(engine, instance) is Status.SAFE
