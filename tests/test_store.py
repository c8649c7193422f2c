"""The store: what was answered is kept, as it was, in a file of ours."""

from __future__ import annotations

import errno
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from pytest_mirsafety.store.answers import PENDING, count_attempts
from pytest_mirsafety.store.upkeep import StoreUpkeep

MODEL = ModelIdentity("scripted", "echo")
LIMIT = 60.0
"""Seconds after which a thread is taken for hung."""


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


ANSWERS = st.lists(st.tuples(st.integers(0, 8), COMPLETIONS), max_size=6)
"""Numbers of requests, and an answer to each: some requests come twice."""


@given(batches=st.lists(ANSWERS, max_size=5))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_first_answer_counts_and_comes_back_as_it_was(
    store: SQLiteStore, path: Path, batches: list[list[tuple[int, Completion]]]
) -> None:
    run = time.monotonic_ns()  # one store for all examples, so requests of their own for each
    first: dict[str, Completion] = {}
    with SQLiteStore.open(path) as another:
        for turn, batch in enumerate(batches):
            answers = [(request(f"{run} {number}"), answer) for number, answer in batch]
            for asked, answer in answers:
                first.setdefault(asked.key, answer)
            given_back = (store, another)[turn % 2].put_all(answers)
            assert given_back == [first[asked.key] for asked, _ in answers]
    keys = [request(f"{run} {number}").key for number in range(9)]
    assert {key: store.get(key) for key in keys} == {key: first.get(key) for key in keys}
    assert store.held(keys) == set(first)


def test_an_answer_that_is_hostile_comes_back_as_it_was(store: SQLiteStore) -> None:
    text = "".join(map(chr, range(0x300))) + "\ud800\u2028\U0010ffff"
    asked = request(text)
    assert store.put_all([(asked, completion(text))]) == [completion(text)]
    assert store.get(asked.key) == completion(text)


def test_all_answers_of_a_batch_are_kept_or_none(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [(request(str(number)), completion("x" * 2000)) for number in range(50)]
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 10}")
    store.put_image_digest("stamp", "0" * 64)
    with pytest.raises(StoreError, match="the disk is full; free some space"):
        store.put_all(batch)
    assert store.held([asked.key for asked, _ in batch]) == set()
    assert store.image_digest("stamp") == "0" * 64
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.put_all(batch)
    assert len(store.held([asked.key for asked, _ in batch])) == 50


def test_many_keys_at_once(store: SQLiteStore) -> None:
    asked = [request(str(number)) for number in range(1300)]
    store.put_all([(r, completion()) for r in asked[::2]])
    assert store.held([r.key for r in asked]) == {r.key for r in asked[::2]}
    assert store.held([]) == set()
    assert store.put_all([]) == []


