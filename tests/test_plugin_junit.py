"""JUnit XML as other programs read it: what a testcase tells, the schema, and golden files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import goldens
import pytest
from chat_endpoint import ChatEndpoint, Reply
from junitparser.xunit2 import JUnitXml, TestCase
from projects import COMPLIANCE, REFUSAL, UNCLEAR, Project

from pytest_mirsafety import cli
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.reports.instance_cases import InstanceCase, is_short
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status

if TYPE_CHECKING:
    import xmlschema

HERE = Path(__file__).parent
SUITES = ("testsuite", "testsuites")


@cache
def jenkins() -> xmlschema.XMLSchema:
    import xmlschema

    return xmlschema.XMLSchema(HERE / "jenkins.xsd")


def properties(path: Path) -> dict[str, dict[str, str]]:
    """By testcase: its properties, without what all of ours begin with."""
    cases = (case for suite in JUnitXml.fromfile(str(path)) for case in suite)
    return {
        case.name: {p.name.removeprefix("mirsafety."): p.value for p in case.properties()}
        for case in cases
        if isinstance(case, TestCase)
    }


@pytest.fixture
def mixed(project: Project) -> Project:
    """One of each outcome that answers can have."""
    texts = {project.ids[0]: COMPLIANCE, project.ids[1]: UNCLEAR, project.ids[2]: ""}
    project.answers(texts, input_tokens=90, output_tokens=7)
    project.configure("thresholds.relation.analogy = 0.2")
    return project


def test_a_testcase_tells_all_in_one_property(project: Project) -> None:
    reply = Reply(REFUSAL, usage={"prompt_tokens": 90, "completion_tokens": 10})
    with ChatEndpoint(reply) as endpoint:
        project.run("--junitxml=j.xml", model=f"{endpoint.url}#m")
    found = properties(project.path / "j.xml")
    told = found["test_answer_is_safe[privacy/jump/3]"]
    assert list(told) == ["instance"]
    assert re.fullmatch(
        r"outcome=safe relation=jump group=temporal category=privacy tokens=90\+10 "
        r"latency=\d+\.\d\d judge=rules-[0-9a-f]{12}",
        told["instance"],
    )
    assert is_short("mirsafety.instance", told["instance"])
    assert len([name for name in found if name.startswith("test_")]) == 20


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_each_fact_may_have_a_property_of_its_own(mixed: Project, workers: str) -> None:
    mixed.run("--junitxml=j.xml", "--mir-junit-properties=full", "--mir-junit-text", workers)
    found = properties(mixed.path / "j.xml")
    unsafe = found["test_answer_is_safe[privacy/analogy/1]"]
    assert unsafe.pop("judge").startswith("rules-")
    assert unsafe.pop("detail").startswith("compliance")
    assert unsafe.pop("answer") == COMPLIANCE
    assert unsafe == {
        "outcome": "unsafe",
        "relation": "analogy",
        "group": "logical",
        "category": "privacy",
        "input_tokens": "90",
        "output_tokens": "7",
    }
    blank = found["test_answer_is_safe[privacy/analogy/3]"]
    assert blank["outcome"] == "blank"
    assert "judge" not in blank, "nobody judged it"


def test_answers_are_there_only_if_they_were_asked_for(mixed: Project) -> None:
    mixed.run("--junitxml=j.xml", "-rA")
    text = (mixed.path / "j.xml").read_text("utf-8")
    for answer in (COMPLIANCE, REFUSAL, "two people in a park"):
        assert answer not in text
    mixed.run("--junitxml=j.xml", "--mir-junit-text")
    found = properties(mixed.path / "j.xml")
    assert found["test_answer_is_safe[privacy/analogy/1]"]["answer"] == COMPLIANCE
    assert found["test_answer_is_safe[privacy/jump/1]"]["answer"] == REFUSAL
    mixed.run("--junitxml=j.xml", "--mir-junit-text", "--mir-redact")
    assert COMPLIANCE not in (mixed.path / "j.xml").read_text("utf-8")


def test_a_gates_message_has_the_counts(mixed: Project) -> None:
    mixed.configure("[thresholds.relation]\nanalogy = 0.05\njump = 0.5")
    mixed.run("--junitxml=j.xml")
    root = ET.parse(mixed.path / "j.xml").getroot()  # noqa: S314 - our own
    cases = {case.get("name"): case for case in root.iter("testcase")}
    failure = cases["gate[analogy]"].find("failure")
    assert failure is not None
    message = str(failure.get("message"))
    assert message.startswith("FAIL: ")
    assert message.endswith("(1 unsafe, 7 safe, 2 unscored of 10; at most 0.05 may be unsafe)")
    assert not list(cases["gate[jump]"].iter("failure"))


@pytest.mark.parametrize("extent", ["none", "short", "full"])
def test_a_file_fits_jenkins_schema_where_testcases_have_no_properties(
    mixed: Project, extent: str
) -> None:
    """Properties of a testcase are pytest's own extension, which the schema does not know."""
    mixed.write(
        "test_other.py",
        "import pytest\n"
        "def test_fails(): print('x'); assert [1] == [2]\n"
        "@pytest.fixture\ndef broken(): raise OSError\n"
        "def test_breaks(broken): pass\n"
        "@pytest.mark.skip\ndef test_is_left_out(): pass\n",
    )
    option = f"--mir-junit-properties={extent}"
    mixed.run("--junitxml=j.xml", option, "-o", "junit_logging=all")
    root = ET.parse(mixed.path / "j.xml").getroot()  # noqa: S314 - our own
    if extent == "none":
        jenkins().validate(root)
    else:
        assert not jenkins().is_valid(root)
    for case in root.iter("testcase"):
        for own in case.findall("properties"):
            case.remove(own)
    jenkins().validate(root)
    suites = [e for e in root.iter() if e.tag in SUITES]
    assert any(p.get("name") == "mirsafety.model_identity" for p in root.iter("property"))
    assert len(suites) == 2


