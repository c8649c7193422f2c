"""How a page is built: its template, its one style and one script, and the policy for both.

A page shows what models, judges and datasets have written. The templates escape all of it, the
script puts it in as text, and the policy lets nothing run or load but what is in the page and was
hashed here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Final

from ...printable import one_line

if TYPE_CHECKING:
    from jinja2 import Environment

_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src '{style}'; script-src {script}"
)
_UNSAFE_IN_HTML: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def build(template: str, *, script: str | None = None, **values: object) -> Iterator[str]:
    """A page of this template, piece by piece: an iterator among the values is taken as it comes.

    `script` names the one script of the page, in static/. A template extends base.html.
    """
    from markupsafe import Markup

    style = _static("report.css")
    code = None if script is None else _static(script)
    policy = _POLICY.format(
        style=_hash(style), script="'none'" if code is None else f"'{_hash(code)}'"
    )
    yield from (
        _environment()
        .get_template(template)
        .generate(
            policy=policy,
            style=Markup(style),  # noqa: S704 - ours
            script=None if code is None else Markup(code),  # noqa: S704 - ours
            **values,
        )
    )


def as_json(value: object) -> str:
    """JSON that can stand in a <script>: nothing in it ends the element, or begins another."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).translate(_UNSAFE_IN_HTML)


def data_url(kind: str, content: bytes) -> str:
    """The content as an address of itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _static(name: str) -> str:
    return resources.files(__package__).joinpath("static", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("pytest_mirsafety.reports.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = one_line
    environment.filters["json"] = lambda value: Markup(as_json(value))  # noqa: S704 - escaped there
    return environment
