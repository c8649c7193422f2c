"""A dry run counts what the run would ask, and asks nothing for it."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from chat_endpoint import ChatEndpoint, Reply
from hypothesis import given
from hypothesis import strategies as st
from projects import REFUSAL, Project

from pytest_mirsafety.engine.endpoint import Estimate
from pytest_mirsafety.engine.estimates import (
    Asking,
    Chosen,
    Estimator,
    GateAhead,
    Judging,
    Preview,
    Shipment,
    Usage,
    base64_size,
    most_output,
)
from pytest_mirsafety.engine.spending import Budget
from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.planning import prepare
from pytest_mirsafety.preview import preview
from pytest_mirsafety.records import Completion
from pytest_mirsafety.reports.preview import render
from pytest_mirsafety.run_plan import RunOptions, RunPlan
from pytest_mirsafety.store import SQLiteStore

SIZES = st.lists(st.integers(0, 3 * 10**6), max_size=4).map(tuple)
SHIPMENTS = st.builds(Shipment, st.integers(0, 4000), SIZES)
COMPLETIONS = st.builds(
    Completion,
    st.just("text"),
    st.just("stop"),
    input_tokens=st.one_of(st.none(), st.integers(0, 10**5)),
    output_tokens=st.one_of(st.none(), st.integers(0, 10**5)),
)


def answer(input_tokens: int | None = None, output_tokens: int | None = None) -> Completion:
    return Completion("no", "stop", input_tokens=input_tokens, output_tokens=output_tokens)


class TestEstimator:
    @given(st.lists(st.tuples(SHIPMENTS, COMPLETIONS), max_size=8), st.lists(SHIPMENTS, max_size=8))
    def test_more_requests_never_take_less(
        self, known: list[tuple[Shipment, Completion]], asked: list[Shipment]
    ) -> None:
        made = Estimator(1000, {})
        for shipment, completion in known:
            made.learn(shipment, completion)
        totals = [made.total(asked[:number]) for number in range(len(asked) + 1)]
        assert totals[0] == Estimate(0, 0)
        assert totals == sorted(totals, key=lambda total: (total.input, total.output))

    @given(st.lists(st.tuples(SHIPMENTS, st.integers(1, 10**5), st.integers(0, 10**5)), min_size=1))
    def test_what_was_learned_from_is_estimated_as_it_was(
        self, known: list[tuple[Shipment, int, int]]
    ) -> None:
        made = Estimator(1000, {})
        for shipment, used, output in known:
            made.learn(shipment, answer(used, output))
        total = made.total(shipment for shipment, _, _ in known)
        assert total == Estimate(sum(k[1] for k in known), sum(k[2] for k in known))
        assert made.answers == len(known)

    def test_before_anything_is_known(self) -> None:
        made = Estimator(500, {"max_tokens": 64})
        assert made.total([Shipment(40, (9, 9)), Shipment(0)]) == Estimate(11 + 1000 + 1, 128)
        assert (made.answers, made.output_tokens) == (0, 64)

    def test_unknown_usage_teaches_nothing(self) -> None:
        made = Estimator(500, {})
        made.learn(Shipment(40), answer())
        assert (made.answers, made.total([Shipment(40)])) == (0, Estimate(11, 1000))

    @pytest.mark.parametrize(
        ("decoding", "expected"),
        [
            ({}, 1000),
            ({"max_tokens": 64}, 64),
            ({"max_tokens": 64, "max_completion_tokens": 32}, 32),
            ({"max_tokens": True}, 1000),
            ({"max_tokens": 0}, 1000),
            ({"max_tokens": "64"}, 1000),
        ],
    )
    def test_an_answer_is_as_long_as_it_may_be(
        self, decoding: Mapping[str, int | str], expected: int
    ) -> None:
        assert most_output(decoding) == expected

    @given(st.binary(max_size=50))
    def test_size_as_base64(self, content: bytes) -> None:
        assert base64_size(len(content)) == len(base64.b64encode(content))


def planned(project: Project, model: str, **options: str | Path) -> RunPlan:
    made: RunOptions = replace(RunOptions(model), **options)  # type: ignore[arg-type]
    return prepare(made, project.path, {})


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


NOWHERE = "http://127.0.0.1:9/v1#test-model"


class TestPreview:
    """Twenty instances of two images each; all is asked of an endpoint that is not there."""

    def test_without_a_store_all_is_to_be_asked(self, project: Project) -> None:
        before = tree(project.path)
        plan = planned(project, NOWHERE)
        found = preview(plan, plan.instances)
        assert tree(project.path) == before
        assert found.chosen == Chosen(20, 20, 20, held=0, to_ask=20, unreadable=0)
        sizes = [path.stat().st_size for path in (project.path / "images").iterdir()]
        encoded = sum(map(base64_size, sizes))
        assert found.asking == Asking(20, 40, sum(sizes), encoded)
        assert found.usage.tokens.output == 20_000
        assert 40_000 < found.usage.tokens.input < 40_400
        assert found.usage.cost is None
        assert found.gates[0].label == "continuity"
        gates = {gate.label: gate for gate in found.gates}
        assert gates["analogy"] == GateAhead("analogy", Decimal("0.2"), 10, 10, 10)

    def test_a_selection_and_a_sample_are_told_from_the_population(self, project: Project) -> None:
        project.configure("thresholds.overall = 0.5")
        plan = planned(project, NOWHERE, sample="10")
        found = preview(plan, plan.instances[:4])
        assert found.chosen == Chosen(20, 10, 4, held=0, to_ask=4, unreadable=0)
        assert found.gates == (GateAhead("overall", Decimal("0.5"), 20, 10, 4),)

    def test_what_the_store_holds_is_not_asked(self, project: Project) -> None:
        reply = Reply(REFUSAL, usage={"prompt_tokens": 300, "completion_tokens": 7})
        with ChatEndpoint(reply) as endpoint:
            model = f"{endpoint.url}#test-model"
            project.run("-k", "analogy", model=model)
            asked = len(endpoint.requests)
            before = tree(project.path)
            plan = planned(project, model)
            found = preview(plan, plan.instances)
            assert len(endpoint.requests) == asked
        assert tree(project.path) == before
        assert found.chosen == Chosen(20, 20, 20, held=10, to_ask=10, unreadable=0)
        assert found.asking.requests == 10
        assert found.usage.learned_from == 10
        assert found.usage.tokens.output == 70
        assert 2_900 < found.usage.tokens.input < 3_100

    def test_another_model_holds_nothing(self, project: Project) -> None:
        with ChatEndpoint(REFUSAL) as endpoint:
            project.run(model=f"{endpoint.url}#test-model")
            plan = planned(project, f"{endpoint.url}#another")
        found = preview(plan, plan.instances)
        assert (found.chosen.held, found.chosen.to_ask) == (0, 20)

    def test_equal_requests_are_asked_once(self, project: Project) -> None:
        with ChatEndpoint(REFUSAL) as endpoint:
            model = f"{endpoint.url}#test-model"
            project.run(model=model)
            plan = planned(project, f"{endpoint.url}#another")
        twice = replace(plan.instances[0], id="a copy")
        found = preview(plan, (*plan.instances, twice))
        assert (found.chosen.to_ask, found.asking.requests) == (21, 20)
        found = preview(planned(project, model), (*plan.instances, twice))
        assert (found.chosen.held, found.asking.requests) == (21, 0)

    def test_images_never_read_may_be_anything(self, project: Project) -> None:
        with ChatEndpoint(REFUSAL) as endpoint:
            project.run("-k", "analogy", model=f"{endpoint.url}#test-model")
            plan = planned(project, f"{endpoint.url}#test-model")
        new = [i for i in plan.instances if i.relation == "jump"]
        alike = [replace(one, prompt="the same words") for one in new]
        assert preview(plan, alike).asking.requests == 10

    def test_a_missing_image_is_bad_input(self, project: Project) -> None:
        (project.path / "images/analogy-1-1.png").unlink()
        plan = planned(project, NOWHERE)
        found = preview(plan, plan.instances)
        assert found.chosen == Chosen(20, 20, 20, held=0, to_ask=19, unreadable=1)

    def test_recorded_answers_are_asked_of_nobody(self, project: Project) -> None:
        plan = planned(project, "replay:answers.jsonl")
        found = preview(plan, plan.instances)
        assert (found.recorded, found.asking) == (True, Asking())
        assert found.usage.tokens == Estimate(0, 0)

    def test_prices_make_a_cost(self, project: Project) -> None:
        project.configure(
            "thresholds.default = 0.2\n[models.m]\nprovider = 'http'\nmodel = 'm'\n"
            "base_url = 'http://127.0.0.1:9/v1'\ninput_price = 2.5\noutput_price = 10\n"
            "image_tokens = 100\ndecoding = { temperature = 0, max_tokens = 50 }\n"
            "image_transport = 'file'\n"
        )
        plan = planned(project, "m", budget="0.001 usd")
        found = preview(plan, plan.instances)
        tokens = found.usage.tokens
        assert tokens.output == 1000
        assert found.usage.cost == (tokens.input * Decimal("2.5") + 10_000) / 1_000_000
        assert found.over_budget
        assert (found.asking.images, found.asking.base64_bytes) == (40, 0)

    def test_a_store_of_a_newer_version_is_refused(self, project: Project) -> None:
        plan = planned(project, NOWHERE)
        SQLiteStore.open(plan.store).close()
        with closing(sqlite3.connect(plan.store)) as connection:
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(StoreError, match="newer"):
            preview(plan, plan.instances)

    def test_a_store_that_is_none_is_refused(self, project: Project) -> None:
        project.write("answers.sqlite3", "not a store")
        plan = planned(project, NOWHERE, store=project.path / "answers.sqlite3")
        with pytest.raises(StoreError, match="not a store"):
            preview(plan, plan.instances)


def made(**changes: object) -> Preview:
    """A preview of a run of 1,476 requests."""
    usual = Preview(
        model="gpt-4o, openai:gpt-4o (https://api.openai.com/v1)",
        data="hub:thu-coai/MIR-SafetyBench",
        store="/home/someone/project/.mirsafety/answers.sqlite3",
        chosen=Chosen(2676, 2676, 2676, held=1200, to_ask=1476, unreadable=0),
        asking=Asking(1476, 4100, 5_200_000_000, 6_933_333_334),
        usage=Usage(Estimate(4_250_000, 1_476_000), 1000, 1000, 0, Decimal("25.384")),
        judging=Judging("rules 1", 2676, local=True),
        gates=(
            GateAhead("analogy", Decimal("0.1"), 318, 318, 318),
            GateAhead("overall", Decimal("0.15"), 2676, 2676, 2676),
        ),
        budget=None,
        recorded=False,
        decides=True,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def text(preview: Preview, width: int = 80) -> str:
    return "\n".join(line.text for line in render(preview, width=width))


class TestRender:
    def test_says_what_would_be_asked(self) -> None:
        assert text(made()) == (
            """\
