"""The operator's side of the control socket: blocking, for command lines, every call with a deadline."""

import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, final

from engram.control.errors import NotRunning, OutcomeUnknown, ProtocolError
from engram.control.protocol import (
    MAX_ANSWER_BYTES,
    SOCKET_FILE,
    Command,
    decode_answer,
    encode_command,
    reply_type,
)

R = TypeVar("R")

_MAX_ADDRESS_BYTES: Final = 100
"""A unix socket's address has room for 107 bytes."""


@final
class ControlClient:
    """Speaks to the process that serves `data_dir`. Holds no connection between calls."""

    def __init__(self, data_dir: str | Path, *, timeout_s: float = 30.0) -> None:
        self._path = Path(data_dir) / SOCKET_FILE
        self._timeout_s = timeout_s

    def call(self, command: Command[R], *, timeout_s: float | None = None) -> R:
        """Carry out `command` and return its answer.

        Raises NotRunning (nothing was sent), Refused, OutcomeUnknown (sent, but no answer within the deadline), or
        ProtocolError.
        """
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        request = encode_command(command)
        with self._connected(deadline) as connection:
            line = _exchange(connection, request, deadline)
        return decode_answer(line, reply_type(type(command)))

    @contextmanager
    def _connected(self, deadline: float) -> Generator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(_left(deadline))
                with socket_address(self._path) as address:
                    connection.connect(address)
            except NotADirectoryError:
                raise NotRunning(f"{self._path.parent} is a file, not the data folder of a process") from None
            except (FileNotFoundError, ConnectionRefusedError):
                raise NotRunning(f"no engram process serves {self._path.parent}; start it first") from None
            except OSError as error:
                raise NotRunning(
                    f"the control socket {self._path} cannot be reached: {error.strerror or error}"
                ) from None
            yield connection


@contextmanager
def socket_address(path: Path) -> Generator[str]:
    """Return an address for `path` that fits into a unix socket's 107 bytes, good inside the `with` block.

    Raises FileNotFoundError when the folder is missing.
    """
    if len(os.fsencode(path)) <= _MAX_ADDRESS_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _exchange(connection: socket.socket, request: bytes, deadline: float) -> bytes:
    answer = bytearray()
    try:
        connection.settimeout(_left(deadline))
        connection.sendall(request)
        while not answer.endswith(b"\n"):
            connection.settimeout(_left(deadline))
            part = connection.recv(65_536)
            if not part:
                raise OutcomeUnknown("the process went away before it answered; see what it did before trying again")
            answer += part
            if len(answer) > MAX_ANSWER_BYTES:
                raise ProtocolError(f"the answer has more than {MAX_ANSWER_BYTES} bytes; ask for less")
    except TimeoutError:
        raise OutcomeUnknown("no answer in time; the command may still be carried out") from None
    except OSError as error:
        raise OutcomeUnknown(f"the connection broke before the answer: {error.strerror or error}") from None
    return bytes(answer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
