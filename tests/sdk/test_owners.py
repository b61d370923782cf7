"""A client that signs has not stored what belongs to somebody else, unless it was told to take it so."""

import msgspec
import pytest

from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.sdk.errors import NodeRefused
from engram.sdk.node_calls import NodeCalls
from engram.sdk.transport import Answer

KEYPAIR = Keypair.from_seed(bytes([9]) * 32)
CID = "v1::" + "0" * 64


def answer(**fields: object) -> Answer:
    return Answer(200, {}, msgspec.json.encode({"cid": CID, "error": None, **fields}))


LOST = [
    {"owner": None, "owner_reason": "signature_stale"},
    {"owner": "5F…", "owner_reason": "stored_first_by_other"},
    {"owner": None, "owner_reason": "stored_first_unsigned"},
    {"owner": "5F…"},
]


@pytest.mark.parametrize("fields", LOST, ids=str)
def test_what_is_not_the_senders_is_refused_with_its_owner(fields: dict[str, object]) -> None:
    call = NodeCalls(SystemClock(), KEYPAIR).ingest("a", None)
    with pytest.raises(NodeRefused, match="belongs to") as refused:
        call.read(answer(**fields))
    assert (refused.value.code, refused.value.cid, refused.value.owner) == ("not_owner", CID, fields["owner"])


@pytest.mark.parametrize("fields", LOST, ids=str)
def test_a_client_that_does_not_sign_or_does_not_mind_takes_it(fields: dict[str, object]) -> None:
    for calls in (NodeCalls(SystemClock()), NodeCalls(SystemClock(), KEYPAIR, strict=False)):
        assert calls.ingest("a", None).read(answer(**fields)) == CID


@pytest.mark.parametrize("fields", [{}, {"owner": None}, {"owner": KEYPAIR.ss58}], ids=str)
def test_what_is_the_senders_or_of_a_miner_that_does_not_say_is_stored(fields: dict[str, object]) -> None:
    assert NodeCalls(SystemClock(), KEYPAIR).ingest("a", None).read(answer(**fields)) == CID
