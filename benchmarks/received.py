"""What the benchmarks' endpoint received: one request as it is read, and the report of all."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

from behaviour import Seen

TAIL: Final = 2**14
"""Bytes at the end of a body that are kept; a prompt is found if it fits."""

MARGIN: Final = 128
"""Bytes kept around quotes, so that a word of JSON is found across two reads."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_PROMPT: Final = re.compile(rb'"(?:text|content)"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_IMAGE: Final = re.compile(rb'"image_url"\s*:\s*\{')


@dataclass(slots=True)
class Incoming:
    """A request that is being read; `began` is when its head was there (monotonic seconds).

    Only `outline`, the body without its long runs that have no quote, and `tail`, its end, are
    kept: all of the JSON, little of the base64. `whole`, where it is given, takes all.
    """

    method: str
    path: str
    length: int
    began: float
    whole: bytearray | None
    taken: int = 0
    outline: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)

    @classmethod
    def from_head(cls, head: bytes, began: float, *, whole: bool) -> Self:
        """The request whose request line and headers these are."""
        method, path, *_ = head.split(b" ", 2)
        length = _LENGTH.search(head)
        return cls(
            method.decode("latin-1"),
            path.decode("latin-1"),
            int(length[1]) if length else 0,
            began,
            bytearray() if whole else None,
        )

    @property
    def is_chat(self) -> bool:
        """It asks for a chat completion."""
        return self.method == "POST" and self.path.endswith("/chat/completions")

    @property
    def prompt(self) -> str:
        """The last text of the body, or the digest of its end where there is none."""
        found = _PROMPT.findall(self.tail)
        if not found:
            return f"sha256:{hashlib.sha256(self.tail).hexdigest()}"
        return str(json.loads(found[-1])).encode(errors="replace").decode()

    @property
    def model(self) -> str:
        """The model that is asked, or nothing."""
        found = _MODEL.search(self.outline)
        return str(json.loads(found[1])) if found else ""

    @property
    def images(self) -> int:
        """How many image parts the body has."""
        return len(_IMAGE.findall(self.outline))

    def take(self, buffer: bytearray, start: int, stop: int) -> None:
        """Look at the next bytes of the body, which lie in the buffer from start to stop."""
        first = buffer.find(b'"', start, stop)
        if first >= 0:
            last = buffer.rfind(b'"', start, stop)
            self.outline += buffer[max(start, first - MARGIN) : min(stop, last + 1 + MARGIN)]
        elif stop - start <= MARGIN:
            self.outline += buffer[start:stop]
        tail_begins = start + self.length - TAIL - self.taken
        if tail_begins < stop:
            self.tail += buffer[max(start, tail_begins) : stop]
        if self.whole is not None:
            self.whole += buffer[start:stop]
        self.taken += stop - start

    def image_digests(self) -> list[str]:
        """SHA-256 of each image's bytes, in order, from the whole body; file: URLs are read."""
        return [hashlib.sha256(content).hexdigest() for content in self._images()]

    def seen(self) -> Seen:
        """What came beside the prompt, from the whole body."""
        from PIL import Image

        middles = []
        for content in self._images():
            with Image.open(BytesIO(content)) as picture:
                grey = picture.convert("L")
            middles.append(float(grey.tobytes()[grey.width * (grey.height // 2) + grey.width // 2]))
        roles = [message["role"] for message in json.loads(self.whole or b"{}")["messages"]]
        return Seen("system" in roles, tuple(middles))

    def _images(self) -> list[bytes]:
        body: Mapping[str, Any] = json.loads(self.whole or b"{}")
        parts = [
            part
            for message in body["messages"]
            if not isinstance(message["content"], str)
            for part in message["content"]
        ]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        return [_image_bytes(url) for url in urls]


def _image_bytes(url: str) -> bytes:
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path)).read_bytes()
    return base64.b64decode(url.partition(",")[2], validate=True)


@dataclass(slots=True)
class PromptReport:
    """What came for one prompt; times are monotonic seconds.

    `turned_away` counts the requests that got 429. `images` are the distinct sequences of SHA-256
    that were sent, if the endpoint looks at images.
    """

    requests: int = 0
    answered: int = 0
    turned_away: int = 0
    first_request: float = 0.0
    last_answer: float = 0.0
    images: list[list[str]] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What an endpoint received and sent so far, of chat requests alone.

    `answered` counts whole answers with status 200, blank ones too. `images` counts image parts,
    `received` bytes of bodies. `statuses` counts replies by status, `faults` by kind.
    """

    requests: int = 0
    answered: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    received: int = 0
    images: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, PromptReport] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The report that an endpoint sent."""
        values: dict[str, Any] = json.loads(text)
        prompts = {name: PromptReport(**value) for name, value in values.pop("prompts").items()}
        return cls(**values, prompts=prompts)

    def add(self, incoming: Incoming) -> PromptReport:
        """Count a request that was read to its end, and give what its prompt has so far."""
        self.requests += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.received += incoming.length
        self.images += incoming.images
        entry = self.prompts.setdefault(incoming.prompt, PromptReport(first_request=incoming.began))
        entry.requests += 1
        if incoming.whole is not None and (digests := incoming.image_digests()) not in entry.images:
            entry.images.append(digests)
        return entry

    def replied(self, status: int, fault: str | None = None) -> None:
        """Count a reply, and the fault that it is."""
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1
        if fault is not None:
            self.faults[fault] = self.faults.get(fault, 0) + 1

    def seconds(self, prompts: Collection[str]) -> float:
        """From the first request for one of these prompts to the last answer to one of them.

        What else was asked, such as a question before the first, does not count.
        """
        found = [self.prompts[prompt] for prompt in prompts]
        return max(p.last_answer for p in found) - min(p.first_request for p in found)

    def asked_other_than_once(self, prompts: Collection[str]) -> dict[str, int]:
        """How often each of these prompts was asked that was not asked exactly once."""
        asked = {p: self.prompts[p].requests if p in self.prompts else 0 for p in prompts}
        return {prompt: count for prompt, count in asked.items() if count != 1}
