"""The body of a chat request: the same JSON as ever, in pieces, with each image encoded once."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.backends.bodies import Body, Encoded, Encoder, to_json
from pytest_mirsafety.records import LoadedImage


async def _collect(body: Body) -> list[bytes]:
    return [piece async for piece in body]


def pieces_of(body: Body) -> list[bytes]:
    return asyncio.run(_collect(body))


def image(content: bytes) -> LoadedImage:
    return LoadedImage(hashlib.sha256(content).hexdigest(), "image/png", content)


@given(st.lists(st.binary(max_size=20) | st.binary(max_size=20).map(Encoded), max_size=12))
def test_a_body_is_its_pieces_and_knows_its_length(pieces: list[bytes | Encoded]) -> None:
    whole = b"".join(p if isinstance(p, bytes) else p.base64 for p in pieces)
    body = Body(pieces)
    assert b"".join(pieces_of(body)) == whole
    assert b"".join(pieces_of(body)) == whole, "it can be sent again"
    assert len(body) == len(whole)


@given(st.lists(st.binary(max_size=20), min_size=1), st.binary(min_size=1))
def test_what_is_no_image_goes_out_in_one_piece(texts: list[bytes], content: bytes) -> None:
    encoded = Encoder().encode(image(content))
    assert pieces_of(Body([*texts, encoded, *texts])) == [
        b"".join(texts),
        base64.b64encode(content),
        b"".join(texts),
    ]


def test_an_image_is_encoded_once_while_a_body_holds_it() -> None:
    encoder = Encoder()
    first = Body([encoder.encode(image(b"a"))])
    assert encoder.encode(image(b"a")) is encoder.encode(image(b"a"))
    assert encoder.encode(image(b"b")).base64 != encoder.encode(image(b"a")).base64
    held = id(encoder.encode(image(b"a")))
    assert pieces_of(first) == [base64.b64encode(b"a")]
    assert id(encoder.encode(image(b"a"))) == held
    del first
    gc.collect()
    assert not encoder._held


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_compact_json(value: object) -> None:
    assert json.loads(to_json(value)) == value
