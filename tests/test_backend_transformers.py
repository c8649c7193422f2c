"""What of a model in this process needs no heavy library: its settings, its pictures, its queue.

The model itself is held on a real checkpoint, in `tests/engines/test_transformers.py`; here a
stand-in answers, so that the way of a request through the batches can be seen.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from pytest_mirsafety.backends import pictures
from pytest_mirsafety.backends import transformers as backend_module
from pytest_mirsafety.backends.decoding import MAX_TOKENS, read_decoding
from pytest_mirsafety.backends.drawing import seed_of
from pytest_mirsafety.backends.generating import Ask
from pytest_mirsafety.backends.transformers import (
    TransformersBackend,
    TransformersSettings,
    alike,
)
from pytest_mirsafety.checkpoints import devices
from pytest_mirsafety.checkpoints.identity import Checkpoint
from pytest_mirsafety.config import ModelSettings, Settings
from pytest_mirsafety.errors import (
    BackendError,
    BadInputError,
    ConfigurationError,
    MisconfiguredError,
)
from pytest_mirsafety.records import Completion, LoadedImage, Request, Scalar
from pytest_mirsafety.registry import declares_greedy, find_model

T = TypeVar("T")


def completion(text: str) -> Completion:
    return Completion(text, "stop")


class StandIn:
    """Says each prompt in capitals. More than `room` at once is too much; BAD fails alone."""

    room: ClassVar[int] = 1000
    loads: ClassVar[int] = 0
    failure: ClassVar[Exception | None] = None
    batches: ClassVar[list[list[str]]] = []
    hold: ClassVar[threading.Event | None] = None
    made: ClassVar[list[weakref.ref[StandIn]]] = []
    numerics = "cpu float32"

    def __init__(self, *_: object) -> None:
        type(self).loads += 1
        if self.failure is not None:
            raise self.failure
        self.made.append(weakref.ref(self))

    def measure(self, ask: Ask) -> int:
        if ask.prompt == "LONG":
            raise BackendError("too long")
        return len(ask.prompt) + 1

    def answer(self, asks: Sequence[Ask], halted: Callable[[], bool]) -> list[Completion]:
        self.batches.append([ask.prompt for ask in asks])
        if self.hold is not None:
            while not halted():
                self.hold.wait(0.01)
            raise BackendError("halted")
        if len(asks) > self.room:
            raise MemoryError
        if any(ask.prompt == "BAD" for ask in asks):
            raise ValueError("one of\nthese is bad")
        return [completion(ask.prompt.upper()) for ask in asks]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    return fresh(monkeypatch.setattr)


def fresh(replace: Callable[..., None]) -> type[StandIn]:
    class Fresh(StandIn):
        batches: ClassVar[list[list[str]]] = []
        made: ClassVar[list[weakref.ref[StandIn]]] = []

    replace(backend_module, "MultimodalModel", Fresh)
    return Fresh


def settings(**fields: Any) -> TransformersSettings:
    return TransformersSettings(checkpoint=Checkpoint("org/model", None, "0" * 40), **fields)


async def ask(backend: TransformersBackend, prompt: str, *images: bytes) -> Completion:
    loaded = [LoadedImage(hashlib.sha256(c).hexdigest(), "image/png", c) for c in images]
    digests = tuple(image.sha256 for image in loaded)
    request = Request(backend.identity, prompt, digests, decoding=backend.decoding)
    return await backend.complete(request, loaded, "an-id")


def using(call: Callable[[TransformersBackend], Awaitable[T]], **fields: Any) -> T:
    async def session() -> T:
        backend = TransformersBackend(settings(**fields))
        try:
            return await call(backend)
        finally:
            await backend.aclose()

    return asyncio.run(session())


def ask_all(prompts: Sequence[str], **fields: Any) -> list[Any]:
    async def call(backend: TransformersBackend) -> list[Any]:
        asked = (ask(backend, prompt) for prompt in prompts)
        return await asyncio.gather(*asked, return_exceptions=True)

    return using(call, **fields)


# Settings


def test_without_a_temperature_decoding_is_greedy_and_says_so() -> None:
    decoding = read_decoding({}, None)
    assert decoding.greedy
    assert decoding.named("auto") == {"temperature": 0, "max_tokens": MAX_TOKENS}
    for zero in (0, 0.0):
        same = read_decoding({"temperature": zero}, seed=7).named("auto")
        assert repr(same["temperature"]) == "0"
        assert same == decoding.named("auto")


def test_what_decides_an_answer_is_in_its_key() -> None:
    sampled = read_decoding({"temperature": 0.7, "top_p": 0.9}, seed=3)
    assert not sampled.greedy
    assert sampled.named("float16") == {
        "temperature": 0.7,
        "max_tokens": MAX_TOKENS,
        "top_p": 0.9,
        "seed": 3,
        "dtype": "float16",
    }
    assert read_decoding({"temperature": 1}, None).named("auto")["seed"] == 0
    assert read_decoding({"temperature": 1, "seed": 5}, None).seed == 5


@pytest.mark.parametrize(
    ("given_decoding", "message"),
    [
        ({"max_new_tokens": 5}, "decoding.max_new_tokens is not of.*did you mean 'max_tokens'"),
        ({"stop": "x"}, "decoding.stop is not of provider 'transformers'"),
        ({"max_tokens": 0}, "decoding.max_tokens must be a whole number from 1, not 0"),
        ({"max_tokens": 1.5}, "decoding.max_tokens must be a whole number"),
        ({"temperature": -1}, "decoding.temperature must be a number from 0 to 100, not -1"),
        ({"temperature": True}, "decoding.temperature must be"),
        ({"temperature": "hot\n"}, r"decoding.temperature must be .*not hot$"),
        ({"temperature": None}, "decoding.temperature must be"),
        ({"temperature": float("nan")}, "decoding.temperature must be"),
        ({"temperature": 1, "top_p": 0}, "decoding.top_p must be above 0 and at most 1"),
        ({"top_p": 0.5}, "decoding.top_p needs a temperature above 0"),
        ({"seed": 2}, "seed and decoding.seed differ"),
    ],
)
def test_a_wrong_decoding_parameter_is_one_line(
    given_decoding: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_decoding(given_decoding, seed=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("temperature", "greedy"), [(None, True), (0, True), (0.5, False)])
def test_the_settings_alone_tell_whether_it_is_greedy(
    temperature: float | None, greedy: bool
) -> None:
    decoding: dict[str, Scalar] = {} if temperature is None else {"temperature": temperature}
    model = ModelSettings(provider="transformers", model="x", decoding=decoding)
    assert declares_greedy(model) == read_decoding(decoding, None).greedy == greedy


def test_the_command_line_may_name_a_folder(project: Any) -> None:
    model = find_model("transformers:./here", Settings())
    assert (model.settings.provider, model.settings.model) == ("transformers", "./here")
    result = project.run("--mllm=transformers:./here")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: the model: there is no folder *here, and on the hub*"])


@pytest.mark.parametrize("options", [(), ("--mir-dry-run",)])
def test_missing_packages_are_known_before_anything_is_asked(
    project: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda _: None)
    project.write("here/config.json", "{}")
    result = project.run("--mllm=transformers:here", *options)
    missing = "ERROR: running a model here needs more packages: *the extra 'transformers'"
    if options:  # nothing is asked, so that nothing is missing
        assert result.ret == 0
    else:
        assert result.ret == 4
        result.stderr.fnmatch_lines([missing])


@pytest.mark.parametrize("key", ["concurrency", "timeout", "base_url", "gpu_memory"])
def test_settings_of_other_engines_have_no_meaning(key: str) -> None:
    value = "http://127.0.0.1/v1" if key == "base_url" else 1
    with pytest.raises(ValidationError, match=f"'{key}' has no meaning for .*'transformers'"):
        ModelSettings.model_validate({"provider": "transformers", "model": "x", key: value})


def test_seeds_are_the_requests_own() -> None:
    seeds = {seed_of(seed, key) for seed in range(3) for key in ("a", "b")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


# Pictures


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_is_its_pixels() -> None:
    image = Image.linear_gradient("L").resize((30, 20)).convert("RGB")
    content = encoded(image)
    assert pictures.size(content) == (30, 20)
    assert pictures.decode(content).tobytes() == image.tobytes()


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (9, 8, 7, 255))
    for image in (clear, clear.convert("LA"), clear.quantize()):
        shown = pictures.decode(encoded(image))
        assert shown.mode == "RGB"
        assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert pictures.decode(encoded(clear)).getpixel((1, 0)) == (9, 8, 7)


def test_a_picture_is_shown_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    content = encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    assert pictures.decode(content).size == (20, 30)


@pytest.mark.parametrize("content", [b"", b"text", encoded(Image.new("RGB", (9, 9)), "BMP")])
def test_what_is_no_picture_is_bad_input(content: bytes) -> None:
    for call in (pictures.size, pictures.decode):
        with pytest.raises(BadInputError, match="an image cannot be opened"):
            call(content)
    with pytest.raises(BadInputError, match="cannot be decoded"):
        pictures.decode(encoded(Image.effect_noise((64, 64), 50))[:2000])


# The queue


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40), st.integers(1, 16))
def test_a_batch_is_the_first_and_those_most_like_it(lengths: list[int], most: int) -> None:
    chosen = alike(lengths, most)
    assert chosen[0] == 0
    assert len(chosen) == len(set(chosen)) == min(most, len(lengths))
    furthest = max(abs(lengths[place] - lengths[0]) for place in chosen)
    left = set(range(len(lengths))) - set(chosen)
    assert all(abs(lengths[place] - lengths[0]) >= furthest for place in left)


@effort(max_examples=20)
@given(
    st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_each_gets_its_own_answer_whatever_the_memory(
    prompts: list[str], batch_size: int, room: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_module, "_LINGER", 0)
        model = fresh(patch.setattr)
        model.room = room
        answers = ask_all(prompts, batch_size=batch_size)
    assert [answer.text for answer in answers] == [prompt.upper() for prompt in prompts]
    assert max(map(len, model.batches)) <= batch_size
    assert model.loads == 1


def test_alike_ones_are_answered_together(stand_in: type[StandIn]) -> None:
    ask_all(["aaaa", "b", "cccc", "d", "eeee", "f"], batch_size=3)
    assert stand_in.batches == [["aaaa", "cccc", "eeee"], ["b", "d", "f"]]


def test_out_of_memory_halves_the_batch_from_then_on(stand_in: type[StandIn]) -> None:
    stand_in.room = 2

    async def call(backend: TransformersBackend) -> str:
        for _ in range(2):
            await asyncio.gather(*(ask(backend, prompt) for prompt in "abcdefgh"))
        return backend.numerics

    said = using(call, batch_size=8)
    assert list(map(len, stand_in.batches)) == [8, 4, *[2] * 8]
    assert said == "cpu float32, in batches of 2 for want of memory"


def test_one_that_is_too_much_alone_fails_and_the_rest_goes_on(stand_in: type[StandIn]) -> None:
    stand_in.room = 0
    answers = ask_all("ab", batch_size=2)
    assert [type(answer) for answer in answers] == [BackendError, BackendError]
    assert "out of memory on cpu float32 with this request alone, of 2 tokens" in str(answers[0])


def test_one_that_fails_takes_no_other_with_it(stand_in: type[StandIn]) -> None:
    answers = ask_all(["a", "LONG", "b", "BAD", "c"], batch_size=5)
    assert [getattr(answer, "text", None) for answer in answers] == ["A", None, "B", None, "C"]
    assert str(answers[1]) == "too long"
    assert isinstance(answers[3], BackendError)
    assert str(answers[3]) == "ValueError: one of these is bad"


def test_a_model_that_cannot_be_loaded_holds_for_every_request(stand_in: type[StandIn]) -> None:
    stand_in.failure = MisconfiguredError("no such model")
    answers = ask_all("abc")
    assert {type(answer) for answer in answers} == {MisconfiguredError}
    assert len({id(answer) for answer in answers}) == 3


def test_nothing_is_loaded_before_the_first_request(stand_in: type[StandIn]) -> None:
    async def call(backend: TransformersBackend) -> None:
        assert (backend.numerics, backend.doing, stand_in.loads) == ("", "", 0)
        assert backend.concurrency == 20
        await ask(backend, "x")
        assert (backend.numerics, stand_in.loads) == ("cpu float32", 1)

    using(call, batch_size=5)


def test_the_memory_is_given_back_until_the_next_request(stand_in: type[StandIn]) -> None:
    async def call(backend: TransformersBackend) -> None:
        await ask(backend, "x")
        await backend.free()
        gc.collect()
        assert stand_in.made[0]() is None
        assert (await ask(backend, "y")).text == "Y"
        assert stand_in.loads == 2

    using(call)
    gc.collect()
    assert stand_in.made[1]() is None


def test_what_nobody_waits_for_is_not_asked(stand_in: type[StandIn]) -> None:
    async def call(backend: TransformersBackend) -> None:
        tasks = [asyncio.ensure_future(ask(backend, prompt)) for prompt in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    using(call)
    assert stand_in.batches == [["a", "c"]]


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_a_batch_ends_when_the_run_does_and_is_no_answer(stand_in: type[StandIn], how: str) -> None:
    stand_in.hold = threading.Event()

    async def call(backend: TransformersBackend) -> list[Any]:
        tasks = [asyncio.ensure_future(ask(backend, prompt)) for prompt in "abcd"]
        while not stand_in.batches:  # noqa: ASYNC110 - a thread fills it
            await asyncio.sleep(0.01)
        if how == "cancel":
            for task in tasks:
                task.cancel()
        await backend.aclose()
        with pytest.raises(BackendError, match="let go"):
            await ask(backend, "later")
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = using(call, batch_size=2)
    expected: type[BaseException] = asyncio.CancelledError if how == "cancel" else BackendError
    assert {type(answer) for answer in answers} == {expected}
    assert len(stand_in.batches) == 1


def test_with_and_without_images_are_never_together(stand_in: type[StandIn]) -> None:
    picture = encoded(Image.new("RGB", (4, 4)))

    async def call(backend: TransformersBackend) -> None:
        await asyncio.gather(ask(backend, "a", picture), ask(backend, "b"), ask(backend, "c"))

    using(call)
    assert stand_in.batches == [["a"], ["b", "c"]]


def test_the_files_of_a_folder_are_its_identity(tmp_path: Path, stand_in: type[StandIn]) -> None:
    with pytest.raises(ConfigurationError, match="the model: there is no checkpoint in"):
        TransformersBackend(TransformersSettings(checkpoint=Checkpoint("m", tmp_path)))
    (tmp_path / "config.json").write_text("{}", "utf-8")
    backend = TransformersBackend(TransformersSettings(checkpoint=Checkpoint("m", tmp_path)))
    assert str(backend.identity).startswith(f"transformers:{tmp_path.name}@files-")
