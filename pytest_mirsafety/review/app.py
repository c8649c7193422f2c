"""The pages: who labels, one answer at a time, and how far everything is."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..errors import BadInputError, RunError
from ..labelling import LabelKind
from ..printable import one_line
from .guard import HEADERS, Guard, Keys
from .items import Review

_STATIC: Final = {
    "review.css": "text/css",
    "review.js": "text/javascript",
    "review.svg": "image/svg+xml",
}
_FORM_LIMIT: Final = 4096
_NAME_LIMIT: Final = 100
_DIRECTIONS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def application(review: Review, keys: Keys) -> ASGIApp:
    """The page of a review, behind its guard."""
    pages = _Pages(review, _environment())
    routes = [
        Route("/", pages.first),
        Route("/answers", pages.go_on),
        Route("/answers/{number:int}", pages.answer),
        Route("/answers/{number:int}", pages.label, methods=["POST"]),
        Route("/answers/{number:int}/images/{place:int}", pages.image),
        Route("/undo", pages.undo, methods=["POST"]),
        Route("/summary", pages.summary),
        Route("/static/{name}", _static),
    ]
    handlers: Any = {RunError: _trouble}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), keys)


def visible(text: str) -> str:
    """The text with a visible sign for what could hide, or turn around, a part of it."""
    if all(c.isprintable() or c == "\n" for c in text):
        return text
    return "".join(map(_sign, text.replace("\r\n", "\n")))


def _sign(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < ord(" "):
        return chr(0x2400 + code)
    if character in _DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs"):
        return f"[U+{code:04X}]"
    return character


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment


@dataclass(frozen=True, slots=True)
class _Pages:
    """What each address answers. A number in an address counts from 1."""

    review: Review
    environment: Environment

    def first(self, request: Request) -> Response:
        """Who labels."""
        if self.review.reviewer is not None:
            return _to("/answers")
        total = len(self.review.items)
        progress = [
            (name, len(self.review.standing(name).labels), _address("/answers", name))
            for name in self.review.reviewers()
        ]
        wrong = "reviewer" in request.query_params
        return self._page("reviewer.html", progress=progress, total=total, wrong=wrong)

    def go_on(self, request: Request) -> Response:
        """The first answer that this reviewer has not labelled."""
        reviewer = self._reviewer(request.query_params.get("reviewer", ""))
        if reviewer is None:
            return _to("/?reviewer=")
        return self._next(reviewer, -1)

    def answer(self, request: Request) -> Response:
        """One answer, with what it answers."""
        number = self._number(request)
        if (reviewer := self._reviewer(request.query_params.get("reviewer", ""))) is None:
            return _to("/")
        standing = self.review.standing(reviewer)
        label = standing.labels.get(number)
        item = self.review.items[number]
        shown = self.review.shows_verdict(reviewer, number, labelled=label is not None)
        address = partial(_address, reviewer=self._asked(reviewer))
        return self._page(
            "answer.html",
            number=number + 1,
            item=item,
            entry=item.drawn.entry,
            label=label,
            shown=shown,
            standing=standing,
            reviewer=reviewer,
            before=address(f"/answers/{number}") if number else None,
            after=address(f"/answers/{number + 2}") if number + 1 < standing.total else None,
            summary=address("/summary"),
            kinds=_KINDS,
        )

    async def label(self, request: Request) -> Response:
        """Keep a label, and go on."""
        number, form = self._number(request), await _form(request)
        reviewer, kind = self._reviewer(form.get("reviewer", "")), form.get("label")
        if reviewer is None or kind not in list(LabelKind):
            raise HTTPException(400, "A label is safe, unsafe or unsure, and has a reviewer.")
        await run_in_threadpool(self.review.label, reviewer, number, LabelKind(kind))
        return await run_in_threadpool(self._next, reviewer, number)

    async def undo(self, request: Request) -> Response:
        """Take the last label back, and show its answer again."""
        form = await _form(request)
        if (reviewer := self._reviewer(form.get("reviewer", ""))) is None:
            raise HTTPException(400, "Nobody knows whose label to take back.")
        number = await run_in_threadpool(self.review.undo, reviewer)
        if number is None:
            return await run_in_threadpool(self._next, reviewer, -1)
        return _to(_address(f"/answers/{number + 1}", self._asked(reviewer)))

    def summary(self, request: Request) -> Response:
        """How far this reviewer is, with every answer of the sample."""
        if (reviewer := self._reviewer(request.query_params.get("reviewer", ""))) is None:
            return _to("/")
        standing = self.review.standing(reviewer)
        asked = self._asked(reviewer)
        rows = [
            (n + 1, item, standing.labels.get(n), _address(f"/answers/{n + 1}", asked))
            for n, item in enumerate(self.review.items)
        ]
        following = standing.next_after(-1)
        go_on = None if following is None else rows[following][3]
        return self._page(
            "summary.html", standing=standing, rows=rows, go_on=go_on, reviewer=reviewer
        )

    def image(self, request: Request) -> Response:
        """An image as the dataset has it, to the byte."""
        images = self.review.items[self._number(request)].instance.images
        place = request.path_params["place"]
        if not 1 <= place <= len(images):
            raise HTTPException(404)
        try:
            image = self.review.image(images[place - 1])
        except BadInputError as error:
            raise HTTPException(404, one_line(error.detail)) from None
        policy = {"Content-Security-Policy": f"{HEADERS['Content-Security-Policy']}; sandbox"}
        return Response(image.content, media_type=image.media_type, headers=policy)

    def _next(self, reviewer: str, number: int) -> Response:
        asked = self._asked(reviewer)
        following = self.review.standing(reviewer).next_after(number)
        page = "/summary" if following is None else f"/answers/{following + 1}"
        return _to(_address(page, asked))

    def _number(self, request: Request) -> int:
        number: int = request.path_params["number"] - 1
        if not 0 <= number < len(self.review.items):
            raise HTTPException(404, "There is no such answer in this sample.")
        return number

    def _reviewer(self, name: str) -> str | None:
        """The reviewer, by the name that was given or else typed; None if it is no name."""
        if self.review.reviewer is not None:
            return self.review.reviewer
        return reviewer_name(name)

    def _asked(self, reviewer: str) -> str | None:
        """The name as a page's address needs it."""
        return reviewer if self.review.reviewer is None else None

    def _page(self, template: str, **values: object) -> Response:
        text = self.environment.get_template(template).render(review=self.review, **values)
        return HTMLResponse(text)


def reviewer_name(text: str) -> str | None:
    """A name as it was typed, on one line; None if it is none."""
    name = " ".join(text.split())
    return name if name and one_line(name, _NAME_LIMIT) == name else None


_KINDS: Final = (("safe", "s", "Safe"), ("unsafe", "u", "Unsafe"), ("unsure", "?", "Unsure"))
"""Each label with its key and its word on the page."""


def _address(path: str, reviewer: str | None = None) -> str:
    return path if reviewer is None else f"{path}?{urlencode({'reviewer': reviewer})}"


def _to(address: str) -> Response:
    return RedirectResponse(address, status_code=303)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form.

    Raises:
        HTTPException: it is larger than any of ours.
    """
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _FORM_LIMIT:
            raise HTTPException(413)
    fields = parse_qs(content.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[-1] for name, values in fields.items()}


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if (media_type := _STATIC.get(name)) is None:
        raise HTTPException(404)
    content = resources.files(__package__).joinpath("static", name).read_bytes()
    return Response(content, media_type=media_type)


async def _trouble(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette calls it so
    """The label file cannot be read or written: say so, where the person looks."""
    return PlainTextResponse(f"{error}\n", status_code=500)
