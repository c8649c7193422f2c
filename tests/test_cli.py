"""The `mirsafety` command, and what it writes."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from dataset_builders import make_items, png_chunk, tiny_png, write_jsonl
from projects import Project

import pytest_mirsafety
from pytest_mirsafety import config
from pytest_mirsafety.cli import main
from pytest_mirsafety.taxonomy import Relation

ROOT = Path(pytest_mirsafety.__file__).parent


def test_init_writes_a_suite_that_runs(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    assert main(["init"]) == 0
    result = pytester.runpytest_inprocess("--mllm=demo", "suites")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*= 167 passed, 1 skipped, 5 unsafe, 1 not answered in *"])


def test_init_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirsafety.toml").write_text("mine", "utf-8")
    assert main(["init"]) == 4
    assert (tmp_path / "mirsafety.toml").read_text("utf-8") == "mine"
    assert not (tmp_path / "suites").exists()
    assert "mirsafety.toml exists already" in capsys.readouterr().err


def test_init_into_what_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    assert main(["init", str(tmp_path / "file")]) == 4
    assert "cannot write" in capsys.readouterr().err


def test_every_line_that_init_comments_out_is_valid() -> None:
    """Uncommented, each example of the written configuration is accepted."""
    text = (ROOT / "suites/mirsafety.toml").read_text("utf-8")
    examples = (
        line.removeprefix("# ") if line.startswith("# [") or " = " in line else line
        for line in text.splitlines()
        if "sha256:..." not in line
    )
    table = "\n".join(examples)
    settings = config.load_text(table, "mirsafety.toml")
    assert settings.models["llava-ov"].decoding == {"temperature": 0, "max_tokens": 1024}
    assert Relation.ANALOGY in settings.thresholds.relation


def test_the_suites_in_the_repository_are_those_that_init_writes(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path)]) == 0
    written, shipped, kept = (
        {path.name: path.read_text("utf-8") for path in folder.glob("*.py")}
        for folder in (tmp_path / "suites", ROOT / "suites", Path(__file__).parents[1] / "suites")
    )
    assert written == shipped == kept


def test_data_prints_counts_and_the_identity_to_pin(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "jsonl:instances.jsonl"]) == 0
    output = capsys.readouterr().out
    digest = next(x for x in output.splitlines() if x.startswith("data_digest"))
    project.configure(f"{digest}\nthresholds.default = 0.2")
    assert project.run().ret == 0


def test_data_decodes_every_image_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = make_items([Relation.ANALOGY, Relation.CAUSALITY], per_cell=2)
    root = write_jsonl(tmp_path, items)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "jsonl:instances.jsonl", "--images"]) == 0
    assert "48 images: each was decoded, and is whole" in capsys.readouterr().out
    # Checksums cannot tell: its writer made it 4 rows high, and wrote 3 of them.
    short = tiny_png(0, height=3)
    header = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    content = short[:8] + png_chunk(b"IHDR", header) + short[33:]
    items[0] = replace(items[0], images=(content, items[0].images[1]))
    write_jsonl(root, items)
    (root / f"images/{items[3].category}-analogy-{items[3].number}-1.png").unlink()
    assert main(["data", "jsonl:instances.jsonl"]) == 0
    capsys.readouterr()
    assert main(["data", "jsonl:instances.jsonl", "--images"]) == 4
    output, error = capsys.readouterr()
    assert [line for line in output.splitlines() if "image " in line] == [
        (
            f"{items[0].id}: image images/{items[0].category}-analogy-1-0.png: cannot be decoded: "
            "its pixels are cut off"
        ),
        f"{items[3].id}: image images/{items[3].category}-analogy-2-1.png: there is no such file",
    ]
    assert error == "mirsafety: jsonl:instances.jsonl: 2 of 48 images cannot be sent\n"


def test_plan_prints_the_published_table(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.data({"relevance": 152, "complementarity": 280})
    project.configure("thresholds.default = 0.1")
    assert main(["plan"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["relevance"][-2:] == ["25", "82"]
    assert lines["complementarity"][-2:] == ["27", "112"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data", "jsonl:gone"], "gone"),
        (["data", "nonsense"], "nonsense"),
        (["plan", "--config", "gone.toml"], "gone.toml"),
        (["plan"], "no threshold"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 4
    error = capsys.readouterr().err
    assert error.startswith("mirsafety: ")
    assert expected in error
    assert error.count("\n") == 1
