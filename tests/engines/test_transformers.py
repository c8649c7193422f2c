"""A multimodal model in this process, on a real checkpoint: what it is shown, says and forgets.

Random weights answer with noise. What is held here is that each request gets its own answer,
whatever it is batched with, and that what cannot be loaded gives none.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from PIL import Image
from vllm_server import write_checkpoint

from pytest_mirsafety.backends.drawing import Noise, RepetitionPenalty
from pytest_mirsafety.backends.transformers import TransformersBackend, TransformersSettings
from pytest_mirsafety.checkpoints.identity import Checkpoint
from pytest_mirsafety.checkpoints.observing import ObservedBatch
from pytest_mirsafety.errors import BackendError, MisconfiguredError
from pytest_mirsafety.records import Completion, LoadedImage, Request, Scalar

T = TypeVar("T")
SUITE: Final = Path(__file__).parents[2] / "suites" / "test_mir_safetybench.py"
INSTANCES: Final = 54
INCONCLUSIVE: Final = 10
SAMPLED: Final[dict[str, Scalar]] = {
    "temperature": 0.8,
    "top_p": 0.95,
    "repetition_penalty": 1.2,
    "max_tokens": 24,
}
MARKER: Final = "<image>"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("tiny_llava.py", tmp_path_factory.mktemp("llava") / "tiny")


def picture(number: int) -> LoadedImage:
    buffer = io.BytesIO()
    size = (24 + 9 * (number % 5), 40)
    Image.linear_gradient("L").resize(size).convert("RGB").rotate(number * 31).save(buffer, "PNG")
    content = buffer.getvalue()
    return LoadedImage(hashlib.sha256(content).hexdigest(), "image/png", content)


@dataclass(frozen=True)
class Asked:
    """One request's words and pictures."""

    prompt: str
    images: tuple[LoadedImage, ...] = field(repr=False)
    system: str | None = None


ASKED: Final = tuple(
    Asked("Describe them" + " together" * (number % 6), tuple(map(picture, range(number % 4 + 1))))
    for number in range(12)
)


async def ask(backend: TransformersBackend, one: Asked, draw: int = 0) -> Completion:
    digests = tuple(image.sha256 for image in one.images)
    request = Request(
        backend.identity, one.prompt, digests, one.system, backend.decoding, draw=draw
    )
    return await backend.complete(request, one.images, "an-id")


def using(
    folder: Path,
    call: Callable[[TransformersBackend], Awaitable[T]],
    observer: Any = None,
    **own: Any,
) -> T:
    async def session() -> T:
        own.setdefault("decoding", {"max_tokens": 24})
        chosen = TransformersSettings(checkpoint=Checkpoint("tiny", folder), device="cpu", **own)
        backend = TransformersBackend(chosen, observer)
        try:
            return await call(backend)
        finally:
            await backend.aclose()

    return asyncio.run(session())


def answers(
    folder: Path, asked: Sequence[Asked] = ASKED, draw: int = 0, **own: Any
) -> list[Completion]:
    async def call(backend: TransformersBackend) -> list[Completion]:
        return list(await asyncio.gather(*(ask(backend, one, draw) for one in asked)))

    return using(folder, call, **own)


def said(found: Sequence[Completion]) -> list[tuple[str, str, int | None, int | None]]:
    return [(c.text, c.finish_reason, c.input_tokens, c.output_tokens) for c in found]


# Answers


@pytest.mark.parametrize("decoding", [{"max_tokens": 24}, SAMPLED], ids=["greedy", "sampled"])
def test_what_is_batched_with_a_request_does_not_change_its_answer(
    checkpoint: Path, decoding: dict[str, Scalar]
) -> None:
    alone = answers(checkpoint, decoding=decoding, batch_size=1)
    assert said(answers(checkpoint, decoding=decoding, batch_size=5)) == said(alone)
    back = answers(checkpoint, ASKED[::-1], decoding=decoding, batch_size=16)
    assert said(back[::-1]) == said(alone)
    assert {completion.finish_reason for completion in alone} == {"stop", "length"}


def test_a_seed_decides_what_is_drawn(checkpoint: Path) -> None:
    first = said(answers(checkpoint, decoding=SAMPLED, seed=1))
    assert said(answers(checkpoint, decoding=SAMPLED, seed=1)) == first
    assert said(answers(checkpoint, decoding=SAMPLED, seed=2)) != first
    assert said(answers(checkpoint, decoding=SAMPLED, seed=1, draw=1)) != first


