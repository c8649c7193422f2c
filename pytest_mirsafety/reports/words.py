"""A run in words, the same in the terminal and on a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Final

from ..comparison.regression import RegressionResult
from ..gates import Decision, Estimand, GateResult
from ..gates.explanations import NOT_CHALLENGED
from ..printable import one_line
from ..results import Provenance, Ruling, RunResult

MEANINGS: Final[Mapping[Estimand, str]] = {
    Estimand.ANSWERS: "of these answers to these items",
    Estimand.MODEL: "of this model, in the long run, on these items",
    Estimand.ITEMS: "of this model on new items like these",
}
"""What is told of a rate, by estimand."""

_DIGEST: Final = re.compile(r"\b[0-9a-f]{40,}\b")


def provenance_rows(result: RunResult) -> dict[str, str]:
    """What was asked of whom and how it was judged, in words by a short name."""
    provenance = result.provenance
    answers = f"{provenance.answers_asked} asked now"
    if provenance.answers_from_store:
        answers += f", {provenance.answers_from_store} from the store"
        if provenance.oldest_answer:
            answers += f", the oldest of {date(provenance.oldest_answer)}"
    if provenance.answers_recorded:
        answers = "recorded earlier; no model was asked"
    rows = {
        "model": f"{provenance.model_name}, {provenance.model_identity}",
        "answers": answers,
        **({"tokens": tokens} if (tokens := _tokens(provenance)) else {}),
        "data": f"{provenance.data_source}, {provenance.data_count} instances, "
        f"identity {provenance.data_identity[:12]}",
        **({"twins": twins} if (twins := _twins(provenance)) else {}),
        "judge": judge(provenance),
        "rate": "; ".join([_estimand(provenance), *provenance.policy]),
    }
    if result.design.trials.several:
        rows["trials"] = _trials(result)
    if provenance.layout is not None:
        rows["images"] = f"all of an instance in one ({provenance.layout})"
    if (tried := _trial(result)) is not None:
        rows["trial"] = tried
    if provenance.sample:
        rows["sample"] = f"{provenance.sample}, seed {provenance.sample_seed}"
    if provenance.attempt > 1:
        rows["attempt"] = f"{provenance.attempt} with this model, data and judge"
    return rows


def _twins(provenance: Provenance) -> str:
    """Where the benign twins are from, and how many they are; empty if there are none."""
    if provenance.twins_source is None:
        return ""
    return f"{provenance.twins_source}, {provenance.twins_count or 0} twins"


def shortened(text: str) -> str:
    """The text on one line, its digests cut to what tells them apart."""
    return _DIGEST.sub(_short, one_line(text, 400))


def _tokens(provenance: Provenance) -> str:
    """What the answers took and cost, as far as it was told; empty if nothing was to be told."""
    if provenance.answers_recorded:
        return ""
    asked = provenance.asked_input_tokens, provenance.asked_output_tokens
    stored = provenance.stored_input_tokens, provenance.stored_output_tokens
    parts = []
    if any(asked):
        cost = "" if provenance.cost_usd is None else f", {usd(provenance.cost_usd)}"
        parts.append(f"{asked[0]:,} of input and {asked[1]:,} of output asked now{cost}")
    if untold := provenance.asked_without_usage:
        answers = "1 answer" if untold == 1 else f"{untold:,} answers"
        parts.append(f"the endpoint did not tell those of {answers}")
    if any(stored):
        of_what = ("", "") if any(asked) else (" of input", " of output")
        numbers = " and ".join(f"{n:,}{what}" for n, what in zip(stored, of_what, strict=True))
        parts.append(f"{numbers} in answers from the store")
    return "; ".join(parts)


def decided(decision: Decision, *, report_only: bool = False) -> str:
    """Such as `FAIL`; `(FAIL)` where it decides nothing."""
    return f"({decision.upper()})" if report_only else decision.upper()


def usd(amount: Decimal) -> str:
    """Money in whole cents, rounded up."""
    return f"{amount.quantize(Decimal('0.01'), ROUND_CEILING):,f} USD"


def date(seconds: float) -> str:
    """A time, in seconds since the epoch, to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def judge(provenance: Provenance) -> str:
    """Who judged, and what its word is worth."""
    name, stored = provenance.judge, provenance.verdicts_from_store
    kept = f"; {stored} verdicts from the store" if stored else ""
    if not provenance.judge_screens:
        return f"{name}{kept}"
    if provenance.screening_may_pass:
        return f"{name}, which only screens; allow_screening_judge lets gates pass{kept}"
    return f"{name}, which only screens: no gate can pass on its word{kept}"


def _trial(result: RunResult) -> str | None:
    """What the judge made of known answers, where it missed some, or that there were none."""
    rules = result.design.rules
    if rules.unchallenged:
        return f"none; {NOT_CHALLENGED}"
    if rules.challenge is None or not any(c.lost for r in rules.challenge.rounds for c in r.counts):
        return None
    return ", ".join(
        f"{count.lost} of {count.asked} {count.kind} missed {one.when}"
        for one in rules.challenge.rounds
        for count in one.counts
        if count.lost
    )


def _short(match: re.Match[str]) -> str:
    return match.group()[:12]


def _estimand(provenance: Provenance) -> str:
    told = MEANINGS[Estimand(provenance.estimand)]
    return f"{told} (estimand {provenance.estimand}), uncorrected for the judge's errors"


def _trials(result: RunResult) -> str:
    trials = result.design.trials
    if trials.counted == 1:
        return f"{trials}: an instance is unsafe if one of its answers is"
    return f"{trials}: what is counted are the {result.overall.planned:,} answers, not instances"


_SENTENCES: Final[Mapping[Ruling, str]] = {
    Ruling.PASS: "PASS: every evaluated gate is within its threshold",
    Ruling.FAIL: "FAIL: {fails} of {gates} gates {beyond} the threshold",
    Ruling.INCONCLUSIVE: "INCONCLUSIVE: no gate fails, but not every gate could be decided",
    Ruling.NO_DECISION: "NO DECISION: this run only reports",
}


def sentence(result: RunResult) -> str:
    """May the model ship, in one sentence."""
    if (shard := result.design.shard) is not None:
        return f"NO DECISION: shard {shard} decides nothing; mirsafety merge decides over all"
    gates: list[GateResult | RegressionResult] = [*result.gates, *result.regression]
    fails = [gate for gate in gates if gate.decision is Decision.FAIL]
    beyond = "not within" if any(gate.criterion.minimum for gate in fails) else "above"
    found = _SENTENCES[result.ruling].format(fails=len(fails), gates=len(gates), beyond=beyond)
    if result.ruling is Ruling.PASS and result.design.rules.unchallenged:
        found += f"; {NOT_CHALLENGED}"
    return found


def exit_in_words(result: RunResult, exit_code: int) -> str:
    """The exit code of the run, and what the gates give where that is another."""
    own = result.exit_code(tests_failed=False)
    if own == exit_code:
        return f"Exit code {exit_code}."
    return f"Exit code {exit_code}, as a test failed or the run was ended; the gates give {own}."


def left_out(result: RunResult) -> Iterator[str]:
    """What `--mir-stop=decided` made of the run."""
    if not result.design.stops_when_decided:
        return
    overall = result.overall
    if not overall.left_out:
        yield "--mir-stop=decided left nothing out: some gate depends on every answer"
        return
    yield (
        f"{overall.left_out} of {overall.planned} were left out, as no gate depends on them; for "
        "their rates run again without --mir-stop=decided: what was answered is kept"
    )
