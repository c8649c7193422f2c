"""Whether the intervals and bounds of docs/method.md keep what they promise: a table of each.

    python tests/judge_error_simulation.py

takes about half an hour. The test suite runs a few of these settings with fewer repetitions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from numpy.random import Generator, default_rng

from pytest_mirsafety.calibration.agreement import judge_quality
from pytest_mirsafety.calibration.bounds import JudgeCounts, corrected_interval, melded_upper
from pytest_mirsafety.calibration.consensus import Reviewed
from pytest_mirsafety.records import VerdictKind

ALPHA = Fraction(1, 20)
SIZE = 318
JUDGES = ((0.95, 0.90), (0.85, 0.95), (0.70, 0.99))
LABELS = (100, 300)
REPETITIONS = 2000
# Of 100,000 draws the 95% quantile is known to 0.07% of its level, of 20,000 to 0.15%.
DRAWS = 20_000


@dataclass(frozen=True)
class Setting:
    """A model, a judge, and labels on answers known to be unsafe and safe, half and half."""

    rate: float
    sensitivity: float
    specificity: float
    labels: int

    @property
    def called(self) -> float:
        """The share that the judge calls unsafe."""
        return self.rate * self.sensitivity + (1 - self.rate) * (1 - self.specificity)

    def draw(self, random: Generator) -> tuple[int, JudgeCounts]:
        """How many of the answers the judge calls unsafe, and what the labels say of it."""
        half = self.labels // 2
        return int(random.binomial(SIZE, self.called)), JudgeCounts(
            int(random.binomial(half, self.sensitivity)),
            half,
            int(random.binomial(half, self.specificity)),
            half,
        )

    def __str__(self) -> str:
        return (
            f"| {self.rate:.2f} | {self.sensitivity:.2f} / {self.specificity:.2f} | {self.labels} "
        )


def settings(rates: tuple[float, ...]) -> Iterator[Setting]:
    """Every judge and number of labels at these rates."""
    for labels in LABELS:
        for rate in rates:
            for judge in JUDGES:
                yield Setting(rate, *judge, labels)


def interval_misses(setting: Setting, repetitions: int, draws: int = DRAWS) -> tuple[float, float]:
    """How often the report's interval lies above the rate, and below it."""
    random = default_rng(1)
    above = below = 0
    for _ in range(repetitions):
        count, judge = setting.draw(random)
        low, high = corrected_interval((count, count), SIZE, judge, ALPHA, draws=draws)
        above += low > setting.rate
        below += high < setting.rate
    return above / repetitions, below / repetitions


def bound_misses(setting: Setting, repetitions: int, draws: int = DRAWS) -> float:
    """How often the gate's bound lies below the rate."""
    random = default_rng(2)
    return (
        sum(
            melded_upper(count, SIZE, judge, ALPHA, draws=draws) < setting.rate
            for count, judge in (setting.draw(random) for _ in range(repetitions))
        )
        / repetitions
    )


@dataclass(frozen=True)
class Labelling:
    """A judge's verdicts on many answers, of which so many of each kind are labelled."""

    answers: int
    rate: float
    sensitivity: float
    specificity: float
    per_verdict: int

    def draw(self, random: Generator) -> list[Reviewed]:
        """Labels on a simple random sample of each kind of verdict."""
        unsafe = random.binomial(self.answers, self.rate)
        hits = random.binomial(unsafe, self.sensitivity)
        passed = random.binomial(self.answers - unsafe, self.specificity)
        cells = {
            VerdictKind.UNSAFE: (hits, self.answers - unsafe - passed),
            VerdictKind.SAFE: (unsafe - hits, passed),
        }
        found = []
        for verdict, (bad, good) in cells.items():
            size = min(self.per_verdict, bad + good)
            number = random.hypergeometric(bad, good, size) if size else 0
            for n in range(size):
                truth = VerdictKind.UNSAFE if n < number else VerdictKind.SAFE
                probability = float(size / (bad + good))
                found.append(Reviewed(f"{n}", "j", verdict, truth, n < number, probability, ()))
        return found

    @property
    def kappa(self) -> float:
        """The kappa of all answers that such a model could give."""
        hits = self.rate * self.sensitivity
        passed = (1 - self.rate) * self.specificity
        called = hits + 1 - self.rate - passed
        chance = called * self.rate + (1 - called) * (1 - self.rate)
        return (hits + passed - chance) / (1 - chance)


def rate_misses(labelling: Labelling, repetitions: int) -> dict[str, float]:
    """How often the intervals of sensitivity, specificity and kappa miss."""
    random = default_rng(3)
    truth = {
        "sensitivity": labelling.sensitivity,
        "specificity": labelling.specificity,
        "kappa": labelling.kappa,
    }
    misses = dict.fromkeys(truth, 0)
    for _ in range(repetitions):
        quality = judge_quality(labelling.draw(random))
        for name, value in truth.items():
            rate = getattr(quality, name)
            misses[name] += rate is None or not rate.low <= value <= rate.high
    return {name: count / repetitions for name, count in misses.items()}


def main() -> None:
    """Print the tables."""
    say = sys.stdout.write
    say("| ASR | Se / Sp | labels | interval covers | too high | too low |\n|" + "---|" * 6 + "\n")
    for setting in settings((0.1, 0.3)):
        above, below = interval_misses(setting, REPETITIONS)
        say(f"{setting}| {1 - above - below:.1%} | {above:.1%} | {below:.1%} |\n")
        sys.stdout.flush()
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)
    say(f"\nat most {allowed:.2%}\n| ASR | Se / Sp | labels | bound misses |\n|---|---|---|---|\n")
    for setting in settings((0.02, 0.05, 0.1, 0.2, 0.3)):
        say(f"{setting}| {bound_misses(setting, REPETITIONS):.1%} |\n")
        sys.stdout.flush()
    say(
        "\n| answers | ASR | Se / Sp | labels per verdict | Se | Sp | kappa |\n|"
        + "---|" * 7
        + "\n"
    )
    for per_verdict in (30, 100):
        for rate in (0.1, 0.3):
            for judge in JUDGES:
                one = Labelling(2000, rate, *judge, per_verdict)
                misses = rate_misses(one, REPETITIONS // 4)
                covers = " | ".join(f"{1 - share:.1%}" for share in misses.values())
                say(f"| 2000 | {rate} | {judge[0]} / {judge[1]} | {per_verdict} | {covers} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
