"""One multimodal model of transformers in this process: batches of asks in, completions out.

Everything here blocks, and belongs to one thread.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from ..checkpoints.devices import choose_device
from ..checkpoints.identity import Checkpoint
from ..checkpoints.loading import load_weights
from ..checkpoints.observing import Observation, ObservedBatch, Observer
from ..errors import BackendError, ConfigurationError, MisconfiguredError
from ..printable import one_line
from ..records import Completion
from . import pictures
from .decoding import Decoding
from .drawing import Noise, RepetitionPenalty, seed_of

_DETAIL: Final = 240
_FOREIGN: Final = (
    "it brings code of its own, which runs only with trust_remote_code = true in its table of the "
    "configuration: read it first"
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `images` are bytes in any format that was checked, `key` the request's."""

    key: str
    prompt: str
    images: tuple[bytes, ...] = field(repr=False)
    system: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a checkpoint is loaded and used; `device` and `dtype` may be `auto`."""

    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    decoding: Decoding = field(default_factory=Decoding)


class MultimodalModel:
    """A model with its processor, on its device.

    Raises:
        MisconfiguredError: it cannot be loaded, or takes no images.
    """

    def __init__(
        self, checkpoint: Checkpoint, options: ModelOptions, observer: Observer | None
    ) -> None:
        self._options = options
        self._observer = observer
        self._image_tokens: dict[tuple[tuple[int, int], ...], int] = {}
        whose = f"the model {one_line(checkpoint.model, 60)}"
        problem = ""
        try:
            self._device = choose_device(options.device, "running a model here")
            self._load(checkpoint)
        except (ConfigurationError, MisconfiguredError) as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it holds for every request
            problem = one_line(f"{type(error).__name__}: {error}", _DETAIL)
            if "trust_remote_code" in str(error) and not options.trust_remote_code:
                problem = _FOREIGN
        if problem:
            raise MisconfiguredError(f"{whose}: {problem}")

    def _load(self, checkpoint: Checkpoint) -> None:
        from transformers import (
            AutoConfig,
            AutoModelForImageTextToText,
            AutoProcessor,
            GenerationConfig,
        )

        options: dict[str, Any] = {"trust_remote_code": self._options.trust_remote_code}
        if checkpoint.folder is None:
            options["revision"] = checkpoint.revision
        config = AutoConfig.from_pretrained(checkpoint.source, **options)
        self._processor = AutoProcessor.from_pretrained(checkpoint.source, **options)
        self._marker: str = getattr(self._processor, "image_token", None) or ""
        if not hasattr(self._processor, "image_processor") or not self._marker:
            raise MisconfiguredError(f"a model of type {config.model_type} takes no images here")
        options["dtype"] = self._options.dtype
        if self._observer is not None:
            options["attn_implementation"] = "eager"
        model = load_weights(AutoModelForImageTextToText, checkpoint.source, options)
        own = model.generation_config
        tokenizer = self._processor.tokenizer
        ends = {*_as_list(own.eos_token_id), *_as_list(tokenizer.eos_token_id)}
        self._ends = sorted(ends)
        padding = next(
            t for t in (tokenizer.pad_token_id, own.pad_token_id, *self._ends, 0) if t is not None
        )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
        self._own = own
        # What stands in the checkpoint's own file is used where it is known what it does.
        model.generation_config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._options.decoding.max_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=padding,
        )
        self._model = model.to(self._device)

    @property
    def numerics(self) -> str:
        """The device that was chosen, and the number format, such as `cuda bfloat16`."""
        return f"{self._device} {str(self._model.dtype).removeprefix('torch.')}"

    # Before an ask is batched

    def measure(self, ask: Ask) -> int:
        """The length of its prompt in tokens, those of its images included.

        Raises:
            MisconfiguredError: the chat template shows not all that is asked.
            BadInputError: an image cannot be opened.
            BackendError: prompt and answer are longer than the model's context.
        """
        text = self._render(ask)
        length: int = len(self._tokenize(text))
        if ask.images:
            sizes = tuple(pictures.size(content) for content in ask.images)
            if sizes not in self._image_tokens:
                whole = self._encode([text], [ask])["input_ids"].shape[1]
                self._image_tokens[sizes] = whole - length
            length += self._image_tokens[sizes]
        most = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        wanted = self._options.decoding.max_tokens
        if isinstance(most, int) and length + wanted > most:
            raise BackendError(
                f"the prompt has {length:,} tokens: with max_tokens {wanted:,} that is more than "
                f"the {most:,} of the model's context"
            )
        return length

    def _render(self, ask: Ask) -> str:
        """The chat as the model's own template writes it, with a marker for each image.

        A marker that is missing, or one that stands in the words, would show other images than
        those that were asked about, or put them in other places.
        """
        if self._marker in ask.prompt + (ask.system or ""):
            raise BackendError(
                f"the prompt has the model's own marker for an image, {self._marker}"
            )
        content = [{"type": "image"} for _ in ask.images]
        turns = [{"role": "user", "content": [*content, {"type": "text", "text": ask.prompt}]}]
        if ask.system is not None:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": ask.system}]})
        problem = "it shows not all of what is asked"
        try:
            text = self._processor.apply_chat_template(turns, add_generation_prompt=True)
        except Exception as error:  # noqa: BLE001 - a template is a program, and may do anything
            problem = one_line(f"{type(error).__name__}: {error}", _DETAIL)
        else:
            said = (ask.system or "").strip()
            behind = text.find(ask.prompt.strip(), max(text.find(said), 0) + len(said))
            whole = said in text and behind >= 0
            if whole and text.count(self._marker) == len(ask.images):
                return str(text)
        raise MisconfiguredError(f"the model's chat template does not fit: {problem}")

    def _tokenize(self, text: str) -> list[int]:
        found: list[int] = self._processor.tokenizer(
            text, add_special_tokens=self._adds_tokens(text), verbose=False
        ).input_ids
        return found

    def _adds_tokens(self, text: str) -> bool:
        """Whether the template left it to the tokenizer to begin the text."""
        begin = self._processor.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def _encode(self, texts: Sequence[str], asks: Sequence[Ask], **more: bool) -> Any:  # noqa: ANN401 - transformers is untyped here
        images = [[pictures.decode(content) for content in ask.images] for ask in asks]
        return self._processor(
            text=list(texts),
            images=images if any(images) else None,
            add_special_tokens=self._adds_tokens(texts[0]),
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **more,
        )

    # A batch

    def answer(self, asks: Sequence[Ask], halted: Callable[[], bool]) -> list[Completion]:
        """The answers, in order. Of all asks or none, each has images.

        Raises:
            BackendError: it was `halted`, so that there is no whole answer.
            Exception: of any kind, out of memory among them.
        """
        import torch

        texts = [self._render(ask) for ask in asks]
        observed = self._observer is not None
        encoded = self._encode(
            texts,
            asks,
            **(
                {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
                if observed
                else {}
            ),
        )
        images = self._image_positions(encoded) if observed else ()
        inputs = encoded.to(self._device, dtype=self._model.dtype)
        length = inputs["input_ids"].shape[1]
        padding = tuple(length - int(n) for n in inputs["attention_mask"].sum(dim=1).tolist())
        started = time.perf_counter()
        batch = ObservedBatch(
            model=self._model,
            inputs=inputs,
            keys=tuple(ask.key for ask in asks),
            padding=padding,
            images=images,
        )
        with torch.inference_mode(), self._watched(batch) as observation:
            made = self._model.generate(
                **inputs,
                logits_processor=self._processors(asks, padding),
                stopping_criteria=[_Halt(halted)],
            )[:, length:]
        if halted():
            raise BackendError("the run was stopped before the answer was whole")
        latency = time.perf_counter() - started
        rows = [self._cut(row) for row in made.tolist()]
        if self._observer is not None and observation is not None:
            results = observation.results([len(row) for row in rows])
            for ask, result in zip(asks, results, strict=True):
                self._observer.keep(ask.key, result)
        return [
            Completion(
                text=self._text(row),
                finish_reason="stop" if self._ended(row) else "length",
                input_tokens=length - padded,
                output_tokens=len(row),
                latency=latency,
                created=time.time(),
            )
            for row, padded in zip(rows, padding, strict=True)
        ]

    def _text(self, row: list[int]) -> str:
        """What was said: the token that ends it is no word of it, special or not."""
        words = row[:-1] if self._ended(row) else row
        return str(self._processor.tokenizer.decode(words, skip_special_tokens=True))

    def _ended(self, row: list[int]) -> bool:
        return bool(row) and row[-1] in self._ends

    def _cut(self, row: list[int]) -> list[int]:
        """Up to the token that ends it: what is behind it fills the batch."""
        end = next((i for i, token in enumerate(row) if token in self._ends), len(row) - 1)
        return row[: end + 1]

    def _processors(self, asks: Sequence[Ask], padding: Sequence[int]) -> Any:  # noqa: ANN401 - transformers is untyped here
        import transformers as library

        own, decoding = self._own, self._options.decoding
        found = library.LogitsProcessorList()
        penalty = _set(decoding.repetition_penalty, own.repetition_penalty, 1.0)
        if penalty != 1:
            found.append(RepetitionPenalty(penalty, padding))
        if decoding.greedy:
            return found
        found.append(library.TemperatureLogitsWarper(float(decoding.temperature)))
        if (top_k := _set(decoding.top_k, own.top_k, 0)) > 0:
            found.append(library.TopKLogitsWarper(top_k))
        if (top_p := _set(decoding.top_p, own.top_p, 1.0)) < 1:
            found.append(library.TopPLogitsWarper(top_p))
        if (min_p := _set(decoding.min_p, own.min_p, 0.0)) > 0:
            found.append(library.MinPLogitsWarper(min_p))
        seeds = [seed_of(decoding.seed or 0, ask.key) for ask in asks]
        found.append(Noise(seeds, self._device))
        return found

    # Observing

    def _watched(self, batch: ObservedBatch) -> AbstractContextManager[Observation | None]:
        return nullcontext() if self._observer is None else self._observer.watch(batch)

    def _image_positions(self, encoded: Any) -> tuple[tuple[tuple[int, ...], ...], ...]:  # noqa: ANN401 - transformers is untyped here
        """Of each row and image, the positions of its tokens; takes the offsets out.

        An image's tokens are those of an image that stand in the text which its marker became.
        """
        offsets = encoded.pop("offset_mapping")
        replaced = encoded.pop("text_replacement_offsets")
        kinds = self._processor.create_mm_token_type_ids(encoded["input_ids"].tolist())
        rows = []
        for spans, row, kind in zip(replaced, offsets.tolist(), kinds, strict=True):
            found = []
            for span in spans:
                start, stop = span["new_span"]
                found.append(
                    tuple(
                        position
                        for position, (begin, end) in enumerate(row)
                        if kind[position] == 1 and start <= begin and end <= stop
                    )
                )
            rows.append(tuple(found))
        return tuple(rows)


class _Halt:
    """Ends a batch at its next token when nobody waits for it any more."""

    def __init__(self, halted: Callable[[], bool]) -> None:
        self._halted = halted

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ANN401, ARG002 - tensors of torch
        """For each row (rows), whether it has ended."""
        return input_ids.new_full((input_ids.shape[0],), self._halted()).bool()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once may succeed; devices say so in different ways."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


_NO_MEMORY: Final = ("can't allocate memory", "not enough memory", "out of memory")


def empty_cache() -> None:
    """Give back what the device's allocator holds and nobody uses."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _set(chosen: float | None, own: float | None, otherwise: float) -> Any:  # noqa: ANN401 - a number that transformers takes
    """What the settings say, or the checkpoint itself, as vLLM has it too."""
    return next((value for value in (chosen, own) if value is not None), otherwise)


def _as_list(tokens: int | Sequence[int] | None) -> list[int]:
    if tokens is None:
        return []
    return [tokens] if isinstance(tokens, int) else list(tokens)
