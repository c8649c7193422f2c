"""Verdicts are kept whole, the first one counts, and people can look after them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_panel import Member

from pytest_mirsafety.cli import main
from pytest_mirsafety.engine.keeping import Keeper
from pytest_mirsafety.errors import JudgeError, RetryableError, StoreError
from pytest_mirsafety.judged import JudgedPair
from pytest_mirsafety.judges.cascade import Cascade
from pytest_mirsafety.judges.kept import KeptJudge, keeping, recalled
from pytest_mirsafety.judges.panel import Bylaws, Panel, Rule
from pytest_mirsafety.judges.rules import RulesJudge
from pytest_mirsafety.protocols import Judge
from pytest_mirsafety.records import SafeMode, Verdict, VerdictKind
from pytest_mirsafety.store import SQLiteStore
from pytest_mirsafety.store.verdicts import Verdicts

SAFE, UNSAFE, UNSURE = VerdictKind.SAFE, VerdictKind.UNSAFE, VerdictKind.UNDETERMINED
NAME = "judge \x1b[31m\u202e"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".mirsafety" / "answers.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore.open(path) as opened:
        yield opened


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=[]), max_size=20)


@st.composite
def verdicts(draw: st.DrawFn, depth: int = 2) -> Verdict:
    kind = draw(st.sampled_from(VerdictKind))
    scores = st.tuples(texts(), st.floats(allow_nan=False))
    members = st.lists(verdicts(depth - 1), max_size=2) if depth else st.just([])
    return Verdict(
        kind,
        draw(texts()),
        draw(texts()),
        draw(st.none() | st.sampled_from(SafeMode)) if kind is SAFE else None,
        tuple(draw(st.lists(texts(), max_size=2))),
        tuple(draw(st.lists(scores, max_size=2))),
        tuple(draw(members)),
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(texts(), texts(), texts(), verdicts()), max_size=4))
def test_the_first_verdict_of_each_pair_is_kept_whole(
    tmp_path_factory: pytest.TempPathFactory, given_: list[tuple[str, str, str, Verdict]]
) -> None:
    path = tmp_path_factory.mktemp("store") / "a.sqlite3"
    pairs = [(JudgedPair.of(j, q, a), replace(said, judge=j)) for j, q, a, said in given_]
    first: dict[JudgedPair, Verdict] = {}
    for pair, verdict in pairs:
        first.setdefault(pair, verdict)
    with SQLiteStore.open(path) as store:
        kept = Verdicts(store).put_all(pairs)
        assert kept == [first[pair] for pair, _ in pairs]
    with SQLiteStore.open(path) as store:
        assert {pair: Verdicts(store).get(pair) for pair in first} == first
    assert main(["store", "verify", "--store", str(path)]) == 0


def test_of_two_runs_the_first_to_store_a_verdict_counts_for_both(path: Path) -> None:
    pair = JudgedPair.of("j", "q", "a")
    first, second = Verdict(UNSAFE, "j", "first"), Verdict(SAFE, "j", "second")
    with SQLiteStore.open(path) as one, SQLiteStore.open(path) as other:
        assert Verdicts(one).put_all([(pair, first)]) == [first]
        assert Verdicts(other).put_all([(pair, second)]) == [first]
        assert Verdicts(one).get(pair) == first


def test_where_a_text_ends_makes_another_pair() -> None:
    pairs = [JudgedPair.of(*names) for names in (("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c"))]
    assert len({pair.key for pair in pairs}) == 3


def judged(judge: Judge, question: str = "q", answer: str = "a") -> Verdict:
    return asyncio.run(_asked(judge, question, answer))


async def _asked(judge: Judge, question: str, answer: str) -> Verdict:
    return await judge.judge(question, answer)


def kept(store: SQLiteStore, judge: Judge) -> KeptJudge:
    shelf = Verdicts(store)
    made = keeping(judge, shelf, Keeper(shelf))
    return cast("KeptJudge", made)


def test_a_judge_is_asked_once_whoever_asks(store: SQLiteStore) -> None:
    member = Member("a", [UNSAFE, SAFE])
    assert judged(kept(store, member)).kind is UNSAFE
    again = kept(store, member)
    assert recalled(again, "q", "a") == judged(again)
    assert judged(again).kind is UNSAFE
    assert member.asked == 1
    assert judged(again, "q", "b").kind is SAFE


@pytest.mark.parametrize("error", [JudgeError("down"), RetryableError("503"), ValueError("bug")])
def test_no_failure_is_kept(store: SQLiteStore, error: Exception) -> None:
    judge = kept(store, Member("a", [error, SAFE]))
    with pytest.raises(type(error)):
        judged(judge)
    assert recalled(judge, "q", "a") is None
    assert judged(judge).kind is SAFE


def test_what_is_no_verdict_is_not_kept(store: SQLiteStore) -> None:
    class Odd(Member):
        async def judge(self, *_: str) -> Verdict:
            return cast("Verdict", "safe")

    with pytest.raises(JudgeError, match="no Verdict"):
        judged(kept(store, Odd("a", [])))
    assert Verdicts(store).get(JudgedPair.of("a", "q", "a")) is None


def test_who_asks_nothing_is_not_kept_and_who_does_not_say_is(store: SQLiteStore) -> None:
    rules = RulesJudge()
    shelf = Verdicts(store)
    assert keeping(rules, shelf, Keeper(shelf)) is rules
    assert isinstance(keeping(Member("a", [SAFE]), shelf, Keeper(shelf)), KeptJudge)


def test_a_vote_outlives_the_run_in_which_another_member_failed(store: SQLiteStore) -> None:
    a, b = Member("a", [UNSAFE, SAFE]), Member("b", [JudgeError("down"), SAFE])
    panel = Panel([a, b], Bylaws.of(Rule.MAJORITY, 2))
    first = kept(store, panel)
    assert judged(first).kind is UNSURE
    assert recalled(first, "q", "a") is None
    later = kept(store, Panel([a, b], Bylaws.of(Rule.MAJORITY, 2)))
    assert judged(later).kind is UNSURE  # one said UNSAFE, and is not asked until it says SAFE
    assert (a.asked, b.asked) == (1, 2)
    assert recalled(later, "q", "a") == judged(later)


def test_a_cascade_recalls_as_far_as_it_went(store: SQLiteStore) -> None:
    a, b = Member("a", [UNSURE]), Member("b", [UNSAFE])
    judge = kept(store, Cascade([a, b, Member("c", [SAFE])]))
    said = judged(judge)
    assert recalled(judge, "q", "a") == said
    assert said.kind is UNSAFE


# Upkeep


@pytest.fixture
def filled(path: Path) -> Path:
    with SQLiteStore.open(path) as store:
        Verdicts(store).put_all(
            [
                (JudgedPair.of(name, "q", str(n)), Verdict(UNSAFE, name, f"why {n}"))
                for name, many in ((NAME, 3), ("other", 2))
                for n in range(many)
            ]
        )
    return path


def test_verdicts_are_listed_by_judge(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert "0 answers, 5 verdicts" in lines[0]
    assert [line.split()[0] for line in lines[-2:]] == ["3", "2"]


def test_verdicts_of_a_judge_are_pruned(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "prune", "--judge=oth*", "--dry-run"]) == 0
    assert "would remove 2 verdicts" in capsys.readouterr().out
    assert main(["store", "prune", "--judge=other"]) == 0
    assert "removed 2 verdicts; attempts stay counted" in capsys.readouterr().out
    assert main(["store", "prune", "--judge=other"]) == 4
    assert main(["store", "prune", "--older-than=1h"]) == 0
    assert main(["store", "verify"]) == 0
    assert "0 answers, 3 verdicts, all in order" in capsys.readouterr().out


def test_verdicts_are_exported(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "export", "--judge=other"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["judge"], line["verdict"]["kind"]) for line in lines] == [("other", "unsafe")] * 2
    assert main(["store", "export", "all.jsonl"]) == 0
    assert "wrote 0 answers and 5 verdicts to all.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE verdicts SET pair = replace(pair, '[', '[ ')", "not the SHA-256 of its pair"),
        ("UPDATE verdicts SET judge = '\"x\"'", "its judge is not that of its pair"),
        ("UPDATE verdicts SET verdict = '{}'", "it cannot be read (KeyError"),
        ("UPDATE verdicts SET verdict = replace(verdict, '\"unsafe\"', '\"fine\"')", "ValueError"),
    ],
)
def test_verify_finds_a_verdict_that_is_not_as_it_was(
    filled: Path, capsys: pytest.CaptureFixture[str], statement: str, problem: str
) -> None:
    with closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute(statement)
    assert main(["store", "verify"]) == 1
    assert problem in capsys.readouterr().out


def test_a_damaged_verdict_ends_the_run_and_is_never_one(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute("UPDATE verdicts SET verdict = '{'")
    with SQLiteStore.open(filled) as store, pytest.raises(StoreError, match="is damaged"):
        Verdicts(store).get(JudgedPair.of("other", "q", "0"))


@pytest.mark.parametrize("column", ["judge", "pair", "verdict"])
def test_a_verdict_that_is_not_of_the_pair_and_judge_asked_for_is_none(
    filled: Path, column: str
) -> None:
    """One row's words in another: the run ends, and neither believes them nor asks again."""
    pair, other = JudgedPair.of(NAME, "q", "1"), JudgedPair.of("other", "q", "1")
    change = {
        "judge": "UPDATE verdicts SET judge = ? WHERE key = ?",
        "pair": "UPDATE verdicts SET pair = ? WHERE key = ?",
        "verdict": "UPDATE verdicts SET verdict = ? WHERE key = ?",
    }[column]
    with closing(sqlite3.connect(filled)) as connection, connection:
        rows = connection.execute("SELECT key, judge, pair, verdict FROM verdicts")
        theirs = {
            key: {"judge": judge, "pair": whole, "verdict": verdict}
            for key, judge, whole, verdict in rows
        }
        connection.execute(change, (theirs[other.key][column], pair.key))
    with SQLiteStore.open(filled) as store:
        shelf = Verdicts(store)
        with pytest.raises(StoreError, match=r"is damaged: .* by another judge|of another judge"):
            shelf.get(pair)
        with pytest.raises(StoreError, match="is damaged"):
            shelf.put_all([(pair, Verdict(SAFE, NAME))])
        assert shelf.get(other) is not None
    assert main(["store", "verify"]) == 1


def test_a_judge_may_call_itself_as_it_likes(store: SQLiteStore) -> None:
    """Users' own judges do; what they said before is still read."""
    said = Verdict(SAFE, "ours")
    pair = JudgedPair.of("ours, prompt 2", "q", "a")
    assert Verdicts(store).put_all([(pair, said)]) == [said]
    assert Verdicts(store).get(pair) == said


def test_a_store_from_before_verdicts_is_read(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute("DROP TABLE verdicts")
        connection.execute("PRAGMA user_version = 3")
    for command in ("list", "export", "verify"):
        assert main(["store", command]) == 0
    assert "verdict" not in capsys.readouterr().out
