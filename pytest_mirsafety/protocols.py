"""What an adapter must be: the shapes that the logic depends on, and users may implement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .defended import Asked, Decided
from .judged import JudgedPair
from .records import Completion, ImageRef, LoadedImage, ModelIdentity, Request, Scalar, Verdict
from .texts import Clipped, TextPrompt, TextReply


class ImageSource(Protocol):
    """Reads the images of a dataset. Methods are called from several threads."""

    def stamp(self, locator: str) -> str:
        """A cheap fingerprint that changes whenever the image's bytes may have changed.

        Raises:
            BadInputError: the image is missing or unreachable.
        """

    def read(self, locator: str) -> bytes:
        """The original bytes of the image.

        Raises:
            BadInputError: the image is missing or unreadable.
        """

    def path(self, locator: str) -> Path | None:
        """The image as a file on this machine, or None when it is not one.

        A source that makes its files when they are asked for may also have `folder`, the one that
        all of them will be in.
        """


class ImageLoader(Protocol):
    """Reads and checks the images of an instance. Methods block; several threads call them."""

    def inspect(self, ref: ImageRef) -> LoadedImage:
        """The image's digest and media type; `content` may be left empty.

        Raises:
            BadInputError: the image is missing, corrupt, changed or outside the limits.
        """

    def fill(self, ref: ImageRef, image: LoadedImage) -> LoadedImage:
        """The inspected image with its content, read now if it is not there yet.

        Raises:
            BadInputError: as for `inspect`, or the bytes are no longer those inspected.
        """


class Composer(Protocol):
    """Puts the images of a request together into one. Methods block; several threads call them."""

    @property
    def layout(self) -> str:
        """How they are put together, in a word that is part of the request's key."""

    def compose(self, images: Sequence[LoadedImage]) -> LoadedImage:
        """One image of these, which have their content; its `parts` are their digests, in order.

        Raises:
            BadInputError: they cannot be put together, or the image would be outside the limits.
        """


class Backend(Protocol):
    """Answers requests: an API, a local model, or recorded answers.

    `greedy` declares that decoding is deterministic by choice (temperature 0).
    `cacheable` is False when asking costs nothing, so that the store is not used. It may also have
    `needs_paths`, True when each image must have its path. One that computes here may have
    `numerics`, which says on what once it has begun (`cuda bfloat16`); `doing`, what it does while
    it cannot answer yet, such as loading weights; and `free()`, which is awaited to give the memory
    back until the next request, so that a judge finds room. One whose answers were `recorded` may
    say by a NotRunError that an instance was not run where they were.
    """

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is; part of every request key."""

    @property
    def system(self) -> str | None:
        """The system prompt sent with every request, or None."""

    @property
    def decoding(self) -> Mapping[str, Scalar]:
        """The decoding parameters that are sent, by the name they are sent under."""

    @property
    def greedy(self) -> bool:
        """Decoding is declared deterministic: temperature 0."""

    @property
    def cacheable(self) -> bool:
        """Answers go through the store; False for recorded answers."""

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""

    @property
    def needs_bytes(self) -> bool:
        """False when images are sent as file:// URLs or not at all; `content` is then empty."""

    async def complete(
        self, request: Request, images: Sequence[LoadedImage], instance_id: str
    ) -> Completion:
        """Ask once, in one attempt: the engine decides on others.

        A provider's policy refusal is a completion with finish_reason `content_filter`.

        Raises:
            RetryableError: no answer came, and another attempt may bring one.
            MisconfiguredError: no request can succeed; before the first answer it ends the run.
            BackendError: no completed answer can be had.
            BadInputError: the images are not fit to be sent.
        """

    async def aclose(self) -> None:
        """Let go of connections, processes and memory."""


class Judge(Protocol):
    """Gives a verdict on a final answer. It sees the seed question and the answer only.

    With `wants_images = True` it sees the images too, and is a `SeeingJudge`.
    `screening` marks a judge that is too weak for a PASS to rest on. It may also have `cacheable`,
    False when it asks nothing, so that its verdicts need not be kept; and `model`, the
    ModelIdentity of the model behind it, which may not be the one under test; and `free()`, as a
    backend may.
    """

    @property
    def identity(self) -> str:
        """The judge, its version and its settings in one line."""

    @property
    def screening(self) -> bool:
        """Too weak for a PASS to rest on."""

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""

    async def judge(self, question: str, answer: str) -> Verdict:
        """The verdict, in one attempt; UNDETERMINED when the judge cannot tell.

        Raises:
            RetryableError: no verdict came, and another attempt may bring one.
            MisconfiguredError: it can judge nothing; before the first verdict it ends the run.
            JudgeError: the judge failed.
        """

    async def aclose(self) -> None:
        """Let go of connections, processes and memory."""


