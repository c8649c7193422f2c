"""One run, from its plan to its result: engine, store, ledger and gates put together."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from . import evaluation
from .arms import is_searched, is_twin
from .data.scratch import Scratch
from .digests import text_digest
from .errors import RunError, StoreError, UnscoredError
from .exchanges import Exchange
from .gates.challenge import Challenge
from .judges.modes import guess_mode
from .ordering import in_rounds
from .provenance import Given, numerics_note, provenance, trials_notes
from .records import Instance, Outcome, Response, Verdict
from .results import (
    DECIDED,
    NOT_JUDGED,
    NOT_SELECTED,
    InstanceOutcome,
    Provenance,
    RunDesign,
    RunResult,
)
from .run_plan import RunPlan
from .sampling import Membership
from .stopping import Decider, TrialDecider, decider
from .tally import NOT_RUN, Ledger, of_twin, outcome_of

if TYPE_CHECKING:
    from .engine.engine import Engine
    from .engine.engine import Progress as EngineProgress
    from .entropies import AnswerAttention
    from .metamorphic import SearchResult
    from .run_store import RunStore
    from .searches import Searches


class Run:
    """A planned run: asks, judges, keeps the ledger, and evaluates the gates.

    Call `select`, then `connect`, then `answer` and `verdict` for each instance, `evaluate` and
    `close`. Several threads may answer and judge at once.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self._planned = {instance.id: instance for instance in plan.instances}
        criteria = (gate.criterion for gate in plan.design.gates)
        self._membership = Membership(criteria, plan.sample)
        self._selected: dict[str, Instance] = {}
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._listener: Callable[[Outcome], None] | None = None
        self._store: RunStore | None = None
        self._engine: Engine | None = None
        self._attempt = 1
        self._sample_spent = self._search_spent = False
        self._given: dict[str, Given] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._twin_answers: dict[str, str] = {}
        self._tests: Counter[str] = Counter()
        self._decider: Decider | TrialDecider | None = None
        self._searches: Searches | None = None
        self._flips: dict[str, SearchResult] = {}
        self._scratch = Scratch(plan.place.cache)
        """For images that are composed in this run; made when the first one is."""
        self._started = time.time()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances to parametrize over, with relations interleaved, all first draws first.

        One arm comes after the other, and only those that are asked.
        """
        asked = self.plan.arms.asked
        return in_rounds(i for i in self.plan.instances if i.arm in asked)

    @property
    def selected(self) -> tuple[Instance, ...]:
        """The planned instances that the tests cover, in their order."""
        return tuple(self._selected.values())

    @property
    def asking(self) -> bool:
        """The plan has begun to be asked."""
        return self._engine is not None and self._engine.started

    @property
    def judged(self) -> bool:
        """An answer has a verdict."""
        return self._engine is not None and self._engine.progress().judged > 0

    def on_outcome(self, listener: Callable[[Outcome], None]) -> None:
        """Call `listener` with each outcome that enters the gates, in the thread that caused it."""
        self._listener = listener

    def select(self, instances: Sequence[Instance]) -> None:
        """Fix which instances the tests cover, one for each test in their order.

        Others are not-run.
        """
        planned = [i for i in instances if self._is_planned(i)]
        self._selected = {i.id: self._planned[i.id] for i in planned}
        self._tests = Counter(i.id for i in planned)

    def connect(self) -> None:
        """Open the store and hand the engine its plan; nothing is asked yet.

        Raises:
            RunError: the store cannot be opened.
        """
        from .engine_building import build_engine
        from .run_store import RunStore
        from .searches import build_searches

        plan = self.plan
        self._store = store = RunStore.open(plan)
        self._attempt = store.attempt
        self._sample_spent, self._search_spent = store.sample_spent, store.search_spent
        self._engine = build_engine(
            plan, store.answers, store.verdicts, store.keeper, self._scratch
        )
        self._engine.plan(list(self._selected.values()))
        searched = [one for one in self._selected.values() if is_searched(one.arm)]
        self._searches = build_searches(plan, self, store.answers, searched)
        if plan.design.stops_when_decided:
            self._decider = decider(
                self._design, plan.instances, self._membership, self._selected.keys()
            )
            self._engine.skip(self._decider.unneeded, DECIDED)

    def answer(self, instance: Instance) -> Response:
        """The model's response; an instance without one is recorded as unscored.

        Raises:
            UnscoredError: there is no answer.
            RunError: the run cannot go on.
        """
        try:
            response = self._running.answer(instance)
        except UnscoredError as error:
            if self._is_planned(instance) and not is_searched(instance.arm):
                self._record(instance, error)
            raise
        if self._is_planned(instance):
            self._given[instance.id] = Given.of(response)
            if is_twin(instance.arm):
                self._twin_answers[instance.id] = text_digest(response.answer)
        return response

    def verdict(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict; it enters the gates if this is the answer to the planned request.

        Raises:
            UnscoredError: there is no verdict.
            RunError: the run cannot go on.
        """
        own = self._is_planned(instance) and not is_searched(instance.arm)
        given = self._given.get(instance.id) if own else None
        planned = (
            given is not None
            and given == Given.of(response)
            and response.request_key == self._running.planned_key(instance.id)
        )
        result: Verdict | UnscoredError
        try:
            result = self._running.verdict(instance, response)
        except UnscoredError as error:
            result = error
        if is_twin(instance.arm):
            judge = self.plan.arms.judges.get(instance.arm, self.plan.judge)
            result = of_twin(result, response, judge.identity)
        if planned:
            self._record(instance, result, response.answer)
            if isinstance(result, Verdict):
                self._verdicts[instance.id] = result
        if isinstance(result, UnscoredError):
            raise result
        return result

    def search(self, instance: Instance) -> SearchResult:
        """What edits make of this instance's verdict; it enters the gates if it was planned.

        Raises:
            RunError: the run cannot go on.
        """
        if self._searches is None:
            raise RunError("the run is not connected")
        planned = instance.id in self._selected and is_searched(instance.arm)
        planned = planned and self._is_planned(instance)
        found = self._searches.result(instance, planned=planned)
        if planned:
            with self._lock:
                self._flips[instance.id] = found
            self._enter(instance, found.outcome)
        return found

    def finish(self, instance: Instance) -> None:
        """Note that a test of this instance has ended, whatever came of it.

        After the last one its outcome is final, and may decide gates (`--mir-stop=decided`).
        """
        if self._decider is None or not self._is_planned(instance):
            return
        name = instance.id
        with self._lock:
            self._tests[name] -= 1
            if self._tests[name]:
                return
            engine = self._running
            outcome = self._ledger.outcome(name)
            unneeded = self._decider.settle(name, outcome, engine.planned_key(name))
        engine.skip(unneeded, DECIDED)

    def wait(self, instance: Instance, tick: Callable[[], None], every: float) -> None:
        """Until this planned instance is answered and judged, calling `tick` every so often."""
        if self._is_planned(instance):
            self._running.start()
            self._running.wait(instance, tick, every)
            if self._searches is not None and is_searched(instance.arm):
                self._searches.wait(instance, tick, every)

    def progress(self) -> EngineProgress:
        """How far the asking is."""
        return self._running.progress()

    def stop(self) -> None:
        """Stop asking at once; what was answered is kept. Any thread may call this."""
        if self._engine is not None:
            self._engine.stop()

    def challenge(self) -> None:
        """Try the judge by what is known once more, after the last answer; blocks until it is.

        SAFE verdicts of a judge that missed what is known are not kept: another run, whose judge
        is mended, would rest on them.

        Raises:
            StoreError: they cannot be removed.
        """
        if self._engine is not None:
            self._engine.challenge()
        found, kept = self._challenge(), self._store
        missed = found is not None and replace(found, complete=True).voids_pass
        if missed and kept is not None:
            kept.verdicts.forget_safe()

    def close(self) -> None:
        """Close the engine, its adapters and the store.

        Raises:
            RunError: something did not close.
        """
        engine, store, searches = self._engine, self._store, self._searches
        self._engine = self._store = self._searches = None
        try:
            if engine is not None:
                engine.close()
        finally:
            if searches is not None:
                searches.close()
            if store is not None:
                store.close()
            self._scratch.close()

    def evaluate(self) -> RunResult:
        """Decide every gate on what the ledger holds now."""
        plan = self.plan
        with self._lock:
            design = self._design
            entries = [self._entry(instance) for instance in self._planned.values()]
            about_trials = trials_notes(design.trials, self._given, looked=self._sample_spent)
            notes = (*plan.notes, *numerics_note(plan.backend), *about_trials)
            provenance = self._provenance
            flips = tuple(self._flips[name] for name in self._planned if name in self._flips)
            return evaluation.evaluate(design, entries, provenance, notes, plan.baseline, flips)

    def exchange(self, instance_id: str) -> Exchange | None:
        """What a planned instance was asked, and what came back; None of one that is not planned.

        The answer is the one that a test was given. It is looked up where it is kept, so that a
        run holds no answers. To be called before `close`.

        Raises:
            StoreError: it cannot be read any more.
        """
        if (instance := self._planned.get(instance_id)) is None:
            return None
        asked = Exchange(question=instance.question, prompt=instance.prompt)
        if (given := self._given.get(instance_id)) is None:
            return asked
        response = self._running.recall(instance_id)
        if response is None or given != Given.of(response):
            raise StoreError(f"the answer of {instance_id} is no longer the one that was given")
        images = None if self._store is None else self._store.answers.images_of(given.request_key)
        return asked.answered(response, images)

    def attention(self, instance_id: str) -> AnswerAttention | None:
        """What was measured behind the answer that a test was given; None if nothing was.

        To be called before `close`.

        Raises:
            StoreError: it cannot be read any more.
        """
        given, watch = self._given.get(instance_id), self.plan.watch
        if given is None or watch is None or watch.store is None:
            return None
        response = self._running.recall(instance_id)
        if response is None or given != Given.of(response):
            return None
        return watch.store.get(response.request_key, text_digest(response.text))

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise RunError("the run is not connected")
        return self._engine

    @property
    def _design(self) -> RunDesign:
        design, engine = self.plan.design, self._engine
        progress = None if engine is None else engine.progress()
        rules = replace(
            design.rules,
            sample_spent=self._sample_spent,
            search_spent=self._search_spent,
            budget_spent=progress is not None and progress.budget_spent,
            silent=None if progress is None else progress.silent,
            challenge=self._challenge(),
            unchallenged=self.plan.canaries is None,
        )
        return replace(design, rules=rules)

    def _challenge(self) -> Challenge | None:
        """What the judge has made of known answers; None if there are none for it."""
        if (known := self.plan.canaries) is None:
            return None
        engine = self._engine
        rounds = None if engine is None else engine.trial
        if rounds is None:  # nothing rests on the judge's word
            return Challenge((), known.misses, complete=True)
        return Challenge(rounds, known.misses, complete=len(rounds) == _ROUNDS)

    def _entry(self, instance: Instance) -> InstanceOutcome:
        return InstanceOutcome(
            instance_id=instance.id,
            relation=instance.relation,
            category=instance.category,
            seed=instance.seed,
            outcome=self._outcome(instance.id),
            gates=self._membership.of(instance),
            selected=instance.id in self._selected,
            request_key=None if self._engine is None else self._engine.planned_key(instance.id),
            verdict=self._verdicts.get(instance.id),
            answer_sha256=self._twin_answers.get(instance.id),
            arm=instance.arm,
        )

    def _outcome(self, instance_id: str) -> Outcome:
        if instance_id not in self._selected:
            return _NOT_SELECTED
        outcome = self._ledger.outcome(instance_id)
        return _NO_VERDICT if outcome == NOT_RUN else outcome

    def _is_planned(self, instance: Instance) -> bool:
        known = self._planned.get(instance.id)
        return known is not None and instance.is_from(known)

    @property
    def _provenance(self) -> Provenance:
        progress = None if self._engine is None else self._engine.progress()
        attempt, started = self._attempt, self._started
        return provenance(self.plan, self._given, progress, attempt=attempt, started=started)

    def _record(
        self, instance: Instance, result: Verdict | UnscoredError, answer: str = ""
    ) -> None:
        # A twin that is answered is in no mode of safe answers.
        guessed = isinstance(result, Verdict) and result.safe and not is_twin(instance.arm)
        guess = guess_mode(answer) if guessed else None
        self._enter(instance, outcome_of(result, self.plan.settings.unscored.to_policy(), guess))

    def _enter(self, instance: Instance, outcome: Outcome) -> None:
        with self._lock:
            self._ledger.record(instance.id, outcome)
        if self._listener is not None:
            self._listener(outcome)


_ROUNDS: Final = 2
_NO_VERDICT: Final = replace(NOT_RUN, detail=NOT_JUDGED)
_NOT_SELECTED: Final = replace(NOT_RUN, detail=NOT_SELECTED)
