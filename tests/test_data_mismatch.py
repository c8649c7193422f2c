"""A benchmark that is not the published or pinned one is told, whatever made it so."""

from __future__ import annotations

import json
import re
import shutil
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataset_builders import make_items, write_folder, write_jsonl, write_parquet
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety import data
from pytest_mirsafety.data.assembly import identity
from pytest_mirsafety.records import Dataset
from pytest_mirsafety.taxonomy import PUBLISHED_TOTAL, Category, Relation

Records = list[dict[str, Any]]


def published(root: Path) -> Path:
    """Upstream's layout with the published number of instances of each relation; no images."""
    for relation in Relation:
        for at, category in enumerate(Category):
            records = [
                {
                    "id": number,
                    "original_question": f"Question {number}",
                    "relationship_type": relation.label,
                    "revised_prompt": f"Prompt {relation} {number}",
                    "images": [f"images/{number}_{k}.png" for k in range(2)],
                }
                for number in range(at, relation.published_count, len(Category))
            ]
            path = root / category.label / f"{relation.label}_final.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(records), "utf-8")
    return root


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("published"))


def load(root: Path) -> Dataset:
    return data.load("folder:.", base=root)


def edit(path: Path, change: Callable[[Records], Records]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


ANALOGY = "Privacy/Analogy_final.json"


def drop_one(root: Path) -> None:
    edit(root / ANALOGY, lambda records: records[1:])


def drop_a_file(root: Path) -> None:
    (root / ANALOGY).unlink()


def drop_a_category(root: Path) -> None:
    shutil.rmtree(root / "Privacy")


def rename_a_category(root: Path) -> None:
    (root / "Privacy").rename(root / ".Privacy")


def add_one(root: Path) -> None:
    edit(root / ANALOGY, lambda records: [*records, records[0] | {"id": 9999}])


def move_to_another_relation(root: Path) -> None:
    [moved, *kept] = json.loads((root / ANALOGY).read_text("utf-8"))
    edit(root / ANALOGY, lambda _: kept)
    moved |= {"id": 9999, "relationship_type": "Relevance"}
    edit(root / "Privacy/Relevance_final.json", lambda records: [*records, moved])


CHEATS = [
    drop_one,
    drop_a_file,
    drop_a_category,
    rename_a_category,
    add_one,
    move_to_another_relation,
]


def test_the_published_counts_are_fine(benchmark: Path) -> None:
    dataset = load(benchmark)
    assert dataset.name == "mir-safetybench"
    assert len(dataset.instances) == PUBLISHED_TOTAL
    assert data.mismatch(dataset, None) is None


@pytest.mark.parametrize("cheat", CHEATS)
def test_another_count_is_told(
    benchmark: Path, tmp_path: Path, cheat: Callable[[Path], None]
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(benchmark, root)
    cheat(root)
    dataset = load(root)
    line = data.mismatch(dataset, None)
    assert line is not None
    assert line.isprintable()
    count = sum(i.relation is Relation.ANALOGY for i in dataset.instances)
    assert f"analogy {count}/318" in line
    assert f"sha256:{dataset.identity}" in line
    assert "--mir-allow-data-mismatch" in line
    assert "causality 280/280" not in line


@pytest.mark.parametrize("prefix", ["", "sha256:"])
def test_the_pin_decides_over_the_counts(tmp_path: Path, prefix: str) -> None:
    dataset = load(write_folder(tmp_path, make_items()))
    assert data.mismatch(dataset, None) is not None
    assert data.mismatch(dataset, prefix + dataset.identity) is None


def test_a_pin_finds_what_counts_do_not(benchmark: Path, tmp_path: Path) -> None:
    pinned = load(benchmark).identity
    shutil.copytree(benchmark, tmp_path / "copy")
    edit(
        tmp_path / "copy" / ANALOGY,
        lambda records: [r | {"revised_prompt": "Hello"} for r in records],
    )
    dataset = load(tmp_path / "copy")
    assert data.mismatch(dataset, None) is None
    line = data.mismatch(dataset, pinned)
    assert line is not None
    assert pinned in line
    assert dataset.identity in line


def repeat(root: Path, number: int) -> None:
    """Make `number` instances of one category ask the same, whatever their relation."""
    left = number
    for path in sorted((root / "Privacy").glob("*_final.json")):
        records = json.loads(path.read_text("utf-8"))
        for record in records[:left]:
            record |= {"revised_prompt": "What is shown?", "images": ["images/a.png"]}
        left -= min(left, len(records))
        path.write_text(json.dumps(records), "utf-8")
    assert not left


@pytest.mark.parametrize(("repeated", "told"), [(133, False), (134, True)])  # 5% are 133.8
def test_more_than_a_few_equal_requests_are_told(
    benchmark: Path, tmp_path: Path, repeated: int, told: bool
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(benchmark, root)
    repeat(root, repeated)
    dataset = load(root)
    line = data.mismatch(dataset, None)
    assert (line is not None) is told
    assert line is None or f"{repeated} of 2676 instances ask the same as another, such as" in line
    assert data.mismatch(dataset, dataset.identity) is None


@pytest.mark.parametrize("revision", [None, "main", "a" * 39, "A" * 40])
def test_counts_alone_pin_nothing(benchmark: Path, revision: str | None) -> None:
    dataset = replace(load(benchmark), revision=revision)
    line = data.unpinned(dataset, None)
    assert line is not None
    assert line.isprintable()
    assert line.endswith(f'not pinned; pin it: data_digest = "sha256:{dataset.identity}"')
    assert data.mismatch(dataset, line.split('"')[1]) is None


def test_a_digest_or_a_commit_pins(benchmark: Path) -> None:
    dataset = load(benchmark)
    assert data.unpinned(dataset, dataset.identity) is None
    assert data.unpinned(replace(dataset, revision="0123456789" * 4), None) is None


def test_a_suite_and_the_sample_need_no_pin(tmp_path: Path) -> None:
    write_jsonl(tmp_path, make_items())
    assert data.unpinned(data.load("jsonl:.", base=tmp_path), None) is None
    assert data.unpinned(data.load("sample", base=tmp_path), None) is None


@given(st.text(max_size=80))
def test_no_other_text_is_a_pin(pin: str) -> None:
    dataset = Dataset("jsonl:x", None, identity([]), ())
    line = data.mismatch(dataset, pin)
    assert line is not None
    assert line.isprintable()


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_upstream_layouts_are_the_named_benchmark(tmp_path: Path, kind: str) -> None:
    write = write_folder if kind == "folder" else write_parquet
    write(tmp_path / "x", make_items())
    dataset = data.load(f"{kind}:x", base=tmp_path)
    assert dataset.name == "mir-safetybench"
    assert "in all 54/2676" in str(data.mismatch(dataset, None))


def test_a_private_suite_has_no_published_counts(tmp_path: Path) -> None:
    write_jsonl(tmp_path, make_items())
    dataset = data.load("jsonl:.", base=tmp_path)
    assert dataset.name is None
    assert data.mismatch(dataset, None) is None
    assert data.mismatch(dataset, f"sha256:{'0' * 64}") is not None


def test_the_documented_loader_and_suite_work(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "reference" / "data.md"
    found = re.findall(r"```(\w+)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    blocks = dict(reversed(found))  # the first of each language
    module = types.ModuleType("team_suites")
    exec(blocks["python"], module.__dict__)  # noqa: S102 - our own page
    dataset = module.load(tmp_path)
    assert dataset.identity == identity(dataset.instances)
    (tmp_path / "instances.jsonl").write_text(blocks["json"], "utf-8")
    [instance] = data.load("jsonl:.", base=tmp_path).instances
    assert instance.id == "privacy/jump/1"
