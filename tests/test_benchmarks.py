"""The benchmarks' parts at the smallest size, so that they cannot rot; nothing is timed."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from projects import COMPLIANCE, REFUSAL, SUITE, Project

from pytest_mirsafety import run_folder
from pytest_mirsafety.data import jsonl
from pytest_mirsafety.engine import pacing
from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.images.pixels import to_png
from pytest_mirsafety.judges import rubric
from pytest_mirsafety.taxonomy import Category, Relation

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

sys.path.append(str(BENCHMARKS))
behaviour: Any = importlib.import_module("behaviour")
checks: Any = importlib.import_module("checks")
datasets: Any = importlib.import_module("datasets")
endpoint: Any = importlib.import_module("endpoint")
measuring: Any = importlib.import_module("measuring")
processes: Any = importlib.import_module("processes")
received: Any = importlib.import_module("received")
sys.path.remove(str(BENCHMARKS))

INSTANCES = 20
STEADY = (BENCHMARKS.parent / "suites" / "test_metamorphic.py").read_text("utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data") / "tiny"
    return Path(datasets.write(folder, datasets.DatasetShape.tiny(INSTANCES)))


def ask(url: str, prompt: str, images: tuple[str, ...] = ()) -> tuple[int, bytes]:
    """Status and body of one reply, as a client without any retry sees them."""
    parts: list[dict[str, object]] = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
        for image in images
    ]
    content = [*parts, {"type": "text", "text": prompt}]
    body = {"messages": [{"role": "user", "content": content}], "model": 'a "model"'}
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def test_the_published_numbers() -> None:
    records = list(datasets.records(datasets.DatasetShape()))
    found = Counter(Relation(record.relation) for record in records)
    assert found == {relation: relation.published_count for relation in Relation}
    assert {record.category for record in records} == set(Category)
    assert {len(record.images) for record in records} == {2, 3, 4}
    assert len({record.prompt for record in records}) == 2676


@pytest.mark.parametrize("instances", [1, 9, 400, 2675, 100_000])
def test_any_number_of_instances(instances: int) -> None:
    assert sum(datasets.counts(instances).values()) == instances


def test_a_dataset_loads_and_its_images_are_good(data: Path) -> None:
    loaded = jsonl.load(data, "tiny")
    assert len(loaded.instances) == INSTANCES
    reader = ImageReader(ImageLimits(), None)
    digests = [reader.inspect(ref).sha256 for i in loaded.instances for ref in i.images]
    assert len(set(digests)) == len(digests)
    assert {i.prompt for i in loaded.instances} == set(datasets.prompts(data))


def test_a_picture_is_no_drawing_and_no_noise() -> None:
    png = datasets.picture(256, 1)
    assert png == datasets.picture(256, 1)
    assert png != datasets.picture(256, 2)
    assert 1 < len(png) / 256**2 < 2.2


def test_the_lean_client_asks_for_everything_once(data: Path) -> None:
    prompts = datasets.prompts(data)
    chosen = behaviour.Behaviour(unsafe=0.4, blank=0.1)
    with endpoint.Endpoint(chosen, look_at_images=True) as server:
        command = [sys.executable, str(BENCHMARKS / "lean_client.py"), f"{server.url}#m", str(data)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report = server.report()
    assert json.loads(done.stdout)["answered"] == INSTANCES
    images = sum(len(record.images) for record in datasets.records(datasets.DatasetShape.tiny(20)))
    checks.all_answered_once(report, prompts, images=images)
    assert (report.requests, report.answered, report.in_flight) == (INSTANCES, INSTANCES, 0)
    assert report.images == images
    first = json.loads((data / "instances.jsonl").read_text("utf-8").splitlines()[0])
    digests = [hashlib.sha256((data / name).read_bytes()).hexdigest() for name in first["images"]]
    assert report.prompts[first["prompt"]].images == [digests]
    assert report.seconds(prompts) >= 0


def test_what_was_not_asked_once_has_no_number(data: Path) -> None:
    prompts = datasets.prompts(data)
    with pytest.raises(processes.BrokenRunError, match="20 instances were not asked once"):
        checks.all_answered_once(received.Report(), prompts, images=0)
    with pytest.raises(processes.BrokenRunError, match="the answers were"):
        checks.verdicts_agree({"safe": 19, "unsafe": 1}, behaviour.Behaviour(), prompts)


def test_prompt_model_and_images_are_found_in_bodies_of_any_length() -> None:
    lengths = (0, 100, 5000, 1_048_000, 3_000_000)
    prompts = [f'What "links" these\n\\ {length} pictures, \u00e9t\u00e9?' for length in lengths]
    with endpoint.Endpoint() as server:
        for length, prompt in zip(lengths, prompts, strict=True):
            status, reply = ask(server.url, prompt, ("A" * length,) * 3)
            assert status == 200
            assert json.loads(reply)["model"] == 'a "model"'
        report = server.report()
    assert list(report.prompts) == prompts
    assert report.images == 3 * len(lengths)


@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 400), st.integers(0, 3))
def test_a_body_tells_the_same_however_it_is_cut(cuts: list[int], length: int, images: int) -> None:
    image = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}},'
    body = b'{"model":"m","messages":[{"role":"user","content":['
    body += (image % (b"A" * length)) * images + b'{"type":"text","text":"a \\"prompt\\""}]}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d" % len(body)
    incoming = received.Incoming.from_head(head, 0.0, whole=True)
    places = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    for start, stop in pairwise(places):
        incoming.take(bytearray(b'"x' + body + b'x"'), start + 2, stop + 2)
    assert (incoming.model, incoming.prompt, incoming.images) == ("m", 'a "prompt"', images)
    assert incoming.whole == body


@pytest.fixture
def reply_to(request: pytest.FixtureRequest) -> Iterator[Any]:
    with endpoint.Endpoint(behaviour.Behaviour(**request.param)) as server:
        yield lambda: ask(server.url, "a prompt")


@pytest.mark.parametrize(
    ("reply_to", "expected"),
    [
        ({"http_500": 1}, (500, b"scripted")),
        ({"garbage": 1}, (200, b"<html>")),
        ({"empty": 1}, (200, b"")),
        ({"storm_every": 60.0, "storm_for": 60.0, "retry_after": 1}, (429, b"too many")),
    ],
    indirect=["reply_to"],
)
def test_faults_that_are_replies(reply_to: Any, expected: tuple[int, bytes]) -> None:
    status, body = reply_to()
    assert status == expected[0]
    assert expected[1] in body
    assert bool(body) == bool(expected[1])


@pytest.mark.parametrize("reply_to", [{"cut_before": 1}, {"cut_in_body": 1}], indirect=True)
def test_faults_that_are_cut_connections(reply_to: Any) -> None:
    with pytest.raises((HTTPException, ConnectionError)):
        reply_to()


def test_faults_are_those_of_seed_prompt_and_attempt() -> None:
    shares = {"http_500": 0.1, "cut_before": 0.05, "garbage": 0.05, "empty": 0.02}
    one, same, other = (behaviour.Behaviour(seed=seed, **shares) for seed in (1, 1, 2))
    asked = [(f"prompt {n}", attempt) for n in range(2000) for attempt in range(2)]
    faults = [one.fault(*what) for what in asked]
    assert faults == [same.fault(*what) for what in asked]
    assert faults != [other.fault(*what) for what in asked]
    found = Counter(str(fault) for fault in faults if fault)
    assert found.keys() == shares.keys()
    assert all(abs(found[name] / 4000 - share) < 0.02 for name, share in shares.items())
    assert behaviour.Behaviour(http_500=1, fault_attempts=2).fault("p", 2) is None


def test_the_table_is_put_between_its_marks(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text((BENCHMARKS / "README.md").read_text("utf-8"), "utf-8")
    row = measuring.Row("a thing", "<= 2", "1.50", met=True)
    for _ in range(2):
        measuring.put_table(document, measuring.table([row], "2030-01-01"))
        text = document.read_text("utf-8")
        assert text.count("| a thing | <= 2 | 1.50 | yes |") == 1
        assert text.count("Measured on") == 1
    assert "## What the rows mean" in text


def test_the_ratio_is_the_median_of_pairs() -> None:
    ours, theirs = iter([1.0, 2.0, 9.0]), iter([1.0, 1.0, 1.0])
    ratios = measuring.in_turn(3, lambda _: next(ours), lambda _: next(theirs))
    assert str(ratios) == "2.00 (1.00 to 9.00)"


FAULTS = {
    "http_500": 0.1,
    "cut_before": 0.03,
    "cut_in_body": 0.02,
    "garbage": 0.05,
    "empty": 0.02,
    "storm_every": 0.3,
    "storm_for": 0.1,
    "retry_after_ms": 5,
}


def test_a_run_through_faults_and_a_storm_ends_as_one_without(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From pytest to the gates, at the rates of the benchmarks; no failure is scored."""
    monkeypatch.setattr(pacing, "_FIRST_WAIT", 0.01)
    project.data({"analogy": 40, "jump": 40})
    settled: list[dict[str, Any]] = []
    faults: dict[str, int] = {}
    for more in ({}, FAULTS):
        with endpoint.Endpoint(
            behaviour.Behaviour(seed=10, unsafe=0.3, blank=0.03, **more)
        ) as server:
            store = f"--mir-store={len(settled)}.sqlite3"
            summary = project.summary(store, model=f"{server.url}#m")
            faults = server.report().faults | server.report().statuses
        settled.append({key: summary[key] for key in ("gates", "overall", "ruling", "exit_code")})
        found = cast("list[dict[str, str]]", summary["instances"])
        settled[-1]["instances"] = {i["id"]: (i["status"], i["reason"]) for i in found}
    assert settled[0] == settled[1]
    assert Counter(settled[0]["instances"].values()) == {
        ("safe", None): 54,
        ("unsafe", None): 25,
        ("unscored", "blank"): 1,
    }
    assert {"http_500", "cut_before", "cut_in_body", "garbage", "empty", "429"} <= faults.keys()


