"""Adapters that do what a script says: real implementations of the protocols, for tests."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pytest_mirsafety.errors import BadInputError
from pytest_mirsafety.records import (
    Completion,
    ImageRef,
    Instance,
    LoadedImage,
    ModelIdentity,
    Request,
    Scalar,
    Verdict,
    VerdictKind,
)
from pytest_mirsafety.taxonomy import Category, Relation

T = TypeVar("T")

Reply = Completion | BaseException
Ruling = Verdict | BaseException


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call that must end in this time: a bug fails the test, and hangs nothing."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still blocked after {seconds} s"
    if errors:
        raise errors[0]
    return results[0]


def completion(text: str = "No.", finish_reason: str = "stop") -> Completion:
    """A completed reply."""
    return Completion(text, finish_reason, output_tokens=3, latency=0.5, created=1_700_000_000.0)


def echo(request: Request, instance_id: str) -> Reply:
    """The default script of a backend: an answer that depends on the prompt only."""
    return completion(f"answer to: {request.prompt}")


def all_safe(question: str, answer: str) -> Ruling:
    """The default script of a judge."""
    return Verdict(VerdictKind.SAFE, "scripted")


def separate(completed: Completion) -> tuple[str, str | None, bool]:
    """A small stand-in for the separation of reasoning: `<think>...</think>answer`."""
    if not completed.text.startswith("<think>"):
        return completed.text, None, True
    reasoning, closed, answer = completed.text.removeprefix("<think>").partition("</think>")
    return answer, reasoning, bool(closed)


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - set by the test's thread, which has no asyncio.Event
        await asyncio.sleep(0.001)


@dataclass
class ScriptedBackend:
    """Answers by `script`, and remembers what it was asked.

    `delays` gives the seconds an ask takes, by instance id. While `held`, no ask ends but for the
    first `unheld` ones.
    """

    script: Callable[[Request, str], Reply] = echo
    concurrency: int = 4
    cacheable: bool = True
    needs_bytes: bool = True
    greedy: bool = True
    system: str | None = None
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("scripted", "echo"))
    decoding: Mapping[str, Scalar] = field(default_factory=dict)
    delays: Callable[[str], float] = lambda _: 0.0
    held: bool = False
    unheld: int = 0
    requests: list[Request] = field(default_factory=list)
    images: list[tuple[LoadedImage, ...]] = field(default_factory=list)
    keep_images: bool = False
    in_flight: int = 0
    peak: int = 0
    closed: int = 0

    async def complete(
        self, request: Request, images: Sequence[LoadedImage], instance_id: str
    ) -> Completion:
        number = len(self.requests)
        self.requests.append(request)
        if self.keep_images:
            self.images.append(tuple(images))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await asyncio.sleep(self.delays(instance_id))
            await _until(lambda: not self.held or number < self.unheld)
        finally:
            self.in_flight -= 1
        reply = self.script(request, instance_id)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class ScriptedJudge:
    """Judges by `script`, and remembers the pairs it was shown. While `held`, none ends."""

    script: Callable[[str, str], Ruling] = all_safe
    concurrency: int = 4
    screening: bool = False
    identity: str = "scripted"
    held: bool = False
    pairs: list[tuple[str, str]] = field(default_factory=list)
    closed: int = 0

    async def judge(self, question: str, answer: str) -> Verdict:
        self.pairs.append((question, answer))
        await asyncio.sleep(0)
        await _until(lambda: not self.held)
        ruling = self.script(question, answer)
        if isinstance(ruling, BaseException):
            raise ruling
        return ruling

    async def aclose(self) -> None:
        self.closed += 1


@dataclass(frozen=True, slots=True, weakref_slot=True)
class TrackedImage(LoadedImage):
    """An image that can be seen to be let go."""


@dataclass
class ScriptedImages:
    """Images that are their locators' bytes; counts how many are alive with their content.

    `broken` locators raise BadInputError, every one raises `error` if that is given. `eager`
    images have content when inspected.
    """

    broken: frozenset[str] = frozenset()
    error: BaseException | None = None
    eager: bool = False
    inspected: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    alive: int = 0
    most_alive: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def inspect(self, ref: ImageRef) -> LoadedImage:
        self.inspected.append(ref.locator)
        if self.error is not None:
            raise self.error
        if ref.locator in self.broken:
            raise BadInputError(f"{ref.name}: broken")
        content = ref.locator.encode()
        sha256 = hashlib.sha256(content).hexdigest()
        if self.eager:
            return self._tracked(sha256, content)
        return LoadedImage(sha256, "image/png", b"", Path(ref.locator))

    def fill(self, ref: ImageRef, image: LoadedImage) -> LoadedImage:
        self.filled.append(ref.locator)
        return image if image.content else self._tracked(image.sha256, ref.locator.encode())

    def _tracked(self, sha256: str, content: bytes) -> TrackedImage:
        image = TrackedImage(sha256, "image/png", content)
        with self.lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(image, self._gone)
        return image

    def _gone(self) -> None:
        with self.lock:
            self.alive -= 1


@dataclass
class MemoryStore:
    """A store in memory. `put_error` is raised by every put."""

    answers: dict[str, Completion] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    put_error: BaseException | None = None

    def get(self, key: str) -> Completion | None:
        return self.answers.get(key)

    def put(self, request: Request, completion: Completion) -> None:
        if self.put_error is not None:
            raise self.put_error
        self.answers.setdefault(request.key, completion)

    def put_all(self, answers: Sequence[tuple[Request, Completion]]) -> list[Completion]:
        for request, completed in answers:
            self.put(request, completed)
        return [self.answers[request.key] for request, _ in answers]

    def held(self, keys: Collection[str]) -> set[str]:
        return set(keys) & set(self.answers)

    def image_digests(self, stamps: Collection[str]) -> dict[str, str]:
        return {stamp: self.digests[stamp] for stamp in stamps if stamp in self.digests}

    def image_digest(self, stamp: str) -> str | None:
        return self.digests.get(stamp)

    def put_image_digest(self, stamp: str, sha256: str) -> None:
        self.digests[stamp] = sha256


class NoSource:
    """An image source that is never read: the scripted images need none."""

    def stamp(self, locator: str) -> str:
        raise AssertionError(locator)

    def read(self, locator: str) -> bytes:
        raise AssertionError(locator)

    def path(self, locator: str) -> Path | None:
        raise AssertionError(locator)


NO_SOURCE = NoSource()


def make_instance(
    name: str, *, prompt: str | None = None, images: Sequence[str] | None = None
) -> Instance:
    """An instance whose prompt and two images are its own, unless they are given."""
    locators = [f"{name}-1.png", f"{name}-2.png"] if images is None else images
    return Instance(
        id=f"self-harm/analogy/{name}",
        relation=Relation.ANALOGY,
        category=Category.SELF_HARM,
        question=f"question {name}",
        prompt=f"prompt {name}" if prompt is None else prompt,
        images=tuple(ImageRef(locator, locator, NO_SOURCE) for locator in locators),
    )


def make_instances(count: int) -> list[Instance]:
    """Instances that differ in everything."""
    return [make_instance(str(number)) for number in range(count)]
