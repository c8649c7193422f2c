"""What an instance was asked and what came back, as people and other tools want to see it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .records import Response, SentImages


@dataclass(frozen=True, slots=True)
class Exchange:
    """The texts of one instance of a run, and what its answer took; None where it is not known.

    `question` is the seed question, `prompt` what the model was asked, `answer` its final answer,
    apart from its `reasoning`. `finish_reason` is the provider's own word. `latency` is in
    seconds. `created` is in seconds since the epoch: what is older than its run, the store had.
    `images` are those of the answered request. The digests are of texts that are not there:
    of UTF-8, by `records.text_digest`. `blocked` says why a defence answered in the model's place.
    """

    question: str | None = None
    prompt: str | None = None
    answer: str | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency: float | None = None
    created: float | None = None
    images: SentImages | None = None
    prompt_sha256: str | None = None
    answer_sha256: str | None = None
    blocked: str | None = None

    def answered(self, response: Response, images: SentImages | None) -> Exchange:
        """The same with what came back, and the images that it was an answer to."""
        completion = response.completion
        return replace(
            self,
            answer=response.answer,
            reasoning=response.reasoning,
            finish_reason=completion.finish_reason,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            latency=completion.latency,
            created=completion.created or None,
            images=images,
            blocked=completion.blocked,
        )