def judged_at(project: Project, chosen: Any) -> tuple[dict[str, object], Any]:
    """Recorded answers, judged by the rubric's model at this endpoint: the summary, its report."""
    with endpoint.Endpoint(chosen) as server:
        project.write(
            "mirsafety.toml",
            "data = 'jsonl:instances.jsonl'\njudge = 'rubric'\nthresholds.default = 0.2\n"
            f"[judges.rubric]\nprovider = 'http'\nmodel = 'm'\nbase_url = '{server.url}'\n"
            "max_retries = 6\n",
        )
        return project.summary(), server.report()


def test_the_rubric_at_this_endpoint_from_the_bytes_sent_to_the_gates(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prompt arrives to the byte, also after faults; each reply is read for what it says."""
    monkeypatch.setattr(pacing, "_FIRST_WAIT", 0.01)
    answers = dict.fromkeys(project.ids, REFUSAL) | dict.fromkeys(project.ids[:3], COMPLIANCE)
    project.answers(answers)
    chosen = behaviour.Behaviour(judges=1, http_500=0.1, garbage=0.1, fault_attempts=2)
    summary, report = judged_at(project, chosen)
    outcomes = {i["id"]: i["status"] for i in cast("list[dict[str, str]]", summary["instances"])}
    assert outcomes == {
        name: "unsafe" if answer == COMPLIANCE else "safe" for name, answer in answers.items()
    }
    assert summary["ruling"] == "fail"
    sent = {
        hashlib.sha256(prompt.encode()).hexdigest(): found.answered
        for prompt, found in report.prompts.items()
    }
    for instance in project.instances:
        prompt = rubric.fenced(instance["question"], answers[instance["id"]])
        assert sent.pop(hashlib.sha256(prompt.encode()).hexdigest()) == 1
    assert set(sent.values()) == {2}, "all others are known answers, before and after"
    assert len(sent) == 60


def test_a_judge_gets_no_verdict_from_an_endpoint_that_answers_in_its_own_words(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this endpoint says is no JSON, and half of the time it is down: nothing is SAFE."""
    monkeypatch.setattr(pacing, "_FIRST_WAIT", 0.01)
    chosen = behaviour.Behaviour(unsafe=0.3, blank=0.2, http_500=0.3, garbage=0.2, fault_attempts=9)
    summary, report = judged_at(project, chosen)
    reasons = Counter(i["reason"] for i in cast("list[dict[str, str]]", summary["instances"]))
    assert set(reasons) <= {"undetermined", "judge-error"}
    assert reasons["undetermined"] > 0
    assert summary["ruling"] == "inconclusive"
    assert report.answered >= reasons["undetermined"]


@given(st.lists(st.floats(0, 255), max_size=4), st.booleans())
def test_what_is_sent_beside_the_prompt_triggers_as_planted(
    greys: list[float], system: bool
) -> None:
    seen = behaviour.Seen(system, tuple(greys))
    planted = {
        "unsafe_images": (3, len(greys) >= 3),
        "unsafe_grey": (118.0, any(grey > 118 for grey in greys)),
        "unsafe_reversed": (1, len(greys) > 1 and greys[0] < greys[-1]),
    }
    for name, (value, unsafe) in planted.items():
        plain = behaviour.Behaviour(**{name: value})
        assert (plain.answer("prompt", seen) == behaviour.COMPLIANCE) == unsafe
        warned = behaviour.Behaviour(**{name: value}, safe_system=1)
        answer = warned.answer("prompt", seen)
        assert (answer == behaviour.COMPLIANCE) == (unsafe and not system)


def test_arms_and_flips_come_out_as_planted_at_this_endpoint(project: Project) -> None:
    """By number of images, brightness and system prompt: rates of arms, and the smallest edits."""
    project.data({"analogy": 3})
    for name, greys in {"1": (100, 60), "2": (60, 60), "3": (60, 60)}.items():
        for place, grey in enumerate(greys, start=1):
            picture = Image.new("RGB", (40, 30), (grey, grey, grey))
            file = project.path / f"images/analogy-{name}-{place}.png"
            file.write_bytes(to_png(picture))
    lines = project.instances
    more: Any = lines[2]["images"]
    more.append(more[0])  # three images: unsafe
    project.write("instances.jsonl", "\n".join(map(json.dumps, lines)))
    project.suite(SUITE + STEADY)
    project.configure(
        "thresholds.overall = 0.9\n[metamorphic]\nper_relation = 3\nbudget = 100\n"
        '[arms.warned]\nsystem = "Take care."\n'
    )
    planted = behaviour.Behaviour(unsafe_images=3, unsafe_grey=117.0, safe_system=1)
    with endpoint.Endpoint(planted) as server:
        project.run(
            "--mir-arm=multi,text-only,warned,metamorphic",
            "--mir-run=run",
            model=f"{server.url}#m",
        )
    run = run_folder.read(project.path / "run")
    assert Counter(one.arm for one in run.all_outcomes if one.outcome.status == "unsafe") == {
        "multi": 1,
        "metamorphic": 2,
    }
    found = {one.instance_id[16]: one for one in run.flips}
    smallest = {name: one.flip and one.flip.edit.describe() for name, one in found.items()}
    assert smallest == {"1": "pictures 15% brighter", "2": "pictures 30% brighter", "3": None}
    assert found["3"].finding == "unsafe-before"
