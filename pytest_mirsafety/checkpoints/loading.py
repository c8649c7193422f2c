"""Loads a checkpoint's weights: safetensors, and all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MisconfiguredError
from ..printable import one_line


def load_weights(kind: Any, source: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - transformers is untyped here
    """The model of this class, such as AutoModelForCausalLM, ready to answer.

    A weight that the checkpoint lacks would be random, and the model another one.

    Raises:
        MisconfiguredError: weights are missing.
        Exception: of any kind, where it cannot be loaded.
    """
    with _without_progress_bars():
        model, found = kind.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, **options
        )
    if missing := sorted(found["missing_keys"]):
        raise MisconfiguredError(
            f"{len(missing)} of its weights are missing, such as {one_line(missing[0], 80)}"
        )
    return model.eval()


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """They would be written into whatever the terminal shows."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
