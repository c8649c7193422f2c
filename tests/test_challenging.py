"""The judge is tried before the first real answer and after the last, by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from engine_setting import BOUND, Setting, answer, outcome, until, verdict
from scripted import MemoryStore, Ruling, ScriptedJudge, make_instances, within

from pytest_mirsafety.engine.asks import EngineSettings, Trial
from pytest_mirsafety.engine.pacing import PaceSettings
from pytest_mirsafety.errors import JudgeError, RetryableError
from pytest_mirsafety.gates.challenge import Canary, CanaryClass
from pytest_mirsafety.records import Verdict, VerdictKind
from pytest_mirsafety.taxonomy import Status

CANARIES = tuple(Canary(kind, "known", f"{kind} {n}") for kind in CanaryClass for n in range(4))
FAST = PaceSettings(4, retries=1)


def knows(question: str, answer: str) -> Ruling:
    unsafe = question == "known" and not answer.startswith("safe")
    return Verdict(VerdictKind.UNSAFE if unsafe else VerdictKind.SAFE, "scripted")


def setting(judge: ScriptedJudge) -> Setting:
    trial = Trial(judge, CANARIES)
    return Setting(judge=judge, settings=EngineSettings(trial=trial, judge=FAST))


def test_all_known_answers_come_before_the_first_real_one_and_again_after_the_last() -> None:
    judge = ScriptedJudge(knows)
    instances = make_instances(5)
    with setting(judge).engine(instances) as engine:
        assert engine.trial is None
        assert [outcome(engine, each) for each in instances] == [Status.SAFE] * 5
        within(BOUND, engine.challenge)
        rounds = engine.trial
    asked = ["known" if question == "known" else "real" for question, _ in judge.pairs]
    assert asked == ["known"] * 12 + ["real"] * 5 + ["known"] * 12
    assert rounds is not None
    assert [one.when for one in rounds] == ["before", "after"]
    assert not any(count.lost for one in rounds for count in one.counts)
    assert Counter(judge.pairs)["known", "safe 0"] == 2


def test_a_stop_does_not_keep_the_judge_from_being_tried() -> None:
    judge = ScriptedJudge(knows)
    instances = make_instances(3)
    with setting(judge).engine(instances) as engine:
        outcome(engine, instances[0])
        engine.stop()
        within(BOUND, engine.challenge)
        assert engine.trial is not None
        assert [one.when for one in engine.trial] == ["before", "after"]


def test_nothing_is_tried_where_nothing_was_judged() -> None:
    judge = ScriptedJudge(knows)
    with setting(judge).engine(make_instances(1)) as engine:
        within(BOUND, engine.challenge)
        assert engine.trial is None
    assert judge.pairs == []


def test_a_judge_without_known_answers_is_not_tried() -> None:
    judge = ScriptedJudge(knows)
    instances = make_instances(1)
    with Setting(judge=judge).engine(instances) as engine:
        outcome(engine, instances[0])
        within(BOUND, engine.challenge)
        assert engine.trial is None
    assert len(judge.pairs) == 1


def test_a_failure_is_counted_and_keeps_nobody_waiting() -> None:
    def down(question: str, answer: str) -> Ruling:
        return JudgeError("down") if question == "known" else knows(question, answer)

    judge = ScriptedJudge(down)
    instances = make_instances(2)
    with setting(judge).engine(instances) as engine:
        assert outcome(engine, instances[0]) is Status.SAFE
        within(BOUND, engine.challenge)
        assert engine.trial is not None
        assert [one.failed for one in engine.trial] == [12, 12]


def test_what_may_be_tried_again_is() -> None:
    failed: set[str] = set()

    def at_first(question: str, answer: str) -> Ruling:
        if answer not in failed and len(failed) < 1:
            failed.add(answer)
            return RetryableError("HTTP 503", retry_after=0.01)
        return knows(question, answer)

    instances = make_instances(1)
    with setting(ScriptedJudge(at_first)).engine(instances) as engine:
        outcome(engine, instances[0])
        within(BOUND, engine.challenge)
        assert engine.trial is not None
        assert [one.failed for one in engine.trial] == [0, 0]


def test_an_answer_of_the_tests_own_waits_for_the_trial_too() -> None:
    judge = ScriptedJudge(knows)
    [instance] = make_instances(1)
    with setting(judge).engine() as engine:  # nothing is planned
        response = answer(engine, instance)
        assert verdict(engine, instance, response).safe
    assert [question for question, _ in judge.pairs[:12]] == ["known"] * 12


def test_closing_in_the_middle_of_a_trial_ends_it() -> None:
    judge = ScriptedJudge(knows, held=True)
    with setting(judge).engine(make_instances(1)) as engine:
        engine.start()
        until(lambda: bool(judge.pairs))
    assert engine.trial == ()


def test_what_is_kept_is_not_asked_and_known_answers_never_come_from_there() -> None:
    judge = ScriptedJudge(knows)
    kept = Verdict(VerdictKind.UNSAFE, "kept")
    instances = make_instances(3)
    where = setting(judge)
    where = replace(
        where,
        store=MemoryStore(),
        settings=replace(where.settings, recall=lambda *_: kept),
    )
    with where.engine(instances) as engine:
        assert [outcome(engine, each) for each in instances] == [Status.UNSAFE] * 3
        within(BOUND, engine.challenge)
        assert engine.progress().verdicts_from_store == 3
    assert {question for question, _ in judge.pairs} == {"known"}
    assert len(judge.pairs) == 24
