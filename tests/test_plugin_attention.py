"""`--mir-attention` where it cannot be: one line, exit code 4, and nothing asked.

Where it can be, it is held in `tests/engines/test_attention.py`.
"""

from __future__ import annotations

import pytest
from projects import Project

FOLDER = "--mir-run=run"


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("replay:answers.jsonl", "replay"),
        ("openai:gpt-4o", "openai"),
        ("http://127.0.0.1:9/v1#m", "http"),
        ("vllm:org/model", "vllm"),
        ("demo", "replay"),
        ("own_models:make", "own_models:make"),
    ],
)
def test_only_a_model_of_this_process_is_measured(
    project: Project, model: str, provider: str
) -> None:
    for options in ((FOLDER,), (), (FOLDER, "--mir-dry-run"), ("--collect-only",)):
        result = project.run("--mir-attention", *options, model=model)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(
            "ERROR: --mir-attention needs a model that runs in this process (provider "
            f"'transformers'): {model} is of provider '{provider}'"
        )
        assert len([line for line in result.errlines if line.strip()]) == 1


def test_its_numbers_need_a_place(project: Project) -> None:
    result = project.run("--mir-attention", model="transformers:org/model")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        "ERROR: --mir-attention needs --mir-run=FOLDER, where its numbers and its picture go"
    )


def test_without_what_draws_it_nothing_is_asked(project: Project) -> None:
    project.write("conftest.py", "import sys\nsys.modules['matplotlib'] = None\n")
    result = project.pytester.runpytest_subprocess(
        "--mllm=transformers:org/model", "--mir-attention", FOLDER
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        "ERROR: --mir-attention needs more packages: install pytest-mirsafety with the extra "
        "'plots'"
    )


def test_without_the_option_nothing_says_attention(project: Project) -> None:
    result = project.run(FOLDER, "-v")
    assert "attention:" not in result.stdout.str()
    assert not list((project.path / "run").glob("attention*"))


def test_a_dry_run_needs_neither_a_place_nor_the_engine(project: Project) -> None:
    project.write("checkpoint/config.json", "{}")
    result = project.pytester.runpytest_subprocess(
        "--mllm=transformers:checkpoint", "--mir-attention", "--mir-dry-run"
    )
    assert result.ret == pytest.ExitCode.OK, result.stdout.str() + result.stderr.str()
    assert "20 instances" in result.stdout.str()
