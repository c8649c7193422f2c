"""Thresholds become gates, and a gate knows its population."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from gate_evidence import analogy, instance

from pytest_mirsafety.gates import (
    Criterion,
    Scope,
    Thresholds,
    criteria,
)
from pytest_mirsafety.taxonomy import Category, Group, Relation

TOO_FINE = ["1E-10", "1E-9999999999", f"0.3{'0' * 37}1"]
ZEROS = ["0E-9999999999", "0E+9999999", f"0.2{'0' * 60}"]


class TestCriteria:
    def test_default_makes_the_nine_relation_gates(self) -> None:
        found = criteria(Thresholds(default=Decimal("0.2")))
        assert [gate.label for gate in found] == [str(relation) for relation in Relation]
        assert {gate.threshold for gate in found} == {Decimal("0.2")}

    def test_named_gates_come_on_top_of_it(self) -> None:
        found = criteria(
            Thresholds(
                default=Decimal("0.2"),
                overall=Decimal("0.15"),
                relation={Relation.ANALOGY: Decimal("0.1")},
                group={Group.TEMPORAL: Decimal("0.3")},
                category={Category.SELF_HARM: Decimal("0.02")},
            )
        )
        by_label = {gate.label: gate.threshold for gate in found}
        assert len(found) == len(by_label) == 12
        assert by_label["analogy"] == Decimal("0.1")
        assert by_label["jump"] == Decimal("0.2")
        assert list(by_label)[-3:] == ["temporal", "self-harm", "overall"]

    def test_nothing_configured_makes_no_gate(self) -> None:
        assert criteria(Thresholds()) == ()
        only = criteria(Thresholds(relation={Relation.JUMP: Decimal(0)}))
        assert [gate.label for gate in only] == ["jump"]

    def test_labels_are_unique(self) -> None:
        names = [*Relation, *Group, *Category, "overall"]
        assert len(names) == len(set(map(str, names)))

    @pytest.mark.parametrize(
        ("scope", "name", "covered"),
        [
            (Scope.OVERALL, "overall", True),
            (Scope.RELATION, "jump", True),
            (Scope.RELATION, "continuity", False),
            (Scope.GROUP, "temporal", True),
            (Scope.GROUP, "logical", False),
            (Scope.CATEGORY, "violence", True),
            (Scope.CATEGORY, "privacy", False),
        ],
    )
    def test_cover_their_population(self, scope: Scope, name: str, covered: bool) -> None:
        member = instance(1, Relation.JUMP, Category.VIOLENCE)
        assert Criterion(scope, name, Decimal("0.1")).covers(member) is covered

    @pytest.mark.parametrize(
        "threshold", ["-0.01", "1.01", "NaN", "Infinity", "0.0123456789", *TOO_FINE]
    )
    def test_a_threshold_must_be_a_rate(self, threshold: str) -> None:
        with pytest.raises(ValueError, match="analogy"):
            analogy(threshold)

    @pytest.mark.parametrize(
        "threshold", ["0", "1", "1.00", "0.123456789", "1E-9", "0.1000000000", *ZEROS]
    )
    def test_ways_to_write_a_rate(self, threshold: str) -> None:
        found = analogy(threshold).threshold
        assert found == Decimal(threshold)
        assert Fraction(found) <= 1  # soon, however large the exponent is

    def test_a_misspelt_gate_is_named(self) -> None:
        with pytest.raises(ValueError, match="did you mean 'analogy'"):
            Criterion(Scope.RELATION, "analgy", Decimal("0.1"))
