"""The main job over real sockets: an OpenAI-compatible endpoint, a store, an exit code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from fnmatch import fnmatch

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest, Reply
from projects import COMPLIANCE, REFUSAL, Project

from pytest_mirsafety.engine.pacing import PaceSettings
from pytest_mirsafety.engine_building import engine_settings
from pytest_mirsafety.planning import prepare
from pytest_mirsafety.run_plan import RunOptions

KEY = "sk-secret-0123456789abcdef"


def digests(project: Project, relation: str, number: int) -> tuple[str, ...]:
    files = [project.path / f"images/{relation}-{number}-{k}.png" for k in (1, 2)]
    return tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def model(endpoint: ChatEndpoint) -> str:
    return f"{endpoint.url}#test-model"


def test_what_is_sent_is_the_dataset_to_the_byte(project: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        result = project.run(model=model(endpoint))
        assert result.ret == 0
        sent = {request.prompt: request for request in endpoint.requests}
    assert len(endpoint.requests) == 20
    for relation in ("analogy", "jump"):
        for number in range(1, 11):
            request = sent[f"What links the pictures of {relation} {number}?"]
            assert request.images == digests(project, relation, number)
            assert [part["type"] for part in request.parts] == ["image_url", "image_url", "text"]
            assert request.decoding == {"temperature": 0}
            assert "Question" not in json.dumps(request.body)


def test_a_second_run_asks_nothing(project: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        assert project.run(model=model(endpoint)).ret == 0
        result = project.run(model=model(endpoint))
        assert result.ret == 0
        result.stdout.fnmatch_lines(
            ["answers: 0 asked now, 20 from the store, the oldest of 20* UTC"]
        )
        assert len(endpoint.requests) == 20


def test_collecting_asks_nothing(project: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        for arguments in (["--collect-only"], ["--setup-plan"], ["-k", "nothing"]):
            project.run(*arguments, model=model(endpoint))
        project.suite("import pytest\n@pytest.mark.skip\ndef test_it(mllm, instance, judge): 1/0")
        project.run(model=model(endpoint))
        assert endpoint.requests == []


def test_a_stopped_run_goes_on_where_it_was(project: Project) -> None:
    project.write("mirsafety.toml", (project.path / "mirsafety.toml").read_text("utf-8"))
    suite = """
count = 0
def test_it(mllm, instance, judge):
    global count
    count += 1
    verdict = judge(instance, mllm(instance))
    assert count < {stop}
    assert verdict.safe
