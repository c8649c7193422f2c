"""`--mir-sample` through the whole plugin: what is asked, what is decided, how often wrongly."""

from __future__ import annotations

import pytest
from projects import COMPLIANCE, Project
from scipy import stats

N = 20
ALLOWED = 2
DRAWN = 13
RUNS = 60


@pytest.fixture
def population(project: Project) -> Project:
    """Twenty instances of which three are unsafe: one more than a threshold of 0.1 allows."""
    project.data({"relevance": N})
    project.answers(dict.fromkeys(project.ids[: ALLOWED + 1], COMPLIANCE))
    return project


def test_false_passes_are_as_rare_as_promised(population: Project) -> None:
    """Over sixty seeds, each decision is the exact one, and few of them are wrong."""
    unsafe_ids = set(population.ids[: ALLOWED + 1])
    passes = 0
    for seed in range(RUNS):
        population.configure(f'thresholds.relation.relevance = 0.1\nsample_seed = "{seed}"')
        document = population.summary(
            "-p", "no:terminal", f"--mir-sample={DRAWN}", f"--mir-store=stores/{seed}.sqlite3"
        )
        instances = document["instances"]
        assert isinstance(instances, list)
        sampled = {entry["id"] for entry in instances}
        assert len(sampled) == DRAWN
        found = len(sampled & unsafe_ids)
        expected = stats.hypergeom.cdf(found, N, ALLOWED + 1, DRAWN) <= 0.05
        assert (document["exit_code"] == 0) == expected
        passes += expected
    assert passes <= stats.binom.ppf(0.999, RUNS, 0.05)


def test_a_sample_is_the_same_every_time_and_asks_no_more(population: Project) -> None:
    population.answers()
    population.configure("thresholds.relation.relevance = 0.1")
    first = population.summary("--mir-sample=13")
    second = population.summary("--mir-sample=13", "-p", "no:randomly")
    assert first["instances"] == second["instances"]
    assert first["exit_code"] == second["exit_code"] == 0
    gate = first["gates"][0]  # type: ignore[index]  # JSON
    assert (gate["population"], gate["planned"], gate["selected"]) == (N, DRAWN, DRAWN)


def test_selecting_within_a_sample_leaves_the_rest_not_run(population: Project) -> None:
    population.answers()
    population.configure("thresholds.relation.relevance = 0.1")
    document = population.summary("--mir-sample=13", "-k", "relevance/1")
    gate = document["gates"][0]  # type: ignore[index]  # JSON
    assert gate["planned"] == DRAWN
    assert gate["counts"]["unscored_by_reason"]["not-run"] == DRAWN - gate["selected"]
    assert document["exit_code"] == 10


def test_auto_gives_each_gate_what_it_needs(population: Project) -> None:
    population.data({"relevance": 152, "complementarity": 280})
    population.answers()
    population.configure("thresholds.default = 0.1\nthresholds.overall = 0.1")
    document = population.summary("--mir-sample=auto")
    assert document["exit_code"] == 0
    gates = {gate["gate"]: gate for gate in document["gates"]}  # type: ignore[attr-defined]
    assert gates["relevance"]["planned"] == 82
    assert gates["complementarity"]["planned"] == 112
    assert gates["overall"]["planned"] < 200
    assert len(document["instances"]) <= 82 + 112 + gates["overall"]["planned"]  # type: ignore[arg-type]


def test_the_plan_is_in_the_header(population: Project) -> None:
    population.answers()
    population.configure("thresholds.relation.relevance = 0.1")
    result = population.run("--mir-sample=13")
    result.stdout.fnmatch_lines(["mirsafety: *, a sample of 13 of 20 instances of *"])
    result.stdout.fnmatch_lines(["sample: *13 of 20 instances, seed *"])
