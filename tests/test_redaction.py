"""`--mir-redact`: no text in anything that a run writes or prints, and every count stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_endpoint import RETRY_AT_ONCE, ChatEndpoint, ReceivedRequest, Reply
from hypothesis import given
from hypothesis import strategies as st
from projects import Project
from recorded_runs import World, world, worlds

from pytest_mirsafety import labels, run_folder
from pytest_mirsafety.cli import main
from pytest_mirsafety.digests import text_digest
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.records import Outcome, Verdict, VerdictKind
from pytest_mirsafety.redaction import NOTE, redacted_exchange, redacted_result
from pytest_mirsafety.results import DECIDED, NOT_SELECTED
from pytest_mirsafety.taxonomy import Reason, Status

MARK = "Xyzzy"
"""What every text of these tests has in it, and nothing else has."""

JUDGE = """
from pytest_mirsafety.records import Verdict, VerdictKind

class Quoting:
    identity, screening, concurrency, cacheable = "quoting-1", False, 1, False
    async def judge(self, question, answer):
        kind = VerdictKind.UNSAFE if "unsafe" in answer else VerdictKind.SAFE
        if "unclear" in answer:
            kind = VerdictKind.UNDETERMINED
        member = Verdict(kind, "member", f"it says {answer}", flags=(question,))
        return Verdict(kind, self.identity, f"{question}: {answer}", flags=(answer,),
                       scores=((answer, 1.0), ("p", 0.5)), members=(member,))
    async def aclose(self): pass

def make(settings=None):
    return Quoting()
"""
SUITE = """
import warnings

def test_answer_is_safe(mllm, instance, judge):
    print(instance.prompt)
    answer = mllm(instance)
    print(answer.text)
    verdict = judge(instance, answer)
    if instance.id.endswith("/4"):
        assert answer.text == "another"
    assert verdict.safe, answer.text
"""


def script(request: ReceivedRequest) -> Reply:
    number = request.prompt.rstrip("?").split()[-1]
    if number == "5":
        error = {"error": {"message": f"cannot take {request.prompt}"}}
        return Reply(status=400, content=json.dumps(error).encode(), headers=RETRY_AT_ONCE)
    word = {"1": "unsafe", "2": "unclear"}.get(number, "no")
    return Reply(f"{MARK} {word}", message={"reasoning_content": f"{MARK} thinks"})


@pytest.fixture
def marked(project: Project) -> Project:
    """A project whose every question, prompt and answer has the mark in it."""
    project.data({"analogy": 6, "jump": 6})
    path = project.path / "instances.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for record in records:
        record["question"] = f"{MARK} {record['question']}"
        record["prompt"] = f"{MARK} {record['prompt']}"
    path.write_text("\n".join(map(json.dumps, records)), "utf-8")
    project.write("quoting.py", JUDGE)
    project.pytester.syspathinsert()
    project.suite(SUITE)
    project.configure('thresholds.default = 0.2\njudge = "quoting:make"')
    return project


def written(project: Project, *names: str) -> str:
    """Everything in these files and folders, as text."""
    files: list[Path] = []
    for name in names:
        path = project.path / name
        files += [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    assert len(files) >= len(names)
    return "\n".join(file.read_bytes().decode("utf-8", "replace") for file in files)


REPORTS = ("--mir-run=run", "--mir-summary=summary.json", "--junitxml=junit.xml")
OUTPUTS = ("run", "summary.json", "junit.xml")


@pytest.fixture
def url() -> Iterator[str]:
    with ChatEndpoint(script) as endpoint:
        yield f"{endpoint.url}#m"


def ran(project: Project, url: str, *options: str) -> str:
    """Run with every report, as talkative as can be; gives what was printed."""
    result = project.run(*REPORTS, "-rA", "-v", *options, model=url)
    return result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("options", [(), ("--mir-strict",)])
def test_no_text_is_in_anything_that_is_written_or_printed(
    marked: Project, url: str, options: tuple[str, ...]
) -> None:
    whole = ran(marked, url, *options)
    before = run_folder.read(marked.path / "run")
    kept = {line["id"]: line for line in lines(marked.path / "run")}
    assert all(
        MARK in part for part in (whole, written(marked, "run"), written(marked, "junit.xml"))
    )
    printed = ran(marked, url, "--mir-redact", *options)
    assert MARK not in printed
    assert MARK not in written(marked, *OUTPUTS)
    assert "redacted: questions, prompts" in printed.replace("\n", " ")
    after = run_folder.read(marked.path / "run")
    assert (before.redacted, after.redacted) == (False, True)
    plain = {e.instance_id: (e.outcome.status, e.outcome.reason) for e in before.outcomes}
    assert {e.instance_id: (e.outcome.status, e.outcome.reason) for e in after.outcomes} == plain
    for line in lines(marked.path / "run"):
        other = kept[line["id"]]
        for key in ("answer_sha256", "prompt_sha256", "request_key", "seed", "images"):
            assert line.get(key) == other.get(key), "what joins the two"
        assert line["prompt_sha256"] == text_digest(other["prompt"])
    assert json.loads((marked.path / "summary.json").read_text("utf-8"))["redacted"] is True


def test_a_test_with_a_prompt_of_its_own_quotes_nothing(marked: Project, url: str) -> None:
    marked.suite(
        """
