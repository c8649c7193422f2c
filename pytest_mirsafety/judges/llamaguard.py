"""Llama Guard 3 and 4, through the model's own chat template: safe or unsafe, with categories.

The seed question is the user's turn and the final answer the assistant's. The first line must be
`safe` and all there is, or `unsafe`; the codes behind it (`S1` to `S14`) are kept. All else is
UNDETERMINED.
"""

from __future__ import annotations

from typing import Final

from ..printable import one_line
from ..prompting.asking import clip_in_words, described, prepare, scores_of
from ..prompting.llama_guard import MARKERS, MOST_TOKENS, SAFE, UNSAFE, read
from ..protocols import TextModel
from ..records import ModelIdentity, Verdict
from ..texts import TextPrompt, Turn
from .memory import free_all

_TOP: Final = 5


class LlamaGuardJudge:
    """Judges with Llama Guard. `clip` 0 shows it all of an answer."""

    screening = False
    tells_modes = False

    def __init__(self, model: TextModel, clip: int = 0) -> None:
        self._model = model
        self._clip = clip

    @property
    def identity(self) -> str:
        """The model and the clipping; the template and its categories are the model's own."""
        return f"llamaguard ({described(self._model)}, {clip_in_words(self._clip)})"

    @property
    def model(self) -> ModelIdentity:
        """The Llama Guard that is asked."""
        return self._model.identity

    @property
    def doing(self) -> str:
        """What the model does while it cannot answer yet; nothing once it can."""
        return str(getattr(self._model, "doing", ""))

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""
        return self._model.concurrency

    async def judge(self, question: str, answer: str) -> Verdict:
        """Llama Guard's verdict, in one attempt.

        Raises:
            RetryableError: no verdict came, and another attempt may bring one.
            MisconfiguredError: it can judge nothing.
            JudgeError: the judge failed.
        """
        ready = await prepare(question, answer, self._model, MARKERS, self._clip)
        turns = (Turn("user", ready.question), Turn("assistant", ready.answer))
        prompt = TextPrompt(turns=turns, max_tokens=MOST_TOKENS, top=_TOP)
        reply = await self._model.complete(prompt)
        kind, codes = read(reply.text)
        return Verdict(
            kind,
            self.identity,
            f"said '{one_line(reply.text, 120)}'",
            flags=ready.flags,
            scores=(*((code, 1.0) for code in codes), *scores_of(reply, (SAFE, UNSAFE))),
        )

    async def free(self) -> None:
        """Let the model give back the memory that it holds."""
        await free_all([self._model])

    async def aclose(self) -> None:
        """Let go of the model."""
        await self._model.aclose()