def test_what_is_drawn_has_the_models_distribution() -> None:
    import torch
    from scipy.stats import chisquare

    rows = 20_000
    scores = torch.tensor([2.0, 0.0, -1.0, float("-inf"), 1.0, -3.0]).repeat(rows, 1)
    drawn = Noise(range(rows), "cpu")(None, scores).argmax(dim=-1)
    counts = torch.bincount(drawn, minlength=6)
    expected = torch.softmax(scores[0].double(), dim=-1) * rows
    assert counts[3] == 0
    possible = [0, 1, 2, 4, 5]
    assert chisquare(counts[possible].numpy(), expected[possible].numpy()).pvalue > 1e-3


def test_padding_was_never_said() -> None:
    import torch

    ids = torch.tensor([[0, 0, 5, 6], [1, 2, 3, 0]])
    scores = torch.ones(2, 8)
    penalised = RepetitionPenalty(2.0, (2, 0))(ids, scores)
    assert penalised[0].tolist() == [1, 1, 1, 1, 1, 0.5, 0.5, 1]
    assert penalised[1].tolist() == [0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1]
    assert ids.tolist() == [[0, 0, 5, 6], [1, 2, 3, 0]]


def test_an_answer_that_did_not_end_was_cut(checkpoint: Path) -> None:
    found = answers(checkpoint, decoding={"max_tokens": 8, "temperature": 1.0})
    cut = [completion for completion in found if completion.finish_reason == "length"]
    assert 0 < len(cut) < len(found)
    assert {completion.output_tokens for completion in cut} == {8}
    for completion in answers(checkpoint, decoding={"max_tokens": 1}):
        assert completion.output_tokens == 1


def test_tokens_are_those_of_the_prompt_with_its_images(checkpoint: Path) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    for one, completion in zip(ASKED[:4], answers(checkpoint, ASKED[:4]), strict=True):
        shown = [Image.open(io.BytesIO(image.content)).convert("RGB") for image in one.images]
        marked = f"{MARKER}\n" * len(shown)
        text = f"<|im_start|>user\n{marked}{one.prompt}<|im_end|>\n<|im_start|>assistant\n"
        expected = processor(text=text, images=[shown], return_tensors="pt").input_ids.shape[1]
        assert completion.input_tokens == expected


def test_pictures_and_words_count(checkpoint: Path) -> None:
    one = ASKED[2]
    variants = [
        one,
        Asked(one.prompt, one.images[::-1]),
        Asked(one.prompt, one.images[:2]),
        Asked(one.prompt, ()),
        Asked(one.prompt, one.images, system="Answer in verse."),
        Asked(one.prompt + "!", one.images),
    ]
    decoding: dict[str, Scalar] = {"max_tokens": 24, "temperature": 1.0}
    found = answers(checkpoint, variants, decoding=decoding)
    assert len({completion.text for completion in found}) == len(variants)


@pytest.mark.parametrize("where", ["prompt", "system"])
def test_a_marker_in_the_words_is_no_picture(checkpoint: Path, where: str) -> None:
    words = f"Look: {MARKER}"
    one = Asked(words if where == "prompt" else "x", ASKED[1].images[:1], words)
    with pytest.raises(BackendError, match="the model's own marker for an image") as caught:
        answers(checkpoint, [one])
    assert not isinstance(caught.value, MisconfiguredError)


def test_a_prompt_beyond_the_context_is_one_that_fails(checkpoint: Path) -> None:
    async def call(backend: TransformersBackend) -> list[Any]:
        asked = (ask(backend, one) for one in (ASKED[0], Asked("x " * 3000, ASKED[0].images)))
        return await asyncio.gather(*asked, return_exceptions=True)

    good, bad = using(checkpoint, call)
    assert isinstance(good, Completion)
    assert isinstance(bad, BackendError)
    assert "is more than the 4,096 of the model's context" in str(bad)


# Memory


def test_the_model_is_let_go_of_and_loaded_again(checkpoint: Path) -> None:
    async def call(backend: TransformersBackend) -> None:
        before = await ask(backend, ASKED[0])
        model = backend._model
        assert model is not None
        gone = weakref.ref(model._model)
        del model
        await backend.free()
        gc.collect()
        assert gone() is None
        assert said([await ask(backend, ASKED[0])]) == said([before])

    using(checkpoint, call)


