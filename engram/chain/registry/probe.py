"""Checks that registered miners are reachable: `GET https://address:port/check/HOTKEY` must answer 200.

Strangers choose the addresses. Therefore names are resolved here and the connection goes to the address that was
checked; private addresses are refused unless allowed; redirects are not followed; only the status is used; every
size, time and number of connections is bounded.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import msgspec
import trio

from config.addresses import is_public_host
from engram.chain.registry.registrations import Registration, RegistryEntry
from engram.hotkeys import PublicKey, ss58
from engram.http.client import HttpClient
from engram.http.errors import HttpError

AT_ONCE: Final = 32
ANSWER_BYTES: Final = 65_536
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Literal addresses of a host name and port. Raises OSError."""


class Probing(msgspec.Struct, frozen=True):
    """How miners are probed."""

    timeout_s: float = 3.0
    """For one miner, resolving included."""
    at_once: int = AT_ONCE
    allow_private: bool = False
    scheme: Literal["https", "http"] = "https"


class ProbeResult(msgspec.Struct, frozen=True):
    """The result of probing one miner."""

    valid: bool
    reason: str
    """Why not; empty when it is valid."""


async def resolve(host: str, port: int) -> list[str]:
    """Resolve by the system's resolver."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


async def probe_all(
    http: HttpClient,
    entries: Sequence[RegistryEntry],
    probing: Probing = Probing(),  # noqa: B008 - frozen
    resolving: Resolve = resolve,
) -> dict[PublicKey, ProbeResult]:
    """Probe every registered endpoint, at most `at_once` at a time. A miner that fails is a result, not an error."""
    answers: dict[PublicKey, ProbeResult] = {}
    limit = trio.CapacityLimiter(probing.at_once)

    async def one(hotkey: PublicKey, registration: Registration) -> None:
        async with limit:
            answers[hotkey] = await probe_one(http, registration, hotkey, probing, resolving)

    async with trio.open_nursery() as nursery:
        for entry in entries:
            if entry.registration is not None:
                nursery.start_soon(one, entry.hotkey, entry.registration)
    return answers


async def probe_one(
    http: HttpClient,
    registration: Registration,
    hotkey: PublicKey,
    probing: Probing = Probing(),  # noqa: B008 - frozen
    resolving: Resolve = resolve,
) -> ProbeResult:
    """Probe one miner."""
    url = f"{probing.scheme}://{registration.text}/check/{ss58.encode(hotkey)}"
    with trio.move_on_after(probing.timeout_s):
        try:
            addresses = [registration.address]
            if not probing.allow_private and not is_public_host(registration.address):
                return ProbeResult(False, f"not asked: {registration.address} is not a public address")
            if registration.ip is None:
                addresses = await resolving(registration.address, registration.port)
            address = _acceptable(addresses, probing.allow_private)
            if address is None:
                return ProbeResult(False, f"not asked: {registration.address} is not a public address")
            response = await http.request(
                "GET",
                url,
                connect_s=probing.timeout_s,
                read_s=probing.timeout_s,
                total_s=probing.timeout_s,
                max_bytes=ANSWER_BYTES,
                address=address,
            )
        except (HttpError, OSError, UnicodeError) as error:
            return ProbeResult(False, str(error).removesuffix(": "))
        return ProbeResult(response.status == 200, "" if response.status == 200 else f"HTTP {response.status}")
    return ProbeResult(False, f"no answer within {probing.timeout_s:g} s")


def _acceptable(addresses: Sequence[str], allow_private: bool) -> str | None:
    """Return the first address; None when there is none, or when any is private and private ones are not allowed."""
    if not addresses:
        return None
    public = all(is_public_host(address) for address in addresses)
    return addresses[0] if public or allow_private else None
