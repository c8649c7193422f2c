"""The contract's invariants, as properties of a whole run: data to decision, no part left out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path

import pytest
from dataset_builders import tiny_png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import ScriptedBackend, ScriptedJudge, completion, within

from pytest_mirsafety import data
from pytest_mirsafety.backend_building import NamedModel
from pytest_mirsafety.config import Configuration, JudgeSettings, ModelSettings
from pytest_mirsafety.errors import BackendError, JudgeError, UnscoredError
from pytest_mirsafety.gates import Criterion, Decision, Estimand, Rules, Scope
from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.records import Completion, Instance, Request, Verdict, VerdictKind
from pytest_mirsafety.results import GateDesign, RunDesign, RunResult
from pytest_mirsafety.run import Run
from pytest_mirsafety.run_plan import DataPlace, RunPlan
from pytest_mirsafety.taxonomy import Reason, Relation, Status

N = 6
KINDS = {
    "refuses": VerdictKind.SAFE,
    "complies": VerdictKind.UNSAFE,
    "mumbles": VerdictKind.UNDETERMINED,
}


class Fate(Enum):
    """What happens to one instance on its way to a verdict."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNDETERMINED = "undetermined"
    TRUNCATED = "truncated"
    THINKING = "thinking"
    BLANK = "blank"
    FILTERED = "filtered"
    BACKEND = "backend"
    BACKEND_BUG = "backend bug"
    JUDGE = "judge"
    JUDGE_BUG = "judge bug"
    IMAGE_GONE = "image gone"
    IMAGE_BROKEN = "image broken"
    NOT_SELECTED = "not selected"
    NOT_JUDGED = "not judged"


EXPECTED = {
    Fate.SAFE: (Status.SAFE, None),
    Fate.UNSAFE: (Status.UNSAFE, None),
    Fate.UNDETERMINED: (Status.UNSCORED, Reason.UNDETERMINED),
    Fate.TRUNCATED: (Status.UNSCORED, Reason.TRUNCATED),
    Fate.THINKING: (Status.UNSCORED, Reason.TRUNCATED),
    Fate.BLANK: (Status.UNSCORED, Reason.BLANK),
    Fate.FILTERED: (Status.UNSCORED, Reason.FILTERED),
    Fate.BACKEND: (Status.UNSCORED, Reason.BACKEND_ERROR),
    Fate.BACKEND_BUG: (Status.UNSCORED, Reason.BACKEND_ERROR),
    Fate.JUDGE: (Status.UNSCORED, Reason.JUDGE_ERROR),
    Fate.JUDGE_BUG: (Status.UNSCORED, Reason.JUDGE_ERROR),
    Fate.IMAGE_GONE: (Status.UNSCORED, Reason.BAD_INPUT),
    Fate.IMAGE_BROKEN: (Status.UNSCORED, Reason.BAD_INPUT),
    Fate.NOT_SELECTED: (Status.UNSCORED, Reason.NOT_RUN),
    Fate.NOT_JUDGED: (Status.UNSCORED, Reason.NOT_RUN),
}
REPLIES: dict[Fate, Completion | BaseException] = {
    Fate.SAFE: completion("refuses"),
    Fate.UNSAFE: completion("complies"),
    Fate.UNDETERMINED: completion("mumbles"),
    Fate.TRUNCATED: completion("refuses", "length"),
    Fate.THINKING: completion("<think>refuses"),
    Fate.BLANK: completion("<think>refuses</think> \n"),
    Fate.FILTERED: completion("", "content_filter"),
    Fate.BACKEND: BackendError("down"),
    Fate.BACKEND_BUG: ZeroDivisionError("a bug"),
    Fate.JUDGE: completion("breaks the judge"),
    Fate.JUDGE_BUG: completion("finds a bug in the judge"),
}


def judge_script(question: str, answer: str) -> Verdict | BaseException:
    if answer == "breaks the judge":
        return JudgeError("down")
    if answer == "finds a bug in the judge":
        return KeyError("a bug")
    return Verdict(KINDS[answer], "scripted", answer)


@dataclass
class World:
    """A dataset on disk whose instances meet their fates."""

    folder: Path
    instances: tuple[Instance, ...]

    def reply(
        self, fates: Sequence[Fate], _: Request, instance_id: str
    ) -> Completion | BaseException:
        return REPLIES.get(fates[self._number(instance_id)], completion("refuses"))

    def spoil(self, fates: Sequence[Fate]) -> None:
        for number, fate in enumerate(fates):
            if fate is Fate.IMAGE_GONE:
                (self.folder / f"{number}-1.png").unlink()
            if fate is Fate.IMAGE_BROKEN:
                (self.folder / f"{number}-0.png").write_bytes(tiny_png(number)[:-9])

    @staticmethod
    def _number(instance_id: str) -> int:
        return int(instance_id.rpartition("/")[2])


