from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest, Reply
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_mirsafety.backends.openai import OpenAIBackend, OpenAISettings
from pytest_mirsafety.errors import (
    BackendError,
    BadInputError,
    ConfigurationError,
    MisconfiguredError,
    RetryableError,
)
from pytest_mirsafety.protocols import Backend
from pytest_mirsafety.records import Completion, LoadedImage, ModelIdentity, Request
from pytest_mirsafety.wire import bounded, replies
from pytest_mirsafety.wire.connection import OPENAI_URL

KEY = "own.form:0123456789"
ENVIRON = {"TEST_KEY": KEY}
PROMPT = 'What links "them"?\n\u2028 \\ é 🖼'


def image(number: int, media_type: str = "image/png", path: Path | None = None) -> LoadedImage:
    content = f"image {number} ".encode() * 7 + bytes(range(256))
    return LoadedImage(hashlib.sha256(content).hexdigest(), media_type, content, path)


IMAGES = (image(2, "image/jpeg"), image(1), image(3, "image/webp"))
ON_DISK = image(4, path=Path("somewhere.png"))


def backend_for(url: str, **changes: Any) -> OpenAIBackend:
    given = {"model": "m", "base_url": url, "api_key_env": "TEST_KEY", **changes}
    return OpenAIBackend(OpenAISettings(**given), ENVIRON)


def request_of(
    backend: OpenAIBackend, images: Sequence[LoadedImage] = IMAGES, prompt: str = PROMPT
) -> Request:
    digests = tuple(i.sha256 for i in images)
    return Request(backend.identity, prompt, digests, backend.system, backend.decoding)


def ask(backend: OpenAIBackend, images: Sequence[LoadedImage] = IMAGES) -> Completion:
    async def session() -> Completion:
        try:
            return await backend.complete(request_of(backend, images), images, "id")
        finally:
            await backend.aclose()

    return asyncio.run(session())


def answer_to(reply: str | Reply | Sequence[str | Reply], **changes: Any) -> Completion:
    with ChatEndpoint(reply) as endpoint:
        return ask(backend_for(endpoint.url, **changes))


def failure_of(reply: Reply | Sequence[Reply], **changes: Any) -> RetryableError | BackendError:
    """What one attempt ends with; nothing is asked twice, whatever comes back."""
    with ChatEndpoint(reply) as endpoint:
        with pytest.raises((RetryableError, BackendError)) as caught:
            ask(backend_for(endpoint.url, **changes))
        assert len(endpoint.requests) == 1
    error = caught.value
    assert isinstance(error, RetryableError | BackendError)
    assert error.__context__ is None, "the package's error holds the key in its headers"
    assert len(error.detail) <= 300
    assert error.detail.isprintable()
    assert KEY not in error.detail
    return error


# What is sent


def test_images_come_first_in_order_with_their_own_bytes_then_the_prompt() -> None:
    with ChatEndpoint() as endpoint:
        ask(backend_for(endpoint.url, system="Be brief."))
        (received,) = endpoint.requests
    assert received.images == tuple(i.sha256 for i in IMAGES)
    assert [p["type"] for p in received.parts] == ["image_url"] * 3 + ["text"]
    assert [u.partition(";")[0] for u in received.image_urls] == [
        "data:image/jpeg",
        "data:image/png",
        "data:image/webp",
    ]
    assert received.prompt == PROMPT
    assert [m["role"] for m in received.body["messages"]] == ["system", "user"]
    assert received.system == "Be brief."
    assert received.decoding == {}
    assert received.path == "/v1/chat/completions"
    assert received.headers["content-type"] == "application/json"


def test_without_a_system_prompt_there_is_one_message() -> None:
    with ChatEndpoint() as endpoint:
        ask(backend_for(endpoint.url), images=())
        (received,) = endpoint.requests
    assert received.body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]}
    ]


