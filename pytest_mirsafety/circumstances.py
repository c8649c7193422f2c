"""What a run ran on, and when it ended: nothing that decides, all that explains a difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .records import ModelIdentity


@dataclass(frozen=True, slots=True)
class Commit:
    """What of the project was checked out: the commit, and whether tracked files differed from it.

    `dirty` is None where git did not tell in time.
    """

    sha: str
    dirty: bool | None


@dataclass(frozen=True, slots=True)
class Host:
    """The machine: kind of system and processor, number of CPUs, names of the GPUs; not its own."""

    system: str
    machine: str
    cpus: int | None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a run ran: versions by the package's name (`python` among them), machine, commit.

    `commit` is None outside of a git checkout.
    """

    packages: Mapping[str, str]
    host: Host
    commit: Commit | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The rest of what is told of a run; empty of one that a version kept which told none.

    `ended` is in seconds since the epoch. `model` is the model's identity in its parts. Shards may
    have run in several environments.
    """

    ended: float | None = None
    model: ModelIdentity | None = None
    environments: tuple[Environment, ...] = ()
