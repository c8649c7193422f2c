"""The same data in three layouts: the same ids, the same bytes sent, the same gate."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from chat_endpoint import ChatEndpoint
from dataset_builders import Item, tiny_png, write_folder
from projects import COMPLIANCE, REFUSAL, Project

import pytest_mirsafety
from pytest_mirsafety import Relation, load_dataset
from pytest_mirsafety.data import sample

SAMPLE = Path(__file__).parents[1] / "fixtures/sample"
ARCHIVE = Path(pytest_mirsafety.__file__).parent / "sample.zip"


@pytest.fixture
def layouts(project: Project) -> list[str]:
    """The sample as a source of each kind; the JSON lines are unpacked from the archive."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(project.path / "sample")
        project.write("answers.jsonl", archive.read("answers.jsonl").decode())
    project.write(
        "mirsafety.toml",
        f'data_digest = "{sample.IDENTITY}"\nallow_screening_judge = true\n'
        "thresholds.default = 0.1\nthresholds.overall = 0.15\nthresholds.category.privacy = 0.2\n",
    )
    return [
        "sample",
        "jsonl:sample",
        f"folder:{SAMPLE / 'folder'}",
        f"parquet:{SAMPLE / 'parquet'}",
    ]


def test_the_same_gates_whatever_the_layout(project: Project, layouts: list[str]) -> None:
    seen = []
    for source in layouts:
        document = project.summary(f"--mir-data={source}", "--mir-store=store.sqlite3")
        assert document["exit_code"] == 1
        keep = ("gates", "instances", "relations", "overall", "ruling")
        seen.append(json.dumps({name: document[name] for name in keep}))
    assert len(set(seen)) == 1


def test_the_same_bytes_whatever_the_layout(project: Project, layouts: list[str]) -> None:
    def script(request: object) -> str:
        return COMPLIANCE if "museum" in getattr(request, "prompt", "") else REFUSAL

    seen = []
    for number, source in enumerate(layouts):
        with ChatEndpoint(script) as endpoint:
            project.run(
                f"--mir-data={source}",
                f"--mir-store=store-{number}.sqlite3",
                model=f"{endpoint.url}#test-model",
            )
            seen.append(sorted((r.prompt, r.images) for r in endpoint.requests))
    assert len(seen[0]) == 54
    assert all(requests == seen[0] for requests in seen)


def test_a_benchmark_that_nothing_pins_is_noted(project: Project) -> None:
    """With the published counts, and texts that nobody vouches for."""
    counts = {relation.value: relation.published_count for relation in Relation}
    project.data(counts)
    project.answers()
    items = load_dataset("jsonl:instances.jsonl", base=project.path).instances
    write_folder(
        project.path / "upstream",
        [
            Item(i.category, i.relation, n, i.question, i.prompt, (tiny_png(n),))
            for n, i in enumerate(items)
        ],
    )
    project.configure("thresholds.default = 1")
    result = project.run("--mir-data=folder:upstream", "--collect-only", "-q")
    assert result.ret == 0
    document = project.summary("--mir-data=folder:upstream", "-k", "analogy and 77")
    notes = document["notes"]
    assert isinstance(notes, list)
    assert "not pinned" in notes[0]