"""
    with ChatEndpoint(REFUSAL) as endpoint:
        project.suite(suite.format(stop=3))
        assert project.run("-x", model=model(endpoint)).ret == 1
        before = len(endpoint.requests)
        project.suite(suite.format(stop=999))
        assert project.run(model=model(endpoint)).ret == 0
        answered = {request.prompt for request in endpoint.requests}
    assert len(answered) == 20
    assert before <= len(endpoint.requests)


def at(project: Project, endpoint: ChatEndpoint) -> None:
    """Configure the model m at this endpoint: one attempt for each request, any threshold."""
    project.configure(
        "thresholds.default = 1\nmodels.m = { provider = 'http', model = 'test-model', "
        f"max_retries = 0, base_url = '{endpoint.url}' }}"
    )


def test_the_limits_of_model_and_judge_go_to_their_own_endpoints(project: Project) -> None:
    where = "provider = 'http', base_url = 'http://127.0.0.1:9/v1'"
    limits = "concurrency = {}, max_retries = {}, requests_per_minute = {}, tokens_per_minute = {}"
    model, judge = limits.format(11, 2, 13, 14), limits.format(21, 3, 23, 24)
    project.configure(
        "judge = 'rubric'\nthresholds.default = 1\n"
        f"models.m = {{ model = 'a', {where}, {model} }}\n"
        f"judges.rubric = {{ model = 'b', {where}, {judge} }}"
    )
    settings = engine_settings(prepare(RunOptions("m"), project.path, {}))
    assert settings.target == PaceSettings(11, 2, 13, 14)
    assert settings.judge == PaceSettings(21, 3, 23, 24)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(""), "blank"),
        (Reply(COMPLIANCE, finish_reason="length"), "truncated"),
        (Reply("", finish_reason="content_filter"), "filtered"),
        (Reply("<think>still thinking"), "truncated"),
    ],
)
def test_no_failure_is_a_verdict(project: Project, reply: Reply, reason: str) -> None:
    with ChatEndpoint(reply) as endpoint:
        at(project, endpoint)
        result = project.run(model="m")
    assert result.ret == 10
    result.stdout.fnmatch_lines([f"{reason} (20)"])
    assert result.parseoutcomes()["unscored"] == 20


@pytest.mark.parametrize("reply", [Reply.error(500), Reply.error(404), Reply.garbage()])
def test_no_failure_after_an_answer_is_a_verdict(project: Project, reply: Reply) -> None:
    with ChatEndpoint([Reply(REFUSAL), reply]) as endpoint:
        at(project, endpoint)
        result = project.run(model="m")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["backend-error (19)"])
    assert result.parseoutcomes()["unscored"] == 19


@pytest.mark.parametrize(
    ("reply", "line", "most"),
    [
        (Reply.error(401, "no such key"), "*HTTP 401: no such key*MIRSAFETY_API_KEY*", 1),
        (Reply.error(404, "no model test-model"), "*HTTP 404: no model test-model*", 1),
        (Reply.error(400, "At most 1 image(s) may be provided"), "*At most 1 image*", 1),
        (
            Reply.error(400, "maximum context length is 2048", code="context_length_exceeded"),
            "*maximum context length*",
            1,
        ),
        (Reply.error(500), "*gives no answer: HTTP 500*", 6),
        (Reply.garbage(), "*gives no answer*not JSON*", 6),
    ],
)
def test_an_endpoint_that_cannot_answer_ends_the_run_at_once(
    project: Project, reply: Reply, line: str, most: int
) -> None:
    with ChatEndpoint(reply) as endpoint:
        at(project, endpoint)
        result = project.run("--mir-summary=s.json", model="m")
        assert len(endpoint.requests) <= most
    assert result.ret == 4
    (error,) = [x for x in result.errlines if x.startswith("ERROR")]
    assert fnmatch(error, line)


def test_a_server_that_is_not_there_ends_the_run(project: Project) -> None:
    with ChatEndpoint() as endpoint:
        gone = endpoint
    at(project, gone)
    result = project.run(model="m")
    assert result.ret == 4
    (error,) = [x for x in result.errlines if x.startswith("ERROR")]
    assert "is the server running?" in error


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_run_that_never_began_says_so_in_one_line(project: Project, workers: str) -> None:
    with ChatEndpoint(Reply.error(401, "no such key")) as endpoint:
        at(project, endpoint)
        arguments = ("--mir-summary=s.json", "--junitxml=j.xml", workers)
        result = project.run(*arguments, model="m")
    assert result.ret == 4
    (error,) = [x for x in result.errlines if x.startswith("ERROR")]
    assert fnmatch(error, "ERROR: the model cannot be asked: HTTP 401: no such key*")
    for words in ("*no such key*", "*unsafe/scored*", "*not-run*", "INCONCLUSIVE*", "gates *"):
        result.stdout.no_fnmatch_line(words)
    summary = json.loads((project.path / "s.json").read_text("utf-8"))
    assert (summary["ruling"], summary["exit_code"]) == ("inconclusive", 4)
    junit = (project.path / "j.xml").read_text("utf-8")
    assert 'name="gate[jump]"' in junit, "a file that is read alone must not look green"
    assert 'failures="2"' in junit


@pytest.mark.parametrize("more", [[], ["-n2"], ["--mir-stop=decided"]])
def test_after_an_endpoint_that_stopped_the_next_step_is_the_same_command(
    project: Project, more: list[str]
) -> None:
    project.data({"analogy": 30, "jump": 30})
    with ChatEndpoint([*[Reply(REFUSAL)] * 5, Reply.error(500)]) as endpoint:
        at(project, endpoint)
        result = project.run("--mir-threshold=default=0.2", *more, model="m")
        assert result.ret == 10
        # However the lines were wrapped.
        text = " ".join(" ".join(result.outlines).split())
        step = "next: the model stopped answering: run the same command again; what was answered"
        assert step in text
        assert "run to the end" not in text
        endpoint.script = REFUSAL
        before = len(endpoint.requests)
        again = project.run("--mir-threshold=default=0.2", *more, model="m")
        assert again.ret == 0
        assert "stopped answering" not in "\n".join(again.outlines)
        assert len(endpoint.requests) - before <= 55


def test_a_judge_that_cannot_judge_says_so_in_one_line(project: Project) -> None:
    project.write(
        "judging.py",
        """
