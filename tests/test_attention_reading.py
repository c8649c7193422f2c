"""The picture of attention as a page takes it from a run folder, which nobody vouches for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_mirsafety.attention.reading import picture
from pytest_mirsafety.entropies import PICTURE, SUMMARY

PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 9
WORDS = {"picture": {"file": "attention.png", "alternative": "Heatmap."}}


def write(folder: Path, summary: object, content: bytes = PNG) -> None:
    (folder / SUMMARY).write_text(json.dumps(summary), "utf-8")
    (folder / PICTURE).write_bytes(content)


def test_the_picture_and_its_words(tmp_path: Path) -> None:
    write(tmp_path, WORDS)
    assert picture(tmp_path) == (PNG, "Heatmap.")


@pytest.mark.parametrize("summary", [None, [], {}, {"picture": None}, {"picture": {"file": 1}}])
def test_without_words_there_is_none(tmp_path: Path, summary: object) -> None:
    write(tmp_path, summary)
    assert picture(tmp_path) is None


def test_another_file_is_none(tmp_path: Path) -> None:
    write(tmp_path, WORDS, b"<svg onload=alert(1)>")
    assert picture(tmp_path) is None


def test_no_files_are_none(tmp_path: Path) -> None:
    assert picture(tmp_path) is None
    (tmp_path / SUMMARY).write_text("{", "utf-8")
    (tmp_path / PICTURE).mkdir()
    assert picture(tmp_path) is None
