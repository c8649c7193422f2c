"""The yardstick: the leanest asyncio client that asks for all instances of a dataset.

    python benchmarks/lean_client.py http://127.0.0.1:8000/v1#model DATASET --concurrency=64

File, base64, one body of bytes, POST: no check, no retry, no store, no judge. Whatever is slower
does more than that.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from datasets import FILE_NAME

ENCODERS: Final = ("standard", "pybase64")
"""What encodes: the standard library, which is the yardstick, or a faster package."""

_TIMEOUT: Final = 600.0


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom to ask, and how: `transport` is base64 or file, `encode` gives base64."""

    url: str
    model: str
    folder: Path
    concurrency: int = 64
    transport: str = "base64"
    encode: Callable[[bytes], bytes] = base64.b64encode

    def body(self, line: bytes) -> bytes:
        """The request's body for one line of the dataset."""
        record: Mapping[str, Any] = json.loads(line)
        parts = [b'{"model":', _json(self.model), b',"temperature":0']
        parts.append(b',"messages":[{"role":"user","content":[')
        for name in record["images"]:
            path = self.folder / name
            parts.append(b'{"type":"image_url","image_url":{"url":"')
            if self.transport == "file":
                parts.append(path.as_uri().encode())
            else:
                parts += b"data:image/png;base64,", self.encode(path.read_bytes())
            parts.append(b'"}},')
        parts += b'{"type":"text","text":', _json(record["prompt"]), b"}]}]}"
        return b"".join(parts)


async def ask_all(asking: Asking) -> int:
    """Ask for every instance, `concurrency` at a time; gives how many were answered.

    Each body is made when there is a place for it, and is on its way before the next one is
    made: a client that made the first 64 at once would keep the endpoint waiting.

    Raises:
        ExceptionGroup: a request failed.
    """
    places = asyncio.Semaphore(asking.concurrency)
    limits = httpx2.Limits(max_connections=asking.concurrency)
    asked = []
    async with (
        httpx2.AsyncClient(limits=limits, timeout=_TIMEOUT, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for line in (asking.folder / FILE_NAME).read_bytes().splitlines():
            await places.acquire()
            asked.append(group.create_task(_ask(client, asking.url, asking.body(line))))
            asked[-1].add_done_callback(lambda _: places.release())
            await asyncio.sleep(0)
    return sum(task.result() for task in asked)


async def _ask(client: httpx2.AsyncClient, url: str, body: bytes) -> bool:
    headers = {"Content-Type": "application/json"}
    response = await client.post(f"{url}/chat/completions", content=body, headers=headers)
    response.raise_for_status()
    return bool(response.json()["choices"])


def _json(text: object) -> bytes:
    return json.dumps(text).encode()


def _encoder(name: str) -> Callable[[bytes], bytes]:
    if name == "standard":
        return base64.b64encode
    import pybase64

    encode: Callable[[bytes], bytes] = pybase64.b64encode
    return encode


def main() -> None:
    """Ask for all, and print how many in how many seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="URL#model")
    parser.add_argument("folder", type=Path, help="of the dataset")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--transport", choices=("base64", "file"), default="base64")
    parser.add_argument("--encoder", choices=ENCODERS, default="standard")
    options = parser.parse_args()
    url, _, model = options.model.partition("#")
    asking = Asking(
        url,
        model,
        options.folder.absolute(),
        options.concurrency,
        options.transport,
        _encoder(options.encoder),
    )
    began = time.monotonic()
    answered = asyncio.run(ask_all(asking))
    print(json.dumps({"answered": answered, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
