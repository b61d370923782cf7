"""Bytes and signatures: the peer's transactions are read and verified, what is not canonical is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.akash import addresses, manifests, transaction, wire
from tests.doubles.akash.account import Account
from tests.doubles.akash.errors import Refused
from tests.doubles.akash.genesis import RICH, VERSION, Genesis
from tests.doubles.akash.messages import (
    AccountDeposit,
    Coin,
    CreateDeployment,
    DeploymentId,
    Deposit,
    EscrowId,
    Send,
    TxBody,
    TxRaw,
)
from tests.doubles.akash.store import AccountRow

DATA = Path(__file__).parents[1] / "data" / "akash"
PEER = json.loads(gzip.decompress((DATA / "peer-tx-vectors.json.gz").read_bytes()))
CASES = PEER["cases"]
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
by_name = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


@by_name
def test_a_transaction_of_the_peer_is_read_and_its_signature_holds(case: dict[str, Any]) -> None:
    tx = transaction.decode(bytes.fromhex(case["tx_raw"]))
    key = transaction.check_key(tx, b"")
    assert key.hex() == PEER["pubkey"]
    assert tx.signer == PEER["owner"] == addresses.of_public_key(key)
    assert (tx.sequence, tx.fee.gas_limit) == (case["sequence"], case["gas"])
    assert [wire.encode(each).hex() for each in tx.messages] == [each["hex"] for each in case["msgs"]]
    transaction.check_signature(tx, key, case["chain_id"], case["account_number"])


@by_name
def test_the_signature_holds_for_no_other_chain_account_or_body(case: dict[str, Any]) -> None:
    tx = transaction.decode(bytes.fromhex(case["tx_raw"]))
    key = transaction.check_key(tx, b"")
    for chain_id, number in ((case["chain_id"], case["account_number"] + 1), ("akashnet-3", case["account_number"])):
        with pytest.raises(Refused, match="signature verification failed") as refused:
            transaction.check_signature(tx, key, chain_id, number)
        assert (refused.value.codespace, refused.value.code) == ("sdk", 4)


def test_the_other_half_of_a_signature_is_refused() -> None:
    """r and n - s verify as well; a transaction would have two hashes."""
    case = CASES[0]
    raw, signature = bytes.fromhex(case["tx_raw"]), bytes.fromhex(case["signature"])
    other = signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    tx = transaction.decode(raw.replace(signature, other))
    with pytest.raises(Refused, match="signature verification failed"):
        transaction.check_signature(tx, bytes.fromhex(PEER["pubkey"]), case["chain_id"], case["account_number"])


@by_name
def test_a_chain_whose_accounts_are_the_peers_takes_its_transactions(case: dict[str, Any]) -> None:
    """The peer's prices are in the millions; the deployments are created, or lack only what came before them."""
    genesis = Genesis()
    chain = genesis.chain
    chain.fund(PEER["owner"], uakt=RICH, uact=RICH)
    chain.state.accounts.put(PEER["owner"], AccountRow(PEER["owner"], case["account_number"], case["sequence"]))
    tx_hash = chain.check(bytes.fromhex(case["tx_raw"]))
    genesis.blocks()
    found = chain.lookup(tx_hash)
    assert found is not None
    expected = {"lease": 18, "close": 4}.get(case["name"], 0)
    assert found.code == expected, found.log


def test_deposit_sources_are_read_packed_and_unpacked() -> None:
    packed = bytes.fromhex("0a0e0a0475616374120635303030303" + "02a0101")
    unpacked = bytes.fromhex("0a0e0a0475616374120635303030303" + "02801")
    assert wire.decode(packed, Deposit) == wire.decode(unpacked, Deposit) == Deposit(Coin("uact", "500000"), (1,))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\x81\x00", "longer than it need be"),
        (b"\x10\x01\x0a\x01a", "out of order"),
        (b"\x0a\x01a\x0a\x01b", "given twice"),
        (b"\x1a\x00", "errUnknownField"),
        (b"\x0a\x05a", "unexpected EOF"),
        (b"\x0a\x01\xff", "no UTF-8"),
        (b"\x12\x00", "wire type 2"),
        (b"\x10" + b"\xff" * 10 + b"\x01", "64 bits"),
    ],
)
def test_what_is_not_canonical_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(wire.Malformed, match=reason):
        wire.decode(data, EscrowIdReversed if data.startswith(b"\x08") else DeploymentId)