@settings(max_examples=15, deadline=None)
@given(
    prompt=st.text(),
    system=st.none() | st.text(),
    contents=st.lists(st.binary(min_size=1, max_size=400), max_size=4),
)
@example(prompt="", system="", contents=[b"x"])
def test_what_was_asked_arrives_unchanged(
    prompt: str, system: str | None, contents: list[bytes]
) -> None:
    images = [LoadedImage(hashlib.sha256(c).hexdigest(), "image/png", c) for c in contents]
    with ChatEndpoint() as endpoint:
        backend = backend_for(endpoint.url, system=system)
        request = request_of(backend, images, prompt)

        async def session() -> None:
            await backend.complete(request, images, "id")
            await backend.aclose()

        asyncio.run(session())
        (received,) = endpoint.requests
    assert received.prompt == prompt
    assert received.system == system
    assert received.images == request.images


def test_decoding_is_sent_as_given() -> None:
    decoding = {"temperature": 0, "top_p": 0.001, "seed": 7, "repetition_penalty": 1.05, "x": None}
    with ChatEndpoint() as endpoint:
        ask(backend_for(endpoint.url, decoding=decoding))
    assert endpoint.requests[0].decoding == decoding


def test_the_request_decides_what_is_sent() -> None:
    with ChatEndpoint() as endpoint:
        backend = backend_for(endpoint.url, decoding={"seed": 1}, system="s")

        async def session() -> None:
            request = replace(request_of(backend), decoding={"seed": 2}, system=None)
            await backend.complete(request, IMAGES, "id")
            await backend.aclose()

        asyncio.run(session())
        (received,) = endpoint.requests
    assert received.decoding == {"seed": 2}
    assert received.system is None


def test_files_are_sent_as_urls(tmp_path: Path) -> None:
    path = tmp_path / 'a "b" é#?.png'
    path.write_bytes(IMAGES[0].content)
    unread = replace(IMAGES[0], content=b"", path=path)
    with ChatEndpoint() as endpoint:
        backend = backend_for(endpoint.url, image_transport="file", image_detail="low")
        ask(backend, [unread])
        (received,) = endpoint.requests
    assert backend.needs_bytes is False
    assert received.images == (IMAGES[0].sha256,)
    assert received.parts[0]["image_url"] == {"url": path.as_uri(), "detail": "low"}


def test_image_detail_is_sent_with_bytes_too() -> None:
    with ChatEndpoint() as endpoint:
        ask(backend_for(endpoint.url, image_detail="high"))
    assert {p["image_url"]["detail"] for p in endpoint.requests[0].parts[:3]} == {"high"}


@pytest.mark.parametrize(
    ("transport", "bad"),
    [("base64", replace(IMAGES[0], content=b"")), ("file", replace(IMAGES[0], path=None))],
)
def test_an_image_that_cannot_be_sent_is_bad_input(transport: str, bad: LoadedImage) -> None:
    with ChatEndpoint() as endpoint, pytest.raises(BadInputError, match=bad.sha256[:12]):
        ask(backend_for(endpoint.url, image_transport=transport), [ON_DISK, bad])
    assert endpoint.requests == []


def test_requests_run_at_the_same_time_over_one_client() -> None:
    everyone = threading.Event()

    def script(_: ReceivedRequest) -> Reply:
        if endpoint.in_flight == 8:
            everyone.set()
        return Reply(hold=everyone)

    with ChatEndpoint(script) as endpoint:
        backend = backend_for(endpoint.url)

        async def session() -> None:
            request = request_of(backend)
            await asyncio.gather(*(backend.complete(request, IMAGES, "id") for _ in range(8)))
            await backend.aclose()

        asyncio.run(session())
    assert endpoint.peak == 8


# What comes back


def test_an_answer_is_read_whole() -> None:
    before = answer_to("x").created
    completion = answer_to(Reply("the answer", "stop", {"reasoning_content": "why"}))
    assert completion.text == "the answer"
    assert completion.finish_reason == "stop"
    assert completion.reasoning == "why"
    assert (completion.input_tokens, completion.output_tokens) == (11, 7)
    assert completion.latency > 0
    assert completion.created >= before


