"""A managed server: started once and late, freed and started again, never taken for another's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import pytest
from vllm_runs import STAND_IN, eventually, is_running

from pytest_mirsafety.backends.openai import OpenAISettings
from pytest_mirsafety.backends.vllm import VllmBackend
from pytest_mirsafety.errors import ConfigurationError, GoneError, RetryableError, StartError
from pytest_mirsafety.records import ModelIdentity, Request
from pytest_mirsafety.servers import gpu, vllm
from pytest_mirsafety.servers.arguments import VllmSettings, command, numerics
from pytest_mirsafety.servers.vllm import VllmServer
from pytest_mirsafety.text_models.endpoint import EndpointModelSettings
from pytest_mirsafety.text_models.vllm import VllmModel
from pytest_mirsafety.texts import TextPrompt, Turn

T = TypeVar("T")
IDENTITY = ModelIdentity("vllm", "tiny", None, "files-1")
SETTINGS = VllmSettings(source="/x/tiny", name="tiny")


class Stand:
    """The stand-in's environment, and what it recorded."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "record.jsonl"
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(STAND_IN),
            "FAKE_VLLM_RECORD": str(self.record),
        }

    def server(self, settings: VllmSettings = SETTINGS, **environ: str) -> VllmServer:
        return VllmServer(settings, {**self.environ, **environ})

    def backend(self, server: VllmServer) -> VllmBackend:
        settings = OpenAISettings(model="tiny", decoding={"temperature": 0})
        return VllmBackend(settings, IDENTITY, server)

    @property
    def starts(self) -> list[dict[str, Any]]:
        if not self.record.exists():
            return []
        lines = map(json.loads, self.record.read_text("utf-8").splitlines())
        return [line for line in lines if line["event"] == "start"]


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def using(adapter: Any, call: Callable[[], Awaitable[T]]) -> T:
    async def session() -> T:
        try:
            return await call()
        finally:
            await (adapter.end if isinstance(adapter, VllmServer) else adapter.aclose)()

    return asyncio.run(session())


def test_many_requests_start_one_server_and_free_makes_room(stand: Stand) -> None:
    backend = stand.backend(stand.server())
    request = Request(IDENTITY, "hello", (), None, {"temperature": 0})

    async def ask() -> None:
        replies = await asyncio.gather(*(backend.complete(request, (), "i") for _ in range(8)))
        assert {reply.finish_reason for reply in replies} == {"stop"}
        assert len(stand.starts) == 1
        await backend.free()
        assert not is_running(stand.starts[0]["pid"])
        assert not is_running(stand.starts[0]["child"])
        await backend.free()
        assert (await backend.complete(request, (), "i")).text
        assert len(stand.starts) == 2

    using(backend, ask)
    assert not is_running(stand.starts[1]["pid"])


def test_a_text_model_is_freed_and_started_again(stand: Stand) -> None:
    settings = EndpointModelSettings(model="tiny", provider="vllm")
    model = VllmModel(settings, IDENTITY, stand.server())
    prompt = TextPrompt(turns=(Turn("user", "hello"),), max_tokens=4)

    async def ask() -> None:
        assert (await model.complete(prompt)).text
        assert (await model.clip("abc", 5)).text == "abc"
        await model.free()
        assert not is_running(stand.starts[0]["pid"])
        assert (await model.complete(prompt)).text

    using(model, ask)
    assert len(stand.starts) == 2
    assert not is_running(stand.starts[1]["pid"])


