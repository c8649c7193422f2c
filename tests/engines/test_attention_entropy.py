"""What is measured while a model answers is what a slow, obvious reference finds afterwards.

The reference keeps every attention tensor of `generate` and goes through them with loops. Weights
are random; what is held is the arithmetic, and that no tensor outlives its step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import (
    CONFIG_MAPPING,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaOnevisionForConditionalGeneration,
)
from vllm_server import write_checkpoint

from pytest_mirsafety.attention.measuring import LEAST_MASS, Prompts, attention_modules, measured
from pytest_mirsafety.entropies import AnswerAttention
from pytest_mirsafety.errors import MisconfiguredError

NEAR: Final = 1e-5
NEW_TOKENS: Final = 24
COLOURS: Final = ("red", "green", "blue", "black")
PROMPTS: Final = (
    ("What is this?", 1),
    ("What do these have to do with one another? Answer at some length, and name each.", 3),
    ("No picture at all.", 0),
    ("These two belong together.", 2),
)
SMALL: Final = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "grouped": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "sliding": {
        "use_sliding_window": True,
        "sliding_window": 12,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
    },
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tiny model with eager attention, and its processor."""

    model: Any
    processor: Any

    def batch(self, prompts: Sequence[tuple[str, int]]) -> tuple[Any, Prompts]:
        """What `generate` takes, and the same for the meter."""
        texts, pictures = [], []
        for text, number in prompts:
            parts = [{"type": "image"}] * number + [{"type": "text", "text": text}]
            chat = [{"role": "user", "content": parts}]
            texts.append(self.processor.apply_chat_template(chat, add_generation_prompt=True))
            pictures += [Image.new("RGB", (28, 28), colour) for colour in COLOURS[:number]]
        inputs = self.processor(
            text=texts,
            images=pictures or None,
            return_tensors="pt",
            padding=True,
            padding_side="left",
        )
        token = self.model.config.image_token_index
        images = [list(runs(row.tolist(), token)) for row in inputs.input_ids]
        assert [len(found) for found in images] == [number for _, number in prompts]
        ends = set(self.model.generation_config.eos_token_id)
        return inputs, Prompts(inputs.attention_mask, images, ends)

    def generate(self, inputs: Any, **more: Any) -> Any:
        with torch.inference_mode():
            return self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                return_dict_in_generate=True,
                **more,
            )


def runs(tokens: Sequence[int], wanted: int) -> Iterator[list[int]]:
    """The positions of each run of a token."""
    run: list[int] = []
    for position, token in enumerate([*tokens, -1]):
        if token == wanted:
            run.append(position)
        elif run:
            yield run
            run = []


def reference(checkpoint: Checkpoint, inputs: Any, prompts: Prompts) -> list[dict[str, Any]]:
    """Entropy and mass, number by number, from all attention tensors of a generation."""
    made = checkpoint.generate(inputs, output_attentions=True)
    length = inputs.input_ids.shape[1]
    found = []
    for row, images in enumerate(prompts.images):
        new = made.sequences[row, length:].tolist()
        tokens = next((i + 1 for i, token in enumerate(new) if token in prompts.ends), len(new))
        whole = [i for i in range(length) if inputs.attention_mask[row, i]]
        entropies, masses = {}, {}
        for span, keys in enumerate([whole, *images]):
            for layer in range(len(made.attentions[0])):
                for head in range(made.attentions[0][0].shape[1]):
                    hs, ms = [], []
                    for step in range(tokens):
                        weights = made.attentions[step][layer][row, head, -1].tolist()
                        gone = length + step - len(weights)  # before a sliding window
                        on = [weights[key - gone] if key >= gone else 0.0 for key in keys]
                        mass = math.fsum(on)
                        ms.append(mass)
                        if mass > LEAST_MASS and len(keys) > 1:
                            shares = [a / mass for a in on if a > 0]
                            entropy = -math.fsum(p * math.log(p) for p in shares)
                            hs.append(entropy / math.log(len(keys)))
                    place = span, layer, head
                    entropies[place] = math.fsum(hs) / len(hs) if hs else math.nan
                    masses[place] = math.fsum(ms) / tokens
        found.append({"tokens": tokens, "entropies": entropies, "masses": masses})
    return found


def differs(measured: AnswerAttention, expected: dict[str, Any]) -> float:
    """The largest difference of any number; infinite where one is NaN and the other is not."""
    worst = 0.0
    for name in ("entropies", "masses"):
        numbers = getattr(measured, name)
        assert numbers.size == len(expected[name])
        for place, value in expected[name].items():
            mine = float(numbers[place])
            if math.isnan(mine) or math.isnan(value):
                worst = max(worst, 0.0 if math.isnan(mine) == math.isnan(value) else math.inf)
            else:
                worst = max(worst, abs(mine - value))
    return worst


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("tiny_llava.py", tmp_path_factory.mktemp("attention") / "llava")


@pytest.fixture(scope="module", params=VARIANTS)
def checkpoint(folder: Path, request: pytest.FixtureRequest) -> Checkpoint:
    return load(folder, VARIANTS[request.param])


def load(folder: Path, variant: dict[str, Any]) -> Checkpoint:
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(
        folder, attn_implementation="eager"
    )
    if variant:
        ends = model.generation_config
        config = model.config
        for name, value in variant.items():
            setattr(config.text_config, name, value)
        torch.manual_seed(1)
        model = LlavaOnevisionForConditionalGeneration(config)
        model.generation_config = ends
    # Random weights attend to all alike: make heads that choose.
    with torch.no_grad():
        for module in attention_modules(model):
            module.q_proj.weight *= 12
            module.k_proj.weight *= 12
    return Checkpoint(model.eval(), AutoProcessor.from_pretrained(folder))


