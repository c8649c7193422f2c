"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mirsafety import whole_files
from pytest_mirsafety.errors import ConfigurationError


def broken() -> Iterator[bytes]:
    yield b"the first half"
    raise ValueError("and no more")


def test_what_was_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    whole_files.write(path, [b"one ", b"two"])
    assert path.read_bytes() == b"one two"
    assert list(path.parent.iterdir()) == [path]
    assert whole_files.replace(path, [b"three"]) == hashlib.sha256(b"three").hexdigest()


def test_half_a_file_leaves_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"older")
    with pytest.raises(ValueError, match="no more"):
        whole_files.write(path, broken())
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        whole_files.clear(path)
        whole_files.write(path, [b"what is read"])
        assert os.read(reader, 100) == b"what is read"
    finally:
        os.close(reader)
    assert path.is_fifo()
    whole_files.write(path, [b"what is kept"], named=False)
    assert path.read_bytes() == b"what is kept"


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"older")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    whole_files.clear(link)
    whole_files.write(link, [b"newer"])
    assert link.is_symlink()
    assert (tmp_path / "file").read_bytes() == b"newer"


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for act in (whole_files.clear, lambda path: whole_files.write(path, [b""])):
        with pytest.raises(ConfigurationError, match=r"^[^\n]*: cannot be written: [^\n]*$"):
            act(tmp_path / "file" / "below")


def test_nothing_earlier_is_left_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"older")
    whole_files.clear(path)
    assert not path.exists()


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert whole_files.bounded(path, 3) == b"1234"
    with pytest.raises(OSError, match="no regular file"):
        whole_files.bounded(tmp_path, 3)
