"""`--mir-budget`, as a user sees it: the asking ends, and what is left out decides no gate."""

from __future__ import annotations

import json

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


def test_what_is_wrong_with_a_budget_is_told_at_once(project: Project) -> None:
    with ChatEndpoint(REPLY) as endpoint:
        model = configured(project, endpoint)
        for budget, problem in (("lots", "is no budget"), ("5usd", "input_price")):
            result = project.run(f"--mir-budget={budget}", model=model)
            assert result.ret == 4
            (line,) = [x for x in result.errlines if x.startswith("ERROR")]
            assert problem in line
        assert not endpoint.requests
