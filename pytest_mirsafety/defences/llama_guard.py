"""Llama Guard 3 and 4 as a guard, through the model's own chat template.

Before the model it sees the user's turn alone, and after it the assistant's too.
"""

from __future__ import annotations

from ..printable import one_line
from ..prompting.asking import clip_in_words, described, prepare
from ..prompting.llama_guard import MARKERS, MOST_TOKENS, read
from ..texts import TextPrompt, Turn
from .guarding import Content, Opinion
from .modelled import ModelGuard


class LlamaGuard(ModelGuard):
    """Guards with Llama Guard. `clip` 0 shows it all of an answer."""

    @property
    def identity(self) -> str:
        """The model and the clipping; the template and its categories are the model's own."""
        return f"llamaguard ({described(self._model)}, {clip_in_words(self._clip)})"

    async def check(self, content: Content) -> Opinion:
        """Llama Guard's word, in one attempt.

        Raises:
            RetryableError: it said nothing, and another attempt may bring something.
            MisconfiguredError: it can say nothing of any content.
            JudgeError: it failed.
        """
        answer = content.answer or ""
        clip = self._clip if answer else 0
        ready = await prepare(content.prompt, answer, self._model, MARKERS, clip)
        turns = [Turn("user", ready.question, content.images)]
        if content.answer is not None:
            turns.append(Turn("assistant", ready.answer))
        reply = await self._model.complete(TextPrompt(turns=tuple(turns), max_tokens=MOST_TOKENS))
        kind, _ = read(reply.text)
        why = f"Llama Guard said '{one_line(reply.text, 120)}'"
        return Opinion(kind, why, reply.input_tokens, reply.output_tokens)
