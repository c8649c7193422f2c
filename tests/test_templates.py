"""HarmBench's template is found by its digest, wherever it stands, and filled without surprises."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_models import TEMPLATE, stand_in

from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.judges import templates
from pytest_mirsafety.judges.templates import OFFICIAL, Template, find

DIGEST = hashlib.sha256(TEMPLATE.encode()).hexdigest()
OTHER = "Another with {behavior} and {generation}."
INDENTED = "\n".join(f"        {line}" for line in TEMPLATE.split("\n"))
COMMIT = "0123456789" * 4
CARDS = {
    "the text alone": TEMPLATE,
    "with a line's end": f"{TEMPLATE}\n",
    "with a byte order mark": f"\ufeff{TEMPLATE}",
    "with the line ends of Windows": TEMPLATE.replace("\n", "\r\n"),
    "a fenced block": f"# Card\n\n```\n{TEMPLATE}\n```\n\nmore\n",
    "the second block": f"```python\nx = '{OTHER}'\n```\n~~~text\n{TEMPLATE}\n~~~\n",
    "a literal in a block": f"# Card\n```python\nPROMPT = '''{TEMPLATE}'''\nprint(PROMPT)\n```\n",
    "a literal among others": f'A = """{OTHER}"""\nB = {{"prompt": """{TEMPLATE}"""}}\n',
    "a literal with escapes": f"PROMPT = {TEMPLATE!r}\n",
    "joined literals": "P = (" + "\n".join(map(repr, TEMPLATE.splitlines(keepends=True))) + ")",
    "a literal in what is no Python": f"```python\nimport ...\n>>> P = '''{TEMPLATE}'''\n```",
}


def write(folder: Path, text: str) -> str:
    (folder / "card.md").write_bytes(text.encode())
    return "card.md"


def problem(folder: Path, source: str, digest: str = DIGEST) -> str:
    with pytest.raises(ConfigurationError) as caught:
        find(source, folder, digest)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) <= 600
    return line


@pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))
def test_it_is_found_wherever_it_stands(tmp_path: Path, card: str) -> None:
    for digest in (DIGEST, f"sha256:{DIGEST}"):
        assert find(write(tmp_path, card), tmp_path, digest) == stand_in()


@pytest.mark.parametrize(
    "card",
    [
        INDENTED,
        TEMPLATE.replace("Served", "served"),
        f"x {TEMPLATE}",
        f"```\n{INDENTED}\n```",
        OTHER,
    ],
)
def test_another_text_is_refused_with_both_digests(tmp_path: Path, card: str) -> None:
    line = problem(tmp_path, write(tmp_path, card))
    assert f"has no text with the SHA-256 {DIGEST}" in line
    assert len(line.rpartition("found ")[2]) == 64
    assert line.rpartition("found ")[2] != DIGEST


def test_by_default_it_must_be_the_official_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=OFFICIAL):
        find(write(tmp_path, TEMPLATE), tmp_path)
    assert not stand_in().official


def test_a_text_without_places_is_told_by_its_own_digest(tmp_path: Path) -> None:
    whole = hashlib.sha256(b"nothing").hexdigest()
    assert f"and {whole} of all of it" in problem(tmp_path, write(tmp_path, "nothing"))


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"\xff\xfe", "is not UTF-8"), (b"x" * (2**20 + 1), "is longer than 1 MiB")],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "card.md").write_bytes(content)
    assert named in problem(tmp_path, "card.md")
    assert "No such file" in problem(tmp_path, "missing\u202e.md")


@pytest.mark.parametrize("content", ["(" * 10_000, "'''" * 999, "```\n" * 999, "\0", "{behavior}"])
def test_hostile_cards_are_one_line(tmp_path: Path, content: str) -> None:
    assert "SHA-256" in problem(tmp_path, write(tmp_path, content))


@pytest.mark.parametrize(
    "source", ["hub:x", "hub:org/name", "hub:org/name@main", "hub:a/b@" + "f" * 39]
)
def test_a_card_needs_a_pinned_commit(tmp_path: Path, source: str) -> None:
    assert "COMMIT with a commit of 40 digits" in problem(tmp_path, source)


def test_a_card_of_the_hub_is_the_one_at_that_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models--org--name"
    readme = folder / "snapshots" / COMMIT / "README.md"
    readme.parent.mkdir(parents=True)
    readme.write_text(CARDS["a literal in a block"], "utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find(f"hub:org/name@{COMMIT}", tmp_path, DIGEST) == stand_in()
    assert "cannot be fetched" in problem(tmp_path, f"hub:org/other@{COMMIT}")


TEXTS = st.text() | st.lists(
    st.sampled_from(["{behavior}", "{generation}", "{0}", "{", "}", "%s", "\\1", "\\g<1>", "x"])
).map("".join)


@given(TEXTS, TEXTS)
def test_what_is_put_in_is_put_in_as_it_is_and_once(behavior: str, generation: str) -> None:
    start, _, rest = TEMPLATE.partition("{behavior}")
    middle, _, end = rest.partition("{generation}")
    filled = stand_in().fill(behavior, generation)
    assert filled == f"{start}{behavior}{middle}{generation}{end}"


def test_a_template_without_both_places_is_refused(tmp_path: Path) -> None:
    text = "{behavior} {generation}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert find(write(tmp_path, text), tmp_path, digest).text == text
    with pytest.raises(ConfigurationError, match="needs both"):
        templates._checked("card.md", "{behavior} alone")
    assert Template("{behavior}{behavior}").fill("x", "y") == "xx"
