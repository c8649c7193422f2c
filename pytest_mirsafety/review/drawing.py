"""The sample that people label: drawn by rank within what the judge had said, reproducibly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ..digests import digest
from ..errors import ConfigurationError
from ..results import InstanceOutcome
from ..taxonomy import Status


class Stratum(StrEnum):
    """What became of an answer by the judge: each part is sampled by itself."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNSCORED = "unscored"


_OF: Final = {status: Stratum(status.value) for status in Status}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many answers are asked for: in all, or of each stratum. Of more than there are, all.

    Raises:
        ConfigurationError: a count below 0, both kinds at once, or no SAFE answer.
    """

    total: int | None = None
    parts: Mapping[Stratum, int] | None = None

    def __post_init__(self) -> None:
        if (self.total is None) == (self.parts is None):
            raise ConfigurationError(
                "name the sample's size in all (--sample), or of each part (--safe, --unsafe, "
                "--unscored), not both"
            )
        if self.total is not None and self.total < 1:
            raise ConfigurationError("--sample: a sample has at least one answer")
        if self.parts is not None:
            if min(self.parts.values()) < 0:
                raise ConfigurationError("--safe, --unsafe, --unscored: a count is not below 0")
            if not self.parts.get(Stratum.SAFE):
                raise ConfigurationError(
                    "--safe: name how many SAFE answers to draw too, at least 1: without them "
                    "nobody finds what the judge missed"
                )

    def of(self, there: Mapping[Stratum, int]) -> dict[Stratum, int]:
        """How many of each stratum to draw, of so many that are there."""
        if self.parts is not None:
            return {part: min(self.parts.get(part, 0), there[part]) for part in Stratum}
        return _proportional(there, min(self.total or 0, sum(there.values())))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One answer of the sample, and the chance with which it came into it, in (0, 1]."""

    entry: InstanceOutcome
    stratum: Stratum
    probability: float


def draw(
    outcomes: Iterable[InstanceOutcome], run: str, sizes: Sizes, seed: str
) -> tuple[Drawn, ...]:
    """The sample of a run's answers, in an order that tells nothing of the verdicts.

    Within each stratum the answers whose SHA-256 of run, seed and instance come first: the same
    call draws the same ones, and a larger one draws them too. `run` is the digest of the run.
    """
    parts: dict[Stratum, list[InstanceOutcome]] = {part: [] for part in Stratum}
    for entry in outcomes:
        if entry.answer_sha256 is not None and entry.request_key is not None:
            parts[_OF[entry.outcome.status]].append(entry)
    wanted = sizes.of({part: len(entries) for part, entries in parts.items()})
    drawn = []
    for part, entries in parts.items():
        entries.sort(key=lambda entry: digest([run, seed, "draw", entry.instance_id]))
        chosen = entries[: wanted[part]]
        drawn += [Drawn(entry, part, len(chosen) / len(entries)) for entry in chosen]
    # Ranks within a stratum would tell which one it is: of a small one all ranks are drawn.
    return tuple(sorted(drawn, key=lambda one: digest([run, seed, "show", one.entry.instance_id])))


def _proportional(there: Mapping[Stratum, int], total: int) -> dict[Stratum, int]:
    """Shares by largest remainder; of each stratum at least one, of SAFE first, if that fits."""
    whole = max(1, sum(there.values()))
    shares = {part: total * there[part] // whole for part in Stratum}
    remainders = sorted(Stratum, key=lambda part: -(total * there[part] % whole))
    for part in remainders[: total - sum(shares.values())]:
        shares[part] += 1
    held = [part for part in Stratum if there[part]][:total]
    for part in held:
        if not shares[part]:  # the largest share is above 1, or there were as many as strata
            shares[max(Stratum, key=lambda other: (shares[other], other not in held))] -= 1
            shares[part] = 1
    return shares
