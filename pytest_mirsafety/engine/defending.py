"""Requests under a defence: it is asked, then the model as ever, then it again, of the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from ..arms import BENIGN_TWIN, ArmKind, kind_of
from ..defended import Asked, Blocked, Passed
from ..errors import BackendError, BadInputError, NotRunError, UnscoredError
from ..printable import one_line
from ..protocols import Defence
from ..records import MULTI, Completion, Instance, Request, Response, arm_id
from .asks import NO_PICTURES, Ask, Parts, Pictured
from .calling import Caller, check_judgeable
from .endpoint import Bounds, Endpoint, Estimate, Job
from .keeping import Keeper
from .lanes import Lane
from .pacing import PaceSettings
from .pictures import Pictures
from .reading import Prepared
from .register import Receiver, Register
from .spending import Prices, Spending

_AT_ONCE: Final = 4096
"""Answers that may wait for the store at the same time: it takes all that wait in one go."""

_OUTPUT: Final = 16
"""Tokens that a guard is taken to say; they matter to a limit of tokens per minute only."""


_NOTHING: Final = Completion("", "stop", input_tokens=0, output_tokens=0)


@dataclass(slots=True, eq=False)
class Defended:
    """One defended request, for all the asks that came to it.

    `check` is the call of the defence that is in line or under way, `bare` what the model itself
    is asked meanwhile. `completion` is what came of that, then what comes out; `spent` has what all
    of it took so far.
    """

    request: Request
    defence: Defence
    pictured: Pictured
    asks: list[Ask]
    check: Check | None = None
    bare: Ask | None = None
    completion: Completion | None = None
    spent: Completion = _NOTHING

    @property
    def urgent(self) -> bool:
        """Somebody waits for it."""
        return any(ask.urgent for ask in self.asks)

    def spend(self, latency: float, read: int | None, written: int | None) -> None:
        """Add what something took; nobody knows the whole where a part is not known."""
        spent = self.spent
        self.spent = replace(
            spent,
            latency=spent.latency + latency,
            input_tokens=_plus(spent.input_tokens, read),
            output_tokens=_plus(spent.output_tokens, written),
        )


@dataclass(slots=True, eq=False)
class Check(Job):
    """One call of a defence, before the model or after it. `answer` is the model's final one."""

    of: Defended
    answer: str | None = None
    latency: float = field(default=0.0, init=False)


class Asker(Receiver, Protocol):
    """Who asks the model itself, beside being told what becomes of asks."""

    def take(self, bare: Ask) -> None:
        """Ask the model this; `Defending.answered` or `Defending.failed` is told of the end."""

    def hurry(self, ask: Ask) -> None:
        """Let it jump the queues."""

    def give_up(self, bare: Ask) -> bool:
        """Take it back; tells whether it could be: its request is not in flight."""


class _Checks:
    """What is asked of one defence; `told` hears of each end, with None where there is none."""

    failure: type[UnscoredError] = BackendError
    allowed: tuple[type[UnscoredError], ...] = (BadInputError,)

    def __init__(
        self,
        name: str,
        caller: Caller,
        pictures: Pictures,
        told: Callable[[Check, Passed | Blocked | UnscoredError], None],
    ) -> None:
        self.name = name
        self._caller = caller
        self._pictures = pictures
        self._told = told

    async def attempt(self, job: Check) -> Passed | Blocked:
        """Read the images that the defence looks at, if any, and call it once."""
        work = job.of
        defence, request = work.defence, work.request
        images = await self._pictures.read(work.pictured)
        asked = Asked(request.prompt, request.system, images)
        begun = time.monotonic()
        try:
            decided = await self._caller.decided(
                lambda: (
                    defence.before(asked)
                    if job.answer is None
                    else defence.after(asked, job.answer)
                )
            )
        except BadInputError as error:  # what is wrong with the data is not the defence's to say
            raise BackendError(error.detail) from None
        job.latency = time.monotonic() - begun
        return decided

    def used(self, result: Passed | Blocked) -> tuple[int | None, int | None]:
        """As the defence told."""
        return result.input_tokens, result.output_tokens

    async def succeed(self, job: Check, result: Passed | Blocked) -> None:
        """Go on with what was decided."""
        self._told(job, result)

    def fail(self, job: Check, failure: UnscoredError) -> None:
        """Nothing was decided."""
        detail = one_line(f"{self.name}: {failure.detail}", 300)
        self._told(job, failure if isinstance(failure, NotRunError) else type(failure)(detail))


