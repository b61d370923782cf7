"""What a node looks at before a transaction waits, and what becomes of it in a block."""

from typing import Any

import pytest

from tests.doubles.akash import audit, bank
from tests.doubles.akash.account import Account
from tests.doubles.akash.errors import Refused
from tests.doubles.akash.genesis import RICH, VERSION, Genesis
from tests.doubles.akash.messages import Coin, Message, Send


@pytest.fixture
def genesis() -> Genesis:
    return Genesis()


def refusal(genesis: Genesis, raw: bytes) -> tuple[str, int, str]:
    with pytest.raises(Refused) as refused:
        genesis.chain.check(raw)
    return refused.value.codespace, refused.value.code, str(refused.value)


def gift(genesis: Genesis, amount: int = 1) -> Message:
    return Send(genesis.owner.address, genesis.provider, (Coin("uakt", str(amount)),))


def signed(genesis: Genesis, **given: Any) -> bytes:
    return genesis.owner.sign(gift(genesis), **{"number": genesis.number(), **given})


# ------------------------------------------------------------------------------------------------------ unordered


def test_an_unordered_transaction_takes_effect_once(genesis: Genesis) -> None:
    raw = signed(genesis, timeout_ns=genesis.timeout())
    tx_hash = genesis.chain.check(raw)
    assert refusal(genesis, raw) == ("sdk", 19, "tx already exists in cache: tx already in mempool")
    assert genesis.chain.lookup(tx_hash) is None
    genesis.blocks()
    assert genesis.chain.lookup(tx_hash)
    assert refusal(genesis, raw)[1] == 19
    assert bank.balance(genesis.chain.state, genesis.provider, "uakt") == 1


def test_many_unordered_transactions_of_one_signer_are_in_one_block(genesis: Genesis) -> None:
    hashes = [genesis.chain.check(signed(genesis, timeout_ns=genesis.timeout())) for _ in range(100)]
    genesis.blocks()
    found = [genesis.chain.lookup(each) for each in hashes]
    assert {each.height for each in found if each} == {genesis.chain.state.height}
    assert bank.balance(genesis.chain.state, genesis.provider, "uakt") == 100


@pytest.mark.parametrize("committed", [False, True])
def test_a_timeout_is_unique_to_the_nanosecond(genesis: Genesis, committed: bool) -> None:
    timeout = genesis.timeout()
    genesis.chain.check(signed(genesis, timeout_ns=timeout))
    if committed:
        genesis.blocks()
    codespace, code, text = refusal(genesis, signed(genesis, timeout_ns=timeout, memo="other"))
    assert (codespace, code) == ("sdk", 18)
    assert "already used timeout" in text
    genesis.chain.check(signed(genesis, timeout_ns=timeout + 1))


def test_a_timeout_that_is_over_or_too_far_is_refused(genesis: Genesis) -> None:
    over = "unordered transaction has a timeout_timestamp that has already passed: invalid request"
    assert refusal(genesis, signed(genesis, timeout_ns=genesis.timeout(-1))) == ("sdk", 18, over)
    far = "unordered tx ttl exceeds 10m0s: invalid request"
    assert refusal(genesis, signed(genesis, timeout_ns=genesis.timeout(601))) == ("sdk", 18, far)
    genesis.chain.check(signed(genesis, timeout_ns=genesis.timeout(599)))


def test_an_unordered_transaction_has_no_sequence(genesis: Genesis) -> None:
    raw = signed(genesis, timeout_ns=genesis.timeout(), sequence=1)
    text = "sequence is not allowed for unordered transactions: invalid request"
    assert refusal(genesis, raw) == ("sdk", 18, text)


def test_one_that_waits_until_its_time_is_over_is_never_in_a_block(genesis: Genesis) -> None:
    tx_hash = genesis.chain.check(signed(genesis, timeout_ns=genesis.timeout(5)))
    genesis.chain.make_block(genesis.chain.state.time_s + 10)
    assert genesis.chain.lookup(tx_hash) is None
    assert bank.balance(genesis.chain.state, genesis.provider, "uakt") == 0
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uakt") == RICH


# -------------------------------------------------------------------------------------------------------- ordered


def test_ordered_transactions_follow_one_another(genesis: Genesis) -> None:
    for sequence in range(3):
        genesis.chain.check(signed(genesis, sequence=sequence))
    text = "account sequence mismatch, expected 3, got 2: incorrect account sequence"
    assert refusal(genesis, signed(genesis, sequence=2, memo="again")) == ("sdk", 32, text)
    genesis.blocks()
    row = genesis.chain.state.accounts.get(genesis.owner.address)
    assert row
    assert row.sequence == 3


