"""What may look on while a model of this process generates, such as an analysis of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedBatch:
    """One batch, as it goes into the model's `generate`.

    `inputs` are the tensors by name; `input_ids` and `attention_mask` are (rows, length), padded
    on the left. Of each row: `keys` is its request's key, `padding` the number of positions
    before its first token, and `images` holds, for each of its images in order, the positions of
    that image's tokens in the padded row.
    """

    model: Any = field(repr=False)
    inputs: Mapping[str, Any] = field(repr=False)
    keys: tuple[str, ...]
    padding: tuple[int, ...]
    images: tuple[tuple[tuple[int, ...], ...], ...] = field(repr=False)


class Observation(Protocol):
    """One batch that is looked at."""

    def results(self, lengths: Sequence[int]) -> Sequence[object]:
        """What was seen, one result for each row, of which this many tokens were generated.

        The token that ends an answer counts. A row that ended before others was padded on the
        right, so what was seen of it later means nothing.
        """


class Observer(Protocol):
    """Looks on while batches are generated. All of it is called in the backend's worker thread.

    Where one is set, the model computes its attention eagerly, so that a forward hook of an
    attention module sees the weights.
    """

    def watch(self, batch: ObservedBatch) -> AbstractContextManager[Observation]:
        """Look on from entering to leaving. One that is left by an error had no answers.

        The same requests may come again, in smaller batches.
        """

    def keep(self, key: str, result: object) -> None:
        """The result of the request of this key, before its answer is known to anybody."""
