"""What a run would ask, found out without asking: the dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from .cautions import cautions, peculiarities
from .comparison.regression import regression_label
from .engine.calling import wants_images
from .engine.estimates import (
    Asking,
    Chosen,
    Estimator,
    GateAhead,
    Judging,
    Preview,
    Shipment,
    Usage,
    base64_size,
)
from .engine.spending import Prices
from .errors import BadInputError
from .gates.wording import sign
from .images import ImageLimits, ImageReader
from .records import MULTI, ImageRef, Instance, Request
from .sampling import Membership
from .store import SQLiteStore
from .store.file import check, connect
from .trials import decoding_of

if TYPE_CHECKING:
    from .run_plan import RunPlan

_PATIENCE: Final = 10.0


def preview(plan: RunPlan, selected: Sequence[Instance]) -> Preview:
    """Count and estimate what asking these planned instances would take; no store is made.

    Raises:
        StoreError: the store is there and cannot be read.
    """
    with _opened(plan) as store:
        found = _Survey(plan, store)
        for instance in selected:
            found.add(instance)
        found.settle()
    return _summary(plan, selected, found)


class _UnknownImageError(Exception):
    """The store has no digest of an image, and a dry run reads none."""


class _KnownImages(SQLiteStore):
    """A store that is there, whose images are never read to find out what they are."""

    def image_digest(self, stamp: str) -> str:
        found = super().image_digest(stamp)
        if found is None:
            raise _UnknownImageError
        return found


def _opened(plan: RunPlan) -> AbstractContextManager[_KnownImages | None]:
    """The store of answers if there is one; none is made."""
    if not plan.backend.cacheable or not plan.store.exists():
        return nullcontext()
    connection = connect(plan.store, patience=_PATIENCE)
    try:
        check(plan.store, connection)
    except BaseException:
        connection.close()
        raise
    return _KnownImages(plan.store, connection, _PATIENCE)


@dataclass(slots=True)
class _Survey:
    """Goes through the instances, and finds which are answered and what the others send."""

    plan: RunPlan
    store: _KnownImages | None
    estimator: Estimator = field(init=False)
    held: int = 0
    to_ask: int = 0
    unreadable: int = 0
    shipments: list[Shipment] = field(default_factory=list)
    _keyed: dict[str, list[Instance]] = field(default_factory=dict)
    _defended: dict[str, str] = field(default_factory=dict)
    _reader: ImageReader | None = None

    def __post_init__(self) -> None:
        settings = self.plan.settings
        model = self.plan.model.settings
        self.estimator = Estimator(model.image_tokens, self.plan.backend.decoding)
        if self.store is not None:
            limits = ImageLimits(settings.limits.max_bytes, settings.limits.max_pixels)
            self._reader = ImageReader(limits, self.store)

    def add(self, instance: Instance) -> None:
        """Note what an instance asks, if its images are known; else it is to be asked."""
        try:
            request = self._request(instance)
        except BadInputError:
            self.unreadable += 1
            return
        if request is None:
            self._ask([instance])
            return
        self._keyed.setdefault(request.key, []).append(instance)
        if (own := self.plan.arms.defences.get(instance.arm)) is not None:
            defended = replace(request, defence=own.defence.identity)
            self._defended[instance.id] = defended.key

    def settle(self) -> None:
        """Part the requests that are known into those the store holds and the others."""
        held: set[str] = set()
        if self.store is not None:
            held = self.store.held([*self._keyed, *self._defended.values()])
        for key, instances in self._keyed.items():
            if key not in held:
                # What a defence blocked is stored, and the model was never asked.
                rest = [one for one in instances if self._defended.get(one.id) not in held]
                self.held += len(instances) - len(rest)
                if rest:
                    self._ask(rest)
                continue
            self.held += len(instances)
            completion = self.store.get(key) if self.store is not None else None
            if completion is not None:
                one = instances[0]
                sizes = (0,) * len(one.images)
                self.estimator.learn(self._shipment(one, sizes), completion)

    def _request(self, instance: Instance) -> Request | None:
        """What the model itself is asked; None if an image was never read before.

        Raises:
            BadInputError: an image is missing, or not the one that the data declares.
        """
        if self._reader is None:
            return None
        try:
            images = tuple(self._reader.inspect(ref).sha256 for ref in instance.images)
        except _UnknownImageError:
            return None
        backend = self.plan.backend
        return Request(
            model=backend.identity,
            prompt=instance.prompt,
            images=images,
            system=backend.system if instance.system is None else instance.system,
            decoding=decoding_of(dict(backend.decoding), instance.draw),
            draw=instance.draw,
            layout=self._layout(instance),
        )

    def _ask(self, instances: Sequence[Instance]) -> None:
        """Count instances of one request that is to be asked once."""
        one = instances[0]
        try:
            sizes = tuple(map(_size, one.images))
        except (BadInputError, OSError):
            self.unreadable += len(instances)
            return
        self.to_ask += len(instances)
        self.shipments.append(self._shipment(one, sizes))

    def _shipment(self, instance: Instance, sizes: tuple[int, ...]) -> Shipment:
        """What is sent; one image of several is taken to be as large as all of them."""
        system = self.plan.backend.system if instance.system is None else instance.system
        characters = len(instance.prompt) + len(system or "")
        return Shipment(characters, (sum(sizes),) if self._layout(instance) else sizes)

    def _layout(self, instance: Instance) -> str:
        """How its images are put together, as the engine's reader decides it."""
        from .images import LAYOUT

        composed = bool(self.plan.layout) or instance.composed
        return LAYOUT if composed and len(instance.images) > 1 else ""


