"""Placing shares on many nodes and collecting them: interprets each answer. Does no I/O, so that the blocking and the
trio functions share it.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias, TypeVar, final

from engram.sdk import shamir
from engram.sdk.errors import ApiError, MalformedAnswer, NotReached, OutcomeUnknown, SdkError
from engram.sdk.shamir import Share
from engram.sdk.share_rules import FaultKind, Given, NodeFault, Recovery

T = TypeVar("T")

Outcome: TypeAlias = T | SdkError


class ShareHolder(Protocol):
    """The interface that key shares need of either client."""

    @property
    def url(self) -> str:
        """The base URL of its node."""
        ...

    @property
    def namespace(self) -> str | None:
        """The namespace that it signs for."""
        ...


class _SharesError(SdkError):
    """Base; never raised itself."""

    def __init__(self, message: str, faults: Sequence[NodeFault]) -> None:
        super().__init__("; ".join([message, *map(str, faults)]))
        self.faults = tuple(faults)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line for each node that failed."""
        return tuple(str(fault) for fault in self.faults)


@final
class SharesMissing(_SharesError):
    """The nodes' shares do not give the secret; `faults` has each node's known failure."""


@final
class SharesNotPlaced(_SharesError):
    """Not every node is known to keep its share.

    `sha256` is the secret's, `placed` the numbers (from 1) of the nodes that do keep theirs; `left` has the others'
    numbers and shares, to be tried again by `put_share(share, threshold, total)` or by distributing the same secret to
    the same nodes again, which completes the split. Never split the secret again for some of the nodes: shares of two
    splits cannot be combined.
    """

    def __init__(
        self, message: str, faults: Sequence[NodeFault], *, sha256: bytes, left: Sequence[tuple[int, Share]], total: int
    ) -> None:
        super().__init__(message, faults)
        self.sha256 = sha256
        self.left = tuple(left)
        self.placed = tuple(number for number in range(1, total + 1) if number not in dict(left))


@final
class SharePlacing:
    """Places one share on each node. A node counts as having its share once it has returned it.

    Before anything is placed, each node is asked what it keeps: shares of this secret stay, and the rest of their split
    is placed. So what was interrupted, or met a node that was down, is completed by doing it again. Shares of another
    secret or split are replaced only with `replace`; otherwise nothing is placed.
    """

    def __init__(self, secret: bytes, nodes: Sequence[ShareHolder], threshold: int, *, replace: bool = False) -> None:
        """Raise ValueError for an impossible threshold, and for clients that are not in one namespace."""
        urls = _urls(nodes)
        self.shares = shamir.split(secret, threshold, len(urls))
        self.threshold = threshold
        self.replace = replace
        self._secret = secret
        self._kept: dict[int, tuple[Share, int]] = {}
        self._sha256 = hashlib.sha256(secret).digest()
        self._urls = urls
        self._unplaced: dict[int, NodeFault | None] = dict.fromkeys(range(1, len(urls) + 1))

    def keeps(self, number: int, outcome: Outcome[tuple[Share, int] | None]) -> None:
        """Record what node `number` keeps before anything is placed; without an answer, placing finds out."""
        if isinstance(outcome, tuple):
            self._kept[number] = outcome

    def settling(self, rng: random.Random) -> Iterator[None]:
        """Decide which split is placed, in small steps; then `left` are the nodes to place it at."""
        total = len(self._urls)
        fitting = {
            number: share
            for number, (share, threshold) in self._kept.items()
            if (share.index, threshold, len(share.data)) == (number, self.threshold, len(self._secret))
        }
        basis = list(fitting.values())
        if len(fitting) >= self.threshold:
            recovery = Recovery(self._sha256, rng)
            for number, share in fitting.items():
                yield from recovery.add(Given(number, self._urls[number - 1], share, self.threshold))
            yield from recovery.finish()
            basis = list(recovery.basis)
        if basis and (len(basis) == self.threshold or len(fitting) == len(self._kept)):
            self.shares = shamir.completed(self._secret, basis, self.threshold, total)
        elif self._kept and not self.replace:
            self._unplaced = {
                number: self._another(number) if number in self._kept else _beside(number, self._urls[number - 1])
                for number in self._unplaced
            }
            return
        for number, kept in self._kept.items():
            if kept == (self.shares[number - 1], self.threshold):
                del self._unplaced[number]
            elif not self.replace:
                self._unplaced[number] = self._another(number)

    @property
    def left(self) -> list[int]:
        """The numbers of the nodes that are to be given their share."""
        return [number for number, fault in self._unplaced.items() if fault is None]

    def _another(self, number: int) -> NodeFault:
        text = "keeps a share of another secret or split: `replace=True` puts this one in its place"
        return NodeFault(number, self._urls[number - 1], "wrong", text)

    def answered(self, number: int, outcome: Outcome[tuple[Share, int] | None]) -> None:
        """Record what node `number` returned after it was sent its share."""
        if outcome == (self.shares[number - 1], self.threshold):
            del self._unplaced[number]
        elif isinstance(outcome, ApiError) and outcome.code == "share_exists":
            self._unplaced[number] = self._another(number)
        elif isinstance(outcome, SdkError):
            self._unplaced[number] = _fault(number, self._urls[number - 1], outcome)
        else:
            kind: FaultKind = "empty" if outcome is None else "wrong"
            text = "said that it keeps its share, and " + ("has none" if outcome is None else "gave another one back")
            self._unplaced[number] = NodeFault(number, self._urls[number - 1], kind, text)

    def sha256(self, within_s: float) -> bytes:
        """Return the secret's SHA-256. Raises SharesNotPlaced unless every node keeps its share."""
        if not self._unplaced:
            return self._sha256
        faults = [
            fault or _too_slow(number, self._urls[number - 1], within_s) for number, fault in self._unplaced.items()
        ]
        total = len(self._urls)
        kept = total - len(faults)
        tail = "enough to collect" if kept >= self.threshold else f"{self.threshold} are needed to collect"
        left = [(fault.number, self.shares[fault.number - 1]) for fault in faults]
        message = f"{kept} of {total} nodes are known to keep their share ({tail})"
        raise SharesNotPlaced(message, faults, sha256=self._sha256, left=left, total=total)


