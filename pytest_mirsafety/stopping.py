"""When the rest of a run cannot change a gate any more, and which instances need no answer.

The counts that decide a gate are fixed before the start. A gate is decided when every way to go
on ends in the same decision, so looking after each answer costs nothing of the confidence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping
from functools import reduce
from typing import Final, TypeAlias

from .arms import ArmKind, asked_of
from .evaluation import must_differ
from .gates.decisions import Decision, Rules, limits
from .records import Instance, Outcome, SafeMode, item_id
from .results import GateDesign, RunDesign
from .sampling import Membership
from .tally import together
from .taxonomy import Reason, Status
from .trials import TrialRule, drawn

# What an instance is to a gate, as an index of its counts, better before worse.
_LEFT, _SAFE, _UNSCORED, _UNSAFE = range(4)
_STATES: Final = {Status.SAFE: _SAFE, Status.UNSCORED: _UNSCORED, Status.UNSAFE: _UNSAFE}
_NOT_SETTLED: Final = Outcome(Status.UNSCORED, Reason.NOT_RUN)
_REPEATED: Final = Outcome(Status.UNSCORED, Reason.BAD_INPUT)
_Reader: TypeAlias = SafeMode | None


class Decider:
    """Tells which of the planned instances cannot change any gate any more.

    `design` has the rules as the gates will be decided by them, `selected` the ids collected to
    run. A run that only reports, or is a shard, decides nothing and needs everything. All
    statistics are done here. Not for several threads at once.
    """

    def __init__(
        self,
        design: RunDesign,
        planned: Iterable[Instance],
        membership: Membership,
        selected: Container[str],
    ) -> None:
        gates = design.counted_gates if design.decides else ()
        self._gates = {gate.criterion.label: _Gate(gate) for gate in gates}
        self._holding: dict[str, tuple[_Gate, ...]] = {}
        self._states: dict[_Reader, dict[str, int]] = defaultdict(dict)
        self._settled: dict[str, Outcome] = {}
        self._finished: set[str] = set()
        self._alike: dict[str, _Alike] = {}
        candidates = tuple(planned) if self._gates else ()  # nothing to stop for
        self._take(candidates, membership, selected, design)
        for arm in dict.fromkeys(i.arm for i in candidates):
            if must_differ(design, arm):
                held = (i for i in candidates if i.arm == arm and i.id in self._holding)
                for ids in possibly_equal(held):
                    self._join(ids)
        # How many undecided gates an instance can change.
        self._open = Counter(dict.fromkeys(self._holding, 0))
        for gate in self._gates.values():
            self._open.update(gate.watched)
        self._unneeded = {name for name, number in self._open.items() if not number}
        for gate in self._gates.values():
            self._look(gate)

    @property
    def decided(self) -> Mapping[str, Decision]:
        """By label the gates whose decision is final, whatever the rest turns out to be."""
        gates = self._gates.items()
        return {label: gate.final for label, gate in gates if gate.final is not None}

    @property
    def unneeded(self) -> frozenset[str]:
        """All instances told to be unneeded so far; some may be from the start."""
        return frozenset(self._unneeded)

    def settle(self, instance_id: str, outcome: Outcome, request_key: str | None) -> frozenset[str]:
        """Count a finished instance, and give the ids that nobody needs from now on.

        An instance that was not judged is settled as not-run, with its key if it was asked. If
        one is settled twice its worst outcome counts; what rested on the better one is open again.
        """
        self._finished.add(instance_id)
        outcome = together(self._settled.get(instance_id, outcome), outcome)
        self._settled[instance_id] = outcome
        group, told = self._alike.get(instance_id), set[str]()
        if group is None:
            told |= self._count(instance_id, outcome)
            return frozenset(told)
        if outcome.status is not Status.SAFE:  # it has that status whomever it repeats
            unsafe = outcome.status is Status.UNSAFE
            told |= self._count(instance_id, outcome, rates_only=unsafe)
        for name, found in group.settle(instance_id, outcome, request_key).items():
            told |= self._count(name, found)
        return frozenset(told)

    def may_repeat(self, instance_id: str) -> bool:
        """It may turn out to ask exactly what another instance asks."""
        return instance_id in self._alike

    def _take(
        self,
        planned: Iterable[Instance],
        membership: Membership,
        selected: Container[str],
        design: RunDesign,
    ) -> None:
        """Give each gate its instances, and the counts that decide it."""
        members: dict[_Gate, list[tuple[str, str, Hashable]]] = {
            g: [] for g in self._gates.values()
        }
        holding: dict[tuple[str, ...], tuple[_Gate, ...]] = {}
        for instance in planned:
            labels = membership.of(instance)
            if (gates := holding.get(labels)) is None:
                gates = holding[labels] = tuple(self._gates[label] for label in labels)
            for gate in gates:
                members[gate].append((instance.id, instance.seed, asked_of(instance)))
            chosen = instance.id in selected
            for gate in gates:
                gate.add(instance.id, selected=chosen)
            if chosen:
                self._holding[instance.id] = gates
        for gate, known in members.items():
            gate.fix(design.rules, design.clusters(known, gate.design.criterion.arm))

    def _join(self, ids: tuple[str, ...]) -> None:
        """Let each id be needed for the gates of those that may turn out to repeat it."""
        group = _Alike(ids)
        affected: set[_Gate] = set()
        for name in reversed(ids):
            self._alike[name] = group
            own = set(self._holding[name])
            for gate in affected - own:
                gate.watched.append(name)
            affected |= own

    def _count(self, instance_id: str, outcome: Outcome, *, rates_only: bool = False) -> set[str]:
        """Let each gate that holds an instance know what it is, as the gate reads it."""
        told: set[str] = set()
        changed: dict[_Reader, tuple[int, int]] = {}
        for gate in self._holding.get(instance_id, ()):
            if rates_only and gate.on_mode:
                continue
            if gate.reader not in changed:
                states = self._states[gate.reader]
                status, _ = gate.design.criterion.reading(outcome)
                changed[gate.reader] = states.get(instance_id, _LEFT), _STATES[status]
                states[instance_id] = _STATES[status]
            known, state = changed[gate.reader]
            if known != state:
                gate.counts[known] -= 1
                gate.counts[state] += 1
                if gate.final is None or known is not _LEFT:
                    told |= self._look(gate)
        return told

    def _look(self, gate: _Gate) -> set[str]:
        """See what a gate says now; gives the ids that are unneeded by it."""
        before, gate.final = gate.final, gate.decision
        if (before is None) is (gate.final is None):
            return set()
        step = -1 if before is None else 1
        told = set()
        for name in gate.watched:
            self._open[name] += step
            if not self._open[name]:
                told.add(name)
        told -= self._finished
        told -= self._unneeded
        self._unneeded |= told
        return told


class TrialDecider:
    """The same where instances have several trials that count as one.

    An instance is settled when all its trials are, or by the first UNSAFE one where no other can
    change what it is.
    """

    def __init__(
        self,
        design: RunDesign,
        planned: Iterable[Instance],
        membership: Membership,
        selected: Container[str],
    ) -> None:
        self._draws: dict[str, list[str]] = defaultdict(list)
        self._left: dict[str, set[str]] = defaultdict(set)
        self._outcomes: dict[str, list[Outcome]] = defaultdict(list)
        self._keys: dict[str, str | None] = {}
        first: dict[str, Instance] = {}
        for one in planned:
            first.setdefault(one.item, drawn(one, 0))
            if one.id in selected:
                self._draws[one.item].append(one.id)
                self._left[one.item].add(one.id)
            else:
                self._outcomes[one.item].append(_NOT_SETTLED)
        self._on_modes = any(gate.criterion.mode is not None for gate in design.gates)
        self._decider = Decider(design, first.values(), membership, self._draws)

    @property
    def unneeded(self) -> frozenset[str]:
        """All trials told to be unneeded so far."""
        items = self._decider.unneeded
        return frozenset(draw for item in items for draw in self._draws.get(item, ()))

    def settle(self, instance_id: str, outcome: Outcome, request_key: str | None) -> frozenset[str]:
        """Count a finished trial, and give the ids of those that nobody needs from now on."""
        item, draw = item_id(instance_id)
        self._outcomes[item].append(outcome)
        self._left[item].discard(instance_id)
        if not draw:
            self._keys[item] = request_key
        found = reduce(together, self._outcomes[item])
        if self._left[item] and not (found.status is Status.UNSAFE and self._is_final(item)):
            return frozenset()
        told = self._decider.settle(item, found, self._keys.get(item))
        return frozenset(draw for one in (item, *told) for draw in self._left[one])

    def _is_final(self, item: str) -> bool:
        """An UNSAFE instance stays what it is to each gate, and no copy of another one."""
        return not (self._on_modes or self._decider.may_repeat(item))


def decider(
    design: RunDesign,
    planned: Iterable[Instance],
    membership: Membership,
    selected: Container[str],
) -> Decider | TrialDecider:
    """What tells which of these planned instances, or trials of them, are not needed any more."""
    as_one = design.trials.several and design.trials.rule is TrialRule.ANY
    return (TrialDecider if as_one else Decider)(design, planned, membership, selected)


class _Gate:
    """One gate: what its instances are now, who can change it, and what it says for good.

    Gates of one `reader` read each outcome alike.
    """

    def __init__(self, design: GateDesign) -> None:
        self.design = design
        self.reader: _Reader = design.criterion.mode
        self.counts = [0, 0, 0, 0]
        self.watched: list[str] = []
        self.evaluated = self.may_pass = False
        self.most, self.least = -1, 0
        self.final: Decision | None = None

    def add(self, instance_id: str, *, selected: bool) -> None:
        """Count an instance; one that is not selected has no verdict from the start."""
        self.counts[_LEFT if selected else _UNSCORED] += 1
        if selected:
            self.watched.append(instance_id)

    def fix(self, rules: Rules, clusters: Iterable[int]) -> None:
        """Set the counts that decide, from what is planned and selected."""
        planned, population = sum(self.counts), self.design.population
        tolerance = self.design.criterion.tolerance
        rules = rules.about(self.design.criterion)
        found = limits(tolerance, population, planned, rules, tuple(clusters))
        self.most, self.least = found.most, found.least
        spent = rules.sample_spent and planned != population
        self.may_pass = rules.pass_allowed and not spent
        self.evaluated = bool(population) and (not planned or self.counts[_LEFT] > 0)

    @property
    def on_mode(self) -> bool:
        """It is about how safe answers are safe."""
        return self.reader is not None

    @property
    def decision(self) -> Decision | None:
        """What every way to go on ends in; None if they differ."""
        if not self.evaluated:
            return Decision.NOT_EVALUATED
        if self.design.criterion.kind is ArmKind.SEARCH:
            return None  # how many verdicts there are to be flipped is known at the end
        left, safe, unscored, unsafe = self.counts
        worst = unsafe + unscored
        if unsafe >= self.least:
            return Decision.FAIL
        can_pass = self.may_pass and worst <= self.most and safe + left > 0
        if can_pass and safe and worst + left <= self.most:
            # That twins do not all have one answer is known at the end.
            return None if self.design.criterion.kind is ArmKind.TWIN else Decision.PASS
        return None if can_pass or unsafe + left >= self.least else Decision.INCONCLUSIVE


def possibly_equal(instances: Iterable[Instance]) -> tuple[tuple[str, ...], ...]:
    """The ids of instances that may prove to ask exactly the same, each group in order.

    Requests differ if their texts do, their number of images, or the digests that the data
    declares for all of them; whether the others are equal is known once their images are read.
    """
    given = tuple(instances)
    times = Counter((instance.prompt, len(instance.images)) for instance in given)
    alike: dict[object, list[Instance]] = defaultdict(list)
    for instance in given:
        if times[kind := (instance.prompt, len(instance.images))] > 1:
            alike[kind].append(instance)
    found = []
    for group in alike.values():
        declared = all(i.sha256 for one in group for i in one.images)
        parts: dict[object, list[str]] = defaultdict(list)
        for one in group:
            parts[tuple(i.sha256 for i in one.images) if declared else None].append(one.id)
        found += [tuple(sorted(ids)) for ids in parts.values() if len(ids) > 1]
    return tuple(found)


class _Alike:
    """Instances that may ask the same: one counts for good once no earlier one can equal it."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        self._ids = ids
        self._settled: dict[str, tuple[Outcome, str | None]] = {}
        self._repeats: dict[str, bool] = {}
        self._keys: set[str] = set()
        self._passed = 0

    def settle(
        self, instance_id: str, outcome: Outcome, request_key: str | None
    ) -> dict[str, Outcome]:
        """What is known for good by this one, of it and of those that waited for it."""
        self._settled[instance_id] = outcome, request_key
        passed = [instance_id] if instance_id in self._repeats else []
        while self._passed < len(self._ids):
            name = self._ids[self._passed]
            known, key = self._settled.get(name, (_NOT_SETTLED, None))
            if key is None and known.reason is Reason.NOT_RUN:
                break  # what it asks may still become known
            self._passed += 1
            self._repeats[name] = key in self._keys
            if key is not None:
                self._keys.add(key)
            passed.append(name)
        return {name: self._as_counted(name) for name in passed}

    def _as_counted(self, name: str) -> Outcome:
        outcome, _ = self._settled.get(name, (_NOT_SETTLED, None))
        return together(outcome, _REPEATED) if self._repeats[name] else outcome
