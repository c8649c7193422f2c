"""The models that are known by name, as the tables of models.toml, and how a user's override them.

Tables are merged before they are validated, so that a user need not repeat what is known, and an
error names the user's own file and key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Final

from .model_forms import loads_weights, needless_keys
from .printable import one_line

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@cache
def tables() -> Mapping[str, Mapping[str, Any]]:
    """The built-in models by name, in the order of the file; floats are Decimals."""
    text = resources.files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return tomllib.loads(text, parse_float=Decimal)


def with_builtin(models: object) -> object:
    """A user's `[models]` in which each table of a built-in name has what the built-in one adds.

    What is not a table is left to the validation that follows.

    Raises:
        ValueError: the dot of a built-in name was not quoted, so that it parts two tables.
    """
    if not isinstance(models, dict):
        return models
    for name, table in models.items():
        for key in table if isinstance(table, dict) else ():
            if (dotted := f"{name}.{key}") in tables():
                raise ValueError(f"write {header(dotted)}, with quotes: the name has a dot")
    return {name: _overridden(name, table) for name, table in models.items()}


def header(name: str) -> str:
    """The head of this model's table, as a configuration has it."""
    bare = _BARE.fullmatch(name) is not None
    return f"[models.{name}]" if bare else f'[models."{one_line(name)}"]'


def _overridden(name: str, own: object) -> object:
    builtin = tables().get(name)
    if builtin is None or not isinstance(own, dict):
        return own
    outdated = _outdated(builtin, own)
    return {key: value for key, value in builtin.items() if key not in outdated} | own


def _outdated(builtin: Mapping[str, Any], own: Mapping[str, Any]) -> frozenset[str]:
    """Keys of a built-in table that do not hold beside what a user has changed.

    - What has no meaning for the user's provider.
    - Another endpoint is never sent the key that was meant for the first one.
    - A commit is one of a repository, and only who loads the weights can promise it.
    """
    provider = own.get("provider", builtin["provider"])
    if not isinstance(provider, str):
        return frozenset()
    known = builtin.get("base_url")
    served = own.get("base_url") is not None
    moved = provider != builtin["provider"] or own.get("base_url", known) != known
    outdated = needless_keys(provider, served=served)
    if moved:
        outdated |= {"base_url", "api_key_env"}
    if own.get("model", builtin["model"]) != builtin["model"]:
        outdated |= {"about", "revision"}
    if not loads_weights(provider, served=served):
        outdated |= {"revision"}
    return outdated
