"""Whether the interval of an arm's difference covers as docs/method.md says: the table there.

    python tests/arm_simulation.py

takes some minutes. The test suite runs a few of these settings with fewer draws.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray
from scipy.stats import beta

from pytest_mirsafety.comparison.bounds import newcombe_interval
from pytest_mirsafety.comparison.clustered import Table, clustered_interval

ALPHA = Fraction(1, 20)
DRAWS = 2000
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Shared:
    """Seed questions that are asked in several instances with images, and once in text alone.

    All instances of a question share the one answer to its text, which is unsafe with the chance
    `text`; each has an answer of its own to the images, unsafe with the chance `images`. These
    agree within a question with the correlation `alike`. With `related` the questions that are
    dangerous with images are those that are dangerous in words.
    """

    sizes: tuple[int, ...]
    text: float
    images: float
    alike: float = 0.0
    related: bool = False

    def draw(self, draws: int, seed: int = 1) -> Iterator[list[Table]]:
        """The pairs of every question, `draws` times: images first, text second."""
        random = default_rng(seed)
        sizes = np.array(self.sizes)
        danger = random.random((draws, len(sizes)))
        rates: NDArray[np.float64] = np.full(danger.shape, self.images)
        if self.alike:
            spread = 1 / self.alike - 1
            rates = beta.ppf(danger, self.images * spread, (1 - self.images) * spread)
        in_words = danger if self.related else random.random(danger.shape)
        text = in_words > 1 - self.text
        unsafe = random.binomial(sizes, rates)
        safe = sizes - unsafe
        kinds = np.stack([text * unsafe, text * safe, ~text * unsafe, ~text * safe], axis=-1)
        for one in kinds.tolist():
            yield [(a, b, c, d) for a, b, c, d in one]

    def covers(self, draws: int) -> tuple[float, float]:
        """How often the clustered interval holds the difference, and the unclustered one."""
        truth, found, plain = self.text - self.images, 0, 0
        for tables in self.draw(draws):
            interval = clustered_interval(tables, ALPHA)
            assert interval is not None
            found += interval[0] <= truth <= interval[1]
            low, high = newcombe_interval([sum(kind) for kind in zip(*tables, strict=True)], _Z)
            plain += low <= truth <= high
        return found / draws, plain / draws


LIKE_THE_BENCHMARK = (4,) * 100 + (5,) * 346 + (3,) * 46 + (6,) * 51 + (2,) * 1
"""544 questions with 2,576 instances: about what MIR-SafetyBench has."""

QUESTIONS = {
    "544, as in the benchmark": LIKE_THE_BENCHMARK,
    "300 of nine": (9,) * 300,
    "60 of nine": (9,) * 60,
    "20 of nine": (9,) * 20,
    "100, uneven": (1,) * 60 + (3,) * 30 + (9,) * 10,
}
RATES = ((0.3, 0.3), (0.2, 0.6), (0.05, 0.2), (0.02, 0.02))
KINDS = ((0.0, False), (0.3, False), (0.3, True))


def main() -> None:
    write = sys.stdout.write
    names = "apart, alike, related"
    write(f"| seed questions | text / images | clustered: {names} | unclustered: {names} |\n")
    write("|---|---|---|---|\n")
    for name, sizes in QUESTIONS.items():
        for text, images in RATES:
            shares = [Shared(sizes, text, images, *kind).covers(DRAWS) for kind in KINDS]
            cells = (", ".join(f"{one[side]:.1%}" for one in shares) for side in (0, 1))
            write(f"| {name} | {text:g} / {images:g} | {' | '.join(cells)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