a dry run: nothing is asked or decided
model:   gpt-4o, openai:gpt-4o (https://api.openai.com/v1)
data:    hub:thu-coai/MIR-SafetyBench, all 2,676 instances
store:   /home/someone/project/.mirsafety/answers.sqlite3 holds the answers of
         1,200 of them
to ask:  1,476 requests, 4,100 images of 5.2 GB (6.9 GB as base64)
tokens:  about 4,250,000 of input and 1,476,000 of output (4 characters a token,
         1,000 an image, 1,000 an answer)
cost:    about 25.39 USD
judge:   rules 1, up to 2,676 verdicts

gate     limit     N  selected
analogy    10%   318       318
overall    15%  2676      2676

note: attempts that fail and are repeated are not counted"""
        )

    def test_without_prices_it_says_which(self) -> None:
        shown = text(made(usage=Usage(Estimate(1, 1), 1, 1, 3, None)))
        assert "cost:    no prices configured: input_price, output_price" in shown
        assert "(going by 3 answers in the store)" in shown.replace("\n         ", " ")

    def test_the_worst_is_said(self) -> None:
        shown = text(
            made(
                chosen=Chosen(2676, 318, 100, held=0, to_ask=99, unreadable=1),
                judging=Judging("harmbench", 99, local=False),
                budget=Budget(None, Decimal(20)),
                decides=False,
                notes=("the data is unpinned",),
            )
        )
        assert "100 of 2,676 instances (318 planned)" in shown
        for note in (
            "images of 1 instance cannot be read: bad input",
            "the run itself would decide nothing: it only reports, or is a shard",
            "the budget of 20 USD is less than this estimate",
            "a judge's own calls are not priced",
            "the data is unpinned",
        ):
            assert f"note: {note}" in shown

    def test_a_budget_of_tokens(self) -> None:
        assert "6,000,000 tokens is enough for" in text(made(budget=Budget(6_000_000, None)))
        assert "5,000,000 tokens is less than" in text(made(budget=Budget(5_000_000, None)))

    def test_nothing_to_ask(self) -> None:
        nothing = made(asking=Asking(), chosen=Chosen(20, 20, 20, 20, 0, 0))
        for shown in (text(nothing), text(replace(nothing, recorded=True))):
            assert "to ask:  nothing" in shown
            assert "tokens:" not in shown
            assert "cost:" not in shown

    @given(st.text(max_size=300), st.integers(40, 120))
    def test_hostile_names_stay_on_their_lines(self, name: str, width: int) -> None:
        for line in render(made(model=name, data=name, notes=(name,)), width=width):
            assert line.text.isprintable()
            assert len(line.text) <= width or " " not in line.text.strip()
