"""What the engine works with, and what it keeps of each instance on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import UnscoredError
from ..gates.challenge import Canary
from ..protocols import Backend, Composer, Defence, ImageLoader, Judge, Store
from ..records import Completion, ImageRef, Instance, LoadedImage, Response, Verdict
from .endpoint import Estimate, Job
from .lanes import Landing
from .pacing import Pace, PaceSettings
from .spending import Budget, Prices

Separate = Callable[[Completion], tuple[str, str | None, bool]]
"""Gives a completion's final answer, its reasoning, and whether the reasoning is closed."""

_JUDGE_OUTPUT: Final = 16
"""Tokens that a judge is taken to say; they matter to a limit of tokens per minute only."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The answers that the judge is tried by, and the judge itself, whatever is kept of it.

    `images` are what a judge that looks at images is shown beside each of them.
    """

    judge: Judge
    canaries: tuple[Canary, ...]
    images: tuple[LoadedImage, ...] = ()


Recall = Callable[[str, str, tuple[str, ...]], Verdict | None]
"""Gives the verdict that is kept of a question, an answer and the digests of images."""


@dataclass(frozen=True, slots=True)
class ArmJudge:
    """Who judges the answers of an arm in place of the run's judge; `recall` is what is kept."""

    judge: Judge
    recall: Recall | None = None


@dataclass(frozen=True, slots=True)
class ArmDefence:
    """What stands between users and the model in an arm; `pace` bounds how fast it is asked.

    A pace that is given as such is shared with other defences that ask the same.
    """

    defence: Defence
    pace: PaceSettings | Pace | None = None


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine leaves open.

    `judge_cut_answers` lets a final answer be judged that ran into the length limit. `draw`
    numbers repeated asks of the same requests. `patience` is how many seconds backend and judge
    may each take to close. `target` and `judge` bound how fast each is asked; by default only
    their own concurrency does. `image_tokens` is what an image is taken to cost until the
    endpoint has told what a request does. `recall` gives the verdict that is kept of a question,
    an answer and the digests of images, without asking anybody. `trial` is what the judge is
    tried by. `two_phases` lets model and judge compute one after the other: all is asked, then all
    judged. `composer` puts the images of a request into one: of each where `compose_all`, for a
    model that takes one, else of instances that ask for it. `judges` are those of arms that have
    one of their own, and `defences` those of arms that have one. `undefended` are the instances
    that are asked without a defence, by id: an answer of theirs that was recorded serves others
    that are asked the same.
    """

    judge_cut_answers: bool = False
    draw: int = 0
    patience: float = 30.0
    target: PaceSettings | None = None
    judge: PaceSettings | None = None
    budget: Budget | None = None
    prices: Prices = field(default_factory=Prices)
    image_tokens: int = 1000
    recall: Recall | None = None
    trial: Trial | None = None
    two_phases: bool = False
    composer: Composer | None = None
    compose_all: bool = True
    judges: Mapping[str, ArmJudge] = field(default_factory=dict)
    defences: Mapping[str, ArmDefence] = field(default_factory=dict)
    undefended: Mapping[str, Instance] = field(default_factory=dict, repr=False)

    @property
    def of_arms(self) -> tuple[tuple[str, Judge | Defence], ...]:
        """The judges and defences of arms, each once, with what it is."""
        found: list[tuple[str, Judge | Defence]] = [
            *(("judge", own.judge) for own in self.judges.values()),
            *(("defence", own.defence) for own in self.defences.values()),
        ]
        return tuple({id(adapter): (what, adapter) for what, adapter in found}.values())


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine works with; all of it is given."""

    backend: Backend
    judge: Judge
    images: ImageLoader
    store: Store | None
    separate: Separate
    settings: EngineSettings


@dataclass(slots=True, eq=False)
class Ask(Landing):
    """One instance on its way to an answer. It lands with an answer or a failure.

    A `response` that the store keeps is not held here. `barred` says why an answer that is
    there is not judged, `skipped` why nobody needs one any more. A `bare` one is what the model
    itself is asked for one under a defence.
    """

    instance: Instance
    planned: bool = False
    urgent: bool = False
    begun: bool = False
    key: str | None = None
    cached: bool = False
    response: Response | None = None
    failure: UnscoredError | None = None
    barred: UnscoredError | None = None
    skipped: str | None = None
    judging: Judging | None = None
    looked_again: bool = False
    bare: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """How much is asked: images, then characters of the prompt."""
        return len(self.instance.images), len(self.instance.prompt)


@dataclass(frozen=True, slots=True)
class Pictured:
    """The images that a judge is to look at: where they are, and what they must be."""

    refs: tuple[ImageRef, ...] = ()
    digests: tuple[str, ...] = ()


NO_PICTURES: Final = Pictured()


@dataclass(slots=True, eq=False)
class Judging(Job):
    """One pair of question and answer, judged once. It lands with a verdict or a failure.

    `pictured` are the images that belong to it for a judge that looks at them. `by` is who judges
    it, where that is not the run's judge. `needed_by` are
    the planned asks that came to this answer.
    """

    question: str
    answer: str
    pictured: Pictured = NO_PICTURES
    by: ArmJudge | None = None
    verdict: Verdict | None = None
    failure: UnscoredError | None = None
    needed_by: list[Ask] = field(default_factory=list)
    begun: bool = False

    def __post_init__(self) -> None:
        self.cost = Estimate.of_text(len(self.question) + len(self.answer), _JUDGE_OUTPUT)


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens that completions said they took; `untold` is how many did not say all of it."""

    input: int = 0
    output: int = 0
    untold: int = 0

    def plus(self, completion: Completion) -> TokenCount:
        """With those of another completion."""
        read, written = completion.input_tokens, completion.output_tokens
        return TokenCount(
            self.input + (read or 0),
            self.output + (written or 0),
            self.untold + (read is None or written is None),
        )


@dataclass(slots=True)
class Counts:
    """How far the planned instances are."""

    answered: int = 0
    from_store: int = 0
    judged: int = 0
    unscored: int = 0
    recalled: int = 0
    stored_tokens: TokenCount = field(default_factory=TokenCount)
