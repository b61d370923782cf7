"""Parses server-sent events (WHATWG HTML, section 9.2), as far as the gateway uses them."""

from collections.abc import Iterable, Iterator

import msgspec

from engram import wire
from engram.sdk.errors import MalformedAnswer
from engram.sdk.model import Event

_data = wire.decoder(dict[str, object])


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events in `lines`. Comments (heartbeats) and unknown fields are skipped, as the standard says.

    Raises MalformedAnswer when an event's data is no JSON object.
    """
    name, identity, data = "message", None, list[str]()
    for line in lines:
        if not line:
            if data:
                yield Event(event=name, data=_object("\n".join(data)), id=identity)
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                name = value
            case "data":
                data.append(value)
            case "id":
                identity = value
            case _:
                pass


def _object(text: str) -> dict[str, object]:
    try:
        return _data.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedAnswer(f"an event's data is no JSON object: {error}") from None
