"""Judges one after another: what one cannot tell goes on to the next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from ..engine.calling import doing, wants_images
from ..engine.judging import pair_key
from ..protocols import Judge
from ..records import LoadedImage, Verdict, VerdictKind
from .memory import free_all
from .panel import asked_once, close_all


class Cascade:
    """A judge of several stages. Only UNDETERMINED goes on; a failure is a failure of the whole.

    It screens if any stage does, since the word of each stage can be the last.
    """

    def __init__(self, members: Sequence[Judge]) -> None:
        self.members = tuple(members)
        self._said: dict[str, list[Verdict]] = {}

    def with_members(self, members: Sequence[Judge]) -> Cascade:
        """A cascade of these stages."""
        return Cascade(members)

    @cached_property
    def identity(self) -> str:
        """Every stage, in order: another order is another judge."""
        return f"cascade({' then '.join(member.identity for member in self.members)})"

    @property
    def screening(self) -> bool:
        """A stage screens."""
        return any(member.screening for member in self.members)

    @property
    def concurrency(self) -> int:
        """That of the slowest stage: every answer may come to it."""
        return min(member.concurrency for member in self.members)

    @property
    def wants_images(self) -> bool:
        """A stage looks at images; the others are given none."""
        return any(map(wants_images, self.members))

    @property
    def doing(self) -> str:
        """What a member does while it cannot judge yet; nothing once all can."""
        return next(filter(None, map(doing, self.members)), "")

    def combined(self, verdicts: Sequence[Verdict]) -> Verdict:
        """The last word, with all that was said before it."""
        last = verdicts[-1]
        return Verdict(
            last.kind,
            self.identity,
            f"stage {len(verdicts)}: {last.evidence}" if len(verdicts) > 1 else last.evidence,
            mode=last.mode,
            flags=last.flags,
            scores=last.scores,
            members=tuple(verdicts),
        )

    def ends(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether nothing goes on after these."""
        told = verdicts and verdicts[-1].kind is not VerdictKind.UNDETERMINED
        return bool(told) or len(verdicts) == len(self.members)

    async def judge(
        self, question: str, answer: str, images: Sequence[LoadedImage] = ()
    ) -> Verdict:
        """The verdict of the first stage that can tell, or of the last.

        Raises:
            Exception: what a stage raised; a stage that has spoken is not asked again after it.
        """
        key = pair_key(question, answer, [image.sha256 for image in images])
        said = self._said.setdefault(key, [])
        while not self.ends(said):
            reply = await asked_once(self.members[len(said)], question, answer, images)
            if not isinstance(reply, Verdict):
                raise reply
            said.append(reply)
        self._said.pop(key, None)
        return self.combined(said)

    async def free(self) -> None:
        """Let every stage give back the memory that it holds."""
        await free_all(self.members)

    async def aclose(self) -> None:
        """Let every stage go, also after one that does not close."""
        await close_all(self.members)
