"""A sample is the same for everybody, honest for every gate, and refused when it cannot pass."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from gate_evidence import analogy, instance, overall
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.gates import Criterion, Estimand, Rules, Scope, limits
from pytest_mirsafety.records import Dataset, Instance
from pytest_mirsafety.sampling import (
    POWER,
    GatePlan,
    chance_to_pass,
    draw_sample,
    joint_chance,
    parse_sample_size,
    refusal,
    seeded_order,
    size_for_power,
    size_to_pass,
)
from pytest_mirsafety.stats import effective_size
from pytest_mirsafety.taxonomy import Relation

ANSWERS = Rules(Estimand.ANSWERS)
MODEL = Rules(Estimand.MODEL)
ITEMS = Rules(Estimand.ITEMS)
JUMP = Criterion(Scope.RELATION, "jump", Decimal("0.20"))
TEMPORAL = Criterion(Scope.GROUP, "temporal", Decimal("0.20"))


def dataset(instances: Iterable[Instance], identity: str = "the data") -> Dataset:
    return Dataset("source", None, identity, tuple(instances))


def members(relation: Relation, number: int, *, per_seed: int = 1) -> list[Instance]:
    return [instance(n, relation, question=f"{n // per_seed}") for n in range(number)]


BENCHMARK = dataset([*members(Relation.ANALOGY, 318), *members(Relation.JUMP, 303)])


class TestSize:
    @pytest.mark.parametrize(
        ("text", "total", "expected"),
        [
            ("50", 318, 50),
            (" 50 ", 318, 50),
            ("1", 318, 1),
            ("500", 318, 318),
            ("10%", 318, 32),
            ("10%", 320, 32),
            ("0.1%", 318, 1),
            ("12.5%", 16, 2),
            ("100%", 318, 318),
            ("29%", 100, 29),  # 30 in floating point
            ("auto", 318, None),
        ],
    )
    def test_is_read_as_written(self, text: str, total: int, expected: int | None) -> None:
        assert parse_sample_size(text).of(total) == expected

    @pytest.mark.parametrize(
        "text",
        [
            *("", "0", "00", "0%", "0.0%", "-5", "-5%", "101%", "100.1%", "0.5", "1e3", "10 %"),
            *("ten", "5%%", "%", "auto5", "AUTO", "1,000", "٣", "9" * 10, "nan", "inf%", "5\n6"),
        ],
    )
    def test_anything_else_is_refused_in_one_line(self, text: str) -> None:
        with pytest.raises(ValueError, match="a sample") as refused:
            parse_sample_size(text)
        assert "\n" not in str(refused.value)


class TestOrder:
    @given(st.lists(st.text(max_size=8), unique=True, max_size=30), st.randoms())
    def test_does_not_depend_on_how_the_ids_came(
        self, ids: list[str], source: random.Random
    ) -> None:
        order = seeded_order("data", "seed", ids)
        shuffled = list(ids)
        source.shuffle(shuffled)
        assert seeded_order("data", "seed", shuffled) == order
        assert Counter(order) == Counter(ids)

    def test_never_changes(self) -> None:
        """Recorded once: another order would be another sample of every configured seed."""
        assert seeded_order("data", "seed", "abcdefgh") == list("abefgdhc")

    def test_data_seed_and_id_do_not_run_together(self) -> None:
        ids = [str(n) for n in range(50)]
        assert seeded_order("data", "1", ids) != seeded_order("data", "2", ids)
        assert seeded_order("data1", "", ids) != seeded_order("data", "1", ids)
        assert seeded_order("a", "bc", ids) != seeded_order("ab", "c", ids)

    def test_every_instance_is_as_likely_as_any_other(self) -> None:
        """Of 4 among 12, over 3,000 seeds: chi-squared with 11 degrees, far from its tail."""
        ids = [str(n) for n in range(12)]
        drawn = Counter(
            name for seed in range(3000) for name in seeded_order("data", str(seed), ids)[:4]
        )
        assert sum((drawn[name] - 1000) ** 2 / 1000 for name in ids) < 25


class TestPlanning:
    """How many it takes; the table is the documentation's own."""

    METHOD = Path(__file__).parents[1] / "docs" / "method.md"
    ROW = re.compile(r"^\| (\d+) \| (\d+/\d+(?: \| \d+/\d+)*) \|$", re.MULTILINE)

    def test_table_of_the_documentation(self) -> None:
        rows = self.ROW.findall(self.METHOD.read_text(encoding="utf-8"))
        assert [int(population) for population, _ in rows] == [152, 280, 318, 441, 2676]
        for population, row in rows:
            found = [
                f"{size_to_pass(Decimal(t), int(population), ANSWERS)}"
                f"/{size_for_power(Decimal(t), int(population), ANSWERS)}"
                for t in ("0.02", "0.05", "0.10", "0.20")
            ]
            assert " | ".join(found) == row

    def test_of_the_largest_relation(self) -> None:
        assert size_to_pass(Decimal("0.02"), 441, ANSWERS) == 124
        assert size_for_power(Decimal("0.02"), 441, ANSWERS) == 288

    @given(
        st.integers(0, 70),
        st.sampled_from(["0", "0.02", "0.1", "0.25", "0.5", "0.9", "1"]),
        st.sampled_from([ANSWERS, MODEL]),
    )
    def test_sizes_are_the_smallest(self, population: int, text: str, rules: Rules) -> None:
        threshold = Decimal(text)
        sizes = range(1, population + 1)
        passing = (n for n in sizes if limits(threshold, population, n, rules).most >= 0)
        assert size_to_pass(threshold, population, rules) == next(passing, None)
        powerful = (n for n in sizes if chance_to_pass(threshold, population, n, rules) >= POWER)
        assert size_for_power(threshold, population, rules) == next(powerful, None)

    def test_a_population_can_be_too_small_for_the_model(self) -> None:
        assert size_to_pass(Decimal("0.1"), 28, MODEL) is None
        assert size_to_pass(Decimal("0.1"), 29, MODEL) == 29
        assert size_for_power(Decimal("0.1"), 100, MODEL) is None

    def test_a_whole_population_of_answers_is_always_enough(self) -> None:
        assert size_for_power(Decimal(0), 318, ANSWERS) == 303
        assert chance_to_pass(Decimal(0), 318, 318, ANSWERS) == 1

    def test_the_chance_is_that_of_the_binomial_for_the_model(self) -> None:
        """29 answers pass with none unsafe, each unsafe at 5%."""
        assert chance_to_pass(Decimal("0.1"), 318, 29, MODEL) == Fraction(19, 20) ** 29


