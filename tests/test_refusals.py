"""What servers say, in the words that they were seen to use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.wire.refusals import Meaning, Refusal, meaning

OTHER = "Requests rest on what the weather was; do not ask about images of a model's context."


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "At most 1 image(s) may be provided in one request."),
        (400, "At most 2 image(s) may be provided in one prompt."),
        (400, "You set image=2 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 3"),
        (400, "Too many images provided. This model supports up to 5 images"),
        (422, "The maximum of 8 images was exceeded"),
    ],
)
def test_too_few_images_are_allowed(status: int, text: str) -> None:
    kind, hint = meaning(Refusal(status, text))
    assert kind is Meaning.MISCONFIGURED
    assert "--limit-mm-per-prompt" in hint


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
        (500, "image input is not supported by this server"),
        (500, 'Failed to parse messages: Unsupported content part type: "image_url"; messages = ['),
        (400, "this model does not support image input (ref: b8bd630e)"),
        (400, "this model is missing data required for image input"),
        (400, "json: cannot unmarshal array into Go struct field Message.messages.content of type"),
        (400, "Model does not support images. Please use a model that does."),
        (200, "ValueError: Vision add-on is not loaded, but images were provided for processing"),
        (400, "Invalid content type. image_url is only supported by certain models."),
        (404, "No endpoints found that support image input"),
        (400, "Image input is not enabled for this model"),
        (400, "/models/text-only is not a multimodal model"),
        (422, "unknown variant `image_url`, expected `text` at line 1 column 214"),
        (400, "Input should be 'text'"),
        (400, "messages[0].content must be a string"),
    ],
)
def test_images_are_not_taken_at_all(status: int, text: str) -> None:
    kind, hint = meaning(Refusal(status, text))
    assert kind is Meaning.MISCONFIGURED
    assert "takes images" in hint


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000"),
        (400, "The decoder prompt (length 4926) is longer than the maximum model length of 4096."),
        (400, "The prompt (total length 25938) is too long to fit into the model (context length"),
        (400, "'max_tokens' is too large: 9. This model's maximum context length is 8 tokens"),
        (400, "the request exceeds the available context size. try increasing the context size"),
        (400, "request (4390 tokens) exceeds the available context size (4096 tokens)"),
        (500, "Context size has been exceeded."),
        (400, "The input (61709 tokens) is longer than the model's context length (40960 tokens)."),
        (400, "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens)."),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192."),
        (500, "Requested tokens (2285) exceed context window of 2048"),
        (400, "prompt is too long: 207944 tokens > 200000 maximum"),
        (200, "Trying to keep the first 111490 tokens when context the overflows."),
    ],
)
def test_the_context_is_too_short(status: int, text: str) -> None:
    kind, hint = meaning(Refusal(status, text))
    assert kind is Meaning.MISCONFIGURED
    assert "max_model_len" in hint


@pytest.mark.parametrize(
    ("refusal", "named"),
    [
        (Refusal(400, "no", frozenset({"context_length_exceeded"})), "max_model_len"),
        (Refusal(500, "no", frozenset({"exceed_context_size_error"})), "max_model_len"),
        (Refusal(429, "no", frozenset({"insufficient_quota"})), "quota"),
        (Refusal(400, "Billing hard limit", frozenset({"billing_hard_limit_reached"})), "quota"),
        (Refusal(400, "Insufficient Balance"), "quota"),
        (Refusal(400, "API key not valid. Please pass a valid API key."), "{key}"),
        (Refusal(400, "Incorrect API key provided: xa***1"), "{key}"),
        (Refusal(400, "Model Not Exist"), "model name"),
        (Refusal(400, "gpt-9 is not a valid model ID"), "model name"),
        (Refusal(404, "The model `m` does not exist."), "model name"),
        (Refusal(400, "No models loaded. Please load a model"), "model name"),
        (Refusal(200, "Unexpected endpoint or method. (POST /chat/completions)"), "base_url"),
        (Refusal(400, "Cannot load local files without `--allowed-local-media-path`"), "base64"),
        (Refusal(400, "Unsupported value: 'temperature' does not support 0"), "decoding"),
        (Refusal(400, "no", frozenset({"unsupported_parameter"})), "decoding"),
    ],
)
def test_what_to_change_is_named(refusal: Refusal, named: str) -> None:
    kind, hint = meaning(refusal)
    assert kind is Meaning.MISCONFIGURED
    assert named in hint


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(400, OTHER), Meaning.REFUSED),
        (Refusal(500, OTHER), Meaning.RETRY),
        (Refusal(200, OTHER), Meaning.RETRY),
        (Refusal(503, OTHER), Meaning.OVERLOADED),
        (Refusal(400, "image format image/webp is not supported"), Meaning.REFUSED),
        (Refusal(400, "cannot identify image file"), Meaning.REFUSED),
        (Refusal(503, "the model m was not found on any worker"), Meaning.OVERLOADED),
        (Refusal(503, "No models loaded yet"), Meaning.OVERLOADED),
        (
            Refusal(429, "You exceeded your current quota. Please retry in 32 s."),
            Meaning.OVERLOADED,
        ),
        (Refusal(429, "limit of 8192 tokens; context length is fine"), Meaning.OVERLOADED),
        (
            Refusal(429, "Request too large for gpt-4o: Limit 30000, Requested 36055"),
            Meaning.REFUSED,
        ),
        (Refusal(403, "your input was flagged"), Meaning.REFUSED),
        (Refusal(500, "the moderation service is down"), Meaning.RETRY),
    ],
)
def test_other_words_leave_it_to_the_status(refusal: Refusal, kind: Meaning) -> None:
    assert meaning(refusal)[0] is kind


@given(
    status=st.integers(300, 599),
    text=st.text() | st.just("a" * 100_000) | st.just("model " * 50_000),
    codes=st.frozensets(st.text(max_size=9), max_size=2),
)
def test_every_error_has_a_meaning(status: int, text: str, codes: frozenset[str]) -> None:
    kind, hint = meaning(Refusal(status, text, codes))
    assert len(hint) <= 100
    if kind in (Meaning.RETRY, Meaning.OVERLOADED):
        assert status in (408, 409, 429) or status >= 500


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["code", "type", "message", "detail"]), inner, max_size=3
            )
        ),
    )
)
def test_any_body_can_be_read(body: object) -> None:
    refusal = Refusal.from_body(400, body)
    assert refusal.status == 400
    assert isinstance(refusal.text, str)
    assert meaning(refusal)


@pytest.mark.parametrize(
    ("code", "status"),
    [(429, 429), ("503", 503), (404, 404), (200, 200), (4290, 200), ("x", 200), (True, 200)],
)
def test_the_body_of_a_200_may_name_another_status(code: object, status: int) -> None:
    assert Refusal.from_body(200, {"code": code, "message": "no"}).status == status


def test_the_body_of_any_other_status_names_none() -> None:
    assert Refusal.from_body(400, {"code": 503, "message": "no"}).status == 400
