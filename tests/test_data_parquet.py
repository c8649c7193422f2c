"""Parquet: no image is read at load; rows are extracted once, whole, by bounded pieces."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_builders import (
    Item,
    make_items,
    parquet_row,
    tiny_png,
    write_parquet,
    write_rows,
)

from pytest_mirsafety import data
from pytest_mirsafety.data.rows import RowImage, RowImages
from pytest_mirsafety.errors import BadInputError, DataError, MissingExtraError
from pytest_mirsafety.records import Dataset, ImageRef
from pytest_mirsafety.taxonomy import Category, Relation

ITEMS = make_items([Relation.ANALOGY, Relation.JUMP], images=3)


def load(root: Path) -> Dataset:
    return data.load("parquet:.", base=root, cache=root / "cache")


def refs(dataset: Dataset) -> list[ImageRef]:
    return [ref for instance in dataset.instances for ref in instance.images]


def read_all(dataset: Dataset) -> dict[str, tuple[bytes, ...]]:
    return {
        i.id: tuple(ref.source.read(ref.locator) for ref in i.images) for i in dataset.instances
    }


def expected(items: list[Item]) -> dict[str, tuple[bytes, ...]]:
    return {item.id: item.images for item in items}


def zero_column(path: Path, leaf: str) -> int:
    """Overwrite every page of one column with zeros; the number of bytes that were there."""
    metadata = pq.read_metadata(path)
    spans = []
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if chunk.path_in_schema == leaf:
                start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
                spans.append((start, chunk.total_compressed_size))
    with path.open("r+b") as file:
        for start, size in spans:
            file.seek(start)
            file.write(bytes(size))
    return sum(size for _, size in spans)


def test_loading_survives_images_that_are_zeros_on_disk(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS, row_group_size=5)
    [path] = tmp_path.rglob("*.parquet")
    whole = load(tmp_path)
    assert zero_column(path, "images.list.element.bytes") > 1000
    damaged = load(tmp_path)
    assert damaged.identity == whole.identity
    for ref in refs(damaged):
        with pytest.raises(BadInputError):
            ref.source.read(ref.locator)


def test_a_column_that_is_read_is_noticed_to_be_zeros(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS)
    [path] = tmp_path.rglob("*.parquet")
    zero_column(path, "revised_prompt")
    with pytest.raises(DataError, match=r"^train-00000-of-00001.parquet.*not readable"):
        load(tmp_path)


@pytest.mark.parametrize("group", [1, 5, None])
def test_every_row_keeps_its_own_images(tmp_path: Path, group: int | None) -> None:
    write_parquet(tmp_path, ITEMS, shards=2, row_group_size=group)
    assert read_all(load(tmp_path)) == expected(ITEMS)


def test_one_image_extracts_its_row_group_only_and_once(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS, row_group_size=4)
    ref = refs(load(tmp_path))[0]
    first = ref.source.path(ref.locator)
    assert first is not None
    [folder] = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len([f for f in folder.rglob("*") if f.is_file()]) == 4 * 3
    before = first.stat().st_mtime_ns
    assert ref.source.path(ref.locator) == first
    assert first.stat().st_mtime_ns == before


def test_many_threads_share_one_extraction(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS, row_group_size=6)
    dataset = load(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda ref: ref.source.read(ref.locator), refs(dataset))
        assert sorted(read) == sorted(image for item in ITEMS for image in item.images)
    [folder] = (tmp_path / "cache").iterdir()
    assert len(list(folder.iterdir())) == 2


def test_extracted_files_go_with_their_dataset(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS)
    dataset = load(tmp_path)
    source = refs(dataset)[0].source
    read_all(dataset)
    assert isinstance(source, RowImages)
    source.close()
    assert list((tmp_path / "cache").iterdir()) == []
    assert read_all(dataset) == expected(ITEMS)
    del dataset, source
    assert list((tmp_path / "cache").iterdir()) == []


def run_script(root: Path, script: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], cwd=root, env=environment, check=True)


def test_extracted_files_go_at_exit(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS)
    script = """
from pathlib import Path
from pytest_mirsafety import data
root = Path.cwd()
dataset = data.load("parquet:.", base=root, cache=root / "cache")
ref = dataset.instances[0].images[0]
assert ref.source.path(ref.locator).exists()
keep = [dataset]
keep.append(keep)
"""
    run_script(tmp_path, script)
    assert list((tmp_path / "cache").iterdir()) == []


def test_extraction_holds_a_few_rows_in_memory(tmp_path: Path) -> None:
    rows = [parquet_row(ITEMS[0]) | {"id": str(n)} for n in range(100)]
    for row in rows:
        row["images"] = [{"bytes": os.urandom(100_000), "path": None}] * 3
    write_rows(tmp_path / "a.parquet", rows)
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "a.parquet", write_batch_size=1, use_dictionary=False)
    script = """
