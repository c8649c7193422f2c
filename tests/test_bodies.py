"""The body of a chat request: the same JSON as ever, in pieces, with each image encoded once."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.records import LoadedImage
from pytest_mirsafety.wire.bodies import SHORT, Body, Encoded, Encoder
from pytest_mirsafety.wire.connection import to_json


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


LONG = bytes(SHORT)


@given(
    st.lists(st.binary(max_size=20), min_size=1),
    st.integers(1, SHORT // 4 * 3) | st.integers(SHORT // 4 * 3 + 1, 2 * SHORT),
)
def test_what_is_no_long_image_goes_out_in_one_piece(texts: list[bytes], size: int) -> None:
    encoded = Encoder().encode(image(bytes(size)))
    parts = [b"".join(texts), base64.b64encode(bytes(size)), b"".join(texts)]
    expected = parts if len(parts[1]) > SHORT else [b"".join(parts)]
    assert pieces_of(Body([*texts, encoded, *texts])) == expected


def test_an_image_is_encoded_once_while_a_body_holds_it() -> None:
    encoder = Encoder()
    first = Body([encoder.encode(image(LONG))])
    assert encoder.encode(image(LONG)) is encoder.encode(image(LONG))
    assert encoder.encode(image(b"b")).base64 != encoder.encode(image(LONG)).base64
    held = id(encoder.encode(image(LONG)))
    assert pieces_of(first) == [base64.b64encode(LONG)]
    assert id(encoder.encode(image(LONG))) == held
    del first
    gc.collect()
    assert not encoder._held


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_compact_json(value: object) -> None:
    assert json.loads(to_json(value)) == value
