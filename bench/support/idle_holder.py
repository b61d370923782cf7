"""Keeps connections from many addresses: `python -m bench.support.idle_holder PORT ADDRESSES EACH [HOW]`.

`idle` ones send nothing, and a new one is opened soon for each that is closed. `ended` ones send what is refused and
then nothing, `slow` ones ask for `/long` and read nothing of it; as their ends do not see whether the server has closed
them, a new one is opened for each after a second. `holding` is printed when all have been begun.
"""

import contextlib
import selectors
import socket
import sys
import time
from collections import deque
from typing import Final

SAID: Final = {"idle": b"", "ended": b"BAD\r\n\r\n", "slow": b"GET /long HTTP/1.1\r\nHost: t\r\n\r\n"}
_HELD_S: Final = 1.0


def main(port: int, addresses: int, each: int, how: str = "idle") -> None:
    selector = selectors.DefaultSelector()
    held = deque[tuple[float, socket.socket, str]]()

    def hold(address: str) -> None:
        sock = socket.socket()
        sock.bind((address, 0))
        if how == "idle":
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            selector.register(sock, selectors.EVENT_READ, address)
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.settimeout(5)
        with contextlib.suppress(OSError):
            sock.connect(("127.0.0.1", port))
            sock.sendall(SAID[how])
        held.append((time.monotonic() + _HELD_S, sock, address))

    for index in range(addresses):
        for _ in range(each):
            hold(f"127.0.{1 + index // 200}.{1 + index % 200}")
    print("holding", flush=True)
    while True:
        while held and held[0][0] < time.monotonic():
            _, sock, address = held.popleft()
            sock.close()
            hold(address)
        for key, _ in selector.select(0.05 if held else None):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                if connection.recv(1_024):
                    continue
            except OSError:
                pass
            selector.unregister(connection)
            connection.close()
            hold(key.data)
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