@final
class Collecting:
    """Collects the shares that nodes return, until the secret is known."""

    def __init__(self, nodes: Sequence[ShareHolder], sha256: bytes | None, rng: random.Random) -> None:
        """Raise ValueError for a `sha256` of the wrong length, and for clients that are not in one namespace."""
        if sha256 is not None and len(sha256) != hashlib.sha256().digest_size:
            raise ValueError("sha256 must be the 32 bytes that distributing the shares returned, or None")
        self._recovery = Recovery(sha256, rng)
        self._silent = dict(enumerate(_urls(nodes), 1))
        self._faults: list[NodeFault] = []

    @property
    def found(self) -> bool:
        """Whether the secret is known: no further answer is needed."""
        return self._recovery.secret is not None

    def answered(self, number: int, outcome: Outcome[tuple[Share, int] | None]) -> Iterator[None]:
        """Process a node's answer, in small steps."""
        url = self._silent.pop(number)
        if isinstance(outcome, SdkError):
            self._faults.append(_fault(number, url, outcome))
        elif outcome is None:
            self._faults.append(NodeFault(number, url, "empty", "keeps no share"))
        else:
            share, threshold = outcome
            yield from self._recovery.add(Given(number, url, share, threshold))

    def ended(self) -> Iterator[None]:
        """Finish the search in the shares received, in small steps; call it when all have answered or time is up."""
        if not self.found:
            yield from self._recovery.finish()

    def faults(self) -> list[NodeFault]:
        """Return the faults of nodes that answered without a correct share, in the nodes' order."""
        return sorted([*self._faults, *self._recovery.faults()], key=lambda fault: fault.number)

    def secret(self, within_s: float) -> bytes:
        """Return the secret. Raises SharesMissing."""
        if self._recovery.secret is not None:
            return self._recovery.secret
        slow = [_too_slow(number, url, within_s) for number, url in self._silent.items()]
        faults = sorted([*self.faults(), *slow], key=lambda fault: fault.number)
        raise SharesMissing(self._recovery.missing(), faults)


def _urls(nodes: Sequence[ShareHolder]) -> list[str]:
    if len({node.namespace for node in nodes}) > 1 or any(node.namespace is None for node in nodes):
        raise ValueError("a key share belongs to a private namespace: make all clients with the same `namespace`")
    return [node.url for node in nodes]


def _fault(number: int, url: str, error: SdkError) -> NodeFault:
    kind: FaultKind = "refused"
    match error:
        case NotReached():
            kind = "unreachable"
        case OutcomeUnknown():
            kind = "silent"
        case MalformedAnswer():
            kind = "malformed"
        case _:
            pass
    return NodeFault(number, url, kind, f"did not do it: {error}")


def _beside(number: int, url: str) -> NodeFault:
    return NodeFault(number, url, "empty", "was given no share, which would not go with those that others keep")


def _too_slow(number: int, url: str, within_s: float) -> NodeFault:
    return NodeFault(number, url, "silent", f"did not answer within {within_s:g} s")
