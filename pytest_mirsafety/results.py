"""What a run found, whole and frozen: every report is a pure function of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from .arms import ArmKind, is_searched
from .circumstances import Circumstances
from .comparison.arms import ArmDifference, FalseRefusals
from .comparison.regression import RegressionResult
from .comparison.sides import Side
from .digests import digest
from .gates import Criterion, Decision, Estimand, GateResult, Rules, exit_code
from .metamorphic.findings import SearchResult
from .records import MULTI, Outcome, Verdict, item_id
from .sharding import Shard
from .stats import joined
from .tally import Counts, ModeCounts
from .taxonomy import Category, Reason, Relation
from .trials import Trials


class Ruling(StrEnum):
    """The one sentence of a run: may the model ship?"""

    PASS = "pass"  # noqa: S105 - a decision, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NO_DECISION = "no decision"


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of one relation, or of all: total = safe + unsafe + unscored.

    `population` is the dataset's count, `planned` what the sample drew of it (all, without a
    sample), `selected` how many of those were collected as tests, `left_out` how many of these
    were not asked, since no decision depended on them any more. `modes` are those of the safe.
    """

    name: str
    population: int
    planned: int
    selected: int
    counts: Counts
    left_out: int = 0
    modes: ModeCounts = field(default_factory=ModeCounts)


MARKDOWN: Final = "report.md"
PAGE: Final = "report.html"
THUMBNAILS: Final = "thumbnails.zip"
REPORTS: Final = (MARKDOWN, PAGE, THUMBNAILS)
"""What a run folder has for people: made of the rest of it, and gone with the run."""

DECIDED: Final = "every gate that it counts for is decided"
"""The detail of a not-run instance that was left out because it could change nothing."""

NOT_SELECTED: Final = "not selected"
"""The detail of a not-run instance that no test was selected for: left out, not lost."""

NOT_JUDGED: Final = "no test judged it"
"""The detail of a not-run instance whose test asked for no verdict."""


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """One planned instance, what became of it, and the gates it counts for, by label.

    `seed` is the digest of its seed question. `request_key` is the digest of what was asked,
    images included; None if nothing was. `verdict` is what the judge said of its answer, if it
    said anything; `answer_sha256` is the digest of that answer (`records.text_digest`), known of a
    run that was kept, and of twins. `arm` is the way in which it was asked.
    """

    instance_id: str
    relation: Relation
    category: Category
    seed: str
    outcome: Outcome
    gates: tuple[str, ...] = ()
    selected: bool = True
    request_key: str | None = None
    verdict: Verdict | None = None
    answer_sha256: str | None = None
    arm: str = MULTI

    @property
    def left_out(self) -> bool:
        """It was not asked, since no decision depended on it any more."""
        return self.outcome.reason is Reason.NOT_RUN and self.outcome.detail == DECIDED


@dataclass(frozen=True, slots=True)
class GateDesign:
    """One gate that is to be decided, and the dataset's count of its population."""

    criterion: Criterion
    population: int


@dataclass(frozen=True, slots=True)
class ArmDesign:
    """Another way of asking: what it is called, what it asks for, and of how many instances.

    `about` says it in words. One that `ships` asks the benchmark's prompts and images under a
    defence: a model may be shipped with it. `identity` is the digest of all that makes its
    requests, so that arms of one name can be told apart. `populations` has the count of each
    relation: the dataset's, or that of the twins. `shared` says that several instances ask the
    same, and so have one answer.
    """

    name: str
    kind: ArmKind
    about: str
    identity: str
    populations: Mapping[Relation, int]
    shared: bool = False
    ships: bool = False

    @property
    def population(self) -> int:
        """How many instances there are in all."""
        return sum(self.populations.values())