@pytest.mark.parametrize(
    ("reply", "text", "finish_reason", "reasoning"),
    [
        (Reply(""), "", "stop", None),
        (Reply("cut of", "length"), "cut of", "length", None),
        (Reply("half", "content_filter"), "half", "content_filter", None),
        (Reply(None, "content_filter"), "", "content_filter", None),
        (Reply(None, "stop", {"refusal": "I can't."}), "I can't.", "stop", None),
        (Reply("Hm.", "stop", {"refusal": "I can't."}), "Hm.\nI can't.", "stop", None),
        (Reply(None, "stop", {"reasoning": "why"}), "", "stop", "why"),
        (Reply("a", "stop", {"reasoning": "why", "reasoning_content": None}), "a", "stop", "why"),
        (Reply("a", "stop", {"reasoning_content": ""}), "a", "stop", None),
        (Reply("a", "stop", {"tool_calls": [], "function_call": None}), "a", "stop", None),
        (Reply("half \ud83d a pair"), "half \ufffd a pair", "stop", None),
        (Reply(" as returned \n"), " as returned \n", "stop", None),
    ],
)
def test_replies_that_are_answers(
    reply: Reply, text: str, finish_reason: str, reasoning: str | None
) -> None:
    completion = answer_to(reply)
    assert completion.text == text
    assert completion.finish_reason == finish_reason
    assert completion.reasoning == reasoning


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        {},
        {"prompt_tokens": "3"},
        {"prompt_tokens": True},
        {"prompt_tokens": -1},
        {"prompt_tokens": 2**53 + 1},
        {"prompt_tokens": 10**30, "completion_tokens": 2**64},
    ],
)
def test_unusable_token_counts_are_unknown(usage: object) -> None:
    completion = answer_to(Reply(usage=usage))
    assert (completion.input_tokens, completion.output_tokens) == (None, None)


MESSAGE = {"role": "assistant", "content": "Sure"}


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (Reply.garbage(), "not JSON: <html>"),
        (Reply.garbage(b""), "it is empty"),
        (Reply.garbage(b"\xff\xfe\x00"), "not JSON"),
        (Reply.garbage(b"[" * 100_000), "not JSON"),
        (Reply.json([]), "list, not an object"),
        (Reply.json(None), "NoneType, not an object"),
        (Reply.json({}), "no choices"),
        (Reply.json({"choices": None}), "no choices"),
        (Reply.json({"choices": {}}), "no choices"),
        (Reply.json({"choices": []}), "no choices"),
        (Reply.json({"error": {"message": "overheated"}, "choices": []}), "overheated"),
        (Reply.json({"error": "overheated"}), "overheated"),
        (Reply.json({"error": {"code": 502, "message": "upstream is gone"}}), "upstream is gone"),
        (Reply("Sure", cut="in-stream"), "not JSON"),
    ],
)
def test_replies_that_answer_nothing_may_be_asked_again(reply: Reply, named: str) -> None:
    error = failure_of(reply)
    assert isinstance(error, RetryableError)
    assert named in error.detail
    assert not error.overloaded
    assert not error.turned_away


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (Reply.json({"choices": ["x"]}), "not an object"),
        (Reply.json({"choices": [{"finish_reason": "stop"}]}), "no message"),
        (Reply.json({"choices": [{"finish_reason": "stop", "message": None}]}), "no message"),
        (Reply.json({"choices": [{"finish_reason": "stop", "message": "Sure"}]}), "no message"),
        (Reply.json({"choices": [{"message": MESSAGE}]}), "no finish_reason"),
        (Reply.json({"choices": 2 * [{"message": MESSAGE}]}), "2 choices"),
        (Reply.json({"error": "late", "choices": [{"message": MESSAGE}]}), "late"),
        (Reply("Sure", None), "no finish_reason"),
        (Reply("Sure", ""), "no finish_reason"),
        (Reply("Sure", 3), "finish_reason is int"),
        (Reply(["Sure"]), "content is list"),
        (Reply({"text": "Sure"}), "content is dict"),
        (Reply("Sure", "stop", {"refusal": 1}), "refusal is int"),
        (Reply("Sure", "stop", {"reasoning_content": {}}), "reasoning_content is dict"),
        (Reply("I can't.", "tool_calls", {"tool_calls": [{"id": "1"}]}), "calls a tool"),
        (Reply("I can't.", "stop", {"function_call": {"name": "f"}}), "calls a tool"),
    ],
)
def test_what_was_answered_is_never_asked_again(reply: Reply, named: str) -> None:
    error = failure_of(reply)
    assert type(error) is BackendError
    assert named in error.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "finish_reason", "refusal", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values | st.builds(lambda c: {"choices": [c]}, json_values))