STARVED: Final = """
import asyncio, resource, sys
from pathlib import Path
from test_transformers import *

class Eager:
    @contextmanager
    def watch(self, batch):
        sizes.append(len(batch.keys))
        yield self
    def results(self, lengths):
        return lengths
    def keep(self, key, result):
        pass

sizes = []
LONG = Asked("x " * 1400, ASKED[0].images)

async def call(backend):
    first = await ask(backend, LONG)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(sys.argv[2]) * 2**20
    free = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, free[1]))
    asked = [ask(backend, LONG, draw) for draw in range(8)]
    rest = await asyncio.gather(*asked, return_exceptions=True)
    resource.setrlimit(resource.RLIMIT_AS, free)
    return first, rest, backend.numerics

first, rest, numerics = using(
    Path(sys.argv[1]), call, Eager(), batch_size=8, decoding={"max_tokens": 4}
)
print(json.dumps({"first": first.text, "rest": [getattr(r, "text", None) for r in rest],
    "errors": [str(r) for r in rest if isinstance(r, Exception)],
    "sizes": sizes, "numerics": numerics}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS holds on Linux")
@pytest.mark.parametrize("megabytes", [260, 1])
def test_out_of_memory_halves_the_batch_and_goes_on(checkpoint: Path, megabytes: int) -> None:
    job = subprocess.run(
        [sys.executable, "-c", STARVED, str(checkpoint), str(megabytes)],
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert job.returncode == 0, job.stderr
    found = json.loads(job.stdout.splitlines()[-1])
    sizes = found["sizes"]
    assert sizes[:2] == [1, 8]
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    if megabytes == 1:
        assert found["rest"] == [None] * 8
        assert all("out of memory on cpu float32 with this request" in e for e in found["errors"])
        return
    assert sizes[-1] < 8
    assert found["rest"] == [found["first"]] * 8
    assert f"in batches of {sizes[-1]} for want of memory" in found["numerics"]


# Observing


class Attentive:
    """Keeps the shapes of all attention weights, and which words the images' tokens are."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self._batch: ObservedBatch | None = None
        self._shapes: list[tuple[int, ...]] = []

    @contextmanager
    def watch(self, batch: ObservedBatch) -> Iterator[Attentive]:
        def see(_module: object, _given: object, output: Any) -> None:
            self._shapes.append(tuple(output[1].shape))

        self._batch, self._shapes = batch, []
        layers = batch.model.model.language_model.layers
        hooks = [layer.self_attn.register_forward_hook(see) for layer in layers]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def results(self, lengths: Sequence[int]) -> Sequence[object]:
        assert self._batch is not None
        ids = self._batch.inputs["input_ids"]
        return [
            {
                "tokens": ids[row, padding:].tolist(),
                "before": ids[row, :padding].tolist(),
                "images": [[(p - padding, int(ids[row, p])) for p in image] for image in images],
                "length": lengths[row],
                "shapes": self._shapes,
            }
            for row, (padding, images) in enumerate(
                zip(self._batch.padding, self._batch.images, strict=True)
            )
        ]

    def keep(self, key: str, result: object) -> None:
        assert key not in self.kept
        self.kept[key] = result


def test_an_observer_sees_the_attention_and_where_each_image_is(checkpoint: Path) -> None:
    observer = Attentive()
    keys: list[str] = []

    async def call(backend: TransformersBackend) -> list[Completion]:
        keys.extend(
            Request(
                backend.identity,
                one.prompt,
                tuple(image.sha256 for image in one.images),
                one.system,
                backend.decoding,
            ).key
            for one in ASKED
        )
        return list(await asyncio.gather(*(ask(backend, one) for one in ASKED)))

    found = using(checkpoint, call, observer, batch_size=6)
    assert said(found) == said(answers(checkpoint, batch_size=6))
    assert set(observer.kept) == set(keys)
    for one, key, completion in zip(ASKED, keys, found, strict=True):
        seen = observer.kept[key]
        assert set(seen["before"]) <= {0}
        assert len(seen["tokens"]) == completion.input_tokens
        assert seen["length"] == completion.output_tokens
        assert len(seen["images"]) == len(one.images)
        places = [place for image in seen["images"] for place, _ in image]
        token = {token for image in seen["images"] for _, token in image}
        assert len(token) == 1
        # All of the image's tokens, each once, in order; a line end is between two images.
        assert places == [p for p, t in enumerate(seen["tokens"]) if t in token]
        ends = [image[-1][0] for image in seen["images"]]
        starts = [image[0][0] for image in seen["images"]]
        assert all(start - end == 2 for end, start in zip(ends, starts[1:], strict=False))
        rows, heads, queries, positions = seen["shapes"][0]
        assert (heads, queries) == (2, positions)
        assert positions == len(seen["before"]) + len(seen["tokens"])
        assert rows <= 6


# Through pytest


