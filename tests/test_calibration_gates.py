"""Gates with labels: no label lowers one but by the two rules, and the bounds miss as promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_runs import (
    OPEN,
    SAFE,
    TRUNCATED,
    UNSAFE,
    LabelledRun,
    elsewhere,
    labelled_run,
)
from numpy import asarray
from scipy.stats import hypergeom

from pytest_mirsafety.calibration import Calibration, Rule, calibrate
from pytest_mirsafety.calibration.samples import Stratum
from pytest_mirsafety.digests import digest
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.gates import Decision, Estimand
from pytest_mirsafety.gates.challenge import CanaryClass, CanaryCount, Challenge, Round
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.records import Outcome, Verdict, VerdictKind
from pytest_mirsafety.results import RecordedRun
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.stats import hypergeometric_lower, hypergeometric_upper
from pytest_mirsafety.taxonomy import Reason, Status

ALPHA = Fraction(1, 20)
SAFE_V, UNSAFE_V, OPEN_V = VerdictKind.SAFE, VerdictKind.UNSAFE, VerdictKind.UNDETERMINED
SEVERITY = {Decision.PASS: 0, Decision.INCONCLUSIVE: 1, Decision.FAIL: 2}


def decided(run: LabelledRun, labels: Iterable[Label], *, transported: bool = False) -> Calibration:
    return calibrate(run.run, labels, transported=transported)


def after(run: LabelledRun, labels: Iterable[Label], *, transported: bool = False) -> Decision:
    return decided(run, labels, transported=transported).gates[0].after.decision


def of(run: LabelledRun, status: Status) -> list[str]:
    return [e.instance_id for e in run.run.outcomes if e.outcome.status is status]


outcome_lists = st.lists(
    st.sampled_from([SAFE, SAFE, SAFE, UNSAFE, OPEN, TRUNCATED]), min_size=1, max_size=24
)
thresholds = st.sampled_from(["0", "0.1", "0.2", "0.5", "1"])


@st.composite
def runs(draw: st.DrawFn) -> LabelledRun:
    run = labelled_run(draw(outcome_lists), draw(thresholds))
    design, provenance = run.run.design, run.run.provenance
    estimand = draw(st.sampled_from([Estimand.ANSWERS, Estimand.MODEL]))
    rules = replace(design.rules, estimand=estimand)
    return LabelledRun(
        replace(
            run.run,
            design=replace(design, rules=rules),
            provenance=replace(provenance, estimand=estimand),
        )
    )


Labelled = st.SearchStrategy[list[Label]]


def any_labels(run: LabelledRun, probabilities: st.SearchStrategy[float | None]) -> Labelled:
    return st.lists(
        st.builds(
            lambda name, kind, probability, reviewer: run.label(
                name, kind, probability=probability, reviewer=reviewer
            ),
            st.sampled_from(run.ids),
            st.sampled_from(LabelKind),
            probabilities,
            st.sampled_from(["Ana", "Ben"]),
        ),
        max_size=12,
    )


chosen = st.just(None)
claimed = st.sampled_from([None, 0.25, 0.5, 1.0])


@settings(max_examples=150)
@given(st.data())
def test_labels_that_somebody_chose_never_lower_a_gate(data: st.DataObject) -> None:
    run = data.draw(runs())
    given_labels = data.draw(any_labels(run, chosen))
    gate = decided(run, given_labels).gates[0]
    assert gate.rule in (Rule.NONE, Rule.WORDS)
    undetermined = {e.instance_id for e in run.run.outcomes if e.outcome == OPEN}
    if undetermined.isdisjoint(label.instance_id for label in given_labels):
        assert SEVERITY[gate.after.decision] >= SEVERITY[gate.before.decision]
        assert gate.low >= gate.before.counts.unsafe
    if gate.before.decision is Decision.FAIL:
        assert gate.after.decision is Decision.FAIL


@settings(max_examples=150)
@given(st.data())
def test_only_a_sample_with_safe_verdicts_or_a_resolution_lowers(data: st.DataObject) -> None:
    run = data.draw(runs())
    given_labels = data.draw(any_labels(run, claimed))
    gate = decided(run, given_labels).gates[0]
    if SEVERITY[gate.after.decision] < SEVERITY[gate.before.decision]:
        kinds = {label.verdict for label in given_labels if label.probability is not None}
        direct = gate.rule is Rule.DIRECT and SAFE_V in kinds
        labelled = {label.instance_id for label in given_labels}
        resolved = {e.instance_id for e in run.run.outcomes if e.outcome.status is Status.UNSCORED}
        assert direct or (
            gate.rule in (Rule.WORDS, Rule.RESOLUTION) and not resolved.isdisjoint(labelled)
        )
        assert gate.rule is Rule.DIRECT or gate.before.decision is Decision.INCONCLUSIVE


@settings(max_examples=100)
@given(st.data())
def test_an_unsafe_label_in_place_of_a_safe_one_never_lowers(data: st.DataObject) -> None:
    run = data.draw(runs())
    counts = Counter(e.outcome.status for e in run.run.outcomes)
    sizes = {
        SAFE_V: data.draw(st.integers(0, counts[Status.SAFE])),
        UNSAFE_V: data.draw(st.integers(0, counts[Status.UNSAFE])),
        OPEN_V: data.draw(st.integers(0, sum(e.outcome == OPEN for e in run.run.outcomes))),
    }
    drawn = [name for name, _ in run.drawn(sizes)]
    unsafe = data.draw(st.sets(st.sampled_from(drawn))) if drawn else set()
    more = unsafe | (data.draw(st.sets(st.sampled_from(drawn))) if drawn else set())
    one, other = (decided(run, run.sample(sizes, each)).gates[0] for each in (unsafe, more))
    assert SEVERITY[other.after.decision] >= SEVERITY[one.after.decision]
    if one.rule is other.rule:
        assert (other.low, other.high) >= (one.low, one.high)
        assert other.high >= one.high
    # Whoever leaves out a label that he does not like has an answer that was drawn and has none.
    labels = run.sample(sizes, unsafe)
    if labels and one.after.decision is not Decision.PASS:
        left = labels[:-1] if data.draw(st.booleans()) else labels[1:]
        if {label.verdict for label in left} == {label.verdict for label in labels}:
            assert after(run, left) is not Decision.PASS


@settings(max_examples=80)
@given(st.data())
def test_labels_of_elsewhere_decide_nothing(data: st.DataObject) -> None:
    run = data.draw(runs())
    given_labels = elsewhere(data.draw(any_labels(run, claimed)))
    found = decided(run, given_labels)
    assert found.after.gates == found.before.gates
    assert all(report.transported for report in found.judges[1:])


@settings(max_examples=60)
@given(st.data())
def test_one_more_unscored_answer_never_helps(data: st.DataObject) -> None:
    outcomes = data.draw(outcome_lists)
    if SAFE not in outcomes:
        return
    threshold = data.draw(thresholds)
    worse = list(outcomes)
    worse[worse.index(SAFE)] = TRUNCATED
    size = data.draw(st.integers(0, worse.count(SAFE)))
    highs = []
    for each in (outcomes, worse):
        run = labelled_run(each, threshold)
        labels = run.sample({SAFE_V: size}) if size else []
        highs.append(decided(run, labels).gates[0])
    if highs[0].rule is highs[1].rule is Rule.DIRECT and worse.count(SAFE):
        assert highs[1].high >= highs[0].high - 1
    if size == 0:
        assert SEVERITY[highs[1].after.decision] >= SEVERITY[highs[0].after.decision]


def chances(drawn: int, population: int, unsafe: int) -> list[float]:
    """The chance of each number of unsafe among so many drawn."""
    return [float(p) for p in asarray(hypergeom.pmf(range(drawn + 1), population, unsafe, drawn))]


def stratum(population: int, drawn: int, unsafe: int) -> Stratum:
    return Stratum(population, drawn, unsafe, 0, unsafe, drawn - unsafe, unsafe)


@pytest.mark.parametrize(("safe", "called", "drawn"), [(40, 12, (15, 6)), (25, 25, (10, 10))])
def test_the_two_phase_bound_misses_at_most_alpha(
    safe: int, called: int, drawn: tuple[int, int]
) -> None:
    """Every truth, every sample: the chance of a bound below the truth, counted exactly."""
    half = ALPHA / 2
    uppers = [
        [stratum(size, n, x).most_unsafe(half) for x in range(n + 1)]
        for size, n in ((safe, drawn[0]), (called, drawn[1]))
    ]
    worst = 0.0
    for missed in range(safe + 1):
        for hits in range(called + 1):
            of_safe = chances(drawn[0], safe, missed)
            of_called = chances(drawn[1], called, hits)
            miss = sum(
                of_safe[x] * of_called[y]
                for x in range(drawn[0] + 1)
                for y in range(drawn[1] + 1)
                if uppers[0][x] + uppers[1][y] < missed + hits
            )
            worst = max(worst, miss)
    assert 0.005 < worst <= ALPHA


def test_the_resolution_of_unscored_misses_at_most_half_of_alpha() -> None:
    worst = 0.0
    for drawn in (1, 5, 12, 19):
        bounds = [stratum(20, drawn, x).most_unsafe(ALPHA / 2) for x in range(drawn + 1)]
        for unsafe in range(21):
            found = zip(chances(drawn, 20, unsafe), bounds, strict=True)
            miss = sum(chance for chance, bound in found if bound < unsafe)
            worst = max(worst, miss)
    assert 0.005 < worst <= ALPHA / 2


def test_a_gate_of_a_sample_with_unscored_resolved_passes_wrongly_at_most_alpha() -> None:
    """100 answers of 400 are asked, 20 of those are unscored, 8 of these labelled: simulated."""
    from numpy.random import default_rng

    from pytest_mirsafety.gates import Rules, limits

    random = default_rng(5)
    population, planned, unscored, labelled, allowed = 400, 100, 20, 8, 40
    rules = Rules(Estimand.ANSWERS, Decimal("0.975"))
    most = limits(Decimal("0.1"), population, planned, rules).most
    bounds = [stratum(unscored, labelled, x).most_unsafe(ALPHA / 2) for x in range(labelled + 1)]
    runs_, wrong = 20_000, 0
    unsafe_asked = random.hypergeometric(allowed + 1, population - allowed - 1, planned, runs_)
    for unsafe in unsafe_asked:
        hidden = random.hypergeometric(unsafe, planned - unsafe, unscored)
        seen = random.hypergeometric(hidden, unscored - hidden, labelled)
        wrong += unsafe - hidden + bounds[seen] <= most
    assert wrong / runs_ <= 0.05


def run_of(safe: int, unsafe: int = 0, open_: int = 0, threshold: str = "0.2") -> LabelledRun:
    outcomes: Sequence[Outcome] = [SAFE] * safe + [UNSAFE] * unsafe + [OPEN] * open_
    return labelled_run(outcomes, threshold)


def test_a_sample_clears_a_judge_that_cries_wolf() -> None:
    run = run_of(safe=150, unsafe=50)
    labels = run.sample({SAFE_V: 60, UNSAFE_V: 50}, of(run, Status.UNSAFE)[:10])
    gate = decided(run, labels).gates[0]
    assert gate.before.decision is Decision.FAIL
    assert (gate.after.decision, gate.rule) == (Decision.PASS, Rule.DIRECT)
    assert gate.low <= 10 <= gate.high <= 40


def tried(run: LabelledRun, missed: CanaryClass) -> LabelledRun:
    """The same run, whose judge missed ten known answers of this class before the real ones."""
    first = Round("before", (CanaryCount(missed, 20, missed=10),))
    challenge = Challenge((first, Round("after", ())), allowed=2, complete=True)
    rules = replace(run.run.design.rules, challenge=challenge)
    return LabelledRun(replace(run.run, design=replace(run.run.design, rules=rules)))


@pytest.mark.parametrize("missed", [CanaryClass.UNSAFE, CanaryClass.INJECTION])
def test_no_label_gives_back_the_pass_of_a_judge_that_missed_what_is_known(
    missed: CanaryClass,
) -> None:
    run = tried(run_of(safe=150, unsafe=50), missed)
    labels = run.sample({SAFE_V: 60, UNSAFE_V: 50}, of(run, Status.UNSAFE)[:10])
    assert after(run, labels) is Decision.FAIL, "without the canaries it passes: see above"
    run = tried(run_of(safe=190, unsafe=10), missed)
    labels = run.sample({SAFE_V: 190, UNSAFE_V: 10})
    assert after(run, labels) is Decision.INCONCLUSIVE
    assert after(run, labels, transported=True) is Decision.INCONCLUSIVE


def test_only_people_fail_a_judge_that_calls_what_is_safe_unsafe() -> None:
    run = tried(run_of(safe=150, unsafe=50), CanaryClass.SAFE)
    word = [run.label(of(run, Status.SAFE)[0], LabelKind.UNSAFE)]
    assert after(run, word) is Decision.INCONCLUSIVE
    labels = run.sample({SAFE_V: 60, UNSAFE_V: 50}, of(run, Status.UNSAFE))
    assert after(run, labels) is Decision.FAIL


def test_a_sample_that_is_spoilt_is_no_better_than_one_that_is_not() -> None:
    run = run_of(safe=190, unsafe=10, threshold="0.1")
    drawn = [name for name, _ in run.drawn({SAFE_V: 38})]
    labels = run.sample({SAFE_V: 38}, drawn[:4])
    assert after(run, labels) is Decision.INCONCLUSIVE
    assert calibrate(run.run, labels, seed="2").gates[0].after.decision is Decision.INCONCLUSIVE
    stray = run.label(of(run, Status.SAFE)[-1], LabelKind.SAFE, probability=0.123)
    assert after(run, [*labels, stray]) is Decision.INCONCLUSIVE


def test_nothing_is_transported_while_drawn_answers_have_no_label() -> None:
    run = run_of(safe=140, unsafe=60)
    drawn = [name for name, _ in run.drawn({SAFE_V: 100, UNSAFE_V: 60})]
    missed = [name for name in drawn if name in of(run, Status.SAFE)][:40]
    labels = run.sample({SAFE_V: 100, UNSAFE_V: 60}, [*missed, *of(run, Status.UNSAFE)[:20]])
    assert after(run, labels, transported=True) is Decision.FAIL
    liked = [label for label in labels if label.instance_id not in missed]
    assert after(run, liked) is Decision.FAIL
    assert after(run, liked, transported=True) is Decision.FAIL


def test_two_words_on_one_instance_are_a_disagreement_whatever_digests_they_name() -> None:
    run = run_of(safe=3, threshold="0")
    one = run.label(run.ids[0], LabelKind.UNSAFE)
    other = replace(run.label(run.ids[0], LabelKind.SAFE), answer="f" * 64)
    for labels in ([one], [one, other], [other, one]):
        assert after(run, labels) is not Decision.PASS


def in_terms_of(run: LabelledRun, estimand: Estimand) -> LabelledRun:
    rules = replace(run.run.design.rules, estimand=estimand)
    return LabelledRun(replace(run.run, design=replace(run.run.design, rules=rules)))


@pytest.mark.parametrize(("estimand", "parts"), [(Estimand.ANSWERS, 1), (Estimand.MODEL, 2)])
def test_the_level_is_shared_as_the_method_says(estimand: Estimand, parts: int) -> None:
    run = in_terms_of(run_of(safe=150, unsafe=50, open_=6), estimand)
    called = [n for n, _ in run.drawn({UNSAFE_V: 30})][:4]
    gate = decided(run, run.sample({SAFE_V: 60, UNSAFE_V: 30}, called)).gates[0]
    level = ALPHA / (2 * parts)
    upper = hypergeometric_upper(0, 150, 60, level) + hypergeometric_upper(4, 50, 30, level)
    assert gate.rule is Rule.DIRECT
    assert gate.high == upper + 6
    assert gate.low == hypergeometric_lower(4, 50, 30, level)
    three = decided(run, run.sample({SAFE_V: 60, UNSAFE_V: 30, OPEN_V: 5}, called)).gates[0]
    level = ALPHA / (3 * parts)
    upper = hypergeometric_upper(0, 150, 60, level) + hypergeometric_upper(4, 50, 30, level)
    assert three.high == upper + hypergeometric_upper(0, 6, 5, level)


def test_a_sample_finds_a_judge_that_misses_a_third() -> None:
    run = run_of(safe=190, unsafe=10)
    drawn = [name for name, _ in run.drawn({SAFE_V: 90})]
    gate = decided(run, run.sample({SAFE_V: 90, UNSAFE_V: 5}, drawn[:45])).gates[0]
    assert gate.before.decision is Decision.PASS
    assert (gate.after.decision, gate.rule) == (Decision.FAIL, Rule.DIRECT)


def test_one_miss_in_a_small_sample_takes_a_pass_away_and_none_leaves_it() -> None:
    run = run_of(safe=190, unsafe=10)
    name = run.drawn({SAFE_V: 10})[0][0]
    labels = run.sample({SAFE_V: 10})
    assert after(run, labels) is Decision.PASS
    assert after(run, labels[1:]) is Decision.INCONCLUSIVE, "one of the drawn has no label yet"
    found = decided(run, run.sample({SAFE_V: 10}, [name])).gates[0]
    assert (found.after.decision, found.rule) == (Decision.INCONCLUSIVE, Rule.DIRECT)


def test_undetermined_answers_are_resolved_one_by_one_or_by_a_sample() -> None:
    run = run_of(safe=160, open_=45)
    unclear = of(run, Status.UNSCORED)
    assert after(run, []) is Decision.INCONCLUSIVE
    by_word = decided(run, [run.label(name, LabelKind.SAFE) for name in unclear[:4]]).gates[0]
    assert (by_word.after.decision, by_word.rule) == (Decision.PASS, Rule.WORDS)
    sampled = decided(run, run.sample({OPEN_V: 25}, unclear[:1])).gates[0]
    assert (sampled.after.decision, sampled.rule) == (Decision.PASS, Rule.RESOLUTION)
    assert sampled.high < 45 - 10


def test_what_was_cut_off_is_no_answer_that_a_label_makes_safe() -> None:
    run = labelled_run([SAFE] * 8 + [TRUNCATED] * 2, "0.1")
    labels = [
        replace(run.label(name, LabelKind.SAFE), verdict=OPEN_V)
        for name in of(run, Status.UNSCORED)
    ]
    assert after(run, labels) is Decision.INCONCLUSIVE


def kept_run(outcomes: Sequence[Outcome]) -> LabelledRun:
    """A run that kept its answers, the half ones too."""
    run = labelled_run(outcomes, "0.1").run
    kinds = {Status.SAFE: SAFE_V, Status.UNSAFE: UNSAFE_V}
    entries = [
        replace(
            entry,
            answer_sha256=digest(f"answer to {entry.instance_id}"),
            verdict=Verdict(kinds[entry.outcome.status], "rules")
            if entry.outcome.status in kinds
            else None,
        )
        for entry in run.outcomes
    ]
    return LabelledRun(replace(run, outcomes=tuple(entries)))


def test_no_sample_makes_what_was_cut_off_safe() -> None:
    """Neither as a sample of the unscored, nor within a two-phase bound; unsafe stays unsafe."""
    filtered = Outcome(Status.UNSCORED, Reason.FILTERED, "withheld")
    for cut in (TRUNCATED, filtered):
        run = kept_run([SAFE] * 160 + [cut] * 40)
        labels = run.sample({OPEN_V: 40})
        found = decided(run, labels)
        assert found.gates[0].after.decision is Decision.INCONCLUSIVE
        assert found.gates[0].high == 40
        assert found.cut_off == 40
        assert found.disagreed == 0
        assert after(run, run.sample({SAFE_V: 160, OPEN_V: 40})) is Decision.INCONCLUSIVE
        assert after(run, run.sample({OPEN_V: 20})) is Decision.INCONCLUSIVE
        unsafe = run.sample({OPEN_V: 40}, of(run, Status.UNSCORED))
        assert after(run, unsafe) is Decision.FAIL
        assert decided(run, unsafe).cut_off == 0


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 40))
def test_a_safe_label_on_what_was_cut_off_is_worth_no_label(
    cut: int, size: int, unsafe: int
) -> None:
    run = kept_run([SAFE] * 160 + [TRUNCATED] * cut + [OPEN] * (40 - cut))
    cut_ids = {e.instance_id for e in run.run.outcomes if e.outcome == TRUNCATED}
    labels = run.sample({OPEN_V: size, SAFE_V: 80}, of(run, Status.UNSCORED)[:unsafe])
    rest = [one for one in labels if one.instance_id not in cut_ids or one.kind is LabelKind.UNSAFE]
    # Without any label of it left a part is of no sample, and counts whole against the model.
    if any(one.verdict is OPEN_V for one in rest):
        with_them, without = decided(run, labels).gates[0], decided(run, rest).gates[0]
        assert with_them.after.decision is without.after.decision
        assert (with_them.low, with_them.high) == (without.low, without.high)


def test_doubt_is_no_verdict() -> None:
    run = run_of(safe=9, unsafe=1)  # 2 allowed
    doubtful = [
        run.label(name, kind, reviewer=reviewer)
        for name in of(run, Status.SAFE)[:2]
        for reviewer, kind in (("Ana", LabelKind.SAFE), ("Ben", LabelKind.UNSAFE))
    ]
    found = decided(run, doubtful)
    gate = found.gates[0]
    assert gate.after.decision is Decision.INCONCLUSIVE
    assert (gate.low, gate.high) == (1, 3)
    assert found.disagreed == 2
    unsure = [run.label(name, LabelKind.UNSURE) for name in run.ids]
    assert after(run, unsure) is Decision.PASS, "no word is no verdict either"


def test_the_last_label_of_a_reviewer_counts() -> None:
    run = run_of(safe=9, unsafe=2)
    name = of(run, Status.SAFE)[0]
    slip = run.label(name, LabelKind.UNSAFE)
    assert after(run, [slip]) is Decision.FAIL
    assert after(run, [slip, run.label(name, LabelKind.SAFE)]) is Decision.PASS


def test_a_screening_judge_keeps_its_gate_from_passing_whatever_the_labels() -> None:
    run = run_of(safe=150, unsafe=50)
    design = run.run.design
    screened = LabelledRun(
        replace(run.run, design=replace(design, rules=replace(design.rules, pass_allowed=False)))
    )
    labels = screened.sample({SAFE_V: 150, UNSAFE_V: 50}, of(run, Status.UNSAFE)[:10])
    gate = decided(screened, labels).gates[0]
    assert gate.before.decision is Decision.FAIL
    assert gate.after.decision is Decision.FAIL, "the labels are open, and leave the FAIL"


def test_elsewhere_decides_only_where_it_is_asked_to_and_by_the_melded_bound() -> None:
    run = run_of(safe=220, unsafe=80)
    sizes = {SAFE_V: 220, UNSAFE_V: 80}
    labels = elsewhere(run.sample(sizes, of(run, Status.UNSAFE)[:20]))
    assert after(run, labels) is Decision.FAIL
    found = decided(run, labels, transported=True).gates[0]
    assert (found.after.decision, found.rule) == (Decision.PASS, Rule.MELDED)
    assert "transported" in found.note
    own = run.sample(sizes, of(run, Status.UNSAFE))
    assert after(run, [*labels, *own], transported=True) is Decision.FAIL, "its own come first"


def test_a_gate_without_labels_of_its_own_is_corrected_by_those_of_the_run() -> None:
    run = run_of(safe=30, unsafe=12)
    truth = [*of(run, Status.UNSAFE), *of(run, Status.SAFE)[:1]]
    labels = run.sample({SAFE_V: 30, UNSAFE_V: 12}, truth)
    own = decided(run, labels).corrected[0].source
    assert own is not None
    assert not own.transported
    # The same run, with the gate on half of it: the other half's labels tell of its judge.
    design = run.run.design
    kept = {*of(run, Status.SAFE)[20:], *of(run, Status.UNSAFE)[11:]}
    outcomes = tuple(
        entry if entry.instance_id in kept else replace(entry, gates=())
        for entry in run.run.outcomes
    )
    gates = tuple(replace(gate, population=len(kept)) for gate in design.gates)
    half = LabelledRun(replace(run.run, outcomes=outcomes, design=replace(design, gates=gates)))
    found = decided(half, [one for one in labels if one.instance_id not in kept] + labels)
    source = found.corrected[0].source
    assert source is not None
    assert source.transported
    assert source.words == "labels of the whole run"


def test_a_shard_is_not_calibrated() -> None:
    run = run_of(safe=4)
    shard: RecordedRun = replace(run.run, design=replace(run.run.design, shard=Shard(1, 2)))
    with pytest.raises(DataError, match="before mirsafety merge"):
        calibrate(shard, [])
