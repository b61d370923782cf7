import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning.akash import messages, protobuf, resources
from engram.provisioning.akash.cosmos import Coin, DecCoin, Duration, PackedMessage
from engram.provisioning.akash.errors import MalformedMessage, UnknownType
from engram.provisioning.akash.messages import (
    BidID,
    CloseDeployment,
    CreateDeployment,
    DeploymentID,
    Deposit,
    MintACTResponse,
    Source,
)
from engram.provisioning.akash.resources import Endpoint, EndpointKind, Resources
from engram.provisioning.akash.tx import TxRaw

_texts = st.text(string.ascii_letters + string.digits + "äß☃", max_size=8)
_uint32 = st.integers(0, 2**32 - 1)
_uint64 = st.integers(0, 2**64 - 1)


def _struct(of: type[msgspec.Struct], **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(of, **parts)


def _many(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3).map(tuple)


_attributes = _many(_struct(resources.Attribute, key=_texts, value=_texts))
_values = _struct(resources.ResourceValue, val=st.binary(max_size=6))
_resources = _struct(
    Resources,
    id=_uint32,
    cpu=_struct(resources.CPU, units=_values, attributes=_attributes),
    memory=_struct(resources.Memory, quantity=_values, attributes=_attributes),
    storage=_many(_struct(resources.Storage, name=_texts, quantity=_values, attributes=_attributes)),
    gpu=_struct(resources.GPU, units=_values, attributes=_attributes),
    endpoints=_many(_struct(Endpoint, kind=st.sampled_from(EndpointKind), sequence_number=_uint32)),
)
_groups = _struct(
    resources.GroupSpec,
    name=_texts,
    requirements=_struct(
        resources.PlacementRequirements,
        signed_by=_struct(resources.SignedBy, all_of=_many(_texts), any_of=_many(_texts)),
        attributes=_attributes,
    ),
    resources=_many(
        _struct(
            resources.ResourceUnit,
            resource=_resources,
            count=_uint32,
            price=_struct(DecCoin, denom=_texts, amount=_texts),
        )
    ),
)
_ids = _struct(DeploymentID, owner=_texts, dseq=_uint64)
_bids = _struct(BidID, owner=_texts, dseq=_uint64, gseq=_uint32, oseq=_uint32, provider=_texts, bseq=_uint32)
_coins = _struct(Coin, denom=_texts, amount=_texts)
_deposits = _struct(Deposit, amount=_coins, sources=_many(st.sampled_from(Source)))
_durations = _struct(Duration, seconds=_uint64, nanos=_uint32)
SENT = st.one_of(
    _struct(
        CreateDeployment,
        id=_ids,
        groups=_many(_groups),
        hash=st.binary(max_size=32),
        deposit=_deposits,
        reclamation=st.none() | _struct(messages.Reclamation, min_window=_durations),
    ),
    _struct(messages.UpdateDeployment, id=_ids, hash=st.binary(max_size=32)),
    _struct(CloseDeployment, id=_ids),
    _struct(messages.CreateLease, bid_id=_bids),
    _struct(messages.CloseLease, id=_bids, reason=st.sampled_from(messages.LeaseCloseReason)),
    _struct(
        messages.AccountDeposit,
        signer=_texts,
        id=_struct(messages.EscrowID, scope=st.sampled_from(messages.EscrowScope), xid=_texts),
        deposit=_deposits,
    ),
    _struct(messages.MintACT, owner=_texts, to=_texts, coins_to_burn=_coins),
)
"""Any message that is sent."""


@given(SENT)
def test_every_message_is_read_back_as_it_was(message: messages.Message) -> None:
    assert messages.unpack(messages.pack(message)) == message


@given(st.one_of(SENT.map(protobuf.encode), st.binary(max_size=200)))
def test_what_is_decoded_has_only_this_form(content: bytes) -> None:
    for of in (CreateDeployment, CloseDeployment, messages.CreateLease):
        try:
            decoded = protobuf.decode(content, of)
        except MalformedMessage:
            continue
        if not isinstance(decoded, CreateDeployment):  # its numbers may be packed, too
            assert protobuf.encode(decoded) == content


@given(SENT, st.data())
def test_no_part_of_a_message_is_taken_for_the_whole(message: messages.Message, data: st.DataObject) -> None:
    content = protobuf.encode(message)
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    try:
        decoded = protobuf.decode(cut, type(message))
    except MalformedMessage:
        return
    assert decoded != message


@given(SENT)
def test_an_answer_may_have_fields_that_are_not_known_and_a_message_may_not(message: messages.Message) -> None:
    content = protobuf.encode(message) + bytes.fromhex("fa0703616263")
    with pytest.raises(MalformedMessage, match="has no field 127"):
        protobuf.decode(content, type(message))
    assert protobuf.read(content, type(message)) == message


@pytest.mark.parametrize(
    ("content", "of", "reason"),
    [
        ("08", DeploymentID, "cut off"),
        ("1080", DeploymentID, "a number is cut off"),
        ("0a05616b", DeploymentID, "cut off: 5 bytes announced, 2 left"),
        ("108000", DeploymentID, "longer than it needs to be"),
        ("10ffffffffffffffffff02", DeploymentID, "longer than it needs to be"),
        ("10ffffffffffffffffffff01", DeploymentID, "longer than 64 bits"),
        ("1000", DeploymentID, "written though empty"),
        ("0a00", DeploymentID, "written though empty"),
        ("10011001", DeploymentID, "stands there twice"),
        ("10010a0161", DeploymentID, "stands behind field 2"),
        ("0801", DeploymentID, "wire type 0, not 2"),
        ("1201", DeploymentID, "cut off"),
        ("120101", DeploymentID, "wire type 2, not 0"),
        ("0a01ff", DeploymentID, "owner"),
        ("0001", DeploymentID, "field number 0"),
        ("0b", DeploymentID, "wire type 3"),
        ("1d01020304", DeploymentID, "has no field 3"),
        ("0803", Endpoint, "not a valid EndpointKind|3 is not"),
        ("108080808010", Endpoint, "not below 4294967296"),
        ("", CloseDeployment, "lacks field 1"),
        ("0a002a00", Deposit, "wire type 2, not 0"),
        ("0a002a0180", Deposit, "a number is cut off"),
    ],
)
def test_other_forms_are_refused_with_their_reason(content: str, of: type[msgspec.Struct], reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        protobuf.decode(bytes.fromhex(content), of)


def test_numbers_may_be_packed_as_go_packs_them() -> None:
    assert protobuf.decode(bytes.fromhex("0a002a020102"), Deposit) == Deposit(Coin(), (Source.BALANCE, Source.GRANT))
    assert protobuf.encode(Deposit()).hex() == "0a002801"


def test_a_field_that_is_absent_is_empty_whatever_the_default_of_ours() -> None:
    assert protobuf.decode(bytes.fromhex("0a00"), Deposit).sources == ()


def test_empty_parts_of_resources_are_written() -> None:
    assert protobuf.encode(Resources(endpoints=(Endpoint(),))).hex() == "12020a001a020a002a020a003200"


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_does_not_fit_is_not_written(number: int) -> None:
    with pytest.raises(ValueError, match=r"64 bits|not below"):
        protobuf.encode(DeploymentID("a", number))
    with pytest.raises(ValueError, match="not below"):
        protobuf.encode(BidID(gseq=2**32))


def test_messages_that_are_not_sent_here_are_refused_by_name() -> None:
    with pytest.raises(UnknownType, match=r"/cosmos.bank.v1beta1.MsgSend"):
        messages.unpack(PackedMessage("/cosmos.bank.v1beta1.MsgSend", b""))


def test_the_record_of_a_mint_is_read_from_the_result_of_its_transaction() -> None:
    record = messages.LedgerRecordID("uakt", "uact", "akash1owner", 120, 3)
    answer = protobuf.encode(MintACTResponse(record, 1))
    other = PackedMessage("/akash.market.v1beta5.MsgCreateLeaseResponse", b"")
    packed = (other, PackedMessage(messages.MINT_RESPONSE_URL, answer + bytes.fromhex("1801")))
    result = b"".join(b"\x12" + protobuf.varint(len(one)) + one for one in map(protobuf.encode, packed))
    assert messages.mint_responses(result) == (MintACTResponse(record, 1),)
    assert messages.mint_responses(b"") == ()
    assert TxRaw() == protobuf.decode(b"", TxRaw)


def test_what_an_answer_leaves_out_is_empty() -> None:
    assert protobuf.read(b"", MintACTResponse) == MintACTResponse()
    assert protobuf.read(b"", messages.CreateLease).bid_id == BidID()
