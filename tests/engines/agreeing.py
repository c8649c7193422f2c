"""The sample's instances, asked of the same checkpoint behind vLLM and in this process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from vllm_server import API_KEY, MODEL, VllmServer

from pytest_mirsafety import load_dataset
from pytest_mirsafety.backends import generating, pictures
from pytest_mirsafety.backends.openai import OpenAIBackend, OpenAISettings
from pytest_mirsafety.backends.transformers import TransformersBackend, TransformersSettings
from pytest_mirsafety.checkpoints.identity import Checkpoint
from pytest_mirsafety.protocols import Backend
from pytest_mirsafety.records import Instance, LoadedImage, Request, Scalar

ALL: Final = 4
GREEDY: Final[dict[str, Scalar]] = {"temperature": 0, "max_tokens": 32}


class Said(NamedTuple):
    """An answer without halves of characters, which engines write in different ways."""

    text: str
    finish_reason: str
    input_tokens: int | None
    output_tokens: int | None


def said_by_server(server: VllmServer, images: int) -> list[Said]:
    """The answers to all prompts, each with up to so many of its images."""
    settings = OpenAISettings(
        model=MODEL, base_url=server.base_url, api_key_env="KEY", decoding=GREEDY, provider="http"
    )
    return _said(lambda: OpenAIBackend(settings, {"KEY": API_KEY}), images)


def said_here(checkpoint: Path, images: int) -> list[Said]:
    """The same in this process."""
    settings = TransformersSettings(
        checkpoint=Checkpoint("tiny", checkpoint), decoding=GREEDY, device="cpu", dtype="float32"
    )
    return _said(lambda: TransformersBackend(settings), images)


@contextmanager
def each_image_for_itself() -> Iterator[None]:
    """Show several images as vLLM does: each in tiles, as if it were the only one.

    The processor of LLaVA-OneVision shows each of several images whole, and only one alone in
    tiles, when it is told which images belong together. vLLM does not tell it: one flat list of
    images is to the processor one prompt an image.
    """

    def encode(model: Any, texts: Sequence[str], asks: Sequence[Any], **more: bool) -> Any:
        return model._processor(
            text=list(texts),
            images=[pictures.decode(content) for ask in asks for content in ask.images] or None,
            add_special_tokens=model._adds_tokens(texts[0]),
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **more,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generating.MultimodalModel, "_encode", encode)
        yield


def _said(make: Any, images: int) -> list[Said]:
    async def session() -> list[Said]:
        backend: Backend = make()
        try:
            instances = load_dataset("sample", base=Path()).instances
            asked = (_ask(backend, instance, images) for instance in instances)
            return list(await asyncio.gather(*asked))
        finally:
            await backend.aclose()

    return asyncio.run(session())


async def _ask(backend: Backend, instance: Instance, most: int) -> Said:
    shown = []
    for ref in instance.images[:most]:
        content = ref.source.read(ref.locator)
        shown.append(LoadedImage(hashlib.sha256(content).hexdigest(), "image/png", content))
    request = Request(
        backend.identity,
        instance.prompt,
        tuple(image.sha256 for image in shown),
        None,
        backend.decoding,
    )
    found = await backend.complete(request, shown, instance.id)
    return Said(
        found.text.replace("\ufffd", ""),
        found.finish_reason,
        found.input_tokens,
        found.output_tokens,
    )
