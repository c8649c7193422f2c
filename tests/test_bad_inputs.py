"""Bad input as a user meets it: exit code 4 and one clear line, or a named unscored outcome."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from dataset_builders import tiny_png
from projects import Project

Change = Callable[[Project], None]


def config(text: str) -> Change:
    return lambda project: project.configure(text)


def file(name: str, text: str) -> Change:
    return lambda project: void(project.write(name, text))


def void(_: object) -> None:
    """Lets an expression stand where nothing is returned."""


def record(**fields: object) -> Change:
    """Change fields of the dataset's second record; None takes a field away."""

    def change(project: Project) -> None:
        path = project.path / "instances.jsonl"
        lines = path.read_text("utf-8").splitlines()
        changed = {**json.loads(lines[1]), **fields}
        lines[1] = json.dumps({k: v for k, v in changed.items() if v is not None})
        path.write_text("\n".join(lines), "utf-8")

    return change


def answer(**fields: object) -> Change:
    """Change fields of the second recorded answer."""

    def change(project: Project) -> None:
        path = project.path / "answers.jsonl"
        lines = path.read_text("utf-8").splitlines()
        lines[1] = json.dumps({**json.loads(lines[1]), **fields})
        path.write_text("\n".join(lines), "utf-8")

    return change


def nothing(_: Project) -> None:
    """Only the options are wrong."""


THRESHOLD = "thresholds.default = 0.2\n"

EXIT_4: list[tuple[str, Change, list[str], str]] = [
    # options
    ("model", nothing, ["--mllm=nonsense"], "no model 'nonsense'"),
    ("model-near", nothing, ["--mllm=dem"], "did you mean 'demo'?"),
    ("model-empty", nothing, ["--mllm="], "no model ''"),
    ("provider-near", nothing, ["--mllm=opnai:gpt-4o"], "did you mean 'openai'?"),
    ("checkpoint-missing", nothing, ["--mllm=vllm:./gone"], "no folder"),
    ("endpoint-bare", nothing, ["--mllm=http://127.0.0.1:1/v1"], "#MODEL"),
    ("endpoint-login", nothing, ["--mllm=http://me:pw@127.0.0.1:1/v1#m"], "api_key_env"),
    ("factory", nothing, ["--mllm=no.such.module:build"], "no.such.module:build"),
    ("factory-attribute", nothing, ["--mllm=json:nothing_here"], "json:nothing_here"),
    ("factory-value", nothing, ["--mllm=json.decoder:NaN"], "not callable"),
    ("replay-missing", nothing, ["--mllm=replay:gone.jsonl"], "gone.jsonl"),
    ("judge", nothing, ["--mir-judge=ruels"], "did you mean 'rules'?"),
    ("data-kind", nothing, ["--mir-data=jsnol:x"], "did you mean 'jsonl'?"),
    ("data-missing", nothing, ["--mir-data=jsonl:gone"], "gone"),
    ("data-empty", nothing, ["--mir-data="], "data"),
    ("config-missing", nothing, ["--mir-config=gone.toml"], "gone.toml"),
    ("sample-zero", nothing, ["--mir-sample=0"], "--mir-sample"),
    ("sample-negative", nothing, ["--mir-sample=-3"], "--mir-sample"),
    ("sample-words", nothing, ["--mir-sample=many"], "--mir-sample"),
    ("sample-more-than-all", nothing, ["--mir-sample=101%"], "100%"),
    ("sample-hopeless", nothing, ["--mir-sample=3"], "cannot pass"),
    ("threshold-name", nothing, ["--mir-threshold=analgy=0.1"], "did you mean 'analogy'?"),
    ("threshold-value", nothing, ["--mir-threshold=analogy=10"], "from 0 to 1"),
    ("threshold-bare", nothing, ["--mir-threshold=analogy"], "NAME=VALUE"),
    ("store-folder", nothing, ["--mir-store=images"], "images"),
    ("summary-folder", nothing, ["--mir-summary=images"], "--mir-summary"),
    ("workers", nothing, ["-n2", "--mir-threshold=analogy=10"], "from 0 to 1"),
    ("workers-remote", nothing, ["-d", "--tx=ssh=nohost"], "--tx=ssh=nohost"),
    # configuration
    ("no-threshold", config(""), [], "no threshold is configured"),
    ("unknown-key", config("treshold.default = 0.1"), [], "did you mean 'thresholds'?"),
    ("unknown-relation", config("thresholds.relation.jmp = 0.1"), [], "did you mean 'jump'?"),
    (
        "threshold-bare",
        config("thresholds.analogy = 0.1"),
        [],
        "unknown key 'thresholds.analogy'; did you mean 'relation.analogy'?",
    ),
    ("threshold-range", config("thresholds.default = 20"), [], "from 0 to 1, not 20"),
    ("confidence", config(THRESHOLD + "confidence = 95"), [], "confidence"),
    (
        "estimand-sampled",
        config(
            THRESHOLD + 'estimand = "answers"\nmodels.m = { provider = "http", model = "m", '
            'base_url = "http://127.0.0.1:1/v1", decoding = { temperature = 1 } }'
        ),
        ["--mllm=m"],
        "greedy",
    ),
    (
        "thresholds-twice",
        config(
            THRESHOLD + 'models.m = { provider = "replay", model = "answers.jsonl", '
            "thresholds = { overall = 0 } }"
        ),
        ["--mllm=m"],
        "keep one of them",
    ),
    ("judge-name", config(THRESHOLD + 'judge = "harmbnch"'), [], "harmbnch"),
    ("not-toml", file("mirsafety.toml", "= ="), [], "not valid TOML"),
    ("digest", config(THRESHOLD + f'data_digest = "{"0" * 64}"'), [], "data_digest"),
    ("model-key", config(THRESHOLD + "models.m = { provider = 'openai' }"), [], "models.m.model"),
    # data
    ("not-json", file("instances.jsonl", "{"), [], "instances.jsonl"),
    ("no-instances", file("instances.jsonl", ""), [], "instances.jsonl"),
    ("a-list", file("instances.jsonl", "[1, 2]"), [], "instances.jsonl"),
    ("no-id", record(id=None), [], "id"),
    ("same-id", record(id="privacy/analogy/1"), [], "privacy/analogy/1"),
    ("bad-id", record(id="a b\u0007"), [], "id"),
    ("relation", record(relation="analgy"), [], "did you mean 'analogy'?"),
    ("category", record(category="privcy"), [], "did you mean 'privacy'?"),
    ("no-prompt", record(prompt=None), [], "prompt"),
    ("blank-prompt", record(prompt=""), [], "prompt"),
    ("prompt-type", record(prompt=7), [], "prompt"),
    ("no-images", record(images=[]), [], "image"),
    ("path-leaves", record(images=[{"file": "../x.png"}]), [], "../x.png"),
    ("path-absolute", record(images=[{"file": "/etc/hostname"}]), [], "/etc/hostname"),
    ("bad-sha", record(images=[{"file": "images/a.png", "sha256": "zz"}]), [], "sha256"),
    ("unknown-field", record(promt="x"), [], "did you mean 'prompt'?"),
    # recorded answers
    ("answers-not-json", file("answers.jsonl", "nope"), [], "answers.jsonl"),
    ("answers-none", file("answers.jsonl", ""), [], "answers.jsonl"),
    ("answers-field", answer(anwser="x"), [], "answers.jsonl"),
    ("answers-type", answer(response=3), [], "answers.jsonl"),
    ("answers-twice", answer(id="privacy/analogy/1"), [], "privacy/analogy/1"),
    ("answers-others", file("answers.jsonl", '{"id": "x/y/1", "response": "no"}'), [], "answers"),
]


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [case[1:] for case in EXIT_4],
    ids=[case[0] for case in EXIT_4],
)
def test_exit_4_and_one_line(
    project: Project, change: Change, arguments: list[str], expected: str
) -> None:
    change(project)
    result = project.run(*arguments)
    output = [line for line in (*result.outlines, *result.errlines) if line.strip()]
    assert result.ret == 4, output
    (line,) = [line for line in output if "ERROR" in line]
    assert expected in line
    assert not any("Traceback" in line or "INTERNALERROR" in line for line in output)
    assert all(character.isprintable() for character in line)