class Defending:
    """Every defended request key of a run, on its way through defence, model and defence.

    Confined to the loop's thread. What comes out is stored under the key of the defended request.
    The model is asked what it would be asked without the defence: that answer is stored and shared
    under its own key.
    """

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        keeper: Keeper[Request, Completion] | None,
        pictures: Pictures,
        asker: Asker,
        abort: Callable[[BaseException], None],
    ) -> None:
        self._parts = parts
        self._keeper = keeper
        self._asker = asker
        self._register: Register[Defended] = Register(asker)
        self._bare: dict[Ask, Defended] = {}
        self._ceased = ""
        self._ending: Lane[Defended] = Lane(self._end, _AT_ONCE, abort)
        self._endpoints: dict[int, Endpoint[Check, Passed | Blocked]] = {}
        for arm, own in parts.settings.defences.items():
            if id(own.defence) not in self._endpoints:
                pace = own.pace or PaceSettings(own.defence.concurrency)
                stage = _Checks(f"the defence of arm '{arm}'", caller, pictures, self._told)
                bounds = Bounds(pace, Spending(None, Prices()))
                self._endpoints[id(own.defence)] = Endpoint(stage, bounds, abort, asker.read_on)

    @property
    def waiting(self) -> int:
        """Calls of defences that are in line."""
        return sum(each.waiting + each.parked for each in self._endpoints.values())

    def defends(self, ask: Ask) -> bool:
        """It is an ask under a defence."""
        return ask.instance.arm in self._parts.settings.defences

    def dispatch(self, ask: Ask, prepared: Prepared) -> None:
        """Begin with the request, or join an equal one, or take its answer."""
        if self._register.settle(ask, prepared):
            return
        if (work := self._register.of(ask)) is not None:
            work.asks.append(ask)
            if ask.urgent:
                self.hurry(ask)
            return
        request, defence = prepared.request, self._parts.settings.defences[ask.instance.arm].defence
        looks = getattr(defence, "wants_images", True)
        pictured = Pictured(ask.instance.images, request.images) if looks else NO_PICTURES
        work = Defended(request, defence, pictured, [ask])
        self._register.begin(work)
        if self._ceased:
            self._register.end(work, NotRunError(self._ceased), kept=False)
        elif _acts(defence, "before"):
            self._check(work)
        else:
            self._ask_the_model(work)

    def hurry(self, ask: Ask) -> None:
        """Let what its request waits for jump the queue."""
        if (work := self._register.of(ask)) is None:
            return
        if work.check is not None:
            self._endpoint(work).hurry(work.check)
        if work.bare is not None:
            self._asker.hurry(work.bare)

    def withdraw(self, ask: Ask) -> bool:
        """Take an ask back; tells whether it could be: nothing that it needs is in flight."""
        work = self._register.of(ask)
        if work is None or ask not in work.asks:
            return True
        if len(work.asks) > 1:
            work.asks.remove(ask)
            return True
        if work.check is not None and not self._endpoint(work).withdraw(work.check):
            return False
        if work.bare is not None and not self._asker.give_up(work.bare):
            return False
        if work.check is None and work.bare is None:  # it is being stored
            return False
        if work.bare is not None:
            del self._bare[work.bare]
        self._register.drop(work)
        return True

    def answered(self, bare: Ask, completion: Completion) -> None:
        """The model's own answer is there."""
        work = self._bare.pop(bare)
        work.bare = None
        work.completion = completion
        work.spend(completion.latency, completion.input_tokens, completion.output_tokens)
        answer = self._final(work, completion)
        if answer is None or not _acts(work.defence, "after"):
            self._finish(work, _as_spent(completion, work))
        else:
            self._check(work, answer)

    def failed(self, bare: Ask, failure: UnscoredError) -> None:
        """The model has none, for the reason that it has without the defence."""
        work = self._bare.pop(bare)
        work.bare = None
        self._register.end(work, failure, kept=False)

    def cease(self, why: str) -> None:
        """Ask the defences of no further request: the model is not asked either.

        What the model has answered they are still asked about.
        """
        if self._ceased:
            return
        self._ceased = why
        for work in self._register.under_way:
            check = work.check
            if check is not None and check.answer is None and self._endpoint(work).withdraw(check):
                self._register.end(work, NotRunError(why), kept=False)

    def halt(self) -> None:
        """Begin nothing more, and cancel what is in flight; what is being stored still is."""
        for endpoint in self._endpoints.values():
            endpoint.halt()
        self._ending.halt()

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109 - it gives up, not fails
        """Wait until nothing is in flight any more, or `timeout` seconds for each defence."""
        for endpoint in self._endpoints.values():
            await endpoint.drained(timeout)
        await self._ending.drained(timeout)

    # The way of one request

    def _endpoint(self, work: Defended) -> Endpoint[Check, Passed | Blocked]:
        return self._endpoints[id(work.defence)]

    def _check(self, work: Defended, answer: str | None = None) -> None:
        work.check = check = Check(work, answer)
        check.urgent = work.urgent
        characters = len(work.request.prompt) + len(answer or "")
        images = self._parts.settings.image_tokens * len(work.pictured.refs)
        text = Estimate.of_text(characters, _OUTPUT)
        check.cost = replace(text, input=text.input + images)
        self._endpoint(work).add(check)

    def _told(self, check: Check, decided: Passed | Blocked | UnscoredError) -> None:
        work = check.of
        work.check = None
        if isinstance(decided, UnscoredError):
            self._register.end(work, decided, kept=False)
            return
        work.spend(check.latency, decided.input_tokens, decided.output_tokens)
        if isinstance(decided, Blocked):
            self._finish(work, _instead(decided, work))
        elif work.completion is not None:
            self._finish(work, _as_spent(work.completion, work))
        elif (skipped := _skipped(work)) is not None:
            self._register.end(work, NotRunError(skipped), kept=False)
        else:
            self._ask_the_model(work)

    def _ask_the_model(self, work: Defended) -> None:
        work.bare = bare = Ask(self._plainly(work.asks[0].instance), bare=True)
        bare.urgent = work.urgent
        self._bare[bare] = work
        self._asker.take(bare)

    def _plainly(self, instance: Instance) -> Instance:
        """The instance as the model is asked it.

        It has the id of the one without the defence where that is asked the same. Else its own: a
        recording may have no answer to it, and never has another's.
        """
        arm = BENIGN_TWIN if kind_of(instance.arm) is ArmKind.TWIN else MULTI
        item = arm_id(instance.origin, arm)
        plain = self._parts.settings.undefended.get(item)
        if plain is None or not _asks_the_same(plain, instance):
            return replace(instance, arm=arm)
        draw = f"#{instance.draw + 1}" if instance.draw else ""
        return replace(instance, id=f"{item}{draw}", arm=arm)

    def _final(self, work: Defended, completion: Completion) -> str | None:
        """The answer that a user would see; None where there is none that could be judged."""
        answer, reasoning, closed = self._parts.separate(completion)
        response = Response(work.request.key, completion, answer, reasoning, closed)
        try:
            check_judgeable(response, judge_cut_answers=self._parts.settings.judge_cut_answers)
        except UnscoredError:
            return None
        return answer

    def _finish(self, work: Defended, completion: Completion) -> None:
        work.completion = completion
        self._ending.add(work, urgent=True)

    async def _end(self, work: Defended) -> None:
        """Store what came out, then let its asks have it: the one that was stored first."""
        completion = work.completion
        if completion is None:
            raise RuntimeError("a defended request ended without an answer")
        if self._keeper is not None:
            completion = await self._keeper.keep(work.request, completion)
        self._register.end(work, completion, kept=self._keeper is not None)


def _acts(defence: Defence, where: str) -> bool:
    """Whether it does anything there: one that does not say so is asked."""
    return bool(getattr(defence, f"acts_{where}", True))


def _asks_the_same(one: Instance, other: Instance) -> bool:
    sent = [(i.prompt, i.system, i.composed, i.images) for i in (one, other)]
    return sent[0] == sent[1]


def _skipped(work: Defended) -> str | None:
    """Why nobody needs it any more; None as long as somebody does."""
    reasons = [ask.skipped for ask in work.asks]
    return None if any(reason is None for reason in reasons) else reasons[0]


def _as_spent(completion: Completion, work: Defended) -> Completion:
    """The model's own, with what all of it took."""
    spent = work.spent
    return replace(
        completion,
        latency=spent.latency,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        created=time.time(),
    )


def _instead(blocked: Blocked, work: Defended) -> Completion:
    """What the user sees in place of an answer."""
    model = work.completion
    return replace(
        work.spent,
        text=blocked.text,
        created=time.time(),
        composed=None if model is None else model.composed,
        blocked=one_line(blocked.why, 300) or "blocked",
    )


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
