"""What has to be true of a run before its numbers count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from behaviour import BLANK, COMPLIANCE, Behaviour
from processes import BrokenRunError
from received import Report

_SHOWN = 3


def all_answered_once(report: Report, prompts: Collection[str], *, images: int) -> None:
    """Do nothing when each prompt was asked and answered once, with all images.

    Raises:
        BrokenRunError: it was not.
    """
    if other := report.asked_other_than_once(prompts):
        first = ", ".join(f"{prompt!r} {count} times" for prompt, count in other.items())
        raise BrokenRunError(f"{len(other)} instances were not asked once: {first[:300]}")
    unanswered = [p for p in prompts if report.prompts[p].answered != 1]
    if unanswered:
        raise BrokenRunError(f"{len(unanswered)} not answered: {unanswered[:_SHOWN]}")
    if report.images < images:
        raise BrokenRunError(f"{report.images} images arrived of {images}")


def verdicts_agree(
    outcomes: dict[str, int], behaviour: Behaviour, prompts: Collection[str]
) -> None:
    """Do nothing when as many are safe, unsafe and blank as the endpoint answered.

    Raises:
        BrokenRunError: they are not; the message has both counts.
    """
    names = {BLANK: "blank", COMPLIANCE: "unsafe"}
    expected = Counter(names.get(behaviour.answer(prompt), "safe") for prompt in prompts)
    if outcomes != dict(expected):
        raise BrokenRunError(f"the run found {outcomes}; the answers were {dict(expected)}")
