"""`--mllm=vllm:...`: one server of the run's own, clear words when it fails, and nothing left.

The server is the stand-in of `fake_vllm`, a real process with vLLM's command line, log and words;
`tests/engines` has the same with vLLM itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from projects import Project
from terminals import show
from vllm_runs import VllmProject, eventually, is_running, prompts_asked

from pytest_mirsafety.hooks import progress
from pytest_mirsafety.servers import vllm as server_module


@pytest.fixture
def vllm(project: Project, monkeypatch: pytest.MonkeyPatch) -> VllmProject:
    """Twenty instances, asked of a server of the run's own."""
    return VllmProject(project, monkeypatch)


def errors_of(result: pytest.RunResult) -> list[str]:
    """What pytest says after `ERROR:`, all lines of it."""
    return "\n".join(result.errlines).partition("ERROR: ")[2].splitlines()


def summary_of(vllm: VllmProject) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((vllm.path / "s.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_a_run_starts_one_server_and_ends_it(vllm: VllmProject, workers: tuple[str, ...]) -> None:
    result = vllm.run(*workers)
    assert result.ret == 0
    assert len(vllm.starts) == 1
    assert prompts_asked(vllm.entries("request")) == 20
    assert vllm.nothing_is_left()


def test_a_run_that_needs_no_answer_starts_none(vllm: VllmProject) -> None:
    vllm.run("--mir-dry-run")
    vllm.run("--collect-only")
    assert not vllm.starts
    assert vllm.run().ret == 0
    again = vllm.run("--mir-summary=s.json")
    assert again.ret == 0
    assert len(vllm.starts) == 1
    assert summary_of(vllm)["provenance"]["answers_from_store"] == 20


def test_the_answers_are_found_again_wherever_the_checkpoint_lies(vllm: VllmProject) -> None:
    assert vllm.run().ret == 0
    (vllm.path / "elsewhere").mkdir()
    (vllm.path / "tiny").rename(vllm.path / "elsewhere" / "tiny")
    assert vllm.run(model="vllm:elsewhere/tiny").ret == 0
    assert len(vllm.starts) == 1
    (vllm.path / "elsewhere" / "tiny" / "config.json").write_text("{ }", encoding="utf-8")
    assert vllm.run(model="vllm:elsewhere/tiny").ret == 0
    assert len(vllm.starts) == 2


def test_weights_that_are_computed_in_another_way_are_another_model(vllm: VllmProject) -> None:
    for number, settings in enumerate(
        (
            "",
            "dtype = 'float32'",
            "dtype = 'float32'\nserver_args = ['--quantization', 'fp8']",
            "dtype = 'float32'\nserver_args = ['--quantization=awq']",
        ),
        start=1,
    ):
        vllm.configure(settings)
        assert vllm.run(model="m").ret == 0
        assert len(vllm.starts) == number
    faster = "gpu_memory = 0.4\nmax_model_len = 99\nserver_args = ['--enforce-eager']"
    vllm.configure(faster)
    assert vllm.run(model="m").ret == 0
    assert len(vllm.starts) == number


def test_images_are_sent_by_their_paths_in_the_narrowest_folder(vllm: VllmProject) -> None:
    vllm.run()
    argv = vllm.started()["argv"]
    assert argv[argv.index("--allowed-local-media-path") + 1] == str(vllm.path / "images")
    assert json.loads(argv[argv.index("--limit-mm-per-prompt") + 1]) == {"image": 2}
    for request in vllm.entries("request"):
        assert [url.startswith("file://") for url in request["images"]] == [True, True]
        assert request["temperature"] == 0


def test_images_can_be_sent_with_their_bytes(vllm: VllmProject) -> None:
    vllm.configure("image_transport = 'base64'")
    assert vllm.run(model="m").ret == 0
    assert "--allowed-local-media-path" not in vllm.started()["argv"]
    sent = [url for request in vllm.entries("request") for url in request["images"]]
    assert len(sent) == 40
    assert all(url.startswith("data:image/png;base64,") for url in sent)


def test_settings_become_arguments_and_the_rest_is_inherited(
    vllm: VllmProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    vllm.configure(
        "dtype = 'bfloat16'\nmax_model_len = 4096\ntensor_parallel = 2\ndata_parallel = 4\n"
        "gpu_memory = 0.5\nserver_args = ['--enforce-eager']\ntrust_remote_code = true"
    )
    assert vllm.run(model="m").ret == 0
    started = vllm.started()
    said = " ".join(started["argv"])
    for argument in (
        *("--dtype bfloat16", "--max-model-len 4096", "--tensor-parallel-size 2"),
        *("--data-parallel-size 4", "--gpu-memory-utilization 0.5", "--load-format safetensors"),
        *("--trust-remote-code", "--enforce-eager", "--host 127.0.0.1"),
    ):
        assert f" {argument}" in f"{said} "
    assert started["visible"] == "3,1"


def test_code_of_a_checkpoint_is_not_trusted_by_default(vllm: VllmProject) -> None:
    vllm.run()
    assert not [a for a in vllm.started()["argv"] if a.startswith("--trust")]


def test_the_key_is_drawn_anew_and_shown_nowhere(vllm: VllmProject) -> None:
    shown = vllm.run("-vv", "--junitxml=j.xml", "--mir-summary=s.json")
    vllm.behave("odd")
    failed = vllm.run("--mir-store=other.sqlite3")
    first, second = (start["token"] for start in vllm.starts)
    assert first != second
    assert len(first) > 40
    written = "\n".join([str(shown.outlines), str(failed.errlines), *map(str, failed.outlines)])
    assert "the key is [key]" in written
    files = [path for path in vllm.path.rglob("*") if path.is_file() and path != vllm.record]
    for start in vllm.starts:
        assert start["token"] not in written
        assert not any(start["token"] in argument for argument in start["argv"])
        assert not any(start["token"].encode() in path.read_bytes() for path in files)


# What can be known before anything starts


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("server_args = ['--api-key', 'x']", "leave out --api-key"),
        ("server_args = ['--host=0.0.0.0']", "leave out --host"),
        ("server_args = ['--trust_remote_code']", "it is the setting trust_remote_code"),
        ("server_args = ['--trust-remote']", "it is the setting trust_remote_code"),
        ("server_args = ['--config', 'x.yaml']", "leave out --config"),
        ("server_args = ['--limit-mm-per-prompt', '{\"image\": 1}']", "allows 1 images a prompt"),
        ("server_args = ['--limit-mm-per-prompt.image=1']", "allows 1 images a prompt"),
        ("server_args = ['--limit-mm-per-prompt', 'image=1']", "allows 1 images a prompt"),
        ("server_args = ['--port', 'http']", "--port http is no port"),
        ("api_key_env = 'X'", "'api_key_env' has no meaning"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(
    vllm: VllmProject, settings: str, said: str
) -> None:
    vllm.configure(settings)
    result = vllm.run(model="m")
    assert result.ret == 4
    (line,) = filter(None, errors_of(result))
    assert said in line
    assert not vllm.starts


def test_a_path_that_is_not_there_is_one_line(vllm: VllmProject) -> None:
    result = vllm.run(model="vllm:./no/such/checkpoint")
    assert result.ret == 4
    (line,) = filter(None, errors_of(result))
    assert "the model: there is no folder" in line
    assert not vllm.starts


def test_without_vllm_one_line_says_what_to_install(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = project.run(model="vllm:org/model")
    assert result.ret == 4
    (line,) = filter(None, errors_of(result))
    assert "install pytest-mirsafety with the extra 'vllm'" in line


def test_a_folder_called_vllm_is_not_it(vllm: VllmProject) -> None:
    vllm.project.write("vllm/__init__.py", "raise SystemExit('not the server')")
    assert vllm.run().ret == 0
    assert len(vllm.starts) == 1


def test_a_port_that_is_taken_is_one_line(vllm: VllmProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        vllm.configure(f"server_args = ['--port', '{port}']")
        result = vllm.run(model="m")
    assert result.ret == 4
    assert f"port {port} is taken" in errors_of(result)[0]
    assert not vllm.starts


# What the server says itself


@pytest.mark.parametrize(
    ("mode", "said", "workers"),
    [
        ("memory", "did not start: it does not fit into the memory", ()),
        ("memory", "did not start: it does not fit into the memory", ("-n2",)),
        ("weights", "did not start: there are no safetensors weights", ()),
        ("code", "set trust_remote_code = true for this model", ()),
        ("odd", "did not start: RuntimeError: the flux is out of phase", ()),
    ],
)
def test_a_start_that_fails_is_one_clear_line_and_the_last_ones(
    vllm: VllmProject, mode: str, said: str, workers: tuple[str, ...]
) -> None:
    vllm.behave(mode)
    result = vllm.run("--mir-summary=s.json", *workers)
    assert result.ret == 4
    first, *rest = errors_of(result)
    assert said in first
    assert "its last lines:" in rest
    assert any("Engine core initialization failed" in line for line in rest)
    summary = summary_of(vllm)
    assert (summary["ruling"], summary["exit_code"]) == ("inconclusive", 4)
    assert {i["status"] for i in summary["instances"]} == {"unscored"}
    assert len(vllm.starts) == 1
    assert vllm.nothing_is_left()


def test_an_argument_that_the_server_does_not_know_is_named(vllm: VllmProject) -> None:
    vllm.configure("server_args = ['--no-such-flag']")
    result = vllm.run(model="m")
    assert result.ret == 4
    assert "it does not know an argument" in errors_of(result)[0]
    assert "unrecognized arguments: --no-such-flag" in errors_of(result)[1]


def test_a_start_without_end_is_ended(vllm: VllmProject, monkeypatch: pytest.MonkeyPatch) -> None:
    look = server_module._models

    def look_when_it_has_begun(url: str, token: str) -> frozenset[str]:
        eventually(lambda: bool(vllm.entries("loading")))
        return look(url, token)

    monkeypatch.setattr(server_module, "_models", look_when_it_has_begun)
    vllm.behave("slow")
    vllm.configure("start_timeout = 0.5")
    result = vllm.run(model="m")
    assert result.ret == 4
    assert "was not ready after 0.5 s: raise start_timeout" in errors_of(result)[0]
    assert any("Loading safetensors" in line for line in errors_of(result))
    assert vllm.nothing_is_left()


def test_a_context_that_is_too_short_is_one_line_before_the_rest(vllm: VllmProject) -> None:
    vllm.configure("max_model_len = 8")
    result = vllm.run(model="m")
    assert result.ret == 4
    (line,) = filter(None, errors_of(result))
    assert "raise the server's max_model_len" in line
    assert len(vllm.entries("request")) == 1
    assert vllm.nothing_is_left()


def test_a_server_that_dies_is_said_once_and_scores_nothing(vllm: VllmProject) -> None:
    vllm.behave("die-after-3")
    vllm.configure("concurrency = 2")
    result = vllm.run("--mir-summary=s.json", model="m")
    assert result.ret == 10
    outcomes = Counter(i["reason"] or i["status"] for i in summary_of(vllm)["instances"])
    assert outcomes.total() == 20
    assert outcomes["safe"] <= 3
    assert outcomes["unsafe"] == 0
    assert outcomes["not-run"] > 0
    text = re.sub(r"\s+", " ", str(result.stdout))
    assert "the vLLM server of tiny died (killed by signal 9: did the machine run" in text
    assert len(vllm.starts) == 1, "it is not started again"
    assert vllm.nothing_is_left()


def test_a_server_that_dies_before_the_first_answer_ends_the_run(vllm: VllmProject) -> None:
    vllm.behave("die-after-0")
    result = vllm.run()
    assert result.ret == 4
    (line,) = filter(None, errors_of(result))
    assert "the vLLM server of tiny died" in line


# Whatever happens to pytest


def start(vllm: VllmProject, *arguments: str) -> subprocess.Popen[bytes]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what nohup starts ignores it
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "--mllm=vllm:tiny", *arguments],
            cwd=vllm.path,
            env={**os.environ, "FAKE_VLLM_GATE": str(vllm.path / "gate")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("starting", signal.SIGKILL),
        ("asking", signal.SIGKILL),
        ("asking", signal.SIGTERM),
        ("starting", signal.SIGHUP),
    ],
)
def test_the_server_ends_with_pytest(vllm: VllmProject, number: signal.Signals, when: str) -> None:
    vllm.behave("" if when == "starting" else "slow-answers")
    with start(vllm) as run:
        server = vllm.started()["pid"]
        if when == "asking":
            (vllm.path / "gate").touch()
            eventually(lambda: bool(vllm.entries("request")))
        assert is_running(server)
        run.send_signal(number)
    assert vllm.nothing_is_left()


def test_the_server_ends_with_the_controller_of_workers(vllm: VllmProject) -> None:
    with start(vllm, "-n2") as run:
        vllm.started()
        run.kill()
    assert vllm.nothing_is_left()
    assert len(vllm.starts) == 1


def test_ctrl_c_in_a_terminal_ends_it_in_order(vllm: VllmProject) -> None:
    vllm.behave("deaf-child")
    command = [sys.executable, "-m", "pytest", "--mllm=vllm:tiny"]
    os.environ["FAKE_VLLM_GATE"] = str(vllm.path / "gate")
    try:
        shown = show(command, vllm.path, interrupt_at="loading weights 50%")
    finally:
        del os.environ["FAKE_VLLM_GATE"]
    assert shown.code == 2
    assert "starting vLLM: loading weights 50%" in shown.written
    assert vllm.nothing_is_left()


def test_a_log_says_now_and_then_how_far_the_start_is(
    vllm: VllmProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.3)
    vllm.behave("pausing")
    result = vllm.run()
    assert result.ret == 0
    assert re.search(r"mirsafety 0/20 answered, starting vLLM: \D+ 50%, \d+ s", str(result.stdout))


# A judge on a server of its own


def test_a_judge_is_served_too_and_its_server_ends(vllm: VllmProject) -> None:
    (vllm.path / "guard").mkdir()
    (vllm.path / "guard" / "config.json").write_text("{}", encoding="utf-8")
    vllm.project.configure(
        "thresholds.default = 0.2\njudge = 'llamaguard'\n"
        "[judges.llamaguard]\nprovider = 'vllm'\nmodel = 'guard'\ngpu_memory = 0.3\n"
    )
    result = vllm.run("--mir-summary=s.json", model="replay:answers.jsonl")
    assert result.ret == 10
    (start,) = vllm.starts
    argv = start["argv"]
    assert argv[argv.index("--model") + 1] == str(vllm.path / "guard")
    assert "--limit-mm-per-prompt" not in argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.3"
    assert {request["model"] for request in vllm.entries("request")} == {"guard"}
    assert "vllm:guard@files-" in summary_of(vllm)["provenance"]["judge"]
    assert vllm.nothing_is_left()


def test_a_judge_whose_server_does_not_start_ends_the_run(vllm: VllmProject) -> None:
    vllm.behave("memory")
    (vllm.path / "guard").mkdir()
    (vllm.path / "guard" / "config.json").write_text("{}", encoding="utf-8")
    vllm.project.configure(
        "thresholds.default = 0.2\njudge = 'llamaguard'\n"
        "[judges.llamaguard]\nprovider = 'vllm'\nmodel = 'guard'\n"
    )
    result = vllm.run(model="replay:answers.jsonl")
    assert result.ret == 4
    assert "the vLLM server of guard did not start" in errors_of(result)[0]
    assert vllm.nothing_is_left()


def test_the_gpus_memory_is_looked_at(
    vllm: VllmProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    # In use: little before the server, much ever after.
    tool.write_text(
        f"#!/bin/sh\nif [ -e {tmp_path}/seen ]; then echo 0, GPU-a, A, 9900, 900; "
        f"else echo 0, GPU-a, A, 9900, 9890; "
        f"fi\ntouch {tmp_path}/seen\n",
        encoding="utf-8",
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("pytest_mirsafety.servers.gpu._PATIENCE", 0.5)
    with pytest.warns(pytest.PytestWarning, match=r"8\.8 GiB of GPU 0 \(A\) did not come back"):
        result = vllm.run()
    assert result.ret == 0
