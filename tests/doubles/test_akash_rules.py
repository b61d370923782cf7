"""Deployments, market, escrow and minting: every refusal by its codespace, code and text, and what follows what."""

from functools import partial
from typing import Any

import pytest

from tests.doubles.akash import audit, bank, escrow, market
from tests.doubles.akash.account import spec
from tests.doubles.akash.genesis import RICH, VERSION, Genesis
from tests.doubles.akash.messages import (
    AccountDeposit,
    Coin,
    DeploymentId,
    Deposit,
    EscrowId,
    GroupSpec,
    MintAct,
    MintActResponse,
    TxMsgData,
    UpdateDeployment,
)
from tests.doubles.akash.store import ONE, DeploymentRow, EscrowRow, GroupRow, LeaseRow, Params
from tests.doubles.akash.wire import decode


@pytest.fixture
def genesis() -> Genesis:
    return Genesis()


def deployment(genesis: Genesis) -> tuple[DeploymentRow, GroupRow, EscrowRow]:
    owner = genesis.owner.address
    row, group = genesis.chain.state.deployments.get((owner, 1)), genesis.chain.state.groups.get((owner, 1, 1))
    account = genesis.chain.state.escrow.get(("deployment", f"{owner}/1"))
    assert row
    assert group
    assert account
    return row, group, account


def lease(genesis: Genesis, oseq: int = 1) -> LeaseRow:
    row = genesis.chain.state.leases.get((genesis.owner.address, 1, 1, oseq, genesis.provider))
    assert row
    return row


# ---------------------------------------------------------------------------------------------------- deployment

WRONG: list[tuple[str, dict[str, Any], tuple[str, int, str]]] = [
    ("no hash", {"version": b""}, ("deployment", 9, "Invalid: empty hash")),
    ("short hash", {"version": b"x"}, ("deployment", 10, "Invalid: deployment hash")),
    ("dseq 0", {"dseq": 0}, ("deployment", 8, "Invalid: deployment id")),
    ("low deposit", {"deposit": 499_999}, ("deployment", 20, "Deposit too low - 499999 < 500000: Deposit invalid")),
    ("uakt", {"denom": "uakt", "price_denom": "uakt"}, ("deployment", 20, "Deposit invalid")),
    (
        "two denominations",
        {"denom": "uakt"},
        ("deployment", 20, "Mismatched denominations (uakt != uact): Deposit invalid"),
    ),
    (
        "short notice",
        {"window_s": 3_599},
        ("deployment", 26, "min window is outside governance bounds: invalid reclamation configuration"),
    ),
    ("long notice", {"window_s": 2_592_001}, ("deployment", 26, "")),
    ("no groups", {"groups": ()}, ("deployment", 7, "Invalid groups")),
    ("a group without a name", {"groups": (spec(""),)}, ("deployment", 7, "")),
    ("one name twice", {"groups": (spec(), spec())}, ("deployment", 25, "duplicate group name")),
    ("21 groups", {"groups": tuple(spec(f"g{n}") for n in range(21))}, ("deployment", 7, "")),
    ("no resources", {"groups": (GroupSpec("g"),)}, ("deployment", 7, "")),
    ("385 cores", {"groups": (spec(cpu=385_000),)}, ("deployment", 7, "")),
    ("count 51", {"groups": (spec(count=51),)}, ("deployment", 7, "")),
    ("price beyond bounds", {"groups": (spec(price=10_000_001),)}, ("deployment", 7, "")),
    ("poor", {"deposit": RICH + 1}, ("market", 28, "deposit invalid: insufficient balance")),
]