@dataclass(frozen=True, slots=True)
class RunDesign:
    """What is to be decided, and how: with the outcomes, enough to decide again.

    `populations` has the dataset's count of each relation. `distinct_requests` says that of two
    instances with one request the second is bad input, as in a private suite; of two twins it
    always is. `planned` is the
    digest of the ids of all planned instances, those of other shards too (`ids_digest`). Of
    several `trials` each is planned, and has an outcome of its own. The `regression` gates bound
    how much higher the rate may be than in the baseline whose digest is `baseline`. The `arms` are
    asked beside the benchmark's own way.
    """

    gates: tuple[GateDesign, ...]
    rules: Rules
    populations: Mapping[Relation, int]
    sampled: bool = False
    shard: Shard | None = None
    stops_when_decided: bool = False
    distinct_requests: bool = False
    require_all: bool = False
    report_only: bool = False
    planned: str | None = None
    trials: Trials = field(default_factory=Trials)
    regression: tuple[GateDesign, ...] = ()
    baseline: str | None = None
    arms: tuple[ArmDesign, ...] = ()

    @property
    def counted_gates(self) -> tuple[GateDesign, ...]:
        """The gates, their populations in what is counted: instances, or answers to them."""
        if self.trials.counted == 1:
            return self.gates
        return tuple(
            replace(gate, population=gate.population * self.counted_of(gate.criterion.arm))
            for gate in self.gates
        )

    def counted_of(self, arm: str) -> int:
        """What each instance of an arm counts for: a search is one, however many the trials are."""
        return 1 if is_searched(arm) else self.trials.counted

    def clusters(
        self, members: Iterable[tuple[str, str, Hashable]], arm: str = MULTI
    ) -> tuple[int, ...]:
        """The sizes of the clusters among an arm's answers: each given by id, seed, and request.

        New items come by seed question, and so do searches: what one edit does to a question it may
        do wherever that is asked. Where an arm's instances may ask the same, they share an answer,
        whatever their seed. A sample of items with several answers each is a sample of clusters
        too. Where all items are there, their answers are independent: no cluster.
        """
        shared = any(one.shared for one in self.arms if one.name == arm)
        if shared and self.rules.estimand is not Estimand.ANSWERS:
            return joined((("seed", seed), ("request", asked)) for _, seed, asked in members)
        if is_searched(arm) or self.rules.estimand is Estimand.ITEMS:
            return tuple(Counter(seed for _, seed, _ in members).values())
        if self.sampled and self.trials.counted > 1:
            return tuple(Counter(item_id(one)[0] for one, _, _ in members).values())
        return ()

    @property
    def decides(self) -> bool:
        """The run itself rules: it is no shard, and does more than report."""
        return self.shard is None and not self.report_only


def ids_digest(ids: Iterable[str]) -> str:
    """One digest of these ids, in whatever order they come."""
    return digest(sorted(ids))


@dataclass(frozen=True, slots=True)
class ArmUsage:
    """What the answers of one arm took that tests were given, as far as it was told.

    Of `answers`, `counted` had numbers of tokens and `timed` a time; `seconds` are from request to
    answer, all together. What the store had counts with what it took when it was asked. `blocked`
    are those that a defence gave in the model's place.
    """

    answers: int = 0
    counted: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    timed: int = 0
    seconds: float = 0.0
    blocked: int = 0

    def __add__(self, other: ArmUsage) -> ArmUsage:
        """Of both together."""
        return ArmUsage(
            answers=self.answers + other.answers,
            counted=self.counted + other.counted,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            timed=self.timed + other.timed,
            seconds=round(self.seconds + other.seconds, 6),
            blocked=self.blocked + other.blocked,
        )