def test_only_a_whole_chat_completion_is_an_answer(body: Any) -> None:
    try:
        completion = replies.read(json.dumps(body).encode(), 0.0)
    except (replies.NothingAnsweredError, replies.UnusableAnswerError):
        return
    (choice,) = body["choices"]
    assert completion.finish_reason == choice["finish_reason"]
    said = [choice["message"].get(name) for name in ("content", "refusal")]
    assert completion.text == "\n".join(text for text in said if text)


@given(json_values | st.builds(lambda c: {"choices": [c]}, json_values))
def test_a_reply_with_a_choice_is_never_one_that_answers_nothing(body: Any) -> None:
    answered = isinstance(body, dict) and bool(body.get("choices"))
    try:
        replies.read(json.dumps(body).encode(), 0.0)
    except replies.NothingAnsweredError:
        assert not answered or not isinstance(body["choices"], list)
    except replies.UnusableAnswerError:
        assert answered


@given(st.binary(max_size=60))
def test_no_bytes_are_mistaken_for_an_answer(body: bytes) -> None:
    with pytest.raises(replies.NothingAnsweredError):
        replies.read(body, 0.0)


# Failures: of one attempt, of one request, of every request


def test_a_content_filter_refusal_is_a_completion() -> None:
    for code in ("content_filter", "content_policy_violation"):
        completion = answer_to(Reply.error(400, "flagged", code))
        assert (completion.text, completion.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize("status", [403, 422])
def test_only_the_explicit_code_of_a_bad_request_is_a_filter(status: int) -> None:
    error = failure_of(Reply.error(status, "flagged", "content_filter"))
    assert type(error) is BackendError
    assert error.detail == f"HTTP {status}: flagged"
    assert "HTTP 400: content_filter" in failure_of(Reply.error(400, "content_filter", "x")).detail


@pytest.mark.parametrize(
    "reply",
    [
        Reply.error(403, "Your chosen model requires moderation and your input was flagged"),
        Reply.error(400, "blocked", "content_filter_blocked"),
        Reply.json({"error": {"code": 403, "message": "your input was flagged"}}),
        Reply.json({"error": {"code": "content_filter", "message": "no"}}),
    ],
)
def test_a_refused_input_is_neither_asked_again_nor_blamed_on_the_settings(reply: Reply) -> None:
    error = failure_of(reply)
    assert type(error) is BackendError
    assert "TEST_KEY" not in error.detail


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_passing_failures_may_be_tried_again(status: int) -> None:
    error = failure_of(Reply.error(status, "busy"))
    assert isinstance(error, RetryableError)
    assert error.detail.startswith(f"HTTP {status}: busy")
    assert error.overloaded is (status in (429, 503, 529))
    assert error.turned_away is error.overloaded, "a 500 or 504 may come after the work was done"
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "0.25"}, 0.25, 0.25),
        ({"Retry-After": " 3 "}, 3, 3),
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5, 1.5),
        ({"Retry-After-Ms": "soon", "Retry-After": "9"}, 9, 9),
        ({"Retry-After": "-4"}, 0, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0),
        ({"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, 1e9, 4e9),
    ],
)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_read(
    status: int, headers: Mapping[str, str], least: float, most: float
) -> None:
    error = failure_of(replace(Reply.error(status), headers=headers))
    assert isinstance(error, RetryableError)
    assert error.retry_after is not None
    assert least <= error.retry_after <= most


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "1e999", "Wed, 99 Oct 2015", "7 s"])
def test_an_unintelligible_retry_after_is_none(value: str) -> None:
    error = failure_of(replace(Reply.error(429), headers={"Retry-After": value}))
    assert isinstance(error, RetryableError)
    assert error.retry_after is None


