"""`mirsafety review` as a user calls it: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from projects import COMPLIANCE, UNCLEAR, Project

from pytest_mirsafety import labels, run_folder
from pytest_mirsafety.cli import main
from pytest_mirsafety.commands import review
from pytest_mirsafety.digests import digest
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.labelling import LabelKind
from pytest_mirsafety.review import Review


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was kept: 16 safe answers, 2 unsafe, 2 undetermined."""
    path = tmp_path_factory.mktemp("kept")
    made = Project(cast("pytest.Pytester", SimpleNamespace(path=path, makeini=lambda _: None)))
    made.suite()
    made.data({"analogy": 10, "jump": 10})
    unsafe = {f"privacy/analogy/{n}": COMPLIANCE for n in (1, 2)}
    unclear = {f"privacy/jump/{n}": UNCLEAR for n in (1, 2)}
    made.answers(unsafe | unclear)
    made.configure()
    command = [sys.executable, "-m", "pytest", "--mllm=replay:answers.jsonl", "--mir-run=run"]
    subprocess.run(command, cwd=path, check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture
def kept(pytester: pytest.Pytester, template: Path) -> Project:
    shutil.copytree(template, pytester.path, dirs_exist_ok=True)
    return Project(pytester)


def options(**changes: Any) -> Namespace:
    given = {
        "folder": Path("run"),
        "labels": Path("labels.jsonl"),
        "sample": None,
        "seed": "1",
        "safe": None,
        "unsafe": None,
        "unscored": None,
        "blind": False,
        "reviewer": None,
        "data": None,
    }
    return Namespace(**given | changes)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["review", *arguments]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mirsafety: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("mirsafety: ").rstrip()


def drawn(made: Review) -> dict[str, int]:
    found = {"safe": 0, "unsafe": 0, "unscored": 0}
    for item in made.items:
        found[item.drawn.stratum] += 1
    return found


def test_the_sample_is_that_of_the_options(kept: Project) -> None:
    assert drawn(review.prepare(options())) == {"safe": 16, "unsafe": 2, "unscored": 2}
    assert drawn(review.prepare(options(sample=10))) == {"safe": 8, "unsafe": 1, "unscored": 1}
    parts = review.prepare(options(safe=4, unsafe=2))
    assert drawn(parts) == {"safe": 4, "unsafe": 2, "unscored": 0}
    assert parts.run == run_folder.read(Path("run")).digest
    again = review.prepare(options(safe=4, unsafe=2))
    assert [i.instance.id for i in again.items] == [i.instance.id for i in parts.items]
    other = review.prepare(options(safe=4, unsafe=2, seed="2"))
    assert [i.instance.id for i in other.items] != [i.instance.id for i in parts.items]


def test_a_seed_that_somebody_chose_is_said_and_kept_in_each_label(
    kept: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = review.prepare(options(labels=Path("one.jsonl")))
    usual.label("Ana", 0, LabelKind.SAFE)
    assert "seed" not in json.loads(Path("one.jsonl").read_text("utf-8"))
    assert not any("by hand" in line for line in review._about(usual, Path("one.jsonl")))
    chosen = review.prepare(options(labels=Path("two.jsonl"), seed="lucky"))
    chosen.label("Ana", 0, LabelKind.SAFE)
    assert json.loads(Path("two.jsonl").read_text("utf-8"))["seed"] == "lucky"
    assert [label.seed for label in chosen.book.standing()] == ["lucky"]
    lines = review._about(chosen, Path("two.jsonl"))
    assert "seed chosen by hand: 'lucky': each label says so" in lines[2]
    assert lines[3] == "one.jsonl beside it has labels of another draw of this run"
    assert "two.jsonl beside it" in review._about(usual, Path("one.jsonl"))[2]
    for seed in ("\udcff", "a\x1b[31m", "x" * 201):
        with pytest.raises(ConfigurationError, match="write up to 200 printable"):
            review.prepare(options(seed=seed))


def test_each_answer_comes_with_what_was_asked(kept: Project) -> None:
    for item in review.prepare(options()).items:
        name = item.instance.id
        assert item.drawn.entry.instance_id == name
        _, relation, number = name.split("/")
        assert item.instance.prompt == f"What links the pictures of {relation} {number}?"
        wanted = {"safe": "I'm sorry", "unsafe": COMPLIANCE, "unscored": UNCLEAR}
        assert (item.answer or "").startswith(wanted[item.drawn.stratum])


def test_images_come_from_the_dataset(kept: Project) -> None:
    made = review.prepare(options())
    item = made.items[0]
    _, relation, number = item.instance.id.split("/")
    image = made.image(item.instance.images[1])
    assert image.content == (kept.path / f"images/{relation}-{number}-2.png").read_bytes()
    assert image.media_type == "image/png"


def test_an_answer_that_was_edited_is_refused(
    kept: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kept.path / "run/results.jsonl"
    path.write_text(path.read_text("utf-8").replace("I'm sorry", "I'm happy", 1), "utf-8")
    assert "answer: is not the one whose digest it has" in refusal(capsys, "run")


def test_a_folder_that_is_no_run_or_holds_no_answers(
    kept: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, "gone") == "gone is no run folder: it has no run.json"
    assert "is no run folder" in refusal(capsys, "images")
    kept.suite("def test_it(mllm, instance, judge): pass")
    kept.run("--mir-run=nothing")
    assert "nothing: holds no answers" in refusal(capsys, "nothing")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--sample=0"], "at least one answer"),
        (["--sample=5", "--safe=5"], "not both"),
        (["--unsafe=5"], "name how many SAFE answers"),
        (["--safe=-1"], "not below 0"),
        (["--reviewer= "], "write a name of up to 100 characters"),
        (["--port=70000"], "--port: 70000 is no port"),
    ],
)
def test_options_that_cannot_be(
    kept: Project, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert problem in refusal(capsys, "run", *arguments)


def test_labels_that_are_none_are_refused(
    kept: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept.path / "notes.txt").write_text("my notes\n", "utf-8")
    assert "notes.txt, line 1: no label" in refusal(capsys, "run", "--labels=notes.txt")
    assert "cannot be read" in refusal(capsys, "run", "--labels=images")
    assert (kept.path / "notes.txt").read_text("utf-8") == "my notes\n"


def test_a_port_in_use_is_one_line(kept: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port: {port} is in use" in refusal(capsys, "run", f"--port={port}")


def test_without_the_extra_it_is_named(
    kept: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    importing = builtins.__import__

    def lacking(name: str, *rest: Any) -> ModuleType:
        if name.partition(".")[0] == "starlette":
            raise ImportError(name)
        return importing(name, *rest)

    for name in [name for name in sys.modules if name.startswith("pytest_mirsafety.review")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("pytest_mirsafety.review", raising=False)
    monkeypatch.setattr(builtins, "__import__", lacking)
    assert "the extra 'review'" in refusal(capsys, "run")


def test_data_that_moved_or_changed(kept: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (kept.path / "instances.jsonl").rename(kept.path / "moved.jsonl")
    message = refusal(capsys, "run")
    assert message.startswith("the run's data: ")
    assert message.endswith("; name where it is now with --data")
    made = review.prepare(options(data="jsonl:moved.jsonl"))
    assert len(made.items) == 20
    path = kept.path / "moved.jsonl"
    path.write_text(path.read_text("utf-8").replace("What links", "What joins", 1), "utf-8")
    message = refusal(capsys, "run", "--data=jsonl:moved.jsonl")
    assert "jsonl:moved.jsonl: is not the data that the run asked: it is sha256:" in message


def test_a_run_folder_chooses_no_code(kept: Project, capsys: pytest.CaptureFixture[str]) -> None:
    kept.write("harmful.py", "import pathlib; pathlib.Path('imported').touch()\n")
    path = kept.path / "run/run.json"
    document = json.loads(path.read_text("utf-8"))
    document["provenance"]["data_source"] = "harmful:load"
    del document["digest"]
    text = json.dumps({**document, "digest": digest(document)})
    path.write_text(text, "utf-8")
    message = refusal(capsys, "run")
    assert message.endswith("came from code of your own; to load it: --data=harmful:load")
    assert not (kept.path / "imported").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_ctrl_c(kept: Project, number: int) -> None:
    code = "import sys; from pytest_mirsafety.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "review", "run", "--sample=4", "--labels=l/a.jsonl"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        about = [process.stdout.readline() for _ in range(3)]
        assert about[0].startswith("run: 4 answers to label (")
        link = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\S+", about[2])
        assert link is not None, about
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = opener.open(link[0], timeout=10).read().decode()
        assert "Review 4 answers" in page
        root = f"http://127.0.0.1:{link[1]}"
        form = urllib.request.Request(  # noqa: S310 - our own page
            f"{root}/answers/1", b"reviewer=Ana&label=unsafe", {"Origin": root}
        )
        opener.open(form, timeout=10).read()
        with socket.create_connection(("127.0.0.1", int(link[1]))):  # and one that stays open
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert err == ""
    if number == signal.SIGINT:
        assert process.returncode == 0
        assert "Ana: 1 of 4 labelled" in out
    assert [label.reviewer for label in labels.read(kept.path / "l/a.jsonl")] == ["Ana"]
