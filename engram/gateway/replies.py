"""JSON in and out of the handlers."""

from collections.abc import Iterable

import msgspec
from quart import Response, request

from engram import wire
from engram.http.errors import ApiError

INVALID_JSON = "Invalid JSON body."
_SHOWN = 300


def reply(answer: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """A JSON answer that no cache keeps."""
    response = Response(msgspec.json.encode(answer), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    for name, value in headers:
        response.headers[name] = value
    return response


async def json_object() -> dict[str, object]:
    """The request's body as a JSON object. Raises ApiError 400."""
    try:
        return wire.decode(await body_bytes(), dict[str, object])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ApiError(400, "invalid_json", INVALID_JSON) from None


async def body_bytes() -> bytes:
    """The request's whole body."""
    body = await request.get_data(as_text=False)
    assert isinstance(body, bytes)
    return body


def shortened(text: str) -> str:
    """`text`, cut when it repeats something long that a client sent."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
