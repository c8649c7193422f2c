"""The store in trouble: what was answered stays, whoever dies, and each trouble is one line."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from chat_endpoint import ChatEndpoint, Reply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import REFUSAL, Project
from scripted import completion

from pytest_mirsafety.cli import main
from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.records import Completion, ModelIdentity, Request
from pytest_mirsafety.store import SQLiteStore

MODEL = ModelIdentity("scripted", "echo")
LIMIT = 60.0
"""Seconds after which a subprocess is taken for hung."""


def request(prompt: str = "p") -> Request:
    return Request(MODEL, prompt, ("0" * 64, "1" * 64), decoding={"temperature": 0.0})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".mirsafety" / "answers.sqlite3"


def raw(path: Path) -> closing[sqlite3.Connection]:
    """The file as SQLite sees it."""
    return closing(sqlite3.connect(path, isolation_level=None))


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
            store.put_all([(request(str(number)), completion("x" * 500))])
    overwrite(path, 100, b"\xff" * 3996)


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def without_header(path: Path) -> None:
    SQLiteStore.open(path).close()
    overwrite(path, 0, b"\xff" * 100)


def cut_off(path: Path) -> None:
    SQLiteStore.open(path).close()
    os.truncate(path, 5000)


def cut_to_nothing(path: Path) -> None:
    SQLiteStore.open(path).close()
    os.truncate(path, 0)


def an_empty_database(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("VACUUM")


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
        (without_header, "is not a store of answers"),
        (cut_off, "is damaged; move it away and run again"),
        (cut_to_nothing, "is empty, as no store is: it was cut off; restore a copy of it"),
        (an_empty_database, "is not a store of answers"),
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
        store.put_all([(request("before"), completion())])
        other.execute("BEGIN IMMEDIATE")
        for call in (
            lambda: store.put_all([(request(), completion())]),
            lambda: store.put_all([(request(), completion())]),
            lambda: store.begin_attempt("m", "all"),
            lambda: SQLiteStore.open(path, patience=0.01),
        ):
            with pytest.raises(StoreError, match="is locked by another process; wait for it"):
                call()
        assert store.get(request("before").key) == completion()  # readers do not wait
        other.execute("ROLLBACK")
        store.put_all([(request(), completion())])
        assert store.begin_attempt("m", "all").number == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "mirsafety-test", str(folder)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    path, filler = small_disk / "answers.sqlite3", small_disk / "filler"
    batches = [
        [(request(f"{turn} {number}"), completion(f"{turn}" * 500)) for number in range(20)]
        for turn in range(40)
    ]
    kept: list[Request] = []
    with SQLiteStore.open(path) as store:
        filler.write_bytes(b"x" * 300_000)  # more than is left: its space will hold the log

        def fill() -> None:
            for batch in batches:
                store.put_all(batch)
                kept.extend(asked for asked, _ in batch)

        for _ in range(2):  # it stays so
            with pytest.raises(StoreError, match=r"the disk is full; free some space") as raised:
                fill()
            assert "\n" not in str(raised.value)
        assert kept
        assert all(store.get(asked.key) for asked in kept)
        filler.unlink()
        store.put_all(batches[-1])  # the same run goes on
        kept.extend(asked for asked, _ in batches[-1])
    with SQLiteStore.open(path) as store:  # and so does the next one
        assert store.held([asked.key for asked in kept]) == {asked.key for asked in kept}
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_run_whose_disk_fills_up_is_one_line_and_goes_on_later(
    project: Project, small_disk: Path
) -> None:
    """From pytest to the exit code; what was kept is not asked again."""
    path, filler = small_disk / "answers.sqlite3", small_disk / "filler"
    long = Reply(REFUSAL, message={"reasoning_content": "x" * 3_000})
    SQLiteStore.open(path).close()
    with ChatEndpoint(long) as endpoint:
        options = {"model": f"{endpoint.url}#m"}
        filler.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096 - 100_000))
        full = project.run(f"--mir-store={path}", **options)
        assert full.ret == 4
        (line,) = [x for x in (*full.outlines, *full.errlines) if x.startswith("ERROR")]
        assert "the disk is full; free some space, then run again" in line
        with raw(path) as connection:
            rows = connection.execute("SELECT request FROM answers").fetchall()
        kept = {json.loads(row)["prompt"] for (row,) in rows}
        assert 0 < len(kept) < len(project.ids)
        filler.unlink()
        before = len(endpoint.requests)
        assert project.run(f"--mir-store={path}", **options).ret in (0, 10)
        again = {request.prompt for request in endpoint.requests[before:]}
    assert not again & kept


def test_a_disk_that_is_full_at_the_first_start(small_disk: Path) -> None:
    path, filler = small_disk / ".mirsafety" / "answers.sqlite3", small_disk / "filler"
    path.parent.mkdir()
    filler.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096 - 8192))
    with pytest.raises(StoreError, match="the disk is full"):
        SQLiteStore.open(path)
    assert not path.exists()
    filler.unlink()
    with SQLiteStore.open(path) as store:
        store.put_all([(request(), completion())])


QUOTA = """
import resource, sys
from pathlib import Path
from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.records import Completion, ModelIdentity, Request
from pytest_mirsafety.store import SQLiteStore
from scripted import completion
def answers(turn):
    return [
        (Request(ModelIdentity("scripted", "echo"), f"{turn} {number}", ()), completion("x" * 500))
        for number in range(20)
    ]
