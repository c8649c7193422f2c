"""The `mirsafety` command: set up a repository, look at data, plan a sample."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from .errors import ConfigurationError, RunError
from .taxonomy import Category, Relation

EXIT_USAGE: Final = 4
_INIT_FILES: Final = {
    "test_mir_safetybench.py": "suites/test_mir_safetybench.py",
    "mirsafety.toml": "mirsafety.toml",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 4 for what is wrong with the input."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except RunError as error:
        print(f"mirsafety: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mirsafety", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="write a suite and a configuration into a repository")
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER")
    init.set_defaults(run=_init)
    show = commands.add_parser("data", help="print what a data source holds, and its identity")
    show.add_argument("source", metavar="SOURCE")
    show.set_defaults(run=_show_data)
    plan = commands.add_parser("plan", help="print how many instances each gate needs")
    plan.add_argument("--config", type=Path, metavar="FILE")
    plan.add_argument("--data", metavar="SOURCE")
    plan.set_defaults(run=_show_plan)
    return parser


def _init(options: argparse.Namespace) -> None:
    """Write the files, all or none; never over what is there."""
    targets = {name: options.folder / target for name, target in _INIT_FILES.items()}
    if taken := [target for target in targets.values() if target.exists()]:
        raise ConfigurationError(f"{taken[0]} exists already; nothing was written")
    source = resources.files(__package__) / "suites"
    try:
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text((source / name).read_text(encoding="utf-8"), encoding="utf-8")
            print(f"wrote {target}")
    except OSError as error:
        raise ConfigurationError(f"cannot write: {error}") from None
    print("try it:  pytest --mllm=demo suites")


def _show_data(options: argparse.Namespace) -> None:
    """Counts per relation and category, the identity, and whether it is what was published."""
    from . import data

    dataset = data.load(options.source, base=Path.cwd())
    cells = Counter((i.relation, i.category) for i in dataset.instances)
    print(f"{dataset.source}: {len(dataset.instances)} instances, {dataset.name or 'unnamed'}")
    print(f'data_digest = "sha256:{dataset.identity}"')
    if dataset.revision:
        print(f"revision: {dataset.revision}")
    print()
    print("relation         " + "".join(f"{_SHORT[c]:>9}" for c in Category) + "      all")
    for relation in Relation:
        row = [cells[relation, category] for category in Category]
        print(f"{relation:17}" + "".join(f"{n:9}" for n in row) + f"{sum(row):9}")
    for warning in dataset.warnings:
        print(f"warning: {warning}")
    if (mismatch := data.mismatch(dataset, None)) is not None:
        print(f"mismatch: {mismatch}")


def _show_plan(options: argparse.Namespace) -> None:
    """For each gate: population, threshold, unsafe allowed, and the sample sizes of the method."""
    from . import config, data, gates, sampling, stats
    from .explanations import percent

    configuration = config.load(Path.cwd(), options.config)
    settings = configuration.settings
    criteria = gates.criteria(settings.thresholds.to_thresholds())
    if not criteria:
        raise ConfigurationError("no threshold is configured, so there is no gate to plan for")
    source, base = settings.data, configuration.base
    if options.data is not None:
        source, base = options.data, Path.cwd()
    dataset = data.load(source, base=base)
    estimand = settings.estimand or gates.Estimand.ANSWERS
    rules = gates.Rules(estimand, settings.confidence, gates=len(criteria))
    plan = sampling.draw_sample(
        sampling.parse_sample_size("auto"), dataset, criteria, rules, settings.sample_seed
    )
    print(f"{dataset.source}: {len(dataset.instances)} instances, estimand {estimand}")
    print(f"{'gate':18} {'N':>6} {'limit':>7} {'allowed':>8} {'to pass':>8} {'for 80%':>8}")
    for gate in plan.gates:
        limit = percent(gate.criterion.threshold)
        most = stats.allowed(gate.criterion.threshold, gate.population)
        sizes = (gate.to_pass or "-", gate.to_power or "-")
        print(
            f"{gate.criterion.label:18} {gate.population:6} {limit:>7} {most:8} "
            f"{sizes[0]:>8} {sizes[1]:>8}"
        )
    print("to pass: answers needed when none is unsafe; for 80%: to pass four times in five at")
    print("half the limit. --mir-sample=auto asks", len(plan.asked), "instances in all.")


_SHORT: Final = {
    Category.HATE_SPEECH: "hate",
    Category.VIOLENCE: "violence",
    Category.SELF_HARM: "self-harm",
    Category.ILLEGAL_ACTIVITIES: "illegal",
    Category.HARASSMENT: "harass.",
    Category.PRIVACY: "privacy",
}
