"""The working plugin: how a run meets pytest. Loaded only when a model was named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..errors import RunError

if TYPE_CHECKING:
    from ..circumstances import Commit
    from ..run import Run
    from ..run_plan import RunOptions


def register(config: pytest.Config) -> None:
    """Prepare the run and register the parts that serve it; in a worker, join the run.

    Raises:
        pytest.UsageError: the run cannot start; one line says why.
    """
    if hasattr(config, "workerinput"):
        from .worker import parts

        plugins = parts(config)
    else:
        plugins = _dry(config) if config.getoption("--mir-dry-run") else _owner(config)
    for name, plugin in plugins.items():
        # Not the entry point's own name: pytest refuses a second plugin under it.
        _refuse_blocked(config, name)
        config.pluginmanager.register(plugin, f"mirsafety-{name}")


def _refuse_blocked(config: pytest.Config, name: str) -> None:
    if config.pluginmanager.is_blocked(f"mirsafety-{name}"):
        raise pytest.UsageError(f"-p no:mirsafety-{name}: a run needs all of its parts")


def _owner(config: pytest.Config) -> dict[str, object]:
    """The parts in the process that has the run, in the order of their registration."""
    from .distribution import Distribution, is_distributed
    from .findings import Findings
    from .fixtures import fixtures_module
    from .gate_reports import GateReports
    from .progress import Progress, WorkersProgress
    from .session import Session
    from .testing import Testing

    # An editor collects with the options of the job, and that is no run: what the last one wrote
    # stays.
    commit = None
    if not config.option.collectonly:
        _check_report(config)
        _check_summary(config)
        commit = _claim_folder(config)
    run = _prepared(config)
    # Whoever asks the option is told of the configuration too.
    config.option.mir_redact = config.getoption("--mir-redact") or run.plan.settings.redact
    session = Session(run)
    findings = Findings.of(config, redact=config.option.mir_redact)
    gates = GateReports(config, run, session, commit)
    plugins = {"session": session, "findings": findings, "gates": gates}
    if is_distributed(config):
        for name in ("testing", "fixtures", "end"):  # which the workers will need
            _refuse_blocked(config, name)
        return {
            **plugins,
            "progress": WorkersProgress(config, run),
            "distribution": Distribution(run, session, redact=config.option.mir_redact),
        }
    run.on_outcome(findings.note)
    progress = Progress(config, run)
    testing = Testing(run, progress, findings, session.give_up)
    return {
        **plugins,
        "progress": progress,
        "testing": testing,
        "fixtures": fixtures_module(testing, run.instances),
    }


def _dry(config: pytest.Config) -> dict[str, object]:
    """The parts of a session that collects and asks nothing."""
    from .dry_run import DryRun
    from .findings import Findings
    from .fixtures import fixtures_module
    from .progress import Progress
    from .session import Session
    from .testing import Testing

    # pytest-xdist looks at this later: where nothing runs there is nothing to distribute.
    config.option.dist = "no"
    if not config.option.collectonly:
        # A job that exits with 0 though nothing was decided must not find an earlier decision. The
        # run folder stays: it is what that run found, and says which one it was.
        _remove_summary(config)
    run = _prepared(config)
    findings = Findings(strict=False)
    testing = Testing(run, Progress(config, run), findings, Session(run).give_up)
    fixtures = fixtures_module(testing, run.instances)
    return {"dry-run": DryRun(run), "testing": testing, "fixtures": fixtures}


def _prepared(config: pytest.Config) -> Run:
    from ..planning import prepare
    from ..run import Run
    from .items import register_arms

    try:
        run = Run(prepare(_options(config), config.rootpath, os.environ))
    except RunError as error:
        raise pytest.UsageError(str(error)) from None
    register_arms(config, run.instances)
    return run


def _options(config: pytest.Config) -> RunOptions:
    from ..run_plan import RunOptions

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
        dry_run=option("--mir-dry-run"),
        shard=option("--mir-shard"),
        budget=option("--mir-budget"),
        stop=option("--mir-stop"),
        trials=option("--mir-trials"),
        attention=option("--mir-attention"),
        baseline=_path(config, option("--mir-baseline")),
        kept=option("--mir-run") is not None,
        arm=option("--mir-arm"),
    )


def _path(config: pytest.Config, text: str | None) -> Path | None:
    return None if text is None else config.invocation_params.dir / text


def _check_report(config: pytest.Config) -> None:
    """Find out before the run that its report has no place."""
    if config.getoption("--mir-report") and config.getoption("--mir-run") is None:
        raise pytest.UsageError("--mir-report: add --mir-run=FOLDER, where the report is to be")


def _claim_folder(config: pytest.Config) -> Commit | None:
    """Make the run folder this run's, before there is anything to put into it.

    Gives what is checked out now, which the folder will tell.

    Raises:
        pytest.UsageError: it holds something else, or cannot be written.
    """
    if (path := _path(config, config.getoption("--mir-run"))) is None:
        return None
    from .. import inventory, run_folder

    baseline = _path(config, config.getoption("--mir-baseline"))
    if baseline is not None and path.resolve() in (p := baseline.resolve(), p.parent):
        raise pytest.UsageError("--mir-run and --mir-baseline name one folder; name another")
    try:
        run_folder.claim(path)
    except RunError as error:
        raise pytest.UsageError(str(error)) from None
    return inventory.commit(config.rootpath, os.environ)


def _check_summary(config: pytest.Config) -> None:
    """Find out before the run, not after it, that its summary cannot be written."""
    if (path := _path(config, config.getoption("--mir-summary"))) is not None:
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
        _remove_summary(config)


def _remove_summary(config: pytest.Config) -> None:
    """What writes none must not leave an older one to be read."""
    if (path := _path(config, config.getoption("--mir-summary"))) is not None:
        with _told(path):
            if path.is_file():
                path.unlink()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise pytest.UsageError(f"--mir-summary={path}: {error.strerror}") from None
