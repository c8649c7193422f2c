"""Who may see the page: this machine, by a link that works once, and no other site."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not "no-referrer": with it a browser says Origin: null of the page's own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def _secret() -> str:
    return secrets.token_urlsafe(32)


@dataclass(slots=True)
class Keys:
    """The secrets of one review: a token that opens it once, and the session that it opens.

    `renewed` is told each new link, when the one before was used.
    """

    port: int
    renewed: Callable[[str], None] = lambda _: None
    token: str = field(default_factory=_secret, repr=False)
    session: str = field(default_factory=_secret, repr=False)

    @property
    def link(self) -> str:
        """What a person opens."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    @property
    def hosts(self) -> tuple[str, str]:
        """The names under which a browser on this machine may reach the page."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    @property
    def cookie(self) -> str:
        """The cookie's name: cookies are shared by all ports of a host."""
        return f"mirsafety-{self.port}"

    def spend(self, token: str) -> bool:
        """Whether this is the token; it is none afterwards."""
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return False
        self.token = _secret()
        self.renewed(self.link)
        return True


class Guard:
    """Lets through what comes from this machine's browser with the session's cookie.

    The name in `Host` must be ours, else a foreign name that points to this machine would do
    (DNS rebinding). What changes something must come from the page itself (CSRF).
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer, with the headers that every answer has."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app: ASGIApp = self._refusal(scope) or self._app
        await app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Why a request goes no further; None if it may."""
        headers = Headers(scope=scope)
        host = headers.getlist("host")
        if len(host) != 1 or host[0] not in self._keys.hosts:
            return _no(421, "This page answers to 127.0.0.1 and localhost only.")
        reads = scope["method"] in ("GET", "HEAD")
        if not reads and not _from_here(headers, f"http://{host[0]}"):
            return _no(403, "This did not come from the page itself.")
        if scope["method"] == "GET" and scope["path"] == "/" and scope["query_string"]:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
            if given and self._keys.spend(given[0]):
                return self._opened()
        if not self._knows(headers):
            return _no(403, "Open the link that the terminal shows. Each link works once.")
        return None

    def _opened(self) -> Response:
        """The page without the token in its address, which a browser would remember."""
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            self._keys.cookie, self._keys.session, path="/", httponly=True, samesite="strict"
        )
        return response

    def _knows(self, headers: Headers) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        morsel = cookies.get(self._keys.cookie)
        given = "" if morsel is None else morsel.value
        return hmac.compare_digest(given.encode(), self._keys.session.encode())


def _from_here(headers: Headers, origin: str) -> bool:
    return headers.getlist("origin") == [origin] and headers.get("sec-fetch-site") in (
        None,
        "same-origin",
    )


def _no(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status)
