"""What can go wrong between Engram and the chain."""

from typing import Final

from engram.chain.model import Fork


class ChainError(Exception):
    """Base of the area's errors; never raised itself."""

    nothing_was_sent = False
    """Whether a call that was to be sent certainly never left this machine."""


class EndpointUnreachable(ChainError):
    """The endpoint did not answer: no connection, a timeout, or a connection that closed half way.

    `may_have_arrived` is False when nothing left this machine.
    """

    def __init__(self, reason: str, *, may_have_arrived: bool = True) -> None:
        super().__init__(reason)
        self.may_have_arrived = may_have_arrived


class EndpointBusy(ChainError):
    """The endpoint refuses to serve us now: HTTP 403/429/503, JSON-RPC -32004/-32005.

    `retry_after_s` is the endpoint's own Retry-After, None when it sent none. `may_have_arrived` is True for HTTP 503,
    which a proxy may send after it has passed the request on.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None, *, may_have_arrived: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.may_have_arrived = may_have_arrived


class CallRefused(ChainError):
    """The endpoint answered one JSON-RPC call with an error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class AnswerMalformed(ChainError):
    """An answer that breaks the protocol or its own structure: wrong ids, lengths, types, trailing bytes."""


class RuntimeApiMissing(ChainError):
    """The runtime's metadata does not offer a call that Engram needs."""


class SubnetUnknown(ChainError):
    """The chain has no subnet of this number."""

    def __init__(self, netuid: int) -> None:
        super().__init__(f"the chain has no subnet {netuid}")
        self.netuid = netuid


class HeadRefused(ChainError):
    """The endpoint's finalized head is not accepted: it is stalled, behind, or on another fork."""


class AnotherNetwork(ChainError):
    """The endpoint serves a different network from the one requested. Nothing was signed."""


class HeadAwaited(ChainError):
    """The endpoint is ahead: another one that follows the chain has not finalized this block yet."""


class AnswersDiffer(ChainError):
    """Two endpoints gave different bytes for the same question at the same block hash."""


class EndpointsForked(AnswersDiffer):
    """Two endpoints have different finalized blocks of one number: one of them is on another fork, or another chain."""

    def __init__(self, fork: Fork) -> None:
        one, other = fork.one, fork.other
        super().__init__(
            f"{one.endpoint} and {other.endpoint} have different finalized blocks {one.block} ({one.hash} and "
            f"{other.hash}): one of them is on another fork or another chain, and neither is trusted"
        )
        self.fork = fork


class CallNotComposable(ChainError):
    """The runtime has no such call or storage item, or its arguments do not fit."""


class SubmitRefused(ChainError):
    """The endpoint's transaction pool did not take the extrinsic; nothing was written.

    `reason` is the pool's own word: badProof, stale, future, payment, priorityTooLow … `advice` says what it means and
    what to do, where that is known.
    """

    def __init__(self, reason: str, message: str, advice: str = "") -> None:
        text = f"the endpoint did not take it ({reason}): {message}" if message else reason
        super().__init__(f"{text}; {advice}" if advice else text)
        self.reason = reason
        self.advice = advice


class RefusedInBlock(ChainError):
    """The extrinsic was included and the runtime refused it; it used up its nonce, and its fee if there is one.

    `name` is the error's name in the metadata, `block` the number of the finalized block.
    """

    def __init__(self, name: str, explanation: str, block: int, extrinsic_hash: bytes) -> None:
        super().__init__(f"{name}: {explanation}" if explanation else name)
        self.name = name
        self.explanation = explanation
        self.block = block
        self.extrinsic_hash = extrinsic_hash


class NeverIncluded(ChainError):
    """The extrinsic's era has passed on the finalized chain: it was not included and never will be."""


class OutcomeUnknown(ChainError):
    """Sent, but not seen in a finalized block in time; it may still be included until `expires_at_block`."""

    def __init__(self, extrinsic_hash: bytes, expires_at_block: int, why: str) -> None:
        super().__init__(
            f"0x{extrinsic_hash.hex()} was sent and not seen in a finalized block ({why}); "
            f"it may be included until block {expires_at_block}: check before sending again"
        )
        self.extrinsic_hash = extrinsic_hash
        self.expires_at_block = expires_at_block


class CommittedInEpoch(ChainError):
    """The hotkey has committed in this epoch already, where one commit is shared by all that it commits."""

    def __init__(self, block: int, last_block: int) -> None:
        super().__init__(
            f"this hotkey has committed in block {block}, and commits once an epoch: try again after block {last_block}"
        )


class CommitReplaced(ChainError):
    """The commitment was included, and another one of the same hotkey in the same block came after it."""

    def __init__(self, block: int, held: str) -> None:
        super().__init__(f"included in block {block}, but replaced there: the chain holds {held}")


class NotReadBack(ChainError):
    """Included in a finalized block and successful there, but no endpoint could be asked what the chain holds now."""

    def __init__(self, extrinsic_hash: bytes, block: int, why: str) -> None:
        super().__init__(
            f"0x{extrinsic_hash.hex()} is in finalized block {block} and succeeded there, but what the chain holds "
            f"could not be read back ({why}): check before sending again"
        )
        self.extrinsic_hash = extrinsic_hash
        self.block = block


class NotHeld(ChainError):
    """The call was included and succeeded, but the chain does not hold what was written, in that very block."""

    def __init__(self, block: int, held: str) -> None:
        super().__init__(f"included in block {block}, but the chain {held}")
        self.block = block


class NotPaid(ChainError):
    """A registration was not paid for: the subnet takes none, or the cost exceeds the limit or the balance."""


class NotRegistered(ChainError):
    """The hotkey is not registered on the subnet. Nothing was sent."""

    def __init__(self, address: str, netuid: int) -> None:
        super().__init__(f"not sent: {address} is not registered on subnet {netuid}")


class WeightsRejected(ChainError):
    """The chain would refuse these weights now, for the reasons in `objections`. Nothing was sent."""

    def __init__(self, objections: list[str]) -> None:
        super().__init__("\n".join(["not sent, the chain would refuse it", *objections]))
        self.objections = objections


class NoCommitKept(ChainError):
    """The folder keeps no commit of this hotkey on this subnet of this chain."""


class RevealFailed(ChainError):
    """The chain dropped a timelocked commit without setting its weights."""

    def __init__(self, commit_block: int, seen_block: int) -> None:
        super().__init__(
            f"committed in block {commit_block}, but at block {seen_block} the chain holds neither the commit nor "
            "these weights: the reveal failed, or other weights were set since"
        )


class RevealAwaited(ChainError):
    """A timelocked commit was not revealed in the time given; the chain may still do it."""

    def __init__(self, commit_block: int, seen_block: int) -> None:
        super().__init__(
            f"committed in block {commit_block}, and not yet revealed at block {seen_block}, later than expected: "
            "the chain may still do it"
        )


TRANSIENT: Final = (EndpointBusy, EndpointUnreachable, AnswerMalformed, AnswersDiffer, CallRefused, HeadAwaited)
"""Faults of the moment: another endpoint, or the same one later, may answer."""