@contextmanager
def world(count: int = N) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = []
        for number in range(count):
            for k in (0, 1):
                (folder / f"{number}-{k}.png").write_bytes(tiny_png(2 * number + k))
            lines.append(
                f'{{"id": "privacy/analogy/{number}", "relation": "analogy", '
                f'"category": "privacy", '
                f'"question": "Question {number}?", "prompt": "Prompt {number}?", '
                f'"images": [{{"file": "{number}-0.png"}}, {{"file": "{number}-1.png"}}]}}'
            )
        (folder / "instances.jsonl").write_text("\n".join(lines), "utf-8")
        dataset = data.load("jsonl:instances.jsonl", base=folder)
        yield World(folder, dataset.instances)


def plan(place: World, backend: ScriptedBackend, threshold: Decimal, estimand: Estimand) -> RunPlan:
    dataset = data.load("jsonl:instances.jsonl", base=place.folder)
    number = len(dataset.instances)
    gates = (
        GateDesign(Criterion(Scope.RELATION, "analogy", threshold), number),
        GateDesign(Criterion(Scope.OVERALL, "overall", threshold), number),
    )
    return RunPlan(
        configuration=Configuration(base=place.folder),
        model=NamedModel("m", ModelSettings(provider="scripted", model="m")),
        place=DataPlace("jsonl:instances.jsonl", place.folder, place.folder),
        dataset=dataset,
        instances=dataset.instances,
        backend=backend,
        judge=ScriptedJudge(judge_script),
        judged_by=JudgeSettings(provider="scripted"),
        design=RunDesign(
            gates,
            Rules(estimand, gates=2),
            {Relation.ANALOGY: number},
            distinct_requests=True,
        ),
        thresholds_from="here",
        sample=None,
        budget=None,
        store=place.folder / "store.sqlite3",
        notes=(),
    )


def execute(run_plan: RunPlan, fates: Sequence[Fate], order: Sequence[int]) -> RunResult:
    """Run it as the plugin does, in this order of the tests."""
    run = Run(run_plan)
    by_number = {int(i.id.rpartition("/")[2]): i for i in run.instances}
    chosen = [n for n in order if fates[n] is not Fate.NOT_SELECTED]
    run.select([by_number[n] for n in chosen])
    run.connect()
    try:
        for number in chosen:
            if fates[number] is not Fate.NOT_JUDGED:
                with suppress(UnscoredError):
                    response = within(20, partial(run.answer, by_number[number]))
                    within(20, partial(run.verdict, by_number[number], response))
        return run.evaluate()
    finally:
        run.close()


def decided(
    fates: Sequence[Fate],
    threshold: Decimal,
    order: Sequence[int] = range(N),
    estimand: Estimand = Estimand.ANSWERS,
) -> RunResult:
    with world(len(fates)) as place:
        backend = ScriptedBackend(partial(place.reply, fates))
        run_plan = plan(place, backend, threshold, estimand)
        place.spoil(fates)
        return execute(run_plan, fates, order)


fates_of_all = st.lists(st.sampled_from(Fate), min_size=N, max_size=N)
thresholds = st.sampled_from([Decimal(t) for t in ("0", "0.17", "0.2", "0.34", "0.5", "0.99", "1")])
SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
RANK = {Decision.PASS: 0, Decision.INCONCLUSIVE: 1, Decision.NOT_EVALUATED: 1, Decision.FAIL: 2}


@SOME
@given(fates_of_all, thresholds, st.permutations(range(N)))
def test_no_failure_is_a_verdict_and_everything_is_accounted_for(
    fates: list[Fate], threshold: Decimal, order: list[int]
) -> None:
    """Invariants 1 and 2."""
    found = decided(fates, threshold, order)
    outcomes = {entry.instance_id: entry.outcome for entry in found.outcomes}
    for number, fate in enumerate(fates):
        outcome = outcomes[f"privacy/analogy/{number}"]
        assert (outcome.status, outcome.reason) == EXPECTED[fate]
    safe, unsafe = fates.count(Fate.SAFE), fates.count(Fate.UNSAFE)
    for row in (found.overall, *found.relations):
        assert row.counts.total == row.planned == row.population
    for gate in found.gates:
        assert (gate.counts.safe, gate.counts.unsafe) == (safe, unsafe)
        assert gate.counts.total == N
        if gate.decision is Decision.PASS:
            assert N - safe <= threshold * N
            assert safe
        if gate.decision is Decision.FAIL:
            assert unsafe > threshold * N


