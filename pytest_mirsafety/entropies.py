"""What is kept of the attention behind one answer: numbers for each layer and head, no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFINITION: Final = 1
"""Which definition the numbers follow (docs/method.md); another one is another number."""

NUMBERS: Final = "attention.npz"
SUMMARY: Final = "attention.json"
PICTURE: Final = "attention.png"
FILES: Final = (NUMBERS, SUMMARY, PICTURE)
"""What a run folder has of it."""

NOTE: Final = "attention: "
"""What every note about it begins with."""

_NUMBER: Final = 4  # bytes of a float32


@dataclass(frozen=True, slots=True)
class AnswerAttention:
    """Attention entropy and mass behind one answer: means over its `tokens` generated tokens.

    Both are little-endian float32 in C order, of shape (1 + images, layers, heads): first over
    the whole prompt, then over each image in its order. NaN is what has no value. `keys` are the
    numbers of keys that each is over, the prompt's first.

    Raises:
        ValueError: the numbers are not as many as the shape says, or a count cannot be.
    """

    layers: int
    heads: int
    tokens: int
    keys: tuple[int, ...]
    entropy: bytes = field(repr=False)
    mass: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.tokens, len(self.keys)) < 1 or min(self.keys) < 0:
            raise ValueError("an answer's attention is that of layers, heads, tokens and keys")
        size = _NUMBER * len(self.keys) * self.layers * self.heads
        if len(self.entropy) != size or len(self.mass) != size:
            raise ValueError(f"its numbers do not fill the shape {self.shape}")

    @property
    def images(self) -> int:
        """How many images the prompt had."""
        return len(self.keys) - 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Prompt and images, layers, heads."""
        return len(self.keys), self.layers, self.heads

    @property
    def entropies(self) -> NDArray[np.float32]:
        """The entropies, in [0, 1], of this shape; read-only."""
        return _array(self.entropy, self.shape)

    @property
    def masses(self) -> NDArray[np.float32]:
        """The attention that there is on these keys, in [0, 1], of this shape; read-only."""
        return _array(self.mass, self.shape)


class AttentionStore(Protocol):
    """Keeps the attention behind answers. Methods are called from several threads."""

    def get(self, request: str, answer: str) -> AnswerAttention | None:
        """What was measured of this answer to this request: its key, and the text's digest."""

    def put(self, request: str, answer: str, attention: AnswerAttention) -> None:
        """Keep what was measured; the same answer measured anew replaces it."""


def _array(content: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(content, dtype="<f4").reshape(shape)