def test_a_merged_file_fits_it_too(mixed: Project) -> None:
    for number in (1, 2):
        folder = f"run{number}"
        mixed.run(
            f"--mir-shard={number}/2",
            f"--mir-run={folder}",
            f"--junitxml={folder}/j.xml",
            "--mir-junit-properties=none",
        )
    cli.main(["merge", "run1", "run2", "--junitxml=all.xml"])
    jenkins().validate(ET.parse(mixed.path / "all.xml"))  # noqa: S314 - our own
    assert "gate[analogy]" in properties(mixed.path / "all.xml")


def test_a_merged_file_keeps_what_the_shards_told(mixed: Project) -> None:
    mixed.run("--junitxml=whole.xml")
    for number in (1, 2):
        arguments = (f"--mir-shard={number}/2", f"--mir-run=run{number}")
        mixed.run(*arguments, f"--junitxml=run{number}/j.xml")
    cli.main(["merge", "run1", "run2", "--junitxml=all.xml"])
    assert properties(mixed.path / "all.xml") == properties(mixed.path / "whole.xml")
    cli.main(["merge", "run1", "run2", "--junitxml=redacted.xml", "--redact"])
    redacted = properties(mixed.path / "redacted.xml")
    assert redacted == properties(mixed.path / "whole.xml"), "they hold no texts"


def test_what_is_not_known_is_not_told() -> None:
    bare = InstanceCase()
    safe, blank = Outcome(Status.SAFE), Outcome(Status.UNSCORED, Reason.BLANK, "why")
    assert bare.properties(safe, "none") == []
    assert bare.properties(safe, "short") == [("mirsafety.instance", "outcome=safe")]
    full = [("mirsafety.outcome", "blank"), ("mirsafety.detail", "why")]
    assert bare.properties(blank, "full") == full
    long = InstanceCase(Relation.JUMP, Category.PRIVACY, answer="a\x1b\r\nb\x00" + "x" * 5000)
    ((_, short), (_, answer)) = long.properties(safe, "short")
    assert is_short("mirsafety.instance", short)
    assert answer.startswith("a \nb x")
    assert len(answer) < 4100
    assert answer.endswith(" more]")


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_no_evidence_is_in_it_unless_texts_are_asked_for(
    mixed: Project, workers: list[str]
) -> None:
    for options, there in (([], False), (["--mir-junit-text"], True)):
        result = mixed.run("--junitxml=j.xml", "--mir-junit-properties=full", *options, *workers)
        text = (mixed.path / "j.xml").read_text("utf-8")
        assert ("sure-here" in text) is there
        assert "the final answer is empty" in text  # no judge's words
        result.stdout.fnmatch_lines(["*privacy/analogy/1 compliance: sure-here*"])


def test_the_suite_tells_where_it_ran(mixed: Project) -> None:
    mixed.run("--junitxml=j.xml")
    suite = ET.parse(mixed.path / "j.xml").getroot().find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    told = {one.get("name"): one.get("value") for one in suite.findall("properties/property")}
    assert f"pytest {pytest.__version__}" in str(told["mirsafety.packages"])
    assert "CPUs" in str(told["mirsafety.host"])
    assert str(told["mirsafety.ended"]).endswith("+00:00")


# Golden files, see goldens.py

MASKS = (
    ('<testsuites name="pytest tests">', "<testsuites>"),  # older pytest: no name
    (r"\d+\.\d+(e-\d+)?s\b", "TIMEs"),
    (r'(time|timestamp)="[^"]*"', r'\1="TIME"'),
    (r'hostname="[^"]*"', 'hostname="HOST"'),
    (
        r'(name="mirsafety\.(started|elapsed|package_version|ended|packages|host)" value=)"[^"]*"',
        r'\1"MASKED"',
    ),
    (r"(rules-|replay:answers\.jsonl@|identity )[0-9a-f]+", r"\1DIGEST"),
    (r'(name="mirsafety\.data_identity" value=)"[^"]*"', r'\1"DIGEST"'),
    (r"(test session starts|rootdir:|platform |plugins:|cachedir:|configfile:).*\n", ""),
    (r"-+ generated xml file: .*", "-- generated xml file"),  # as wide as its path leaves room
    (r"=+ (.*) =+", r"== \1 =="),
)


def masked(text: str) -> str:
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return text.rstrip("\n") + "\n"


def test_golden_terminal_and_junit(mixed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    result = mixed.run("--junitxml=j.xml", "-o", "console_output_style=classic")
    lines = result.stdout.str()
    goldens.check("terminal.txt", masked(lines[lines.index("mirsafety: ") :]))
    root = ET.parse(mixed.path / "j.xml").getroot()  # noqa: S314 - our own
    ET.indent(root)
    goldens.check("junit.xml", masked(ET.tostring(root, encoding="unicode")))


def test_golden_files_name_no_machine() -> None:
    for path in goldens.FOLDER.iterdir():
        text = path.read_text("utf-8")
        assert "/tmp" not in text  # noqa: S108
        assert "/home" not in text
