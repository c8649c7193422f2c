"""Judges whose verdicts are kept: each pair is asked once, in this run or an earlier one."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.calling import check_verdict, doing
from ..engine.keeping import Keeper
from ..protocols import Judge, VerdictStore
from ..records import JudgedPair, Verdict
from .cascade import Cascade
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

    @property
    def doing(self) -> str:
        """What the judge does while it cannot judge yet."""
        return doing(self._judge)

    def recalled(self, question: str, answer: str) -> Verdict | None:
        """The verdict that is kept, if there is one.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._store.get(JudgedPair.of(self.identity, question, answer))

    async def judge(self, question: str, answer: str) -> Verdict:
        """The verdict that is kept, or the judge's own, which is kept before it is given.

        Raises:
            Exception: what the judge raised.
            StoreError: the store cannot be read or written.
        """
        pair = JudgedPair.of(self.identity, question, answer)
        if (known := self._store.get(pair)) is not None:
            return known
        verdict = await self._judge.judge(question, answer)
        check_verdict(verdict)
        return await self._keeper.keep(pair, verdict)

    async def aclose(self) -> None:
        """Let the judge go."""
        await self._judge.aclose()


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


def recalled(judge: Judge, question: str, answer: str) -> Verdict | None:
    """The verdict that needs nobody to be asked, or None.

    Raises:
        StoreError: the store cannot be read.
    """
    if isinstance(judge, Panel):
        verdicts = _recalled(judge.members, question, answer)
        return judge.combined(verdicts) if len(verdicts) == len(judge.members) else None
    if isinstance(judge, Cascade):
        verdicts = []
        for member in judge.members:
            if judge.ends(verdicts):
                break
            if (verdict := recalled(member, question, answer)) is None:
                return None
            verdicts.append(verdict)
        return judge.combined(verdicts)
    return judge.recalled(question, answer) if isinstance(judge, KeptJudge) else None


def _recalled(members: Sequence[Judge], question: str, answer: str) -> list[Verdict]:
    found = (recalled(member, question, answer) for member in members)
    return [verdict for verdict in found if verdict is not None]
