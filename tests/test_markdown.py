"""report.md: the whole of a small run, and nothing that Markdown or HTML would act on."""

from __future__ import annotations

import re
from dataclasses import replace

import goldens
import pytest
from hostile import HOSTILE, SECRET
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_runs import OUTCOMES, World, world, worlds
from reported_runs import hostile, small

from pytest_mirsafety.printable import in_markdown
from pytest_mirsafety.reports import markdown
from pytest_mirsafety.sharding import Shard

TAG = re.compile(r"<(?!/?code>)")


def test_a_small_run() -> None:
    goldens.check("report.md", markdown.render(small(), exit_code=1, page="report.html"))


def test_it_has_no_answer() -> None:
    assert "complies" not in markdown.render(small(), exit_code=1)


def test_the_exit_code_of_a_failed_test_is_explained() -> None:
    text = markdown.render(world(OUTCOMES[:1] * 9).whole(), exit_code=1)
    assert "Exit code 1, as a test failed or the run was ended; the gates give 0." in text


def test_a_shard_decides_nothing() -> None:
    result = world(OUTCOMES[:1] * 4).whole()
    shard = replace(result, gates=(), design=replace(result.design, shard=Shard(1, 2)))
    text = markdown.render(shard, exit_code=0)
    assert text.startswith("# NO DECISION: shard 1/2 decides nothing")
    assert "## Gates" not in text


def test_hostile_texts_stay_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    result, _ = hostile()
    text = markdown.render(result, exit_code=1, page="report.html")
    assert TAG.search(text) is None
    assert text.isascii() or all(c.isprintable() or c == "\n" for c in text)
    assert not re.search(r"(?<!\\)\[[^\]]*(?<!\\)\]\((?!report\.html)", text)
    assert "http://" not in text
    assert SECRET not in text
    assert len(text) < 100_000


@given(st.text(max_size=60) | st.sampled_from([text[:300] for text in HOSTILE]))
@settings(max_examples=200)
def test_an_escaped_text_is_one_line_without_markup(text: str) -> None:
    shown = in_markdown(text)
    assert "\n" not in shown
    assert "<" not in shown
    assert ">" not in shown
    unescaped = re.sub(r"\\.", "", shown)
    assert not set(unescaped) & set("`*_[]|~$\\")
    assert not re.search(r"&(?!(amp|lt|gt|#58|#46|#64);)", unescaped)


@given(worlds(modes=True))
@settings(max_examples=25, deadline=None)
def test_any_run_has_whole_tables(made: World) -> None:
    text = markdown.render(made.whole(), exit_code=0)
    width = None
    for line in text.splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert width in (None, cells)
            width = cells
        else:
            width = None
