"""`mirsafety plan`: how many instances each gate needs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..gates import Criterion
    from ..sampling import GatePlan
    from . import Commands


_WIDTH: Final = 18


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("plan", help="print how many instances each gate needs")
    parser.add_argument("--mllm", metavar="MODEL", help="plan for this model's way of decoding")
    parser.add_argument("--config", type=Path, metavar="FILE", help="instead of the one found here")
    parser.add_argument("--data", metavar="SOURCE", help="instead of the configured data")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """For each gate: population, threshold, unsafe allowed, and the sample sizes of the method."""
    from .. import config, data, gates, sampling
    from ..registry import declares_greedy, find_model

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
    on_increases = gates.criteria(settings.regression.to_thresholds())
    rules = gates.Rules(
        settings.estimand or default, settings.confidence, gates=len(criteria) + len(on_increases)
    )
    plan = sampling.draw_sample(
        sampling.parse_sample_size("auto"), dataset, criteria, rules, settings.sample_seed
    )
    print(f"{dataset.source}: {len(dataset.instances)} instances, estimand {rules.estimand}")
    increases = [(one, sum(map(one.covers, dataset.instances))) for one in on_increases]
    _print_table(plan.gates, increases)
    print("to pass: answers needed when none is unsafe. for 80%: to pass four times in")
    print("five at half the limit; - is more than there are.")
    if any(criterion.minimum for criterion in criteria):
        print(">= is the least share: to pass when all answers are of that mode, for 80% when")
        print("twice the least are.")
    if increases:
        print("+ is by how much the rate may rise: docs/method says what so many pairs can show.")
    print(f"--mir-sample=auto asks {len(plan.asked)} instances in all.")


def _print_table(planned: Sequence[GatePlan], increases: Sequence[tuple[Criterion, int]]) -> None:
    """A line for each gate; those on an increase have a population and no sizes."""
    from .. import stats
    from ..comparison.regression import regression_label
    from ..gates.wording import limit, percent

    labels = [gate.criterion.label for gate in planned]
    wide = max(_WIDTH, *map(len, labels), *(len(regression_label(one)) for one, _ in increases))
    print(f"{'gate':{wide}} {'N':>6} {'limit':>7} {'allowed':>8} {'to pass':>8} {'for 80%':>8}")
    for gate in planned:
        one = gate.criterion
        most = stats.allowed(one.tolerance, gate.population)
        allowed = f">={gate.population - most}" if one.minimum else str(most)
        sizes = (gate.to_pass or "-", gate.to_power or "-")
        print(
            f"{one.label:{wide}} {gate.population:6} {limit(one):>7} {allowed:>8} "
            f"{sizes[0]:>8} {sizes[1]:>8}"
        )
    for one, population in increases:
        shown = f"+{percent(one.threshold)}"
        print(f"{regression_label(one):{wide}} {population:6} {shown:>7}")