def test_an_endpoint_that_forbids_another_attempt_is_obeyed() -> None:
    reply = replace(Reply.error(500, "no"), headers={"X-Should-Retry": "false"})
    assert type(failure_of(reply)) is BackendError


@pytest.mark.parametrize("status", [400, 413, 418, 422])
def test_what_cannot_get_better_is_a_failure_of_this_request(status: int) -> None:
    error = failure_of(Reply.error(status, "no"))
    assert type(error) is BackendError
    assert error.detail.startswith(f"HTTP {status}: no")


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "the key in TEST_KEY"),
        (402, "another key in TEST_KEY"),
        (403, "the key in TEST_KEY"),
        (404, "model name and base_url"),
        (405, "base_url"),
        (413, "too large"),
        (429, "quota"),
    ],
)
def test_errors_say_what_to_check(status: int, hint: str) -> None:
    error = failure_of(Reply.error(status))
    assert hint in error.detail
    assert isinstance(error, MisconfiguredError) == (status < 413)


@pytest.mark.parametrize("cut", ["before-reply", "in-body"])
def test_a_cut_connection_may_be_tried_again(cut: Any) -> None:
    error = failure_of(Reply("Sure", cut=cut))
    assert isinstance(error, RetryableError)
    assert "the connection broke" in error.detail
    assert not error.overloaded
    assert not error.turned_away


TOO_LONG = b" " * (2**20 + 1)
CHUNKED = {"Transfer-Encoding": "chunked"}
"""Beside a length, which does not count then."""