@dataclass(frozen=True, slots=True)
class Provenance:
    """What was asked of whom, and how it was judged: enough to ask it again.

    Times are seconds since the epoch, `elapsed` is in seconds. `input_tokens` and `output_tokens`
    are of the answers that the tests used; those `asked` in this run and `stored` before are also
    counted apart, as far as they were told. `cost_usd` is the price of those asked. `canaries`
    are the known answers that the judge was tried by; None if there were none. `layout` is how
    the images of an instance were put together into one; None where they were sent as they are.
    `usage` is by arm, of a run that has arms. `twins_source` and `twins_count` are of the benign
    twins; None where there are none.
    """

    package_version: str
    data_source: str
    data_identity: str
    data_revision: str | None
    data_count: int
    model_name: str
    model_identity: str
    decoding: str
    system_prompt: str | None
    judge: str
    judge_screens: bool
    screening_may_pass: bool
    estimand: Estimand
    confidence: Decimal
    sample: str | None
    sample_seed: str | None
    thresholds_from: str
    policy: tuple[str, ...]
    attempt: int
    answers_asked: int
    answers_from_store: int
    answers_recorded: bool
    oldest_answer: float | None
    input_tokens: int
    output_tokens: int
    started: float
    elapsed: float
    asked_input_tokens: int = 0
    asked_output_tokens: int = 0
    asked_without_usage: int = 0
    stored_input_tokens: int = 0
    stored_output_tokens: int = 0
    cost_usd: Decimal | None = None
    verdicts_from_store: int = 0
    canaries: str | None = None
    layout: str | None = None
    usage: Mapping[str, ArmUsage] = field(default_factory=dict)
    twins_source: str | None = None
    twins_count: int | None = None


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What came of one arm: its tallies, and the outcome of each instance in it.

    Of twins, safe is answered and unsafe is not answered; of a search, held and flipped. Of what
    is held `against` another arm, `differences` has the paired difference to it in each relation,
    then overall. Twins have the rate of `false_refusals`.
    """

    design: ArmDesign
    relations: tuple[Tally, ...]
    overall: Tally
    outcomes: tuple[InstanceOutcome, ...]
    against: str | None = None
    differences: tuple[ArmDifference, ...] = ()
    false_refusals: FalseRefusals | None = None

    @property
    def difference(self) -> ArmDifference | None:
        """The paired difference of all instances; None where there is none to be held against."""
        return self.differences[-1] if self.differences else None


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run: its gates, its tallies per relation and overall, and each instance's outcome.

    A shard has no gates: they are decided over all shards. `regression` gates hold it against its
    `baseline`. Of a `redacted` one the outcomes quote nothing (`redaction`). Tallies and outcomes
    are those of the benchmark's own arm; the others are in `arms`. `flips` are what the searches
    for edits have found.
    """

    design: RunDesign
    provenance: Provenance
    gates: tuple[GateResult, ...]
    relations: tuple[Tally, ...]
    overall: Tally
    outcomes: tuple[InstanceOutcome, ...]
    notes: tuple[str, ...] = ()
    redacted: bool = False
    regression: tuple[RegressionResult, ...] = ()
    baseline: Side | None = None
    arms: tuple[ArmResult, ...] = ()
    flips: tuple[SearchResult, ...] = ()

    def arm(self, name: str) -> ArmResult | None:
        """What came of this arm beside the benchmark's own; None if it was not planned."""
        return next((arm for arm in self.arms if arm.design.name == name), None)

    @property
    def all_outcomes(self) -> tuple[InstanceOutcome, ...]:
        """Those of the benchmark's own arm, then those of each other one."""
        others = (entry for arm in self.arms for entry in arm.outcomes)
        return (*self.outcomes, *others) if self.arms else self.outcomes

    @property
    def ruling(self) -> Ruling:
        """What the gates say together, before any failing test."""
        if not self.design.decides:
            return Ruling.NO_DECISION
        return _RULINGS[self.exit_code(tests_failed=False)]

    def exit_code(self, *, tests_failed: bool) -> int:
        """What the process should exit with; without a decision only a failing test counts."""
        if not self.design.decides:
            return int(tests_failed)
        require_all = self.design.require_all
        shipping = {MULTI, *(arm.name for arm in self.design.arms if arm.ships)}
        code = exit_code(
            self.gates, require_all=require_all, tests_failed=tests_failed, shipping=shipping
        )
        decisions = {gate.decision for gate in self.regression}
        if code == 1 or Decision.FAIL in decisions:
            return 1
        # No more unsafe than before says nothing of how unsafe that was: it gives no 0 alone.
        undecided = {Decision.INCONCLUSIVE} | ({Decision.NOT_EVALUATED} if require_all else set())
        missing = len(self.regression) < len(self.design.regression)
        return 10 if missing or decisions & undecided else code


_RULINGS: Final = {0: Ruling.PASS, 1: Ruling.FAIL, 10: Ruling.INCONCLUSIVE}


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What is kept of a run: enough to decide again, alone or together with other shards.

    `where` is how messages name it. `exit_code` is that of the process, and `tests_failed` says
    that a test failed, whatever the gates say. `digest` is that of the run's manifest, run.json:
    labels name the run by it. Of a `redacted` run there are no texts, only their digests.
    `baseline` is the pinned one of a run that was held against one. `outcomes` are those of the
    benchmark's own arm, `arm_outcomes` those of all others; `flips` are what searches found.
    """

    where: str
    design: RunDesign
    provenance: Provenance
    outcomes: tuple[InstanceOutcome, ...]
    notes: tuple[str, ...]
    tests_failed: bool
    exit_code: int
    digest: str
    circumstances: Circumstances = field(default_factory=Circumstances)
    redacted: bool = False
    baseline: Side | None = None
    arm_outcomes: tuple[InstanceOutcome, ...] = ()
    flips: tuple[SearchResult, ...] = ()

    @property
    def all_outcomes(self) -> tuple[InstanceOutcome, ...]:
        """Those of every arm, in the order in which the run wrote them."""
        return (*self.outcomes, *self.arm_outcomes) if self.arm_outcomes else self.outcomes