def measure(checkpoint: Checkpoint, inputs: Any, prompts: Prompts) -> list[AnswerAttention]:
    with measured(checkpoint.model, prompts) as meter:
        made = checkpoint.generate(inputs)
    assert getattr(made, "attentions", None) is None
    return meter.results()


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_one_answer_is_as_the_reference_says(checkpoint: Checkpoint, number: int) -> None:
    inputs, prompts = checkpoint.batch(PROMPTS[number : number + 1])
    (found,) = measure(checkpoint, inputs, prompts)
    (expected,) = reference(checkpoint, inputs, prompts)
    assert found.tokens == expected["tokens"]
    assert found.images == PROMPTS[number][1]
    assert found.keys[0] == inputs.attention_mask.sum()
    assert differs(found, expected) < NEAR


def test_a_batch_with_padding_is_as_the_reference_says(checkpoint: Checkpoint) -> None:
    inputs, prompts = checkpoint.batch(PROMPTS)
    found = measure(checkpoint, inputs, prompts)
    expected = reference(checkpoint, inputs, prompts)
    assert [one.tokens for one in found] == [one["tokens"] for one in expected]
    assert [one.images for one in found] == [number for _, number in PROMPTS]
    assert max(map(differs, found, expected)) < NEAR
    entropies = [one.entropies[0] for one in found]
    assert max(e.max() for e in entropies) - min(e.min() for e in entropies) > 0.1


def test_no_attention_tensor_is_left_when_its_layer_goes_on(folder: Path) -> None:
    checkpoint = load(folder, {})
    inputs, prompts = checkpoint.batch(PROMPTS[:2])
    decoder = checkpoint.model.get_decoder()
    seen: list[StorageWeakRef] = []
    alive: list[int] = []

    def note(_: object, __: object, output: Any) -> None:
        seen.append(StorageWeakRef(output[1].untyped_storage()))

    def count(_: object, __: object) -> None:
        alive.append(sum(not reference.expired() for reference in seen))

    hooks = [layer.self_attn.register_forward_hook(note) for layer in decoder.layers]
    hooks += [layer.mlp.register_forward_pre_hook(count) for layer in decoder.layers]
    measure(checkpoint, inputs, prompts)
    assert len(alive) == len(seen) > 2 * len(decoder.layers)
    assert set(alive) == {0}
    alive.clear()
    checkpoint.generate(inputs)  # the test can fail: unmeasured, a layer holds its own to its end
    for hook in hooks:
        hook.remove()
    assert set(alive) == {1}


def test_hooks_are_on_the_language_model_alone_and_are_taken_off(folder: Path) -> None:
    checkpoint = load(folder, {})
    _, prompts = checkpoint.batch(PROMPTS[:1])
    vision = set(checkpoint.model.model.vision_tower.modules())
    with measured(checkpoint.model, prompts):
        hooked = [m for m in checkpoint.model.modules() if m._forward_hooks]
        assert hooked == attention_modules(checkpoint.model)
        assert not vision & set(hooked)
    with pytest.raises(ValueError, match="not used"), measured(checkpoint.model, prompts):
        checkpoint.model.generate(unknown=1)  # which leaves the context by an error
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in checkpoint.model.modules())
    with measured(checkpoint.model, prompts) as meter, pytest.raises(MisconfiguredError):
        meter.results()


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        *((kind, [True] * 4) for kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")),
        *((kind, [True] * 4) for kind in ("gemma3", "llava", "mistral3", "llama4")),
        ("qwen3_5", [False, False, False, True]),
    ],
)
def test_layers_of_other_architectures_are_found(kind: str, attention: list[bool]) -> None:
    config = CONFIG_MAPPING[kind]()
    text = config.get_text_config()
    for name, value in SMALL.items():
        if hasattr(text, name):
            setattr(text, name, value)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    found = attention_modules(model)
    assert [module is not None for module in found] == attention
    assert all("Vision" not in type(module).__name__ for module in found)


def test_what_cannot_be_seen_is_refused(folder: Path) -> None:
    checkpoint = load(folder, {})
    inputs, prompts = checkpoint.batch(PROMPTS[:1])
    checkpoint.model.set_attn_implementation("sdpa")
    with (
        pytest.raises(MisconfiguredError, match="it needs eager attention"),
        measured(checkpoint.model, prompts),
    ):
        checkpoint.generate(inputs)
    checkpoint.model.set_attn_implementation("eager")
    short = Prompts(prompts.mask[:, 1:], prompts.images, prompts.ends)
    with (
        pytest.raises(MisconfiguredError, match="makes 40 tokens of a prompt of 39"),
        measured(checkpoint.model, short),
    ):
        checkpoint.generate(inputs)


def test_one_key_has_no_entropy_and_half_precision_little_error(folder: Path) -> None:
    checkpoint = load(folder, {})
    inputs, prompts = checkpoint.batch(PROMPTS[:2])
    first = [[images[0][:1]] if images else [] for images in prompts.images]
    (found, _) = measure(checkpoint, inputs, Prompts(prompts.mask, first, prompts.ends))
    assert found.keys[1] == 1
    assert np.isnan(found.entropies[1]).all()
    assert (found.masses[1] > 0).all()
    checkpoint.model.to(torch.bfloat16)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    expected = reference(checkpoint, inputs, prompts)
    found_half = measure(checkpoint, inputs, prompts)
    assert max(map(differs, found_half, expected)) < NEAR