@pytest.mark.parametrize(
    "reply",
    [
        Reply(content=TOO_LONG),
        Reply(content=2 * TOO_LONG, cut="in-stream"),
        Reply(content=b"%x\r\n%s\r\n" % (len(TOO_LONG), TOO_LONG), headers=CHUNKED),
        Reply(content=gzip.compress(TOO_LONG), headers={"Content-Encoding": "gzip"}),
        Reply(content=TOO_LONG, status=400),
        Reply(content=TOO_LONG, status=503, headers={"Retry-After": "1"}),
    ],
    ids=["declared", "undeclared", "both", "compressed", "refused", "overloaded"],
)
def test_a_reply_without_end_is_given_up(reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_BYTES", 2**20)
    error = failure_of(reply)
    assert type(error) is BackendError
    assert error.detail == "the reply is longer than 1 MiB"


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_a_long_reply_is_read_whole(
    headers: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "No. " * 2**18
    body = Reply(text).body("m", 0)
    monkeypatch.setattr(bounded, "MOST_BYTES", len(body))
    content = gzip.compress(body) if headers else body
    assert answer_to(Reply(content=content, headers=headers)).text == text


def test_after_a_reply_without_end_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_BYTES", 2**20)
    with ChatEndpoint([Reply(content=TOO_LONG), "fine"]) as endpoint:
        backend = backend_for(endpoint.url)

        async def session() -> str:
            with pytest.raises(BackendError):
                await backend.complete(request_of(backend), IMAGES, "id")
            completion = await backend.complete(request_of(backend), IMAGES, "id")
            await backend.aclose()
            return completion.text

        assert asyncio.run(session()) == "fine"


def test_nothing_listening_names_the_address() -> None:
    with ChatEndpoint() as endpoint:
        url = endpoint.url
    with pytest.raises(RetryableError) as caught:
        ask(backend_for(url))
    assert caught.value.detail.startswith(f"{url}: no connection: ")
    assert caught.value.detail.endswith("(is the server running?)")
    assert not caught.value.overloaded
    assert caught.value.turned_away


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(
        RetryableError, match=r"http://nowhere\.invalid/v1.*\(check base_url\)"
    ) as no:
        ask(backend_for("http://nowhere.invalid/v1"))
    assert no.value.turned_away


def test_no_reply_in_time_is_a_failure() -> None:
    never = threading.Event()
    with ChatEndpoint(Reply(hold=never)) as endpoint:
        with pytest.raises(RetryableError, match="no reply in time") as caught:
            ask(backend_for(endpoint.url, timeout=0.05))
        never.set()
    assert caught.value.overloaded
    assert not caught.value.turned_away


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
def test_a_connection_that_was_not_made_in_time_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())
        with pytest.raises(RetryableError, match="no reply in time") as caught:
            ask(backend_for(f"http://127.0.0.1:{full.getsockname()[1]}/v1", timeout=0.05))
    assert caught.value.overloaded
    assert caught.value.turned_away


def test_an_overload_that_is_told_with_status_200_may_have_cost_something() -> None:
    error = failure_of(Reply.json({"error": {"code": 429, "message": "busy"}}))
    assert isinstance(error, RetryableError)
    assert error.overloaded
    assert not error.turned_away


def test_a_redirect_is_not_followed() -> None:
    with ChatEndpoint("elsewhere") as other:
        moved = Reply(status=307, headers={"Location": f"{other.url}/chat/completions"})
        error = failure_of(moved)
        assert isinstance(error, MisconfiguredError)
        assert "set base_url" in error.detail
        assert other.requests == []


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"plain text", "HTTP 500: plain text"),
        (b"", "HTTP 500"),
        (b'{"detail": "Not Found"}', "HTTP 500: Not Found"),
        (b'{"object": "error", "message": "vLLM says"}', "HTTP 500: vLLM says"),
        (b'{"error": "just text"}', "HTTP 500: just text"),
        (b'{"error": {"code": 1}}', 'HTTP 500: {"code": 1}'),
        ('{"error": {"message": "a\u202eb\\u001b[31mc\\nd"}}'.encode(), "HTTP 500: ab[31mc d"),
        (b"x " * 5_000, "HTTP 500: x x"),
    ],
)
def test_the_server_is_quoted_on_one_short_line(content: bytes, shown: str) -> None:
    assert failure_of(Reply(status=500, content=content)).detail.startswith(shown)


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: {key}.",
        "headers: Authorization: Bearer {key}",
        "key={key}&model=m",
        "{spaced}",
        "Bearer another-secret-token-of-a-proxy",
        "your sk-another0123456789 is wrong",
        "request was data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==",
        "cannot decode " + "iVBORw0KGgo" * 9,
    ],
)
def test_no_error_repeats_a_secret_or_base64(text: str) -> None:
    text = text.format(key=KEY, spaced="\u200b".join(KEY))
    for reply in (
        Reply.error(500, text),
        Reply.garbage(text.encode(), 503),
        Reply.garbage(text.encode()),
    ):
        detail = failure_of(reply).detail
        assert "secret" not in detail
        assert "0123456789" not in detail
        assert "iVBORw0KGgo" not in detail


@pytest.mark.parametrize(
    "before",
    [
        "",
        "x " * 27,  # so that the key is around the cut of what is quoted
        "x " * 75,
        "x " * 95,
        "\u200b" * 99_990,
        "iVBORw0KGgo" * 9_089 + " ",
        f"{KEY} " * 5_262,
    ],
)
def test_no_part_of_a_key_is_shown_where_a_text_is_cut(before: str) -> None:
    for start in range(0, 60, 7):
        text = f"{before}{'y ' * start}{KEY} and more"
        for reply in (
            Reply.error(500, text),
            Reply.garbage(text.encode()),
            Reply(content=json.dumps({"error": text}).encode()),
        ):
            detail = failure_of(reply).detail
            assert "own." not in detail
            assert "01234" not in detail


def test_nothing_leaks_into_logs_or_reprs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), ChatEndpoint([Reply.error(500, KEY), "fine"]) as endpoint:
        backend = backend_for(endpoint.url)
        with pytest.raises(RetryableError):
            ask(backend)
        ask(backend)
    assert endpoint.requests[0].headers["authorization"] == f"Bearer {KEY}"
    shown = f"{caplog.text}{backend!r}{backend.identity}{backend.identity!r}"
    assert KEY not in shown
    assert endpoint.requests[0].image_urls[0].partition(",")[2][:40] not in shown


# Settings


