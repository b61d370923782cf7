"""announcer: keeps a node's address on the chain up to date (serve_axon); announce_rules.py decides when.

It reads the subnets that the syncer keeps in memory, and the chain itself only when an announcement is due, before
sending one. At most one announcement is in flight.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

import msgspec
import structlog
import trio

from actors import Actor, Context, MailboxPolicy, Timer
from engram.chain.errors import (
    ChainError,
    EndpointBusy,
    EndpointUnreachable,
    NeverIncluded,
    OutcomeUnknown,
    RefusedInBlock,
    SubmitRefused,
)
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.view import View, open_view
from engram.chain.registry.announce_rules import (
    AnnouncementState,
    AnnounceVerdict,
    Attempt,
    about_to_send,
    arrived,
    hotkey_on_chain,
    included,
    never,
    postponed,
    refused,
    signed,
    unknown,
    unsent,
)
from engram.chain.registry.announce_view import Announcements
from engram.chain.registry.protocol import Look
from engram.chain.submit import calls
from engram.chain.submit.submit_extrinsic import InclusionWait, submit
from engram.hotkeys import Keypair

log = structlog.get_logger(__name__)

INTERFACE_VERSION: Final = 1
"""Version of the node's HTTP interface, as `engram subnet serve` announces it."""
LOOK_S: Final = 12.0
"""A block's time."""
FIRST_LOOK_S: Final = 1.0
"""Interval until the subnet was read once."""
OUTCOMES: Final = ("included", "refused", "unknown", "unsent", "never")


class AnnouncementJournal(Protocol):
    """Persists the announcement that may be in flight."""

    async def load(self) -> Attempt | None:
        """Return the attempt kept last; None when there is none, or it cannot be read."""
        ...

    async def keep(self, attempt: Attempt | None) -> None:
        """Store the attempt, or that there is none, durably before returning. Raises OSError."""
        ...


@final
class Announcer(Actor[Look]):
    """Looks every `look_s` and announces what is due. `on_outcome` receives each outcome, a word of OUTCOMES."""

    mailbox = MailboxPolicy(bound=4, when_full="drop_newest")

    def __init__(
        self,
        announcements: Announcements,
        nodes: Sequence[ChainEndpoint],
        keypair: Keypair,
        journal: AnnouncementJournal,
        *,
        look_s: float = LOOK_S,
        waiting: InclusionWait = InclusionWait(),  # noqa: B008 - frozen
        on_outcome: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._known = announcements
        self._nodes = tuple(nodes)
        self._keypair = keypair
        self._journal = journal
        self._look_s = look_s
        self._waiting = waiting
        self._on_outcome = on_outcome
        self._last: AnnounceVerdict | None = None
        self._working = trio.CancelScope()

    async def on_start(self, context: Context) -> None:
        self._context = context
        if self._known.state.attempt is None:
            noted = await self._journal.load()
            self._known.state = msgspec.structs.replace(self._known.state, attempt=noted)
        self._timer: Timer = context.after(0.0, Look())
        context.start_soon(self._end_at_stop, context.stop_requested)

    async def handle(self, message: Look) -> None:
        self._timer.cancel()
        with trio.CancelScope() as self._working:
            await self._look()
        wait_s = FIRST_LOOK_S if self._last is AnnounceVerdict.UNREAD else self._look_s
        self._timer = self._context.after(wait_s, Look())

    async def _end_at_stop(self, stop_requested: trio.Event) -> None:
        """Cancel the work at hand at shutdown; what is in flight is in the journal."""
        await stop_requested.wait()
        self._working.cancel()

    async def _look(self) -> None:
        known = self._known
        seen = known.seen()
        decision = known.decision(seen)
        if decision.verdict is not self._last:
            self._last = decision.verdict
            log.info(
                "announcement_verdict",
                place=known.wanted.text,
                verdict=decision.verdict.value,
                until_block=decision.until_block,
            )
        if decision.verdict is AnnounceVerdict.DUE:
            await self._announce()
        elif decision.verdict is AnnounceVerdict.ANNOUNCED and seen is not None and seen.axon is not None:
            settled = arrived(known.state, seen.axon)
            if settled != known.state:
                known.state = settled
                await self._forget()

    async def _announce(self) -> None:
        """Read the newest block, and send an announcement if it is due there as well."""
        known = self._known
        try:
            view = await open_view(self._nodes)
            seen = hotkey_on_chain(await view.metagraph(known.netuid, known.now_s), known.hotkey)
        except ChainError as error:
            self._settle("unsent", postponed(known.state, str(error), known.now_s, _retry_after_s(error)))
            return
        decision = known.decision(seen)
        if decision.verdict is not AnnounceVerdict.DUE:
            why = f"block {seen.block}, newer than what was synced, says: {decision.verdict.value}"
            known.state = postponed(known.state, why, known.now_s, None)
            return
        known.state = about_to_send(known.state, known.wanted, view.head.number)
        try:
            await self._journal.keep(known.state.attempt)
        except OSError as error:
            why = f"the journal cannot be written: {error.strerror}"
            self._settle("unsent", unsent(known.state, why, known.now_s, None))
            return
        self._settle(*await self._send(view))
        if known.state.attempt is None or known.state.attempt.included_at_block is not None:
            await self._forget()

    async def _send(self, view: View) -> tuple[str, AnnouncementState]:
        """Send an announcement; return its outcome and the state that follows."""
        known, on_its_way = self._known, False

        def sending(digest: bytes, last_block: int) -> None:
            nonlocal on_its_way
            on_its_way = True
            known.state = signed(known.state, digest, last_block)
            log.info("announcement_sent", extrinsic="0x" + digest.hex(), until_block=last_block)

        call = calls.serve_axon(known.netuid, known.wanted.ip, known.wanted.port, INTERFACE_VERSION)
        try:
            done = await submit(view, self._nodes, call, self._keypair, self._waiting, None, sending)
        except RefusedInBlock as error:
            return "refused", refused(known.state, str(error), known.now_s)
        except SubmitRefused as error:
            return "refused", refused(known.state, f"{error.reason}: {error}", known.now_s)
        except NeverIncluded as error:
            return "never", never(known.state, str(error))
        except OutcomeUnknown as error:
            return "unknown", unknown(known.state, str(error))
        except ChainError as error:
            if on_its_way and _may_have_arrived(error):
                return "unknown", unknown(known.state, str(error))
            return "unsent", unsent(known.state, str(error), known.now_s, _retry_after_s(error))
        return "included", included(known.state, done.block.number)

    def _settle(self, outcome: str, state: AnnouncementState) -> None:
        self._known.state = state
        self._on_outcome(outcome)
        if outcome == "included":
            log.info("announcement_included", block=state.attempt and state.attempt.included_at_block)
        else:
            log.warning("announcement_failed", outcome=outcome, reason=state.why, failures=state.failures)

    async def _forget(self) -> None:
        """Clear the journal once the outcome is settled; an old entry only delays the next announcement by an era."""
        try:
            await self._journal.keep(None)
        except OSError as error:
            log.warning("announcement_journal_not_cleared", reason=error.strerror)


def _may_have_arrived(error: ChainError) -> bool:
    return not isinstance(error, EndpointBusy | EndpointUnreachable) or error.may_have_arrived


def _retry_after_s(error: ChainError) -> float | None:
    return error.retry_after_s if isinstance(error, EndpointBusy) else None
