"""Answers and verdicts in the run folder: every text comes back, and none is held in memory."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import COMPLIANCE, REFUSAL, UNCLEAR, Project
from recorded_runs import OUTCOMES, world

from pytest_mirsafety import run_folder, whole_files
from pytest_mirsafety.cli import main
from pytest_mirsafety.digests import digest, text_digest
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.printable import one_line
from pytest_mirsafety.records import Outcome, SafeMode, SentImages, Verdict, VerdictKind
from pytest_mirsafety.redaction import redacted_exchange
from pytest_mirsafety.results import RecordedRun, RunResult
from pytest_mirsafety.run_folder import lines
from pytest_mirsafety.taxonomy import Reason, Status

SHARED = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXTS = st.text(st.characters(), max_size=80)  # with half surrogate pairs, NUL and controls
VERDICTS = st.builds(
    Verdict,
    kind=st.just(VerdictKind.SAFE),
    judge=TEXTS,
    evidence=TEXTS,
    mode=st.none() | st.sampled_from(SafeMode),
    flags=st.lists(TEXTS, max_size=2).map(tuple),
    scores=st.lists(st.tuples(TEXTS, st.floats(allow_nan=False)), max_size=3).map(tuple),
    members=st.lists(
        st.builds(Verdict, kind=st.sampled_from(VerdictKind), judge=TEXTS), max_size=2
    ).map(tuple),
)
SAFE = Outcome(Status.SAFE, detail="refuses")


class Answers:
    """The answers of runs alone."""

    def __init__(self, runs: list[tuple[Path, RecordedRun]]) -> None:
        self._exchanges = run_folder.Exchanges(runs)

    def __call__(self, instance_id: str) -> str | None:
        found = self._exchanges(instance_id)
        return found.answer if found else None


def kept(folder: Path, result: RunResult, answers: Callable[[str], str | None]) -> RecordedRun:
    run_folder.claim(folder)
    run_folder.write(
        folder,
        result,
        tests_failed=False,
        exit_code=0,
        exchanges=lambda name: Exchange(answer=answers(name)),
    )
    return run_folder.read(folder)


def shown(verdict: Verdict) -> Verdict:
    """As it is kept: each text on one line."""
    return replace(
        verdict,
        judge=one_line(verdict.judge, 4000),
        evidence=one_line(verdict.evidence, 4000),
        flags=tuple(map(one_line, verdict.flags)),
        scores=tuple((one_line(name), value) for name, value in verdict.scores),
        members=tuple(map(shown, verdict.members)),
    )


@SHARED
@given(TEXTS, VERDICTS)
def test_every_answer_and_verdict_comes_back(tmp_path: Path, text: str, verdict: Verdict) -> None:
    made = world([SAFE, SAFE])
    result = replace(made, entries=(replace(made.entries[0], verdict=verdict), made.entries[1]))
    name = result.entries[0].instance_id
    run = kept(tmp_path / "run", result.whole(), {name: text}.get)
    assert run.outcomes[0].verdict == shown(verdict)
    assert run.outcomes[0].answer_sha256 == text_digest(text)
    assert (run.outcomes[1].verdict, run.outcomes[1].answer_sha256) == (None, None)
    answers = Answers([(tmp_path / "run", run)])
    assert (answers(name), answers(run.outcomes[1].instance_id)) == (text, None)
    assert (tmp_path / "run" / run_folder.RESULTS).read_bytes().isascii()


EXCHANGES = st.builds(
    Exchange,
    question=st.none() | TEXTS,
    prompt=st.none() | TEXTS,
    answer=st.none() | TEXTS,
    reasoning=st.none() | TEXTS,
    finish_reason=st.sampled_from([None, "stop", "length"]),
    input_tokens=st.none() | st.integers(0, 2**53),
    output_tokens=st.none() | st.integers(0, 2**53),
    latency=st.none() | st.floats(0, 1e6),
    created=st.none() | st.floats(0, 2**35),
    images=st.sampled_from([None, SentImages(("ab" * 32, "cd" * 32), "ef" * 32)]),
)


def through(folder: Path, exchange: Exchange) -> Exchange:
    """As it is read after it was written."""
    run_folder.claim(folder)
    result = world([SAFE]).whole()
    run_folder.write(folder, result, tests_failed=False, exit_code=0, exchanges=lambda _: exchange)
    run = run_folder.read(folder)
    found = run_folder.Exchanges([(folder, run)])(run.outcomes[0].instance_id)
    assert found is not None
    return found


@SHARED
@given(EXCHANGES)
def test_every_exchange_comes_back_with_its_digests(tmp_path: Path, exchange: Exchange) -> None:
    found = through(tmp_path / "run", exchange)
    assert found == replace(
        exchange,
        answer_sha256=None if exchange.answer is None else text_digest(exchange.answer),
        prompt_sha256=None if exchange.prompt is None else text_digest(exchange.prompt),
    )
    assert through(tmp_path / "again", found) == found
    bare = redacted_exchange(exchange)
    assert through(tmp_path / "bare", bare) == bare


def test_a_score_that_is_no_number_comes_back(tmp_path: Path) -> None:
    made = world([SAFE])
    verdict = Verdict(VerdictKind.SAFE, "j", scores=(("no", math.nan), ("yes", -math.inf)))
    result = replace(made, entries=(replace(made.entries[0], verdict=verdict),))
    found = kept(tmp_path / "run", result.whole(), lambda _: "No.").outcomes[0].verdict
    assert found is not None
    (name, number), other = found.scores
    assert (name, math.isnan(number), other) == ("no", True, ("yes", -math.inf))


def test_a_judge_s_words_are_bounded(tmp_path: Path) -> None:
    verdict = Verdict(VerdictKind.SAFE, "j" * 9000, "e" * 9000, flags=("f" * 900,) * 99)
    for _ in range(2000):
        verdict = Verdict(VerdictKind.SAFE, "panel", members=(verdict,) * 2)
    made = world([SAFE])
    result = replace(made, entries=(replace(made.entries[0], verdict=verdict),))
    found = kept(tmp_path / "run", result.whole(), lambda _: "No.").outcomes[0].verdict
    assert found is not None
    assert len(found.members) == 2
    assert (tmp_path / "run" / run_folder.RESULTS).stat().st_size < 2**20


@pytest.mark.parametrize("text", ["x" * 2**20, "\n" * 2**20, "\0" * 2**18, "\ud800" * 2**18])
def test_an_answer_of_a_megabyte_survives(tmp_path: Path, text: str) -> None:
    run = kept(tmp_path / "run", world([SAFE]).whole(), lambda _: text)
    answers = Answers([(tmp_path / "run", run)])
    assert answers(run.outcomes[0].instance_id) == text


def test_of_an_answer_that_is_too_long_the_digest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "ANSWER_LIMIT", 100)
    run = kept(tmp_path / "run", world([SAFE]).whole(), lambda _: "x" * 100)
    assert run.outcomes[0].answer_sha256 == text_digest("x" * 100)
    answers = Answers([(tmp_path / "run", run)])
    assert answers(run.outcomes[0].instance_id) is None
    assert kept(tmp_path / "run", world([SAFE]).whole(), lambda _: "x" * 98) != run


def test_no_more_than_a_few_answers_are_ever_in_memory(tmp_path: Path) -> None:
    """30 of a megabyte each: written, read, looked up and written again."""
    result, size = world([SAFE] * 30).whole(), 2**20
    tracemalloc.start()
    try:
        run = kept(tmp_path / "run", result, lambda name: name + "x" * size)
        answers = Answers([(tmp_path / "run", run)])
        again = kept(tmp_path / "again", result, answers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert again.outcomes == run.outcomes
    assert all(entry.answer_sha256 for entry in run.outcomes)
    assert peak < 20 * size


def forge(folder: Path, **fields: object) -> str:
    """Edit the first record, mend every digest, and give what the reader says."""
    path = folder / run_folder.RESULTS
    first, *rest = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([json.dumps({**json.loads(first), **fields}) + "\n", *rest]), "utf-8")
    with pytest.raises(DataError) as caught:
        run_folder.read(folder)
    assert str(caught.value).isprintable()
    return str(caught.value)


VERDICT: dict[str, object] = {
    "kind": "safe",
    "judge": "j",
    "evidence": "",
    "mode": None,
    "flags": [],
    "scores": [],
    "members": [],
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"answer": "another"}, "line 1: answer: is not the one whose digest it has"),
        ({"answer_sha256": "0" * 64}, "line 1: answer: is not the one whose digest it has"),
        ({"answer_sha256": None}, "line 1: answer: is not the one whose digest it has"),
        ({"answer": ["No."]}, "line 1: answer: is no text"),
        ({"answer": None, "answer_sha256": None, "verdict": VERDICT}, "no answer that it is on"),
        ({"verdict": {**VERDICT, "kind": "unsafe"}}, "unsafe of an instance that is safe"),
        ({"verdict": {**VERDICT, "kind": "fine"}}, "verdict.kind: "),
        ({"verdict": {**VERDICT, "kind": "undetermined", "mode": "clever-evasion"}}, "has a mode"),
        ({"verdict": {**VERDICT, "mode": "polite"}}, "verdict.mode: "),
        ({"verdict": {**VERDICT, "evidence": "e" * 4001}}, "verdict.evidence: "),
        ({"verdict": {**VERDICT, "scores": [["p", "much"]]}}, "verdict.scores.0"),
        ({"verdict": {**VERDICT, "scores": [["p", math.nan]]}}, "line 1: "),
        ({"verdict": {**VERDICT, "members": [VERDICT] * 51}}, "verdict.members: "),
        ({"verdict": {**VERDICT, "members": [{"kind": "safe"}]}}, "verdict.members.0.judge: "),
        ({"verdict": "safe"}, "verdict: "),
    ],
)
def test_an_answer_or_a_verdict_that_cannot_be_is_refused(
    tmp_path: Path, fields: dict[str, object], expected: str
) -> None:
    kept(tmp_path / "run", world(OUTCOMES).whole(), lambda _: "No.")
    assert expected in forge(tmp_path / "run", **fields)


def test_verdicts_in_verdicts_without_end_are_refused(tmp_path: Path) -> None:
    kept(tmp_path / "run", world([SAFE]).whole(), lambda _: "No.")
    path = tmp_path / "run" / run_folder.RESULTS
    deep = '{"members": [' * 5000
    path.write_text(path.read_text("utf-8").replace('"verdict": null', f'"verdict": {deep}'))
    with pytest.raises(DataError, match="line 1: is not JSON"):
        run_folder.read(tmp_path / "run")


def test_a_folder_of_an_older_version_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = kept(folder, world(OUTCOMES).whole(), lambda _: None)
    path = folder / run_folder.RESULTS
    new = ("verdict", "answer_sha256", "answer")
    records = map(json.loads, path.read_text("utf-8").splitlines())
    older = [{k: v for k, v in record.items() if k not in new} for record in records]
    sha256 = whole_files.replace(path, [json.dumps(record).encode() + b"\n" for record in older])
    document = json.loads((folder / run_folder.MANIFEST).read_text("utf-8"))
    document["results"]["sha256"] = sha256
    del document["digest"]
    text = json.dumps({**document, "digest": digest(document)})
    (folder / run_folder.MANIFEST).write_text(text, "utf-8")
    found = run_folder.read(folder)
    assert found.outcomes == run.outcomes


def test_an_answer_that_changes_after_it_was_read_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = kept(folder, world([SAFE]).whole(), lambda _: "No.")
    answers = Answers([(folder, run)])
    path = folder / run_folder.RESULTS
    path.write_text(path.read_text("utf-8").replace('"No."', '"Yes"'), "utf-8")
    with pytest.raises(DataError, match="is no longer the one that the run wrote"):
        answers(run.outcomes[0].instance_id)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        answers(run.outcomes[0].instance_id)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        run_folder.Exchanges([(folder, run)])


# As a user sees it

HOSTILE = "I'm sorry, I can't.\0\x1b[2J\r\n\u202e <script>alert(1)</script>"


def found(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Of each instance the answer that is kept, and the kind of its verdict."""
    run = run_folder.read(folder)
    answers = Answers([(folder, run)])
    return {
        entry.instance_id: (
            answers(entry.instance_id),
            None if entry.verdict is None else entry.verdict.kind,
        )
        for entry in run.outcomes
    }


