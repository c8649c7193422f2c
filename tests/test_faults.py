"""An endpoint that fails in every way a real one does, and a run that cannot be told from one
that nothing happened to.

Real parts throughout: the `openai` backend, an HTTP server, the store, the engine.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest, Reply
from engine_setting import outcome, running
from scripted import ScriptedImages, ScriptedJudge, make_instances

from pytest_mirsafety.backends.openai import OpenAIBackend, OpenAISettings
from pytest_mirsafety.engine import pacing
from pytest_mirsafety.engine.engine import EngineSettings
from pytest_mirsafety.engine.pacing import PaceSettings
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.records import Verdict, VerdictKind
from pytest_mirsafety.store import SQLiteStore
from pytest_mirsafety.taxonomy import Reason, Status

COUNT = 120
STORM_FROM = 40
"""Requests after which a storm breaks."""

STORM_SECONDS = 0.3

FAULTS: Mapping[str, tuple[float, Reply]] = {
    "500": (0.10, Reply.error(500)),
    "cut": (0.03, Reply(cut="before-reply")),
    "cut in body": (0.02, Reply(cut="in-body")),
    "garbage": (0.05, Reply.garbage()),
    "empty": (0.02, Reply(content=b"")),
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited before another attempt, a hundred times as fast."""
    monkeypatch.setattr(pacing, "_FIRST_WAIT", 0.005)


def share(*parts: object) -> float:
    """A number from 0 to 1 that is always the same for these parts."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32


@dataclass
class Faulty:
    """An endpoint's script: faults by request and attempt, and for a while a storm of 429."""

    faults: bool = True
    storm: Reply | None = None
    attempts: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    storm_ends: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: ReceivedRequest) -> Reply:
        prompt = request.prompt
        with self.lock:
            attempt = self.attempts[prompt]
            self.attempts[prompt] += 1
            if self.storm is not None and self.is_storming():
                self.met["429"] += 1
                return self.storm
            if self.faults and (name := self.fault(prompt, attempt)) is not None:
                self.met[name] += 1
                return FAULTS[name][1]
            self.answered[prompt] += 1
        return Reply(answer_to(prompt), delay=random.Random(prompt).uniform(0, 0.01))

    def is_storming(self) -> bool:
        if self.attempts.total() < STORM_FROM:
            return False
        self.storm_ends = self.storm_ends or time.monotonic() + STORM_SECONDS
        return time.monotonic() < self.storm_ends

    def fault(self, prompt: str, attempt: int) -> str | None:
        place = share("fault", prompt, attempt)
        for name, (rate, _) in FAULTS.items():
            if (place := place - rate) < 0:
                return name
        return None


def answer_to(prompt: str) -> str:
    if share("blank", prompt) < 0.02:
        return ""
    return f"{'Sure, here are the steps: [withheld]' if share(prompt) < 0.3 else 'No.'} {prompt}"


def run(script: Faulty, path: Path) -> dict[str, Status | Reason]:
    """The outcome of each instance."""
    with ChatEndpoint(script) as endpoint:
        return run_at(endpoint, path)


def run_at(endpoint: ChatEndpoint, path: Path) -> dict[str, Status | Reason]:
    before = len(endpoint.requests)
    judge = ScriptedJudge(
        lambda _, text: Verdict(
            VerdictKind.UNSAFE if text.startswith("Sure") else VerdictKind.SAFE, "j"
        ),
        concurrency=8,
    )
    instances = make_instances(COUNT)
    with SQLiteStore.open(path) as store:
        settings = OpenAISettings(
            model="test-model", base_url=endpoint.url, key_required=False, concurrency=12
        )
        backend = OpenAIBackend(settings, {})
        engine_settings = EngineSettings(target=PaceSettings(12))
        with running(backend, judge, ScriptedImages(), store, engine_settings) as engine:
            engine.plan(instances)
            found = {i.id: outcome(engine, i) for i in instances}
            assert engine.progress().asked == (0 if before else COUNT)
        assert endpoint.peak <= 12
    assert len(judge.pairs) == sum(isinstance(each, Status) for each in found.values())
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Status | Reason]:
    found = run(Faulty(faults=False), tmp_path_factory.mktemp("undisturbed") / "s.sqlite3")
    kinds = Counter(found.values())
    assert kinds[Status.SAFE] > 50
    assert kinds[Status.UNSAFE] > 20
    assert 1 <= kinds[Reason.BLANK] < 8
    assert len(kinds) == 3
    return found


@pytest.mark.parametrize(
    "storm",
    [
        pytest.param(None, id="no storm"),
        pytest.param(Reply.error(429, "slow down"), id="429"),
        pytest.param(Reply.error(429, "slow down", retry_after=0.02), id="429 with Retry-After"),
    ],
)
def test_the_verdicts_are_those_of_a_run_without_faults(
    storm: Reply | None, undisturbed: dict[str, Status | Reason], tmp_path: Path
) -> None:
    script = Faulty(storm=storm)
    assert run(script, tmp_path / "s.sqlite3") == undisturbed
    assert set(script.met) >= set(FAULTS)
    assert (script.met["429"] > 5) == (storm is not None)
    assert set(script.answered.values()) == {1}
    assert len(script.answered) == COUNT


def test_a_completed_answer_is_never_asked_for_again(
    undisturbed: dict[str, Status | Reason], tmp_path: Path
) -> None:
    """By no later run either: a blank one is an answer, and stays one."""
    path = tmp_path / "s.sqlite3"
    with ChatEndpoint(Faulty()) as endpoint:
        assert run_at(endpoint, path) == undisturbed
        asked = len(endpoint.requests)
        assert run_at(endpoint, path) == undisturbed
        assert len(endpoint.requests) == asked


@pytest.mark.parametrize(
    ("reply", "message", "requests"),
    [
        (Reply.error(401, "no such key"), "the model cannot be asked: HTTP 401: no such key", 1),
        (Reply.error(404, "no such model"), "the model cannot be asked: HTTP 404", 1),
        (Reply.error(500), "the model gives no answer: HTTP 500: scripted failure", 6),
        (Reply.garbage(), "the model gives no answer: no answer in the reply: it is not JSON", 6),
    ],
)
def test_an_endpoint_that_cannot_answer_is_named_before_the_rest_is_asked(
    reply: Reply, message: str, requests: int, tmp_path: Path
) -> None:
    with ChatEndpoint(reply) as endpoint:
        with pytest.raises(ConfigurationError) as raised:
            run_at(endpoint, tmp_path / "s.sqlite3")
        assert str(raised.value).startswith(message)
        assert "\n" not in str(raised.value)
        assert len(endpoint.requests) == requests
        assert endpoint.peak == 1


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with ChatEndpoint() as endpoint:
        pass
    with pytest.raises(ConfigurationError, match=r"the model gives no answer: .* no connection"):
        run_at(endpoint, tmp_path / "s.sqlite3")
