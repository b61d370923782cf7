"""Whatever is done in whatever order, every coin is accounted for after every block."""

import contextlib
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.doubles.akash import audit, bank, escrow, market
from tests.doubles.akash.account import spec
from tests.doubles.akash.errors import Refused
from tests.doubles.akash.genesis import Genesis
from tests.doubles.akash.messages import AccountDeposit, Coin, Deposit, EscrowId, Message, MintAct
from tests.doubles.akash.store import ONE, BidRow, Params
from tests.sampling import NIGHTLY

DSEQS = st.integers(1, 6)
OSEQS = st.integers(1, 2)
PROVIDERS = st.booleans()
REASONS = st.sampled_from([market.UNSTABLE, market.DECOMMISSION, market.MANIFEST_TIMEOUT])


class Market(RuleBasedStateMachine):
    """Owners, providers and time do what they like."""

    @initialize()
    def begin(self) -> None:
        self.genesis = Genesis(Params(min_mint=1_000, min_epoch_blocks=3))
        self.made: dict[int, bytes] = {}

    def send(self, *messages: Message) -> None:
        genesis = self.genesis
        raw = genesis.owner.sign(*messages, number=genesis.number(), timeout_ns=genesis.timeout(300))
        with contextlib.suppress(Refused):  # as a client does first; it must leave nothing behind
            genesis.chain.simulate(raw)
        genesis.chain.check(raw)

    def provider(self, second: bool) -> str:
        return self.genesis.other if second else self.genesis.provider

    def bid_row(self, dseq: int, oseq: int, second: bool, price: int = 1, window: int | None = None) -> BidRow:
        owner = self.genesis.owner.address
        return BidRow(owner, dseq, 1, oseq, self.provider(second), price, 0, reclamation_s=window)

    @rule(dseq=DSEQS, amount=st.integers(500_000, 600_000), price=st.integers(1, 50_000))
    def create(self, dseq: int, amount: int, price: int) -> None:
        version = len(self.made).to_bytes(32, "big")
        self.made[len(self.made)] = version
        self.send(self.genesis.owner.create(dseq, version, deposit=amount, groups=(spec(price=price),)))

    @rule(
        dseq=DSEQS, oseq=OSEQS, second=PROVIDERS, price=st.integers(1, 50_000 * ONE), window=st.sampled_from([None, 60])
    )
    def bid(self, dseq: int, oseq: int, second: bool, price: int, window: int | None) -> None:
        row = self.bid_row(dseq, oseq, second, price, window)
        self.genesis.chain.act(lambda state: market.create_bid(state, row, {}, frozenset()))

    @rule(dseq=DSEQS, oseq=OSEQS, second=PROVIDERS)
    def lease(self, dseq: int, oseq: int, second: bool) -> None:
        self.send(self.genesis.owner.lease(dseq, self.provider(second), oseq))

    @rule(dseq=DSEQS, second=PROVIDERS, price=st.integers(1, 50_000), window=st.sampled_from([None, 60]))
    def sell(self, dseq: int, second: bool, price: int, window: int | None) -> None:
        """From nothing to a lease: what single steps reach too seldom."""
        self.earn(10**6)
        self.create(dseq, 500_000, 50_000)
        self.genesis.blocks()
        for oseq in (1, 2):
            self.bid(dseq, oseq, second, price * ONE, window)
        self.genesis.blocks()
        for oseq in (1, 2):
            self.lease(dseq, oseq, second)

    @rule(dseq=DSEQS, oseq=OSEQS, second=PROVIDERS)
    def close_lease(self, dseq: int, oseq: int, second: bool) -> None:
        self.send(self.genesis.owner.close_lease(dseq, self.provider(second), oseq))

    @rule(dseq=DSEQS)
    def close(self, dseq: int) -> None:
        self.send(self.genesis.owner.close(dseq))

    @rule(dseqs=st.lists(DSEQS, min_size=2, max_size=3))
    def close_many_or_none(self, dseqs: list[int]) -> None:
        self.send(*(self.genesis.owner.close(dseq) for dseq in dseqs))

    @rule(dseq=DSEQS, amount=st.integers(1, 100_000), denom=st.sampled_from(["uact", "uakt"]))
    def deposit(self, dseq: int, amount: int, denom: str) -> None:
        owner = self.genesis.owner.address
        given: Any = Deposit(Coin(denom, str(amount)), (1,))
        self.send(AccountDeposit(owner, EscrowId(1, f"{owner}/{dseq}"), given))

    @rule(dseq=DSEQS, oseq=OSEQS, second=PROVIDERS)
    def withdraw(self, dseq: int, oseq: int, second: bool) -> None:
        aid, xid = f"{self.genesis.owner.address}/{dseq}", f"1/{oseq}/{self.provider(second)}"
        self.genesis.chain.act(lambda state: escrow.withdraw(state, aid, xid))

    @rule(dseq=DSEQS, oseq=OSEQS, second=PROVIDERS, reason=REASONS)
    def leave(self, dseq: int, oseq: int, second: bool, reason: str) -> None:
        row = self.bid_row(dseq, oseq, second)
        self.genesis.chain.act(partial(market.start_reclaim, bid=row, reason=reason))
        self.genesis.chain.act(partial(market.close_bid, bid=row, reason=reason))

    @rule(amount=st.integers(1, 5_000))
    def mint(self, amount: int) -> None:
        owner = self.genesis.owner.address
        self.send(MintAct(owner, owner, Coin("uakt", str(amount))))

    @rule()
    def become_poor(self) -> None:
        self.genesis.chain.drain(self.genesis.owner.address, "uact")

    @rule(amount=st.integers(1, 10**7))
    def earn(self, amount: int) -> None:
        self.genesis.chain.fund(self.genesis.owner.address, uact=amount)

    @rule(count=st.integers(1, 60))
    def let_time_pass(self, count: int) -> None:
        self.genesis.blocks(count)

    @invariant()
    def every_coin_is_accounted_for(self) -> None:
        self.genesis.blocks(1)
        state = self.genesis.chain.state
        assert audit.problems(state) == []
        for row in state.deployments.values():
            if row.state == "closed":
                account = state.escrow.get(("deployment", f"{row.owner}/{row.dseq}"))
                assert account
                assert account.deposits == ()
                leases = [
                    lease for lease in state.leases.values() if (lease.owner, lease.dseq) == (row.owner, row.dseq)
                ]
                assert not any(lease.serves for lease in leases)
        for lease in state.leases.values():
            payment = state.payments.get((f"{lease.owner}/{lease.dseq}", f"{lease.gseq}/{lease.oseq}/{lease.provider}"))
            assert payment
            assert lease.serves == (payment.state == "open")

    def teardown(self) -> None:
        if hasattr(self, "genesis"):
            assert bank.balance(self.genesis.chain.state, bank.ESCROW, "uact") >= 0


TestMarket = Market.TestCase
TestMarket.settings = settings(max_examples=2_000 if NIGHTLY else 25, stateful_step_count=50)