def broken_image(content: bytes) -> Change:
    def change(project: Project) -> None:
        (project.path / "images/analogy-2-1.png").write_bytes(content)

    return change


def missing_image(project: Project) -> None:
    (project.path / "images/analogy-2-1.png").unlink()


def folder_for_image(project: Project) -> None:
    missing_image(project)
    (project.path / "images/analogy-2-1.png").mkdir()


def image_link_that_leaves(project: Project) -> None:
    missing_image(project)
    outside = project.path.parent / "outside.png"
    outside.write_bytes(tiny_png())
    (project.path / "images/analogy-2-1.png").symlink_to(outside)


UNSCORED: list[tuple[str, Change, str]] = [
    ("missing", missing_image, "bad-input"),
    ("empty", broken_image(b""), "bad-input"),
    ("text", broken_image(b"no picture at all"), "bad-input"),
    ("svg", broken_image(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "bad-input"),
    ("cut", broken_image(tiny_png(7, width=64, height=64)[:-30]), "bad-input"),
    ("folder", folder_for_image, "bad-input"),
    ("link-leaves", image_link_that_leaves, "bad-input"),
    ("bytes", config(THRESHOLD + "limits.max_bytes = 10"), "bad-input"),
    ("pixels", config(THRESHOLD + "limits.max_pixels = 10"), "bad-input"),
    ("no-answer", answer(id="privacy/none/1"), "backend-error"),
    ("cut-answer", answer(finish_reason="length"), "truncated"),
    ("blank-answer", answer(response=" "), "blank"),
]


@pytest.mark.parametrize(
    ("change", "reason"), [case[1:] for case in UNSCORED], ids=[case[0] for case in UNSCORED]
)
def test_an_unscored_outcome_that_is_named(project: Project, change: Change, reason: str) -> None:
    change(project)
    result = project.run("--mir-threshold=analogy=0")
    assert result.ret == 10
    result.stdout.fnmatch_lines([f"{reason} (*)", "  privacy/analogy/2*"])
    assert not any("Traceback" in line for line in (*result.outlines, *result.errlines))
