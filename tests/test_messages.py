"""What a controller and its workers say to each other comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety import errors, messages
from pytest_mirsafety.errors import MisconfiguredError, RetryableError, RunError, UnscoredError
from pytest_mirsafety.records import (
    Completion,
    ImageRef,
    Instance,
    Outcome,
    Response,
    SafeMode,
    Verdict,
    VerdictKind,
)
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status

texts = st.text() | st.just("\ud800 \x00 \u202e")
counts = st.none() | st.integers(min_value=0)
seconds = st.floats(allow_nan=False)
completions = st.builds(Completion, texts, texts, st.none() | texts, counts, counts, seconds)
responses = st.builds(
    Response, texts, completions, texts, st.none() | texts, st.booleans(), st.booleans()
)
scores = st.lists(st.tuples(texts, st.floats(allow_nan=False)), max_size=2).map(tuple)
plain_verdicts = st.builds(
    Verdict,
    st.sampled_from(VerdictKind),
    texts,
    texts,
    flags=st.lists(texts, max_size=2).map(tuple),
    scores=scores,
)
safe_verdicts = st.builds(Verdict, st.just(VerdictKind.SAFE), texts, mode=st.sampled_from(SafeMode))
verdicts = st.builds(
    Verdict,
    st.sampled_from(VerdictKind),
    texts,
    members=st.lists(plain_verdicts | safe_verdicts, max_size=3).map(tuple),
) | (plain_verdicts | safe_verdicts)
outcomes = st.builds(Outcome, st.sampled_from([Status.SAFE, Status.UNSAFE]), st.none(), texts)
unscored = st.builds(Outcome, st.just(Status.UNSCORED), st.sampled_from(Reason), texts)


def sent(plain: object) -> Any:
    """As it comes out of the channel."""
    return json.loads(json.dumps(plain))


@given(responses)
def test_a_response(response: Response) -> None:
    back = messages.response_from(sent(messages.plain_response(response)))
    assert back == response
    assert hash(back) == hash(response)


@given(verdicts)
def test_a_verdict(verdict: Verdict) -> None:
    back = messages.verdict_from(sent(messages.plain_verdict(verdict)))
    assert (back, type(back.kind)) == (verdict, VerdictKind)
    assert back.mode is verdict.mode


@given(outcomes | unscored)
def test_an_outcome(outcome: Outcome) -> None:
    back = messages.outcome_from(sent(messages.plain_outcome(outcome)))
    assert (back, type(back.status), type(back.reason)) == (
        outcome,
        Status,
        type(outcome.reason),
    )


class NoSource:
    def stamp(self, locator: str) -> str:
        raise NotImplementedError

    def read(self, locator: str) -> bytes:
        raise NotImplementedError

    def path(self, locator: str) -> None:
        raise NotImplementedError


@given(texts, st.sampled_from(Relation), st.sampled_from(Category), st.lists(texts, max_size=3))
def test_an_instance_with_its_images_in_order(
    text: str, relation: Relation, category: Category, names: list[str]
) -> None:
    source = NoSource()
    refs = tuple(ImageRef(name, name, source) for name in names)
    instance = Instance(text, relation, category, text, text, refs)
    plain = sent(messages.plain_instance(instance, lambda ref: {"n": refs.index(ref)}))
    assert messages.instance_from(plain, lambda image: refs[image["n"]]) == instance
    other = messages.instance_from({**plain, "prompt": "another"}, lambda image: refs[image["n"]])
    assert other == replace(instance, prompt="another")


def descendants(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from descendants(child)


@pytest.mark.parametrize(
    "kind",
    [RunError, *descendants(RunError), *descendants(UnscoredError)],
    ids=lambda k: k.__name__,
)
def test_an_error_keeps_its_class_and_its_text(kind: type[Exception]) -> None:
    error = kind("what", "hub") if kind is errors.MissingExtraError else kind("what is wrong")
    back = messages.error_from(sent(messages.plain_error(error)))
    assert str(back) == str(error)
    expected = errors.ConfigurationError if kind is errors.MissingExtraError else kind
    assert type(back) is expected
    if isinstance(error, UnscoredError) and isinstance(back, UnscoredError):
        assert (back.reason, back.detail) == (error.reason, error.detail)


def test_an_error_of_a_users_own_keeps_what_it_means() -> None:
    class OwnError(UnscoredError):
        reason = Reason.BACKEND_ERROR

    class OwnKeyError(MisconfiguredError):
        pass

    own = messages.error_from(messages.plain_error(OwnError("down")))
    assert (type(own), str(own)) == (errors.BackendError, "down")
    assert type(messages.error_from(messages.plain_error(OwnKeyError("key")))) is MisconfiguredError


@pytest.mark.parametrize("error", [ValueError("odd"), RetryableError("odd"), RecursionError("odd")])
def test_an_error_that_nobody_foresaw_decides_nothing(error: Exception) -> None:
    back = messages.error_from(sent(messages.plain_error(error)))
    assert type(back) is RuntimeError
    assert "odd" in str(back)
    assert type(error).__name__ in str(back)
