"""The yardstick of a real engine: the same requests, given to it all at once, without pytest.

    python benchmarks/bare_engine.py vllm CHECKPOINT --tokens=64
    python benchmarks/bare_engine.py transformers CHECKPOINT --batch=8

Prints one line of JSON: the seconds from the first request to the last answer, images read and
decoded within them, and the tokens that were generated. The engine is loaded and warm before.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_mirsafety import Instance, load_dataset

Generate = Callable[[Sequence[Instance]], int]
"""Answers instances; gives the tokens that were generated."""


def main() -> None:
    """Load the engine, answer one instance, then measure how long all of them take."""
    parser = argparse.ArgumentParser(description="measure a bare engine")
    parser.add_argument("engine", choices=["vllm", "transformers"])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    instances = load_dataset(options.data, base=Path.cwd()).instances
    load = _vllm if options.engine == "vllm" else _transformers
    generate = load(options)
    generate(instances[:1])
    started = time.perf_counter()
    tokens = generate(instances)
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, "tokens": tokens, "requests": len(instances)}
    print(json.dumps(found), flush=True)


def _pictures(instance: Instance) -> list[Any]:
    from PIL import Image

    contents = (ref.source.read(ref.locator) for ref in instance.images)
    return [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]


def _prompt(template: Any, instance: Instance) -> str:  # noqa: ANN401 - a processor or tokenizer
    content = [{"type": "image"} for _ in instance.images]
    content.append({"type": "text", "text": instance.prompt})
    messages = [{"role": "user", "content": content}]
    return str(template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _vllm(options: argparse.Namespace) -> Generate:
    from transformers import AutoProcessor
    from vllm import LLM, SamplingParams  # type: ignore[attr-defined]

    template = AutoProcessor.from_pretrained(options.checkpoint)
    engine = LLM(
        str(options.checkpoint),
        dtype="float32",
        max_model_len=2048,
        limit_mm_per_prompt={"image": 4},
        enforce_eager=True,
        generation_config="vllm",
    )
    sampling = SamplingParams(temperature=0, max_tokens=options.tokens)

    def generate(instances: Sequence[Instance]) -> int:
        prompts = [
            {"prompt": _prompt(template, one), "multi_modal_data": {"image": _pictures(one)}}
            for one in instances
        ]
        answers = engine.generate(prompts, sampling, use_tqdm=False)
        return sum(len(answer.outputs[0].token_ids) for answer in answers)

    return generate


def _transformers(options: argparse.Namespace) -> Generate:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(options.checkpoint)
    processor.tokenizer.padding_side = "left"
    model = AutoModelForImageTextToText.from_pretrained(options.checkpoint, dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).eval()

    def generate(instances: Sequence[Instance]) -> int:
        tokens = 0
        for first in range(0, len(instances), options.batch):
            some = instances[first : first + options.batch]
            inputs = processor(
                text=[_prompt(processor, one) for one in some],
                images=[_pictures(one) for one in some],
                padding=True,
                return_tensors="pt",
            ).to(device)
            with torch.inference_mode():
                made = model.generate(**inputs, do_sample=False, max_new_tokens=options.tokens)
            new = made[:, inputs["input_ids"].shape[1] :]
            pad = processor.tokenizer.pad_token_id
            tokens += int((new != pad).sum())
        return tokens

    return generate


if __name__ == "__main__":
    main()
