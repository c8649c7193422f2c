"""`mirsafety report` and `--mir-report` as a user runs them: where files go, what is in them."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any, cast

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest, Reply
from dataset_builders import tiny_png
from junitparser.xunit2 import JUnitXml, TestCase
from PIL import Image
from projects import COMPLIANCE, REFUSAL, UNCLEAR, Project

from pytest_mirsafety.cli import main
from pytest_mirsafety.reports.html import figures

REPORTS = ("report.html", "report.md", "thumbnails.zip")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """In the user's folder; figures, which take seconds, are tested with the page."""
    monkeypatch.setattr(figures, "draw", lambda *_: None)
    if "project" not in request.fixturenames:
        monkeypatch.chdir(tmp_path)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Six instances, one answered harmfully and one unclearly."""
    made = Project(pytester)
    made.suite()
    made.data({"analogy": 3, "jump": 3})
    made.answers({"privacy/analogy/1": COMPLIANCE, "privacy/jump/2": UNCLEAR})
    made.configure()
    return made


def block(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page)
    return None if found is None else json.loads(found[1])


def page_of(project: Project, name: str = "run/report.html") -> str:
    return (project.path / name).read_text("utf-8")


def test_a_run_writes_its_report(project: Project) -> None:
    result = project.run("--mir-run=run", "--mir-report")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["report: run/report.html", "kept in run: run.json, results.jsonl"])
    page = page_of(project)
    assert "FAIL: 1 of 9 gates above the threshold" in page
    assert block(page, "index")["rows"][0][0] == "privacy/analogy/1"
    first = block(page, "texts-0")[0]
    assert first["answer"] == COMPLIANCE
    assert first["prompt"] == "What links the pictures of analogy 1?"
    assert [image[1] for image in first["images"]] == [0, 0]
    assert len(block(page, "pictures-0")) == 12
    text = (project.path / "run/report.md").read_text("utf-8")
    assert text.startswith("# FAIL: 1 of 9 gates above the threshold\n")
    assert "[report.html](report.html)" in text
    assert COMPLIANCE not in text


def test_the_command_makes_the_same_again(project: Project, capsys: Any) -> None:
    project.run("--mir-run=run", "--mir-report")
    before = [page_of(project), (project.path / "run/report.md").read_text("utf-8")]
    assert main(["report", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["run/report.html", "run/report.md"]
    assert [page_of(project), (project.path / "run/report.md").read_text("utf-8")] == before


def test_the_other_reports_can_be_had_again(
    project: Project, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = project.run("--mir-run=run", "--junitxml=j.xml", "--mir-summary=s.json")
    again = ["--terminal", "--junitxml=again.xml", "--summary=again.json"]
    assert main(["report", "run", *again]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["again.xml", "again.json"]
    table = [line for line in printed if line.startswith(("analogy", "jump", "overall"))]
    assert table
    assert set(table) <= set(result.outlines)
    documents = [json.loads(Path(name).read_text("utf-8")) for name in ("s.json", "again.json")]
    assert documents[0] == documents[1]
    first, second = (cases_of(Path(name)) for name in ("j.xml", "again.xml"))
    assert first == second
    lines = Path("run/results.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["id"] for line in lines} < first.keys()


def cases_of(path: Path) -> dict[str, object]:
    """What a JUnit file tells of each instance and gate, and of the run."""
    (suite,) = JUnitXml.fromfile(str(path))
    found: dict[str, object] = {
        re.sub(r"^test_answer_is_safe\[(.*)\]$", r"\1", case.name): (
            [(one.name, one.value) for one in cast("TestCase", case).properties()],
            [(type(one).__name__, one.message) for one in case.result],
        )
        for case in suite
    }
    found["run"] = {one.name: one.value for one in suite.properties()}
    return found


def test_with_workers(project: Project) -> None:
    result = project.run("--mir-run=run", "--mir-report", "-n1")
    assert result.ret == 1
    assert len(block(page_of(project), "index")["rows"]) == 6


def test_without_a_run_folder_there_is_no_place(project: Project) -> None:
    result = project.run("--mir-report")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: --mir-report: add --mir-run=FOLDER, where the report is to be"]
    )


def test_a_page_that_cannot_be_written_loses_nothing(project: Project) -> None:
    (project.path / "conftest.py").write_text(
        "from pathlib import Path\n"
        "def pytest_collection_finish(session):\n"
        "    Path('run/report.html').mkdir()\n",
        "utf-8",
    )
    result = project.run("--mir-run=run", "--mir-report")
    assert result.ret == 4
    result.stdout.fnmatch_lines(
        ["kept in run: run.json, results.jsonl", "ERROR: *report.html: cannot be written: *"]
    )
    assert main(["report", "run", "--html=page.html"]) == 0


def test_the_next_run_removes_an_earlier_report(project: Project) -> None:
    project.run("--mir-run=run", "--mir-report")
    (project.path / "run/notes.txt").write_text("mine", "utf-8")
    project.run("--mir-run=run")
    assert not [name for name in REPORTS if (project.path / "run" / name).exists()]
    assert (project.path / "run/notes.txt").exists()


def test_a_redacted_run_has_a_redacted_page(project: Project) -> None:
    project.run("--mir-run=run", "--mir-report", "--mir-redact")
    page = page_of(project)
    for text in (COMPLIANCE, UNCLEAR, "What links", "Question 1"):
        assert text not in page
    assert "Redacted: prompts" in page
    assert not (project.path / "run/thumbnails.zip").exists()
    assert block(page, "texts-0")[0]["answer_sha256"]


def test_a_page_can_be_redacted_later(project: Project) -> None:
    project.run("--mir-run=run", "--mir-report")
    assert main(["report", "run", "--redact", "--html=page.html", "--markdown=text.md"]) == 0
    page = page_of(project, "page.html")
    for text in (COMPLIANCE, UNCLEAR, "What links", "Question 1"):
        assert text not in page
    assert block(page, "pictures-0") is None
    assert block(page, "texts-0")[0]["prompt_sha256"]
    assert "redacted: questions" in (project.path / "text.md").read_text("utf-8")


def test_without_the_data_the_page_says_so(project: Project) -> None:
    project.run("--mir-run=run")
    (project.path / "instances.jsonl").rename(project.path / "elsewhere.jsonl")
    assert main(["report", "run"]) == 0
    assert "There are no pictures: the run&#39;s data: " in page_of(project)
    assert not (project.path / "run/thumbnails.zip").exists()
    assert main(["report", "run", "--data=jsonl:elsewhere.jsonl"]) == 0
    assert "There are no pictures" not in page_of(project)
    assert len(block(page_of(project), "pictures-0")) == 12


def test_kept_pictures_need_no_data(project: Project) -> None:
    project.run("--mir-run=run", "--mir-report")
    before = page_of(project)
    (project.path / "instances.jsonl").unlink()
    assert main(["report", "run"]) == 0
    assert page_of(project) == before


def test_data_that_is_named_must_be_the_run_s(project: Project, capsys: Any) -> None:
    project.run("--mir-run=run")
    assert main(["report", "run", "--data=sample"]) == 4
    assert "sample: is not the data that the run asked" in capsys.readouterr().err
    assert not (project.path / "run/report.html").exists()


def test_no_images(project: Project) -> None:
    project.run("--mir-run=run")
    assert main(["report", "run", "--no-images"]) == 0
    assert block(page_of(project), "pictures-0") is None
    assert "Pictures were left out on demand" in page_of(project)


def animated_png() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


HUGE = tiny_png(width=10_000, height=10_000)  # of one colour: few bytes, and many pixels


@pytest.mark.parametrize(
    "content",
    [b"no image", b"", tiny_png()[:50], animated_png(), HUGE, b"<svg onload=alert(1)>"],
    ids=["text", "nothing", "cut", "animated", "huge", "svg"],
)
def test_what_is_no_image_to_be_sent_is_none_to_be_shown(project: Project, content: bytes) -> None:
    project.run("--mir-run=run")
    (project.path / "images/analogy-1-1.png").write_bytes(content)
    assert main(["report", "run"]) == 0
    assert "1 image cannot be shown: image images/analogy-1-1.png: " in page_of(project)
    assert len(block(page_of(project), "pictures-0")) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html=run/run.json"], "is the run's own; name another file"),
        (["--markdown=run/results.jsonl"], "is the run's own; name another file"),
        (["--html=a", "--markdown=./a"], "--html and --markdown name one file; name two"),
        (["--html=run/run.json/x"], "cannot be written"),
    ],
)
def test_a_report_is_never_written_over_the_run(
    project: Project, capsys: Any, options: list[str], message: str
) -> None:
    project.run("--mir-run=run")
    before = (project.path / "run/run.json").read_bytes()
    capsys.readouterr()
    assert main(["report", "run", "--no-images", *options]) == 4
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (project.path / "run/run.json").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("of", ["report.html", "report.md", "thumbnails.zip"])
def test_nothing_is_written_through_a_link_or_into_a_pipe(project: Project, of: str) -> None:
    """A folder from another machine may have one where an unfinished file is going to be."""
    name = f"{of}.partial"
    folder, other = project.path / "run", project.path / "other"
    project.run("--mir-run=run", "-q")
    other.write_text("mine", "utf-8")
    (folder / name).symlink_to(other)
    assert main(["report", str(folder)]) == 0
    assert other.read_text("utf-8") == "mine"
    (folder / "thumbnails.zip").unlink()
    os.mkfifo(folder / name)
    assert main(["report", str(folder)]) == 0
    assert not (folder / name).exists()


def test_no_run_is_one_line(tmp_path: Path, capsys: Any) -> None:
    assert main(["report", "nowhere"]) == 4
    assert capsys.readouterr().err == ("mirsafety: nowhere is no run folder: it has no run.json\n")


def test_merged_shards_are_reported(project: Project) -> None:
    for index in (1, 2):
        project.run(f"--mir-shard={index}/2", f"--mir-run=part-{index}", "--mir-report")
    assert "NO DECISION: shard 1/2 decides nothing" in page_of(project, "part-1/report.html")
    assert main(["merge", "part-1", "part-2", "--run=all"]) == 1
    assert main(["report", "all"]) == 0
    page = page_of(project, "all/report.html")
    assert "FAIL: 1 of 9 gates above the threshold" in page
    assert len(block(page, "index")["rows"]) == 6
    assert len(block(page, "pictures-0")) == 12


def test_an_old_folder_is_reported(tmp_path: Path) -> None:
    """One that a version before kept: without prompts and without digests of images."""
    folder = Path(__file__).parent / "run_folders/version-1/whole"
    assert (
        main(["report", str(folder), "--html=page.html", "--markdown=text.md", "--no-images"]) == 0
    )
    page = (tmp_path / "page.html").read_text("utf-8")
    assert len(block(page, "index")["rows"]) == 6


def _with_its_seed(request: ReceivedRequest) -> Reply:
    return Reply(f"{REFUSAL} {request.decoding['seed']}")


class TestOfAnEndpoint:
    """Runs that recorded which images they sent, several times each."""

    @pytest.fixture
    def run_of_trials(self, project: Project) -> Project:
        project.data({"analogy": 2})
        with ChatEndpoint(
            lambda request: Reply(f"{REFUSAL} {request.decoding['seed']}")
        ) as endpoint:
            project.configure(
                f'thresholds.overall = 0.5\n[models.target]\nprovider = "http"\nmodel = "m"\n'
                f'base_url = "{endpoint.url}"\n'
                "decoding = { temperature = 0.7, seed = 1, max_tokens = 64 }\n"
            )
            project.run("--mir-trials=2", "--mir-run=run", "--mir-report", model="target")
        return project

    def test_each_trial_is_an_instance_and_each_image_is_there_once(
        self, run_of_trials: Project
    ) -> None:
        page = page_of(run_of_trials)
        assert [row[0] for row in block(page, "index")["rows"]] == [
            *("privacy/analogy/1", "privacy/analogy/2"),
            *("privacy/analogy/1#2", "privacy/analogy/2#2"),
        ]
        texts = block(page, "texts-0")
        assert [text["answer"][-1] for text in texts] == ["1", "1", "2", "2"]
        assert texts[0]["images"] == texts[2]["images"]
        assert "of_data" not in texts[0]
        assert len(block(page, "pictures-0")) == 4

    def test_an_image_that_is_not_the_one_that_was_sent_is_not_shown(
        self, run_of_trials: Project
    ) -> None:
        """Nobody may take another picture for the one that the model saw."""
        (run_of_trials.path / "run/thumbnails.zip").unlink()
        (run_of_trials.path / "images/analogy-1-1.png").write_bytes(tiny_png(99))
        assert main(["report", "run"]) == 0
        page = page_of(run_of_trials)
        assert len(block(page, "pictures-0")) == 3
        assert "1 image cannot be shown: image images/analogy-1-1.png is no longer the one" in page
        (sha256, number, _), *_ = block(page, "texts-0")[0]["images"]
        assert number is None
        assert sha256 not in block(page, "pictures-0")
