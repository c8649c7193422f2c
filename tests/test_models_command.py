"""`mirsafety models`, as a user sees it in a window of 80 columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_mirsafety.cli import main
from pytest_mirsafety.config import ModelSettings
from pytest_mirsafety.registry import builtin_models, declares_greedy

CONFIGURATION = """
[models.llava-ov]
concurrency = 4
decoding = { temperature = 0.7 }
[models."gpt-5.1"]
provider = "http"
base_url = "http://127.0.0.1:9/v1"
[models.mine]
provider = "my_models:factory"
model = "in-house"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, and a window of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "mirsafety.toml").write_text(CONFIGURATION, "utf-8")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["models", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_every_model_has_its_row_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys)
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    for name, model in builtin_models().items():
        assert sum(line[1:].startswith(f"{name} ") for line in lines) == 1
        assert model.model in output
    shown = [
        "provider vllm",
        " name                      img. decoding model",
        "*llava-ov                  many sampled  llava-hf/llava-onevision-qwen2-7b-ov-hf",
        " llava-1.5-7b              one  greedy   llava-hf/llava-1.5-7b-hf",
        "provider openai",
        " gpt-4o                    1500 own      gpt-4o",
        "provider http",
        "*gpt-5.1                   1500 own      gpt-5.1",
        " gemini-2.5-pro            3600 own      gemini-2.5-pro",
        "provider my_models:factory",
        "+mine                      many own      in-house",
        " demo                      many recorded sample",
    ]
    assert [line for line in shown if line not in lines] == []


def test_an_identifier_that_does_not_fit_stands_whole_in_the_next_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = said(capsys).splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith(" mistral-small-3.1 "))
    assert lines[place + 1].strip() == "mistralai/Mistral-Small-3.1-24B-Instruct-2503"


def test_one_model_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        said(capsys, "llava-ov")
        == """\
llava-ov: LLaVA-OneVision 7B; decoding is our choice
  run it:     pytest --mllm=llava-ov
  needs:      the package vllm in this environment, and memory for the weights
  images:     several in a request
  decoding:   sampled, at temperature 0.7
  estimand:   "model" by default: the rate is of what the model would answer in
              the long run
  reasoning:  nothing is taken off the front of an answer

  built-in        provider = "vllm"
  built-in        model = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
  built-in        revision = "0d50680527681998e456c7b78950205bedd8a068"
  mirsafety.toml  decoding = { temperature = 0.7 }
  built-in        reasoning_markers = []
  mirsafety.toml  concurrency = 4
  defaults: image_tokens = 1000, judge_cut_answers = false,
    allow_screening_judge = false, single_image = false,
    needs_remote_code = false, trust_remote_code = false, data_parallel = 1,
    timeout = 600.0, max_retries = 8, dtype = "auto", tensor_parallel = 1,
    start_timeout = 1800.0
"""
    )


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("demo", ["  needs:      nothing more: nothing is asked"]),
        (
            "gpt-4o",
            [
                "  needs:      an API key in OPENAI_API_KEY",
                "  images:     several in a request, 1500 at most",
                "  decoding:   the provider's own: no temperature is sent",
            ],
        ),
        ("gemini-2.5-pro", ["              API key in GEMINI_API_KEY"]),
        ("gpt-5.1", ["  needs:      a server at http://127.0.0.1:9/v1"]),
        ("mine", ["  needs:      your module my_models"]),
        (
            "llava-1.5-7b",
            ["  images:     one in a request: those of an instance are put side by side"],
        ),
        (
            "qwen2.5-vl-3b",
            ['              \'{"min_pixels": 50176, "max_pixels": 1003520}\']'],
        ),
        (
            "kimi-vl-a3b-thinking-2506",
            ["  reasoning:  what stands in ◁think▷...◁/think▷ is taken off the front of an"],
        ),
        (
            "http://h/v1#m",
            [
                "  run it:     pytest --mllm='http://h/v1#m'",
                "  --mllm  decoding = { temperature = 0 }",
            ],
        ),
    ],
)
def test_what_a_model_needs_and_does_is_told(
    capsys: pytest.CaptureFixture[str], name: str, lines: list[str]
) -> None:
    output = said(capsys, name).splitlines()
    assert [line for line in lines if line not in output] == []


@pytest.mark.parametrize("name", builtin_models())
def test_every_model_can_be_explained_in_80_columns(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    output = said(capsys, name)
    assert max(map(len, output.splitlines())) <= 80
    estimand = '"answers"' if declares_greedy_now(name) else '"model"'
    assert f"  estimand:   {estimand} by default" in output


def declares_greedy_now(name: str) -> bool:
    """Whether it is greedy, with the configuration of this file."""
    return name != "llava-ov" and declares_greedy(builtin_models()[name])


def test_the_configured_estimand_is_told_beside_the_default(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "mirsafety.toml").write_text('estimand = "items"', "utf-8")
    output = said(capsys, "llava-ov")
    assert '  estimand:   "items", as your configuration says; "answers" by default' in output


def test_tools_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {entry["name"]: entry for entry in json.loads(said(capsys, "--json"))}
    assert set(listed) == {*builtin_models(), "mine"}
    assert listed["llava-ov"]["origin"] == "overridden"
    assert listed["mine"]["origin"] == "configured"
    assert listed["gpt-4o"] == {
        "name": "gpt-4o",
        "origin": "built-in",
        "provider": "openai",
        "model": "gpt-4o",
        "revision": None,
        "single_image": False,
        "max_images": 1500,
        "context_length": 128000,
        "decoding": {},
        "greedy": False,
        "default_estimand": "model",
        "about": "MIR-SafetyBench's GPT-4o",
    }
    one = json.loads(said(capsys, "llava-ov", "--json"))
    assert one["command"] == "pytest --mllm=llava-ov"
    assert one["fields"]["concurrency"] == {"value": 4, "from": "mirsafety.toml"}
    assert one["fields"]["provider"] == {"value": "vllm", "from": "built-in"}
    assert one["fields"]["max_retries"] == {"value": 8, "from": "default"}
    assert "image_transport" not in one["fields"], "the server that is started decides"


def test_a_typo_gets_the_nearest_names(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "llava-vo", code=4)
    assert line.startswith("mirsafety: models: no model 'llava-vo'; did you mean 'llava-ov', ")
    assert line.count("\n") == 1


def test_a_wrong_configuration_is_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "mirsafety.toml").write_text("models.llava-ov.concurrency = 0", "utf-8")
    line = said(capsys, code=4)
    assert line.startswith("mirsafety: mirsafety.toml: models.llava-ov.concurrency: ")
    assert line.count("\n") == 1


def test_hostile_words_of_a_configuration_are_made_harmless(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    hostile = (
        'models."a\\u001b[31m" = { provider = \'x:y\', model = "m\\u001b\\n", about = "\\u001b" }'
    )
    (folder / "mirsafety.toml").write_text(hostile, "utf-8")
    listed, explained = said(capsys), said(capsys, "a\x1b[31m")
    assert "\x1b" not in listed + explained


def test_every_field_that_a_model_may_have_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    fields = json.loads(said(capsys, "demo", "--json"))["fields"]
    assert fields.keys() <= ModelSettings.model_fields.keys()
    set_here = {key for key, field in fields.items() if field["from"] == "built-in"}
    assert set_here == builtin_models()["demo"].model_fields_set
