"""The store: what was answered stays, whoever dies, and every trouble is one clear line."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import completion

from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.records import Completion, ModelIdentity, Request
from pytest_mirsafety.store import AttemptHistory, SQLiteStore
from pytest_mirsafety.store import file as file_module

MODEL = ModelIdentity("scripted", "echo")
LIMIT = 60.0
"""Seconds after which a subprocess is taken for hung."""


def request(prompt: str = "p") -> Request:
    return Request(MODEL, prompt, ("0" * 64, "1" * 64), decoding={"temperature": 0.0})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".mirsafety" / "answers.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore.open(path) as opened:
        yield opened


def raw(path: Path) -> closing[sqlite3.Connection]:
    """The file as SQLite sees it."""
    return closing(sqlite3.connect(path, isolation_level=None))


# Answers

TEXT = st.text(st.characters(), max_size=40)  # surrogates, NUL and other controls included
COMPLETIONS = st.builds(
    Completion,
    text=TEXT,
    finish_reason=TEXT,
    reasoning=st.none() | TEXT,
    input_tokens=st.none() | st.integers(0, 2**70),
    output_tokens=st.none() | st.integers(0, 2**70),
    latency=st.floats(allow_nan=False),
    created=st.floats(allow_nan=False),
)


@given(kept=COMPLETIONS, later=COMPLETIONS, prompt=TEXT)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_first_answer_comes_back_as_it_was(
    store: SQLiteStore, kept: Completion, later: Completion, prompt: str
) -> None:
    asked = Request(MODEL, prompt, (str(time.monotonic_ns()),))
    assert store.get(asked.key) is None
    store.put(asked, kept)
    store.put(asked, later)
    assert store.get(asked.key) == kept


def test_answers_outlive_the_run(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        store.put(request(), completion())
        store.put_image_digest("stamp", "0" * 64)
    with SQLiteStore.open(path) as store:
        assert store.get(request().key) == completion()
        assert store.image_digest("stamp") == "0" * 64
        assert store.get(request("another").key) is None


def test_a_row_says_what_was_asked(store: SQLiteStore, path: Path) -> None:
    store.put(request(), completion())
    with raw(path) as connection:
        key, model, text, created = connection.execute(
            "SELECT key, model, request, created FROM answers"
        ).fetchone()
    assert (key, text) == (request().key, request().canonical)
    assert model == '"scripted:echo"'
    assert created == completion().created


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"text": "No."}',
        '{"text": null, "finish_reason": "stop"}',
        '{"text": "No.", "finish_reason": "stop", "latency": "fast"}',
        '{"text": "No.", "finish_reason": "stop", "verdict": "safe"}',
    ],
)
def test_a_damaged_answer_is_named_and_never_a_miss(
    store: SQLiteStore, path: Path, value: str
) -> None:
    store.put(request(), completion())
    with raw(path) as connection:
        connection.execute("UPDATE answers SET completion = ?", (value,))
    with pytest.raises(StoreError) as raised:
        store.get(request().key)
    assert request().key in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_image_digests(store: SQLiteStore) -> None:
    assert store.image_digest("a.png 1") is None
    store.put_image_digest("a.png 1", "0" * 64)
    store.put_image_digest("\ud800.png 1", "1" * 64)
    assert store.image_digest("a.png 1") == "0" * 64
    assert store.image_digest("\ud800.png 1") == "1" * 64
    assert store.image_digest("a.png 2") is None


# Attempts


def test_attempts_are_counted_by_identity(path: Path) -> None:
    found = []
    for identity, design in [
        ("m", "sample 50 seed a"),
        ("m", "all"),
        ("other", "all"),
        ("m", "sample 50 seed a"),
        ("m", "sample 50 seed b"),
        ("m", "all"),
    ]:
        with SQLiteStore.open(path) as store:
            found.append(store.begin_attempt(identity, design))
    assert [history.number for history in found] == [1, 2, 1, 3, 4, 5]
    assert found[5] == AttemptHistory("all", 4, ("sample 50 seed a", "all", "sample 50 seed b"))
    assert [history.other_designs for history in found] == [
        (),
        ("sample 50 seed a",),
        (),
        ("all",),
        ("sample 50 seed a", "all"),
        ("sample 50 seed a", "sample 50 seed b"),
    ]


def test_no_attempt_can_slip_in_between(store: SQLiteStore, path: Path) -> None:
    found = []

    def trace(statement: str) -> None:
        if statement.startswith("SELECT design"):
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
                try:
                    other.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    found.append(str(error))

    store._connection.set_trace_callback(trace)
    store.begin_attempt("m", "all")
    assert found == ["database is locked"]


# The file


def test_file_and_folder_are_private_and_out_of_version_control(
    store: SQLiteStore, path: Path
) -> None:
    store.put(request(), completion())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (path.parent / ".gitignore").read_text() == "*\n"
    files = [file for file in path.parent.iterdir() if file.name.startswith(path.name)]
    assert len(files) == 3  # with the log and its index
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_others_may_read_is_made_private(path: Path) -> None:
    SQLiteStore.open(path).close()
    path.chmod(0o644)
    SQLiteStore.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_somebody_elses_folder_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    SQLiteStore.open(tmp_path / "answers.sqlite3").close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {file.name for file in tmp_path.iterdir()} == {"answers.sqlite3"}


def test_our_folder_is_kept_out_of_version_control_whoever_made_it(path: Path) -> None:
    path.parent.mkdir()
    SQLiteStore.open(path).close()
    assert (path.parent / ".gitignore").read_text() == "*\n"
    (path.parent / ".gitignore").write_text("# mine\n")
    SQLiteStore.open(path).close()
    assert (path.parent / ".gitignore").read_text() == "# mine\n"


def test_nothing_is_left_open_and_closing_twice_is_fine(path: Path) -> None:
    store = SQLiteStore.open(path)
    store.close()
    store.close()
    assert {file.name for file in path.parent.iterdir()} == {path.name, ".gitignore"}
    with pytest.raises(StoreError, match="closed"):
        store.get("key")


def test_a_store_of_an_older_version_is_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SQLiteStore.open(path) as store:
        store.put(request(), completion())
    newer = (*file_module._MIGRATIONS, ("CREATE TABLE verdicts (pair TEXT PRIMARY KEY)",))
    monkeypatch.setattr(file_module, "_MIGRATIONS", newer)
    for _ in range(2):
        with SQLiteStore.open(path) as store:
            assert store.get(request().key) == completion()
    with raw(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (0,)


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SQLiteStore.open(path).close()
    half = ("CREATE TABLE verdicts (pair TEXT PRIMARY KEY)", "CREATE TABLE answers (key TEXT)")
    monkeypatch.setattr(file_module, "_MIGRATIONS", (*file_module._MIGRATIONS, half))
    with pytest.raises(StoreError):
        SQLiteStore.open(path)
    monkeypatch.undo()
    SQLiteStore.open(path).close()
    with raw(path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "verdicts" not in tables


# Troubles: each one real, each one line


def no_database(path: Path) -> None:
    path.write_text("these are my notes, and no database at all\n" * 50)


def another_programs(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def another_application(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("PRAGMA application_id = 252006674")


def from_the_future(path: Path) -> None:
    SQLiteStore.open(path).close()
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 999")


def torn(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        for number in range(50):
            store.put(request(str(number)), completion("x" * 500))
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_database, "is not a store of answers; move it away, or name another file"),
        (another_programs, "is not a store of answers"),
        (another_application, "is not a store of answers"),
        (from_the_future, "was written by a newer pytest-mirsafety (version 999 of its format"),
        (torn, "is damaged; move it away and run again"),
        (a_folder, "cannot be opened: it is a folder; name a file in it"),
    ],
)
def test_a_file_that_is_no_store_of_ours(
    path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError) as raised:
        SQLiteStore.open(path)
    assert f"the store {path} {message}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.parametrize("name", ["file/answers.sqlite3", "file/deeper/answers.sqlite3", "a\0b"])
def test_a_path_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened: ") as raised:
        SQLiteStore.open(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_store_that_is_locked_beyond_patience(path: Path) -> None:
    with SQLiteStore.open(path, patience=0.01) as store, raw(path) as other:
        store.put(request("before"), completion())
        other.execute("BEGIN IMMEDIATE")
        for call in (
            lambda: store.put(request(), completion()),
            lambda: store.put_all([(request(), completion())]),
            lambda: store.begin_attempt("m", "all"),
            lambda: SQLiteStore.open(path, patience=0.01),
        ):
            with pytest.raises(StoreError, match="is locked by another process; wait for it"):
                call()
        assert store.get(request("before").key) == completion()  # readers do not wait
        other.execute("ROLLBACK")
        store.put(request(), completion())
        assert store.begin_attempt("m", "all").number == 1


def test_a_disk_that_is_full(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        store.put(request("before"), completion())
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            store.put(request(), completion("x" * 100_000))
        assert store.get(request("before").key) == completion()
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.put(request("after"), completion())
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


OPEN = """
import os, sys
from pathlib import Path
from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.store import SQLiteStore
if os.geteuid() == 0:  # whom no permission stops
    os.setuid(int(sys.argv[2]))
