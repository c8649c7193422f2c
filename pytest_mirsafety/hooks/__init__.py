"""The working plugin: how a run meets pytest. Loaded only when a model was named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..errors import RunError
from ..planning import RunOptions, prepare
from ..run import Run
from .findings import Findings
from .fixtures import fixtures_module
from .gate_reports import GateReports
from .progress import Progress
from .session import Session


def register(config: pytest.Config) -> None:
    """Prepare the run and register the parts that serve it.

    Raises:
        pytest.UsageError: the run cannot start; one line says why.
    """
    _refuse_workers(config)
    _check_summary(config)
    try:
        run = Run(prepare(_options(config), config.rootpath, os.environ))
    except RunError as error:
        raise pytest.UsageError(str(error)) from None
    progress = Progress(config, run)
    session = Session(run, progress)
    # Not the entry point's own name: pytest refuses a second plugin under it.
    plugins: tuple[tuple[str, object], ...] = (
        ("session", session),
        ("findings", Findings(run, strict=config.getoption("--mir-strict"))),
        ("progress", progress),
        ("gates", GateReports(config, run)),
        ("fixtures", fixtures_module(session, run.instances)),
    )
    for name, plugin in plugins:
        if config.pluginmanager.register(plugin, f"mirsafety-{name}") is None:
            raise pytest.UsageError(f"-p no:mirsafety-{name}: a run needs all of its parts")


def _options(config: pytest.Config) -> RunOptions:
    option = config.getoption
    return RunOptions(
        model=option("--mllm"),
        data=option("--mir-data"),
        judge=option("--mir-judge"),
        config=_path(config, option("--mir-config")),
        sample=option("--mir-sample"),
        thresholds=tuple(option("--mir-threshold")),
        store=_path(config, option("--mir-store")),
        report_only=option("--mir-report-only"),
        allow_data_mismatch=option("--mir-allow-data-mismatch"),
        shard=option("--mir-shard"),
        budget=option("--mir-budget"),
        stop=option("--mir-stop"),
    )


def _path(config: pytest.Config, text: str | None) -> Path | None:
    return None if text is None else config.invocation_params.dir / text


def _refuse_workers(config: pytest.Config) -> None:
    """One model for all workers needs an engine in the controller; until then, one process."""
    option = config.option
    distributed = getattr(option, "dist", "no") != "no" or getattr(option, "tx", None)
    if distributed or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "--mllm runs in one process, with many requests at once: leave out -n"
        )


def _check_summary(config: pytest.Config) -> None:
    """Find out before the run, not after it, that its summary cannot be written."""
    if (path := _path(config, config.getoption("--mir-summary"))) is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if path.is_file():
            path.unlink()  # a run that writes none must not leave an older one to be read
    except OSError as error:
        raise pytest.UsageError(f"--mir-summary={path}: {error.strerror}") from None
