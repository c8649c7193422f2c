"""Measures attention entropy while a model generates: each step is reduced at once, and let go.

Forward hooks on the language model's attention layers see the weights that eager attention has
computed for its own use. Of them the last query is reduced to a few numbers a head, which are
added up on the layer's own device; nothing else of a step stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..entropies import AnswerAttention
from ..errors import MisconfiguredError

if TYPE_CHECKING:
    import torch

LEAST_MASS: Final = 1e-6
"""Attention below which its distribution is not told from rounding: such a step has no entropy."""

_LAYERS: Final = ("layers", "h", "blocks")
_DIMENSIONS: Final = 4
_ATTENTION: Final = ("self_attn", "attention", "attn", "self_attention")


@dataclass(frozen=True, slots=True)
class Prompts:
    """A batch as it is generated from, padded on the left.

    `mask` has shape (rows, length) and is 0 where there is padding. `images` has for each row the
    positions of each image's tokens. `ends` are the tokens that end an answer.
    """

    mask: torch.Tensor
    images: Sequence[Sequence[Sequence[int]]]
    ends: Collection[int]


@contextmanager
def measured(model: Any, prompts: Prompts) -> Iterator[Meter]:  # noqa: ANN401 - transformers is untyped here
    """Measure what `model.generate` does in this context, once, greedily or by sampling.

    Raises:
        MisconfiguredError: of this model no attention can be seen; also from inside `generate`.
    """
    meter = Meter(prompts)
    with ExitStack() as hooks:
        hook = model.register_forward_pre_hook(meter.begin_step, with_kwargs=True)
        hooks.callback(hook.remove)
        for number, module in enumerate(attention_modules(model)):
            meter.layers = number + 1
            if module is not None:
                hook = module.register_forward_hook(partial(meter.see, number))
                hooks.callback(hook.remove)
        yield meter


def attention_modules(model: Any) -> list[Any]:  # noqa: ANN401 - transformers is untyped here
    """The self-attention of each layer of the language model; None for a layer of another kind.

    Raises:
        MisconfiguredError: there is none.
    """
    modules = [
        next((found for name in _ATTENTION if (found := getattr(layer, name, None))), None)
        for layer in _layers(model)
    ]
    if not any(module is not None for module in modules):
        raise MisconfiguredError(
            f"--mir-attention: the layers of {type(model).__name__} have no attention that is known"
        )
    return modules


def _layers(model: Any) -> list[Any]:  # noqa: ANN401 - transformers is untyped here
    """Those of the language model, which may be wrapped in a model with a head of its own."""
    decoder = model.get_decoder()
    for place in (decoder, getattr(decoder, "model", None)):
        for name in _LAYERS:
            if (layers := getattr(place, name, None)) is not None:
                return list(layers)
    return []


class Meter:
    """Adds up entropy and mass over the steps of one `generate`."""

    def __init__(self, prompts: Prompts) -> None:
        import torch

        self.layers = 0
        self._begun = False
        self._by_layer: dict[int, _Sums] = {}
        self._keys = _keys(prompts)
        self._spans = [1 + len(images) for images in prompts.images]
        device = prompts.mask.device
        self._ends = torch.tensor(sorted(prompts.ends), dtype=torch.long, device=device)
        self._going = torch.ones(len(prompts.mask), dtype=torch.bool, device=device)
        self._steps = torch.zeros(len(prompts.mask), dtype=torch.long, device=device)

    def begin_step(self, _: object, __: object, inputs: Mapping[str, Any]) -> None:
        """Before each forward pass: an answer that has ended is added to no more."""
        import torch

        if self._begun:
            if (tokens := inputs.get("input_ids")) is None:
                raise MisconfiguredError("--mir-attention: the model does not tell its tokens")
            last = tokens[:, -1].to(self._ends.device)
            self._going = self._going & ~torch.isin(last, self._ends)
        self._begun = True
        self._steps += self._going

    def see(self, layer: int, _: object, __: object, output: Any) -> tuple[Any, ...]:  # noqa: ANN401 - transformers is untyped here
        """After an attention module: its weights, of shape (rows, heads, queries, keys).

        They are taken out of its output, so that they are gone before the layer goes on.
        """
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights is None or weights.ndim != _DIMENSIONS:
            raise MisconfiguredError(
                "--mir-attention: the model gives no attention weights; it needs eager attention"
            )
        if (sums := self._by_layer.get(layer)) is None:
            sums = self._by_layer[layer] = _Sums(self._keys, weights)
        sums.add(weights, self._going)
        return output[0], None, *output[2:]

    def results(self) -> list[AnswerAttention]:
        """What is kept of each row. To be called when `generate` has returned.

        Raises:
            MisconfiguredError: the model was not seen at work.
        """
        import torch

        if not self._by_layer:
            raise MisconfiguredError("--mir-attention: no attention layer was at work")
        rows, _, spans = self._keys.shape
        heads = max(sums.heads for sums in self._by_layer.values())
        entropy = torch.full((rows, spans, self.layers, heads), torch.nan)
        mass = entropy.clone()
        for layer, sums in self._by_layer.items():
            place = entropy[:, :, layer], mass[:, :, layer]
            place[0][..., : sums.heads] = sums.mean_entropy
            place[1][..., : sums.heads] = sums.mass.cpu() / self._steps.cpu()[:, None, None]
        counts = self._keys.sum(dim=1).long().tolist()
        return [
            AnswerAttention(
                layers=self.layers,
                heads=heads,
                tokens=tokens,
                keys=tuple(counts[row][:own]),
                entropy=_content(entropy[row, :own]),
                mass=_content(mass[row, :own]),
            )
            for row, (tokens, own) in enumerate(zip(self._steps.tolist(), self._spans, strict=True))
        ]


class _Sums:
    """What is added up for one layer, on its device; shape (rows, prompt and images, heads)."""

    def __init__(self, keys: torch.Tensor, weights: torch.Tensor) -> None:
        import torch

        rows, self.heads = weights.shape[:2]
        self._keys = keys.to(weights.device)
        self._seen = 0
        shape = rows, keys.shape[2], self.heads
        self.entropy, self.mass, self.known = torch.zeros(3, *shape, device=weights.device)
        self._most = self._keys.sum(dim=1).log()[:, :, None]  # log 1 = 0: one key has no entropy

    def add(self, weights: torch.Tensor, going: torch.Tensor) -> None:
        """One step: of the last query, the attention on the prompt that is still to be seen."""
        import torch

        queries, present = weights.shape[2:]
        length = self._keys.shape[1]
        if not self._seen and queries != length:
            raise MisconfiguredError(
                f"--mir-attention: the model makes {queries} tokens of a prompt of {length}"
            )
        self._seen += queries
        gone = self._seen - present  # the oldest, of a layer with a sliding window
        if gone < 0:
            raise MisconfiguredError("--mir-attention: the model's cache has room for keys to come")
        share = weights[:, :, -1, : max(0, length - gone)].float()
        keys = self._keys[:, gone:]
        mass = (share @ keys).transpose(1, 2)
        spread = (torch.xlogy(share, share) @ keys).transpose(1, 2)
        counted = going.to(weights.device)[:, None, None]
        known = counted & (mass > LEAST_MASS) & (self._most > 0)
        entropy = ((mass.log() - spread / mass) / self._most).clamp(0, 1)
        self.entropy += entropy.where(known, 0)
        self.known += known
        self.mass += mass * counted

    @property
    def mean_entropy(self) -> torch.Tensor:
        """The mean over those steps that have one; NaN (0 / 0) where none has."""
        return (self.entropy / self.known).cpu()


def _keys(prompts: Prompts) -> torch.Tensor:
    """Which keys are the prompt's, and each image's: 0 or 1, shape (rows, length, 1 + images)."""
    import torch

    most = max(map(len, prompts.images), default=0)
    keys = torch.zeros(*prompts.mask.shape, 1 + most)
    keys[:, :, 0] = prompts.mask
    for row, images in enumerate(prompts.images):
        for number, positions in enumerate(images, start=1):
            keys[row, list(positions), number] = 1
    return keys


def _content(numbers: torch.Tensor) -> bytes:
    return bytes(numbers.contiguous().numpy().astype("<f4").tobytes())
