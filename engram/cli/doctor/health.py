"""`engram health`: whether the process on this machine works, as an exit status."""

import http.client
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from engram import wire
from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, SOURCES, Show, Sources

TIMEOUT_S: Final = 4.0
_MOST_BYTES: Final = 1_048_576
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- asked, not listened on


class ProcessHealth(msgspec.Struct, frozen=True):
    """The answer of a process."""

    url: str
    status: int
    answer: dict[str, object]


def health(
    *,
    live: Annotated[
        bool, Parameter(help="Only whether it answers: a gateway that waits for the chain does.", negative="")
    ] = False,
    port: Annotated[int | None, Parameter(converter=whole, help="Port of the ops listener; else ops.port.")] = None,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> int:
    """Ask the running process whether it is ready, on its ops listener; the exit status is 0 or 1.

    For containers, timers and scripts: it needs no curl, and answers within 4 s.
    """
    ops = sources.load().settings.ops
    host, wanted = _EVERYWHERE.get(ops.host, ops.host), ops.port if port is None else port
    if not wanted:
        raise CommandFailed("ops.port is 0, a free port that only the process knows: name it by --port", Exit.USAGE)
    found = _ask(host, wanted, "/health" if live else "/ready")
    if show.json:
        output.document(found)
    else:
        output.record({"url": found.url, "status": found.status, **found.answer}, json=False)
    return Exit.DONE if found.status == 200 else Exit.FAILED


def _ask(host: str, port: int, path: str) -> ProcessHealth:
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        answer = wire.decode(response.read(_MOST_BYTES), dict[str, object])
    except (OSError, http.client.HTTPException) as error:
        raise CommandFailed(f"{url} does not answer: {getattr(error, 'strerror', None) or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{url} answers something else than Engram does: {error}") from None
    finally:
        connection.close()
    return ProcessHealth(url, response.status, answer)