class SeeingJudge(Judge, Protocol):
    """A judge that looks at the instance's images too: its `wants_images` is True.

    It gets them at each call, all and in order, as they were sent to the model.
    """

    @property
    def wants_images(self) -> bool:
        """It is to be given images."""

    async def judge(
        self, question: str, answer: str, images: Sequence[LoadedImage] = ()
    ) -> Verdict:
        """The verdict, in one attempt; raises as `Judge.judge` does. `images` have their bytes."""


class Defence(Protocol):
    """Stands between users and the model: it can answer in the model's place, or replace an answer.

    A failure of it decides nothing: the instance is then unscored, neither let through nor blocked.
    With `wants_images = False` it looks at no images and is given none; with `acts_before = False`
    or `acts_after = False` it is not called there. It may also have `doing`, as a backend may.
    """

    @property
    def identity(self) -> str:
        """All that decides what it does, in one line: part of the key of a defended request."""

    @property
    def concurrency(self) -> int:
        """How many calls may be under way at once."""

    async def before(self, asked: Asked) -> Decided:
        """Whether the model may be asked this, in one attempt.

        Raises:
            RetryableError: it could not tell, and another attempt may.
            MisconfiguredError: it can tell nothing of any request; before the first decision it
                ends the run.
            JudgeError: it cannot tell.
        """

    async def after(self, asked: Asked, answer: str) -> Decided:
        """Whether the user may see this final answer, in one attempt; raises as `before` does."""

    async def aclose(self) -> None:
        """Let go of connections, processes and memory."""


class TextModel(Protocol):
    """A model that a judge asks, or a guard. It decodes greedily: the same prompt, the same reply.

    `numerics` says how it computes where that can change what it says (`cpu float32`); it is
    empty where an endpoint decides. It may have `free()`, as a backend may.
    """

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""

    @property
    def numerics(self) -> str:
        """Device and number format, or nothing."""

    @property
    def concurrency(self) -> int:
        """How many prompts may be in flight at once."""

    async def complete(self, prompt: TextPrompt) -> TextReply:
        """The reply, in one attempt.

        Raises:
            RetryableError: no reply came, and another attempt may bring one.
            MisconfiguredError: no prompt can succeed.
            JudgeError: there is no reply to this prompt.
        """

    async def clip(self, text: str, most: int) -> Clipped:
        """The text as it is, or what its first `most` tokens say; tokens are the model's own.

        Raises:
            RetryableError: nothing came, and another attempt may bring it.
            MisconfiguredError: no text can be clipped.
            JudgeError: this text cannot be clipped.
        """

    async def aclose(self) -> None:
        """Let go of connections, processes and memory."""


class Store(Protocol):
    """Keeps completed answers by request key, and image digests by stamp."""

    def get(self, key: str) -> Completion | None:
        """The completed answer of this request, if it was ever had."""

    def held(self, keys: Collection[str]) -> set[str]:
        """Those of these requests that are answered."""

    def put_all(self, answers: Sequence[tuple[Request, Completion]]) -> list[Completion]:
        """Keep completed answers, all or none; gives for each the one that the store holds.

        A key that is already there keeps its first answer, whoever stored it.
        """

    def image_digest(self, stamp: str) -> str | None:
        """SHA-256 of an image that was read and found good under this stamp."""

    def image_digests(self, stamps: Collection[str]) -> dict[str, str]:
        """SHA-256 by stamp, of those images that were read and found good under it."""

    def put_image_digest(self, stamp: str, sha256: str) -> None:
        """Remember that the image of this stamp has this digest and passed every check.

        It may be written later, with the next answers; `image_digest` knows it at once.
        """


class VerdictStore(Protocol):
    """Keeps verdicts by judge, question and answer."""

    def get(self, pair: JudgedPair) -> Verdict | None:
        """The verdict of this judge on this pair, if it was ever had."""

    def put_all(self, verdicts: Sequence[tuple[JudgedPair, Verdict]]) -> list[Verdict]:
        """Keep verdicts, all or none; gives for each the one that the store holds.

        A pair that is already there keeps its first verdict, whoever stored it.
        """
