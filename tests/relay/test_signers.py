"""Streams name their signer: nonces are told apart by it, each is signed by its own key, and old rows get theirs."""

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, select, update

from engram.hotkeys import Keypair
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.relay import MinerScore, PayloadSigner, is_signed, records, scores_payload
from engram.relay.model import Answered, Enqueued, EntryState
from engram.relay.rules import Decision
from engram.relay.signer import Keyring
from engram.relay.tables import relay_outbox, relay_signatures, relay_streams
from tests.relay.samples import KEYRING, NOW, SIGNER, payload, queue, write

REFUSED = Decision(EntryState.ABANDONED, 1, NOW, "the receiver answered 400")
OTHER = PayloadSigner.of(Keypair.from_uri("//Bob"))


@pytest.fixture
def ledger() -> Iterator[InlineLedger]:
    ledger = open_inline()
    yield ledger
    ledger.close()


def scores(netuid: int = 450, recall: float = 1.0) -> object:
    return scores_payload({"0": MinerScore(recall, None, 1.0)}, netuid=netuid, block=7, uid=5, round_ts=NOW)


def test_a_nonce_of_another_subnet_or_signer_is_another_payload_and_none_is_lost(ledger: InlineLedger) -> None:
    found = [scores(450), scores(451), scores(450)]
    assert len({each.nonce for each in found}) == 1  # type: ignore[attr-defined]  # payloads
    queued = [
        write(ledger, lambda c, p=each, s=signer: records.enqueue(c, p, NOW, signer=s))  # type: ignore[misc]
        for each, signer in zip(found, (SIGNER.hotkey, SIGNER.hotkey, OTHER.hotkey), strict=True)
    ]
    assert queued == [Enqueued.QUEUED] * 3
    again = write(ledger, lambda c: records.enqueue(c, found[0], NOW, signer=SIGNER.hotkey))  # type: ignore[arg-type]
    assert again is Enqueued.KNOWN
    claimed = write(ledger, lambda c: records.claim(c, NOW, Keyring(SIGNER, OTHER).sign, room=5))
    assert len(claimed) == 3


def test_each_stream_is_signed_by_its_own_key_and_so_is_its_gap_marker(ledger: InlineLedger) -> None:
    keyring = Keyring(SIGNER)
    keyring.add(OTHER)
    for signer in (SIGNER, OTHER):
        write(ledger, lambda c, s=signer: records.enqueue(c, payload(1), NOW, signer=s.hotkey))  # type: ignore[misc]
    for _ in ("payload", "gap"):
        claimed = write(ledger, lambda c: records.claim(c, NOW, keyring.sign, room=5))
        documents = [json.loads(entry.signed or b"") for entry in claimed]
        assert [each["validator_hotkey"] for each in documents] == [SIGNER.hotkey, OTHER.hotkey]
        assert all(is_signed(each) for each in documents)
        for entry in claimed:
            write(ledger, lambda c, e=entry: records.settle(c, e, Answered(400), REFUSED, NOW))  # type: ignore[misc]
    assert keyring.heir == SIGNER.hotkey


def test_what_no_key_of_this_process_can_sign_is_parked_and_says_whose_it_is(ledger: InlineLedger) -> None:
    unsent: list[str | None] = []
    write(ledger, lambda c: records.enqueue(c, payload(1), NOW, signer=OTHER.hotkey))
    found = write(ledger, lambda c: records.claim(c, NOW, KEYRING.sign, unsent=lambda e: unsent.append(e.last_reason)))
    assert found == []
    reason = f"the key of its signer {OTHER.hotkey} is not in this process"
    assert unsent == [reason, reason], "its gap marker cannot be signed either"
    (parked,) = write(ledger, records.dlq_list)
    assert (parked.state, parked.last_reason) == (EntryState.ABANDONED, reason)
    write(ledger, lambda c: records.dlq_retry(c, parked.id, NOW))
    (again,) = write(ledger, lambda c: records.claim(c, NOW, Keyring(OTHER).sign))
    assert again.id == parked.id, "once the key is there it can be retried"


def former(connection: Connection) -> None:
    """The rows as earlier versions wrote those of a gateway: without a signer."""
    connection.execute(update(relay_streams).values(signer=""))
    connection.execute(update(relay_signatures).values(signer=""))


def test_streams_and_signatures_without_a_signer_become_those_of_the_heir(ledger: InlineLedger) -> None:
    queue(ledger, 1, 2)
    (first,) = write(ledger, lambda c: records.claim(c, NOW, KEYRING.sign))
    write(ledger, former)
    assert write(ledger, lambda c: records.adopt(c, SIGNER.hotkey)) == 1
    assert write(ledger, lambda c: records.adopt(c, SIGNER.hotkey)) == 0
    assert [stream.signer for stream in write(ledger, records.streams)] == [SIGNER.hotkey]
    assert write(ledger, lambda c: list(c.scalars(select(relay_signatures.c.signer)))) == [SIGNER.hotkey]
    assert first.state is EntryState.SENDING
    write(ledger, lambda c: records.enqueue(c, payload(1), NOW, signer=SIGNER.hotkey))
    assert len(write(ledger, lambda c: list(c.scalars(select(relay_outbox.c.id))))) == 2, "its nonce is still known"


def test_former_streams_are_put_behind_those_that_the_heir_has_and_keep_their_order(ledger: InlineLedger) -> None:
    queue(ledger, 1, 2, 3)
    write(ledger, former)
    queue(ledger, 1, 4)
    write(ledger, lambda c: records.adopt(c, SIGNER.hotkey))
    (stream,) = write(ledger, records.streams)
    assert (stream.pending, write(ledger, lambda c: records.count(c, "pending"))) == (5, 5)
    blocks = []
    while claimed := write(ledger, lambda c: records.claim(c, NOW, KEYRING.sign)):
        (entry,) = claimed
        blocks.append(entry.block)
        done = Decision(EntryState.DELIVERED, 1, NOW, "")
        write(ledger, lambda c, e=entry, d=done: records.settle(c, e, Answered(200), d, NOW))  # type: ignore[misc]
    assert blocks == [1001, 1004, 1001, 1002, 1003]
    queue(ledger, 5)
