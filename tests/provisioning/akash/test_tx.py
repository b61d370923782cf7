import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning.akash import account, tx
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.errors import MalformedMessage
from engram.provisioning.akash.messages import CloseDeployment, DeploymentID, Message
from engram.provisioning.akash.protobuf import encode
from tests.provisioning.akash.test_protobuf import SENT
from tests.provisioning.akash.vectors import public_mnemonic, vectors

_SIGNER = account.Signer(account.secret_of(public_mnemonic()))
_CASES = vectors("peer-tx-vectors")["cases"]
_CLOSE = CloseDeployment(DeploymentID(_SIGNER.address, 1_760_000_000_000))
_ACCOUNT = tx.Account(12345)


@pytest.mark.parametrize("case", _CASES, ids=[case["name"] for case in _CASES])
def test_what_cosmjs_signed_is_decoded_and_signed_to_the_same_bytes(case: dict[str, object]) -> None:
    raw = bytes.fromhex(str(case["tx_raw"]))
    decoded = tx.decode_tx(raw)
    assert decoded.raw.body_bytes.hex() == case["body"]
    assert decoded.raw.auth_info_bytes.hex() == case["auth_info"]
    assert tx.sign_bytes_of(decoded, _ACCOUNT).hex() == case["signdoc"]
    assert decoded.ordering == tx.Ordered(int(str(case["sequence"])))
    assert decoded.signatures[0].hex() == case["signature"]

    again = tx.sign(decoded.messages, decoded.ordering, decoded.auth_info.fee, _ACCOUNT, _SIGNER)

    assert again.raw == raw
    assert again.hash == tx.hash_of(raw)


def test_no_signature_of_cosmjs_is_good_for_another_account_or_chain() -> None:
    for case in _CASES:
        decoded = tx.decode_tx(bytes.fromhex(case["tx_raw"]))
        for other, holds in ((_ACCOUNT, True), (tx.Account(12346), False), (tx.Account(12345, "akashnet-3"), False)):
            signed = tx.sign_bytes_of(decoded, other)
            assert account.verify(decoded.signatures[0], signed, _SIGNER.public_key) is holds


def test_an_unordered_transaction_bears_its_timeout_and_no_sequence() -> None:
    ordering = tx.Unordered(1_790_000_000_123_456_789)
    signed = tx.sign((_CLOSE,), ordering, tx.fee_of(200_000), _ACCOUNT, _SIGNER)
    decoded = tx.decode_tx(signed.raw)
    assert decoded.ordering == ordering
    assert decoded.body.unordered
    assert decoded.auth_info.signer_infos[0].sequence == 0
    assert decoded.raw.body_bytes.endswith(bytes.fromhex("20012a0b0880f7c4d50610959aef3a"))
    assert signed.hash == tx.hash_of(signed.raw)


def test_a_nanosecond_makes_another_transaction() -> None:
    hashes = {
        tx.sign((_CLOSE,), tx.Unordered(1_790_000_000_000_000_000 + at), tx.fee_of(1), _ACCOUNT, _SIGNER).hash
        for at in range(50)
    }
    assert len(hashes) == 50


def test_a_simulation_has_the_body_that_is_sent_no_fee_no_mode_and_an_empty_signature() -> None:
    ordering = tx.Unordered(1_790_000_000_000_000_000)
    simulated = tx.decode_tx(tx.for_simulation((_CLOSE,), ordering, _SIGNER.public_key))
    sent = tx.decode_tx(tx.sign((_CLOSE,), ordering, tx.fee_of(100_000), _ACCOUNT, _SIGNER).raw)
    assert simulated.raw.body_bytes == sent.raw.body_bytes
    assert simulated.signatures == (b"",)
    assert simulated.auth_info.fee == tx.Fee()
    assert simulated.auth_info.signer_infos[0].mode_info.single.mode == tx.UNSPECIFIED
    assert simulated.auth_info.signer_infos[0].public_key == sent.auth_info.signer_infos[0].public_key


@given(
    st.lists(SENT, min_size=1, max_size=3),
    st.one_of(
        st.builds(tx.Unordered, st.integers(1, 2**63)),
        st.builds(tx.Ordered, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    ),
    st.builds(tx.fee_of, st.integers(0, 10**12)),
    st.text(max_size=20),
)
def test_every_transaction_is_read_back_and_its_signature_verifies(
    messages: list[Message], ordering: tx.Ordering, fee: tx.Fee, memo: str
) -> None:
    decoded = tx.decode_tx(tx.sign(tuple(messages), ordering, fee, _ACCOUNT, _SIGNER, memo).raw)
    assert decoded.messages == tuple(messages)
    assert decoded.ordering == ordering
    assert decoded.auth_info.fee == fee
    assert decoded.body.memo == memo
    assert account.verify(decoded.signatures[0], tx.sign_bytes_of(decoded, _ACCOUNT), _SIGNER.public_key)


@given(st.binary(max_size=300))
def test_other_bytes_are_no_transaction(content: bytes) -> None:
    with pytest.raises(MalformedMessage):
        tx.decode_tx(content)


def test_an_unordered_transaction_without_a_timeout_is_refused() -> None:
    sent = tx.decode_tx(tx.sign((_CLOSE,), tx.Unordered(10**18), tx.fee_of(1), _ACCOUNT, _SIGNER).raw)
    body = encode(tx.TxBody(sent.body.messages, unordered=True))
    with pytest.raises(MalformedMessage, match="no timeout_timestamp"):
        _ = tx.decode_tx(encode(tx.TxRaw(body, sent.raw.auth_info_bytes, (b"",)))).ordering


def test_a_transaction_that_nobody_signs_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="no signer"):
        tx.decode_tx(encode(tx.TxRaw(b"", encode(tx.AuthInfo()), (b"",))))


@pytest.mark.parametrize("timeout_ns", [0, -1])
def test_a_timeout_before_1970_is_refused(timeout_ns: int) -> None:
    with pytest.raises(ValueError, match=f"{timeout_ns} ns"):
        tx.Unordered(timeout_ns)


def test_a_fee_is_rounded_up() -> None:
    assert tx.fee_of(400_001).amount == (Coin("uakt", "10001"),)
    assert tx.fee_of(100, "1").amount == (Coin("uakt", "100"),)
    assert tx.fee_of(0).amount == (Coin("uakt", "0"),)