ANSWERS = {
    "privacy/analogy/1": COMPLIANCE,
    "privacy/analogy/2": UNCLEAR,
    "privacy/analogy/3": "",
    "privacy/jump/1": HOSTILE,
    "privacy/jump/2": "I'm sorry. " + "x" * 2**20,
}


def expected(names: list[str]) -> dict[str, tuple[str | None, str | None]]:
    kinds = {"": None, COMPLIANCE: "unsafe", REFUSAL: "safe"}
    texts = {name: ANSWERS.get(name, REFUSAL) for name in names}
    return {name: (text, kinds.get(text, "undetermined")) for name, text in texts.items()}


def test_recorded_answers_are_kept(project: Project) -> None:
    project.answers(ANSWERS)
    project.run("--mir-run=run")
    assert found(project.path / "run") == expected(project.ids)


def test_what_no_test_has_asked_for_has_no_answer(project: Project) -> None:
    project.suite(
        "def test_it(mllm, instance, judge):\n"
        "    answer = mllm(instance)\n"
        "    if not instance.id.endswith('/4'): judge(instance, answer)\n"
    )
    project.run("--mir-run=run", "-k", "analogy")
    run = found(project.path / "run")
    assert run["privacy/analogy/4"] == (REFUSAL, None)
    assert run["privacy/analogy/5"] == (REFUSAL, "safe")
    assert {run[name] for name in project.ids if "jump" in name} == {(None, None)}
    outcomes = {one.instance_id: one.outcome for one in run_folder.read(Path("run")).outcomes}
    assert outcomes["privacy/analogy/4"].reason is Reason.NOT_RUN


