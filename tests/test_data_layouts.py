"""The same data in every layout: equal ids, texts, order, identity and image digests."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dataset_builders import (
    Item,
    folder_record,
    jsonl_record,
    make_items,
    tiny_png,
    write,
    write_folder,
    write_jsonl,
    write_parquet,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_mirsafety import data
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.records import Dataset
from pytest_mirsafety.taxonomy import Category, Relation

LAYOUTS: dict[str, Callable[[Path, list[Item]], Path]] = {
    "folder": write_folder,
    "parquet": write_parquet,
    "jsonl": write_jsonl,
}

texts = st.text(min_size=1, max_size=30).filter(str.strip)
items = st.builds(
    Item,
    category=st.sampled_from(Category),
    relation=st.sampled_from(Relation),
    number=st.integers(0, 10**20),
    question=texts,
    prompt=texts,
    images=st.lists(st.integers(0, 9).map(tiny_png), min_size=1, max_size=5).map(tuple),
)
datasets = st.lists(items, min_size=1, max_size=8, unique_by=(lambda i: i.id, lambda i: i.prompt))


def load_all(root: Path, content: list[Item]) -> list[Dataset]:
    return [
        data.load(f"{kind}:{write_layout(root / kind, content)}", base=root, cache=root / "cache")
        for kind, write_layout in LAYOUTS.items()
    ]


@given(datasets, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_layouts_agree_on_everything(content: list[Item], shards: int, rows: int) -> None:
    reader = ImageReader(ImageLimits(), None)
    by_id = {item.id: item for item in content}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_parquet(root / "shards", content, shards=shards, row_group_size=rows)
        loaded = [*load_all(root, content), data.load("parquet:shards", base=root)]
        assert len({dataset.identity for dataset in loaded}) == 1
        for dataset in loaded:
            assert [i.id for i in dataset.instances] == [i.id for i in loaded[0].instances]
            for instance in dataset.instances:
                item = by_id[instance.id]
                assert (instance.question, instance.prompt) == (item.question, item.prompt)
                assert (instance.relation, instance.category) == (item.relation, item.category)
                digests = [reader.inspect(ref).sha256 for ref in instance.images]
                assert digests == [hashlib.sha256(image).hexdigest() for image in item.images]


@given(datasets, st.data())
@settings(max_examples=30, deadline=None)
def test_identity_is_of_the_content_not_of_its_order(
    content: list[Item], draw: st.DataObject
) -> None:
    shuffled = draw.draw(st.permutations(content))
    at = draw.draw(st.integers(0, len(content) - 1))
    item = content[at]
    changes = st.sampled_from(
        (
            replace(item, prompt=item.prompt + "."),
            replace(item, question=item.question + "."),
            replace(item, images=(*item.images, tiny_png())),
            replace(item, number=item.number + 10**21),
        )
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        changed = [*content[:at], draw.draw(changes), *content[at + 1 :]]
        one, same, other = (
            data.load(f"jsonl:{write_jsonl(root / str(n), part)}", base=root)
            for n, part in enumerate((content, shuffled, changed))
        )
    assert one.identity == same.identity != other.identity
    assert [i.id for i in one.instances] == [i.id for i in same.instances]


def test_identity_is_what_the_reference_says(tmp_path: Path) -> None:
    [item] = make_items([Relation.ANALOGY], [Category.PRIVACY])
    row = ["privacy/analogy/1", "analogy", "privacy", item.question, item.prompt, 2]
    text = json.dumps([row], separators=(",", ":"), ensure_ascii=True)
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert data.load(f"folder:{write_folder(tmp_path, [item])}", base=tmp_path).identity == expected


@pytest.mark.parametrize("kind", LAYOUTS)
def test_instances_come_in_a_natural_order(tmp_path: Path, kind: str) -> None:
    content = make_items([Relation.JUMP, Relation.CONTINUITY], [Category.PRIVACY], per_cell=11)
    LAYOUTS[kind](tmp_path / "x", content[::-1])
    ids = [i.id for i in data.load(f"{kind}:x", base=tmp_path).instances]
    numbers = range(1, 12)
    assert ids == [f"privacy/{r}/{n}" for r in ("continuity", "jump") for n in numbers]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_loading_reads_no_image(tmp_path: Path, kind: str) -> None:
    content = [replace(item, images=(b"no", b"image")) for item in make_items()]
    LAYOUTS[kind](tmp_path / "x", content)
    for image in (tmp_path / "x").rglob("*.png"):
        image.unlink()
    dataset = data.load(f"{kind}:x", base=tmp_path, cache=tmp_path / "cache")
    assert len(dataset.instances) == 54
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_source_may_be_absolute_or_relative_to_the_base(tmp_path: Path, kind: str) -> None:
    LAYOUTS[kind](tmp_path / "x", make_items(per_cell=1))
    one = data.load(f"{kind}:{tmp_path / 'x'}", base=Path("/nowhere"))
    assert one.identity == data.load(f"{kind}:x", base=tmp_path).identity
    assert one.source == f"{kind}:{tmp_path / 'x'}"


def test_jsonl_takes_both_spellings_and_plain_paths(tmp_path: Path) -> None:
    [item] = make_items([Relation.JUMP], [Category.HATE_SPEECH])
    record = jsonl_record(item, declare=False)
    record |= {"relation": "Temporal_Jump", "category": "Hate_Speech", "notes": {"any": 1}}
    text = "\ufeff" + json.dumps(record) + "\r\n\r\n"
    write(tmp_path / "mine.jsonl", text.encode())
    [instance] = data.load("jsonl:mine.jsonl", base=tmp_path).instances
    assert (instance.relation, instance.category) == (item.relation, item.category)
    assert [ref.sha256 for ref in instance.images] == [None, None]


def test_jsonl_keeps_the_ids_of_its_file(tmp_path: Path) -> None:
    [item] = make_items([Relation.JUMP], [Category.PRIVACY])
    ids = ["team-a/Case_2.b", "x", "a" * 200]
    lines = [json.dumps(jsonl_record(item) | {"id": i, "prompt": i}) for i in ids]
    write(tmp_path / "instances.jsonl", "\n".join(lines).encode())
    loaded = data.load("jsonl:.", base=tmp_path)
    assert {i.id for i in loaded.instances} == set(ids)


def test_jsonl_refuses_equal_requests_by_declared_digest(tmp_path: Path) -> None:
    one, other = make_items([Relation.JUMP], [Category.PRIVACY, Category.VIOLENCE])
    equal = [one, replace(other, prompt=one.prompt, images=one.images)]
    write_jsonl(tmp_path, equal)
    with pytest.raises(DataError, match="'violence/jump/1' and 'privacy/jump/1' ask the same"):
        data.load("jsonl:.", base=tmp_path)


def test_jsonl_refuses_equal_requests_by_file(tmp_path: Path) -> None:
    [item] = make_items([Relation.JUMP], [Category.PRIVACY])
    lines = [json.dumps(jsonl_record(item, declare=False) | {"id": i}) for i in ("a", "b")]
    lines[1] = lines[1].replace('"images/', '"./images//')
    write(tmp_path / "instances.jsonl", "\n".join(lines).encode())
    with pytest.raises(DataError, match="'a' and 'b' ask the same"):
        data.load("jsonl:.", base=tmp_path)


def test_the_order_of_images_makes_another_request(tmp_path: Path) -> None:
    [item] = make_items([Relation.JUMP], [Category.PRIVACY])
    record = jsonl_record(item)
    lines = [json.dumps(record | {"id": "a"})]
    lines.append(json.dumps(record | {"id": "b", "images": record["images"][::-1]}))
    write(tmp_path / "instances.jsonl", "\n".join(lines).encode())
    assert len(data.load("jsonl:.", base=tmp_path).instances) == 2


def test_a_folder_reports_equal_requests(tmp_path: Path) -> None:
    [item] = make_items([Relation.JUMP], [Category.PRIVACY])
    records = [folder_record(item), folder_record(item) | {"id": 2}]
    write(tmp_path / "Privacy/Temporal_Jump_final.json", json.dumps(records).encode())
    [warning] = data.load("folder:.", base=tmp_path).warnings
    assert "privacy/jump/2" in warning
    assert "privacy/jump/1" in warning


def test_a_leading_zero_is_no_other_id(tmp_path: Path) -> None:
    [item] = make_items([Relation.JUMP], [Category.PRIVACY])
    records = [folder_record(item) | {"id": "007"}]
    write(tmp_path / "Privacy/Temporal_Jump_final.json", json.dumps(records).encode())
    [instance] = data.load("folder:.", base=tmp_path).instances
    assert instance.id == "privacy/jump/7"


def test_hidden_files_and_other_folders_are_left_alone(tmp_path: Path) -> None:
    write_folder(tmp_path, make_items([Relation.JUMP]))
    write(tmp_path / ".git/._x_final.json", b"\0")
    write(tmp_path / "Privacy/._Analogy_final.json", b"\0")
    write(tmp_path / "assets/readme.txt", b"")
    assert len(data.load("folder:.", base=tmp_path).instances) == 6
