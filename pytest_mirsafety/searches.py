"""Searches for edits that flip a verdict, several at once, through the engine of the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from .digests import text_digest
from .edits import Edit
from .errors import MissingExtraError, UnscoredError
from .images import ImageLimits
from .images.editing import ImageEditor
from .metamorphic import Answered, Flip, SearchResult, search
from .records import Instance, Outcome, Response, SentImages, Verdict
from .setting_sections import MetamorphicSettings
from .tally import UnscoredPolicy, outcome_of
from .taxonomy import Status
from .trials import drawn

if TYPE_CHECKING:
    from .run_plan import RunPlan
    from .store import SQLiteStore

_MOST_AT_ONCE: Final = 16
_LOOK_SECONDS: Final = 0.5
"""Seconds between two looks of a waiting thread: an endless wait ignores Ctrl-C on Windows."""


class Asks(Protocol):
    """What a search asks through: an engine."""

    def answer(self, instance: Instance) -> Response:
        """The model's response."""

    def verdict(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict on it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How searches are made: what may be asked, and what an answer without a verdict counts as.

    An answer of which the judge cannot tell is unscored, whatever the run's policy: UNSAFE is
    what the judge itself has found. `images_of` gives the digests of the images of an answered
    request, by its key.
    """

    settings: MetamorphicSettings
    policy: UnscoredPolicy
    editor: ImageEditor
    images_of: Callable[[str], SentImages | None]
    at_once: int


class Searches:
    """The searches of a run. The first result that is asked for begins those of all that planned.

    Each is in a thread of its own, as many at once as the model takes requests.
    """

    def __init__(self, engine: Asks, terms: Terms, planned: Iterable[Instance]) -> None:
        self._engine = engine
        self._terms = terms
        self._planned = tuple(planned)
        self._found: dict[str, Future[SearchResult]] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        """Of the one search that draws edits; it lets go of it while it waits for an answer."""
        self._threads = ThreadPoolExecutor(
            max(1, min(terms.at_once, _MOST_AT_ONCE)), thread_name_prefix="mirsafety-search"
        )

    def result(self, instance: Instance, *, planned: bool) -> SearchResult:
        """What came of this instance's search; blocks until it is known.

        Raises:
            RunError: the run cannot go on.
        """
        if not planned:
            return self._search(instance)
        with self._lock:
            for one in self._planned if not self._found else ():
                self._found[one.id] = self._threads.submit(self._search, one)
        self.wait(instance, lambda: None, _LOOK_SECONDS)
        return self._found[instance.id].result()

    def wait(self, instance: Instance, tick: Callable[[], None], every: float) -> None:
        """Until this planned instance's search has ended, if they have begun."""
        if (found := self._found.get(instance.id)) is not None:
            while not wait([found], every).done:
                tick()

    def close(self) -> None:
        """End the threads. The engine must have been stopped: nothing may wait for an answer."""
        self._threads.shutdown(cancel_futures=True)

    def _search(self, instance: Instance) -> SearchResult:
        settings = self._terms.settings
        ask = partial(self._ask, instance)
        try:
            with self._turn:
                found = search(instance, ask, budget=settings.budget, seed=settings.seed)
        except ModuleNotFoundError as error:
            if error.name != "hypothesis":
                raise
            raise MissingExtraError("a search for flips", "metamorphic") from None
        return replace(
            found,
            flip=self._with_texts(instance, found.flip),
            order=self._with_texts(instance, found.order),
        )

    def _ask(self, instance: Instance, edit: Edit, draw: int) -> Answered:
        self._turn.release()
        try:
            return self._answered(instance, edit, draw)
        finally:
            self._turn.acquire()

    def _answered(self, instance: Instance, edit: Edit, draw: int) -> Answered:
        edited = self._terms.editor.edited(instance, edit)
        if draw:
            edited = drawn(edited, draw)
        try:
            response = self._engine.answer(edited)
        except UnscoredError as error:
            return Answered(self._outcome(error))
        result: Verdict | UnscoredError
        try:
            result = self._engine.verdict(edited, response)
        except UnscoredError as error:
            result = error
        outcome = self._outcome(result)
        answer = response.answer
        kept = answer if outcome.status is Status.UNSAFE else None
        return Answered(outcome, response.request_key, text_digest(answer), kept)

    def _outcome(self, result: Verdict | UnscoredError) -> Outcome:
        return outcome_of(result, self._terms.policy)

    def _with_texts(self, instance: Instance, flip: Flip | None) -> Flip | None:
        """With the prompt that was asked, and the digests of the images that were sent."""
        if flip is None:
            return None
        key = flip.answers[0].request_key
        sent = None if key is None else self._terms.images_of(key)
        prompt = self._terms.editor.edited(instance, flip.edit).prompt
        return replace(flip, prompt=prompt, images=() if sent is None else sent.originals)


def build_searches(
    plan: RunPlan, engine: Asks, store: SQLiteStore, planned: Sequence[Instance]
) -> Searches:
    """The searches of a run, by its settings; none is begun."""
    limits = plan.settings.limits
    terms = Terms(
        settings=plan.arms.search,
        # What the judge cannot tell is not known to be UNSAFE: neither before an edit, where it
        # would leave the rate, nor after one, where a second draw could take it back.
        policy=replace(plan.settings.unscored.to_policy(), undetermined_is_unsafe=False),
        editor=ImageEditor(ImageLimits(limits.max_bytes, limits.max_pixels)),
        images_of=store.images_of,
        at_once=plan.backend.concurrency,
    )
    return Searches(engine, terms, planned)
