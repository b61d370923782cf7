"""The yardstick of the poller: a bare trio loop that makes the same requests at the same rate."""

import json
import socket
import statistics
import time
from collections.abc import Callable

import trio

REQUEST = b"GET /stats HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n\r\n"
TICK_S = 0.05
"""Polls that fall due within a tick start together."""


async def poll(address: tuple[str, int], seen: dict[str, object]) -> None:
    """Ask one node over a connection of its own, and keep what it says."""
    with socket.socket() as connected:
        connected.setblocking(False)
        connected.connect_ex(address)
        await trio.lowlevel.wait_writable(connected)
        connected.send(REQUEST)
        received = bytearray()
        while True:
            await trio.lowlevel.wait_readable(connected)
            part = connected.recv(65_536)
            if not part:
                break
            received += part
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    seen[address[0]] = json.loads(body)


async def measure(
    address_of: Callable[[int], tuple[str, int]], nodes: int, every_s: float, seconds: float
) -> dict[str, float]:
    """Poll each of the nodes every `every_s` seconds, spread evenly, for `seconds`."""
    seen: dict[str, object] = {}
    lags: list[float] = []
    polls = 0
    cpu, began = time.process_time(), time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def watch_lag() -> None:
            while True:
                due = time.perf_counter() + 0.02
                await trio.sleep(0.02)
                lags.append((time.perf_counter() - due) * 1e3)

        nursery.start_soon(watch_lag)
        start = trio.current_time()
        while trio.current_time() < start + seconds:
            while start + polls * every_s / nodes <= trio.current_time():
                nursery.start_soon(poll, address_of(polls % nodes), seen)
                polls += 1
            await trio.sleep(TICK_S)
        nursery.cancel_scope.cancel()
    passed = time.perf_counter() - began
    return {
        "cpu_ms_per_poll": (time.process_time() - cpu) * 1e3 / polls,
        "loop_lag_p99_ms": statistics.quantiles(lags, n=100)[98],
        "loop_lag_max_ms": max(lags),
        "polls_per_s": polls / passed,
    }
