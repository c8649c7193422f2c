"""The forms of run.json and of a line of results.jsonl, in each version that was ever written.

What a version has is never changed: what comes later is optional, or another version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..circumstances import Environment
from ..errors import DataError
from ..printable import one_line
from ..records import ModelIdentity, SafeMode, Verdict, VerdictKind
from ..results import Provenance, RunDesign
from ..taxonomy import Category, Reason, Relation, Status

FORMAT: Final = "mirsafety-run"
SCHEMA_VERSION: Final = 3

DETAIL_LIMIT: Final = 400
WORDS_LIMIT: Final = 4000  # what a judge may say, and be called
FLAG_LIMIT: Final = 200
MOST: Final = 50  # flags, scores, members, images
MOST_INSTANCES: Final = 10_000_000
_MOST_ENVIRONMENTS: Final = 10_000

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Words = Annotated[str, Field(max_length=WORDS_LIMIT)]
_Short = Annotated[str, Field(max_length=FLAG_LIMIT)]
_Score = tuple[_Short, float | Literal["inf", "-inf", "nan"]]
_Tokens = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=2**36)]
_Model = TypeVar("_Model", bound=BaseModel)


class Strict(BaseModel):
    """Takes what it names, in the types that it names, and nothing else."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),  # before pydantic 2.10 any key that begins with "model_"
    )


class VerdictForm(Strict):
    """What a judge said of an answer."""

    kind: VerdictKind
    judge: _Words
    evidence: _Words
    mode: SafeMode | None
    flags: Annotated[tuple[_Short, ...], Field(max_length=MOST)]
    scores: Annotated[tuple[_Score, ...], Field(max_length=MOST)]
    members: Annotated[tuple[VerdictForm, ...], Field(max_length=MOST)]

    def verdict(self) -> Verdict:
        """The verdict that this line tells.

        Raises:
            ValueError: a mode of an answer that is not SAFE.
        """
        return Verdict(
            self.kind,
            self.judge,
            self.evidence,
            mode=self.mode,
            flags=self.flags,
            scores=tuple((name, float(value)) for name, value in self.scores),
            members=tuple(member.verdict() for member in self.members),
        )


class LineForm(Strict):
    """One line of results.jsonl of version 1, but for its answer; what came later has a default."""

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._/-]{1,200}(#[1-9][0-9]{0,3})?$")]
    relation: Relation
    category: Category
    seed: Digest
    gates: tuple[str, ...]
    selected: bool
    status: Status
    reason: Reason | None
    detail: Annotated[str, Field(max_length=DETAIL_LIMIT)]
    request_key: Digest | None
    mode: SafeMode | None = None
    mode_by_rules: bool = False
    mode_open: bool = False
    draw: int = 0
    verdict: VerdictForm | None = None
    answer_sha256: Digest | None = None
    images: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=MOST)] | None = None
    composed: Digest | None = None


class LineForm2(LineForm):
    """One line of version 2, but for its four texts."""

    arm: Literal["multi"] = "multi"
    finish_reason: _Short | None = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    latency: _Seconds | None = None
    created: _Seconds | None = None
    prompt_sha256: Digest | None = None


class LineForm3(LineForm2):
    """One line of version 3, but for its four texts: of any arm."""

    id: Annotated[
        str,
        Field(pattern="^[A-Za-z0-9._/-]{1,200}(@[a-z0-9-]{1,80})?(#[1-9][0-9]{0,3})?$"),
    ]
    arm: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,79}$")] = "multi"  # type: ignore[assignment]
    blocked: Annotated[str, Field(max_length=DETAIL_LIMIT)] | None = None


TEXTS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("answer",),
    2: ("question", "prompt", "answer", "reasoning"),
    3: ("question", "prompt", "answer", "reasoning"),
}
"""The keys of each version's line that hold a text, which is any string or null."""


class WholeLine(LineForm):
    """One line of version 1 whose answer is a text to pydantic: half a surrogate pair is none."""

    answer: str | None = None


class WholeLine2(LineForm2):
    """One line of version 2 whose texts are texts to pydantic."""

    question: str | None = None
    prompt: str | None = None
    answer: str | None = None
    reasoning: str | None = None


class WholeLine3(LineForm3):
    """One line of version 3 whose texts are texts to pydantic."""

    question: str | None = None
    prompt: str | None = None
    answer: str | None = None
    reasoning: str | None = None


WHOLE_LINES: Final[Mapping[int, type[LineForm]]] = {1: WholeLine, 2: WholeLine2, 3: WholeLine3}
LINES: Final[Mapping[int, type[LineForm]]] = {1: LineForm, 2: LineForm2, 3: LineForm3}


class ResultsForm(Strict):
    """How many records results.jsonl has, and the SHA-256 of its bytes."""

    records: Annotated[int, Field(ge=0, le=MOST_INSTANCES)]
    sha256: Digest


class ManifestForm(Strict):
    """run.json of a run that has ended. What `for_people` holds is derived, and never read."""

    format: Literal["mirsafety-run"]
    schema_version: Literal[1]
    finished: Literal[True]
    design: RunDesign
    provenance: Provenance
    notes: tuple[str, ...]
    tests_failed: bool
    exit_code: Annotated[int, Field(ge=0, le=255)]
    for_people: dict[str, Any]
    results: ResultsForm
    digest: Digest


class ManifestForm2(Strict):
    """run.json of a run that has ended. What `for_people` holds is derived, and never read."""

    format: Literal["mirsafety-run"]
    schema_version: Literal[2]
    finished: Literal[True]
    redacted: bool
    design: RunDesign
    provenance: Provenance
    ended: float | None
    model: ModelIdentity | None
    environments: Annotated[tuple[Environment, ...], Field(max_length=_MOST_ENVIRONMENTS)]
    notes: tuple[str, ...]
    tests_failed: bool
    exit_code: Annotated[int, Field(ge=0, le=255)]
    for_people: dict[str, Any]
    results: ResultsForm
    digest: Digest


class ManifestForm3(ManifestForm2):
    """run.json of a run that has ended. What `for_people` holds is derived, and never read."""

    schema_version: Literal[3]  # type: ignore[assignment]


Manifest: TypeAlias = ManifestForm | ManifestForm2
MANIFESTS: Final[Mapping[int, type[ManifestForm | ManifestForm2]]] = {
    1: ManifestForm,
    2: ManifestForm2,
    3: ManifestForm3,
}


def validated(model: type[_Model], content: bytes, place: str) -> _Model:
    """The content as this model.

    Raises:
        DataError: it is something else; the message has the first key that is wrong.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise malformed(place, f"{key}: {first['msg']}" if key else first["msg"]) from None


def malformed(place: str, problem: str) -> DataError:
    """The error for what is wrong in a place, on one line."""
    return DataError(one_line(f"{place}: {problem}", 400))
