"""How the benchmarks' endpoint answers and fails: decided by seed and prompt, so repeatable."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Final, Self

REFUSAL: Final = "I'm sorry, but I can't help with that."
COMPLIANCE: Final = "Sure, here are the steps: [withheld]"
BLANK: Final = ""
WITHHELD: Final = "[withheld]"
"""What every unsafe answer holds here, known ones too."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What comes beside the prompt: a system prompt, and the grey in the middle of each picture."""

    system: bool = False
    greys: tuple[float, ...] = ()


NOTHING: Final = Seen()


class Fault(StrEnum):
    """What may become of a request instead of an answer; the value is the option's name."""

    HTTP_500 = "http_500"
    CUT_BEFORE = "cut_before"
    CUT_IN_BODY = "cut_in_body"
    GARBAGE = "garbage"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How an endpoint behaves; the defaults answer every request with a refusal, at once.

    `latency` is in seconds, and `jitter` the share of it by which a request's own may differ.
    `unsafe` and `blank` are shares of the prompts, `http_500` to `empty` of the requests: an HTTP
    500, a connection cut before the reply or within its body, and with status 200 a body that is
    no JSON or has no byte. A prompt gets at most `fault_attempts` faults, 0 for any number.

    HTTP 429 is sent while more than `storm_above` requests are in flight, and during the first
    `storm_for` of each `storm_every` seconds; 0 for never. With it go the headers Retry-After
    (`retry_after`, in seconds) and retry-after-ms (`retry_after_ms`), unless they are 0.

    What is sent beside the prompt makes an answer unsafe: `unsafe_images` pictures or more; one
    whose middle is brighter than `unsafe_grey`, of 255; and with `unsafe_reversed` 1 a first one
    that is darker than the last. With `safe_system` 1 a system prompt makes every answer safe.
    Each is 0 for never.

    With `judges` 1 it answers as a rubric's model: unsafe where the prompt holds an unsafe answer.
    """

    latency: float = 0.0
    jitter: float = 0.0
    seed: int = 0
    unsafe: float = 0.0
    blank: float = 0.0
    http_500: float = 0.0
    cut_before: float = 0.0
    cut_in_body: float = 0.0
    garbage: float = 0.0
    empty: float = 0.0
    fault_attempts: int = 0
    storm_above: int = 0
    storm_every: float = 0.0
    storm_for: float = 0.0
    retry_after: int = 0
    retry_after_ms: int = 0
    judges: int = 0
    unsafe_images: int = 0
    unsafe_grey: float = 0.0
    unsafe_reversed: int = 0
    safe_system: int = 0

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Give a parser one option for each field."""
        for field in fields(cls):
            kind, default = type(field.default), field.default
            parser.add_argument(_option(field.name), type=kind, default=default, metavar="N")

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Self:
        """The behaviour that parsed options describe."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    def to_options(self) -> list[str]:
        """The options that describe this behaviour."""
        return [f"{_option(name)}={value}" for name, value in asdict(self).items()]

    @property
    def looks(self) -> bool:
        """Its answers depend on more than the prompt."""
        triggers = self.unsafe_images, self.unsafe_grey, self.unsafe_reversed, self.safe_system
        return any(triggers)

    def answer(self, prompt: str, seen: Seen = NOTHING) -> str:
        """The text of every answer to this prompt, with what comes beside it."""
        if self.judges:
            kind = "unsafe" if WITHHELD in prompt else "safe"
            return json.dumps({"reason": "by its form", "verdict": kind, "mode": None})
        if self.safe_system and seen.system:
            return REFUSAL
        if self._triggered(seen.greys):
            return COMPLIANCE
        drawn = self._draw("answer", prompt)
        if drawn < self.blank:
            return BLANK
        return COMPLIANCE if drawn < self.blank + self.unsafe else REFUSAL

    def _triggered(self, greys: Sequence[float]) -> bool:
        brighter = self.unsafe_grey > 0 and max(greys, default=0.0) > self.unsafe_grey
        darker_first = len(greys) > 1 and greys[0] < greys[-1]
        many = self.unsafe_images and len(greys) >= self.unsafe_images
        return bool(many or brighter or (self.unsafe_reversed and darker_first))

    def delay(self, prompt: str, attempt: int) -> float:
        """Seconds from a request's last byte to its reply."""
        return self.latency * (1 + self.jitter * (2 * self._draw("delay", prompt, attempt) - 1))

    def fault(self, prompt: str, attempt: int) -> Fault | None:
        """What goes wrong with the request for this prompt of this number, from 0."""
        if self.fault_attempts and attempt >= self.fault_attempts:
            return None
        drawn = self._draw("fault", prompt, attempt)
        for fault in Fault:
            drawn -= getattr(self, fault.value)
            if drawn < 0:
                return fault
        return None

    def storms(self, in_flight: int, elapsed: float) -> bool:
        """Whether a request is turned away, `elapsed` seconds after the first one came."""
        if self.storm_above and in_flight > self.storm_above:
            return True
        return self.storm_every > 0 and elapsed % self.storm_every < self.storm_for

    def storm_headers(self) -> Sequence[str]:
        """The headers of a 429 that say when to come back."""
        lines = []
        if self.retry_after:
            lines.append(f"Retry-After: {self.retry_after}")
        if self.retry_after_ms:
            lines.append(f"retry-after-ms: {self.retry_after_ms}")
        return lines

    def _draw(self, *what: object) -> float:
        """A number in [0, 1) that depends on the seed and on `what` alone."""
        text = "\0".join(map(str, (self.seed, *what)))
        number = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
        return int.from_bytes(number) / 2**64


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
