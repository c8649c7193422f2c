"""The smaller tables of the configuration: judges, arms, what is unscored, trials, limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .defended import REFUSAL
from .judge_forms import JudgeKind, check_judge
from .setting_values import Name, Section, plain_number, variable
from .tally import UnscoredPolicy
from .trials import MOST as MOST_TRIALS
from .trials import TrialRule, Trials

Seconds = Annotated[float, Field(gt=0, le=86400, strict=False), BeforeValidator(plain_number)]


class ReachedSettings(Section):
    """What the tables of a model and of a judge say alike of where it is, and how it is reached.

    `gpu_memory` is the share of each GPU's memory that a server of ours takes, and `server_args`
    are further arguments of it; timeouts are in seconds.
    """

    base_url: str | None = None
    api_key_env: Annotated[str | None, BeforeValidator(variable)] = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    timeout: Seconds = 600.0
    max_retries: Annotated[int, Field(ge=0, le=20)] = 8
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    tensor_parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    gpu_memory: (
        Annotated[float, Field(gt=0, le=1, strict=False), BeforeValidator(plain_number)] | None
    ) = None
    server_args: list[str] = []
    start_timeout: Seconds = 1800.0


class JudgeSettings(ReachedSettings):
    """`[tool.mirsafety.judges.NAME]`: what judges, and how the model behind it is reached.

    `provider` is where that model runs, or the judge itself: `rules`, or `module:attr`. A panel
    has `members` in place of a model.
    """

    kind: JudgeKind | None = None
    provider: Name | None = None
    model: Name | None = None
    revision: Name | None = None
    template: Name | None = None
    template_digest: Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")] | None = None
    clip_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    images: bool = False
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    members: list[Name] = []
    rule: Literal["majority", "any-unsafe"] = "majority"
    quorum: Annotated[int, Field(ge=1)] | None = None
    canaries: Name | None = None
    canary_count: Annotated[int, Field(ge=3, le=1000)] = 20
    canary_misses: Annotated[int, Field(ge=0, le=999)] = 2

    @model_validator(mode="after")
    def _a_judge_that_misses_all(self) -> Self:
        if self.canary_misses * 2 >= self.canary_count:
            raise ValueError("canary_misses must be less than half of canary_count")
        return self

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        check_judge(self)
        return self


class UnscoredSettings(Section):
    """`[tool.mirsafety.unscored]`: what a filtered or undetermined answer counts as."""

    filtered: Literal["unscored", "safe"] = "unscored"
    filter_ships: bool = False
    undetermined: Literal["unscored", "unsafe"] = "unscored"

    @model_validator(mode="after")
    def _a_filter_that_ships(self) -> Self:
        if self.filtered == "safe" and not self.filter_ships:
            raise ValueError(
                'filtered = "safe" needs filter_ships = true: the filter must ship with the model'
            )
        return self

    def to_policy(self) -> UnscoredPolicy:
        """The same as outcomes are made by."""
        return UnscoredPolicy(
            filtered_is_safe=self.filtered == "safe",
            undetermined_is_unsafe=self.undetermined == "unsafe",
        )


class TrialSettings(Section):
    """`[tool.mirsafety.trials]`: how often each instance is asked, and what its answers are."""

    count: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 1
    rule: Annotated[TrialRule, Field(strict=False)] = TrialRule.ANY

    def to_trials(self) -> Trials:
        """The same as the gates take it."""
        return Trials(self.count, self.rule)


class ArmSettings(Section):
    """`[tool.mirsafety.arms.NAME]`: a way of asking the same instances.

    `prompt` may name `{prompt}` and `{question}`; of `images` are sent `all` in order, all in
    `reversed` order, `none`, or all put together into `one`. A `system` prompt is sent in place of
    the model's own; with a `safety_prompt` one that asks for care comes after it. In place of these
    `make` may name a function, `module:attr`, that takes an Instance and gives one.

    Guards stand `before` the model and `after` it: by the name of a judge, or `module:attr`. A
    `look` says what they are shown, a `refusal` what users see instead. In place of these a
    `defence` may name a factory, `module:attr`, that takes these settings.
    """

    about: Annotated[str, Field(max_length=200)] | None = None
    prompt: Name | None = None
    images: Literal["all", "reversed", "none", "one"] | None = None
    system: Annotated[str, Field(min_length=1)] | None = None
    make: Name | None = None
    safety_prompt: bool = False
    before: Name | None = None
    after: Name | None = None
    look: Literal["text", "each", "together", "both"] = "text"
    refusal: Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")] = REFUSAL
    defence: Name | None = None

    @property
    def is_guarded(self) -> bool:
        """Something stands between users and the model."""
        return any((self.before, self.after, self.defence))

    @property
    def defends(self) -> bool:
        """It may make a model refuse what is harmless, too."""
        return self.is_guarded or self.safety_prompt or self.system is not None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.make is not None and (self.prompt or self.images or self.system):
            raise ValueError("make gives the instance whole: leave out prompt, images and system")
        if self.make is not None and self.safety_prompt:
            raise ValueError("make gives the instance whole: leave out safety_prompt")
        return self

    @model_validator(mode="after")
    def _one_defence(self) -> Self:
        guards = self.model_fields_set & {"before", "after", "look", "refusal"}
        if self.defence is not None and guards:
            raise ValueError(f"defence decides by itself: leave out {min(guards)}")
        if guards and not (self.before or self.after):
            raise ValueError(f"'{min(guards)}' is for guards: name one in before or after")
        if self.look == "each" and self.before is None:
            raise ValueError(
                'look = "each" shows images one at a time to a guard before the model: name one in '
                'before, or take look = "together"'
            )
        return self


class LimitSettings(Section):
    """`[tool.mirsafety.limits]`: the largest image that is sent."""

    max_bytes: Annotated[int, Field(ge=1)] = 20 * 2**20
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000
