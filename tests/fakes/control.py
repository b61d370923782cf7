"""A process that answers operators' commands with prepared answers; the wire is the real one."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from engram.control.commands import AnyCommand, decoder
from engram.control.errors import CommandRefused
from engram.control.protocol import SOCKET_FILE, encode_refusal, encode_success


class HangUp(Exception):
    """Raised by an answer: the process goes away instead."""


Answer = Callable[[AnyCommand], object]


@contextlib.contextmanager
def control_server(data_dir: Path, answer: Answer) -> Iterator[list[AnyCommand]]:
    """Serve `data_dir` until the block ends; yields the commands that came.

    `answer` returns, or raises Refused or HangUp.
    """
    came: list[AnyCommand] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(data_dir / SOCKET_FILE))
        listener.listen()
        serving = threading.Thread(target=_serve, args=(listener, answer, came), daemon=True)
        serving.start()
        try:
            yield came
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join(5)


def _serve(listener: socket.socket, answer: Answer, came: list[AnyCommand]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            command = decoder.decode(lines.readline())
            came.append(command)
            try:
                connection.sendall(encode_success(answer(command)))
            except HangUp:
                continue
            except CommandRefused as refused:
                connection.sendall(encode_refusal(refused.code, refused.message))
