"""The real engine: vLLM's OpenAI-compatible server on CPU, with a tiny checkpoint."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server_process import free_port, serving

MODEL: Final = "llava-ov"
# A loopback server needs no secret, but a key must be sent, and must not leak.
API_KEY: Final = "sk-loopback-4f1d2c7a"
ENVIRONMENT: Final = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_API_KEY": API_KEY,
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
FIXTURES: Final = Path(__file__).parents[2] / "fixtures"


@dataclass(frozen=True, slots=True)
class Counters:
    """What the server has counted since it started.

    `answered` are completed requests, `images` those that came with them, and `known_images`
    the ones whose pixels it had seen before.
    """

    answered: int
    images: int
    known_images: int

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(
            self.answered - earlier.answered,
            self.images - earlier.images,
            self.known_images - earlier.known_images,
        )


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A server that is ready. `origin` is its URL without the path."""

    origin: str
    group: int

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def counters(self) -> Counters:
        return counters(self.origin)


def counters(origin: str) -> Counters:
    """What a server has counted since it started."""
    url = f"{origin}/metrics"
    with urllib.request.urlopen(url, timeout=60) as reply:  # noqa: S310 - loopback
        text = reply.read().decode()
    return Counters(
        answered=_total(text, "vllm:request_success_total"),
        images=_total(text, "vllm:mm_cache_queries_total"),
        known_images=_total(text, "vllm:mm_cache_hits_total"),
    )


@contextmanager
def vllm_server(folder: Path) -> Iterator[VllmServer]:
    """Serve the tiny LLaVA-OneVision; file:// URLs may name what is in `folder`."""
    checkpoint = write_checkpoint("tiny_llava.py", folder / "checkpoint")
    media = ("--limit-mm-per-prompt", '{"image":4}', "--allowed-local-media-path", str(folder))
    with _serving(checkpoint, folder, *media) as server:
        yield server


@contextmanager
def vllm_judge_server(checkpoint: Path, folder: Path) -> Iterator[VllmServer]:
    """Serve a checkpoint of texts only, as one does for a judge."""
    with _serving(checkpoint, folder, "--max-model-len", "4096") as server:
        yield server


def write_checkpoint(script: str, folder: Path) -> Path:
    """The folder, with the checkpoint that a script of the fixtures writes."""
    subprocess.run(
        [sys.executable, str(FIXTURES / script), str(folder)],
        env={**os.environ, **ENVIRONMENT},
        check=True,
        timeout=600,
    )
    return folder


@contextmanager
def _serving(checkpoint: Path, folder: Path, *options: str) -> Iterator[VllmServer]:
    caches = {name: str(folder / name.lower()) for name in ("VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT")}
    origin = f"http://127.0.0.1:{free_port()}"
    command = _command(checkpoint, origin, *options)
    environment = {**os.environ, **ENVIRONMENT, **caches}
    with serving(command, environment, f"{origin}/health", folder / "vllm.log") as group:
        yield VllmServer(origin, group)


def _command(checkpoint: Path, origin: str, *options: str) -> list[str]:
    # Not `vllm serve`: it looks for a distribution named vllm, and the CPU build has another name.
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(checkpoint), "--served-model-name", MODEL),
        *("--host", "127.0.0.1", "--port", origin.rpartition(":")[2]),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
        # An answer whose length nobody sets ends here, not at the end of the context.
        *("--override-generation-config", '{"max_new_tokens":64}'),
        *options,
    ]


def _total(metrics: str, name: str) -> int:
    samples = re.findall(rf"^{re.escape(name)}{{[^}}]*}} (\S+)$", metrics, re.MULTILINE)
    if not samples:
        raise LookupError(f"the server has no metric {name}")
    return int(sum(map(float, samples)))