def test_servers_start_one_after_another(stand: Stand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    servers = [stand.server(FAKE_VLLM_GATE=str(gate)) for _ in range(2)]

    async def start() -> None:
        tasks = [asyncio.create_task(server.address()) for server in servers]
        await asyncio.to_thread(eventually, lambda: "loading" in servers[0].doing)
        assert servers[1].doing.startswith("waiting for another server to start")
        assert len(stand.starts) == 1
        gate.touch()
        await asyncio.gather(*tasks)
        assert [server.doing for server in servers] == ["", ""]
        assert len(stand.starts) == 2
        await servers[1].end()

    using(servers[0], start)
    assert not any(is_running(start["pid"]) for start in stand.starts)


def test_a_start_that_is_cancelled_leaves_nothing(stand: Stand, tmp_path: Path) -> None:
    server = stand.server(FAKE_VLLM_GATE=str(tmp_path / "gate"))

    async def start() -> None:
        task = asyncio.create_task(server.address())
        await asyncio.to_thread(eventually, lambda: bool(stand.starts))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (tmp_path / "gate").touch()
        await server.address()
        assert len(stand.starts) == 2
        assert not is_running(stand.starts[0]["pid"])

    using(server, start)
    assert not is_running(stand.starts[1]["pid"])


def test_a_start_that_failed_is_not_tried_again(stand: Stand) -> None:
    server = stand.server(FAKE_VLLM="memory")

    async def start() -> None:
        for _ in range(3):
            with pytest.raises(StartError, match="does not fit into the memory"):
                await server.address()

    using(server, start)
    assert len(stand.starts) == 1


def test_a_server_that_died_is_gone_for_good(stand: Stand) -> None:
    server = stand.server()

    async def ask() -> None:
        await server.address()
        broken = RetryableError("the connection broke")
        assert await server.explain(RetryableError("slow", overloaded=True)) is not broken
        os.kill(stand.starts[0]["pid"], signal.SIGKILL)
        error = await server.explain(broken)
        assert isinstance(error, GoneError)
        assert "died (killed by signal 9" in error.detail
        with pytest.raises(GoneError):
            await server.address()

    using(server, ask)
    assert len(stand.starts) == 1
    eventually(lambda: not is_running(stand.starts[0]["child"]))


def test_another_program_on_its_port_is_not_taken_for_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Anyone(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": "tiny"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Anyone) as other:
        thread = Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(vllm, "_free_port", lambda: other.server_port)
        server = stand.server()
        try:
            with pytest.raises(StartError, match="its port is taken by another program"):
                using(server, server.address)
        finally:
            other.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ((), True),
        (("--load-format", "gguf"), False),
        (("--load_format=gguf",), False),
    ],
)
def test_a_user_may_choose_what_is_not_the_runs_own(
    arguments: tuple[str, ...], *, kept: bool
) -> None:
    line = command(VllmSettings(source="m", name="m", arguments=arguments), 1, "mark", None)
    assert ("safetensors" in line) == kept
    assert line[len(line) - len(arguments) :] == list(arguments)


def test_a_commands_images_are_the_datasets(tmp_path: Path) -> None:
    line = command(VllmSettings(source="m", name="m", images=3), 1, "mark", tmp_path)
    assert line[line.index("--limit-mm-per-prompt") + 1] == '{"image": 3}'
    assert line[line.index("--allowed-local-media-path") + 1] == str(tmp_path)
    more = VllmSettings(
        source="m", name="m", images=3, arguments=("--limit-mm-per-prompt.image", "5")
    )
    assert command(more, 1, "mark", None).count("--limit-mm-per-prompt") == 0
    VllmServer(more, {})
    fewer = VllmSettings(
        source="m", name="m", images=3, arguments=("--limit-mm-per-prompt", '{"image": 2}')
    )
    with pytest.raises(ConfigurationError, match="allows 2 images a prompt"):
        VllmServer(fewer, {})


# The GPU's memory

MIB = 2**20


@pytest.fixture
def smi(tmp_path: Path) -> Callable[[str], Mapping[str, str]]:
    """Makes an environment whose nvidia-smi says this."""

    def make(script: str) -> Mapping[str, str]:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        tool.chmod(0o755)
        return {"PATH": str(tmp_path)}

    return make


def test_memory_in_use_is_that_of_the_visible_gpus(
    smi: Callable[[str], Mapping[str, str]],
) -> None:
    environ = smi("echo 0, GPU-aa, A, 900, 800; echo 1, GPU-bb, B, 900, 700")
    both = {"GPU 0 (A)": 100 * MIB, "GPU 1 (B)": 200 * MIB}
    assert gpu.used_memory(environ) == both
    assert gpu.used_memory({**environ, "CUDA_VISIBLE_DEVICES": "1"}) == {"GPU 1 (B)": 200 * MIB}


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense", "echo a, b"])
def test_a_tool_that_tells_nothing_is_none(
    smi: Callable[[str], Mapping[str, str]], script: str
) -> None:
    assert gpu.used_memory(smi(script)) == {}
    assert gpu.used_memory({"PATH": "/nowhere"}) == {}
    assert gpu.not_returned({}, {"PATH": "/nowhere"}) == ""


def test_memory_that_does_not_come_back_is_told(
    smi: Callable[[str], Mapping[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_PATIENCE", 0.0)
    environ = smi("echo 0, GPU-aa, A, 9900, 900; echo 1, GPU-bb, B, 9900, 9300")
    before = {"GPU 0 (A)": 100 * MIB, "GPU 1 (B)": 200 * MIB}
    assert gpu.not_returned(before, environ) == "8.7 GiB of GPU 0 (A)"
    assert gpu.not_returned({**before, "GPU 0 (A)": 8800 * MIB}, environ) == ""


@pytest.mark.parametrize(
    ("arguments", "same_as"),
    [
        (("--enforce-eager", "--port", "81", "--max_num_seqs=4"), ()),
        (("--limit-mm-per-prompt.image", "5", "--quantization", "fp8"), ("--quantization", "fp8")),
    ],
)
def test_what_leaves_answers_alone_makes_no_other_model(
    arguments: tuple[str, ...], same_as: tuple[str, ...]
) -> None:
    assert numerics("auto", arguments) == numerics("auto", same_as)
    assert numerics("auto", same_as) != numerics("float32", same_as)
    assert numerics("auto", ("--quantization", "awq")) != numerics("auto", same_as)