class EscrowIdReversed(EscrowId, frozen=True):
    """Field 1 is a number there."""


def test_an_unknown_message_type_is_refused() -> None:
    raw = Account().sign(Send(), number=1)
    body = wire.decode(wire.decode(raw, TxRaw).body_bytes, TxBody)
    (known,) = body.messages
    unknown = TxBody((type(known)("/cosmos.gov.v1.MsgVote", known.value),))
    with pytest.raises(Refused, match=r"unable to resolve type URL /cosmos\.gov\.v1\.MsgVote") as refused:
        transaction.decode(wire.encode(TxRaw(wire.encode(unknown), wire.decode(raw, TxRaw).auth_info_bytes, (b"",))))
    assert (refused.value.codespace, refused.value.code) == ("sdk", 2)


@given(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 2**40))
def test_what_is_written_is_read_back(dseq: int, version: bytes, deposit: int) -> None:
    message = Account().create(dseq, version, deposit=deposit, window_s=3600)
    assert wire.decode(wire.encode(message), CreateDeployment) == message
    added = AccountDeposit("akash1", EscrowId(1, f"a/{dseq}"), Deposit(Coin("uact", str(deposit)), (1,)))
    assert wire.decode(wire.encode(added), AccountDeposit) == added


@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_anything_but_be_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        transaction.decode(raw)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_never_taken(at: int, change: int) -> None:
    genesis = Genesis()
    raw = bytearray(genesis.owner.sign(genesis.owner.close(1), number=genesis.number(), timeout_ns=genesis.timeout()))
    raw[at % len(raw)] ^= change
    with pytest.raises(Refused):
        genesis.chain.check(bytes(raw))


def test_addresses_have_a_checksum() -> None:
    assert addresses.is_valid(PEER["owner"])
    assert not addresses.is_valid(PEER["owner"][:-1] + "q")
    assert not addresses.is_valid("cosmos1" + PEER["owner"][6:])


GOLDENS = json.loads(gzip.decompress((DATA / "sdl-goldens.json.gz").read_bytes()))
MANIFESTS = json.loads(gzip.decompress((DATA / "peer-manifest-vectors.json.gz").read_bytes()))["vectors"]
COMPILED = [vector for vector in MANIFESTS if "error" not in vector]
"""Two the peer's release does not compile."""


@pytest.mark.parametrize("name", sorted(GOLDENS))
def test_a_golden_manifest_has_its_version(name: str) -> None:
    golden = GOLDENS[name]
    assert manifests.version(golden["manifest"]).hex() == golden["version_hash"].removeprefix("0x")


@pytest.mark.parametrize("vector", COMPILED, ids=[vector["name"] for vector in COMPILED])
def test_a_manifest_of_the_peer_has_its_version(vector: dict[str, str]) -> None:
    found = json.loads(vector["sorted_json"])
    assert manifests.sorted_json(found).decode() == vector["sorted_json"]
    assert manifests.version(found).hex() == vector["version_hex"]


def test_a_deployment_that_is_made_twice_in_one_transaction_is_not_made_at_all() -> None:
    genesis = Genesis()
    create = genesis.owner.create(1, VERSION)
    found = genesis.deliver(create, create)
    assert (found.code, found.log) == (3, "failed to execute message; message index: 1: Deployment exists")
    assert len(genesis.chain.state.deployments) == 0
