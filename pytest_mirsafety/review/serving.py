"""Serves the page on the loopback interface until Ctrl-C."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from ..errors import ConfigurationError

_LAST_PORT = 65535
_PATIENCE = 3  # seconds for a request that is under way when the review ends


def bind(port: int) -> socket.socket:
    """A socket of the loopback interface that listens on this port; 0 takes any free one.

    Raises:
        ConfigurationError: the port is in use, or may not be used.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ConfigurationError(f"--port: {port} is no port; the last one is {_LAST_PORT}")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        problem = f"cannot be used: {error.strerror or error}"
        if error.errno == errno.EADDRINUSE:
            problem = "is in use; name another one, or none, to take any that is free"
        raise ConfigurationError(f"--port: {port} {problem}") from None


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer until Ctrl-C, or until the process is asked to end; then let go of the socket."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_PATIENCE,
    )
    with listener, suppress(KeyboardInterrupt):  # which uvicorn raises again, when all is ended
        uvicorn.Server(config).run(sockets=[listener])