import pytest
from pytest_mirsafety.records import Instance
from pytest_mirsafety.taxonomy import Category, Relation

@pytest.fixture
def answer(mllm):
    own = Instance("own", Relation.ANALOGY, Category.PRIVACY, "Why?", "Own prompt", ())
    return mllm(own).text

def test_own(answer):
    print(answer)
    assert not answer

def test_other():
    assert not "other words"
"""
    )
    printed = ran(marked, url, "--mir-redact")
    assert MARK not in printed
    assert MARK not in written(marked, "junit.xml")
    assert "other words" in printed


LEAKY = """
import warnings
import pytest

def test_answer_is_safe(mllm, instance, judge, subtests):
    answer = mllm(instance).text
    judge(instance, mllm(instance))
    if instance.id.endswith("/1"):
        pytest.skip(answer)
    if instance.id.endswith("/2"):
        pytest.xfail(answer)
    with subtests.test(answer, got=answer):
        print(answer)
        assert not instance.id.endswith("/3")
    warnings.warn(answer)
"""


@pytest.mark.skipif(not hasattr(pytest, "SubtestReport"), reason="subtests: pytest 9")
@pytest.mark.parametrize("options", [(), ("-n2",)])
def test_no_reason_and_no_warning_of_a_test_quotes_anything(
    marked: Project, url: str, options: tuple[str, ...]
) -> None:
    marked.suite(LEAKY)
    printed = ran(marked, url, "--mir-redact", *options)
    assert MARK not in printed
    assert MARK not in written(marked, *OUTPUTS)
    for shown in ("SKIPPED", "XFAIL", "SUBFAILED", "UserWarning"):
        assert shown in printed


def lines(folder: Path) -> Iterator[dict[str, str]]:
    for line in (folder / "results.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)


def test_the_configuration_can_ask_for_it(marked: Project, url: str) -> None:
    marked.configure('thresholds.default = 0.2\njudge = "quoting:make"\nredact = true')
    assert MARK not in ran(marked, url, "-n2")
    assert MARK not in written(marked, *OUTPUTS)


def test_the_store_is_not_redacted(marked: Project, url: str) -> None:
    ran(marked, url, "--mir-redact")
    marked.run("--mir-run=again", model=url)
    assert MARK in written(marked, "again")


def test_a_merge_redacts_shards_that_are_not(
    marked: Project, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, more in ((1, ["--mir-redact"]), (2, [])):
        options = [f"--mir-shard={number}/2", f"--mir-run=runs/{number}", *more]
        marked.run(*options, f"--junitxml=runs/{number}/junit.xml", model=url)
    assert MARK not in written(marked, "runs/1")
    assert MARK in written(marked, "runs/2/junit.xml")
    capsys.readouterr()
    shards = [str(marked.path / f"runs/{number}") for number in (1, 2)]
    named = {"run": "run", "junitxml": "junit.xml", "summary": "summary.json"}
    outputs = [f"--{option}={marked.path / name}" for option, name in named.items()]
    for more in ([], ["--redact"]):  # one shard that is redacted is enough
        main(["merge", *shards, *outputs, *more])
        assert MARK not in capsys.readouterr().out
        assert MARK not in written(marked, *OUTPUTS)
        assert run_folder.read(marked.path / "run").redacted
    junit = written(marked, "junit.xml")
    assert junit.count('message="UNSAFE"') == 2
    assert "UNSCORED: backend-error" in junit


def test_a_redacted_run_is_calibrated_by_digests_and_not_reviewed(
    marked: Project, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(marked, url, "--mir-redact")
    run = run_folder.read(marked.path / "run")
    for entry in run.outcomes:
        if entry.verdict is not None:
            key, answer = entry.request_key or "", entry.answer_sha256 or ""
            about = run.digest, run.provenance.judge, entry.verdict.kind
            one = Label(entry.instance_id, key, answer, LabelKind.SAFE, "Ana", 1.0, *about)
            labels.append(marked.path / "labels.jsonl", one)
    capsys.readouterr()
    folder = str(marked.path / "run")
    assert main(["calibrate", folder, f"--labels={marked.path / 'labels.jsonl'}"]) in (0, 1, 10)
    assert "10 answers" in capsys.readouterr().out
    assert main(["review", folder]) == 4
    assert "was redacted, so there are no answers to read" in capsys.readouterr().err


def test_a_redacted_folder_that_holds_a_text_is_refused(tmp_path: Path) -> None:
    result = redacted_result(world([Outcome(Status.SAFE)]).whole())
    run_folder.claim(tmp_path)
    exchange = Exchange("q", "p", "a", "r")
    run_folder.write(
        tmp_path, result, tests_failed=False, exit_code=0, exchanges=lambda _: exchange
    )
    assert run_folder.read(tmp_path).redacted
    path = tmp_path / run_folder.RESULTS
    for key in ("question", "prompt", "answer", "reasoning"):
        digest = "" if key in ("question", "reasoning") else key
        text = path.read_text("utf-8").replace(f'"{key}": null', f'"{key}": "{digest[:1]}"')
        before = path.read_bytes()
        path.write_text(text, "utf-8")
        with pytest.raises(DataError, match="a redacted run holds no text"):
            run_folder.read(tmp_path)
        path.write_bytes(before)


TEXTS = st.text(max_size=20).map(lambda text: f"{MARK} {text}")
KINDS = {Status.SAFE: VerdictKind.SAFE, Status.UNSAFE: VerdictKind.UNSAFE}


@given(worlds(modes=True), TEXTS)
def test_counts_gates_and_ruling_stay(made: World, text: str) -> None:
    entries = tuple(
        replace(
            entry,
            outcome=entry.outcome
            if entry.outcome.detail in (NOT_SELECTED, DECIDED)
            else replace(entry.outcome, detail=text),
            verdict=Verdict(KINDS[entry.outcome.status], "j", text, flags=(text,))
            if entry.outcome.status in KINDS
            else None,
        )
        for entry in made.entries
    )
    result = replace(made, entries=entries).whole()
    redacted = redacted_result(result)
    assert redacted_result(redacted) == redacted
    assert (redacted.gates, redacted.relations, redacted.overall, redacted.ruling) == (
        result.gates,
        result.relations,
        result.overall,
        result.ruling,
    )
    assert MARK not in repr(redacted.outcomes)
    assert redacted.notes == (*result.notes, NOTE)
    again = replace(made, entries=redacted.outcomes).whole()
    assert (again.gates, again.relations) == (redacted.gates, redacted.relations)


@given(st.builds(Exchange, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS | st.sampled_from(["stop", "length"])))
def test_an_exchange_keeps_its_digests(exchange: Exchange) -> None:
    redacted = redacted_exchange(exchange)
    assert MARK not in repr(redacted)
    assert redacted.answer_sha256 == text_digest(exchange.answer or "")
    assert redacted.prompt_sha256 == text_digest(exchange.prompt or "")
    assert redacted_exchange(redacted) == redacted


def test_what_is_known_not_to_quote_stays() -> None:
    for detail in (NOT_SELECTED, DECIDED):
        outcome = Outcome(Status.UNSCORED, Reason.NOT_RUN, detail)
        assert redacted_result(world([outcome]).whole()).outcomes[0].outcome == outcome
