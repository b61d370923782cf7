"""Reads the text messages that a server sends over a WebSocket (RFC 6455, by wsproto), and nothing else.

For answers that servers give in no other way, such as the logs of a container. The outbound client's rules hold: no
redirects, deadlines, bounded size.
"""

import ssl
from typing import Final

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import CloseConnection, Ping, RejectConnection, Request, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from engram.http import targets
from engram.http.dialling import dial
from engram.http.errors import BadAnswer, Interrupted, NotSent, reason
from engram.http.transport import Late, Transport

CONNECT_S: Final = 5.0


async def read_texts(
    url: str,
    *,
    headers: list[tuple[str, str]],
    tls: ssl.SSLContext | None,
    address: str | None,
    total_s: float,
    max_bytes: int,
) -> list[str]:
    """Connect to a http(s) URL and return the text messages that arrive until the server closes, `total_s` has passed
    or they have `max_bytes` together.

    Raises NotSent, Interrupted (the handshake was not answered) and BadAnswer (refused, or no WebSocket).
    """
    target = targets.target(url)
    due = trio.current_time() + total_s
    transport = None
    with trio.move_on_at(min(due, trio.current_time() + CONNECT_S)):
        transport = await dial(target, tls if target.secure else None, address)
    if transport is None:
        raise NotSent(f"no connection within {CONNECT_S:g} s")
    try:
        return await _read(transport, target, headers, due, max_bytes)
    finally:
        transport.close()


async def _read(
    transport: Transport, target: targets.Target, headers: list[tuple[str, str]], due: float, max_bytes: int
) -> list[str]:
    wire = WSConnection(ConnectionType.CLIENT)
    extra = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    texts: list[str] = []
    parts: list[str] = []
    size = 0
    accepted = False
    with trio.move_on_at(due):
        try:
            await transport.write(wire.send(Request(host=target.authority, target=target.path, extra_headers=extra)))
            while size <= max_bytes:
                data = await transport.read()
                wire.receive_data(data or None)
                for event in wire.events():
                    match event:
                        case RejectConnection():
                            raise BadAnswer(f"the WebSocket was refused: {event.status_code}")
                        case TextMessage(data=text):
                            accepted = True
                            parts.append(text)
                            size += len(text)
                            if event.message_finished:
                                texts.append("".join(parts))
                                parts.clear()
                        case Ping():
                            await transport.write(wire.send(event.response()))
                        case CloseConnection():
                            return texts
                        case _:
                            accepted = True
                if not data:
                    return texts
        except (RemoteProtocolError, LocalProtocolError) as error:
            raise BadAnswer(f"no WebSocket: {error}") from error
        except Late:
            pass
        except (OSError, trio.ClosedResourceError, trio.BrokenResourceError) as error:
            if not accepted:
                raise Interrupted(f"no answer: {reason(error)}") from error
    return texts