try:
    SQLiteStore.open(Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def open_path() -> Iterator[Path]:
    """As `path`, where another user could get at it: pytest's own folder is closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / ".mirsafety" / "answers.sqlite3"


@pytest.mark.parametrize(
    ("mode_of_file", "mode_of_folder", "message"),
    [
        (0o400, 0o700, "cannot be written; check the permissions of file and folder"),
        (0o600, 0o500, "cannot be "),
        (None, 0o500, "cannot be opened: Permission denied"),
        (0o000, 0o700, "cannot be opened; check the permissions of file and folder"),
    ],
)
def test_a_store_that_may_not_be_written(
    open_path: Path, mode_of_file: int | None, mode_of_folder: int, message: str
) -> None:
    nobody, folder = 65534, open_path.parent
    if mode_of_file is None:
        folder.mkdir()
    else:
        SQLiteStore.open(open_path).close()
        open_path.chmod(mode_of_file)
    if os.geteuid() == 0:
        for file in (folder, *folder.iterdir()):
            os.chown(file, nobody, nobody)
    folder.chmod(mode_of_folder)
    ended = subprocess.run(
        python(OPEN, str(open_path), str(nobody)),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=LIMIT,
        check=False,
    )
    folder.chmod(0o700)
    assert ended.stderr == ""
    assert f"the store {open_path} {message}" in ended.stdout


# Several at once, and sudden death


def test_several_threads(store: SQLiteStore) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(50):
                asked = request(f"{number} {step % 25}")
                store.put(asked, completion(asked.prompt))
                kept = store.get(asked.key)
                assert kept is not None
                assert kept.text == asked.prompt
                store.put_image_digest(asked.prompt, "0" * 64)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert not failures


WRITE = """
import sys
from pathlib import Path
from pytest_mirsafety.records import ModelIdentity, Request
from pytest_mirsafety.store import SQLiteStore
from scripted import completion
name, count = sys.argv[2], int(sys.argv[3])
with SQLiteStore.open(Path(sys.argv[1])) as store:
    print(store.begin_attempt("m", "all").number, flush=True)
    for number in range(count):
        for prompt in (f"{name} {number}", f"shared {number}"):
            request = Request(ModelIdentity("scripted", "echo"), prompt, ())
            store.put(request, completion(f"{name}: {prompt}"))
            print(request.key, flush=True)
"""


def test_two_processes_write_at_once(path: Path) -> None:
    """They create the file at once, too."""
    names, count = ("one", "two", "three"), 60
    writers = [
        subprocess.Popen(
            python(WRITE, str(path), name, str(count)), stdout=subprocess.PIPE, env=environment()
        )
        for name in names
    ]
    printed = [writer.communicate(timeout=LIMIT)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * len(names)
    assert sorted(int(lines[0]) for lines in printed) == [1, 2, 3]
    with SQLiteStore.open(path) as store:
        for lines in printed:
            assert all(store.get(key.decode()) is not None for key in lines[1:])
    with raw(path) as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (4 * count,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("lines", [1, 2, 40, 150])
def test_a_killed_process_loses_nothing_that_was_answered(path: Path, lines: int) -> None:
    with subprocess.Popen(
        python(WRITE, str(path), "killed", "100000"), stdout=subprocess.PIPE, env=environment()
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().decode().strip() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read().decode().rpartition("\n")[0].split()
        assert writer.wait(LIMIT) == -signal.SIGKILL
    assert len(said) >= lines
    with SQLiteStore.open(path) as store:
        assert store.begin_attempt("m", "all").number == 2
        assert all(store.get(key) is not None for key in said[1:])
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
