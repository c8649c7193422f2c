"""What changes a row's scores before its next token is taken: each row for itself.

Whatever is batched with a request must not change its answer. So noise comes from a generator of
the row's own, and padding is no word that was said before. The highest score is then taken: the
highest of log-probabilities with independent Gumbel noise is a draw from that distribution
(Gumbel 1954; Maddison, Tarlow and Minka, "A* sampling", NeurIPS 2014, section 2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


class RepetitionPenalty:
    """Makes what was said in a row, or asked in its prompt, less likely; not what pads it."""

    def __init__(self, penalty: float, padding: Sequence[int]) -> None:
        from transformers import RepetitionPenaltyLogitsProcessor

        self._process = RepetitionPenaltyLogitsProcessor(penalty)
        self._padding = padding

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ANN401 - tensors of torch
        """Scores (rows, words) for the next token after `input_ids` (rows, length)."""
        said = input_ids.clone()
        for row, padded in enumerate(self._padding):
            said[row, :padded] = said[row, padded]  # its own first token, said anyway
        return self._process(said, scores)


class Noise:
    """Adds Gumbel noise, so that the highest score is a draw; a row's is its seed's alone."""

    def __init__(self, seeds: Sequence[int], device: str) -> None:
        import torch

        # Doubles, or the most unlikely words of a large vocabulary could never be drawn.
        self._format = torch.float32 if device == "mps" else torch.float64
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ANN401, ARG002 - tensors of torch
        """Scores (rows, words) with noise; what is impossible (-inf) stays so."""
        import torch

        waited = torch.empty(scores.shape, dtype=self._format, device=scores.device)
        for row, generator in zip(waited, self._generators, strict=True):
            row.exponential_(generator=generator)
        # The negative logarithm of an exponential is Gumbel.
        return scores.to(self._format) - waited.log()


def seed_of(seed: int, key: str) -> int:
    """The seed of one request: of the run's own and of all that makes the request."""
    content = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(content[:8], "big") >> 1
