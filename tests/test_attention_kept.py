"""Attention is kept beside the answer that it is behind, whole, and goes when the answer goes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from attentions import attention, attentions
from hypothesis import given

from pytest_mirsafety.attention.watching import Watch, WatchedBackend
from pytest_mirsafety.cli import main
from pytest_mirsafety.digests import text_digest
from pytest_mirsafety.entropies import AnswerAttention
from pytest_mirsafety.errors import BackendError, StoreError
from pytest_mirsafety.records import Completion, LoadedImage, ModelIdentity, Request
from pytest_mirsafety.store import SQLiteStore
from pytest_mirsafety.store.attention import Attention
from pytest_mirsafety.store.upkeep import Selection, StoreUpkeep

ONE, TWO = ModelIdentity("transformers", "one"), ModelIdentity("transformers", "two")
ASKED = Request(ONE, "What?", ("0" * 64,))
ANSWER = Completion("Nothing.", "stop")
DIGEST = text_digest(ANSWER.text)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".mirsafety" / "answers.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore.open(path) as opened:
        yield opened


def raw(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


@given(measured=attentions())
def test_what_was_kept_is_what_was_measured(
    measured: AnswerAttention, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with SQLiteStore.open(tmp_path_factory.mktemp("store") / "s.sqlite3") as store:
        Attention(store).put(ASKED.key, DIGEST, measured)
        assert Attention(store).get(ASKED.key, DIGEST) == measured
        assert Attention(store).get(ASKED.key, text_digest("other words")) is None
        assert Attention(store).get("0" * 64, DIGEST) is None
    assert measured.entropies.shape == measured.masses.shape == measured.shape


def test_numbers_that_do_not_fill_their_shape_are_none() -> None:
    for layers, heads, tokens, keys, size in (
        *((0, 1, 1, (3,), 0), (1, 0, 1, (3,), 0), (1, 1, 0, (3,), 4), (1, 1, 1, (), 0)),
        *((1, 1, 1, (-1,), 4), (1, 1, 1, (3,), 8), (2, 3, 1, (3, 1), 44)),
    ):
        with pytest.raises(ValueError, match=r"attention is that of|do not fill the shape"):
            AnswerAttention(layers, heads, tokens, keys, bytes(size), bytes(size))


def test_a_store_without_attention_is_that_of_every_version(path: Path) -> None:
    with SQLiteStore.open(path) as store:
        version = store.rows("PRAGMA user_version", ())
        Attention(store)
        assert store.rows("PRAGMA user_version", ()) == version
    with StoreUpkeep.open(path) as upkeep:
        assert upkeep.attention.number(Selection()) == 0
    raw(path, "DROP TABLE attention")
    with StoreUpkeep.open(path) as upkeep:
        assert upkeep.attention.number(Selection()) == 0
        assert list(upkeep.attention.lines(Selection())) == list(upkeep.problems()) == []


def test_a_number_of_another_definition_is_none(store: SQLiteStore, path: Path) -> None:
    kept = Attention(store)
    kept.put(ASKED.key, DIGEST, attention(1))
    raw(path, "UPDATE attention SET definition = 0")
    assert kept.get(ASKED.key, DIGEST) is None
    kept.put(ASKED.key, DIGEST, attention(2))
    assert kept.get(ASKED.key, DIGEST) == attention(2)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("keys", "[40"), ("keys", "{}"), ("keys", "[1.5]"), ("keys", "[40, -1, 5]")),
        *(("entropy", b"123"), ("mass", "text"), ("mass", 10**15), ("tokens", 0), ("layers", 3)),
    ],
)
def test_damage_is_found_and_named(
    path: Path, column: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with SQLiteStore.open(path) as store:
        store.put_all([(ASKED, ANSWER)])
        Attention(store).put(ASKED.key, DIGEST, attention(1))
    raw(path, f"UPDATE attention SET {column} = ?", value)  # noqa: S608 - the test's own
    with SQLiteStore.open(path) as store, pytest.raises(StoreError, match="is damaged: the att"):
        Attention(store).get(ASKED.key, DIGEST)
    assert main(["store", "verify", "--store", str(path)]) == 1
    assert f"attention {ASKED.key}: it cannot be read" in capsys.readouterr().out
    assert main(["store", "export", "--store", str(path)]) == 4


def test_people_see_it_take_it_out_and_remove_it_with_its_answers(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Request(TWO, "What?", ())
    measured = attention(1, images=1)
    with SQLiteStore.open(path) as store:
        store.put_all([(ASKED, ANSWER), (other, ANSWER)])
        for request in (ASKED, other):
            Attention(store).put(request.key, DIGEST, measured)
        Attention(store).put("f" * 64, DIGEST, measured)  # a run died before its answer came

    def told(*command: str) -> str:
        assert main(["store", *command, "--store", str(path)]) == 0
        return capsys.readouterr().out

    assert "2 answers, the attention behind 2, " in told("list")
    assert "2 answers, the attention behind 2, all in order" in told("verify")
    lines = [json.loads(line) for line in told("export", "--model=transformers:one").splitlines()]
    assert [line.get("key") for line in lines] == [ASKED.key, None]
    assert lines[1]["attention_of"] == ASKED.key
    assert lines[1]["answer"] == DIGEST
    assert (lines[1]["keys"], lines[1]["tokens"]) == ([40, 5], 7)
    assert np.allclose(lines[1]["entropy"], measured.entropies)
    assert "would remove 1 answer, the attention" in told(
        "prune", "--model=transformers:one", "--dry-run"
    ).replace(" and", ",")
    told("prune", "--model=transformers:one")
    with SQLiteStore.open(path) as store:
        assert Attention(store).get(ASKED.key, DIGEST) is None
        assert Attention(store).get("f" * 64, DIGEST) is None
        assert Attention(store).get(other.key, DIGEST) == measured


def test_a_number_without_a_value_is_null(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = np.array([0.5, np.nan], dtype="<f4").tobytes()
    with SQLiteStore.open(path) as store:
        store.put_all([(ASKED, ANSWER)])
        Attention(store).put(ASKED.key, DIGEST, AnswerAttention(1, 2, 3, (4,), numbers, numbers))
    assert main(["store", "export", "--store", str(path)]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[1])
    assert line["entropy"] == line["mass"] == [[[0.5, None]]]


class Answering:
    """A backend that answers, and keeps what it saw of it, as one in this process does."""

    identity, system, greedy, cacheable, concurrency, needs_bytes = ONE, None, True, True, 3, True
    decoding = MappingProxyType({"temperature": 0})
    numerics = "cpu float32"

    def __init__(self, watch: Watch, seen: object) -> None:
        self._watch = watch
        self._seen = seen
        self.closed = False

    async def complete(self, request: Request, _: Sequence[LoadedImage], __: str) -> Completion:
        self._watch.keep(request.key, self._seen)
        return ANSWER

    async def aclose(self) -> None:
        self.closed = True


async def ask(backend: WatchedBackend) -> Completion:
    return await backend.complete(ASKED, (), "id")


def test_who_is_watched_is_asked_other_requests_and_is_the_same_otherwise() -> None:
    inner = Answering(Watch(), None)
    backend = WatchedBackend(inner, Watch())
    assert dict(backend.decoding) == {"temperature": 0, "attention": "eager"}
    names = ("identity", "system", "greedy", "cacheable", "concurrency", "needs_bytes", "numerics")
    assert [getattr(backend, name) for name in names] == [getattr(inner, name) for name in names]
    assert getattr(backend, "free", None) is None
    asyncio.run(backend.aclose())
    assert inner.closed


@pytest.mark.parametrize("seen", [attention(1), None, "something else"])
def test_what_was_seen_is_stored_before_the_answer_is_known(
    store: SQLiteStore, seen: object
) -> None:
    watch = Watch()
    backend = WatchedBackend(Answering(watch, seen), watch)
    with pytest.raises(BackendError, match="no store yet"):
        asyncio.run(ask(backend))
    watch.store = Attention(store)
    assert asyncio.run(ask(backend)) == ANSWER
    assert watch.store.get(ASKED.key, DIGEST) == (
        seen if isinstance(seen, AnswerAttention) else None
    )
    assert watch.take(ASKED.key) is None
