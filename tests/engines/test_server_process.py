"""A server that fails says why, and one that is ended takes its children along."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from server_process import PATIENT, Limits, ServerFailedError, free_port, is_alive, serving

FAILING = "print('no such checkpoint'); raise SystemExit(3)"
SILENT = "import time; print('loading', flush=True); time.sleep(600)"
STUBBORN = """
import http.server, signal, subprocess, sys
# Neither the server nor its child minds being asked to end.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
address = ("127.0.0.1", int(sys.argv[1]))
http.server.HTTPServer(address, Handler).serve_forever()
"""


def serve(script: str, log: Path, limits: Limits = PATIENT) -> AbstractContextManager[int]:
    port = free_port()
    command = [sys.executable, "-c", script, str(port)]
    return serving(command, os.environ, f"http://127.0.0.1:{port}/", log, limits)


def test_a_server_that_ends_at_once_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerFailedError, match="exit code 3\nno such checkpoint"),
        serve(FAILING, tmp_path / "log"),
    ):
        pytest.fail("it was never ready")


def test_a_server_that_is_never_ready_is_reported_and_ended(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerFailedError, match="not ready after 1 s"),
        serve(SILENT, tmp_path / "log", Limits(start=1)),
    ):
        pytest.fail("it was never ready")


def test_the_end_of_the_block_ends_the_whole_group(tmp_path: Path) -> None:
    with serve(STUBBORN, tmp_path / "log", Limits(stop=0.5)) as group:
        assert is_alive(group)
    assert not is_alive(group)


def test_a_failure_inside_the_block_ends_the_group_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), serve(STUBBORN, tmp_path / "log", Limits(stop=0.5)) as group:
        raise KeyError
    assert not is_alive(group)
