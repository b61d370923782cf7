"""Signatures: the same as everybody else's, in one spelling only."""

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from engram.payments.eip712 import CURVE_ORDER, recover, sign
from engram.payments.errors import MalformedAddress, UnknownNetwork
from engram.payments.keccak import checksummed, parse_address
from engram.payments.model import Authorization
from engram.payments.networks import BASE, BASE_SEPOLIA, PLAY, Network, find
from tests.payments import builders

TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


def signed_by_eth_account(signed: Authorization, network: Network) -> bytes:
    domain = {
        "name": network.asset_name,
        "version": network.asset_version,
        "chainId": network.chain_id,
        "verifyingContract": checksummed(network.asset),
    }
    message = {
        "from": checksummed(signed.payer),
        "to": checksummed(signed.pay_to),
        "value": signed.value,
        "validAfter": signed.valid_after,
        "validBefore": signed.valid_before,
        "nonce": signed.nonce,
    }
    return bytes(Account.sign_typed_data(builders.KEY.secret, domain, TYPES, message).signature)


@pytest.mark.parametrize("network", [PLAY, BASE, BASE_SEPOLIA])
def test_our_signature_is_the_one_that_eth_account_makes(network: Network) -> None:
    signed = builders.authorization()
    assert sign(signed, network, builders.KEY) == signed_by_eth_account(signed, network)


@given(st.integers(0, 2**256 - 1), st.binary(min_size=32, max_size=32))
def test_a_signature_recovers_to_its_payer_and_only_over_what_was_signed(value: int, nonce: bytes) -> None:
    signed = builders.authorization(value=value, nonce=nonce)
    signature = sign(signed, PLAY, builders.KEY)
    assert recover(signed, PLAY, signature) == builders.PAYER
    assert recover(signed, BASE, signature) != builders.PAYER
    assert recover(builders.authorization(value=value ^ 1, nonce=nonce), PLAY, signature) != builders.PAYER


def test_the_other_half_of_the_curve_is_no_second_spelling() -> None:
    signed = builders.authorization()
    signature = sign(signed, PLAY, builders.KEY)
    high = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + high.to_bytes(32, "big") + bytes((55 - signature[64],))
    assert recover(signed, PLAY, twin) is None


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(64), bytes(65), bytes(64) + b"\x1b", b"\xff" * 64 + b"\x1b", b"\x01" * 64 + b"\x1d", bytes(66)],
)
def test_what_is_no_signature_recovers_to_nobody(signature: bytes) -> None:
    assert recover(builders.authorization(), PLAY, signature) is None


def test_a_point_that_is_not_on_the_curve_recovers_to_nobody() -> None:
    tries = [r.to_bytes(32, "big") + bytes(31) + b"\x01\x1b" for r in range(1, 30)]
    assert None in [recover(builders.authorization(), PLAY, signature) for signature in tries]


def test_networks_are_found_by_both_names() -> None:
    assert find("base") is find("eip155:8453") is BASE
    assert find("base-sepolia") is BASE_SEPOLIA
    with pytest.raises(UnknownNetwork, match=r"'solana'.*base-sepolia"):
        find("solana")


def test_only_the_play_network_is_play_money() -> None:
    assert [network.caip2 for network in (PLAY, BASE, BASE_SEPOLIA) if network.play] == ["eip155:31337"]


@pytest.mark.parametrize("text", ["0x" + checksummed(BASE.asset)[2:].swapcase(), "0x12", "12" * 20, "0x" + "zz" * 20])
def test_a_mistyped_address_is_refused(text: str) -> None:
    with pytest.raises(MalformedAddress):
        parse_address(text)


def test_an_address_may_be_written_without_checksum() -> None:
    plain = BASE.asset.hex()
    for text in ("0x" + plain, "0x" + plain.upper(), checksummed(BASE.asset)):
        assert parse_address(text) == BASE.asset