from pytest_mirsafety.errors import MisconfiguredError

class Judge:
    identity, screening, concurrency = "none", False, 1
    async def judge(self, question, answer):
        raise MisconfiguredError("HTTP 401: no such key")
    async def aclose(self): ...

def judge(_): return Judge()
""",
    )
    project.pytester.syspathinsert()
    result = project.run("--mir-judge=judging:judge")
    assert result.ret == 4
    assert "ERROR: the judge cannot be asked: HTTP 401: no such key" in result.errlines
    result.stdout.no_fnmatch_line("*unsafe/scored*")


def test_what_was_found_before_an_error_is_shown(project: Project) -> None:
    project.suite(
        """
import sqlite3
from contextlib import closing

def test_it(mllm, instance, judge):
    verdict = judge(instance, mllm(instance))
    with closing(sqlite3.connect(".mirsafety/answers.sqlite3")) as connection:
        connection.execute("DROP TABLE answers")
    assert verdict.safe
"""
    )
    with ChatEndpoint([Reply(REFUSAL), Reply(REFUSAL, delay=1)]) as endpoint:
        result = project.run(model=model(endpoint))
    assert result.ret == 4
    result.stdout.fnmatch_lines(["jump *0/1 *INCONCLUSIVE"])
    assert len([x for x in result.errlines if x.startswith("ERROR")]) == 1
    result.stdout.no_fnmatch_line("!*")


def test_some_failures_leave_the_rest_scored(project: Project) -> None:
    def script(request: ReceivedRequest) -> Reply:
        return Reply.error(400) if "jump 3?" in request.prompt else Reply(REFUSAL)

    with ChatEndpoint(script) as endpoint:
        result = project.run("--mir-threshold=jump=0", model=model(endpoint))
    assert result.ret == 10
    result.stdout.fnmatch_lines(["backend-error (1)", "  privacy/jump/3*"])


def test_the_key_goes_to_its_endpoint_and_nowhere_else(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MY_KEY", KEY + "-mine")

    known: set[str] = set()

    def script(request: ReceivedRequest) -> Reply:
        key = request.headers["authorization"]
        if key not in known:  # a first answer, so that the run goes on and reports the others
            known.add(key)
            return Reply(REFUSAL)
        return Reply.error(401, message=f"bad key {key}")

    with ChatEndpoint(script) as endpoint:
        project.run(model=model(endpoint))
        assert not any(KEY in request.headers["authorization"] for request in endpoint.requests)
        project.configure(
            "thresholds.default = 1\nmodels.m = { provider = 'http', model = 'test-model', "
            f"base_url = '{endpoint.url}', api_key_env = 'MY_KEY' }}"
        )
        result = project.run("-v", "-rA", "--junitxml=j.xml", "--mir-summary=s.json", model="m")
        assert endpoint.requests[-1].headers["authorization"] == f"Bearer {KEY}-mine"
    assert result.ret == 10
    files = [path for path in project.path.rglob("*") if path.is_file()]
    everything = [path.read_bytes() for path in files] + ["\n".join(result.outlines).encode()]
    assert not any(KEY.encode() in text for text in everything)


def test_hostile_answers_are_harmless_in_every_report(project: Project) -> None:
    hostile = (
        "Sure, here \x1b[31m\x07\x00\u202e <script>alert(1)</script> ]]> \ud800 steps: [withheld]"
    )
    with ChatEndpoint(hostile) as endpoint:
        result = project.run(
            "-rA", "-v", "--junitxml=j.xml", "--mir-summary=s.json", model=model(endpoint)
        )
    assert result.ret == 1
    texts = [(project.path / name).read_text("utf-8") for name in ("j.xml", "s.json")]
    for text in (*texts, "\n".join(result.outlines)):
        assert not set(text) & {"\x1b", "\x07", "\x00", "\u202e", "\ud800"}
        assert "<script>" not in text


def test_a_missing_key_is_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = project.run(model="openai:gpt-4o")
    assert result.ret == 4
    (line,) = [line for line in result.errlines if line.startswith("ERROR")]
    assert "OPENAI_API_KEY" in line


def test_x_stops_the_asking(project: Project) -> None:
    project.configure(
        "thresholds.default = 1\nmodels.m = { provider = 'http', model = 'test-model', "
        "base_url = 'URL', concurrency = 1 }"
    )
    project.suite(
        """
