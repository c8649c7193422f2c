"""The published JSON Schemas of the run folder, and what of a folder does not fit them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parents[1] / "docs" / "reference" / "schemas"


@cache
def validator(file: str, version: int) -> Draft202012Validator:
    text = (SCHEMAS / f"{file}-{version}.schema.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))


def complaints(folder: Path) -> list[str]:
    """What tools that know the schemas alone would say of a run that has ended; nothing is best."""
    manifest = json.loads((folder / "run.json").read_text("utf-8"))
    if not manifest["finished"]:
        return []
    version = manifest["schema_version"]
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    of_run = _errors("run", version, manifest)
    return of_run + [e for line in lines for e in _errors("results", version, json.loads(line))]


def _errors(file: str, version: int, document: Any) -> list[str]:
    found = validator(file, version).iter_errors(document)
    return [f"{file}: {error.json_path}: {error.message[:200]}" for error in found]
