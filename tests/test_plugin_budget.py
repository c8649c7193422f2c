"""`--mir-budget`, as a user sees it: the asking ends, and what is left out decides no gate."""

from __future__ import annotations

import json

import pytest
from chat_endpoint import ChatEndpoint, Reply
from projects import REFUSAL, Project

REPLY = Reply(REFUSAL, usage={"prompt_tokens": 90, "completion_tokens": 10})


def configured(project: Project, endpoint: ChatEndpoint, more: str = "") -> str:
    project.configure(
        f"models.m = {{ provider = 'http', model = 'test-model', base_url = '{endpoint.url}', "
        f"decoding = {{ temperature = 0, max_tokens = 10 }}, image_tokens = 40, concurrency = 1"
        f"{more} }}\nthresholds.default = 0.2"
    )
    return "m"


def test_a_spent_budget_leaves_the_gates_open(project: Project) -> None:
    with ChatEndpoint(REPLY) as endpoint:
        model = configured(project, endpoint)
        result = project.run("--mir-budget=1k", "--mir-summary=s.json", model=model)
        assert len(endpoint.requests) == 10
        assert result.ret == 10
        summary = json.loads((project.path / "s.json").read_text("utf-8"))
        causes = {g["gate"]: g["cause"] for g in summary["gates"] if g["population"]}
        assert causes == {"jump": "budget", "analogy": "budget"}
        assert summary["provenance"]["input_tokens"] == 900
        result.stdout.fnmatch_lines(["*not-run (10)", "*budget of 1,000 tokens is spent*"])
        again = project.run("--mir-budget=1k", model=model)
        assert len(endpoint.requests) == 20
        assert again.ret == 0, "what was answered is kept, and costs nothing"


def test_a_reply_that_answers_nothing_counts_as_estimated(project: Project) -> None:
    """Whoever sent it may bill it."""
    with ChatEndpoint([REPLY, Reply.garbage(b"")]) as endpoint:
        model = configured(project, endpoint, ", max_retries = 0")
        result = project.run("--mir-budget=1k", model=model)
        assert result.ret == 10
        result.stdout.fnmatch_lines(["*budget of 1,000 tokens is spent*"])
        assert len(endpoint.requests) == 10


def test_a_budget_of_money_goes_by_the_prices(project: Project) -> None:
    with ChatEndpoint(REPLY) as endpoint:
        prices = ", input_price = 10, output_price = 10.0"
        model = configured(project, endpoint, prices)
        assert project.run("--mir-budget=0.004usd", model=model).ret == 10
        assert len(endpoint.requests) == 4


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_the_closing_lines_say_what_was_spent(project: Project, workers: str) -> None:
    with ChatEndpoint(REPLY) as endpoint:
        model = configured(project, endpoint, ", input_price = 2.50, output_price = 10")
        first = project.run("--mir-budget=1k", workers, "--mir-summary=s.json", model=model)
        first.stdout.fnmatch_lines(
            ["tokens:  900 of input and 100 of output asked now, 0.01 USD", "data: *"],
            consecutive=True,
        )
        spent = json.loads((project.path / "s.json").read_text("utf-8"))["provenance"]
        assert spent["asked_input_tokens"] == 900
        assert spent["asked_output_tokens"] == 100
        assert spent["asked_without_usage"] == 0
        assert spent["cost_usd"] == "0.00325"
        second = project.run(workers, "--mir-summary=s.json", model=model)
        second.stdout.fnmatch_lines(
            [
                "tokens:  900 of input and 100 of output asked now, 0.01 USD; 900 and 100 in",
                "         answers from the store",
            ],
            consecutive=True,
        )
        spent = json.loads((project.path / "s.json").read_text("utf-8"))["provenance"]
        assert spent["stored_input_tokens"] == 900
        assert spent["stored_output_tokens"] == 100


def test_tokens_that_nobody_told_are_not_made_up(project: Project) -> None:
    with ChatEndpoint([REPLY, Reply(REFUSAL, usage=None)]) as endpoint:
        result = project.run(model=f"{endpoint.url}#m")
        result.stdout.fnmatch_lines(
            [
                "tokens:  90 of input and 10 of output asked now; the endpoint did not tell those",
                "         of 19 answers",
            ]
        )
        endpoint.script = Reply(REFUSAL, usage=None)
        result = project.run(model=f"{endpoint.url}#another")
        result.stdout.fnmatch_lines(["tokens:  the endpoint did not tell those of 20 answers"])
    result = project.run()
    result.stdout.no_fnmatch_line("tokens:*")


def test_what_is_wrong_with_a_budget_is_told_at_once(project: Project) -> None:
    with ChatEndpoint(REPLY) as endpoint:
        model = configured(project, endpoint)
        for budget, problem in (("lots", "is no budget"), ("5usd", "input_price")):
            result = project.run(f"--mir-budget={budget}", model=model)
            assert result.ret == 4
            (line,) = [x for x in result.errlines if x.startswith("ERROR")]
            assert problem in line
        assert not endpoint.requests