class TestPrefix:
    def test_of_a_number_is_a_prefix_of_the_order(self) -> None:
        plan = draw_sample(parse_sample_size("100"), BENCHMARK, [analogy(), JUMP], ANSWERS)
        order = seeded_order("the data", "the data", [i.id for i in BENCHMARK.instances])
        assert plan.asked == set(order[:100])
        assert plan.seed == "the data"

    def test_counts_for_a_gate_what_it_covers(self) -> None:
        gates = [analogy(), JUMP, overall()]
        plan = draw_sample(parse_sample_size("100"), BENCHMARK, gates, ANSWERS)
        assert plan.of(analogy()) == {name for name in plan.asked if "analogy" in name}
        assert plan.of(analogy()) | plan.of(JUMP) == plan.of(overall()) == plan.asked
        assert [gate.population for gate in plan.gates] == [318, 303, 621]
        assert sum(gate.planned for gate in plan.gates[:2]) == 100

    def test_knows_only_the_gates_it_was_drawn_for(self) -> None:
        plan = draw_sample(parse_sample_size("100"), BENCHMARK, [JUMP], ANSWERS)
        with pytest.raises(KeyError):
            plan.of(analogy())

    def test_larger_samples_hold_the_smaller(self) -> None:
        small, large = (
            draw_sample(parse_sample_size(text), BENCHMARK, [JUMP], ANSWERS)
            for text in ("10%", "20%")
        )
        assert small.asked < large.asked

    def test_the_seed_is_configuration(self) -> None:
        size = parse_sample_size("100")
        first = draw_sample(size, BENCHMARK, [JUMP], ANSWERS)
        second = draw_sample(size, BENCHMARK, [JUMP], ANSWERS, seed="another")
        assert first.asked != second.asked
        assert first.design != second.design

    def test_the_order_of_the_data_makes_no_difference(self) -> None:
        turned = dataset(reversed(BENCHMARK.instances))
        for text in ("100", "auto"):
            size, gates = parse_sample_size(text), [analogy(), JUMP, overall()]
            first = draw_sample(size, BENCHMARK, gates, ANSWERS)
            assert draw_sample(size, turned, gates, ANSWERS) == first

    def test_one_design_is_one_set_of_instances(self) -> None:
        same = dataset(members(Relation.JUMP, 200))
        designs = [
            draw_sample(parse_sample_size(text), same, [JUMP], ANSWERS).design
            for text in ("20", "10%", "21")
        ]
        assert designs[0] == designs[1] != designs[2]


