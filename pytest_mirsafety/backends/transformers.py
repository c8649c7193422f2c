"""Answers from a model in this process, with transformers: in batches of prompts alike in length.

Nothing is loaded before the first request. Everything that computes does so in one worker thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from ..checkpoints.identity import Checkpoint, identify
from ..checkpoints.observing import Observer
from ..errors import BackendError, MisconfiguredError, UnscoredError
from ..printable import one_line
from ..records import Completion, LoadedImage, ModelIdentity, Request, Scalar
from .decoding import read_decoding
from .generating import Ask, ModelOptions, MultimodalModel, empty_cache, is_out_of_memory

_BATCHES_WAITING: Final = 4
"""Batches' worth of requests that are taken at once, so that alike ones can be found."""

_LINGER: Final = 0.05
"""Seconds that a batch with room waits for another request to come."""

_DETAIL: Final = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """A checkpoint, and how it is run.

    `decoding` names what `read_decoding` knows; without a temperature it is greedy. `batch_size`
    is the most requests that are answered together, for as long as the memory is enough.
    """

    checkpoint: Checkpoint
    system: str | None = None
    decoding: Mapping[str, Scalar] = field(default_factory=dict)
    seed: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    batch_size: int = 8


class TransformersBackend:
    """A multimodal model in this process. Belongs to one event loop.

    An `observer` looks on while it generates; what it kept is there before the answer is.
    `doing` says in words what holds the first answer up, and is empty otherwise.

    Raises:
        ConfigurationError: the revision is not pinned, there is no checkpoint, or a decoding
            parameter is not one.
    """

    cacheable = True
    needs_bytes = True

    def __init__(self, settings: TransformersSettings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._observer = observer
        self._identity = identify(settings.checkpoint, "transformers", "the model")
        decoding = read_decoding(settings.decoding, settings.seed)
        self._options = ModelOptions(
            device=settings.device,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            decoding=decoding,
        )
        self.doing = ""
        self._most = settings.batch_size
        self._numerics = ""
        self._model: MultimodalModel | None = None
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        self._closed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mirsafety-model")

    @property
    def identity(self) -> ModelIdentity:
        """The checkpoint, with its revision or a digest of its files."""
        return self._identity

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        return self._settings.system

    @property
    def decoding(self) -> Mapping[str, Scalar]:
        """All that decides what is answered; the number format too, if one was chosen."""
        return self._options.decoding.named(self._settings.dtype)

    @property
    def greedy(self) -> bool:
        """Nothing is drawn: temperature is 0, or not set."""
        return self._options.decoding.greedy

    @property
    def concurrency(self) -> int:
        """A few batches, of which the alike are answered together."""
        return self._settings.batch_size * _BATCHES_WAITING

    @property
    def numerics(self) -> str:
        """Device and number format that were chosen, and the batches; nothing before that."""
        if self._numerics and self._most < self._settings.batch_size:
            return f"{self._numerics}, in batches of {self._most} for want of memory"
        return self._numerics

    async def complete(
        self,
        request: Request,
        images: Sequence[LoadedImage],
        instance_id: str,  # noqa: ARG002 - part of the protocol
    ) -> Completion:
        """The answer, when its batch is done; its latency is that of the batch.

        Raises:
            MisconfiguredError: the checkpoint cannot be loaded, or its chat template does not fit.
            BackendError: this request cannot be computed, be it for want of memory.
            BadInputError: an image cannot be decoded.
        """
        if self._closed:
            raise BackendError("the model was let go of")
        loop = asyncio.get_running_loop()
        contents = tuple(image.content for image in images)
        ask = Ask(request.key, request.prompt, contents, request.system)
        waiting = _Waiting(ask, loop.create_future())
        self._waiting.append(waiting)
        if self._work is None or self._work.done():
            self._work = loop.create_task(self._answer_all())
        return await waiting.answer

    async def free(self) -> None:
        """Let go of the model, and give the memory back; the next request loads it again."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self._unload)

    async def aclose(self) -> None:
        """Let go of the model; a batch that is under way ends at its next token."""
        if not self._closed:
            self._closed = True
            await self.free()
            await asyncio.to_thread(self._worker.shutdown)

    # On the loop

    async def _answer_all(self) -> None:
        """One batch after the other, until nothing waits."""
        loop = asyncio.get_running_loop()
        while self._waiting and not self._closed:
            await self._linger()
            asked = tuple(self._waiting)
            try:
                settled = await loop.run_in_executor(self._worker, self._step, asked)
            except Exception as error:  # noqa: BLE001 - nobody may be left waiting
                settled = [(one, _failure(error)) for one in asked]
            done = {id(one) for one, _ in settled}
            self._waiting = [w for w in self._waiting if id(w) not in done and not w.left]
            for one, result in settled:
                one.settle(result)
        for one in self._waiting:
            one.settle(BackendError("the run was stopped before this was asked"))
        self._waiting.clear()

    async def _linger(self) -> None:
        seen = 0
        while seen < len(self._waiting) < self._most:
            seen = len(self._waiting)
            await asyncio.sleep(_LINGER)

    # In the worker

    def _step(self, asked: Sequence[_Waiting]) -> list[tuple[_Waiting, _Result]]:
        """One batch of those that wait, and whatever cannot be asked."""
        try:
            model = self._loaded()
        except UnscoredError as error:
            return [(one, type(error)(error.detail)) for one in asked]
        settled: list[tuple[_Waiting, _Result]] = []
        ready = []
        for one in asked:
            if one.left:
                continue
            try:
                one.length = one.length or model.measure(one.ask)
                ready.append(one)
            except Exception as error:  # noqa: BLE001 - it concerns this request
                settled.append((one, _failure(error)))
        if ready:
            like_first = [one for one in ready if bool(one.ask.images) == bool(ready[0].ask.images)]
            chosen = alike([one.length for one in like_first], self._most)
            settled += self._answer(model, [like_first[index] for index in chosen])
        return settled

    def _answer(
        self, model: MultimodalModel, batch: Sequence[_Waiting]
    ) -> list[tuple[_Waiting, _Result]]:
        """An answer for each; what is too much at once is asked in smaller batches from now on."""
        settled: list[tuple[_Waiting, _Result]] = []
        rest, most = list(batch), self._most
        while rest:
            part = rest[: min(most, self._most)]

            def halted(part: Sequence[_Waiting] = part) -> bool:
                return self._closed or all(one.left for one in part)

            try:
                answers = model.answer([one.ask for one in part], halted)
                settled += zip(part, answers, strict=True)
            except Exception as error:  # noqa: BLE001 - of any kind, from kernels to processors
                memory, failure = is_out_of_memory(error), _failure(error)
            else:
                rest = rest[len(part) :]
                continue
            if halted():
                settled += [(one, failure) for one in rest]
                break
            if memory:
                empty_cache()  # now that no frame of the failure holds what it had
                failure = BackendError(
                    f"out of memory on {model.numerics} with this request alone, of "
                    f"{part[0].length:,} tokens: lower max_tokens, or take a smaller dtype"
                )
            if len(part) > 1:
                if memory:
                    self._most = len(part) // 2
                most = self._most if memory else 1  # alone, each has its own failure
                continue
            settled.append((part[0], failure))
            rest = rest[1:]
        return settled

    def _loaded(self) -> MultimodalModel:
        if self._model is None:
            self.doing = "loading weights"
            try:
                self._model = MultimodalModel(
                    self._settings.checkpoint, self._options, self._observer
                )
            finally:
                self.doing = ""
            self._numerics = self._model.numerics
        return self._model

    def _unload(self) -> None:
        if self._model is not None:
            self._model = None
            empty_cache()


_Result = Completion | UnscoredError


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request, and who waits for its answer; `length` is in tokens, 0 before it is measured."""

    ask: Ask
    answer: asyncio.Future[Completion]
    length: int = 0

    @property
    def left(self) -> bool:
        """Nobody waits for it any more."""
        return self.answer.done()

    def settle(self, result: _Result) -> None:
        """Give it to whoever waits."""
        if self.left:
            return
        if isinstance(result, Completion):
            self.answer.set_result(result)
        else:
            self.answer.set_exception(result)


def alike(lengths: Sequence[int], most: int) -> list[int]:
    """Places of up to `most` of these lengths: the first, and those nearest to it.

    The one that has waited longest is always among them, so that none waits for ever.
    """
    nearest = sorted(range(len(lengths)), key=lambda place: abs(lengths[place] - lengths[0]))
    return nearest[:most]


def _failure(error: Exception) -> UnscoredError:
    """What a failure is to its request, without the frames that hold what it had."""
    if isinstance(error, UnscoredError):
        return type(error)(error.detail)
    if isinstance(error, ImportError):
        return MisconfiguredError(one_line(f"a package is missing: {error}", _DETAIL))
    return BackendError(one_line(f"{type(error).__name__}: {error}", _DETAIL))
