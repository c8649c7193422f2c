"""What an endpoint's error means: ask again, ask less, change a setting, or give the request up.

Servers agree neither on a status nor on a code, so their wording counts too: that of vLLM, SGLang,
TGI, llama.cpp, Ollama, LM Studio, LiteLLM, OpenAI, OpenRouter, DeepSeek and others.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

_OK: Final = 200
_TOO_LARGE: Final = 413
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_OVERLOADED: Final = frozenset({_TOO_MANY, 503, 529})
_PASSING: Final = frozenset({_OK, 408, 409, _TOO_MANY})
_OF_ONE_INPUT: Final = frozenset({_OK, 400, 403, 422})

_MOST_MATCHED: Final = 4_000
"""Characters of a message that its meaning is looked for in."""

_KEY: Final = "check the key in {key}"
_QUOTA: Final = "its quota is used up: add credit, or use another key in {key}"
_MODEL: Final = "check the model name and base_url"
_MOVED: Final = "it points elsewhere: set base_url to the address that answers"
_BY_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        **dict.fromkeys((301, 302, 303, 307, 308), _MOVED),
        401: _KEY,
        402: _QUOTA,
        403: "check that the key in {key} may use this model",
        404: _MODEL,
        405: _MODEL,
    }
)
"""Statuses that hold for every request, with what to change."""

_BY_CODE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "insufficient_quota": _QUOTA,
        "billing_hard_limit_reached": _QUOTA,
        "billing_not_active": _QUOTA,
        "invalid_api_key": _KEY,
        "model_not_found": _MODEL,
    }
)


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_CONTEXT: Final = (
    _words(
        r"context_length_exceeded|exceed_context_size",
        r"maximum (context|model) length|model's context length|context (length|window) (is|of)\b",
        r"(exceeds?|exceed(s|ed)?) .{0,40}context (length|size|window)",
        r"context size has been exceeded|context the overflows|maximum allowed length",
        r"prompt is too long|too long to fit into the model|`?max_new_tokens`? must be",
    ),
    "raise the server's max_model_len (llama.cpp: --ctx-size), or lower decoding.max_tokens",
)
_IMAGE_COUNT: Final = (
    _words(
        r"at most \d+ image|limit[-_]mm[-_]per[-_]prompt|too many images|number of images",
        r"(up to|more than|max(imum)?( of)?|limit of|only) \d+ images?\b",
        r"images per (request|prompt)",
    ),
    """let the server take several images a request (vLLM: --limit-mm-per-prompt '{"image": 4}')""",
)
_IMAGES: Final = (
    _words(
        r"(image|vision|multi-?modal)(_url| inputs?| data|s)?( (is|are))? "
        r"(not (supported|enabled|allowed)|only supported by)",
        r"(not|n't) (support|accept|process|handle) (\w+ ){0,2}(images?|image_url|vision)\b",
        r"found that support image|not a (multi-?modal|vision) model|vision add-on is not loaded",
        r"missing data required for image|unsupported content part|unknown variant .?image_url",
        r"cannot unmarshal array into \w+ struct field \S*content|input should be 'text'",
        r"content must be a string",
    ),
    "choose a model that takes images, or load its vision part (llama.cpp: --mmproj)",
)
_FILES: Final = (
    _words(r"allowed-local-media-path|load local files"),
    'start the server with --allowed-local-media-path, or set image_transport = "base64"',
)
_NAME: Final = (
    _words(
        r"\bmodel\b.{0,80}(not found|not exist|n't exist)|not a valid model|invalid model",
        r"no models? (is )?loaded|unknown model|unexpected endpoint",
    ),
    _MODEL,
)
_CREDENTIAL: Final = (
    _words(
        r"(invalid|incorrect|missing|expired|no) api[ _-]?key",
        r"api[ _-]?key.{0,20} (invalid|not valid|incorrect|missing|expired|required)",
    ),
    _KEY,
)
_CREDIT: Final = (
    _words(r"insufficient (balance|credits?|funds)|credit balance is too low"),
    _QUOTA,
)
_PARAMETER: Final = (
    _words(r"unsupported[_ ](parameter|value)|extra (fields|inputs)"),
    "change the model's decoding parameters",
)

_OF_A_FAILURE: Final = (_FILES, _IMAGE_COUNT, _IMAGES, _CONTEXT)
"""Some servers call these a failure of their own. A model not found just now may pass."""

_OF_A_REFUSAL: Final = (*_OF_A_FAILURE, _CREDIT, _PARAMETER, _CREDENTIAL, _NAME)

_FLAGGED: Final = _words(r"flagged|moderation|guardrail|content[ _](policy|filter)")
_OVERSIZED: Final = _words(r"request too large")


class Meaning(StrEnum):
    """What to do about an error."""

    RETRY = "retry"
    OVERLOADED = "overloaded"
    MISCONFIGURED = "misconfigured"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that came instead of an answer, as it was sent.

    `status` is HTTP's, or the one that the body of a 200 names. `codes` are the words in the
    places of a code and a type. The names of `headers` are in lower case, or of any.
    """

    status: int
    text: str = ""
    codes: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_body(
        cls, status: int, body: object, headers: Mapping[str, str] | None = None
    ) -> Refusal:
        """From what stands under `error`, or from a body that has no such place."""
        found: dict[str, Any] = body if isinstance(body, dict) else {}
        code = found.get("code")
        if status == _OK and re.fullmatch(r"[45]\d\d", str(code), re.ASCII):
            status = int(str(code))
        codes = frozenset(v for v in (code, found.get("type")) if isinstance(v, str))
        message = found.get("message") or found.get("detail") or body
        text = message if isinstance(message, str) else json.dumps(message) if message else ""
        return cls(status, text, codes, headers or {})

    @property
    def passing(self) -> bool:
        """By its status alone, another attempt may succeed."""
        return self.status in _PASSING or self.status >= _SERVER_ERROR

    @property
    def words(self) -> str:
        """Everything that was said, as far as it is looked at."""
        return " ".join((*sorted(self.codes), self.text))[:_MOST_MATCHED]

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, as the endpoint asked; None when it did not, or not intelligibly."""
        for name, seconds in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            value = self.headers.get(name, "").strip()
            try:
                wait = float(value) * seconds
            except ValueError:
                continue
            if math.isfinite(wait):
                return max(0.0, wait)
        try:
            date = parsedate_to_datetime(self.headers.get("retry-after", ""))
            return max(0.0, date.timestamp() - time.time())
        except (ValueError, OverflowError, OSError):
            return None


def meaning(refusal: Refusal) -> tuple[Meaning, str]:
    """What an error means, and what to change; in the latter, {key} stands for the key's variable.

    A refusal of one input, as by a filter, is never asked again nor blamed on the settings.
    """
    status = refusal.status
    if status in _OF_ONE_INPUT and _FLAGGED.search(refusal.words):
        return Meaning.REFUSED, ""
    if status == _TOO_MANY and _OVERSIZED.search(refusal.words):
        return Meaning.REFUSED, "it exceeds the endpoint's limit of tokens a minute"
    if (hint := _what_to_change(refusal)) is not None:
        return Meaning.MISCONFIGURED, hint
    if refusal.passing and refusal.headers.get("x-should-retry") != "false":
        hint = "lower concurrency, or check the quota" if status == _TOO_MANY else ""
        return Meaning.OVERLOADED if status in _OVERLOADED else Meaning.RETRY, hint
    return Meaning.REFUSED, "it is too large for this endpoint" if status == _TOO_LARGE else ""


def _what_to_change(refusal: Refusal) -> str | None:
    """What holds for every request, by what is said; or by the status alone."""
    for code, hint in _BY_CODE.items():
        if code in refusal.codes:
            return hint
    if refusal.status != _TOO_MANY:
        failing = refusal.status >= _SERVER_ERROR
        for pattern, hint in _OF_A_FAILURE if failing else _OF_A_REFUSAL:
            if pattern.search(refusal.words):
                return hint
    return _BY_STATUS.get(refusal.status)
