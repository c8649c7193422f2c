"""Whole runs killed at random moments and resumed, against an endpoint that counts.

Two kills by default. `MIRSAFETY_KILLS=20` makes it as many, each with another seed, and `-rP`
prints what each of them cost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest, Reply
from projects import COMPLIANCE, REFUSAL, UNCLEAR, Project

KILLS = int(os.environ.get("MIRSAFETY_KILLS", "2"))
CONCURRENCY = 4
LIMIT = 120.0
"""Seconds after which a run is taken for hung."""


@pytest.fixture
def suite(project: Project) -> Project:
    """Thirty instances of three relations; each relation has its own share of unsafe answers."""
    project.data({"analogy": 10, "jump": 10, "causality": 10})
    return project


def answer(request: ReceivedRequest) -> Reply:
    """An outcome that depends on the prompt only, with a count of tokens that no other ask has."""
    chance = random.Random(request.prompt)
    kinds = [("refusal", 12), (COMPLIANCE, 4), (UNCLEAR, 1), ("", 1), ("cut", 1)]
    names, weights = zip(*kinds, strict=True)
    (kind,) = chance.choices(names, weights)
    return Reply(
        REFUSAL if kind in ("refusal", "cut") else kind,
        "length" if kind == "cut" else "stop",
        usage={"prompt_tokens": time.monotonic_ns(), "completion_tokens": 7},
        delay=random.uniform(0.005, 0.05),
    )


def configure(project: Project, endpoint: ChatEndpoint) -> None:
    project.configure(
        f"""thresholds.default = 0.3
        [models.m]
        provider = "http"
        model = "test-model"
        base_url = "{endpoint.url}"
        concurrency = {CONCURRENCY}
        max_retries = 0
        decoding = {{ temperature = 0 }}
        """
    )


def decided(project: Project) -> dict[str, Any]:
    """What a run came to, from the summary that it wrote: all but when and how it was asked."""
    summary = json.loads((project.path / "summary.json").read_text("utf-8"))
    kept = ("ruling", "exit_code", "gates", "overall", "relations", "instances")
    return {name: summary[name] for name in kept}


def start(project: Project) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    command = [sys.executable, "-m", "pytest", "--mllm=m", "--mir-summary=killed.json"]
    return subprocess.Popen(
        command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def asks(endpoint: ChatEndpoint) -> Counter[str]:
    """How often each instance was asked, by its prompt."""
    prompts = (request.prompt for request in endpoint.requests)
    return Counter(prompt for prompt in prompts if prompt.startswith("What links"))


def held(path: Path) -> dict[str, str]:
    """The answer to each prompt that the store holds, as a reader of the file finds it."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT request, completion FROM answers").fetchall()
    return {json.loads(request)["prompt"]: completion for request, completion in rows}


def kill_at_random(project: Project, endpoint: ChatEndpoint, chance: random.Random) -> None:
    """Start a run and kill it: while it starts, or after any number of requests."""
    after = chance.randrange(-3, 30)
    with start(project) as run:
        try:
            if after > 0:
                endpoint.wait_for(len(endpoint.requests) + after, LIMIT)
            time.sleep(chance.random() * (0.05 if after > 0 else 1.5))
        finally:
            run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_run_goes_on_where_it_was(suite: Project, seed: int) -> None:
    store = suite.path / ".mirsafety/answers.sqlite3"
    with ChatEndpoint(answer) as endpoint:
        configure(suite, endpoint)
        kill_at_random(suite, endpoint, random.Random(seed))
        while endpoint.in_flight:
            time.sleep(0.01)
        before, kept = asks(endpoint), held(store)
        assert set(kept) <= set(before)
        suite.run("--mir-summary=summary.json", model="m")
        resumed, total = decided(suite), asks(endpoint)

        assert {prompt: total[prompt] for prompt in kept} == dict.fromkeys(kept, 1)
        assert held(store).items() >= kept.items()  # word for word, counts of tokens included
        again = total.total() - len(total)
        sys.stdout.write(f"killed: {len(before)} asked, {len(kept)} kept, {again} asked again\n")
        assert len(total) == 30
        assert again <= CONCURRENCY

        store.unlink()
        suite.run("--mir-summary=summary.json", model="m")
        assert asks(endpoint) - total == dict.fromkeys(total, 1)  # uninterrupted
        assert resumed == decided(suite)