def test_answers_outlive_the_run(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        store.put_all([(request(), completion())])
        store.put_image_digest("stamp", "0" * 64)
    with SQLiteStore.open(path) as store:
        assert store.get(request().key) == completion()
        assert store.image_digest("stamp") == "0" * 64
        assert store.get(request("another").key) is None


def test_a_row_says_what_was_asked(store: SQLiteStore, path: Path) -> None:
    store.put_all([(request(), completion())])
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
    store.put_all([(request(), completion())])
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
    for _ in range(2):  # pending, then written
        assert store.image_digest("a.png 1") == "0" * 64
        assert store.image_digest("\ud800.png 1") == "1" * 64
        assert store.image_digest("a.png 2") is None
        assert store.image_digests(["\ud800.png 1", "a.png 2"]) == {"\ud800.png 1": "1" * 64}
        store.put_all(())
    store.put_image_digest("a.png 1", "2" * 64)
    assert store.image_digests(["a.png 1"]) == {"a.png 1": "2" * 64}


def written(path: Path) -> int:
    with raw(path) as connection:
        count: int = connection.execute("SELECT count(*) FROM images").fetchone()[0]
    return count


def test_image_digests_are_written_when_there_is_reason_to(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        store.put_image_digest("with the next answer", "0" * 64)
        assert written(path) == 0
        store.put_all([(request(), completion())])
        assert written(path) == 1
        for number in range(PENDING - 1):
            store.put_image_digest(str(number), "0" * 64)
        assert written(path) == 1
        store.put_image_digest("the last straw", "0" * 64)
        assert written(path) == PENDING + 1
        store.put_image_digest("at the end", "0" * 64)
    assert written(path) == PENDING + 2


def test_image_digests_of_several_threads_are_all_written(path: Path) -> None:
    def note(store: SQLiteStore, name: int) -> None:
        for number in range(400):
            store.put_image_digest(f"{name} {number}", "0" * 64)
            assert store.image_digest(f"{name} {number // 2}") == "0" * 64

    with SQLiteStore.open(path) as store, ThreadPoolExecutor(4) as threads:
        for ended in [threads.submit(note, store, name) for name in range(4)]:
            ended.result(LIMIT)
    assert written(path) == 1600


def test_several_threads(store: SQLiteStore) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(50):
                asked = request(f"{number} {step % 25}")
                assert store.put_all([(asked, completion(asked.prompt))])
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


def attempts(path: Path, *runs: tuple[str, str | None]) -> list[int]:
    with SQLiteStore.open(path) as store:
        return [store.begin_attempt("m", design, shard).number for design, shard in runs]


def of_all(*shards: str | None) -> list[tuple[str, str | None]]:
    return [("all", shard) for shard in shards]


@pytest.mark.parametrize(
    ("runs", "numbers"),
    [
        (of_all("3/4", "1/4", "4/4", "2/4"), [1, 1, 1, 1]),
        (of_all("1/2", "2/2", "2/2", "1/2", "1/2"), [1, 1, 2, 2, 3]),
        (of_all("1/2", "1/2", "2/2", "2/2"), [1, 2, 2, 3]),
        (of_all("1/2", None, "2/2", "1/2"), [1, 2, 3, 3]),
        (of_all("1/2", "2/3", "3/3", "2/2"), [1, 2, 2, 3]),
        (of_all("1/1", "1/1", None, None), [1, 2, 3, 4]),
        ([("all", "1/2"), ("a sample", "2/2"), ("all", "2/2")], [1, 2, 3]),
    ],
)
def test_the_shards_of_a_run_are_one_attempt_until_one_comes_again(
    path: Path, runs: list[tuple[str, str | None]], numbers: list[int]
) -> None:
    assert attempts(path, *runs) == numbers
    with StoreUpkeep.open(path) as upkeep:
        assert [found.number for found in upkeep.attempts()] == numbers[-1:]


def test_shards_of_a_sample_do_not_spend_it(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        for shard in ("1/2", "2/2"):
            assert store.begin_attempt("m", "a sample", shard).other_designs == ()
        assert store.begin_attempt("m", "another", "1/2").other_designs == ("a sample",)


splits = st.integers(1, 3).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))
DESIGNS = {"all": range(12), "half": range(0, 12, 2)}


@given(st.lists(st.tuples(st.sampled_from(sorted(DESIGNS)), st.none() | splits), max_size=20))
def test_no_chance_that_an_instance_got_is_hidden_by_shards(
    runs: list[tuple[str, tuple[int, int] | None]],
) -> None:
    chances: Counter[int] = Counter()
    begun: list[tuple[str, str | None]] = []
    for design, split in runs:
        index, count = split or (1, 1)
        chances.update(k for k in DESIGNS[design] if k % count == index - 1)
        begun.append((design, split and f"{index}/{count}"))
    assert max(chances.values(), default=0) <= count_attempts(begun) <= len(runs)


def test_runs_that_a_store_of_the_first_version_counted_are_attempts_each(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows any more which of them were shards."""
    with monkeypatch.context() as patch:
        patch.setattr(file_module, "_MIGRATIONS", file_module._MIGRATIONS[:1])
        SQLiteStore.open(path).close()
    with raw(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        add = "INSERT INTO attempts (identity, design, started) VALUES ('m', 'all', 1.0)"
        for _ in range(3):
            connection.execute(add)
    before = path.read_bytes()
    with StoreUpkeep.open(path) as upkeep:
        assert [found.number for found in upkeep.attempts()] == [3]
    assert path.read_bytes() == before
    assert attempts(path, *of_all("1/2", "2/2", "2/2")) == [4, 4, 5]
    assert attempts(path, *of_all("1/2")) == [5]


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
    store.put_all([(request(), completion())])
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
    store.get("key")
    store.close()
    store.close()
    assert {file.name for file in path.parent.iterdir()} == {path.name, ".gitignore"}
    for call in (
        lambda: store.get("key"),
        lambda: store.held(["key"]),
        lambda: store.put_all([(request(), completion())]),
        lambda: store.begin_attempt("m", "all"),
    ):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_closing_under_readers_leaves_nothing_open(path: Path) -> None:
    store = SQLiteStore.open(path)
    store.put_all([(request(), completion("x" * 1000))])
    begun = threading.Barrier(5)

    def read() -> None:
        begun.wait(LIMIT)
        try:
            while True:
                assert store.get(request().key) == completion("x" * 1000)
        except StoreError as error:
            assert "closed" in str(error)  # noqa: PT017 - after any number of good reads

    with ThreadPoolExecutor(4) as threads:
        reading = [threads.submit(read) for _ in range(4)]
        begun.wait(LIMIT)
        store.close()
        for ended in reading:
            ended.result(LIMIT)
    assert {file.name for file in path.parent.iterdir()} == {path.name, ".gitignore"}


def test_a_file_is_there_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no links on this file system")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    for _ in range(2):
        with SQLiteStore.open(path) as store:
            store.put_all([(request(), completion())])
            assert store.get(request().key) == completion()
    assert {file.name for file in path.parent.iterdir()} == {path.name, ".gitignore"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_store_of_an_older_version_is_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SQLiteStore.open(path) as store:
        store.put_all([(request(), completion())])
    newer = (*file_module._MIGRATIONS, ("CREATE TABLE later (pair TEXT PRIMARY KEY)",))
    monkeypatch.setattr(file_module, "_MIGRATIONS", newer)
    for _ in range(2):
        with SQLiteStore.open(path) as store:
            assert store.get(request().key) == completion()
    with raw(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SQLiteStore.open(path).close()
    half = ("CREATE TABLE later (pair TEXT PRIMARY KEY)", "CREATE TABLE answers (key TEXT)")
    monkeypatch.setattr(file_module, "_MIGRATIONS", (*file_module._MIGRATIONS, half))
    with pytest.raises(StoreError):
        SQLiteStore.open(path)
    monkeypatch.undo()
    SQLiteStore.open(path).close()
    with raw(path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "later" not in tables