def script(request: ReceivedRequest) -> str:
    *_, relation, number = request.prompt.rstrip("?").split()
    return ANSWERS.get(f"privacy/{relation}/{number}", REFUSAL)


def test_asked_and_stored_answers_are_kept(project: Project) -> None:
    with ChatEndpoint(script) as endpoint:
        for name in ("asked", "stored"):
            project.run(f"--mir-run={name}", model=f"{endpoint.url}#m")
            assert found(project.path / name) == expected(project.ids)
        project.run("--mir-run=spread", "-n2", model=f"{endpoint.url}#m")
        assert found(project.path / "spread") == expected(project.ids)
        assert len(endpoint.requests) == 20


def test_a_merge_keeps_the_answers_of_all_shards(project: Project) -> None:
    project.answers(ANSWERS)
    for number in (1, 2, 3):
        project.run(f"--mir-shard={number}/3", f"--mir-run=runs/{number}")
    shards = [str(project.path / f"runs/{number}") for number in (3, 1, 2)]
    main(["merge", *shards, f"--run={project.path / 'merged'}"])
    assert found(project.path / "merged") == expected(project.ids)
    project.run("--mir-run=whole")
    whole = run_folder.read(project.path / "whole")
    merged = run_folder.read(project.path / "merged")
    assert set(merged.outcomes) == set(whole.outcomes)


def test_the_demo_keeps_its_answers(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    main(["init"])
    pytester.runpytest_inprocess("--mllm=demo", "--mir-run=run", "suites")
    kinds = [kind for _, kind in found(pytester.path / "run").values()]
    assert (len(kinds), kinds.count("unsafe")) == (54, 4)
