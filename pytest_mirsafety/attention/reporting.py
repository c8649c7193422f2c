"""What a run has of attention: every number as NPZ, the comparison as JSON, and the heatmap."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..entropies import DEFINITION, NOTE, NUMBERS, PICTURE, SUMMARY, AnswerAttention
from ..results import InstanceOutcome, RunResult
from ..taxonomy import Status
from ..whole_files import cannot_write, whole
from . import picture
from .comparing import LEVEL, PERMUTATIONS, Comparison, compare

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT: Final = "mirsafety-attention"
SCHEMA_VERSION: Final = 1

_MEASURES: Final = ("prompt", "images")
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """An instance of the run, and the attention behind its answer."""

    entry: InstanceOutcome
    attention: AnswerAttention


def report(
    folder: Path,
    result: RunResult,
    attention: Callable[[str], AnswerAttention | None],
    *,
    shown: str,
    drawn: bool = True,
) -> list[str]:
    """Write what was measured into the run folder, which is `shown` so; gives it in sentences.

    `attention` gives what was measured behind the answer of an instance. Answers stand in the
    order of their ids, so that the same answers give the same files and the same comparison
    whatever order they came in. Without `drawn` there is no picture.

    Raises:
        ConfigurationError: it cannot be written.
        StoreError: it cannot be read any more.
    """
    found = [
        Measured(entry, one)
        for entry in sorted(result.outcomes, key=lambda entry: entry.instance_id)
        if (one := attention(entry.instance_id)) is not None
    ]
    scored = [e for e in result.outcomes if e.outcome.status is not Status.UNSCORED]
    whole = {one.entry.instance_id for one in found}
    missing = sum(entry.instance_id not in whole for entry in scored)
    sentences = [*_missing(missing, len(scored))]
    if not found:
        return [*sentences, f"{NOTE}nothing was measured"]
    arrays = _arrays(found)
    model = result.provenance.model_identity
    comparison = None if result.design.shard is not None else _compared(found, arrays)
    try:
        written = _write(folder, arrays, comparison, model, missing, drawn=drawn)
    except OSError as error:
        raise cannot_write(folder, error) from None
    if comparison is None:
        sentences.append(f"{NOTE}a shard compares nothing; mirsafety merge does")
    else:
        sentences.append(_sentence(comparison, arrays))
    where = ", ".join(written)
    sentences.append(f"{NOTE}it tells how answers differ, not why; in {shown}: {where}")
    return sentences


def _missing(missing: int, scored: int) -> Iterator[str]:
    if missing:
        yield (
            f"{NOTE}not measured behind {missing:,} of {scored:,} scored answers "
            "(mirsafety store prune removes them, so that they are asked anew)"
        )


def _arrays(found: list[Measured]) -> dict[str, NDArray[Any]]:
    """What the NPZ holds: one place an answer; NaN, or 0 keys, where there is no such image."""
    import numpy as np

    layers = max(one.attention.layers for one in found)
    heads = max(one.attention.heads for one in found)
    images = max(one.attention.images for one in found)
    entropy = np.full((len(found), 1 + images, layers, heads), np.nan, dtype=np.float32)
    mass = entropy.copy()
    keys = np.zeros((len(found), 1 + images), dtype=np.int32)
    for place, one in enumerate(found):
        spans, own_layers, own_heads = one.attention.shape
        where = place, slice(spans), slice(own_layers), slice(own_heads)
        entropy[where], mass[where] = one.attention.entropies, one.attention.masses
        keys[place, :spans] = one.attention.keys
    return {
        "definition": np.array(DEFINITION),
        "instance": np.array([one.entry.instance_id for one in found]),
        "relation": np.array([str(one.entry.relation) for one in found]),
        "seed": np.array([one.entry.seed for one in found]),
        "outcome": np.array([str(one.entry.outcome.status) for one in found]),
        "tokens": np.array([one.attention.tokens for one in found], dtype=np.int32),
        "prompt_keys": keys[:, 0],
        "prompt_entropy": entropy[:, 0],
        "prompt_mass": mass[:, 0],
        "image_keys": keys[:, 1:],
        "image_entropy": entropy[:, 1:],
        "image_mass": mass[:, 1:],
    }


def _values(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """What is compared: entropy over the prompt, and the mean over the images (answers, 2, ...)."""
    import numpy as np

    images = arrays["image_entropy"].astype(float)
    known = (~np.isnan(images)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(images, axis=1) / known
    return np.stack([arrays["prompt_entropy"].astype(float), mean], axis=1)


def _compared(found: list[Measured], arrays: Mapping[str, NDArray[Any]]) -> Comparison:
    import numpy as np

    scored = arrays["outcome"] != str(Status.UNSCORED)
    unsafe = arrays["outcome"] == str(Status.UNSAFE)
    seeds = [one.entry.seed for one, takes in zip(found, scored, strict=True) if takes]
    return compare(_values(arrays)[scored], np.array(unsafe[scored]).tolist(), seeds)


def _write(
    folder: Path,
    arrays: Mapping[str, NDArray[Any]],
    comparison: Comparison | None,
    model: str,
    missing: int,
    *,
    drawn: bool,
) -> list[str]:
    """The files; gives their names."""
    import numpy as np

    with whole(folder / NUMBERS) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    document: dict[str, object] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "definition": DEFINITION,
        "model": model,
        "answers": len(arrays["instance"]),
        "not_measured": missing,
        "numbers": {"file": NUMBERS, "sha256": _sha256(folder / NUMBERS)},
        "picture": None,
        "comparison": None,
    }
    names = [NUMBERS, SUMMARY]
    if comparison is not None:
        document["comparison"] = _facts(comparison, arrays)
        if drawn and _drawable(comparison):
            with whole(folder / PICTURE) as partial:
                picture.draw(partial, comparison, model)
            names.append(PICTURE)
            alternative = picture.alternative(comparison, model)
            document["picture"] = {"file": PICTURE, "alternative": alternative}
    with whole(folder / SUMMARY) as partial:
        partial.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n", "utf-8")
    return names


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _drawable(comparison: Comparison) -> bool:
    import numpy as np

    return comparison.effect is not None and not np.isnan(comparison.effect).all()


def _means(arrays: Mapping[str, NDArray[Any]], status: Status) -> list[float | None]:
    """The mean entropy of such answers over all heads, of each measure; None without one."""
    import numpy as np

    values = _values(arrays)[arrays["outcome"] == str(status)]
    measures = (values[:, place] for place in range(len(_MEASURES)))
    return [None if np.isnan(m).all() else float(np.nanmean(m)) for m in measures]


def _length(arrays: Mapping[str, NDArray[Any]], status: Status) -> float:
    """The median number of tokens of such answers."""
    import numpy as np

    return float(np.median(arrays["tokens"][arrays["outcome"] == str(status)]))


def _facts(comparison: Comparison, arrays: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    """The comparison for a machine; null is what has no value."""
    sides = {}
    for status, number in ((Status.UNSAFE, comparison.unsafe), (Status.SAFE, comparison.safe)):
        sides[str(status)] = {
            "answers": number,
            "mean_entropy": dict(zip(_MEASURES, _means(arrays, status), strict=True)),
            "median_tokens": _length(arrays, status) if number else None,
        }
    measures = {
        measure: {
            "cliffs_delta": _plain(comparison.effect, place),
            "mean_difference": _plain(comparison.difference, place),
            "p": _plain(comparison.p, place),
            "q": _plain(comparison.q, place),
            "heads": _count(comparison.effect, place),
            "differing": None if comparison.q is None else _differing(comparison.q, place),
        }
        for place, measure in enumerate(_MEASURES)
    }
    test = {
        "statistic": "Mann-Whitney",
        "permutations": PERMUTATIONS,
        "clusters": comparison.clusters,
        "correction": "Benjamini-Hochberg",
        "false_discovery_rate": LEVEL,
    }
    return {
        **sides,
        "measures": measures,
        "test": None if comparison.q is None else test,
        "untested": comparison.untested or None,
    }


def _plain(numbers: NDArray[np.float64] | None, place: int) -> list[list[float | None]] | None:
    """By layer and head."""
    if numbers is None:
        return None
    return [
        [None if math.isnan(number) else round(number, _DIGITS) for number in layer]
        for layer in numbers[place].tolist()
    ]


def _count(effect: NDArray[np.float64] | None, place: int) -> int:
    import numpy as np

    return 0 if effect is None else int((~np.isnan(effect[place])).sum())


def _differing(q: NDArray[np.float64], place: int) -> int:
    return int((q[place] <= LEVEL).sum())


def _sentence(comparison: Comparison, arrays: Mapping[str, NDArray[Any]]) -> str:
    means = [_means(arrays, status) for status in (Status.UNSAFE, Status.SAFE)]
    parts = [
        f"over the {measure} {unsafe:.3f} and {safe:.3f}"
        for measure, unsafe, safe in zip(_MEASURES, *means, strict=True)
        if unsafe is not None and safe is not None
    ]
    text = f"{NOTE}{comparison.unsafe:,} unsafe and {comparison.safe:,} safe answers"
    if comparison.effect is not None:
        lengths = (f"{_length(arrays, side):.0f}" for side in (Status.UNSAFE, Status.SAFE))
        text += f", median {' and '.join(lengths)} tokens"
    text += f", mean entropy {', '.join(parts)}" if parts else ""
    if (q := comparison.q) is None:
        return f"{text}; not tested: {comparison.untested}"
    differing = [
        f"{_differing(q, place):,} of {number:,} over the {measure}"
        for place, measure in enumerate(_MEASURES)
        if (number := _count(comparison.effect, place))
    ]
    rate = f"false discovery rate {LEVEL:.0%}"
    return f"{text}; heads that differ ({rate}): {', '.join(differing) or 'none'}"
