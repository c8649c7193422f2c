"""Runs a text model in this process with transformers: greedily, one prompt at a time.

The weights are safetensors of a pinned revision or a folder; no code of the checkpoint is run.
Everything that computes does so in one worker thread.
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from ..checkpoints.devices import choose_device
from ..checkpoints.identity import Checkpoint, identify
from ..checkpoints.loading import load_weights
from ..errors import JudgeError, MisconfiguredError
from ..printable import one_line
from ..records import ModelIdentity
from ..texts import Clipped, TextPrompt, TextReply, Turn

_T = TypeVar("_T")

_DETAIL: Final = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModelSettings:
    """A checkpoint: `folder`, or else the hub's `model` at the commit `revision`.

    `device` is `auto`, `cpu`, `cuda` or `mps`; `dtype` is `auto` (as saved), or a format's name.
    """

    model: str
    folder: Path | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"


class LocalModel:
    """A text model in this process. It is loaded when it is first needed, and asked one by one.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ConfigurationError: the revision is not pinned, or the device is not there.
    """

    concurrency = 1

    def __init__(self, settings: LocalModelSettings) -> None:
        self._settings = settings
        self._checkpoint = Checkpoint(settings.model, settings.folder, settings.revision)
        self._identity = identify(self._checkpoint, "transformers", "the judge's model")
        self._device = choose_device(settings.device, "running a judge's model here")
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mirsafety-judge")

    @property
    def identity(self) -> ModelIdentity:
        """The checkpoint, with its revision or a digest of its files."""
        return self._identity

    @property
    def numerics(self) -> str:
        """The device that was chosen, and the number format."""
        return f"{self._device} {self._settings.dtype}"

    async def complete(self, prompt: TextPrompt) -> TextReply:
        """The reply to this prompt.

        Raises:
            MisconfiguredError: the checkpoint cannot be loaded, or has no fitting chat template.
            JudgeError: the prompt is too long, or the computation failed.
        """
        return await self._in_worker(lambda: self._complete(prompt))

    async def clip(self, text: str, most: int) -> Clipped:
        """The text as it is, or what its first `most` tokens say.

        Raises:
            MisconfiguredError: the checkpoint cannot be loaded.
            JudgeError: the tokenizer failed.
        """
        return await self._in_worker(lambda: self._clip(text, most))

    async def free(self) -> None:
        """Let go of the model when its last prompt is done; the next prompt loads it again."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, self._unload)

    async def aclose(self) -> None:
        """Let go of the model when its last prompt is done."""
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)
        self._unload()

    async def _in_worker(self, call: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        failure: MisconfiguredError | JudgeError
        try:
            return await loop.run_in_executor(self._worker, call)
        except (MisconfiguredError, JudgeError):
            raise
        except Exception as error:  # noqa: BLE001 - of any kind, from kernels to templates
            failure = JudgeError(one_line(f"{type(error).__name__}: {error}", _DETAIL))
        raise failure

    # In the worker

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        own = self._settings
        source = self._checkpoint.source
        common: dict[str, Any] = {"trust_remote_code": False}
        if own.folder is None:
            common["revision"] = own.revision
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **common)
            options = {**common, "dtype": own.dtype}
            model = load_weights(AutoModelForCausalLM, source, options)
            return tokenizer, model.to(self._device)
        except MisconfiguredError as error:
            problem = error.detail
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it holds for every prompt
            problem = one_line(f"{type(error).__name__}: {error}", _DETAIL)
        raise MisconfiguredError(f"the judge's model {one_line(own.model, 60)}: {problem}")

    def _unload(self) -> None:
        if self.__dict__.pop("_loaded", None) is None:
            return
        import torch

        gc.collect()  # modules hold each other in cycles
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _complete(self, prompt: TextPrompt) -> TextReply:
        import torch
        from transformers import GenerationConfig

        if any(turn.images for turn in prompt.turns):
            raise JudgeError("a judge's model in this process is shown no images")
        tokenizer, model = self._loaded
        if prompt.text is not None:
            encoded = tokenizer(prompt.text, return_tensors="pt", verbose=False)
        else:
            text = render(tokenizer, prompt.turns)
            encoded = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False)
        length = encoded.input_ids.shape[1]
        _check_length(length + prompt.max_tokens, model.config)
        ends = _as_list(model.generation_config.eos_token_id)
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=prompt.max_tokens,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        with torch.inference_mode():
            made = model.generate(
                input_ids=encoded.input_ids.to(self._device),
                attention_mask=encoded.attention_mask.to(self._device),
                generation_config=settings,
            )
        tokens = made.sequences[0, length:].tolist()
        first = torch.log_softmax(made.logits[0][0].float(), dim=-1)
        likely = first.topk(min(prompt.top, first.shape[0]))
        return TextReply(
            tokenizer.decode(tokens, skip_special_tokens=True),
            "stop" if tokens and tokens[-1] in ends else "length",
            tuple(
                (tokenizer.decode([token]), number)
                for token, number in zip(
                    likely.indices.tolist(), likely.values.tolist(), strict=True
                )
                if math.isfinite(number)
            ),
            input_tokens=length,
            output_tokens=len(tokens),
        )

    def _clip(self, text: str, most: int) -> Clipped:
        tokenizer, _ = self._loaded
        tokens = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if len(tokens) <= most:
            return Clipped(text)
        return Clipped(tokenizer.decode(tokens[:most]), len(tokens) - most)


def render(tokenizer: Any, turns: tuple[Turn, ...]) -> str:  # noqa: ANN401 - transformers is untyped here
    """The chat as the model's own template writes it, which must hold every turn in order.

    Templates want a message as a text, or as a list of parts: what fits is found by trying.

    Raises:
        MisconfiguredError: there is no template, or it leaves out what was said.
    """
    problem = "it shows not all of what was said"
    for parts in (False, True):
        messages = [
            {
                "role": turn.role,
                "content": [{"type": "text", "text": turn.text}] if parts else turn.text,
            }
            for turn in turns
        ]
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # noqa: BLE001 - a template is a program, and may do anything
            problem = one_line(f"{type(error).__name__}: {error}", _DETAIL)
            continue
        if isinstance(text, str) and _holds(text, turns):
            return text
    raise MisconfiguredError(f"the chat template of the judge's model does not fit: {problem}")


def _holds(text: str, turns: tuple[Turn, ...]) -> bool:
    position = 0
    for turn in turns:
        said = turn.text.strip()
        found = text.find(said, position)
        if found < 0:
            return False
        position = found + len(said)
    return True


def _check_length(length: int, config: Any) -> None:  # noqa: ANN401 - transformers is untyped here
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(most, int) and length > most:
        raise JudgeError(f"the judge's prompt has {length} tokens, and its model takes {most}")


def _as_list(tokens: int | list[int] | None) -> list[int]:
    if tokens is None:
        return []
    return tokens if isinstance(tokens, list) else [tokens]
