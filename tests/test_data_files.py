"""Images that are files: nothing outside the dataset's folder is read, by no kind of path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dataset_builders import make_items, tiny_png, write, write_folder, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety import data
from pytest_mirsafety.data.files import FileImages, inside
from pytest_mirsafety.errors import BadInputError
from pytest_mirsafety.taxonomy import Category, Relation

parts = st.sampled_from(("..", ".", "", "a", "b.png", "\\", "c:", "~", " "))


@given(st.lists(parts | st.text(max_size=3), max_size=6), st.sampled_from("/\\"))
def test_a_path_that_is_let_in_stays_in(pieces: list[str], separator: str) -> None:
    text = separator.join(pieces)
    try:
        path = inside(text)
    except ValueError:
        return
    root = os.path.abspath("/data/root")  # noqa: PTH100 - lexical, as the rule is
    assert os.path.normpath(os.path.join(root, path)).startswith(root + os.sep)  # noqa: PTH118
    assert ".." not in path.replace("\\", "/").split("/")
    assert path == inside(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [("a.png", "a.png"), ("./x//a.png", "x/a.png"), ("x/./a.png", "x/a.png"), ("..a", "..a")],
)
def test_paths_are_normalized(text: str, path: str) -> None:
    assert inside(text) == path


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "root/real.png", tiny_png())
    (tmp_path / "root/link.png").symlink_to("real.png")
    images = FileImages(tmp_path / "root")
    assert images.read("link.png") == tiny_png()
    assert images.path("link.png") == (tmp_path / "root/real.png").resolve()


def test_a_linked_root_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "real/a.png", tiny_png())
    (tmp_path / "root").symlink_to("real")
    assert FileImages(tmp_path / "root").read("a.png") == tiny_png()


def link_out(root: Path) -> None:
    write(root.parent / "secret.png", tiny_png())
    (root / "x.png").symlink_to("../secret.png")


def folder_out(root: Path) -> None:
    write(root.parent / "rooted/x.png", tiny_png())
    (root / "sub").symlink_to("../rooted")


def link_to_itself(root: Path) -> None:
    (root / "x.png").symlink_to("x.png")


def pipe(root: Path) -> None:
    os.mkfifo(root / "x.png")


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda _: None, "x.png", "there is no such file"),
    "link out": (link_out, "x.png", "a symbolic link leaves"),
    "folder linked out": (folder_out, "sub/x.png", "a symbolic link leaves"),
    "link to itself": (link_to_itself, "x.png", "cannot be reached"),
    "folder": (lambda root: (root / "x.png").mkdir(), "x.png", "not a regular file"),
    "pipe": (pipe, "x.png", "not a regular file"),
    "file for a folder": (lambda root: write(root / "x", b""), "x/y.png", "cannot be reached"),
    "dangling link": (lambda root: (root / "x.png").symlink_to("none"), "x.png", "no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_of_the_dataset_is_a_bad_input(tmp_path: Path, name: str) -> None:
    prepare, locator, problem = BAD[name]
    root = tmp_path / "root"
    root.mkdir()
    prepare(root)
    images = FileImages(root)
    for method in (images.stamp, images.read, images.path):
        with pytest.raises(BadInputError, match=problem) as caught:
            method(locator)
        assert str(tmp_path) not in str(caught.value)


def test_the_stamp_tells_that_bytes_may_have_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.png", b"one")
    images = FileImages(tmp_path)
    first = images.stamp("x.png")
    assert images.stamp("x.png") == first
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert images.stamp("x.png") != first
    assert FileImages(tmp_path).stamp("x.png") == images.stamp("x.png")


@pytest.mark.parametrize(("kind", "layout"), [("folder", write_folder), ("jsonl", write_jsonl)])
def test_a_dataset_with_a_link_out_loads_and_does_not_read_it(
    tmp_path: Path, kind: str, layout: Callable[..., Path]
) -> None:
    layout(tmp_path / "root", make_items([Relation.JUMP], [Category.PRIVACY]))
    for path in (tmp_path / "root").rglob("*.png"):
        path.unlink()
        path.symlink_to(write(tmp_path / "secret.png", tiny_png()))
    [instance] = data.load(f"{kind}:root", base=tmp_path).instances
    for ref in instance.images:
        with pytest.raises(BadInputError, match="a symbolic link leaves"):
            ref.source.read(ref.locator)
