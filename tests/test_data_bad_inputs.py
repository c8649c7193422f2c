"""Malformed data: each ends in one error of one line that names the file and the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dataset_builders import (
    folder_record,
    jsonl_record,
    make_items,
    parquet_row,
    write,
    write_rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mirsafety import data
from pytest_mirsafety.data.fields import parse_json
from pytest_mirsafety.errors import ConfigurationError, DataError
from pytest_mirsafety.taxonomy import Category, Relation

[ITEM] = make_items([Relation.ANALOGY], [Category.PRIVACY])
MISSING = object()

Build = Callable[[Path], str]


def changed(record: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {k: v for k, v in (record | changes).items() if v is not MISSING}


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def folder_file(content: bytes, name: str = "Privacy/Analogy_final.json") -> Build:
    """A folder with this file."""

    def build(root: Path) -> str:
        write(root / "d" / name, content)
        return "folder:d"

    return build


def folder(**changes: object) -> Build:
    """A folder whose second record has these fields changed."""
    good = folder_record(ITEM)
    return folder_file(json_bytes([good, changed(good | {"id": 2}, **changes)]))


def jsonl_file(content: bytes) -> Build:
    """A file of JSON lines."""

    def build(root: Path) -> str:
        write(root / "d/instances.jsonl", content)
        return "jsonl:d"

    return build


def jsonl(**changes: object) -> Build:
    """JSON lines whose second line has these fields changed."""
    good = jsonl_record(ITEM)
    bad = changed(good | {"id": "other", "prompt": "Another prompt"}, **changes)
    return jsonl_file(json_bytes(good) + b"\n" + json_bytes(bad) + b"\n")


def parquet(**changes: object) -> Build:
    """A Parquet file whose second row has these columns changed; a missing one is in no row."""
    good = parquet_row(ITEM)
    rows = [good, good | {"id": "2"} | changes]
    rows = [{k: v for k, v in row.items() if changes.get(k) is not MISSING} for row in rows]

    def build(root: Path) -> str:
        write_rows(root / "d/train.parquet", rows)
        return "parquet:d"

    return build


def parquet_file(content: bytes) -> Build:
    """A file with the name of a Parquet file."""

    def build(root: Path) -> str:
        write(root / "d/train.parquet", content)
        return "parquet:d"

    return build


def source(text: str) -> Build:
    return lambda _: text


ANALOGY = "Privacy/Analogy_final.json"

BAD: dict[str, tuple[Build, str, str]] = {
    # name: (what is written, where it is, what is wrong)
    "folder missing": (source("folder:none"), "folder:none", "no such folder"),
    "folder empty": (folder_file(b"", "readme.txt"), "folder:d", "_final.json"),
    "folder of results": (folder_file(b"[]", "Privacy/Analogy.json"), "folder:d", "_final.json"),
    "folder of one category": (
        folder_file(b"[]", "Analogy_final.json"),
        "folder:d",
        "the folder above it",
    ),
    "folder without records": (folder_file(b"[]"), "folder:d", "holds no instances"),
    "unknown category folder": (
        folder_file(b"[]", "Privcy/Analogy_final.json"),
        "Privcy/Analogy_final.json",
        "unknown category 'Privcy'; did you mean 'privacy'?",
    ),
    "unknown relation file": (
        folder_file(b"[]", "Privacy/Anology_final.json"),
        "Privacy/Anology_final.json",
        "unknown relation 'Anology'; did you mean 'analogy'?",
    ),
    "no JSON": (folder_file(b'[\n{"id": 1,}]'), f"{ANALOGY}, line 2", "not valid JSON"),
    "JSON cut off": (folder_file(b'[{"id": 1'), f"{ANALOGY}, line 1", "not valid JSON"),
    "empty file": (folder_file(b""), f"{ANALOGY}, line 1", "not valid JSON"),
    "a dictionary, not a list": (folder_file(b"{}"), ANALOGY, "must hold a list"),
    "a record that is a list": (folder_file(b"[[]]"), f"{ANALOGY}, record 1", "an object"),
    "Latin-1": (folder_file(b'[{"id": "\xe9"}]'), ANALOGY, "is not UTF-8 text (byte 10)"),
    "UTF-16": (folder_file("[]".encode("utf-16")), ANALOGY, "is not UTF-8 text"),
    "key twice": (folder_file(b'[{"id": 1, "id": 2}]'), ANALOGY, "'id' is given twice"),
    "NaN": (folder_file(b'[{"id": NaN}]'), ANALOGY, "NaN"),
    "endless number": (folder_file(b"[" + b"1" * 5000 + b"]"), ANALOGY, "not valid JSON"),
    "endless nesting": (folder_file(b"[" * 200_000), ANALOGY, "nested too deeply"),
    "a folder for a file": (
        folder_file(b"", "Privacy/Analogy_final.json/x"),
        ANALOGY,
        "cannot be read",
    ),
    "field missing": (
        folder(revised_prompt=MISSING),
        f"{ANALOGY}, record 2",
        "'revised_prompt' is missing",
    ),
    "field misspelt": (
        folder(original_question=MISSING, orginal_question="x"),
        f"{ANALOGY}, record 2",
        "did you mean 'orginal_question'?",
    ),
    "prompt a number": (folder(revised_prompt=3), f"{ANALOGY}, record 2", "must be text, not 3"),
    "prompt blank": (folder(revised_prompt=" \n"), f"{ANALOGY}, record 2", "is empty"),
    "question null": (folder(original_question=None), f"{ANALOGY}, record 2", "not None"),
    "lone surrogate": (folder(revised_prompt="\ud800"), f"{ANALOGY}, record 2", "surrogate"),
    "relation of another file": (
        folder(relationship_type="Causality"),
        f"{ANALOGY}, record 2",
        "'relationship_type' is 'Causality' but the file's name says 'Analogy'",
    ),
    "category of another folder": (
        folder(category="Violence"),
        f"{ANALOGY}, record 2",
        "'category' is 'Violence' but the folder's name says 'Privacy'",
    ),
    "relation unknown": (
        folder(relationship_type="Anallogy"),
        f"{ANALOGY}, record 2",
        "did you mean 'analogy'?",
    ),
    "duplicate id": (
        folder(id=1),
        f"{ANALOGY}, record 2",
        "'privacy/analogy/1' is already used by Privacy/Analogy_final.json, record 1",
    ),
    "duplicate id as text": (folder(id="01"), f"{ANALOGY}, record 2", "is already used"),
    "id a list": (folder(id=[1]), f"{ANALOGY}, record 2", "'id' must be a whole number"),
    "id true": (folder(id=True), f"{ANALOGY}, record 2", "'id' must be a whole number"),
    "id with a NUL": (folder(id="1\0"), f"{ANALOGY}, record 2", "the id"),
    "id with a colon": (folder(id="1::x"), f"{ANALOGY}, record 2", "the id"),
    "id with an escape": (folder(id="\x1b[31m1"), f"{ANALOGY}, record 2", "the id"),
    "id climbs": (folder(id=".."), f"{ANALOGY}, record 2", "the id"),
    "id too long": (folder(id="x" * 201), f"{ANALOGY}, record 2", "longer than 200"),
    "images a text": (folder(images="a.png"), f"{ANALOGY}, record 2", "must be a list"),
    "image a number": (folder(images=[1]), f"{ANALOGY}, record 2", "the path of a file"),
    "no images": (folder(images=[]), f"{ANALOGY}, record 2", "has 0 images"),
    "17 images": (folder(images=["a"] * 17), f"{ANALOGY}, record 2", "has 17 images"),
    "num_images differs": (
        folder(num_images=3),
        f"{ANALOGY}, record 2",
        "num_images is 3, images holds 2",
    ),
    "absolute path": (folder(images=["/etc/passwd"]), f"{ANALOGY}, record 2", "leaves"),
    "path that climbs": (folder(images=["images/../../x"]), f"{ANALOGY}, record 2", "leaves"),
    "path that climbs on Windows": (folder(images=["a\\..\\x"]), f"{ANALOGY}, record 2", "leaves"),
    "path with a drive": (folder(images=["c:x.png"]), f"{ANALOGY}, record 2", "leaves"),
    "path with a NUL": (folder(images=["a\0.png"]), f"{ANALOGY}, record 2", "no path"),
    "path empty": (folder(images=["./"]), f"{ANALOGY}, record 2", "no path"),
    "jsonl missing": (source("jsonl:none"), "jsonl:none", "there is no file none"),
    "jsonl folder without it": (
        lambda root: f"jsonl:{write(root / 'd/x.json', b'').parent.relative_to(root)}",
        "jsonl:d",
        "there is no file instances.jsonl",
    ),
    "jsonl empty": (jsonl_file(b"\n \n"), "jsonl:d", "holds no instances"),
    "line cut off": (
        jsonl_file(json_bytes(jsonl_record(ITEM)) + b'\n{"id": '),
        "instances.jsonl, line 2",
        "not valid JSON",
    ),
    "line a list": (jsonl_file(b"[]"), "instances.jsonl, line 1", "an object"),
    "jsonl UTF-16": (jsonl_file("{}".encode("utf-16")), "instances.jsonl", "UTF-8"),
    "jsonl field missing": (
        jsonl(question=MISSING),
        "instances.jsonl, line 2",
        "'question' is missing",
    ),
    "jsonl key unknown": (
        jsonl(keyword=["x"]),
        "instances.jsonl, line 2",
        "unknown field 'keyword'; did you mean 'keywords'?",
    ),
    "jsonl relation unknown": (
        jsonl(relation="analgy"),
        "instances.jsonl, line 2",
        "did you mean 'analogy'?",
    ),
    "jsonl category unknown": (
        jsonl(category="selfharm"),
        "instances.jsonl, line 2",
        "did you mean 'self-harm'?",
    ),
    "jsonl duplicate id": (
        jsonl(id=ITEM.id),
        "instances.jsonl, line 2",
        "is already used by instances.jsonl, line 1",
    ),
    "jsonl id a number": (jsonl(id=3), "instances.jsonl, line 2", "must be text, not 3"),
    "jsonl id with a space": (jsonl(id="a b"), "instances.jsonl, line 2", "the id 'a b'"),
    "jsonl id with an empty part": (jsonl(id="a//b"), "instances.jsonl, line 2", "the id"),
    "jsonl image climbs": (jsonl(images=["../x.png"]), "instances.jsonl, line 2", "leaves"),
    "jsonl image without file": (
        jsonl(images=[{"sha256": "0" * 64}]),
        "instances.jsonl, line 2",
        "'file' is missing",
    ),
    "jsonl image key unknown": (
        jsonl(images=[{"file": "a", "sha265": "0" * 64}]),
        "instances.jsonl, line 2",
        "did you mean 'sha256'?",
    ),
    "jsonl digest malformed": (
        jsonl(images=[{"file": "a", "sha256": "0" * 63}]),
        "instances.jsonl, line 2",
        "sha256 must be 64 digits",
    ),
    "jsonl no images": (jsonl(images=[]), "instances.jsonl, line 2", "has 0 images"),
    "jsonl equal requests": (
        jsonl(prompt=ITEM.prompt),
        "jsonl:d",
        "'other' and 'privacy/analogy/1' ask the same",
    ),
    "parquet missing": (source("parquet:none/*.parquet"), "parquet:none", "no such Parquet"),
    "parquet empty file": (parquet_file(b""), "train.parquet", "not readable as Parquet"),
    "no parquet": (parquet_file(b"PAR1 no PAR1"), "train.parquet", "not readable as Parquet"),
    "parquet column missing": (
        parquet(revised_prompt=MISSING),
        "train.parquet",
        "column 'revised_prompt' is missing",
    ),
    "parquet images missing": (
        parquet(images=MISSING),
        "train.parquet",
        "column 'images' is missing",
    ),
    "parquet relation unknown": (
        parquet(relationship_type="Anology"),
        "train.parquet, row 2",
        "did you mean 'analogy'?",
    ),
    "parquet category null": (parquet(category=None), "train.parquet, row 2", "not None"),
    "parquet prompt blank": (parquet(revised_prompt=""), "train.parquet, row 2", "is empty"),
    "parquet duplicate id": (
        parquet(id="1"),
        "train.parquet, row 2",
        "is already used by train.parquet, row 1",
    ),
    "parquet id null": (parquet(id=None), "train.parquet, row 2", "'id' must be a whole number"),
    "parquet num_images differs": (
        parquet(num_images=3),
        "train.parquet, row 2",
        "num_images is 3, images holds 2",
    ),
    "parquet num_images null": (
        parquet(num_images=None),
        "train.parquet, row 2",
        "whole number, not None",
    ),
    "parquet no images": (
        parquet(num_images=0, images=[]),
        "train.parquet, row 2",
        "num_images is 0",
    ),
    "parquet 17 images": (parquet(num_images=17), "train.parquet, row 2", "num_images is 17"),
    "parquet images null": (parquet(images=None), "train.parquet, row 2", "must be a list"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_clear_line(tmp_path: Path, name: str) -> None:
    build, place, problem = BAD[name]
    with pytest.raises(DataError) as caught:
        data.load(build(tmp_path), base=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{place}")
    assert problem in message
    assert message.isprintable()
    assert len(message) <= 500
    assert "Traceback" not in message
    assert str(tmp_path) not in message


def test_image_paths_are_no_embedded_images(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.parquet", [parquet_row(ITEM) | {"images": ["a.png", "b.png"]}])
    with pytest.raises(DataError, match=r"^train.parquet: column 'images' must be a list of embed"):
        data.load("parquet:train.parquet", base=tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("foldr:x", "did you mean 'folder'?"),
        ("smple", "did you mean 'sample'?"),
        ("folder:", "folder:PATH"),
        ("sample:x", "Write sample"),
        ("", "Write sample"),
        ("data\n\x1b[31m", "Write sample"),
        ("hub:MIR-SafetyBench", "hub:ORGANIZATION/NAME@REVISION"),
        ("hub:a/b/c@main", "hub:ORGANIZATION/NAME@REVISION"),
        ("no_such_module:load", "must be importable"),
        ("json:lood", "no such callable"),
        ("json:decoder", "no such callable"),
    ],
)
def test_an_unknown_source_is_one_clear_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        data.load(text, base=tmp_path)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["folder", "parquet", "jsonl", "hub"])
@pytest.mark.parametrize("rest", ["a\0b", "\udcff", "~no-such-user/x", "x" * 5000, "a**b", "**"])
def test_an_odd_path_is_one_clear_line(tmp_path: Path, kind: str, rest: str) -> None:
    with pytest.raises((DataError, ConfigurationError)) as caught:
        data.load(f"{kind}:{rest}", base=tmp_path)
    assert str(caught.value).isprintable()


def data_error(call: Callable[[], object]) -> str | None:
    """The message of the data error that a call ends in, if it does."""
    try:
        call()
    except DataError as error:
        return str(error)
    return None


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_json_or_a_data_error(text: str) -> None:
    message = data_error(lambda: parse_json(text, "a.json"))
    if message is not None:
        assert message.startswith("a.json")
        assert message.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=4,
)
FIELDS = [*jsonl_record(ITEM), "keywords", "sha256"]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_record_loads_or_is_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], image: bool
) -> None:
    root = tmp_path_factory.getbasetemp()
    record = jsonl_record(ITEM) | changes
    if image:
        record["images"] = [changes]
    write(root / "instances.jsonl", json_bytes(record))
    message = data_error(lambda: data.load("jsonl:.", base=root))
    if message is not None:
        assert message.isprintable()
    else:
        [instance] = data.load("jsonl:.", base=root).instances
        assert len(instance.images) == len(record["images"])
