"""Upkeep of a store: it says what is there, removes what was named, and writes nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import Project

from pytest_mirsafety.cli import main
from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.judges.rules import RulesJudge
from pytest_mirsafety.records import Completion, ModelIdentity, Request
from pytest_mirsafety.store import SQLiteStore
from pytest_mirsafety.store.upkeep import Selection, StoreUpkeep

ONE = ModelIdentity("http", "one")
TWO = ModelIdentity("http", "two\x1b[31m\u202e", "http://127.0.0.1:8000/v1")
HOSTILE = "Sure \x1b[31m\x07 \ud800 \u202e\r\nsteps: [withheld]"
DAY = 86400.0


def answer(model: ModelIdentity, prompt: str, age: float = 0.0) -> tuple[Request, Completion]:
    created = time.time() - age * DAY
    return Request(model, prompt, ("0" * 64,)), Completion(HOSTILE, "stop", created=created)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store where the command looks for it: three answers of one model, two of another."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".mirsafety" / "answers.sqlite3"
    with SQLiteStore.open(path) as store:
        store.put_all([answer(ONE, str(age), age) for age in (0, 10, 40)])
        store.put_all([answer(TWO, str(age), age) for age in (0, 50)])
        store.put_image_digest("stamp", "0" * 64)
        for design in ("sample 50 seed abc", "all", "all"):
            store.begin_attempt("a" * 64, design)
    return path


def raw(path: Path) -> closing[sqlite3.Connection]:
    """The file as SQLite sees it."""
    return closing(sqlite3.connect(path, isolation_level=None))


def counts(path: Path) -> dict[str, int]:
    with StoreUpkeep.open(path) as store:
        return {model.model: model.answers for model in store.models()}


# What is there


def test_the_list_fits_a_terminal_and_controls_none(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "list", "--store", ".mirsafety/answers.sqlite3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert lines[0].startswith(".mirsafety/answers.sqlite3: 5 answers, ")
    rows = {line.split()[-1]: line.split() for line in lines if line.strip()}
    assert rows["http:one"][0] == "3"
    days = [time.strftime("%Y-%m-%d", time.gmtime(time.time() - age * DAY)) for age in (40, 0)]
    assert rows["http:one"][1:3] == days
    day = days[1]
    assert lines[-3:] == [
        " attempts  first       last        of what",
        f"        3  {day}  {day}  data, model and judge {'a' * 12}: once",
        f"{'':35}sample 50 seed abc; twice all instances",
    ]


def test_attempts_are_told_in_words(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity, design = "b" * 64, "c" * 64
    with SQLiteStore.open(path) as store:
        store.describe({identity: f"http:m on hub:x/y {HOSTILE}", design: "a sample of 5 of 9"})
        for asked in ("all", design, "all", "all", "d" * 64):
            store.begin_attempt(identity, asked)
        store.describe({identity: "http:m on hub:x/y (9 instances), judge rules-1"})
    assert main(["store", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert [line[35:] for line in lines[-3:]] == [
        "http:m on hub:x/y (9 instances), judge",
        "rules-1: 3 times all instances; once a sample",
        "of 5 of 9; once a sample (dddddddddddd)",
    ]


def test_a_store_from_before_the_words_is_listed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with raw(path) as connection:
        connection.execute("DROP TABLE words")
        connection.execute("DROP TABLE verdicts")
        connection.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    assert main(["store", "list"]) == 0
    assert f"data, model and judge {'a' * 12}" in capsys.readouterr().out
    assert path.read_bytes() == before
    with SQLiteStore.open(path) as store:  # which brings it up to date
        assert store.begin_attempt("a" * 64, "all").number == 4
        store.describe({"a" * 64: "http:m on a, judge b"})
    assert main(["store", "list"]) == 0
    assert "http:m on a, judge b" in capsys.readouterr().out


def test_a_run_says_in_words_what_it_asked(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure('thresholds.default = 0.3\nsample_seed = "s1"')
    assert project.run().ret == 0
    project.run("--mir-sample=18")
    capsys.readouterr()
    monkeypatch.chdir(project.path)
    assert main(["store", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(".mirsafety/answers.sqlite3: 0 answers, ")
    shown = " ".join(line[35:] for line in lines[2:] if line)
    judge = RulesJudge().identity
    assert shown.endswith(
        f"on jsonl:instances.jsonl (20 instances), judge {judge}: once all instances; once a "
        "sample of 18 instances, seed s1"
    )


def test_a_long_and_hostile_name_is_whole_in_its_column(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "organisation/" + "x" * 150
    with SQLiteStore.open(path) as store:
        store.put_all([answer(ModelIdentity("http", name), "p")])
    assert main(["store", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[1:])
    assert name in "".join(line[45:] for line in lines)


@pytest.mark.parametrize("created", [0.0, -1.0, 1e300, -1e300, float("inf")])
def test_a_date_that_is_none(
    path: Path, created: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with raw(path) as connection:
        connection.execute("UPDATE answers SET created = ?", (created,))
    assert main(["store", "list"]) == 0
    assert "http:one" in capsys.readouterr().out


def test_the_store_is_the_configured_one(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.rename(path.parent.parent / "mine.sqlite3")
    Path("mirsafety.toml").write_text('store = "mine.sqlite3"', "utf-8")
    assert main(["store", "list"]) == 0
    assert "mine.sqlite3: 5 answers" in capsys.readouterr().out
    Path("mirsafety.toml").rename("other.toml")
    assert main(["store", "list"]) == 4
    assert main(["store", "list", "--config=other.toml"]) == 0


# Prune


@given(
    ages=st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 60)), max_size=30),
    model=st.none() | st.sampled_from([ONE, TWO]),
    limit=st.none() | st.integers(0, 60),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_selected_goes_and_the_rest_stays(
    path: Path,
    ages: list[tuple[ModelIdentity, int]],
    model: ModelIdentity | None,
    limit: int | None,
) -> None:
    now = time.time()
    with raw(path) as connection:
        connection.execute("DELETE FROM answers")
    with SQLiteStore.open(path) as store:
        kept = {
            number: store.put_all([answer(of, str(number), age)])[0]
            for number, (of, age) in enumerate(ages)
        }
    before = None if limit is None else now - (limit - 0.5) * DAY
    selection = Selection(None if model is None else (str(model),), before)
    with StoreUpkeep.open(path, alone=True) as upkeep:
        announced = sum(found.answers for found in upkeep.models(selection))
        upkeep.prune(selection)
    stays = {
        number
        for number, (of, age) in enumerate(ages)
        if (model is not None and of != model) or (limit is not None and age < limit)
    }
    with SQLiteStore.open(path) as store:
        for number, (of, _) in enumerate(ages):
            found = store.get(answer(of, str(number))[0].key)
            assert found == (kept[number] if number in stays else None)
        assert announced == len(ages) - len(stays)


def test_prune_says_what_it_removed_and_keeps_the_attempts(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SQLiteStore.open(path) as store:
        store.put_all([answer(ONE, f"more {n}", 35) for n in range(300)])
    size = path.stat().st_size
    arguments = ["store", "prune", "--model=http:one", "--older-than=30d"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "would remove 301 answers" in capsys.readouterr().out
    assert counts(path)["http:one"] == 303
    assert main(arguments) == 0
    assert "removed 301 answers; attempts stay counted" in capsys.readouterr().out
    assert counts(path) == {"http:one": 2, str(TWO): 2}
    assert path.stat().st_size < size
    assert main(arguments) == 0
    assert "removed 0 answers" in capsys.readouterr().out
    with SQLiteStore.open(path) as store:
        assert store.begin_attempt("a" * 64, "all").number == 4
        assert store.image_digest("stamp") == "0" * 64


def test_a_model_by_pattern_and_by_name(path: Path) -> None:
    named = ModelIdentity("http", "*")
    with SQLiteStore.open(path) as store:
        store.put_all([answer(named, "p")])
    assert main(["store", "prune", "--model=http:*"]) == 0  # a name before it is a pattern
    assert counts(path) == {"http:one": 3, str(TWO): 2}
    assert main(["store", "prune", "--model=http:t*"]) == 0
    assert counts(path) == {"http:one": 3}


def test_nothing_is_pruned_under_a_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SQLiteStore.open(path) as store:
        with pytest.raises(StoreError, match="is locked by another process; wait for it to end"):
            StoreUpkeep.open(path, alone=True, patience=0.01)
        assert main(["store", "prune", "--older-than=1h", "--dry-run"]) == 0
        assert main(["store", "list"]) == 0
        store.put_all([answer(ONE, "another")])
    assert counts(path)["http:one"] == 4


# Export


def test_export_gives_every_answer_on_a_line(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "export"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert all(line.isprintable() for line in printed.splitlines())
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["model"] for line in lines] == ["http:one"] * 3 + [str(TWO)] * 2
    for line in lines:
        assert set(line) == {"key", "model", "request", "completion"}
        canonical = json.dumps(line["request"], sort_keys=True, separators=(",", ":"))
        assert line["key"] == hashlib.sha256(canonical.encode()).hexdigest()
        assert line["completion"]["text"] == HOSTILE
    assert main(["store", "export", "--model=http:one", "out.jsonl"]) == 0
    assert Path("out.jsonl").read_text("ascii").splitlines() == printed.splitlines()[:3]
    assert stat.S_IMODE(Path("out.jsonl").stat().st_mode) == 0o600


def test_export_overwrites_nothing_and_leaves_nothing_half(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").write_text("mine", "utf-8")
    assert main(["store", "export", "mine"]) == 4
    assert Path("mine").read_text("utf-8") == "mine"
    assert main(["store", "export", "gone/out.jsonl"]) == 4
    with raw(path) as connection:
        connection.execute("UPDATE answers SET completion = '{}' WHERE rowid = 4")
    capsys.readouterr()
    assert main(["store", "export", "out.jsonl"]) == 4
    assert "is damaged: answer " in capsys.readouterr().err
    assert not Path("out.jsonl").exists()


def test_whoever_reads_may_read_less(path: Path) -> None:
    call = "from pytest_mirsafety.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-W", "error", "-c", call, "store", "export"]
    with SQLiteStore.open(path) as store:
        store.put_all([answer(ONE, f"{n}" * 200) for n in range(500)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        assert json.loads(export.stdout.readline())["model"] == "http:one"
        export.stdout.close()
        assert export.stderr.read() == b""


# Verify


def wrong_key(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE answers SET key = ? WHERE rowid = 1", ("f" * 64,))


def wrong_request(connection: sqlite3.Connection) -> None:
    request = '{"model":5}'
    key = hashlib.sha256(request.encode()).hexdigest()
    connection.execute("UPDATE answers SET key = ?, request = ? WHERE rowid = 1", (key, request))


def wrong_model(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE answers SET model = '\"http:three\"' WHERE rowid = 1")


def wrong_answer(connection: sqlite3.Connection) -> None:
    connection.execute(
        'UPDATE answers SET completion = \'{"text":null,"finish_reason":"stop"}\' WHERE rowid = 1'
    )


def no_text(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE answers SET completion = CAST(x'ff1b5b' AS TEXT) WHERE rowid = 1")


def no_digest(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE images SET sha256 = 'ABC', stamp = '\x1b[31m\n'")


def lost_table(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE images")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_key, f"answer {'f' * 64}: its key is not the SHA-256 of its request"),
        (wrong_request, "its request cannot be read"),
        (wrong_model, "its model is not that of its request"),
        (wrong_answer, "it cannot be read (a completion's text cannot be NoneType)"),
        (no_text, "is damaged"),
        (no_digest, "its digest is no SHA-256"),
        (lost_table, "failed: no such table: images"),
    ],
)
def test_verify_finds_what_is_wrong(
    path: Path,
    spoil: Callable[[sqlite3.Connection], None],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["store", "verify"]) == 0
    assert capsys.readouterr().out.endswith("5 answers, all in order\n")
    with raw(path) as connection:
        spoil(connection)
    assert main(["store", "verify"]) == 1
    found, verdict = capsys.readouterr().out.splitlines()
    assert message in found
    assert found.isprintable()
    assert "1 problem; move it away" in verdict


def test_verify_looks_at_the_pages(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SQLiteStore.open(path) as store:
        store.put_all([answer(ONE, str(n) * 300) for n in range(100)])
    content = bytearray(path.read_bytes())
    content[-3 * 4096 : -2 * 4096] = os.urandom(4096)
    path.write_bytes(content)
    assert main(["store", "verify"]) == 1
    assert "; move it away, or restore" in capsys.readouterr().out


def test_a_long_list_of_problems_ends(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SQLiteStore.open(path) as store:
        store.put_all([answer(ONE, f"more {n}") for n in range(200)])
    with raw(path) as connection:
        connection.execute("UPDATE answers SET completion = 'null'")
    assert main(["store", "verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 101
    assert "205 problems, the first 100 above" in lines[-1]


# What it must not touch

READING = (["list"], ["export"], ["verify"], ["prune", "--older-than=1h", "--dry-run"])
ALL = (*READING, ["prune", "--older-than=1h"])


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
def test_a_store_that_is_not_there_stays_away(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["store", *arguments]) == 4
    error = capsys.readouterr().err
    assert error.startswith("mirsafety: there is no store ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def newer(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 999")


def cut_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def another_file(path: Path) -> None:
    path.write_bytes(b"notes\n" * 1000)


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
@pytest.mark.parametrize("spoil", [newer, cut_to_nothing, another_file])
def test_what_is_no_store_of_this_version_is_not_written(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    arguments: list[str],
) -> None:
    spoil(path)
    before = path.read_bytes()
    assert main(["store", *arguments]) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_looking_leaves_nothing_behind(path: Path, arguments: list[str]) -> None:
    before = path.read_bytes()
    files = set(path.parent.iterdir())
    assert main(["store", *arguments]) == 0
    assert path.read_bytes() == before
    assert set(path.parent.iterdir()) == files


def test_what_a_killed_run_left_in_the_log_is_seen(path: Path) -> None:
    """A copy of file and log, made while a run had it open, is what a killed run leaves."""
    copy = path.parent.parent / "copy.sqlite3"
    with SQLiteStore.open(path) as store:
        store.put_all([answer(ONE, "only in the log")])
        for suffix in ("", "-wal"):
            Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    assert counts(copy) == {"http:one": 4, str(TWO): 2}
    assert not Path(f"{copy}-wal").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "say what to remove"),
        (["prune", "--older-than=5y"], "--older-than takes 12h, 30d or 8w, not '5y'"),
        (["prune", "--older-than=-1d"], "--older-than takes"),
        (["prune", "--model=http:three"], "has no answer of such a model"),
        (["export", "--model=http:three"], "has no answer of such a model"),
        ([], "ACTION"),
        (["list", "--store=a\0b"], "there is no store"),
    ],
)
def test_a_wrong_argument_is_one_line(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = main(["store", *arguments])
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    assert code == 4
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
