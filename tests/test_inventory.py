"""What a run ran on: told from metadata and files, and never waited for."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from projects import Project

from pytest_mirsafety import inventory, run_folder
from pytest_mirsafety.circumstances import Commit

ENVIRON = {"PATH": os.environ.get("PATH", "")}
IDENTITY = ["-c", "user.name=Ana", "-c", "user.email=ana@example.org"]
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "suite.py").write_text("", "utf-8")
    git(folder, "add", "suite.py")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@needs_git
def test_the_commit_and_whether_files_differ_from_it(checkout: Path) -> None:
    sha = git(checkout, "rev-parse", "HEAD")
    assert inventory.commit(checkout, ENVIRON) == Commit(sha, dirty=False)
    (checkout / "junit.xml").write_text("what a run leaves", "utf-8")
    assert inventory.commit(checkout, ENVIRON) == Commit(sha, dirty=False)
    (checkout / "suite.py").write_text("pass", "utf-8")
    below = checkout / "below"
    below.mkdir()
    assert inventory.commit(below, ENVIRON) == Commit(sha, dirty=True)


@needs_git
def test_a_hook_s_environment_does_not_name_another_repository(
    checkout: Path, tmp_path: Path
) -> None:
    of_a_hook = {**ENVIRON, "GIT_DIR": str(tmp_path / "none"), "GIT_INDEX_FILE": "none"}
    assert inventory.commit(checkout, of_a_hook) == inventory.commit(checkout, ENVIRON)


@needs_git
def test_without_a_commit_there_is_none(tmp_path: Path) -> None:
    outside = {**ENVIRON, "HOME": str(tmp_path)}
    assert inventory.commit(tmp_path, outside) is None
    git(tmp_path, "init", "-q")
    assert inventory.commit(tmp_path, outside) is None


def test_without_git_there_is_none(tmp_path: Path) -> None:
    assert inventory.commit(tmp_path, {}) is None
    assert inventory.commit(tmp_path, {"PATH": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exec sleep 600", None),
        ("exit 3", None),
        ("kill -9 $$", None),
        ('case "$*" in *status*) exec sleep 600;; esac; echo ab', Commit("ab", None)),
        ('case "$*" in *status*) exit 1;; esac; echo ab', Commit("ab", None)),
    ],
)
def test_a_git_that_hangs_or_fails_is_not_waited_for(
    tmp_path: Path, script: str, expected: Commit | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_PATIENCE", 0.3)
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(0o700)
    path = f"{tmp_path}{os.pathsep}{ENVIRON['PATH']}"
    assert inventory.commit(tmp_path, {"PATH": path}) == expected


def test_versions_are_told_and_nothing_is_imported() -> None:
    code = (
        "import sys; from pytest_mirsafety import inventory; before = set(sys.modules)\n"
        "found = inventory.environment(None, {'vllm'}); print(found.packages)\n"
        "known = {'pytest', 'openai', 'httpx', 'PIL', 'scipy', 'torch', 'transformers', 'vllm'}\n"
        "assert not known & (set(sys.modules) - before)"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True)
    packages = inventory.environment(None).packages
    assert packages["python"] == platform.python_version()
    assert packages["pytest"] == pytest.__version__
    assert packages["pydantic"] == metadata.version("pydantic")


def test_gpus_are_named_as_the_driver_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_GPUS", tmp_path)
    for bus, name in (("0000:41:00.0", "NVIDIA A100"), ("0000:01:00.0", "NVIDIA \x1bH100")):
        (tmp_path / bus).mkdir()
        text = f"Model: \t\t {name}\nIRQ:   \t\t 12\nGPU UUID: \t GPU-1\n"
        (tmp_path / bus / "information").write_text(text, "utf-8")
    (tmp_path / "0000:99:00.0" / "information").mkdir(parents=True)
    gpus = inventory.environment(None).host.gpus
    assert [gpu.isprintable() for gpu in gpus] == [True, True]
    assert gpus[1] == "NVIDIA A100"


def told(folder: Path) -> Mapping[str, object]:
    document: dict[str, object] = json.loads((folder / "run.json").read_text("utf-8"))
    return document


@needs_git
def test_a_run_tells_where_it_ran(project: Project) -> None:
    git(project.path, "init", "-q")
    git(project.path, "add", "test_suite.py")
    git(project.path, "commit", "-q", "-m", "the suite")
    project.run("--mir-run=run")
    run = run_folder.read(project.path / "run")
    (environment,) = run.circumstances.environments
    assert environment.commit == Commit(git(project.path, "rev-parse", "HEAD"), dirty=False)
    assert environment.host.system == platform.system()
    assert run.circumstances.model is not None
    assert str(run.circumstances.model) == run.provenance.model_identity
    assert run.circumstances.ended is not None
    assert run.circumstances.ended >= run.provenance.started
    document = told(project.path / "run")
    assert socket.gethostname() not in json.dumps(document["environments"])
    for_people = document["for_people"]
    assert isinstance(for_people, dict)
    assert for_people["seeds"] == {"sample": None, "decoding": None, "labels": "1"}
    assert for_people["started"].endswith("Z")


def test_a_merge_tells_where_each_shard_ran(project: Project) -> None:
    from pytest_mirsafety.cli import main

    for number in (1, 2):
        project.run(f"--mir-shard={number}/2", f"--mir-run=runs/{number}")
    shards = [str(project.path / f"runs/{number}") for number in (1, 2)]
    main(["merge", *shards, f"--run={project.path / 'merged'}"])
    one, two, merged = (
        run_folder.read(project.path / name).circumstances
        for name in ("runs/1", "runs/2", "merged")
    )
    assert one.environments == two.environments == merged.environments
    assert merged.model == one.model
    assert merged.ended == two.ended