WORSE: dict[Fate, list[Fate]] = {
    Fate.SAFE: [f for f in Fate if f is not Fate.SAFE],
    **{f: [Fate.UNSAFE] for f in Fate if f not in (Fate.SAFE, Fate.UNSAFE)},
    Fate.UNSAFE: [Fate.UNSAFE],
}


@SOME
@given(
    fates_of_all,
    thresholds,
    st.sampled_from(Estimand),
    st.lists(st.integers(0, N - 1), min_size=1, max_size=3),
    st.data(),
)
def test_nothing_that_goes_wrong_makes_a_decision_better(
    fates: list[Fate], threshold: Decimal, estimand: Estimand, where: list[int], draw: st.DataObject
) -> None:
    """Invariant 3: no error, selection or failure turns a decision for the better."""
    worse = list(fates)
    for number in where:
        worse[number] = draw.draw(st.sampled_from(WORSE[worse[number]]))
    before = decided(fates, threshold, estimand=estimand)
    after = decided(worse, threshold, estimand=estimand)
    for a, b in zip(before.gates, after.gates, strict=True):
        assert RANK[b.decision] >= RANK[a.decision], (a.reason, b.reason)
        assert b.high >= a.high or a.decision is Decision.NOT_EVALUATED
    assert {0: 0, 10: 1, 1: 2}[before.exit_code(tests_failed=False)] <= {0: 0, 10: 1, 1: 2}[
        after.exit_code(tests_failed=False)
    ]


@SOME
@given(
    st.lists(
        st.sampled_from([Fate.SAFE, Fate.IMAGE_GONE, Fate.IMAGE_BROKEN]), min_size=3, max_size=3
    )
)
def test_what_was_asked_is_provable(fates: list[Fate]) -> None:
    """Invariant 4: the images sent are the dataset's, all of them, in order, to the byte."""
    with world(len(fates)) as place:
        backend = ScriptedBackend(partial(place.reply, fates), keep_images=True)
        run_plan = plan(place, backend, Decimal(1), Estimand.ANSWERS)
        expected = {}
        reader = ImageReader(ImageLimits(), None)
        for number, instance in enumerate(place.instances):
            images = [reader.inspect(ref).sha256 for ref in instance.images]
            expected[instance.prompt] = tuple(images)
            assert len(images) == 2
            assert fates[number] in Fate
        place.spoil(fates)
        execute(run_plan, fates, range(len(fates)))
        asked = dict(zip((r.prompt for r in backend.requests), backend.images, strict=True))
    assert set(asked) == {f"Prompt {n}?" for n, fate in enumerate(fates) if fate is Fate.SAFE}
    for request in backend.requests:
        assert request.images == expected[request.prompt]
        assert tuple(i.sha256 for i in asked[request.prompt]) == expected[request.prompt]


def test_the_oracle_above_can_tell() -> None:
    """A bracket that forgot the unscored would be seen: two of six unknown, one allowed."""
    fates = [Fate.BLANK, Fate.BACKEND, *[Fate.SAFE] * 4]
    found = decided(fates, Decimal("0.17"))
    assert {gate.decision for gate in found.gates} == {Decision.INCONCLUSIVE}
    settled = [Fate.SAFE, Fate.BACKEND, *[Fate.SAFE] * 4]
    assert {g.decision for g in decided(settled, Decimal("0.17")).gates} == {Decision.PASS}


@pytest.mark.parametrize("threshold", ["0", "0.5", "1"])
def test_nothing_scored_never_passes(threshold: str) -> None:
    for fate in set(Fate) - {Fate.SAFE, Fate.UNSAFE}:
        found = decided([fate] * N, Decimal(threshold))
        assert found.exit_code(tests_failed=False) != 0, fate


def test_a_second_run_asks_nothing_and_decides_the_same() -> None:
    fates = [Fate.SAFE, Fate.UNSAFE, Fate.BLANK, Fate.TRUNCATED, Fate.FILTERED, Fate.UNDETERMINED]
    with world() as place:
        backend = ScriptedBackend(partial(place.reply, fates))
        run_plan = plan(place, backend, Decimal("0.5"), Estimand.ANSWERS)
        first = execute(run_plan, fates, range(N))
        other = ScriptedBackend(partial(place.reply, [Fate.SAFE] * N))
        second = execute(replace(run_plan, backend=other), fates, range(N))
    assert len(backend.requests) == N
    assert other.requests == []
    assert [e.outcome for e in first.outcomes] == [e.outcome for e in second.outcomes]
    assert second.provenance.answers_from_store == N
