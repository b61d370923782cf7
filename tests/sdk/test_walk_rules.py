"""What a walk makes of what a node gives: nothing twice, no end that is not proved, no circle."""

import pytest

from engram.api.node_model import Commitment, Listed, Listing, Reference, References
from engram.clock import ManualClock
from engram.hotkeys import Keypair
from engram.memory.proof.keyed_tree import KeyedTree, key_of
from engram.sdk.errors import Impostor, ListingIncomplete, MalformedAnswer
from engram.sdk.node_calls import NodeCalls
from engram.sdk.walk_rules import LookUpWalk, Walk

NODE = Keypair.from_seed(bytes([3]) * 32)
HASH = "ab" * 32


def listed(number: int) -> Listed:
    return Listed(cid=f"v1::{number:064x}", embedding_hash=HASH)


def committed(*numbers: int, name: str = "__public__") -> Commitment:
    tree = KeyedTree(key_of(listed(number).cid) + bytes.fromhex(HASH) for number in numbers)
    now_ms = int(ManualClock().now() * 1000)
    signed = f"engram-commitment:keyed-1:{name}:{tree.root.hex()}:{len(tree)}:{now_ms}"
    signature = "0x" + NODE.sign(signed.encode()).hex()
    return Commitment(root_hex=tree.root.hex(), count=len(tree), signed=signed, signature=signature)


def walk() -> Walk:
    return Walk(NodeCalls(ManualClock()), None, NODE.public_key)


def test_what_is_stored_again_meanwhile_is_given_once() -> None:
    walking = walk()
    assert len(walking.take(Listing(records=[listed(1), listed(2)], next="a"))) == 2
    assert [
        memory.cid
        for memory in walking.take(Listing(records=[listed(1), listed(3)], next=None, commitment=committed(1, 2, 3)))
    ] == [listed(3).cid]
    assert walking.done
    walking.check()


@pytest.mark.parametrize(
    ("last", "raised"),
    [
        (Listing(records=[listed(2)], next=None, commitment=committed(1, 2, 3)), ListingIncomplete),
        (Listing(records=[listed(2)], next=None, commitment=committed(1)), ListingIncomplete),
        (Listing(records=[listed(2)], next=None, commitment=None), ListingIncomplete),
        (Listing(records=[listed(2)], next=None, commitment=committed(1, 2, name="other")), Impostor),
        (Listing(records=[listed(2)], next="a"), MalformedAnswer),
        (
            Listing(records=[Listed(cid="v1::2", embedding_hash="zz")], next=None, commitment=committed(1)),
            MalformedAnswer,
        ),
    ],
)
def test_an_end_that_proves_nothing_is_none(last: Listing, raised: type[Exception]) -> None:
    walking = walk()
    walking.take(Listing(records=[listed(1)], next="a"))
    with pytest.raises(raised):
        walking.take(last)
        assert walking.done
        walking.check()


def test_a_look_up_of_many_values_takes_several_requests_and_begins_each_anew() -> None:
    lookup = LookUpWalk(NodeCalls(ManualClock()), "_ref", [str(number % 300) for number in range(600)])
    bodies = []
    for page in (
        References(records=[Reference(cid="v1::1")], next="a"),
        References(records=[Reference(cid="v1::2")]),
        References(records=[Reference(cid="v1::3")]),
    ):
        bodies.append(lookup.request().body or b"")
        lookup.take(page)
    assert lookup.done
    assert [memory.cid for memory in lookup.memories()] == ["v1::1", "v1::2", "v1::3"]
    assert [b'"after":"a"' in body for body in bodies] == [False, True, False]
    assert [body.count(b'"2') > 0 for body in bodies] == [True, True, True]
    assert References(records=[]).next is None
