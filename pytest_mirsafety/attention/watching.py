"""Between a backend that generates here and the store: who answers is watched, and it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..digests import text_digest
from ..entropies import AnswerAttention, AttentionStore
from ..errors import BackendError
from ..records import Completion, LoadedImage, ModelIdentity, Request, Scalar
from .measuring import Meter, Prompts, measured

if TYPE_CHECKING:
    from ..checkpoints.observing import ObservedBatch
    from ..protocols import Backend


class Watch:
    """An Observer (`checkpoints.observing`) that measures attention entropy.

    What it keeps waits here for its answer, under the request's key. `store` is where it goes
    then; it is set before anything is asked.
    """

    def __init__(self) -> None:
        self.store: AttentionStore | None = None
        self._waiting: dict[str, AnswerAttention] = {}

    @contextmanager
    def watch(self, batch: ObservedBatch) -> Iterator[_Watched]:
        """Measure one batch."""
        prompts = Prompts(
            batch.inputs["attention_mask"], batch.images, _ends(batch.model.generation_config)
        )
        with measured(batch.model, prompts) as meter:
            yield _Watched(meter)

    def keep(self, key: str, result: object) -> None:
        """Hold what was measured of this request's answer."""
        if isinstance(result, AnswerAttention):
            self._waiting[key] = result

    def take(self, key: str) -> AnswerAttention | None:
        """What was measured, which is held no longer."""
        return self._waiting.pop(key, None)


class _Watched:
    """One batch that is measured."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def results(self, lengths: Sequence[int]) -> list[AnswerAttention | None]:
        """For each row what was measured; None where the answer is of another length."""
        found = self._meter.results()
        return [
            one if one.tokens == length else None
            for one, length in zip(found, lengths, strict=True)
        ]


class WatchedBackend:
    """A backend whose answers are kept with the attention behind them, and never without.

    Its requests say that attention is computed eagerly, which may change a number in its last
    digit and so an answer: they are other requests than those of the same model unwatched.
    """

    def __init__(self, backend: Backend, watch: Watch) -> None:
        self._backend = backend
        self._watch = watch
        self._decoding = MappingProxyType({**backend.decoding, "attention": "eager"})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the backend has beside
        return getattr(self._backend, name)

    @property
    def identity(self) -> ModelIdentity:
        """The model's."""
        return self._backend.identity

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        return self._backend.system

    @property
    def decoding(self) -> Mapping[str, Scalar]:
        """The backend's, and that attention is eager."""
        return self._decoding

    @property
    def greedy(self) -> bool:
        """Decoding is declared deterministic."""
        return self._backend.greedy

    @property
    def cacheable(self) -> bool:
        """Answers go through the store."""
        return self._backend.cacheable

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""
        return self._backend.concurrency

    @property
    def needs_bytes(self) -> bool:
        """Whether images are read."""
        return self._backend.needs_bytes

    async def complete(
        self, request: Request, images: Sequence[LoadedImage], instance_id: str
    ) -> Completion:
        """The backend's answer; what was measured is stored before anybody has it.

        Raises:
            BackendError: as the backend, or it was asked before there is a store.
            StoreError: it cannot be stored.
        """
        if (store := self._watch.store) is None:
            raise BackendError("there is no store yet")
        completion = await self._backend.complete(request, images, instance_id)
        if (attention := self._watch.take(request.key)) is not None:
            answer = text_digest(completion.text)
            await asyncio.to_thread(store.put, request.key, answer, attention)
        return completion

    async def aclose(self) -> None:
        """Close the backend."""
        await self._backend.aclose()


def _ends(generation: Any) -> list[int]:  # noqa: ANN401 - transformers is untyped here
    """The tokens that end an answer."""
    ends = generation.eos_token_id
    if ends is None:
        return []
    return [int(ends)] if isinstance(ends, int) else [int(token) for token in ends]
