"""A checkpoint on this machine is known by what it is, and says what it needs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from pytest_mirsafety.checkpoints import identity
from pytest_mirsafety.checkpoints.identity import Checkpoint, folder_digest, identify, locate
from pytest_mirsafety.errors import ConfigurationError

COMMIT = "0123456789" * 4


def test_a_folder_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_WHOLE", 100)
    monkeypatch.setattr(identity, "_HEAD", 10)
    with pytest.raises(ConfigurationError, match="there is no checkpoint in"):
        folder_digest(tmp_path, "the model")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 101)
    seen = [folder_digest(tmp_path, "the model")]
    assert folder_digest(tmp_path, "the model") == seen[0]
    for name, content in (
        ("config.json", b"{ }"),
        ("model.safetensors", b"x" * 102),
        ("model.safetensors", b"y" + b"x" * 101),
        ("chat_template.jinja", b""),
    ):
        (tmp_path / name).write_bytes(content)
        seen.append(folder_digest(tmp_path, "the model"))
    assert len(set(seen)) == len(seen)


def test_a_checkpoint_is_known_by_its_commit_or_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    hub = identify(Checkpoint("org/model", revision=COMMIT), "vllm", "the model")
    assert str(hub) == f"vllm:org/model@{COMMIT}"
    here = identify(Checkpoint("../x", tmp_path), "transformers", "the model")
    digest = folder_digest(tmp_path, "the model")
    assert str(here) == f"transformers:{tmp_path.name}@files-{digest[:12]}"
    for revision in (None, "main", COMMIT[:-1]):
        with pytest.raises(ConfigurationError, match="the model org/model needs a pinned revision"):
            identify(Checkpoint("org/model", revision=revision), "transformers", "the model")


def test_a_path_is_a_folder_and_anything_else_must_be_a_name(tmp_path: Path) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    place = partial(locate, base=tmp_path, whose="the model")
    assert place("org/model", revision=None) == Checkpoint("org/model", tmp_path / "org/model")
    assert place("org/other", revision=COMMIT) == Checkpoint("org/other", None, COMMIT)
    assert place(f"org/other@{COMMIT}", revision=None) == Checkpoint("org/other", None, COMMIT)
    for path in ("./other", "../org/model2", "/org/other", "a/b/c", "~/x", "", "org/other@@"):
        with pytest.raises(ConfigurationError, match="the model"):
            identify(place(path, revision=None), "transformers", "the model")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        place(f"org/other@{COMMIT}", revision=COMMIT)
