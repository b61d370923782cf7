"""Takes one submission: checks, keeps and acknowledges it, in one transaction."""

from collections.abc import Callable, Collection, Mapping
from typing import Final, final

import msgspec
import trio
from sqlalchemy import Connection

from engram.api.xeris import Acknowledged
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey
from engram.ledger import Ledger
from engram.relay.schemas import TAKEN
from engram.xeris import anchoring, judging, records
from engram.xeris.anchoring import ReadsRoot
from engram.xeris.judging import Known, Refused, Submission

LARGE_BYTES: Final = 16_384
"""A larger payload is checked in a thread: 64 miners, or eight nodes with the roots that they signed."""


class Taken(msgspec.Struct, frozen=True):
    """What became of a submission that was accepted, now or before."""

    acknowledgement: bytes
    repeated: bool


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
        quorum: int,
        keep_s: float,
        taken: Mapping[str, Collection[str]] = TAKEN,
        read_root: ReadsRoot | None = None,
        judged: Callable[[str], None] = lambda code: None,
    ) -> None:
        """Take how roots are read on the chain (None: anchors wait) and `judged`, which is called with `accepted`,
        `repeated`, or the code of a refusal."""
        self._read_root = read_root
        self._ledger = ledger
        self._keypair = keypair
        self._clock = clock
        self._gateways = gateways
        self.quorum = quorum
        """Distinct validators that must have signed scores."""
        self._keep_s = keep_s
        self.taken = taken
        """The versions of each kind that are taken."""
        self._judged = judged

    async def take(self, body: bytes) -> Taken:
        """Accept a payload. The same payload again gets the acknowledgement of the first time.

        Raises Refused, LedgerUnavailable, CommitUnknown.
        """
        try:
            submission = await self._read(body)
            if submission.anchor is not None:
                await self._require_committed(submission)
            taken = await self._ledger.write(lambda connection: self._kept(connection, submission))
        except Refused as refused:
            self._judged(refused.code)
            raise
        self._judged("repeated" if taken.repeated else "accepted")
        return taken

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

    def _kept(self, connection: Connection, submission: Submission) -> Taken:
        held = records.stored(connection, submission.kind, submission.nonce, submission.signer)
        if held is not None and held[0] == submission.signed_hash:
            return Taken(held[1], repeated=True)
        judging.judge(
            submission,
            Known(
                same_nonce=None if held is None else held[0],
                signed_before=records.signed_before(connection, submission),
                permits=records.permits_at(connection, submission.netuid, submission.block),
                gateways=self._gateways,
                quorum=self.quorum,
            ),
        )
        at = self._clock.now()
        acknowledgement = self._acknowledge(submission, at)
        if submission.anchor is not None:
            anchoring.keep(connection, submission, at)
        records.accept(connection, submission, acknowledgement, at)
        return Taken(acknowledgement, repeated=False)

    def _acknowledge(self, submission: Submission, at: float) -> bytes:
        received_ms = int(at * 1000)
        message = f"engram-accepted:{submission.signed_hash}:{received_ms}"
        return msgspec.json.encode(
            Acknowledged(
                status="accepted",
                signed_hash=submission.signed_hash,
                output_hash=submission.output_hash,
                received_ms=received_ms,
                signers=len(submission.keys),
                receiver=self._keypair.ss58,
                signature="0x" + self._keypair.sign(message.encode()).hex(),
            )
        )
