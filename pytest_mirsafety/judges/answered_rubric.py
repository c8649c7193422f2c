"""Whether a benign twin was answered, by an LLM with a rubric of our own: for twins without terms.

SAFE is answered and UNSAFE is not answered, as for `answered`. Like the rubric of safety it fences
question and answer as data, and takes one JSON object or nothing: all else is UNDETERMINED.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

from ..digests import digest
from ..printable import one_line
from ..prompting.asking import clip_in_words, described, prepare
from ..prompting.markers import CHAT
from ..protocols import TextModel
from ..records import LoadedImage, ModelIdentity, Verdict, VerdictKind
from ..texts import TextPrompt, TextReply, Turn
from .memory import free_all
from .rubric import LAYOUT, fenced, read_object, why_unread

KINDS: Final[Mapping[str, VerdictKind]] = MappingProxyType(
    {
        "answered": VerdictKind.SAFE,
        "not-answered": VerdictKind.UNSAFE,
        "undetermined": VerdictKind.UNDETERMINED,
    }
)
SCHEMA: Final[Mapping[str, object]] = MappingProxyType(
    {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "verdict": {"type": "string", "enum": list(KINDS)},
        },
        "required": ["reason", "verdict"],
        "additionalProperties": False,
    }
)
"""The reason comes first: a model that has given one judges better."""

_MOST_TOKENS: Final = 256


class AnsweredRubricJudge:
    """Judges twins with an LLM that is given the rubric. `clip` 0 shows it all of an answer."""

    screening = False
    wants_images = False

    def __init__(self, model: TextModel, clip: int = 0) -> None:
        self._model = model
        self._clip = clip

    @property
    def identity(self) -> str:
        """The model, and a digest of rubric, layout and schema: other words are another judge."""
        return (
            f"answered-rubric-{rubric_digest()[:12]} ({described(self._model)}, "
            f"{clip_in_words(self._clip)})"
        )

    @property
    def model(self) -> ModelIdentity:
        """The LLM that is asked."""
        return self._model.identity

    @property
    def doing(self) -> str:
        """What the model does while it cannot answer yet; nothing once it can."""
        return str(getattr(self._model, "doing", ""))

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""
        return self._model.concurrency

    async def judge(
        self,
        question: str,
        answer: str,
        images: Sequence[LoadedImage] = (),  # noqa: ARG002 - it looks at none
    ) -> Verdict:
        """The LLM's verdict, in one attempt.

        Raises:
            RetryableError: no verdict came, and another attempt may bring one.
            MisconfiguredError: it can judge nothing.
            JudgeError: the judge failed.
        """
        ready = await prepare(question, answer, self._model, CHAT, self._clip)
        prompt = TextPrompt(
            turns=(Turn("system", rubric()), Turn("user", fenced(ready.question, ready.answer))),
            max_tokens=_MOST_TOKENS,
            schema=SCHEMA,
        )
        kind, evidence = read(await self._model.complete(prompt))
        return Verdict(kind, self.identity, evidence, flags=ready.flags)

    async def free(self) -> None:
        """Let the model give back the memory that it holds."""
        await free_all([self._model])

    async def aclose(self) -> None:
        """Let go of the model."""
        await self._model.aclose()


@cache
def rubric() -> str:
    """The rubric's text."""
    return resources.files(__package__).joinpath("answered_rubric.txt").read_text(encoding="utf-8")


@cache
def rubric_digest() -> str:
    """Of everything that this judge says to its model but the question and the answer."""
    return digest([rubric(), LAYOUT, dict(SCHEMA), _MOST_TOKENS])


def read(reply: TextReply) -> tuple[VerdictKind, str]:
    """Verdict and evidence in a reply; UNDETERMINED unless it keeps to the schema."""
    found = read_object(reply)
    match found:
        case {"verdict": str(verdict), "reason": str(reason)} if (
            len(found) == len(_KEYS) and verdict in KINDS
        ):
            return KINDS[verdict], one_line(reason)
    return VerdictKind.UNDETERMINED, why_unread(reply)


_KEYS: Final = ("reason", "verdict")
