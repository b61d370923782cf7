"""What the double itself makes everybody wait for, by deployment, in real seconds: what is beyond is the client's."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from tests.doubles.akash.chain import Chain
from tests.doubles.akash.messages import CreateDeployment, CreateLease
from tests.doubles.akash.provider import Provider
from tests.doubles.akash.transaction import Transaction

MOST: Final = 20_000
"""Deployments that are remembered."""
STEPS: Final = ("create", "bids", "lease", "provider")
"""Until its create can be looked up, until there is a bid, until its lease can be looked up, and until the provider has
seen that; each from the one before, the transactions from when they were taken."""


class Waits:
    def __init__(self, chain: Chain, providers: Iterable[Provider], now: Callable[[], float] = time.monotonic) -> None:
        self._chain = chain
        self._providers = list(providers)
        self._now = now
        self._open: dict[tuple[str, int], tuple[str, float]] = {}
        """(step, dseq) -> (hash of its transaction, since when) of what is waited for."""
        self._owners: dict[int, str] = {}
        self.seconds: dict[int, dict[str, float]] = {}
        chain.on_taken = self.took
        chain.after_block.append(self.look)

    def took(self, tx: Transaction) -> None:
        """Begin to wait for a transaction that a node has taken."""
        for message in tx.messages:
            if isinstance(message, CreateDeployment) and message.id is not None:
                self._begin("create", message.id.dseq, message.id.owner, tx.hash)
            elif isinstance(message, CreateLease) and message.bid_id is not None:
                self._begin("lease", message.bid_id.dseq, message.bid_id.owner, tx.hash)

    def look(self) -> None:
        """Look at the new block."""
        for (step, dseq), (tx_hash, since) in list(self._open.items()):
            if not self._is_over(step, dseq, tx_hash):
                continue
            del self._open[step, dseq]
            self.seconds.setdefault(dseq, {})[step] = self._now() - since
            if step in ("create", "lease"):  # what follows may be there already
                following = STEPS[STEPS.index(step) + 1]
                if self._is_over(following, dseq, tx_hash):
                    self.seconds[dseq][following] = 0.0
                else:
                    self._open[following, dseq] = tx_hash, self._now()

    def _begin(self, step: str, dseq: int, owner: str, tx_hash: str) -> None:
        if len(self._owners) < MOST:
            self._owners[dseq] = owner
            self._open.setdefault((step, dseq), (tx_hash, self._now()))

    def _is_over(self, step: str, dseq: int, tx_hash: str) -> bool:
        owner = self._owners[dseq]
        match step:
            case "create" | "lease":
                return self._chain.lookup(tx_hash) is not None
            case "bids":
                return bool(self._chain.state.bids.those(self._chain.state.bids_of.of((owner, dseq))))
            case _:
                return any(each.tenancy(owner, dseq) is not None for each in self._providers)
