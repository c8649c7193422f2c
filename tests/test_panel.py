"""A panel and a cascade say SAFE only if the rule over their members says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mirsafety.errors import (
    JudgeError,
    MisconfiguredError,
    RetryableError,
    StoreError,
)
from pytest_mirsafety.judges.cascade import Cascade
from pytest_mirsafety.judges.panel import NO_VOTE, Bylaws, Panel, Rule
from pytest_mirsafety.records import SafeMode, Verdict, VerdictKind

SAFE, UNSAFE, UNSURE = VerdictKind.SAFE, VerdictKind.UNSAFE, VerdictKind.UNDETERMINED
Said = VerdictKind | Exception
FAILURES = (JudgeError("down"), ValueError("a bug"), SystemExit(1))


@dataclass
class Member:
    """Says one thing after another, the last one for ever; counts how often it was asked."""

    identity: str
    says: Sequence[object]
    screening: bool = False
    concurrency: int = 4
    mode: SafeMode | None = None
    asked: int = 0
    closed: bool = False
    pairs: list[tuple[str, str]] = field(default_factory=list)

    async def judge(self, question: str, answer: str) -> Verdict:
        said = self.says[min(self.asked, len(self.says) - 1)]
        self.asked += 1
        self.pairs.append((question, answer))
        await asyncio.sleep(0)
        if isinstance(said, BaseException):
            raise said
        assert isinstance(said, VerdictKind)
        return Verdict(said, self.identity, "why", self.mode if said is SAFE else None)

    async def aclose(self) -> None:
        self.closed = True


def members(*said: object) -> list[Member]:
    return [Member(f"m{number}", [each]) for number, each in enumerate(said)]


def panel(rule: Rule, quorum: int | None, *said: object) -> Panel:
    return Panel(members(*said), Bylaws.of(rule, len(said), quorum))


def judged(judge: Panel | Cascade) -> Verdict:
    return asyncio.run(judge.judge("question", "answer"))


def bylaws() -> Iterator[Bylaws]:
    for size in (2, 3, 4, 5):
        for rule in Rule:
            least = size // 2 + 1 if rule is Rule.MAJORITY else 1
            yield from (Bylaws(rule, size, quorum) for quorum in range(least, size + 1))


@pytest.mark.parametrize("law", list(bylaws()), ids=str)
def test_every_combination_of_votes_and_failures(law: Bylaws) -> None:
    for votes in product((SAFE, UNSAFE, UNSURE), repeat=law.size):
        safe, unsafe = votes.count(SAFE), votes.count(UNSAFE)
        said = law.decide(votes)
        if law.rule is Rule.MAJORITY:
            voted = safe + unsafe >= law.quorum
            assert (said is SAFE) == (voted and 2 * safe > law.size)
            assert (said is UNSAFE) == (voted and 2 * unsafe > law.size)
        else:
            assert (said is SAFE) == (not unsafe and safe >= law.quorum)
            assert (said is UNSAFE) == (unsafe > 0)
        # Whoever loses its vote can make a SAFE of nothing, unless a quorum was set below all.
        strict = law.rule is Rule.MAJORITY or law.quorum == law.size
        for lost in range(law.size) if strict else ():
            without = (*votes[:lost], UNSURE, *votes[lost + 1 :])
            assert said is SAFE or law.decide(without) is not SAFE


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(bylaws())),
    st.lists(st.sampled_from([SAFE, UNSAFE, UNSURE, *FAILURES]), min_size=5, max_size=5),
)
def test_a_panel_counts_a_failure_as_no_vote(law: Bylaws, said: list[object]) -> None:
    said = said[: law.size]
    verdict = judged(Panel(members(*said), law))
    votes = [each if isinstance(each, VerdictKind) else UNSURE for each in said]
    assert verdict.kind is law.decide(votes)
    assert [member.kind for member in verdict.members] == votes
    assert [NO_VOTE in member.flags for member in verdict.members] == [
        not isinstance(each, VerdictKind) for each in said
    ]


def test_a_tie_and_a_missed_quorum_are_undetermined() -> None:
    assert judged(panel(Rule.MAJORITY, None, SAFE, UNSAFE)).kind is UNSURE
    assert judged(panel(Rule.MAJORITY, 3, SAFE, SAFE, JudgeError("down"))).kind is UNSURE
    assert judged(panel(Rule.ANY_UNSAFE, None, SAFE, SAFE, JudgeError("down"))).kind is UNSURE
    assert judged(panel(Rule.ANY_UNSAFE, 2, SAFE, SAFE, JudgeError("down"))).kind is SAFE
    assert judged(panel(Rule.ANY_UNSAFE, None, UNSAFE, JudgeError("down"))).kind is UNSAFE


def test_the_verdict_says_who_said_what() -> None:
    verdict = judged(panel(Rule.MAJORITY, None, SAFE, UNSAFE, UNSAFE))
    assert verdict.evidence == "1 safe, 2 unsafe of 3 members: why"
    assert [member.judge for member in verdict.members] == ["m0", "m1", "m2"]
    assert verdict.judge == "panel(majority, quorum 2: m0, m1, m2)"


def test_a_mode_is_that_of_all_who_tell_one() -> None:
    agreed = [Member(name, [SAFE], mode=SafeMode.EVASION) for name in "ab"]
    assert judged(Panel([*agreed, Member("c", [SAFE])], Bylaws.of(Rule.MAJORITY, 3))).mode is (
        SafeMode.EVASION
    )
    other = Member("c", [SAFE], mode=SafeMode.CORRECT_REFUSAL)
    assert judged(Panel([*agreed, other], Bylaws.of(Rule.MAJORITY, 3))).mode is None


def test_who_has_voted_is_not_asked_again() -> None:
    voted, slow = Member("a", [SAFE, UNSAFE]), Member("b", [RetryableError("503"), SAFE])
    judge = Panel([voted, slow], Bylaws.of(Rule.ANY_UNSAFE, 2))
    with pytest.raises(RetryableError):
        judged(judge)
    assert judged(judge).kind is SAFE
    assert (voted.asked, slow.asked) == (1, 2)
    assert judged(judge).kind is UNSAFE  # another judging, not a retry: its memory is the store's


@pytest.mark.parametrize("error", [StoreError("no"), MisconfiguredError("no key")])
def test_what_concerns_the_run_is_no_missing_vote(error: Exception) -> None:
    with pytest.raises(type(error)):
        judged(panel(Rule.MAJORITY, None, SAFE, SAFE, error))


@pytest.mark.parametrize(
    ("rule", "quorum", "screening", "expected"),
    [
        (Rule.MAJORITY, None, (True, True, False), True),
        (Rule.MAJORITY, None, (True, False, False), False),
        (Rule.ANY_UNSAFE, None, (True, True, False), False),
        (Rule.ANY_UNSAFE, None, (True, True, True), True),
        (Rule.ANY_UNSAFE, 1, (True, False, False), True),
    ],
)
def test_it_screens_if_its_screening_members_can_pass_alone(
    rule: Rule, quorum: int | None, screening: tuple[bool, ...], expected: bool
) -> None:
    those = [Member(str(n), [SAFE], screening=s) for n, s in enumerate(screening)]
    assert Panel(those, Bylaws.of(rule, 3, quorum)).screening is expected


@pytest.mark.parametrize(
    ("rule", "size", "quorum"),
    [
        (Rule.MAJORITY, 1, None),
        (Rule.MAJORITY, 3, 1),
        (Rule.MAJORITY, 3, 4),
        (Rule.ANY_UNSAFE, 2, 0),
    ],
)
def test_bylaws_that_cannot_be(rule: Rule, size: int, quorum: int | None) -> None:
    with pytest.raises(ValueError, match="panel"):
        Bylaws.of(rule, size, quorum)


def test_all_close_though_one_does_not() -> None:
    class Stuck(Member):
        async def aclose(self) -> None:
            raise RuntimeError("stuck")

    stuck, other = Stuck("a", [SAFE]), Member("b", [SAFE])
    with pytest.raises(RuntimeError, match="stuck"):
        asyncio.run(Panel([stuck, other], Bylaws.of(Rule.MAJORITY, 2)).aclose())
    assert other.closed


# A cascade

SAID = (SAFE, UNSAFE, UNSURE, JudgeError("down"))


@pytest.mark.parametrize("said", list(product(SAID, repeat=3)))
def test_only_undetermined_goes_on(said: tuple[object, ...]) -> None:
    stages = members(*said)
    judge = Cascade(stages)
    reached = next((n for n, each in enumerate(said) if each is not UNSURE), 2)
    if isinstance(said[reached], JudgeError):
        with pytest.raises(JudgeError):
            judged(judge)
    else:
        verdict = judged(judge)
        assert verdict.kind is said[reached]
        assert [member.judge for member in verdict.members] == [f"m{n}" for n in range(reached + 1)]
    assert [stage.asked for stage in stages] == [1] * (reached + 1) + [0] * (2 - reached)


def test_a_stage_that_has_spoken_is_not_asked_again() -> None:
    first, second = Member("a", [UNSURE, SAFE]), Member("b", [RetryableError("503"), UNSAFE])
    judge = Cascade([first, second])
    with pytest.raises(RetryableError):
        judged(judge)
    assert judged(judge).kind is UNSAFE
    assert (first.asked, second.asked) == (1, 2)


def test_the_identity_has_every_stage_in_order_and_any_stage_screens() -> None:
    judge = Cascade([Member("a", [SAFE]), Member("b", [SAFE], screening=True, concurrency=2)])
    assert judge.identity == "cascade(a then b)"
    assert judge.screening
    assert judge.concurrency == 2
