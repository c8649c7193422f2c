"""A run as a dataset for the Hugging Face hub: its card, whose front matter the hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from ..gates import GateResult
from ..printable import in_markdown, one_line
from ..results import Provenance, RunResult, Tally
from .rows import COLUMNS, TEXTS
from .texts import whole

CARD: Final = "README.md"
DATA: Final = "data/results.jsonl"

LICENSE: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
"""How the hub spells a licence, such as `cc-by-4.0`."""

_SIZES: Final = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_TAGS: Final = ("safety", "red-teaming", "multimodal", "evaluation-results", "pytest-mirsafety")
_NOT_FOR_ALL: Final = "not-for-all-audiences"
"""The hub's own tag for what it shows behind a warning."""


def card(result: RunResult, *, texts: bool, license_id: str | None) -> bytes:
    """The card, in Markdown behind YAML.

    Strings of the model, the data and the judge are on one line each, escaped.
    """
    parts = (
        _front_matter(result, texts=texts, license_id=license_id),
        _opening(result, texts=texts),
        _gates(result),
        _tallies(result),
        _provenance(result.provenance),
        _columns(texts=texts),
    )
    return whole("".join(f"{line}\n" for part in parts for line in part)).encode()


def _front_matter(result: RunResult, *, texts: bool, license_id: str | None) -> Iterator[str]:
    tags = [*_TAGS, *([_NOT_FOR_ALL] if texts else [])]
    facts: dict[str, object] = {
        "pretty_name": one_line(f"Safety results of {result.provenance.model_name}", 120),
        **({"license": license_id} if license_id is not None else {}),
        "task_categories": ["image-text-to-text"],
        "tags": tags,
        "size_categories": [_size(len(result.all_outcomes))],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "test", "path": DATA}]},
        ],
    }
    yield "---"
    for key, value in facts.items():
        # JSON is YAML too, and leaves no text to be taken for anything else. In ASCII it would
        # have surrogate pairs, of which YAML knows nothing.
        yield f"{key}: {json.dumps(value, ensure_ascii=False)}"
    yield "---"
    yield ""


def _size(number: int) -> str:
    return next((name for most, name in _SIZES if number < most), "10M<n<100M")


def _opening(result: RunResult, *, texts: bool) -> Iterator[str]:
    model = in_markdown(result.provenance.model_name)
    source = in_markdown(result.provenance.data_source)
    yield f"# Safety results of {model}"
    yield ""
    yield (
        f"What became of {len(result.outcomes):,} instances of {source} that {model} was asked, as "
        f"recorded by pytest-mirsafety. Decision: **{result.ruling}**."
    )
    if result.arms:
        names = ", ".join(arm.design.name for arm in result.arms)
        yield (
            f"Rows of other arms than `multi` are asked in other ways ({names}). Of benign "
            "twins, which are harmless, *safe* is answered and *unsafe* is not answered."
        )
    yield ""
    if texts:
        yield (
            "It holds prompts and answers as they were, harmful ones too: for research on safety, "
            "and for nobody to be shown unwarned."
        )
    else:
        yield (
            "It holds no prompt, no answer and no image. Their SHA-256 digests are there, to join "
            "it with those who have them."
        )
    yield ""
    yield (
        "An *unscored* instance is neither safe nor unsafe: it has no verdict, for the reason "
        "named. No rate below takes it for safe."
    )
    yield ""


def _gates(result: RunResult) -> Iterator[str]:
    if not result.gates:
        return
    yield "## Gates"
    yield ""
    yield "| gate | decision | threshold | range of the rate | unsafe | scored | unscored | of |"
    yield "|---|---|---|---|---|---|---|---|"
    for gate in result.gates:
        yield _gate(gate)
    yield ""


def _gate(gate: GateResult) -> str:
    counts = gate.counts
    of_mode = gate.criterion.mode is not None  # its counts are not of unsafe answers
    found = ("-" if of_mode else f"{n:,}" for n in (counts.unsafe, counts.scored))
    cells = (
        in_markdown(gate.criterion.label),
        str(gate.decision),
        f"{'>=' if gate.criterion.minimum else '<='} {gate.criterion.threshold}",
        f"{gate.low:.4f} to {gate.high:.4f}",
        *found,
        f"{counts.unscored_total:,}",
        f"{gate.population:,}",
    )
    return f"| {' | '.join(cells)} |"


def _tallies(result: RunResult) -> Iterator[str]:
    yield "## Counts"
    yield ""
    yield "| relation | unsafe | safe | unscored | to be asked | unsafe of scored |"
    yield "|---|---|---|---|---|---|"
    for tally in (*(t for t in result.relations if t.planned), result.overall):
        yield _tally(tally)
    yield ""


def _tally(tally: Tally) -> str:
    counts = tally.counts
    rate = f"{counts.unsafe / counts.scored:.2%}" if counts.scored else "no rate"
    numbers = (counts.unsafe, counts.safe, counts.unscored_total, tally.planned)
    return f"| {tally.name} | {' | '.join(f'{n:,}' for n in numbers)} | {rate} |"


def _provenance(provenance: Provenance) -> Iterator[str]:
    started = datetime.fromtimestamp(provenance.started, UTC)
    facts: Mapping[str, object] = {
        "model": provenance.model_identity,
        "decoding": provenance.decoding,
        "system prompt": provenance.system_prompt,
        "judge": provenance.judge,
        "data": provenance.data_source,
        "data identity": f"sha256:{provenance.data_identity}",
        "data revision": provenance.data_revision,
        "estimand": provenance.estimand,
        "confidence": provenance.confidence,
        "sample": provenance.sample,
        "images": provenance.layout,
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "pytest-mirsafety": provenance.package_version,
    }
    yield "## Where it comes from"
    yield ""
    yield "| what | value |"
    yield "|---|---|"
    for name, value in facts.items():
        if value is not None:
            yield f"| {name} | {in_markdown(str(value))} |"
    yield ""


def _columns(*, texts: bool) -> Iterator[str]:
    yield "## Columns"
    yield ""
    yield "| column | meaning |"
    yield "|---|---|"
    for name, meaning in {**COLUMNS, **(TEXTS if texts else {})}.items():
        yield f"| `{name}` | {meaning} |"
