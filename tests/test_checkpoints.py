"""A checkpoint is a folder or a name of the hub, and is known by what it is, not where."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mirsafety import checkpoints
from pytest_mirsafety.checkpoints import check_pinned, find_folder, folder_digest, identify
from pytest_mirsafety.errors import ConfigurationError


def test_a_folder_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_WHOLE", 100)
    monkeypatch.setattr(checkpoints, "_HEAD", 10)
    with pytest.raises(ConfigurationError, match="there is no checkpoint in"):
        folder_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 101)
    seen = [folder_digest(tmp_path)]
    assert folder_digest(tmp_path) == seen[0]
    for name, content in (
        ("config.json", b"{ }"),
        ("model.safetensors", b"x" * 102),
        ("model.safetensors", b"y" + b"x" * 101),
        ("chat_template.jinja", b""),
    ):
        (tmp_path / name).write_bytes(content)
        seen.append(folder_digest(tmp_path))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("name", ["llava-hf/llava-onevision-qwen2-7b-ov-hf", "gpt2", "a/b.c-d_e"])
def test_a_name_of_the_hub_is_no_folder(tmp_path: Path, name: str) -> None:
    assert find_folder(name, tmp_path) is None
    assert str(identify("vllm", name, None, "main")) == f"vllm:{name}@main"


@pytest.mark.parametrize(
    "name", ["/no/such", "./here", "a/b/c", "~nobody-here/x", "x" * 300 + "/", ""]
)
def test_what_can_only_be_a_folder_must_be_there(tmp_path: Path, name: str) -> None:
    if name == "":
        assert find_folder(name, tmp_path) == tmp_path
        return
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        find_folder(name, tmp_path)


def test_a_folder_is_found_from_where_its_name_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert find_folder("a/b", tmp_path) == folder
    assert find_folder(str(folder), Path("/")) == folder


def test_where_a_folder_lies_is_no_part_of_what_it_is(tmp_path: Path) -> None:
    names = []
    for place in ("one", "other"):
        folder = tmp_path / place / "tiny"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        names.append(str(identify("vllm", str(folder), folder, None)))
    assert names[0] == names[1]
    assert names[0].startswith("vllm:tiny@files-")


def test_a_judge_is_pinned() -> None:
    check_pinned("org/name", "0" * 40)
    for revision in (None, "main", "0" * 39):
        with pytest.raises(ConfigurationError, match="needs a pinned revision"):
            check_pinned("org/name", revision)
