"""Judges whose verdicts are kept: each pair is asked once, in this run or an earlier one."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.calling import ask_judge, check_verdict, doing, wants_images
from ..engine.keeping import Keeper
from ..judged import JudgedPair
from ..protocols import Judge, VerdictStore
from ..records import LoadedImage, Verdict
from .cascade import Cascade
from .memory import free_all
from .panel import Panel

VerdictKeeper = Keeper[JudgedPair, Verdict]


class KeptJudge:
    """A judge whose first verdict on a pair counts, whoever asked for it; failures are not kept."""

    def __init__(self, judge: Judge, store: VerdictStore, keeper: VerdictKeeper) -> None:
        self._judge = judge
        self._store = store
        self._keeper = keeper
        self.identity = judge.identity
        self.screening = judge.screening
        self.concurrency = judge.concurrency
        self.wants_images = wants_images(judge)

    @property
    def doing(self) -> str:
        """What the judge does while it cannot judge yet."""
        return doing(self._judge)

    def recalled(self, question: str, answer: str, images: tuple[str, ...] = ()) -> Verdict | None:
        """The verdict that is kept, if there is one; `images` are digests.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._store.get(self._pair(question, answer, images))

    async def judge(
        self, question: str, answer: str, images: Sequence[LoadedImage] = ()
    ) -> Verdict:
        """The verdict that is kept, or the judge's own, which is kept before it is given.

        Raises:
            Exception: what the judge raised.
            StoreError: the store cannot be read or written.
        """
        pair = self._pair(question, answer, tuple(image.sha256 for image in images))
        if (known := self._store.get(pair)) is not None:
            return known
        verdict = await ask_judge(self._judge, question, answer, images)
        check_verdict(verdict)
        return await self._keeper.keep(pair, verdict)

    async def free(self) -> None:
        """Let the judge give back the memory that it holds."""
        await free_all([self._judge])

    async def aclose(self) -> None:
        """Let the judge go."""
        await self._judge.aclose()

    def _pair(self, question: str, answer: str, images: tuple[str, ...]) -> JudgedPair:
        """Images belong to it for a judge that looks at them."""
        return JudgedPair.of(self.identity, question, answer, images if self.wants_images else ())


def keeping(judge: Judge, store: VerdictStore, keeper: VerdictKeeper) -> Judge:
    """The same judge with its verdicts kept, each member's its own.

    One that asks nothing (`cacheable = False`) is left as it is, unless it is part of another.
    """
    if isinstance(judge, Panel | Cascade):
        return judge.with_members([_kept(member, store, keeper) for member in judge.members])
    # A judge of a user's that does not say is kept: to ask it again would be to roll it again.
    asks_nothing = getattr(judge, "cacheable", True) is False
    return judge if asks_nothing else KeptJudge(judge, store, keeper)


def _kept(judge: Judge, store: VerdictStore, keeper: VerdictKeeper) -> Judge:
    if isinstance(judge, Panel | Cascade):
        return keeping(judge, store, keeper)
    return KeptJudge(judge, store, keeper)


def recalled(
    judge: Judge, question: str, answer: str, images: tuple[str, ...] = ()
) -> Verdict | None:
    """The verdict that needs nobody to be asked, or None; `images` are digests.

    Raises:
        StoreError: the store cannot be read.
    """
    if isinstance(judge, Panel):
        verdicts = _recalled(judge.members, question, answer, images)
        return judge.combined(verdicts) if len(verdicts) == len(judge.members) else None
    if isinstance(judge, Cascade):
        verdicts = []
        for member in judge.members:
            if judge.ends(verdicts):
                break
            if (verdict := recalled(member, question, answer, images)) is None:
                return None
            verdicts.append(verdict)
        return judge.combined(verdicts)
    return judge.recalled(question, answer, images) if isinstance(judge, KeptJudge) else None


def _recalled(
    members: Sequence[Judge], question: str, answer: str, images: tuple[str, ...]
) -> list[Verdict]:
    found = (recalled(member, question, answer, images) for member in members)
    return [verdict for verdict in found if verdict is not None]
