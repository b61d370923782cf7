"""A chain with an owner and a provider that have coins, for tests of the rules without HTTP."""

from tests.doubles.akash import addresses, market
from tests.doubles.akash.account import Account, spec
from tests.doubles.akash.chain import Chain, Included
from tests.doubles.akash.errors import Refused
from tests.doubles.akash.messages import Message
from tests.doubles.akash.store import ONE, BidRow, Params

GENESIS_S = 1_790_000_000.0
BLOCK_S = 6.0
RICH = 10**12
VERSION = bytes(range(32))


class Genesis:
    """The chain, and what an owner does on it."""

    def __init__(self, params: Params | None = None) -> None:
        self.chain = Chain(params, time_s=GENESIS_S, index_lag=0)
        self.owner = Account()
        self.provider = addresses.of_name("provider")
        self.other = addresses.of_name("other provider")
        self.chain.fund(self.owner.address, uakt=RICH, uact=RICH)
        for address in (self.provider, self.other):
            self.chain.fund(address, uact=RICH)
        self._nanos = 0

    def number(self) -> int:
        row = self.chain.state.accounts.get(self.owner.address)
        assert row is not None
        return row.number

    def timeout(self, in_s: float = 60.0) -> int:
        """Return a timeout that no other transaction has."""
        self._nanos += 1
        return round((self.chain.state.time_s + in_s) * 10**9) + self._nanos

    def blocks(self, count: int = 1) -> None:
        for _ in range(count):
            self.chain.make_block(self.chain.state.time_s + BLOCK_S)

    def deliver(self, *messages: Message) -> Included:
        """Send a transaction and return what became of it in the next block. Raises Refused by the first check."""
        tx_hash = self.chain.check(self.owner.sign(*messages, number=self.number(), timeout_ns=self.timeout()))
        self.blocks()
        found = self.chain.lookup(tx_hash)
        assert found is not None
        return found

    def refusal(self, *messages: Message) -> tuple[str, int, str]:
        """Return codespace, code and text of a transaction that must not take effect."""
        try:
            found = self.deliver(*messages)
        except Refused as refused:
            return refused.codespace, refused.code, str(refused)
        return found.codespace, found.code, found.log.removeprefix("failed to execute message; message index: 0: ")

    def created(self, dseq: int = 1, **given: object) -> None:
        """Make a deployment."""
        found = self.deliver(self.owner.create(dseq, VERSION, **given))  # type: ignore[arg-type]
        assert found.code == 0, found.log

    def bid(
        self, provider: str = "", dseq: int = 1, *, oseq: int = 1, price: int = 10, window_s: int | None = None
    ) -> BidRow:
        """Place a provider's bid in a block of its own."""
        bid = BidRow(
            self.owner.address, dseq, 1, oseq, provider or self.provider, price * ONE, 0, reclamation_s=window_s
        )
        self.chain.act(lambda state: market.create_bid(state, bid, {}, frozenset()))
        self.blocks()
        found = self.chain.state.bids.get(bid.key)
        assert found is not None, self.chain.refusals
        return found

    def leased(self, dseq: int = 1, **given: object) -> BidRow:
        """Make a deployment with a lease."""
        window = given.pop("window_s", None)
        self.created(dseq, **given)
        bid = self.bid(dseq=dseq, window_s=window)  # type: ignore[arg-type]
        found = self.deliver(self.owner.lease(dseq, self.provider))
        assert found.code == 0, found.log
        return bid

    def provider_refusal(self, act: object) -> str:
        """Return the text with which a provider's action is refused; empty when it takes effect."""
        before = len(self.chain.refusals)
        self.chain.act(act)  # type: ignore[arg-type]
        self.blocks()
        return "".join(self.chain.refusals[before:])


__all__ = ["BLOCK_S", "GENESIS_S", "RICH", "VERSION", "Genesis", "spec"]
