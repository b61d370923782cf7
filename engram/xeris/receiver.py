"""Takes one submission: checks, keeps and acknowledges it, in one transaction."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from engram.api.xeris import Acknowledged
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey
from engram.http.limits import Limiter
from engram.ledger import Ledger, LedgerError
from engram.relay.rules import ANCHORED_KINDS, acknowledged_text
from engram.relay.schemas import TAKEN
from engram.xeris import anchoring, judging, records, submissions
from engram.xeris.anchoring import ReadsRoot
from engram.xeris.intelligence import Arrivals
from engram.xeris.judging import Anchor, Known, Refused, Submission
from engram.xeris.permits import ReadsPermits
from engram.xeris.prices import UsePaid
from engram.xeris.submissions import Claims, claims_of

_log = structlog.get_logger("engram.xeris")

LARGE_BYTES: Final = 16_384
"""A larger payload is checked in a thread: 64 miners, or eight nodes with the roots that they signed."""


class Taken(msgspec.Struct, frozen=True):
    """What became of a submission that was accepted, now or before."""

    acknowledgement: bytes
    repeated: bool


@final
class _PermitReading:
    """The permits of a block while they are read, for one key."""

    def __init__(self, block: tuple[int, int]) -> None:
        self.block = block
        """Subnet and number."""
        self.ended = trio.Event()
        self.holders: frozenset[PublicKey] | None = None
        """None until they are known."""


@final
class XerisReceiver:
    """The receiver: its key, its ledger and its terms."""

    def __init__(
        self,
        ledger: Ledger,
        keypair: Keypair,
        clock: Clock,
        *,
        gateways: frozenset[PublicKey],
        netuids: Collection[int],
        quorum: int,
        keep_s: float,
        taken: Mapping[str, Collection[str]] = TAKEN,
        read_root: ReadsRoot | None = None,
        read_permits: ReadsPermits | None = None,
        read_permits_for_others: ReadsPermits | None = None,
        limiter: Limiter | None = None,
        judged: Callable[[str], None] = lambda code: None,
        use_paid: UsePaid | None = None,
        is_registered: Callable[[int, PublicKey], bool] = lambda netuid, key: True,
        finalized: Callable[[int], int | None] = lambda netuid: None,
        read_head: Callable[[], Awaitable[int]] | None = None,
        epoch_at: Callable[[int, int], int | None] | None = None,
    ) -> None:
        """Take how roots are read on the chain (None: anchors wait), how permits of a block that was missed are
        (None: its payloads wait), and `judged`, which is called with `accepted`, `repeated`, or the code of a refusal.
        `read_permits_for_others` reads them for keys that held none at the nearest blocks that are known, so that these
        leave those that did what room there is; None: the same one.

        `limiter` bounds how many new payloads a key may submit; only the ledger's writer uses it. Each accepted payload
        uses one of its signer's submissions by `use_paid`; without it they cost nothing. `is_registered` says of
        (netuid, key) whether the key can commit roots there, as far as is known. `finalized` is the newest finalized
        block of a subnet that was read lately (None: the chain is not read), `read_head` reads the chain's own where a
        payload is of a later one. `epoch_at` says of (netuid, block) which epoch an anchor's commitment was in (None
        while the subnet was not read); without it that is what the anchor says.
        """
        self._epoch_at = epoch_at
        self._read_root = read_root
        self._read_permits = read_permits
        self._read_permits_for_others = read_permits_for_others
        self._limiter = limiter
        self._ledger = ledger
        self._keypair = keypair
        self._clock = clock
        self._gateways = gateways
        self._finalized = finalized
        self._read_head = read_head
        self._netuids = tuple(netuids)
        self.netuid = next(iter(netuids), 0)
        """Of the subnets that are served the first one, which is meant where none is named."""
        self.quorum = quorum
        """Distinct validators that must have signed scores."""
        self._keep_s = keep_s
        self.taken = taken
        """The versions of each kind that are taken."""
        self._judged = judged
        self._at_work = set[tuple[PublicKey, str]]()
        """Signer and signed_hash of what waits for the chain."""
        self._permit_readings = dict[PublicKey, _PermitReading]()
        """By signer: the block whose permits are being read for it."""
        self._head = 0
        """The newest finalized block that `read_head` has seen."""
        self.arrivals = Arrivals()
        self._use_paid = use_paid
        self._is_registered = is_registered

    async def take(self, body: bytes) -> Taken:
        """Accept a payload. The same payload again gets the acknowledgement of the first time.

        Raises Refused, LedgerUnavailable, CommitUnknown.
        """
        claims = claims_of(body)
        try:
            submission = await self._read(body)
            taken = await self._keep(submission, claims)
        except Refused as refused:
            await self.note_refused(claims, refused)
            raise
        self._judged("repeated" if taken.repeated else "accepted")
        if not taken.repeated:
            self.arrivals.wake()
        return taken

    async def note_refused(self, claims: Claims, refused: Refused) -> None:
        """Count a refusal and log it; the sender gets its answer also where it cannot be logged."""
        self._judged(refused.code)
        now = self._clock.now()
        try:
            await self._ledger.write(lambda c: submissions.note(c, claims, refused.code, now, str(refused)))
        except LedgerError as error:
            _log.error("refusal_not_logged", code=refused.code, reason=str(error))

    async def _keep(self, submission: Submission, claims: Claims) -> Taken:
        def keep(connection: Connection) -> Taken:
            found = self._stored(connection, submission, claims)
            return found or self._kept(connection, submission, claims)

        def take(connection: Connection) -> Taken | None:
            if (found := self._stored(connection, submission, claims)) is not None:
                return found
            self._limit(submission)
            if submission.anchor is None:
                return self._kept(connection, submission, claims)
            self._judge(connection, submission)  # the chain is read for none but what may be taken
            return self._held(connection, submission, claims)

        unknown = None
        try:
            if (found := await self._ledger.write(take)) is not None:
                return found
        except Refused as refused:
            unknown = refused
        with self._working_on(submission):
            if unknown is not None:
                permits = await self._learn(submission, unknown)
                await self._ledger.read(lambda c: self._judge(c, submission, permits))
            if submission.anchor is not None:
                await self._require_committed(submission)
            return await self._ledger.write(keep)

    @contextmanager
    def _working_on(self, submission: Submission) -> Iterator[None]:
        """Do what takes longer than the ledger, once at a time for a payload. Raises Refused."""
        work = (submission.signer, submission.signed_hash)
        if work in self._at_work:
            raise Refused("at_work", "this payload is being worked on: send it again later")
        self._at_work.add(work)
        try:
            yield
        finally:
            self._at_work.discard(work)

    async def _learn(self, submission: Submission, refused: Refused) -> frozenset[PublicKey] | None:
        """Read on the chain what was not known of a payload; return the permits at its block where those were read.

        Raises `refused` where it cannot be, or is of no use. Permits are read for keys that are registered, or held one
        at the nearest block that is known, for one block at a time of each, and recorded for those that had one: anyone
        can sign payloads of any block.
        """
        netuid, block, signer = submission.netuid, submission.block, submission.signer
        if refused.code == "not_final" and self._read_head is not None:
            self._head = max(self._head, await self._read_head())
            return None
        if refused.code != "permits_unknown" or self._read_permits is None:
            raise refused
        read = self._read_permits
        if signer not in await self._ledger.read(lambda c: records.held_around(c, netuid, block)):
            if not self._is_registered(netuid, signer):
                raise refused
            read = self._read_permits_for_others or read
        if (other := self._permit_readings.get(signer)) is not None:
            if other.block != (netuid, block):
                raise Refused("at_work", "another block is being read for this key: send it again later")
            await other.ended.wait()  # scores and ranking of one round come together
            if other.holders is None:
                raise refused
            return other.holders
        reading = self._permit_readings[signer] = _PermitReading((netuid, block))
        try:
            holders = reading.holders = await read(netuid, block)
        finally:
            del self._permit_readings[signer]
            reading.ended.set()
        if holders is None:
            raise refused
        if signer in holders:
            await self._ledger.write(lambda c: records.note_permits_of(c, netuid, block, holders))
        return holders

    async def _require_committed(self, submission: Submission) -> None:
        if self._read_root is None:
            raise Refused("commitment_unknown", "this receiver reads no chain")
        await anchoring.require_committed(submission, self._read_root)

    async def _read(self, body: bytes) -> Submission:
        """Check form, hashes and signatures; in a thread what takes longer than a moment of the loop."""
        if len(body) > LARGE_BYTES:
            return await trio.to_thread.run_sync(self._checked, body)
        return self._checked(body)

    def _checked(self, body: bytes) -> Submission:
        submission = judging.read(body, self._clock.now(), self._keep_s, self.taken)
        if submission.signer in self._gateways:
            judging.require_roots(submission)
        return submission

    def _stored(self, connection: Connection, submission: Submission, claims: Claims) -> Taken | None:
        """Return the acknowledgement that this payload got before; None when it was not accepted yet."""
        held = records.stored(connection, submission)
        if held is None or held[0] != submission.signed_hash:
            return None
        submissions.note(connection, claims, "repeated", self._clock.now())
        return Taken(held[1], repeated=True)

    def _limit(self, submission: Submission) -> None:
        if self._limiter is not None and (wait_s := self._limiter.take(submission.signer)) > 0:
            raise Refused("too_many", f"this key submits too many payloads: send it again in {wait_s:.0f} s")

    def _judge(
        self, connection: Connection, submission: Submission, permits: frozenset[PublicKey] | None = None
    ) -> None:
        """Return when the payload is to be accepted; without `permits` by those that were recorded. Raises Refused."""
        held = records.stored(connection, submission)
        if permits is None:
            permits = records.permits_at(connection, submission.netuid, submission.block)
        judging.judge(
            submission,
            Known(
                same_nonce=None if held is None else held[0],
                signed_before=records.signed_before(connection, submission),
                permits=permits,
                gaps=records.gaps_of(connection, submission) if submission.kind == "gap" else 0,
                gateways=self._gateways,
                quorum=self.quorum,
                netuids=self._netuids,
                finalized=None if (read := self._finalized(submission.netuid)) is None else max(read, self._head),
            ),
        )
        if submission.anchor is not None:
            anchoring.require_leaves(connection, submission)

    def _kept(self, connection: Connection, submission: Submission, claims: Claims) -> Taken:
        """Judge a new payload as things stand in this transaction, and keep it."""
        self._judge(connection, submission)
        if (held := self._held(connection, submission, claims)) is not None:
            return held
        at = self._clock.now()
        use = self._use_paid
        if use is not None and submission.is_paid_for and not use(connection, submission.signer, at):
            raise Refused("payment_required", "this key has no submission left: buy some at POST /credits")
        acknowledgement = self._acknowledge(submission, at)
        if submission.anchor is not None:
            anchoring.keep(connection, submission, at, self._epoch_of(submission, submission.anchor))
        is_anchored = submission.kind in ANCHORED_KINDS
        cannot = is_anchored and not self._is_registered(submission.netuid, submission.signer)
        records.accept(connection, submission, acknowledgement, at, anchoring.CANNOT if cannot else 0)
        submissions.note(connection, claims, "accepted", at)
        return Taken(acknowledgement, repeated=False)

    def _held(self, connection: Connection, submission: Submission, claims: Claims) -> Taken | None:
        """Acknowledge an anchor that says nothing new, of which nothing more is kept; None for all else."""
        if submission.anchor is None or not anchoring.is_held(connection, submission):
            return None
        at = self._clock.now()
        submissions.note(connection, claims, "repeated", at)
        return Taken(self._acknowledge(submission, at), repeated=True)

    def _epoch_of(self, submission: Submission, anchor: Anchor) -> int:
        if self._epoch_at is None:
            return anchor.epoch
        epoch = self._epoch_at(submission.netuid, submission.block)
        if epoch is None:
            raise Refused("commitment_unknown", f"subnet {submission.netuid} was not read yet: send it later")
        return epoch

    def _acknowledge(self, submission: Submission, at: float) -> bytes:
        received_ms = int(at * 1000)
        message = acknowledged_text(submission.signed_hash, received_ms)
        return msgspec.json.encode(
            Acknowledged(
                status="accepted",
                signed_hash=submission.signed_hash,
                output_hash=submission.output_hash,
                received_ms=received_ms,
                signers=len(submission.keys),
                receiver=self._keypair.ss58,
                signature="0x" + self._keypair.sign(message).hex(),
            )
        )