@pytest.mark.parametrize(("given", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_create_is_refused(genesis: Genesis, given: dict[str, Any], expected: tuple[str, int, str]) -> None:
    create = genesis.owner.create(**{"dseq": 1, "version": VERSION, **given})
    codespace, code, text = genesis.refusal(create)
    assert (codespace, code) == expected[:2]
    assert text == expected[2] or not expected[2]
    assert len(genesis.chain.state.deployments) == 0
    assert audit.problems(genesis.chain.state) == []


def test_existence_is_looked_at_first_and_funds_last(genesis: Genesis) -> None:
    genesis.created()
    assert genesis.refusal(genesis.owner.create(1, VERSION, deposit=1)) == ("deployment", 3, "Deployment exists")
    genesis.chain.drain(genesis.owner.address, "uact")
    low = genesis.owner.create(2, VERSION, deposit=1, window_s=1)
    assert genesis.refusal(low)[2].startswith("Deposit too low")
    assert genesis.refusal(genesis.owner.create(2, VERSION, window_s=1))[1] == 26
    assert genesis.refusal(genesis.owner.create(2, VERSION, groups=(spec(""),)))[1] == 7
    assert genesis.refusal(genesis.owner.create(2, VERSION))[:2] == ("market", 28)


def test_only_the_first_groups_price_must_be_in_uact(genesis: Genesis) -> None:
    """A group in another denomination than the deposit is refused before that."""
    create = genesis.owner.create(1, VERSION, groups=(spec("a"), spec("b", denom="uakt")))
    assert genesis.refusal(create)[:2] == ("deployment", 20)


def test_a_close_gives_the_deposit_back(genesis: Genesis) -> None:
    genesis.created(deposit=700_000)
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uact") == RICH - 700_000
    assert genesis.deliver(genesis.owner.close(1)).code == 0
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uact") == RICH
    row, group, account = deployment(genesis)
    assert (row.state, group.state, account.state) == ("closed", "closed", "closed")
    assert genesis.refusal(genesis.owner.close(1)) == ("deployment", 5, "Deployment closed")
    assert genesis.refusal(genesis.owner.close(2)) == ("deployment", 4, "Deployment not found")


def test_an_update_changes_the_hash_of_an_active_deployment(genesis: Genesis) -> None:
    genesis.created()
    update = UpdateDeployment(DeploymentId(genesis.owner.address, 1), bytes(32))
    assert genesis.deliver(update).code == 0
    assert deployment(genesis)[0].hash == bytes(32)
    assert genesis.refusal(update) == ("deployment", 10, "Invalid: deployment hash")
    genesis.deliver(genesis.owner.close(1))
    assert genesis.refusal(update) == ("deployment", 5, "Deployment closed")


# -------------------------------------------------------------------------------------------------------- market


def test_a_lease_takes_one_bid_and_the_others_are_lost(genesis: Genesis) -> None:
    genesis.created()
    genesis.bid()
    other = genesis.bid(genesis.other, price=9)
    assert bank.balance(genesis.chain.state, genesis.other, "uact") == RICH - 500_000
    assert genesis.deliver(genesis.owner.lease(1, genesis.provider)).code == 0
    lost = genesis.chain.state.bids.get(other.key)
    assert lost
    assert lost.state == "lost"
    assert bank.balance(genesis.chain.state, genesis.other, "uact") == RICH
    assert lease(genesis).state == "active"
    assert lease(genesis).reason == "lease_closed_invalid"


def test_leases_are_refused_in_the_chains_order(genesis: Genesis) -> None:
    lease_it = genesis.owner.lease(1, genesis.provider)
    assert genesis.refusal(lease_it) == ("market", 18, "invalid bid: bid not found")
    genesis.leased()
    assert genesis.refusal(lease_it) == ("market", 12, "bid not open")
    genesis.created(2)
    bid = genesis.bid(dseq=2)
    genesis.chain.act(partial(market.close_bid, bid=bid, reason=market.UNSPECIFIED))
    genesis.blocks()
    assert genesis.refusal(genesis.owner.lease(2, genesis.provider)) == ("market", 12, "bid not open")


def test_a_lease_that_the_owner_closes_opens_a_new_order(genesis: Genesis) -> None:
    genesis.leased()
    close = genesis.owner.close_lease(1, genesis.provider)
    assert genesis.deliver(close).code == 0
    assert (lease(genesis).state, lease(genesis).reason) == ("closed", "lease_closed_owner")
    assert deployment(genesis)[1].state == "open"
    genesis.bid(oseq=2)
    assert genesis.refusal(close) == ("market", 24, "order closed")
    assert genesis.deliver(genesis.owner.lease(1, genesis.provider, oseq=2)).code == 0
    assert lease(genesis, 2).state == "active"
    missing = genesis.owner.close_lease(1, genesis.provider, oseq=3)
    assert genesis.refusal(missing) == ("market", 15, "invalid order: order not found")


def test_a_provider_that_leaves_pauses_the_group_and_the_deployment_stays_active(genesis: Genesis) -> None:
    bid = genesis.leased()
    assert genesis.provider_refusal(partial(market.close_bid, bid=bid, reason=market.UNSTABLE)) == ""
    row, group, account = deployment(genesis)
    assert (row.state, group.state, account.state) == ("active", "paused", "open")
    assert (lease(genesis).state, lease(genesis).reason) == ("closed", "lease_closed_reason_unstable")
    assert genesis.refusal(genesis.owner.close_lease(1, genesis.provider)) == ("market", 24, "order closed")
    assert genesis.deliver(genesis.owner.close(1)).code == 0
    assert audit.problems(genesis.chain.state) == []


def test_a_bid_must_fit_the_order(genesis: Genesis) -> None:
    genesis.created(groups=(spec(price=10, attributes=(("region", "us-west"),)),), window_s=3_600)
    bid = partial(genesis.bid)
    for given, text in (
        ({"price": 11}, "bid price above max order price"),
        ({}, "order requires reclamation but bid does not offer it"),
        ({"window_s": 60}, "reclamation window shorter than order minimum"),
        ({"window_s": 3_600}, "attribute mismatch"),
    ):
        with pytest.raises(AssertionError, match=text):
            bid(**given)  # type: ignore[arg-type]


def test_twenty_bids_are_enough_for_an_order(genesis: Genesis) -> None:
    genesis.chain.state.params = Params(max_bids=1)
    genesis.created()
    genesis.bid()
    with pytest.raises(AssertionError, match="too many existing bids"):
        genesis.bid(genesis.other)
    with pytest.raises(AssertionError):
        genesis.bid(dseq=9)


def test_a_promised_notice_is_given(genesis: Genesis) -> None:
    bid = genesis.leased(window_s=3_600)
    leave = partial(market.close_bid, bid=bid, reason=market.DECOMMISSION)
    assert genesis.provider_refusal(leave) == "reclamation not started; call MsgLeaseStartReclaim first"
    notice = partial(market.start_reclaim, bid=bid, reason=market.DECOMMISSION)
    assert genesis.provider_refusal(notice) == ""
    assert lease(genesis).state == "reclaiming"
    assert lease(genesis).serves
    assert genesis.provider_refusal(notice) == "reclamation already in progress"
    assert genesis.provider_refusal(leave) == "reclamation window has not elapsed"
    genesis.chain.make_block(genesis.chain.state.time_s + 3_600)
    assert genesis.provider_refusal(leave) == ""
    assert lease(genesis).state == "closed"
    assert genesis.provider_refusal(leave) == "lease not active"


def test_the_owner_may_close_a_lease_that_is_reclaimed(genesis: Genesis) -> None:
    bid = genesis.leased(window_s=3_600)
    genesis.provider_refusal(partial(market.start_reclaim, bid=bid, reason=market.DECOMMISSION))
    assert genesis.deliver(genesis.owner.close_lease(1, genesis.provider)).code == 0


# -------------------------------------------------------------------------------------------------------- escrow


def test_rent_is_paid_for_whole_blocks_when_the_account_is_settled(genesis: Genesis) -> None:
    genesis.leased()
    genesis.blocks(99)
    assert genesis.deliver(genesis.owner.close(1)).code == 0
    assert bank.balance(genesis.chain.state, genesis.provider, "uact") == RICH + 100 * 10
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uact") == RICH - 100 * 10


def test_an_exhausted_escrow_closes_the_deployment_and_its_funds_are_negative(genesis: Genesis) -> None:
    """akash-network/support#368."""
    bid = genesis.leased(groups=(spec(price=6_000),), deposit=500_000)
    genesis.blocks(50_100)
    withdraw = partial(withdrawn, bid=bid)
    assert genesis.provider_refusal(withdraw) == ""
    row, group, account = deployment(genesis)
    assert (row.state, group.state, account.state) == ("closed", "insufficient_funds", "overdrawn")
    assert (lease(genesis).state, lease(genesis).reason) == (
        "insufficient_funds",
        "lease_closed_reason_insufficient_funds",
    )
    assert dict(account.funds)["uact"] == 500_000 * ONE - 50_101 * 10 * ONE
    assert bank.balance(genesis.chain.state, genesis.provider, "uact") == RICH + 500_000
    assert genesis.refusal(genesis.owner.close(1)) == ("deployment", 5, "Deployment closed")
    assert audit.problems(genesis.chain.state) == []


def withdrawn(state: Any, bid: Any) -> None:
    escrow.withdraw(state, f"{bid.owner}/{bid.dseq}", f"{bid.gseq}/{bid.oseq}/{bid.provider}")


def deposit(genesis: Genesis, amount: int, denom: str = "uact") -> AccountDeposit:
    xid = f"{genesis.owner.address}/1"
    return AccountDeposit(genesis.owner.address, EscrowId(1, xid), Deposit(Coin(denom, str(amount)), (1,)))


def test_a_deposit_adds_to_the_funds_and_costs_more_gas_the_longer_it_waited(genesis: Genesis) -> None:
    genesis.leased()
    first = genesis.deliver(deposit(genesis, 1_000))
    genesis.blocks(500)
    assert genesis.deliver(deposit(genesis, 1_000)).gas_used >= first.gas_used + 500 * 20
    assert dict(deployment(genesis)[2].funds)["uact"] == 502_000 * ONE


def test_a_deposit_into_a_closed_escrow_is_refused_for_good(genesis: Genesis) -> None:
    """akash-network/console#3531."""
    genesis.created()
    genesis.deliver(genesis.owner.close(1))
    assert genesis.refusal(deposit(genesis, 1_000)) == ("escrow", 2, "account closed")


def test_a_deposit_pays_the_debt_of_an_overdrawn_account_and_closes_it(genesis: Genesis) -> None:
    bid = genesis.leased()
    genesis.blocks(50_100)
    genesis.provider_refusal(partial(withdrawn, bid=bid))
    assert genesis.deliver(deposit(genesis, 10_000)).code == 0
    assert deployment(genesis)[2].state == "closed"
    assert bank.balance(genesis.chain.state, genesis.provider, "uact") == RICH + 50_101 * 10
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uact") == RICH - 50_101 * 10
    assert audit.problems(genesis.chain.state) == []


def test_uakt_may_be_put_into_an_escrow_and_comes_back(genesis: Genesis) -> None:
    genesis.leased()
    assert genesis.deliver(deposit(genesis, 5_000, "uakt")).code == 0
    before = bank.balance(genesis.chain.state, genesis.owner.address, "uakt")
    fee = 500_000 // 40
    genesis.deliver(genesis.owner.close(1))
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uakt") == before + 5_000 - fee
    assert audit.problems(genesis.chain.state) == []


# ------------------------------------------------------------------------------------------------------- minting


def mint(genesis: Genesis, uakt: int) -> MintAct:
    return MintAct(genesis.owner.address, genesis.owner.address, Coin("uakt", str(uakt)))


def status(genesis: Genesis) -> str:
    (row,) = genesis.chain.state.mints.values()
    return row.status


def test_minting_waits_for_the_epoch_and_keeps_a_spread(genesis: Genesis) -> None:
    found = genesis.deliver(mint(genesis, 10_000_000))
    response = decode(decode(found.data, TxMsgData).msg_responses[0].value, MintActResponse)
    assert response.id
    assert (response.id.source, response.id.height, response.status) == (genesis.owner.address, found.height, 1)
    assert status(genesis) == "pending"
    genesis.blocks(10)
    assert status(genesis) == "executed"
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uact") == RICH + 12_500_000 * 9_975 // 10_000
    assert audit.problems(genesis.chain.state) == []


def test_a_mint_below_the_floor_succeeds_at_first_and_is_canceled_after_three_epochs(genesis: Genesis) -> None:
    """akash-network/support#445: code 0 proves nothing."""
    assert genesis.deliver(mint(genesis, 1_000_000)).code == 0
    before = bank.balance(genesis.chain.state, genesis.owner.address, "uakt")
    genesis.blocks(20)
    assert status(genesis) == "pending"
    genesis.blocks(10)
    assert status(genesis) == "canceled"
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uakt") == before + 1_000_000
    assert audit.problems(genesis.chain.state) == []


def test_nothing_is_minted_while_minting_is_halted(genesis: Genesis) -> None:
    genesis.deliver(mint(genesis, 10_000_000))
    genesis.chain.state.mint_status = "mint_status_halt_cr"
    genesis.blocks(30)
    assert status(genesis) == "pending"
    assert genesis.refusal(mint(genesis, 10_000_000)) == ("bme", 6, "circuit breaker is active")
    wrong = MintAct(genesis.owner.address, genesis.owner.address, Coin("uact", "1"))
    assert genesis.refusal(wrong)[:2] == ("bme", 9)
