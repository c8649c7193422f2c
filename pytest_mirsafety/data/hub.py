"""Fetches a dataset from the Hugging Face hub, pinned to a commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError, MissingExtraError
from ..printable import one_line
from ..records import Dataset
from . import parquet
from .fields import malformed

_FILES: Final = ("*.parquet", "README.md", "*.json")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def load(repository: str, source: str, name: str | None, cache: Path | None) -> Dataset:
    """The dataset of a repository `org/name@revision`, kept in the hub client's own cache.

    The commit is the dataset's revision. A revision that can move, or none, adds a warning.

    Raises:
        ConfigurationError: malformed repository.
        DataError: it cannot be had, or something in it is wrong.
        MissingExtraError: huggingface_hub is not installed.
    """
    repo_id, _, revision = repository.partition("@")
    if _REPOSITORY.fullmatch(repo_id) is None or set(revision) & set("<> "):
        problem = f"data: write hub:ORGANIZATION/NAME@REVISION, not '{one_line(source)}'"
        raise ConfigurationError(problem)
    folder = _download(repo_id, revision or None, source)
    warnings = () if _COMMIT.fullmatch(revision) else (_unpinned(repo_id, revision, folder.name),)
    origin = parquet.Origin(source, name, folder.name, warnings)
    return parquet.load(folder, origin, cache)


def _unpinned(repo_id: str, revision: str, commit: str) -> str:
    what = f"the revision '{revision}' can move" if revision else "no revision is given"
    return f'{what}; a gate needs a pinned one: data = "hub:{repo_id}@{commit}"'


def _download(repo_id: str, revision: str | None, source: str) -> Path:
    """The folder of the snapshot; its name is the commit."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise MissingExtraError(f"fetching from the hub ({source})", "hub") from None

    # HfHubHTTPError's bases are OSError and the HTTP client's own base error.
    failed: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError)
    try:
        found = snapshot_download(
            repo_id, repo_type="dataset", revision=revision, allow_patterns=list(_FILES)
        )
    except GatedRepoError:
        problem = "is gated: ask for access on its page, then log in (hf auth login, or HF_TOKEN)"
    except RepositoryNotFoundError:
        problem = "there is no such dataset, or it needs a login (hf auth login, or HF_TOKEN)"
    except RevisionNotFoundError:
        problem = f"has no revision '{revision}'"
    except LocalEntryNotFoundError:
        problem = "the hub cannot be reached, and the dataset is not in the local cache"
    except failed as error:
        problem = f"cannot be fetched: {type(error).__name__}: {error}"
    else:
        return Path(found)
    raise malformed(source, problem)
