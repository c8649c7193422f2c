"""The published JSON Schemas: current, frozen where they must be, and true of what is written."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pydantic
import pytest
from projects import COMPLIANCE, UNCLEAR, Project
from published import SCHEMAS, complaints, validator

from pytest_mirsafety.run_folder import SCHEMA_VERSION
from pytest_mirsafety.run_folder.forms import LINES, MANIFESTS
from pytest_mirsafety.run_folder.schemas import File, schema, undescribed

FILES: list[File] = ["run", "results"]
FROZEN = {
    "run-1": "15e4aad5714dfd653b3c7a1cfb7a63bb64f7bb01c074e2372ea6f5a98e07b69f",
    "results-1": "8f9dbcfde8b3878622dda07cebe7a39c80c213fe212f3e782017920cc3786e95",
}
LOCK = Path(__file__).parents[1] / "uv.lock"


def locked(name: str) -> str:
    packages = tomllib.loads(LOCK.read_text("utf-8"))["package"]
    return next(str(one["version"]) for one in packages if one["name"] == name)


@pytest.mark.skipif(
    locked("pydantic") != pydantic.VERSION, reason="another pydantic words schemas otherwise"
)
@pytest.mark.parametrize("file", FILES)
def test_the_published_schema_is_that_of_the_form(file: File) -> None:
    published = (SCHEMAS / f"{file}-{SCHEMA_VERSION}.schema.json").read_text("utf-8")
    made = json.dumps(schema(file, SCHEMA_VERSION), indent=2) + "\n"
    assert published == made, "run: python fixtures/run_schemas.py"


@pytest.mark.parametrize("name", FROZEN)
def test_an_earlier_version_is_frozen(name: str) -> None:
    content = (SCHEMAS / f"{name}.schema.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == FROZEN[name]


@pytest.mark.parametrize("version", LINES)
@pytest.mark.parametrize("file", FILES)
def test_each_version_has_a_schema_that_explains_every_key(file: File, version: int) -> None:
    made = validator(file, version)
    made.check_schema(made.schema)
    published: Any = made.schema
    assert not list(undescribed(published))
    form = (MANIFESTS if file == "run" else LINES)[version]
    texts = {"question", "prompt", "answer", "reasoning"}
    assert set(published["properties"]) - texts == set(form.model_fields)


def test_what_a_run_writes_fits(project: Project) -> None:
    project.answers({"privacy/analogy/1": COMPLIANCE, "privacy/jump/1": UNCLEAR})
    project.run("--mir-run=run")  # `Project.run` asks for no complaints
    for name, keys, value in (
        ("run.json", ["provenance", "started"], "yesterday"),
        ("run.json", ["environments"], [{"packages": {}}]),
        ("run.json", ["more"], 1),
        ("results.jsonl", ["prompt"], 1),
        ("results.jsonl", ["answer_sha256"], "ab"),
        ("results.jsonl", ["arm"], "No Arm"),
    ):
        path = project.path / "run" / name
        text = path.read_text("utf-8")
        first, *rest = text.splitlines() if name == "results.jsonl" else [text]
        document = json.loads(first)
        where = document
        for key in keys[:-1]:
            where = where[key]
        where[keys[-1]] = value
        path.write_text("\n".join([json.dumps(document), *rest]), "utf-8")
        assert len(complaints(project.path / "run")) >= 1, keys
        path.write_text(text, "utf-8")
    assert not complaints(project.path / "run")