CONFIGURATION: Final = """
data = "sample"
thresholds.default = 0.2

[models.tiny]
provider = "transformers"
model = '{model}'
device = "cpu"
judge_cut_answers = true
decoding = {{ max_tokens = 16 }}
"""
LOADS: Final = """
import sys
from pathlib import Path
import pytest_mirsafety.backends.generating as generating

load = generating.MultimodalModel._load

def counted(self, checkpoint):
    with Path("loads.txt").open("a") as file:
        file.write("load\\n")
    return load(self, checkpoint)

generating.MultimodalModel._load = counted

def pytest_sessionfinish():
    Path("heavy.txt").write_text(str("torch" in sys.modules or "transformers" in sys.modules))
"""


@dataclass(frozen=True)
class Ran:
    """A pytest run that is over."""

    code: int
    output: str
    summary: Any


class Project:
    """A user's repository."""

    def __init__(self, folder: Path, model: Path) -> None:
        shutil.copy(SUITE, folder)
        (folder / "mirsafety.toml").write_text(CONFIGURATION.format(model=model), "utf-8")
        (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
        (folder / "conftest.py").write_text(LOADS, "utf-8")
        self.folder = folder

    def run(self, *options: str) -> Ran:
        job = subprocess.run(
            [sys.executable, "-m", "pytest", "--mllm=tiny", "--mir-summary=s.json", *options, "."],
            cwd=self.folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=900,
        )
        summary = self.folder / "s.json"
        found = json.loads(summary.read_text("utf-8")) if summary.is_file() else None
        return Ran(job.returncode, job.stdout, found)

    @property
    def loads(self) -> int:
        path = self.folder / "loads.txt"
        return len(path.read_text().splitlines()) if path.is_file() else 0


def outcomes(ran: Ran) -> dict[str, str]:
    return {i["id"]: i["reason"] or i["status"] for i in ran.summary["instances"]}


def test_a_run_loads_once_and_a_second_one_not_at_all(checkpoint: Path, tmp_path: Path) -> None:
    project = Project(tmp_path, checkpoint)
    first = project.run("-n", "2")
    assert first.code in {1, INCONCLUSIVE}, first.output
    assert project.loads == 1
    assert first.summary["provenance"]["answers_asked"] == INSTANCES
    assert set(outcomes(first).values()) <= {"safe", "unsafe", "undetermined", "blank"}
    assert "the model ran on cpu float32" in first.summary["notes"]
    second = project.run()
    assert project.loads == 1
    assert (project.folder / "heavy.txt").read_text() == "False"
    assert second.summary["provenance"]["answers_from_store"] == INSTANCES
    assert outcomes(second) == outcomes(first)
    (project.folder / ".mirsafety" / "answers.sqlite3").unlink()
    third = project.run()
    assert project.loads == 2
    assert outcomes(third) == outcomes(first)


def text_only(folder: Path, good: Path) -> None:
    write_checkpoint("tiny_llama.py", folder)


def cut(folder: Path, good: Path) -> None:
    shutil.copytree(good, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:300_000])


def lacking(folder: Path, good: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(good, folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["language_model.model.layers.0.input_layernorm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})


def pickled(folder: Path, good: Path) -> None:
    import torch
    from safetensors.torch import load_file

    shutil.copytree(good, folder)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


def blind(folder: Path, good: Path) -> None:
    """Its chat template leaves the pictures out."""
    shutil.copytree(good, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<image>", ""), "utf-8")


def foreign_code(folder: Path, good: Path) -> None:
    shutil.copytree(good, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    path.write_text(json.dumps(config), "utf-8")
    (folder / "own.py").write_text("open('ran', 'w').write('x')\n", "utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (None, "there is no folder"),
        (text_only, "a model of type llama takes no images here"),
        (cut, "SafetensorError"),
        (lacking, "1 of its weights are missing, such as model.language_model"),
        (pickled, "no file named model.safetensors"),
        (blind, "the model's chat template does not fit: it shows not all of what is asked"),
        (foreign_code, "trust_remote_code"),
    ],
)
def test_what_cannot_be_loaded_ends_the_run_in_one_line(
    checkpoint: Path, tmp_path: Path, spoil: Callable[[Path, Path], None] | None, message: str
) -> None:
    folder = tmp_path / "checkpoint"
    if spoil is not None:
        spoil(folder, checkpoint)
    home = tmp_path / "project"
    home.mkdir()
    project = Project(home, folder)
    ran = project.run()
    assert ran.code == 4, ran.output
    errors = [line for line in ran.output.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, ran.output
    assert message in errors[0]
    assert "Traceback" not in ran.output
    assert not (home / "ran").exists()
    if ran.summary is not None:
        assert set(outcomes(ran).values()) <= {"not-run", "backend-error"}
