"""The bundled sample: the same in its three layouts, pinned, and read straight from its archive."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dataset_builders import make_items, write, write_jsonl

from pytest_mirsafety import data
from pytest_mirsafety.data import sample
from pytest_mirsafety.errors import BadInputError, DataError
from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.records import Dataset, ImageRef
from pytest_mirsafety.taxonomy import Category, Relation

LAYOUTS = Path(__file__).parent.parent / "fixtures" / "sample"


def load(cache: Path | None = None) -> Dataset:
    return data.load("sample", base=Path("/nowhere"), cache=cache)


def images(dataset: Dataset) -> list[ImageRef]:
    return [ref for instance in dataset.instances for ref in instance.images]


def digests(dataset: Dataset) -> dict[str, list[str]]:
    reader = ImageReader(ImageLimits(), None)
    return {i.id: [reader.inspect(ref).sha256 for ref in i.images] for i in dataset.instances}


def test_one_instance_for_each_relation_and_category() -> None:
    instances = load().instances
    cells = Counter((i.relation, i.category) for i in instances)
    assert cells == Counter((r, c) for r in Relation for c in Category)
    assert {len(i.images) for i in instances} <= {2, 3, 4}


def test_the_sample_is_pinned() -> None:
    dataset = load()
    assert dataset.name == "sample"
    assert dataset.warnings == ()
    assert dataset.identity == sample.IDENTITY
    assert data.mismatch(dataset, None) is None
    assert data.mismatch(dataset, f"sha256:{sample.IDENTITY}") is None


def test_every_image_has_the_digest_that_is_declared(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    declared = {i.id: [ref.sha256 for ref in i.images] for i in dataset.instances}
    assert digests(dataset) == declared


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_the_layouts_of_the_sample_are_the_same_data(tmp_path: Path, kind: str) -> None:
    own = load(tmp_path)
    other = data.load(f"{kind}:{LAYOUTS / kind}", base=Path("/nowhere"), cache=tmp_path)
    assert [i.id for i in other.instances] == [i.id for i in own.instances]
    assert other.identity == own.identity
    assert digests(other) == digests(own)
    assert data.mismatch(other, sample.IDENTITY) is None
    assert data.mismatch(other, None) is not None


def test_loading_extracts_nothing(tmp_path: Path) -> None:
    dataset = load(tmp_path / "cache")
    ref = images(dataset)[0]
    assert ref.source.stamp(ref.locator)
    assert ref.source.read(ref.locator)
    assert not (tmp_path / "cache").exists()


def test_an_image_becomes_a_file_when_a_server_wants_one(tmp_path: Path) -> None:
    dataset = load(tmp_path / "cache")
    for ref in images(dataset)[:5]:
        path = ref.source.path(ref.locator)
        assert path is not None
        assert path.is_relative_to((tmp_path / "cache").resolve())
        assert path.read_bytes() == ref.source.read(ref.locator)
    del dataset, ref
    assert list((tmp_path / "cache").iterdir()) == []


def test_threads_may_read_the_archive(tmp_path: Path) -> None:
    refs = images(load(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        paths = pool.map(lambda ref: ref.source.path(ref.locator), refs)
        found = [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p is not None]
    assert found == [ref.sha256 for ref in refs]


def test_members_are_reachable() -> None:
    for name in ("answers.jsonl", "benign.jsonl"):
        lines = sample.read_member(name).decode().splitlines()
        assert all(isinstance(json.loads(line), dict) for line in lines)
        assert lines
    with pytest.raises(DataError, match=r"^sample.zip: holds no none.jsonl"):
        sample.read_member("none.jsonl")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another archive in the sample's place, with one instance."""
    root = write_jsonl(tmp_path / "in", make_items([Relation.JUMP], [Category.PRIVACY]))
    path = tmp_path / "sample.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(p for p in root.rglob("*") if p.is_file()):
            file.write(member, member.relative_to(root))
    monkeypatch.setattr(sample, "_archive", lambda: path)
    return path


@pytest.mark.usefixtures("archive")
def test_another_archive_is_not_the_sample() -> None:
    assert "its content differs" in str(data.mismatch(load(), None))


def test_a_damaged_archive_is_one_clear_line(archive: Path) -> None:
    ref = images(load())[0]
    for content in (b"", b"no zip", archive.read_bytes()[:200]):
        write(archive, content)
        with pytest.raises(DataError, match=r"^sample.zip: cannot be read, install") as caught:
            load()
        assert str(caught.value).isprintable()
        with pytest.raises(BadInputError, match="cannot be read"):
            ref.source.read(ref.locator)
    archive.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load()
    with pytest.raises(BadInputError, match="cannot be read"):
        ref.source.stamp(ref.locator)


def test_an_image_that_is_not_in_the_archive_is_a_bad_input(archive: Path) -> None:
    assert archive.exists()
    ref = images(load())[0]
    with pytest.raises(BadInputError, match=r"holds no images/none\.png"):
        ref.source.read("images/none.png")


@pytest.mark.usefixtures("archive")
def test_a_folder_that_cannot_be_written_is_a_bad_input(tmp_path: Path) -> None:
    write(tmp_path / "cache", b"in the way")
    ref = images(load(tmp_path / "cache"))[0]
    with pytest.raises(BadInputError, match="cannot be extracted: File exists"):
        ref.source.path(ref.locator)


def test_another_archive_gives_other_stamps(archive: Path) -> None:
    ref = images(load())[0]
    before = ref.source.stamp(ref.locator)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("more", b"")
    assert images(load())[0].source.stamp(ref.locator) != before