from pathlib import Path
import pyarrow as pa
from pytest_mirsafety import data
root = Path.cwd()
dataset = data.load("parquet:.", base=root, cache=root / "cache")
last = dataset.instances[-1].images[-1]
assert len(last.source.read(last.locator)) == 100_000
assert pa.default_memory_pool().max_memory() < 30_000_000 / 4
"""
    run_script(tmp_path, script)


def test_without_a_cache_the_temporary_folder_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    write_parquet(tmp_path / "x", ITEMS)
    ref = refs(data.load("parquet:x", base=tmp_path))[0]
    path = ref.source.path(ref.locator)
    assert path is not None
    assert path.is_relative_to((tmp_path / "tmp").resolve())


def test_a_folder_that_cannot_be_written_is_a_bad_input(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS)
    (tmp_path / "cache").write_bytes(b"in the way")
    ref = refs(load(tmp_path))[0]
    with pytest.raises(BadInputError, match=r"cannot be extracted: .*File exists"):
        ref.source.read(ref.locator)


def test_a_file_that_changed_after_loading_is_a_bad_input(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS)
    ref = refs(load(tmp_path))[0]
    [path] = tmp_path.rglob("*.parquet")
    stamp = ref.source.stamp(ref.locator)
    write_parquet(tmp_path, ITEMS[::-1])
    for method in (ref.source.stamp, ref.source.read):
        with pytest.raises(BadInputError, match="changed after it was loaded"):
            method(ref.locator)
    assert refs(load(tmp_path))[0].source.stamp(ref.locator) != stamp
    path.unlink()
    with pytest.raises(BadInputError, match="No such file"):
        ref.source.stamp(ref.locator)


def test_stamps_tell_images_apart(tmp_path: Path) -> None:
    write_parquet(tmp_path, ITEMS, shards=2, row_group_size=3)
    stamps = [ref.source.stamp(ref.locator) for ref in refs(load(tmp_path))]
    assert len(set(stamps)) == len(stamps)


def test_a_locator_is_the_text_of_a_row_image() -> None:
    image = RowImage(1, 2, 3, 4, 5)
    assert RowImage.from_locator(str(image)) == image


def plain_binary(path: Path, images: list[list[bytes | None]]) -> None:
    """Rows whose images are plain bytes, with no names beside them."""
    rows = [parquet_row(ITEMS[0]) | {"id": str(n), "images": None} for n in range(len(images))]
    table = pa.Table.from_pylist(rows).drop_columns(["images"])
    column: Any = pa.array(images, pa.list_(pa.binary()))
    pq.write_table(table.append_column("images", column), path)


def test_a_list_that_is_not_as_long_as_declared_is_never_a_shorter_prompt(tmp_path: Path) -> None:
    one, two, three, four = map(tiny_png, range(4))
    lists: list[list[bytes | None]] = [[one, two], [one, two, three, four], [one, two, three]]
    plain_binary(tmp_path / "a.parquet", lists)
    short, long, good = data.load("parquet:a.parquet", base=tmp_path).instances
    for instance, held in ((short, 2), (long, 4)):
        for ref in instance.images:
            with pytest.raises(BadInputError, match=f"holds {held} images and declares 3"):
                ref.source.read(ref.locator)
    assert [ref.source.read(ref.locator) for ref in good.images] == [one, two, three]


@pytest.mark.parametrize("compliant", [True, False])
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_writers_may_name_and_size_their_lists(
    tmp_path: Path, kind: Callable[[Any], Any], compliant: bool
) -> None:
    image = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    table = pa.Table.from_pylist([parquet_row(ITEMS[0])])
    column = table.column("images").cast(kind(image))
    table = table.drop_columns(["images"]).append_column("images", column)
    pq.write_table(table, tmp_path / "a.parquet", use_compliant_nested_type=compliant)
    [path] = tmp_path.rglob("*.parquet")
    assert read_all(load(tmp_path)) == expected(ITEMS[:1])
    zero_column(path, f"images.list.{'element' if compliant else 'item'}.bytes")
    assert load(tmp_path).instances
    table = table.set_column(
        table.schema.get_field_index("num_images"), "num_images", pa.array([2], pa.int32())
    )
    pq.write_table(table, path, use_compliant_nested_type=compliant)
    with pytest.raises(DataError, match="num_images is 2, images holds 3"):
        load(tmp_path)


def test_an_image_that_is_only_named_is_a_bad_input(tmp_path: Path) -> None:
    row = parquet_row(ITEMS[0])
    row["images"][1] = {"bytes": None, "path": "elsewhere.png"}
    write_rows(tmp_path / "a.parquet", [row])
    [instance] = data.load("parquet:a.parquet", base=tmp_path).instances
    first, second, _ = instance.images
    assert first.source.read(first.locator) == ITEMS[0].images[0]
    with pytest.raises(BadInputError, match="not embedded"):
        second.source.read(second.locator)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="install pytest-mirsafety with the extra 'hub'"):
        load(tmp_path)


def test_patterns_and_single_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x", ITEMS, shards=3)
    whole = data.load("parquet:x/data/train-*.parquet", base=tmp_path)
    assert whole.identity == data.load("parquet:x/**/*.parquet", base=tmp_path).identity
    part = data.load("parquet:x/data/train-00001-of-00003.parquet", base=tmp_path)
    assert 0 < len(part.instances) < len(whole.instances)


def test_names_tell_file_row_and_place(tmp_path: Path) -> None:
    write_parquet(tmp_path, make_items([Relation.JUMP], [Category.PRIVACY]))
    names = [ref.name for ref in refs(load(tmp_path))]
    assert names == [f"train-00000-of-00001.parquet, row 1, image {k}" for k in (1, 2)]
