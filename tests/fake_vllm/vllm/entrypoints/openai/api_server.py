"""A program with vLLM's command line, log and endpoints, and no model: it answers at once.

    PYTHONPATH=tests/fake_vllm python -m vllm.entrypoints.openai.api_server --model M ...

`FAKE_VLLM` says how it behaves (see `main`). To the file in `FAKE_VLLM_RECORD` it writes a line of
JSON for its start, and for each request. Like vLLM it has a child that does the work.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

MODE = os.environ.get("FAKE_VLLM", "")
PREFIX = "(EngineCore pid=7) ERROR 11-25 17:51:15 [core.py:1510]"
FAILURES = {
    "memory": f"{PREFIX} torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "no-room": f"{PREFIX} ValueError: No available memory for the cache blocks. Try increasing it.",
    "busy": f"{PREFIX} ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less "
    "than desired GPU memory utilization (0.9, 71.3 GiB).",
    "weights": f"{PREFIX} RuntimeError: Cannot find any model weights with `x`",
    "code": "  Value error, The repository x contains custom code which must be executed. You can "
    "inspect it; please set trust_remote_code=True.",
    "odd": "RuntimeError: the flux is out of phase",
}


class Server(ThreadingHTTPServer):
    arguments: argparse.Namespace
    limit = 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.allowed():
            names = self.server.arguments.served_model_name
            self.send(200, {"object": "list", "data": [{"id": name} for name in names]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        content = body["messages"][-1]["content"]
        parts = content if isinstance(content, list) else []
        images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        record(
            event="request", model=body["model"], images=images, temperature=body.get("temperature")
        )
        if MODE.startswith("die-after-"):
            die_after(int(MODE.rpartition("-")[2]))
        if MODE == "slow-answers":
            time.sleep(600)
        if (problem := self.refusal(images)) is not None:
            self.send(400, {"error": {"message": problem, "type": "BadRequestError", "code": 400}})
            return
        said = {"role": "assistant", "content": "I'm sorry, but I can't help with that."}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 7}
        self.send(200, {"model": body["model"], "choices": [choice], "usage": usage})

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {os.environ.get('VLLM_API_KEY')}":
            return True
        self.send(401, {"error": "Unauthorized"})
        return False

    def refusal(self, images: list[str]) -> str | None:
        """In the words of vLLM."""
        own = self.server.arguments
        if len(images) > self.server.limit:
            return f"At most {self.server.limit} image(s) may be provided in one prompt."
        if own.max_model_len is not None and own.max_model_len < 16:
            return (
                f"This model's maximum context length is {own.max_model_len} tokens. However, "
                "your request has 99 input tokens. Please reduce the length."
            )
        for image in images:
            path = Path(unquote(urlsplit(image).path)).resolve()
            folder = Path(own.allowed_local_media_path or "/no/folder").resolve()
            if image.startswith("file:") and (folder not in path.parents or not path.is_file()):
                return f"The file path {path} must be a subpath of `--allowed-local-media-path`."
        return None

    def send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        print(f'INFO:     127.0.0.1 - "{format % args}"', flush=True)


served = 0
lock = threading.Lock()


def die_after(count: int) -> None:
    global served  # noqa: PLW0603 - a program of one file
    with lock:
        served += 1
        if served > count:
            os.kill(os.getpid(), signal.SIGKILL)


def record(**fields: Any) -> None:
    if path := os.environ.get("FAKE_VLLM_RECORD"):
        with lock, open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 - as short as that
            file.write(json.dumps(fields) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="api_server.py")
    for name in ("model", "host", "dtype", "revision", "load-format", "quantization"):
        parser.add_argument(f"--{name}")
    for name in ("port", "max-model-len", "tensor-parallel-size", "data-parallel-size"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--allowed-local-media-path")
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--limit-mm-per-prompt", type=json.loads, default={})
    parser.add_argument("--served-model-name", nargs="+")
    for name in ("trust-remote-code", "enforce-eager"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def say(line: str) -> None:
    print(f"(APIServer pid=5) INFO 11-25 17:42:35 {line}", flush=True)


def main() -> None:
    """Start as vLLM does; FAKE_VLLM is a failure's name, or a way to behave."""
    arguments = parse()
    # -S: all that it imports is the standard library's. One that does not mind being asked to end
    # is waited for, so not every child is of that kind.
    deaf = "signal.signal(15, 1); " if MODE in {"deaf-child", "slow-answers"} else ""
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import signal, time; {deaf}time.sleep(600)"],
        start_new_session=MODE == "stray-child",
    )
    record(
        event="start",
        pid=os.getpid(),
        child=child.pid,
        argv=sys.argv,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        token=os.environ["VLLM_API_KEY"],
    )
    say("[model.py:733] Resolved architecture: LlavaOnevisionForConditionalGeneration")
    say("[cpu_model_runner.py:68] Starting to load model x...")
    say("[secret.py:1] the key is " + os.environ["VLLM_API_KEY"])
    print("Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01]", flush=True)
    record(event="loading")
    if MODE in FAILURES:
        print("Traceback (most recent call last):", file=sys.stderr)
        print(FAILURES[MODE], file=sys.stderr, flush=True)
        print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
        raise SystemExit(1)
    if MODE == "pausing":
        time.sleep(2)
    while MODE == "slow":
        time.sleep(0.1)
    if (gate := os.environ.get("FAKE_VLLM_GATE")) is not None:
        while not Path(gate).exists():
            time.sleep(0.02)
    server = Server((arguments.host, arguments.port), Handler)
    server.arguments = arguments
    server.limit = arguments.limit_mm_per_prompt.get("image", 1)
    say(f"[entry.py:140] Starting vLLM server on http://{arguments.host}:{arguments.port}")
    server.serve_forever()


if __name__ == "__main__":
    main()