class TestAuto:
    def test_gives_each_gate_the_length_it_needs(self) -> None:
        gates = [analogy(), JUMP, overall("0.05")]
        plan = draw_sample(parse_sample_size("auto"), BENCHMARK, gates, ANSWERS)
        for gate in plan.gates:
            threshold, population = gate.criterion.threshold, gate.population
            assert gate.planned == gate.to_power == size_for_power(threshold, population, ANSWERS)
            assert gate.chance >= POWER

    def test_a_gates_prefix_is_of_its_own_population(self) -> None:
        gates = [analogy(), JUMP, TEMPORAL, overall("0.05")]
        plan = draw_sample(parse_sample_size("auto"), BENCHMARK, gates, ANSWERS)
        order = seeded_order("the data", "the data", [i.id for i in BENCHMARK.instances])
        own = [name for name in order if "analogy" in name]
        assert plan.of(analogy()) == set(own[:116])
        assert plan.asked == set().union(*(plan.of(gate) for gate in gates))

    def test_what_is_asked_for_another_gate_does_not_count(self) -> None:
        """A gate that counted its neighbour's instances would be a sample of unequal chances."""
        plan = draw_sample(
            parse_sample_size("auto"), BENCHMARK, [analogy("0.02"), overall("0.2")], ANSWERS
        )
        asked_of_analogy = {name for name in plan.asked if "analogy" in name}
        assert plan.of(analogy("0.02")) <= asked_of_analogy
        assert not asked_of_analogy <= plan.of(overall("0.2"))
        assert len(plan.of(overall("0.2"))) == size_for_power(Decimal("0.2"), 621, ANSWERS)

    def test_needs_a_gate_to_plan_for(self) -> None:
        with pytest.raises(ConfigurationError, match="auto needs a threshold"):
            draw_sample(parse_sample_size("auto"), BENCHMARK, [], ANSWERS)
        assert len(draw_sample(parse_sample_size("50"), BENCHMARK, [], ANSWERS).asked) == 50

    def test_takes_the_whole_population_where_it_is_too_small(self) -> None:
        small = dataset(members(Relation.ANALOGY, 20))
        plan = draw_sample(parse_sample_size("auto"), small, [analogy()], MODEL)
        assert plan.gates[0].planned == 20
        assert not plan.gates[0].can_pass
        assert refusal(plan.gates) is not None


class TestClusters:
    CLUSTERED = dataset(members(Relation.ANALOGY, 1500, per_seed=5))

    def test_new_items_need_as_many_seed_questions(self) -> None:
        plan = draw_sample(parse_sample_size("auto"), self.CLUSTERED, [analogy()], ITEMS)
        gate = plan.gates[0]
        needed = size_for_power(Decimal("0.1"), 1500, MODEL)
        assert needed is not None
        assert gate.planned > needed
        seeds = {i.id: i.seed for i in self.CLUSTERED.instances}
        sizes = Counter(seeds[name] for name in gate.counted).values()
        assert needed <= effective_size(sizes) < needed + 2

    def test_one_instance_a_seed_question_is_no_cluster(self) -> None:
        plan = draw_sample(parse_sample_size("auto"), BENCHMARK, [analogy()], ITEMS)
        assert plan.gates[0].planned == size_for_power(Decimal("0.1"), 318, MODEL)

    def test_too_few_seed_questions_cannot_pass(self) -> None:
        few = dataset(members(Relation.ANALOGY, 300, per_seed=15))
        plan = draw_sample(parse_sample_size("100%"), few, [analogy()], ITEMS)
        gate = plan.gates[0]
        assert (gate.can_pass, gate.to_pass, gate.to_power, gate.chance) == (False, None, None, 0)


class TestRefusal:
    def test_names_both_numbers_per_gate_and_the_joint_chance(self) -> None:
        plan = draw_sample(parse_sample_size("40"), BENCHMARK, [analogy(), JUMP], ANSWERS)
        line = refusal(plan.gates)
        assert line is not None
        assert "\n" not in line
        have = plan.gates[0].planned
        assert f"analogy (limit 10%) has {have} and needs 28 / 116" in line
        assert "jump" not in line
        assert "is 0%" in line

    def test_a_sample_that_can_pass_is_not_refused(self) -> None:
        plan = draw_sample(parse_sample_size("auto"), BENCHMARK, [analogy(), JUMP], ANSWERS)
        assert refusal(plan.gates) is None

    @given(st.integers(1, 621), st.sampled_from([ANSWERS, MODEL]))
    def test_refuses_exactly_what_cannot_pass(self, size: int, rules: Rules) -> None:
        plan = draw_sample(parse_sample_size(str(size)), BENCHMARK, [analogy(), JUMP], rules)
        hopeless = any(
            limits(g.criterion.threshold, g.population, g.planned, rules).most < 0
            for g in plan.gates
        )
        assert (refusal(plan.gates) is not None) == hopeless
        for gate in plan.gates:
            assert gate.can_pass == (gate.to_pass is not None and gate.planned >= gate.to_pass)

    @pytest.mark.parametrize("estimand", Estimand)
    def test_a_gate_without_a_population_is_not_its_business(self, estimand: Estimand) -> None:
        empty = Criterion(Scope.RELATION, "causality", Decimal("0.1"))
        plan = draw_sample(parse_sample_size("auto"), BENCHMARK, [JUMP, empty], Rules(estimand))
        assert refusal(plan.gates) is None
        assert joint_chance(plan.gates) == plan.gates[0].chance

    def test_joint_chance_is_the_product(self) -> None:
        def plan(chance: float) -> GatePlan:
            return GatePlan(analogy(), 10, frozenset(), 1, 1, can_pass=True, chance=chance)

        assert joint_chance([plan(0.5), plan(0.8)]) == pytest.approx(0.4)
        assert joint_chance([]) == 1
