"""What this process runs on: versions, machine and commit, without importing or waiting."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from .circumstances import Commit, Environment, Host
from .printable import one_line

PACKAGES: Final = (
    "pytest",
    "pytest-xdist",
    "openai",
    "httpx",
    "httpx2",
    "pillow",
    "pydantic",
    "scipy",
)
ENGINES: Final = ("torch", "transformers", "vllm")
"""Told only where they are used."""

_PATIENCE: Final = 2.0
_GPUS: Final = Path("/proc/driver/nvidia/gpus")
_MOST_GPUS: Final = 64
_NAME: Final = 100


def environment(commit: Commit | None, used: Collection[str] = ()) -> Environment:
    """The environment of this process.

    Engines are those that were imported, and those `used` in a process of their own.
    """
    engines = (name for name in ENGINES if name in sys.modules or name in used)
    packages = {"python": platform.python_version()}
    packages |= {name: found for name in (*PACKAGES, *engines) if (found := _version(name))}
    host = Host(platform.system(), platform.machine(), os.cpu_count(), tuple(_gpus()))
    return Environment(packages, host, commit)


def commit(folder: Path, environ: Mapping[str, str]) -> Commit | None:
    """What is checked out in this folder; None without git, or outside of a checkout.

    Blocks for as long as git takes, a few seconds at most.
    """
    git = shutil.which("git", path=environ.get("PATH"))
    if git is None:
        return None
    # As the folder says, not as a hook's environment does; and git asks nobody and locks nothing.
    clean = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    clean |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = [git, "-c", "core.fsmonitor=false", "-C", str(folder)]
    head = _told([*command, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"], clean)
    if not (sha := (head or "").strip()):
        return None
    changed = _told([*command, "status", "--porcelain", "--untracked-files=no"], clean)
    return Commit(sha, None if changed is None else bool(changed))


def _told(command: list[str], environ: Mapping[str, str]) -> str | None:
    try:
        return subprocess.run(  # noqa: S603 - git, as this user would call it
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        found: str | None = metadata.version(name)  # None of one whose metadata is damaged
    except metadata.PackageNotFoundError:
        return None
    return None if found is None else one_line(found, _NAME)


def _gpus() -> Iterator[str]:
    """The names of NVIDIA's GPUs as its driver tells them, in the order of their bus."""
    for file in sorted(_GPUS.glob("*/information"))[:_MOST_GPUS]:
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                yield one_line(value.strip(), _NAME)