with SQLiteStore.open(Path(sys.argv[1])) as store:
    store.put_all(answers("before"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        for turn in range(100):
            store.put_all(answers(turn))
    except StoreError as error:
        print(error)
    assert store.get(answers("before")[0][0].key) == completion("x" * 500)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.put_all(answers("after"))
    assert store.get(answers("after")[0][0].key) == completion("x" * 500)
"""


def test_a_file_that_may_not_grow(path: Path) -> None:
    """As a quota does it; and here nothing need be mounted."""
    ended = run(QUOTA, str(path))
    assert ended.stderr == ""
    assert f"the store {path} cannot be read or written (input/output error); " in ended.stdout
    assert ended.stdout.count("\n") == 1
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_that_was_taken_away_is_not_made_anew(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        store.put_all([(request(), completion())])
        path.unlink()
        with pytest.raises(StoreError, match="cannot be opened"):
            store.get(request().key)
        assert not path.exists()


def said_of(store: SQLiteStore, asked: Request, answer: Completion) -> str | None:
    """What reading it says; damage of an index can also hide an answer, but never change one."""
    try:
        assert store.get(asked.key) in (answer, None)
    except StoreError as error:
        return str(error)
    return None


@given(
    page=st.integers(1, 10),
    garbage=st.integers(0, 2**32).map(lambda seed: random.Random(seed).randbytes(4096)),
    cut=st.booleans(),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_said_and_no_answer_is_another(
    path: Path, page: int, garbage: bytes, cut: bool
) -> None:
    """Damage in the pages: what can be read is right, all else is one line, and verify knows."""
    path.unlink(missing_ok=True)
    with SQLiteStore.open(path) as store:
        batch = [(request(str(number)), completion(f"{number} " * 300)) for number in range(40)]
        store.put_all(batch)
    assert main(["store", "verify", f"--store={path}"]) == 0
    if cut:
        os.truncate(path, 4096 * page + 96)
    else:
        overwrite(path, 4096 * page, garbage)
    try:
        with SQLiteStore.open(path) as store:
            said = [said_of(store, asked, answer) for asked, answer in batch]
    except StoreError as error:
        said = [str(error)]
    assert all(line is None or ("is damaged" in line and "\n" not in line) for line in said)
    assert any(said) or not cut
    assert main(["store", "verify", f"--store={path}"]) in (1, 4)


OPEN = """
import os, sys, tempfile
from pathlib import Path
from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.store import SQLiteStore
with tempfile.TemporaryDirectory() as folder:  # what is imported late, while it may
    SQLiteStore.open(Path(folder) / "answers.sqlite3").close()
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


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        python(*arguments),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=LIMIT,
        check=False,
    )


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
    ended = run(OPEN, str(open_path), str(nobody))
    folder.chmod(0o700)
    assert ended.stderr == ""
    assert f"the store {open_path} {message}" in ended.stdout


# Several at once, and sudden death


WRITE = """
import json, random, sys
from pathlib import Path
from pytest_mirsafety.records import Completion, ModelIdentity, Request
from pytest_mirsafety.store import SQLiteStore
from scripted import completion
name, batches, chance = sys.argv[2], int(sys.argv[3]), random.Random(sys.argv[2])
with SQLiteStore.open(Path(sys.argv[1])) as store:
    print(store.begin_attempt("m", "all").number, flush=True)
    for turn in range(batches):
        answers = []
        for number in range(chance.randrange(1, 9)):
            prompt = f"{chance.choice(['shared', name])} {turn} {number}"
            request = Request(ModelIdentity("scripted", "echo"), prompt, ())
            answers.append((request, completion(f"{name}: {prompt}")))
        store.put_image_digest(f"{name} {turn}", "0" * 64)
        held = store.put_all(answers)
        print(json.dumps({r.key: h.text for (r, _), h in zip(answers, held)}), flush=True)
"""


def acknowledged(lines: list[str]) -> dict[str, str]:
    """What a writer was told that the store holds, by key."""
    return {key: text for line in lines for key, text in json.loads(line).items()}


def assert_whole(path: Path, expected: dict[str, str]) -> None:
    """Each of these answers is there, and the file is in order."""
    with SQLiteStore.open(path) as store:
        found = {key: answer.text for key in expected if (answer := store.get(key))}
    assert found == expected
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_several_runs_write_at_once(path: Path) -> None:
    """They create the file at once, too. Whatever each is told, it is told the same."""
    names, batches = ("one", "two", "three"), 150
    writers = [
        subprocess.Popen(
            python(WRITE, str(path), name, str(batches)),
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        for name in names
    ]
    printed = [writer.communicate(timeout=LIMIT)[0].splitlines() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * len(names)
    assert sorted(int(lines[0]) for lines in printed) == [1, 2, 3]
    told = [acknowledged(lines[1:]) for lines in printed]
    for each in told:
        assert_whole(path, each)
    shared = [text for each in told for text in each.values() if ": shared " in text]
    assert len(set(shared)) < len(shared)  # some were asked by several
    with raw(path) as connection:
        count = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        digests = connection.execute("SELECT count(*) FROM images").fetchone()[0]
    assert count == len({key for each in told for key in each})
    assert digests == len(names) * batches


def test_a_process_killed_at_any_moment_loses_nothing_that_was_kept(path: Path) -> None:
    """Twelve rounds on one store: killed before it was opened, while it is made, and later."""
    chance = random.Random(20)
    known: dict[str, str] = {}
    for turn in range(12):
        with subprocess.Popen(
            python(WRITE, str(path), f"killed {turn}", "100000"),
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        ) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(chance.choice([0, 1, 1, 20, 100]))]
            time.sleep(chance.random() * (0.02 if said else 0.6))
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.read().splitlines(keepends=True)
            assert writer.wait(LIMIT) == -signal.SIGKILL
        told = acknowledged([line for line in said[1:] if line.endswith("\n")])
        assert all(known.get(key, text) == text for key, text in told.items())
        known |= told
        assert_whole(path, known)
    assert len(known) > 100


def test_the_log_that_a_killed_run_left_is_used(path: Path) -> None:
    with subprocess.Popen(
        python(WRITE, str(path), "killed", "100000"),
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(11)]
        writer.send_signal(signal.SIGKILL)
    assert Path(f"{path}-wal").stat().st_size
    assert_whole(path, acknowledged(said[1:]))
    assert not Path(f"{path}-wal").exists()
    assert (
        "answers"
        in run(
            "from pytest_mirsafety.cli import main; main()", "store", "list", f"--store={path}"
        ).stdout
    )


def test_digests_that_were_pending_are_all_that_a_kill_costs(path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from pytest_mirsafety.store import SQLiteStore
store = SQLiteStore.open(Path(sys.argv[1]))
store.put_image_digest("written", "0" * 64)
store.put_all(())
store.put_image_digest("pending", "0" * 64)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(script, str(path)).returncode == -signal.SIGKILL
    with SQLiteStore.open(path) as store:
        assert store.image_digests(["written", "pending"]) == {"written": "0" * 64}
