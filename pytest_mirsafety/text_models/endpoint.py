"""Asks a text model behind any OpenAI-compatible server, greedily, in one attempt.

A text is continued by `/completions`, turns are answered by `/chat/completions`. Texts are clipped
by the server's own tokenizer: vLLM's `/tokenize` and `/detokenize`, beside the base URL's `/v1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..errors import JudgeError, MisconfiguredError
from ..records import ModelIdentity
from ..texts import Clipped, TextPrompt, TextReply, Turn
from ..wire import replies
from ..wire.bodies import Body, Encoded, Encoder, listed
from ..wire.connection import OPENAI_KEY, Connection, EndpointSettings, to_json

_FILTERED: Final = "the endpoint's content filter refused the judge's prompt"
_NO_TOKENIZER: Final = (
    "it does not tell its tokens at {url}: serve the judge's model with vLLM, "
    "or set clip_tokens = 0"
)
_MOST_SHOWN: Final = 20
"""Log-probabilities that are read of a reply."""

_LEAST: Final = -1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointModelSettings:
    """An endpoint, and the model that it is asked for.

    `token_limit` is the name under which the most tokens of a chat's reply are sent.
    """

    model: str
    provider: str = "http"
    base_url: str | None = None
    revision: str | None = None
    api_key_env: str = OPENAI_KEY
    key_required: bool = True
    concurrency: int = 16
    timeout: float = 600.0
    token_limit: str = "max_tokens"  # noqa: S105 - a name, not a password


class EndpointModel:
    """A text model behind an endpoint. Belongs to one event loop.

    Raises:
        ConfigurationError: no key where one is needed, or an unusable base_url.
    """

    numerics = ""

    def __init__(self, settings: EndpointModelSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._connection = Connection(
            EndpointSettings(
                name=f"the judge's model {settings.provider}:{settings.model}",
                base_url=settings.base_url,
                api_key_env=settings.api_key_env,
                key_required=settings.key_required,
                timeout=settings.timeout,
                failure=JudgeError,
            ),
            environ,
        )
        self._encoder = Encoder()

    @property
    def identity(self) -> ModelIdentity:
        """Provider, model, endpoint and revision."""
        own = self._settings
        return ModelIdentity(own.provider, own.model, self._connection.url, own.revision)

    @property
    def concurrency(self) -> int:
        """How many prompts may be in flight at once."""
        return self._settings.concurrency

    async def complete(self, prompt: TextPrompt) -> TextReply:
        """The reply, in one attempt.

        Raises:
            RetryableError: no reply came, or one that says nothing.
            MisconfiguredError: no prompt like this one can succeed.
            JudgeError: this prompt was refused, or the reply is not one whole reply.
        """
        if prompt.text is None:
            body = await self._send("/chat/completions", Body(self._chat(prompt)))
            reply = self._connection.read(lambda: _chat_reply(body))
        else:
            body = await self._send("/completions", to_json(self._continuation(prompt)))
            reply = self._connection.read(lambda: _continued_reply(body))
        if reply.finish_reason == "content_filter":
            raise JudgeError(_FILTERED)
        return reply

    async def clip(self, text: str, most: int) -> Clipped:
        """The text as it is, or what its first `most` tokens say.

        Raises:
            RetryableError: nothing came, and another attempt may bring it.
            MisconfiguredError: the server does not tell its tokens.
            JudgeError: this text cannot be clipped.
        """
        if text.isascii() and len(text) < most:  # no tokenizer makes more tokens of it
            return Clipped(text)
        body = {"model": self._settings.model, "prompt": text, "add_special_tokens": False}
        reply = await self._tokenizer("tokenize", body)
        tokens = self._connection.read(lambda: _tokens(reply))
        if len(tokens) <= most:
            return Clipped(text)
        body = {"model": self._settings.model, "tokens": tokens[:most]}
        reply = await self._tokenizer("detokenize", body)
        return Clipped(self._connection.read(lambda: _prompt(reply)), len(tokens) - most)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()

    def _chat(self, prompt: TextPrompt) -> Iterator[bytes | Encoded]:
        """The body in pieces: images are not copied, and each is encoded once while it is held."""
        own = self._settings
        body: dict[str, Any] = {
            "model": own.model,
            "temperature": 0,
            own.token_limit: prompt.max_tokens,
        }
        if prompt.top:
            body |= {"logprobs": True, "top_logprobs": prompt.top}
        if prompt.schema is not None:
            schema = {"name": "verdict", "strict": True, "schema": dict(prompt.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        yield to_json(body)[:-1]
        yield b',"messages":'
        yield from listed(map(self._turn, prompt.turns))
        yield b"}"

    def _turn(self, turn: Turn) -> Iterator[bytes | Encoded]:
        if not turn.images:
            yield to_json({"role": turn.role, "content": turn.text})
            return
        text = (to_json({"type": "text", "text": turn.text}),)
        yield to_json({"role": turn.role})[:-1]
        yield b',"content":'
        yield from listed([*map(self._encoder.part, turn.images), text])
        yield b"}"

    def _continuation(self, prompt: TextPrompt) -> dict[str, Any]:
        body = {
            "model": self._settings.model,
            "prompt": prompt.text,
            "temperature": 0,
            "max_tokens": prompt.max_tokens,
        }
        return body | {"logprobs": prompt.top} if prompt.top else body

    async def _send(self, path: str, body: bytes | Body) -> bytes:
        reply = await self._connection.post(path, body)
        if reply is None:
            raise JudgeError(_FILTERED)
        return reply

    async def _tokenizer(self, name: str, body: Mapping[str, Any]) -> bytes:
        url = f"{self._connection.url.removesuffix('/v1')}/{name}"
        failure = None
        try:
            return await self._send(url, to_json(body))
        except MisconfiguredError as error:
            if not error.detail.startswith(("HTTP 404", "HTTP 405")):
                raise
            failure = MisconfiguredError(_NO_TOKENIZER.format(url=url))
        raise failure


def _chat_reply(reply: bytes) -> TextReply:
    completion = replies.read(reply, 0.0)
    logprobs = replies.only_choice(replies.as_object(reply)).get("logprobs")
    return TextReply(
        completion.text,
        completion.finish_reason,
        _first_of_chat(logprobs),
        completion.input_tokens,
        completion.output_tokens,
    )


def _continued_reply(reply: bytes) -> TextReply:
    choice = replies.only_choice(replies.as_object(reply))
    text = replies.text_of(choice, "text")
    finish_reason = replies.text_of(choice, "finish_reason")
    if text is None:
        raise replies.UnusableAnswerError("the choice has no text")
    if not finish_reason:
        raise replies.UnusableAnswerError("it has no finish_reason, so it may have been cut off")
    return TextReply(text, finish_reason, _first_of_continuation(choice.get("logprobs")))


def _first_of_chat(logprobs: object) -> tuple[tuple[str, float], ...]:
    """Of a chat's reply: nothing where the server tells nothing, or something else."""
    match logprobs:
        case {"content": [{"top_logprobs": [*entries]}, *_]}:
            pairs = [(e.get("token"), e.get("logprob")) for e in entries if isinstance(e, dict)]
            return _numbers(pairs)
    return ()


def _first_of_continuation(logprobs: object) -> tuple[tuple[str, float], ...]:
    match logprobs:
        case {"top_logprobs": [{**entries}, *_]}:
            return _numbers(list(entries.items()))
    return ()


def _numbers(pairs: list[tuple[object, object]]) -> tuple[tuple[str, float], ...]:
    return tuple(
        (token, float(number))
        for token, number in pairs[:_MOST_SHOWN]
        if isinstance(token, str)
        and isinstance(number, int | float)
        and not isinstance(number, bool)
        and _LEAST < number <= 0  # what is no log-probability is none, such as -inf or NaN
    )


def _tokens(reply: bytes) -> list[int]:
    tokens = replies.as_object(reply).get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise replies.UnusableAnswerError("it tells no tokens")
    return tokens


def _prompt(reply: bytes) -> str:
    text = replies.text_of(replies.as_object(reply), "prompt")
    if text is None:
        raise replies.UnusableAnswerError("it tells no text of the tokens")
    return text
