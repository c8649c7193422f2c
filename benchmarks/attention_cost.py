"""What `--mir-attention` costs: the same generation as usual, eager, and eager and measured.

    python benchmarks/attention_cost.py --rounds=5

Needs torch and transformers. Weights are random, and end no answer, so that each makes the same
number of tokens. The three are run in turn; what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_mirsafety.attention.measuring import Prompts, measured

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS: Final = ("usual", "eager", "measured")


@dataclass(frozen=True, slots=True)
class Size:
    """A language model, and what it is asked: `images` of `image_tokens` each in a prompt."""

    name: str
    layers: int
    heads: int
    width: int
    batch: int = 4
    prompt: int = 512
    images: int = 3
    image_tokens: int = 144
    new: int = 32


SIZES: Final = (
    Size("tiny", layers=2, heads=2, width=64),
    Size("mid-size", layers=8, heads=8, width=512, batch=2),
)


def model_of(size: Size) -> Any:  # noqa: ANN401 - transformers is untyped here
    """A causal language model of Qwen2's kind, with grouped heads."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        max_position_embeddings=4096,
    )
    model = Qwen2ForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def seconds(size: Size, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each way, one for each round; the first round, which warms up, is left out."""
    import torch

    torch.set_num_threads(1)  # threads that wait for one another count as work
    model = model_of(size)
    tokens = torch.randint(1, 1000, (size.batch, size.prompt))
    mask = torch.ones_like(tokens)
    spans = [
        range(start, start + size.image_tokens)
        for start in range(8, 8 + size.images * size.image_tokens, size.image_tokens)
    ]
    prompts = Prompts(mask, [spans] * size.batch, ())
    watch: dict[str, Callable[[], AbstractContextManager[Any]]] = dict.fromkeys(WAYS, nullcontext)
    watch["measured"] = lambda: measured(model, prompts)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way in WAYS:
            model.set_attn_implementation("sdpa" if way == "usual" else "eager")
            start = time.process_time()
            with torch.inference_mode(), watch[way]() as meter:
                model.generate(
                    tokens, attention_mask=mask, do_sample=False, max_new_tokens=size.new
                )
                if meter is not None:
                    meter.results()
            found[way].append(time.process_time() - start)
    return {way: times[1:] for way, times in found.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="what --mir-attention costs, as ratios")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| model | eager / usual | measured / eager | measured / usual | how |")
    print("|---|---|---|---|---|")
    for size in SIZES:
        median = {way: statistics.median(t) for way, t in seconds(size, rounds).items()}
        ratios = (
            median["eager"] / median["usual"],
            median["measured"] / median["eager"],
            median["measured"] / median["usual"],
        )
        how = (
            f"{size.layers} layers of {size.heads} heads, width {size.width}; {size.batch} prompts "
            f"of {size.prompt} tokens with {size.images} images, {size.new} new: "
            f"{median['usual']:.2f} s of CPU as usual"
        )
        print(f"| {size.name} | {' | '.join(f'{r:.2f}' for r in ratios)} | {how} |", flush=True)


if __name__ == "__main__":
    main()
