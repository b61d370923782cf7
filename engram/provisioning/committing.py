"""Commits where nodes serve that do not have their hotkey (`address:port`, the registry), signed here by that hotkey.

A commitment carries names of hosts, which an axon cannot: nodes behind a provider's web server are found by it. What
the chain holds is read before anything is sent, so that nothing is sent again that has arrived; a commit that may still
arrive is noted on disk before it is sent, and waited for, also by the next life of the gateway.
"""

from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from actors import Context
from engram.chain.errors import (
    ChainError,
    CommittedInEpoch,
    NeverIncluded,
    OutcomeUnknown,
    RefusedInBlock,
    SubmitRefused,
)
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.runtime import ERA_BLOCKS
from engram.chain.read.view import View, open_view
from engram.chain.registry import publish
from engram.chain.registry.announcer import LOOK_S
from engram.chain.registry.commitment_fields import octets_of, read_fields
from engram.chain.registry.registrations import InvalidRegistration, Registration, registration
from engram.chain.submit.sender import Sender
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.hotkeys import PublicKey
from engram.ledger import Ledger, LedgerError
from engram.provisioning import session_keys
from engram.provisioning.commitment_notes import CommitmentNotes, InFlight
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.provisioning.model import NodeKey
from engram.telemetry.metrics import Metrics

LOOKED_AGAIN_S: Final = 3_600.0
"""A commitment that was seen on the chain is read again after this: another tool may have replaced it."""
PAUSE_FIRST_S: Final = 60.0
PAUSE_MOST_S: Final = 3_600.0
AT_ONCE: Final = 8
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Outcome = Literal["included", "refused", "unknown", "unsent", "never", "waiting"]

_log = structlog.get_logger("engram.provisioning")


class CommittingNodesPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What committing the addresses of nodes needs."""

    ledger: Ledger
    ring: HotkeyRing
    subnets: Subnets
    netuid: int
    nodes: tuple[ChainEndpoint, ...]
    sender: Sender
    notes: CommitmentNotes
    allows_private: bool
    """Whether addresses may be committed that cannot be reached from the internet."""
    clock: Clock
    metrics: Metrics


class Wanted(msgspec.Struct, frozen=True):
    """What is to be committed, and by which key."""

    text: str
    key: NodeKey


class _Standing(msgspec.Struct, frozen=True):
    text: str
    not_before_s: float
    failures: int = 0


async def commit_for_ever(ports: CommittingNodesPorts, context: Context, look_s: float = LOOK_S) -> None:
    """Commit what is due every `look_s`; a job, endless."""
    context.ready()
    standings: dict[str, _Standing] = {}
    while True:
        try:
            await _look(ports, standings)
        except (ChainError, LedgerError) as error:
            _log.warning("nodes_not_committed", reason=str(error))
        await trio.sleep(look_s)


def registration_of(endpoint: str, *, allows_private: bool) -> Registration:
    """Return what is committed for an endpoint. Raises InvalidRegistration.

    >>> registration_of("https://node.provider.example", allows_private=True).text
    'node.provider.example:443'
    """
    parts = urlsplit(endpoint)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return registration(parts.hostname or "", str(port), allow_private=allows_private)


async def _look(ports: CommittingNodesPorts, standings: dict[str, _Standing]) -> None:
    """Commit for every active node whose hotkey is registered and has not committed its address. Raises ChainError."""
    metagraph = ports.subnets.get(ports.netuid)
    if metagraph is None or not ports.ledger.holds:
        return
    now = ports.clock.monotonic()
    wanted = await _wanted(ports)
    for token in [token for token in standings if token not in wanted or standings[token].text != wanted[token].text]:
        del standings[token]
    due = {
        token: want
        for token, want in wanted.items()
        if metagraph.neuron(want.key.public_key) is not None
        and (token not in standings or standings[token].not_before_s <= now)
    }
    if not due:
        return
    view = await open_view(ports.nodes)
    room = trio.CapacityLimiter(AT_ONCE)

    async def attend(token: str, want: Wanted) -> None:
        async with room:
            standings[token] = await _commit(ports, view, want, standings.get(token, _Standing(want.text, 0.0)))

    async with trio.open_nursery() as nursery:
        for token, want in due.items():
            nursery.start_soon(attend, token, want)


async def _wanted(ports: CommittingNodesPorts) -> dict[str, Wanted]:
    found: dict[str, Wanted] = {}
    for session, key in await ports.ledger.read(session_keys.certified_with_keys):
        try:
            place = registration_of(session.endpoint, allows_private=ports.allows_private)
        except InvalidRegistration as error:
            _log.debug("node_not_committed", node=session.token, reason=str(error))
        else:
            found[session.token] = Wanted(place.text, key)
    return found


async def _commit(ports: CommittingNodesPorts, view: View, want: Wanted, before: _Standing) -> _Standing:
    """Commit unless the chain holds it, or may soon; return how it stands afterwards."""
    outcome: Outcome = "included"
    pause_s, failures, reason = LOOKED_AGAIN_S, 0, ""
    hotkey = want.key.public_key
    try:
        held = await read_fields(view, ports.netuid, hotkey)
        if held is not None and held.fields and octets_of(held.fields[0]) == want.text.encode():
            await _forget(ports, hotkey)
            return _Standing(want.text, ports.clock.monotonic() + LOOKED_AGAIN_S)
        noted = await ports.notes.load(hotkey)
        if noted is not None and view.head.number < noted.until_block:
            return _Standing(want.text, ports.clock.monotonic() + PAUSE_FIRST_S, before.failures)
        keypair = await ports.ring.keypair(want.key)
        await ports.notes.keep(hotkey, InFlight(want.text, view.head.number + ERA_BLOCKS))
        done = await publish.commit(ports.sender, view, ports.netuid, want.text, keypair)
        _log.info("node_committed", text=want.text, block=done.block.number)
        await _forget(ports, hotkey)
    except CommittedInEpoch as error:
        outcome, pause_s, reason = "waiting", PAUSE_FIRST_S, str(error)
        await _forget(ports, hotkey)
    except (ChainError, NodeKeyError, OSError) as error:
        outcome, failures, reason = _outcome_of(error), before.failures + 1, str(error)
        pause_s = min(PAUSE_MOST_S, PAUSE_FIRST_S * 2.0 ** min(before.failures, 10))
        if outcome in ("refused", "never"):
            await _forget(ports, hotkey)
    ports.metrics.node_commitments.labels(outcome).inc()
    if outcome != "included":
        _log.warning("node_not_committed", text=want.text, outcome=outcome, reason=reason)
    return _Standing(want.text, ports.clock.monotonic() + pause_s, failures)


async def _forget(ports: CommittingNodesPorts, hotkey: PublicKey) -> None:
    """Drop the note; one that stays only delays the next commit by an era."""
    try:
        await ports.notes.keep(hotkey, None)
    except OSError as error:
        _log.warning("commitment_note_not_dropped", reason=error.strerror)


def _outcome_of(error: ChainError | NodeKeyError | OSError) -> Outcome:
    match error:
        case RefusedInBlock() | SubmitRefused():
            return "refused"
        case NeverIncluded():
            return "never"
        case OutcomeUnknown():
            return "unknown"
        case _:
            return "unsent"
