import json
import time

import msgspec
import pytest

from engram.chain.answer import NEURON_FIELDS, MetagraphAnswer, matches, metagraph_answer, prepare
from engram.chain.bodies import BODIES_KEPT, Addresses
from engram.chain.errors import SubnetNotSynced, UnknownField
from engram.chain.sync.subnets import Subnets, SyncState
from engram.clock import ManualClock
from engram.hotkeys import ss58
from tests.chain.samples import key, metagraph, neuron, read, scale


def view() -> Subnets:
    subnets = Subnets(ManualClock(), (450,), 60.0)
    subnets.note(SyncState(network="bittensor"))
    subnets.publish(read(scale()), ())
    return subnets


def body(answer: MetagraphAnswer) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer.body)
    return found


def test_the_answer_has_the_fields_of_the_original_and_the_neurons() -> None:
    found = body(metagraph_answer(view(), 450))
    neurons = found.pop("neurons")
    note = found.pop("note")
    assert found == {"network": "bittensor", "block": 1100, "netuid": 450}
    assert "recording" in str(note)
    assert isinstance(neurons, list)
    assert len(neurons) == 256
    assert tuple(neurons[0]) == tuple(NEURON_FIELDS)
    assert neurons[1]["hotkey"] == "5D9rvunSARJN1iWZBemznXSzde1n8wdmskpq2eXJUPvwLJqU"
    assert (neurons[1]["ip"], neurons[1]["port"], neurons[0]["ip"]) == ("13.89.38.129", 9999, None)
    assert neurons[2]["incentive"] == round(40695 / 65535, 6)
    assert neurons[1]["stake"] == 99.16203064


def test_fields_select_what_is_told_of_a_neuron() -> None:
    found = body(metagraph_answer(view(), 450, "hotkey, stake_rao"))
    assert isinstance(found["neurons"], list)
    assert tuple(found["neurons"][0]) == ("uid", "hotkey", "stake_rao")
    assert metagraph_answer(view(), 450, "stake_rao,hotkey") == metagraph_answer(view(), 450, "hotkey,stake_rao")


@pytest.mark.parametrize("fields", ["", "block", "network,block,note"])
def test_without_neuron_fields_there_are_no_neurons(fields: str) -> None:
    assert list(body(metagraph_answer(view(), 450, fields))) == ["network", "block", "netuid", "note"]


def test_an_unknown_field_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownField, match="unknown fields secret; known: uid, hotkey"):
        metagraph_answer(view(), 450, "hotkey,secret")


def test_a_subnet_that_is_not_synced_is_refused_with_those_that_are() -> None:
    with pytest.raises(SubnetNotSynced, match=r"subnet 11 is not synced here; synced: 450") as refused:
        metagraph_answer(view(), 11)
    assert (refused.value.netuid, refused.value.synced) == (11, (450,))
    with pytest.raises(SubnetNotSynced, match="synced: none"):
        metagraph_answer(Subnets(ManualClock(), (450,), 60.0), 450)


def test_an_answer_the_client_holds_already_is_not_sent_again() -> None:
    subnets = view()
    first = metagraph_answer(subnets, 450)
    again = metagraph_answer(subnets, 450, None, first.etag)
    assert (again.status, again.body, again.etag) == (304, b"", first.etag)
    assert metagraph_answer(subnets, 450, "hotkey", first.etag).status == 200
    subnets.publish(msgspec.structs.replace(read(scale()), block=1101), ())
    newer = metagraph_answer(subnets, 450, None, first.etag)
    assert (newer.status, body(newer)["block"]) == (200, 1101)


@pytest.mark.parametrize(
    ("header", "named"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False), ("", False)],
)
def test_if_none_match_is_compared_weakly(header: str, named: bool) -> None:
    assert matches(header, '"a"') is named


def test_an_answer_is_encoded_once_per_block_and_selection() -> None:
    subnets = view()
    one, other = metagraph_answer(subnets, 450, "uid"), metagraph_answer(subnets, 450, "uid")
    assert one.body is other.body


async def test_the_whole_answer_can_be_encoded_ahead_of_the_first_request() -> None:
    subnets = view()
    metagraph = subnets.get(450)
    assert metagraph is not None
    await prepare(subnets, metagraph)
    assert len(subnets.bodies) == 1
    kept = subnets.bodies.get(metagraph, tuple(NEURON_FIELDS))
    assert kept is not None
    assert metagraph_answer(subnets, 450).body is kept.body


def test_remembered_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.chain.bodies.ADDRESSES_KEPT", 10)
    addresses = Addresses()
    for number in range(35):
        assert addresses.of(key(number)) == ss58.encode(key(number))
    assert len(addresses) <= 10


def test_encoded_answers_are_bounded() -> None:
    subnets = Subnets(ManualClock(), (450,), 60.0)
    for netuid in range(BODIES_KEPT + 20):
        subnets.publish(metagraph(neuron(0, 1), netuid=netuid), ())
        metagraph_answer(subnets, netuid)
    assert len(subnets.bodies) == BODIES_KEPT


def test_the_age_is_told_beside_the_body() -> None:
    clock = ManualClock()
    subnets = Subnets(clock, (450,), 60.0)
    subnets.publish(metagraph(neuron(0, 1), read_at_s=clock.monotonic()), ())
    first = metagraph_answer(subnets, 450)
    clock.advance(30.0)
    later = metagraph_answer(subnets, 450)
    assert (first.age_s, later.age_s) == (0.0, 30.0)
    assert (first.etag, first.body) == (later.etag, later.body)


def test_a_live_answer_says_whether_a_second_endpoint_confirmed_it() -> None:
    subnets = view()
    alone = metagraph(neuron(0, 1), netuid=1)
    subnets.publish(alone, ())
    subnets.publish(msgspec.structs.replace(alone, netuid=2, witness="https://other"), ())
    assert body(metagraph_answer(subnets, 1))["note"] == "Read at a finalized block of bittensor."
    assert "second endpoint" in str(body(metagraph_answer(subnets, 2))["note"])
    assert "https" not in str(body(metagraph_answer(subnets, 2))["note"])


@pytest.mark.serial
def test_the_answer_takes_under_two_milliseconds() -> None:
    subnets = view()
    metagraph_answer(subnets, 450)
    for fields in (None, "hotkey,stake_rao,ip,port"):
        took_s = []
        for _ in range(20):
            started = time.perf_counter()
            metagraph_answer(subnets, 450, fields)
            took_s.append(time.perf_counter() - started)
        assert min(took_s) < 0.002