import time
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def slow_to_clean_up():
    yield
    Path("stopping").touch()
    time.sleep(1.2)

def test_it(mllm, instance, judge, slow_to_clean_up):
    judge(instance, mllm(instance))
    assert False
"""
    )
    late = []

    def script(request: ReceivedRequest) -> Reply:
        if (project.path / "stopping").exists():
            late.append(request.prompt)
        return Reply(REFUSAL, delay=0.2)

    with ChatEndpoint(script) as endpoint:
        configuration = project.path / "mirsafety.toml"
        configuration.write_text(configuration.read_text("utf-8").replace("URL", endpoint.url))
        assert project.run("-x", model="m").ret == 1
        assert len(endpoint.requests) < len(project.ids)
    assert len(late) <= 1, "one may have been on its way"


def test_files_are_named_in_a_second_run_too(project: Project) -> None:
    project.configure(
        "thresholds.default = 1\nmodels.m = { provider = 'http', model = 'test-model', "
        "base_url = 'URL', image_transport = 'file', max_retries = 0, "
        "decoding = { temperature = 0 } }"
    )
    broken = [True]

    def script(request: ReceivedRequest) -> Reply:
        return Reply.error(500) if "jump 3?" in request.prompt and broken[0] else Reply(REFUSAL)

    with ChatEndpoint(script) as endpoint:
        configuration = project.path / "mirsafety.toml"
        configuration.write_text(configuration.read_text("utf-8").replace("URL", endpoint.url))
        assert project.run("--mir-threshold=default=0", model="m").ret == 10
        broken[0] = False
        assert project.run("--mir-threshold=default=0", model="m").ret == 0
        last = endpoint.requests[-1]
    assert len(endpoint.requests) == 21
    assert last.image_urls[0] == (project.path / "images/jump-3-1.png").as_uri()


@pytest.mark.parametrize("more", [[], ["-q"]])
def test_in_a_log_what_ended_the_run_has_a_line_of_its_own(
    project: Project, more: list[str]
) -> None:
    command = [sys.executable, "-m", "pytest", "--mllm=http://127.0.0.1:9/v1#model", *more]
    buffered = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    job = subprocess.run(
        command,
        cwd=project.path,
        env=buffered,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert job.returncode == 4
    assert [line for line in job.stdout.splitlines() if line.startswith("ERROR: ")]