def test_an_ordered_transaction_is_refused_after_its_height(genesis: Genesis) -> None:
    genesis.blocks(3)
    text = "block height: 4, timeout height: 3: tx timeout height"
    assert refusal(genesis, signed(genesis, timeout_height=3)) == ("sdk", 30, text)


def test_unordered_ones_leave_the_sequence_alone(genesis: Genesis) -> None:
    genesis.chain.check(signed(genesis, timeout_ns=genesis.timeout()))
    genesis.chain.check(signed(genesis, sequence=0))
    genesis.blocks()
    assert bank.balance(genesis.chain.state, genesis.provider, "uakt") == 2


# ----------------------------------------------------------------------------------------- signature, fee, gas


def test_another_key_another_chain_and_another_account_are_unauthorized(genesis: Genesis) -> None:
    text = "signature verification failed; please verify account number"
    for given in ({"number": genesis.number() + 1}, {"chain_id": "akashnet-1"}):
        codespace, code, log = refusal(genesis, signed(genesis, timeout_ns=genesis.timeout(), **given))
        assert (codespace, code) == ("sdk", 4)
        assert log.startswith(text)
    stranger = Account(b"stranger").sign(gift(genesis), number=genesis.number(), timeout_ns=genesis.timeout())
    assert refusal(genesis, stranger)[:2] == ("sdk", 8)


def test_an_account_that_was_never_funded_is_unknown(genesis: Genesis) -> None:
    poor = Account(b"poor")
    raw = poor.sign(Send(poor.address, genesis.provider, (Coin("uakt", "1"),)), number=1, timeout_ns=genesis.timeout())
    assert refusal(genesis, raw) == ("sdk", 9, f"fee payer address: {poor.address} does not exist: unknown address")


def test_a_fee_below_the_least_is_refused(genesis: Genesis) -> None:
    raw = signed(genesis, timeout_ns=genesis.timeout(), gas=400_000, fee=999)
    assert refusal(genesis, raw) == ("sdk", 13, "insufficient fees; got: 999uakt required: 1000uakt: insufficient fee")


def test_a_fee_that_cannot_be_paid_is_refused(genesis: Genesis) -> None:
    genesis.chain.drain(genesis.owner.address, "uakt")
    text = "spendable balance 0uakt is smaller than 12500uakt: insufficient funds"
    assert refusal(genesis, signed(genesis, timeout_ns=genesis.timeout())) == ("sdk", 5, text)


def test_gas_that_runs_out_costs_the_fee_and_does_nothing_else(genesis: Genesis) -> None:
    tx_hash = genesis.chain.check(signed(genesis, timeout_ns=genesis.timeout(), gas=50_000))
    genesis.blocks()
    found = genesis.chain.lookup(tx_hash)
    assert found
    assert (found.codespace, found.code) == ("sdk", 11)
    assert found.log.startswith("out of gas in location: WriteFlat; gasWanted: 50000, gasUsed: ")
    assert bank.balance(genesis.chain.state, genesis.provider, "uakt") == 0
    assert bank.balance(genesis.chain.state, genesis.owner.address, "uakt") == RICH - 1_250
    assert audit.problems(genesis.chain.state) == []


def test_simulation_names_the_gas_and_changes_nothing(genesis: Genesis) -> None:
    create = genesis.owner.create(1, VERSION)
    raw = genesis.owner.sign(create, number=genesis.number(), timeout_ns=genesis.timeout(), gas=0, fee=0)
    gas = genesis.chain.simulate(raw)
    assert len(genesis.chain.state.deployments) == 0
    ordered = genesis.owner.sign(create, number=genesis.number(), gas=0, fee=0)
    assert gas - genesis.chain.simulate(ordered) > 2_240
    with pytest.raises(Refused, match="expected 0, got 5"):
        genesis.chain.simulate(genesis.owner.sign(create, number=genesis.number(), sequence=5))


def test_a_failed_transaction_is_in_a_block_with_its_code(genesis: Genesis) -> None:
    found = genesis.deliver(genesis.owner.close(5))
    assert (found.codespace, found.code) == ("deployment", 4)
    assert found.log == "failed to execute message; message index: 0: Deployment not found"


def test_what_waits_when_a_node_restarts_is_lost_and_may_be_sent_again(genesis: Genesis) -> None:
    raw = signed(genesis, timeout_ns=genesis.timeout())
    genesis.chain.check(raw)
    genesis.chain.lose_waiting()
    genesis.blocks()
    tx_hash = genesis.chain.check(raw)
    genesis.blocks()
    assert genesis.chain.lookup(tx_hash)