def _size(ref: ImageRef) -> int:
    """The bytes of an image.

    Raises:
        BadInputError: it is missing or unreadable.
        OSError: its file is.
    """
    path = ref.source.path(ref.locator)
    return len(ref.source.read(ref.locator)) if path is None else path.stat().st_size


def _summary(plan: RunPlan, selected: Sequence[Instance], found: _Survey) -> Preview:
    backend = plan.backend
    recorded = backend.identity.provider == "replay"
    shipments = () if recorded else tuple(found.shipments)
    return Preview(
        model=f"{plan.model.name}, {backend.identity}",
        data=plan.dataset.source,
        store=str(plan.store),
        chosen=Chosen(
            population=len(plan.dataset.instances),
            planned=sum(i.arm == MULTI for i in plan.instances),
            selected=len(selected),
            held=found.held,
            to_ask=found.to_ask,
            unreadable=found.unreadable,
            arms=Counter(i.arm for i in selected if i.arm != MULTI),
        ),
        asking=_asking(shipments, sends_bytes=backend.needs_bytes),
        usage=_usage(plan, shipments, found.estimator),
        judging=Judging(
            judge=plan.judge.identity,
            calls=found.held + found.to_ask,
            local=getattr(plan.judge, "cacheable", True) is False,
            images=sum(len(i.images) for i in selected) if wants_images(plan.judge) else 0,
        ),
        gates=tuple(_gates(plan, selected)),
        budget=plan.budget,
        recorded=recorded,
        decides=plan.design.decides,
        notes=tuple(dict.fromkeys(_notes(plan, shipments))),
    )


def _notes(plan: RunPlan, shipments: Sequence[Shipment]) -> Iterator[str]:
    yield from (*plan.notes, *peculiarities(plan), *_estimated(plan, shipments))
    yield from (*_defences(plan), *cautions(plan))


def _defences(plan: RunPlan) -> Iterator[str]:
    asked = [name for name in plan.arms.defences if name in plan.arms.asked]
    if asked:
        yield (
            f"the defences of {', '.join(asked)} are asked too, which is not counted here, and let "
            "fewer requests through to the model"
        )


def _estimated(plan: RunPlan, shipments: Sequence[Shipment]) -> Iterator[str]:
    if plan.layout and any(shipment.images for shipment in shipments):
        yield "a composed image is made as it is sent; it is taken to have the bytes of its parts"


def _asking(shipments: Sequence[Shipment], *, sends_bytes: bool) -> Asking:
    sizes = [size for shipment in shipments for size in shipment.images]
    encoded = sum(map(base64_size, sizes)) if sends_bytes else 0
    return Asking(len(shipments), len(sizes), sum(sizes), encoded)


def _usage(plan: RunPlan, shipments: Sequence[Shipment], estimator: Estimator) -> Usage:
    model, tokens = plan.model.settings, estimator.total(shipments)
    return Usage(
        tokens=tokens,
        image_tokens=model.image_tokens,
        output_tokens=estimator.output_tokens,
        learned_from=estimator.answers,
        cost=Prices(model.input_price, model.output_price).of(tokens.input, tokens.output),
    )


def _gates(plan: RunPlan, selected: Sequence[Instance]) -> Iterator[GateAhead]:
    design = plan.design
    on_increases = {gate.criterion.label: gate.criterion for gate in design.regression}
    # A sample is drawn for the gates on the rate, and one on its increase has the same instances.
    criteria = on_increases | {gate.criterion.label: gate.criterion for gate in design.gates}
    membership = Membership(criteria.values(), plan.sample)
    planned, chosen = (
        Counter(label for instance in first.values() for label in membership.of(instance))
        for first in ({i.item: i for i in plan.instances}, {i.item: i for i in selected})
    )
    named = [(gate.criterion.label, sign(gate.criterion), gate) for gate in design.gates]
    named += [(regression_label(gate.criterion), "+", gate) for gate in design.regression]
    for name, bounds, gate in named:
        one, label = gate.criterion, gate.criterion.label
        yield GateAhead(name, one.threshold, gate.population, planned[label], chosen[label], bounds)
