"""The entry point: options, markers, and nothing else until `--mllm` asks for more.

Every pytest run with this package installed imports this file, so it imports pytest alone.
"""

from __future__ import annotations

from typing import Final, NoReturn

import pytest

_MARKERS: Final = (
    "continuity: relation Temporal_Continuity: consecutive progress of an event",
    "jump: relation Temporal_Jump: start and end of a process",
    "juxtaposition: relation Spatial_Juxtaposition: two scenes and the act that links them",
    "embedding: relation Spatial_Embedding: an object in a benign context",
    "relevance: relation Relevance: an item among similar benign ones",
    "complementarity: relation Complementarity: tiles of one picture",
    "analogy: relation Analogy: a technique carried over from a benign domain",
    "causality: relation Causality: a chain of cause and effect",
    "decomposition: relation Decomposition: a whole broken into parts",
    "temporal: group of the relations continuity and jump",
    "spatial: group of the relations juxtaposition and embedding",
    "semantic: group of the relations relevance and complementarity",
    "logical: group of the relations analogy, causality and decomposition",
    "hate-speech: risk category",
    "violence: risk category",
    "self-harm: risk category",
    "illegal-activities: risk category",
    "harassment: risk category",
    "privacy: risk category",
    "multi: arm: all images in order, as the benchmark asks",
    "text-only: arm: the seed question alone",
    "single-image: arm: all images put together into one",
    "benign-twin: arm: harmless asks of the same form, which must be answered",
    "metamorphic: arm: edits that change no meaning",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; without --mllm they do nothing."""
    group = parser.getgroup("mirsafety", "multi-image safety gates (pytest-mirsafety)")
    option = group.addoption
    option(
        "--mllm",
        metavar="MODEL",
        help="the model to test: demo, a name that mirsafety models lists, vllm:MODEL, "
        "transformers:MODEL, openai:MODEL, http://HOST:PORT/v1#MODEL, replay:FILE.jsonl, "
        "replay:FOLDER, or package.module:factory",
    )
    option("--mir-data", metavar="SOURCE", help="sample, folder:, parquet:, hub: or jsonl:")
    option(
        "--mir-judge",
        metavar="JUDGE",
        help="rules, a configured one, upstream:FOLDER, or module:factory",
    )
    option("--mir-config", metavar="FILE", help="configuration (default: [tool.mirsafety])")
    option(
        "--mir-arm",
        metavar="NAME[,NAME]",
        help="ways of asking the instances: multi, text-only, single-image, benign-twin, ...",
    )
    option("--mir-sample", metavar="N|P%|auto", help="ask a seeded random sample only")
    option(
        "--mir-threshold",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set one threshold: default, overall, or a relation, group, category or mode",
    )
    option(
        "--mir-trials",
        metavar="K|K:any|K:mean",
        help="ask each instance K times, where decoding is sampled: unsafe if any answer is, or "
        "each answer counts",
    )
    option("--mir-store", metavar="FILE", help="where completed answers are kept")
    option("--mir-summary", metavar="FILE", help="write the summary of the run as JSON")
    option("--mir-run", metavar="FOLDER", help="write the run folder: run.json, results.jsonl")
    option("--mir-redact", action="store_true", help="leave texts out of every report and file")
    option(
        "--mir-report",
        action="store_true",
        help="write report.html and report.md into the run folder too (--mir-run)",
    )
    option(
        "--mir-baseline",
        metavar="RUN",
        help="hold the run against an earlier one: its folder, or its pinned file",
    )
    option(
        "--mir-attention",
        action="store_true",
        help="measure attention entropy (provider transformers), into the run folder",
    )
    option("--mir-shard", metavar="I/N", help="ask one of N parts; mirsafety merge decides")
    option("--mir-budget", metavar="TOKENS|MONEY", help="ask no more than this costs: 2M, 12.50usd")
    option("--mir-stop", metavar="decided", help="skip what no gate's decision depends on")
    option("--mir-dry-run", action="store_true", help="say what would be asked, and ask nothing")
    option(
        "--mir-junit-properties",
        choices=("short", "full", "none"),
        default="short",
        help="of a testcase: one for all, one for each fact, or none, as Jenkins' schema wants",
    )
    option("--mir-junit-text", action="store_true", help="put answers into JUnit's properties")
    option("--mir-strict", action="store_true", help="make each UNSAFE instance a failed test")
    option("--mir-report-only", action="store_true", help="report, and decide nothing")
    option(
        "--mir-allow-data-mismatch",
        action="store_true",
        help="go on, report-only, with data other than the published or pinned",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and the working plugin if a model was named."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getoption("--mllm") is not None:
        from .hooks import register

        register(config)


def _needs_model() -> NoReturn:
    pytest.skip("needs --mllm=MODEL")


@pytest.fixture(scope="session")
def mllm() -> object:
    """The model under test: `mllm(instance)` gives its response."""
    _needs_model()


@pytest.fixture(scope="session")
def judge() -> object:
    """The judge: `judge(instance, response)` gives its verdict."""
    _needs_model()


@pytest.fixture
def instance() -> object:
    """One instance of the benchmark; a test that takes it runs once for each."""
    _needs_model()


@pytest.fixture
def twin() -> object:
    """One benign twin, which must be answered; a test that takes it runs once for each."""
    _needs_model()
