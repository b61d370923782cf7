"""announcer: keeps on the chain where a node serves (serve_axon). When it does so is decided in announcement.py.

It reads what the syncer keeps in memory; the chain itself is asked only when an announcement is due, and then before
anything is sent. At most one announcement is ever in flight.
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
from engram.chain.read.node import Node
from engram.chain.read.view import View, open_view
from engram.chain.registry.announce_rules import (
    Attempt,
    Standing,
    Verdict,
    about_to_send,
    arrived,
    included,
    never,
    postponed,
    refused,
    seen_in,
    signed,
    unknown,
    unsent,
)
from engram.chain.registry.announce_view import Announcements
from engram.chain.registry.protocol import Look
from engram.chain.submit import calls
from engram.chain.submit.submit_extrinsic import Waiting, submit
from engram.hotkeys import Keypair

log = structlog.get_logger(__name__)

INTERFACE_VERSION: Final = 1
"""Of the node's HTTP interface; what `engram subnet serve` announces too."""
LOOK_S: Final = 12.0
"""A block's time."""
FIRST_LOOK_S: Final = 1.0
"""Until the subnet was first read."""
OUTCOMES: Final = ("included", "refused", "unknown", "unsent", "never")


class Journal(Protocol):
    """What outlives the process: the announcement that may be in flight."""

    async def load(self) -> Attempt | None:
        """The one noted last; None when there is none, or none that can be read."""
        ...

    async def keep(self, attempt: Attempt | None) -> None:
        """Note it, or that there is none, durably before returning. Raises OSError."""
        ...


@final
class Announcer(Actor[Look]):
    """Looks every `look_s` and announces what is due. `told` learns each outcome, a word of OUTCOMES."""

    mailbox = MailboxPolicy(bound=4, when_full="drop_newest")

    def __init__(
        self,
        announcements: Announcements,
        nodes: Sequence[Node],
        keypair: Keypair,
        journal: Journal,
        *,
        look_s: float = LOOK_S,
        waiting: Waiting = Waiting(),  # noqa: B008 - frozen
        told: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._known = announcements
        self._nodes = tuple(nodes)
        self._keypair = keypair
        self._journal = journal
        self._look_s = look_s
        self._waiting = waiting
        self._told = told
        self._last: Verdict | None = None
        self._working = trio.CancelScope()

    async def on_start(self, context: Context) -> None:
        self._context = context
        if self._known.standing.attempt is None:
            noted = await self._journal.load()
            self._known.standing = msgspec.structs.replace(self._known.standing, attempt=noted)
        self._timer: Timer = context.after(0.0, Look())
        context.start_soon(self._end_at_stop, context.stop_requested)

    async def handle(self, message: Look) -> None:
        self._timer.cancel()
        with trio.CancelScope() as self._working:
            await self._look()
        wait_s = FIRST_LOOK_S if self._last is Verdict.UNREAD else self._look_s
        self._timer = self._context.after(wait_s, Look())

    async def _end_at_stop(self, stop_requested: trio.Event) -> None:
        """Nobody's shutdown waits for a block; what is in flight is noted."""
        await stop_requested.wait()
        self._working.cancel()

    async def _look(self) -> None:
        known = self._known
        seen = known.seen()
        decision = known.decision(seen)
        if decision.verdict is not self._last:
            self._last = decision.verdict
            log.info(
                "announcement",
                place=known.wanted.text,
                verdict=decision.verdict.value,
                until_block=decision.until_block,
            )
        if decision.verdict is Verdict.DUE:
            await self._announce()
        elif decision.verdict is Verdict.ANNOUNCED and seen is not None and seen.axon is not None:
            settled = arrived(known.standing, seen.axon)
            if settled != known.standing:
                known.standing = settled
                await self._forget()

    async def _announce(self) -> None:
        """Reads the newest block, and sends one if it is due there as well."""
        known = self._known
        try:
            view = await open_view(self._nodes)
            seen = seen_in(await view.metagraph(known.netuid, known.now_s), known.hotkey)
        except ChainError as error:
            self._settle("unsent", postponed(known.standing, str(error), known.now_s, _retry_after_s(error)))
            return
        decision = known.decision(seen)
        if decision.verdict is not Verdict.DUE:
            why = f"block {seen.block}, newer than what was synced, says: {decision.verdict.value}"
            known.standing = postponed(known.standing, why, known.now_s, None)
            return
        known.standing = about_to_send(known.standing, known.wanted, view.head.number)
        try:
            await self._journal.keep(known.standing.attempt)
        except OSError as error:
            why = f"it cannot be noted that one is sent: {error.strerror}"
            self._settle("unsent", unsent(known.standing, why, known.now_s, None))
            return
        self._settle(*await self._send(view))
        if known.standing.attempt is None or known.standing.attempt.included_at_block is not None:
            await self._forget()

    async def _send(self, view: View) -> tuple[str, Standing]:
        """Sends one, and returns its outcome and what is known from then on."""
        known, on_its_way = self._known, False

        def sending(digest: bytes, last_block: int) -> None:
            nonlocal on_its_way
            on_its_way = True
            known.standing = signed(known.standing, digest, last_block)
            log.info("announcement_sent", extrinsic="0x" + digest.hex(), until_block=last_block)

        call = calls.serve_axon(known.netuid, known.wanted.ip, known.wanted.port, INTERFACE_VERSION)
        try:
            done = await submit(view, self._nodes, call, self._keypair, self._waiting, None, sending)
        except RefusedInBlock as error:
            return "refused", refused(known.standing, str(error), known.now_s)
        except SubmitRefused as error:
            return "refused", refused(known.standing, f"{error.reason}: {error}", known.now_s)
        except NeverIncluded as error:
            return "never", never(known.standing, str(error))
        except OutcomeUnknown as error:
            return "unknown", unknown(known.standing, str(error))
        except ChainError as error:
            if on_its_way and _may_have_arrived(error):
                return "unknown", unknown(known.standing, str(error))
            return "unsent", unsent(known.standing, str(error), known.now_s, _retry_after_s(error))
        return "included", included(known.standing, done.block.number)

    def _settle(self, outcome: str, standing: Standing) -> None:
        self._known.standing = standing
        self._told(outcome)
        if outcome == "included":
            log.info("announcement_included", block=standing.attempt and standing.attempt.included_at_block)
        else:
            log.warning("announcement_failed", outcome=outcome, reason=standing.why, failures=standing.failures)

    async def _forget(self) -> None:
        """What is settled needs no note; an old one does no more than hold up the next by an era."""
        try:
            await self._journal.keep(None)
        except OSError as error:
            log.warning("announcement_note_stays", reason=error.strerror)


def _may_have_arrived(error: ChainError) -> bool:
    return not isinstance(error, EndpointBusy | EndpointUnreachable) or error.may_have_arrived


def _retry_after_s(error: ChainError) -> float | None:
    return error.retry_after_s if isinstance(error, EndpointBusy) else None
