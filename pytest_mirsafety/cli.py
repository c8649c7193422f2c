"""The `mirsafety` command: set up a repository, look at data, plan a sample."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final, NoReturn

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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits as every usage error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"mirsafety: {message} (mirsafety --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mirsafety", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    init = commands.add_parser("init", help="write a suite and a configuration into a repository")
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER")
    init.set_defaults(run=_init)
    show = commands.add_parser("data", help="print what a data source holds, and its identity")
    show.add_argument(
        "source", metavar="SOURCE", help="sample, folder:PATH, parquet:PATH, hub:..., jsonl:PATH"
    )
    show.set_defaults(run=_show_data)
    plan = commands.add_parser("plan", help="print how many instances each gate needs")
    plan.add_argument("--mllm", metavar="MODEL", help="plan for this model's way of decoding")
    plan.add_argument("--config", type=Path, metavar="FILE", help="instead of the one found here")
    plan.add_argument("--data", metavar="SOURCE", help="instead of the configured data")
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
    print(f"try it:  pytest --mllm=demo {targets['test_mir_safetybench.py'].parent}")


def _show_data(options: argparse.Namespace) -> None:
    """Counts per relation and category, the identity, and whether it is what was published."""
    from . import data

    dataset = data.load(options.source, base=Path.cwd())
    cells = Counter((i.relation, i.category) for i in dataset.instances)
    named = f", as {dataset.name}" if dataset.name else ", a private suite"
    print(f"{dataset.source}: {len(dataset.instances)} instances{named}")
    print(f'data_digest = "sha256:{dataset.identity}"')
    if dataset.revision:
        print(f"revision: {dataset.revision}")
    print()
    for part in (0, 1):
        heads = (category.partition("-")[2 * part] for category in Category)
        print(f"{'' if part else 'relation':16}" + "".join(f"{head:>11}" for head in heads))
    for relation in Relation:
        row = [cells[relation, category] for category in Category]
        print(f"{relation:16}" + "".join(f"{n:11}" for n in row))
    for warning in dataset.warnings:
        print(f"warning: {warning}")
    if (mismatch := data.mismatch(dataset, None)) is not None:
        print(f"mismatch: {mismatch}")


def _show_plan(options: argparse.Namespace) -> None:
    """For each gate: population, threshold, unsafe allowed, and the sample sizes of the method."""
    from . import config, data, gates, sampling, stats
    from .explanations import percent
    from .registry import declares_greedy, find_model

    configuration = config.load(Path.cwd(), options.config)
    settings = configuration.settings
    criteria = gates.criteria(settings.thresholds.to_thresholds())
    if not criteria:
        raise ConfigurationError("no threshold is configured, so there is no gate to plan for")
    source, base = settings.data, configuration.base
    if options.data is not None:
        source, base = options.data, Path.cwd()
    dataset = data.load(source, base=base)
    greedy = options.mllm is None or declares_greedy(find_model(options.mllm, settings).settings)
    default = gates.Estimand.ANSWERS if greedy else gates.Estimand.MODEL
    rules = gates.Rules(settings.estimand or default, settings.confidence, gates=len(criteria))
    plan = sampling.draw_sample(
        sampling.parse_sample_size("auto"), dataset, criteria, rules, settings.sample_seed
    )
    print(f"{dataset.source}: {len(dataset.instances)} instances, estimand {rules.estimand}")
    print(f"{'gate':18} {'N':>6} {'limit':>7} {'allowed':>8} {'to pass':>8} {'for 80%':>8}")
    for gate in plan.gates:
        limit = percent(gate.criterion.threshold)
        most = stats.allowed(gate.criterion.threshold, gate.population)
        sizes = (gate.to_pass or "-", gate.to_power or "-")
        print(
            f"{gate.criterion.label:18} {gate.population:6} {limit:>7} {most:8} "
            f"{sizes[0]:>8} {sizes[1]:>8}"
        )
    print("to pass: answers needed when none is unsafe. for 80%: to pass four times in")
    print("five at half the limit; - is more than there are.")
    print(f"--mir-sample=auto asks {len(plan.asked)} instances in all.")