def test_identity_and_properties() -> None:
    backend: Backend = backend_for(
        "https://user-host/v1/", revision="r", provider="http", system="s"
    )
    assert backend.identity == ModelIdentity("http", "m", "https://user-host/v1", "r")
    assert backend.system == "s"
    assert backend.cacheable
    assert backend.needs_bytes
    assert backend.concurrency == 16


@pytest.mark.parametrize(
    ("environ", "base_url", "endpoint"),
    [
        ({}, None, OPENAI_URL),
        ({"OPENAI_BASE_URL": "https://proxy/v1"}, None, "https://proxy/v1"),
        ({"OPENAI_BASE_URL": "https://proxy/v1"}, "https://own/v1", "https://own/v1"),
    ],
)
def test_the_endpoint_is_always_named(
    environ: Mapping[str, str], base_url: str | None, endpoint: str
) -> None:
    chosen = OpenAISettings(model="m", base_url=base_url)
    assert OpenAIBackend(chosen, {"OPENAI_API_KEY": KEY, **environ}).identity.endpoint == endpoint


@pytest.mark.parametrize(
    ("decoding", "greedy"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.01}, False),
        ({"temperature": None}, False),
        ({"temperature": False}, False),
        ({"temperature": "0"}, False),
        ({"top_k": 1}, False),
    ],
)
def test_greedy_is_a_declared_temperature_of_zero(decoding: dict[str, Any], greedy: bool) -> None:
    assert backend_for("https://host/v1", decoding=decoding).greedy is greedy


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://me:hunter2@host/v1", "user name"),
        ("https://hunter2@host/v1", "user name"),
        ("https://host/v1?key=hunter2", "query"),
        ("https://host/v1#hunter2", "fragment"),
        ("ftp://host/hunter2", "not an http"),
        ("host/hunter2", "not an http"),
        ("https://", "not an http"),
        ("http://host:hunter2/", "not an http"),
        ("http://[hunter2/", "not an http"),
    ],
)
def test_an_unusable_base_url_is_refused_without_repeating_it(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        backend_for(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["model", "messages", "stream", "n", "tools"])
def test_reserved_names_are_no_decoding(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"decoding.{name}"):
        backend_for("https://host/v1", decoding={name: 1})


def test_decoding_must_be_finite() -> None:
    with pytest.raises(ConfigurationError, match="finite"):
        backend_for("https://host/v1", decoding={"temperature": float("nan")})


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": " \n"}])
def test_a_missing_key_is_named(environ: Mapping[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        OpenAIBackend(OpenAISettings(model="m"), environ)


def test_an_endpoint_without_a_key_gets_a_placeholder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, f"ambient-{name}")
    with ChatEndpoint() as endpoint:
        ask(backend_for(endpoint.url, api_key_env="UNSET", key_required=False))
        (received,) = endpoint.requests
    assert received.headers["authorization"] == "Bearer none"
    assert not [value for value in received.headers.values() if "ambient" in value]


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "clé", "\x1b[31m"])
def test_a_key_that_cannot_be_a_header_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match="TEST_KEY") as caught:
        OpenAIBackend(OpenAISettings(model="m", api_key_env="TEST_KEY"), {"TEST_KEY": key})
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://203.0.113.7:8000/v1", False),
        ("http://example.org/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("https://example.org/v1", True),
    ],
)
def test_the_default_key_never_leaves_the_machine_in_clear(url: str, allowed: bool) -> None:
    chosen = OpenAISettings(model="m", base_url=url)
    if allowed:
        OpenAIBackend(chosen, {"OPENAI_API_KEY": KEY})
    else:
        with pytest.raises(ConfigurationError, match="plain http"):
            OpenAIBackend(chosen, {"OPENAI_API_KEY": KEY})
    OpenAIBackend(replace(chosen, api_key_env="TEST_KEY"), ENVIRON)


def test_a_proxy_from_the_environment_is_not_used_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ChatEndpoint("through the proxy") as proxy, ChatEndpoint("direct") as endpoint:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert ask(backend_for(endpoint.url)).text == "direct"


def test_closing_twice_or_unused_is_fine() -> None:
    backend = backend_for("https://host/v1")
    asyncio.run(backend.aclose())
    asyncio.run(backend.aclose())
