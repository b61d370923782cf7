"""The yardstick of reading the chain: the same requests over a bare socket, by a bare trio loop or none, and the values
of the answer read from JSON, with Python's own json."""

import json
import statistics
import time
import urllib.request

import trio

Exchanges = list[bytes]
"""The bodies of requests, in the order in which they were made."""


def requests_since(url: str) -> Exchanges:
    """What the node was asked since this was called last."""
    with urllib.request.urlopen(f"{url}/seen", timeout=10) as answer:
        return [body.encode() for body in json.load(answer)]


def decode_ms(document: bytes, times: int) -> float:
    """Median CPU milliseconds of reading the values from JSON."""
    took: list[float] = []
    for _ in range(times):
        started = time.process_time()
        json.loads(document)
        took.append(time.process_time() - started)
    return statistics.median(took) * 1_000


async def cpu_ms(url: str, exchanges: Exchanges, document: bytes, times: int) -> float:
    """Mean CPU milliseconds of making these requests and reading their answers, and the values of `document`."""
    host, port = _address(url)
    stream = await trio.open_tcp_stream(host, port)
    started = time.process_time()
    for _ in range(times):
        await _round(stream, exchanges, document)
    spent = time.process_time() - started
    await stream.aclose()
    return spent / times * 1_000


async def lags_ms(url: str, exchanges: Exchanges, document: bytes, seconds: float) -> list[float]:
    """How late a bare loop wakes a task that sleeps 5 ms at a time, with one such reading each second."""
    host, port = _address(url)
    stream = await trio.open_tcp_stream(host, port)
    lags: list[float] = []

    async def watch() -> None:
        while True:
            due = trio.current_time() + 0.005
            await trio.sleep_until(due)
            lags.append((trio.current_time() - due) * 1_000)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            while True:
                await _round(stream, exchanges, document)
                await trio.sleep(1.0)
    await trio.aclose_forcefully(stream)
    return lags


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition("/")[2].partition(":")
    return host, int(port)


async def _round(stream: trio.SocketStream, exchanges: Exchanges, document: bytes) -> None:
    for body in exchanges:
        head = b"POST / HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        await stream.send_all(head % len(body) + body)
        received = bytearray()
        while not _is_whole(received):
            received += await stream.receive_some(262_144)
        replies = json.loads(received.partition(b"\r\n\r\n")[2])
        for reply in replies if isinstance(replies, list) else [replies]:
            if isinstance(reply["result"], str) and reply["result"].startswith("0x"):
                bytes.fromhex(reply["result"][2:])
    json.loads(document)


def _is_whole(received: bytearray) -> bool:
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = int(bytes(received[:end]).lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return len(received) - end - 4 >= length
