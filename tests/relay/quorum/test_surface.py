"""The surface for other validators on a real socket: who may ask, and what is said to garbage."""

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio

from config.model import HttpSettings
from engram.api import validator_peers as api
from engram.clock import SeededIds
from engram.hotkeys import Keypair, epistula, sign_headers
from engram.http.client import HttpClient
from engram.relay.finality import Finality
from engram.relay.quorum import evidence
from engram.relay.quorum.model import COSIGNATURES_MOST, CandidateState
from engram.relay.quorum.peer_client import PeerClient
from engram.relay.quorum.proposals import MalformedProposal
from engram.relay.quorum.subnet_now import Peer
from engram.validator import peers_app as peers_app_module
from engram.validator.peers_app import peers_app
from tests.http.harness import serving
from tests.relay.quorum.test_quorum import LIE, queued
from tests.relay.quorum.validators import FIRST_BLOCK, HASH, SCORES, Subnet, Validator, proposal
from tests.validator.benches import key

SETTINGS = HttpSettings(requests_per_minute_per_ip=0)


class Net:
    """Validators of one subnet, each but the first behind a socket of its own."""

    def __init__(self, subnet: Subnet, urls: dict[bytes, str], http: HttpClient) -> None:
        self.subnet, self.urls, self.http = subnet, urls, http
        self.ids = SeededIds(5)

    def connect(self, validator: Validator) -> None:
        """Let it ask the others over the network."""
        client = PeerClient(self.http, validator.keypair, self.subnet.clock, self.ids, 5.0)
        ports = msgspec.structs.replace(validator.proposing._ports, client=client, peers=lambda: self.peers(validator))
        validator.proposing._ports = ports

    def peers(self, of: Validator) -> list[Peer]:
        return [Peer(public_key, url) for public_key, url in self.urls.items() if public_key != of.keypair.public_key]

    def headers(self, body: bytes, keypair: Keypair, receiver: Keypair) -> dict[str, str]:
        return sign_headers(
            epistula.V2,
            keypair,
            now_ns=int(self.subnet.clock.now() * 1_000_000_000),
            body=body,
            uuid=self.ids.uuid4(),
            receiver=receiver.public_key,
        )

    async def post(self, validator: Validator, body: bytes, headers: dict[str, str], path: str = "") -> tuple[int, Any]:
        url = self.urls[validator.keypair.public_key] + (path or api.PROPOSE.path)
        lines = {"content-type": "application/json", **headers}
        answer = await self.http.request(
            "POST", url, content=body, headers=lines, connect_s=5.0, read_s=5.0, total_s=5.0, max_bytes=100_000
        )
        return answer.status, answer.json()


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    subnet, http = Subnet(3), HttpClient()
    _, second, third = subnet.validators
    async with serving(app_of(second), SETTINGS) as at_second, serving(app_of(third), SETTINGS) as at_third:
        urls = {second.keypair.public_key: at_second.address.url, third.keypair.public_key: at_third.address.url}
        net = Net(subnet, urls, http)
        subnet.clock.advance(60.0)  # what was signed before they started could be a replay
        net.connect(subnet.validators[0])
        yield net
    await http.aclose()
    subnet.close()


def app_of(validator: Validator) -> Any:
    return peers_app(
        validator.cosigner,
        validator.keypair,
        settings=SETTINGS,
        clock=validator.subnet.clock,
        ids=SeededIds(7),
        metrics=validator.metrics,
    )


def proposed(keypair: Keypair) -> bytes:
    document = msgspec.Raw(proposal(keypair).document)
    return msgspec.json.encode(api.ProposedOutput(payload=document, block_hash=HASH.hex()))


async def test_scores_leave_with_signatures_that_came_over_the_network(net: Net) -> None:
    proposer, second, third = net.subnet.validators
    for each in net.subnet.validators:
        each.offer()
    net.subnet.turn_of(0)
    await proposer.proposing.look()
    (bundle,) = queued(proposer)
    signers = {each["hotkey"] for each in bundle["cosignatures"]}  # type: ignore[attr-defined]  # JSON
    assert signers == {second.keypair.ss58, third.keypair.ss58}
    assert second.candidate().state is third.candidate().state is CandidateState.SETTLED


async def test_a_lie_is_refused_over_the_network_and_both_sides_keep_the_evidence(net: Net) -> None:
    liar, second, third = net.subnet.validators
    liar.offer(LIE)
    net.subnet.turn_of(0)
    await liar.proposing.look()
    assert queued(liar) == []
    judges = {each.judge for each in liar.ledger.write_now(evidence.newest)}
    assert judges == {second.keypair.ss58, third.keypair.ss58}
    (found,) = second.ledger.write_now(evidence.newest)
    assert {each.field for each in found.differences} == {"recall", "latency_ms"}


async def test_only_who_signs_the_request_for_this_validator_and_once_is_heard(net: Net) -> None:
    proposer, second, third = (each.keypair for each in net.subnet.validators)
    asked = net.subnet.validators[1]
    net.subnet.turn_of(0)
    body = proposed(proposer)
    assert (await net.post(asked, body, {}))[0] == 401
    assert (await net.post(asked, body, net.headers(body, proposer, third)))[0] == 401, "for another validator"
    assert (await net.post(asked, body + b" ", net.headers(body, proposer, second)))[0] == 401, "another body"
    headers = net.headers(body, proposer, second)
    net.subnet.clock.advance(3_600.0)
    assert (await net.post(asked, body, headers))[0] == 401, "of an hour ago"
    headers = net.headers(body, proposer, second)
    status, said = await net.post(asked, body, headers)
    assert (status, said["verdict"]) == (200, "signed")
    assert (await net.post(asked, body, headers))[0] == 401, "a replay"
    status, said = await net.post(asked, body, net.headers(body, third, second))
    assert (status, said["verdict"], said["signature"]) == (422, "other_signer", None)
    stranger = key(77)
    body = proposed(stranger)
    status, said = await net.post(asked, body, net.headers(body, stranger, second))
    assert (status, said["verdict"], said["signature"]) == (403, "no_permit", None)


async def test_a_proposal_of_a_reorganized_block_is_refused_and_kept_as_evidence(net: Net) -> None:
    proposer, second, _ = (each.keypair for each in net.subnet.validators)
    asked = net.subnet.validators[1]
    net.subnet.turn_of(0)
    net.subnet.finality[HASH] = Finality.REORGANIZED
    body = proposed(proposer)
    status, said = await net.post(asked, body, net.headers(body, proposer, second))
    assert (status, said["verdict"], said["signature"]) == (409, "reorganized", None)
    (found,) = asked.ledger.write_now(evidence.newest)
    assert (found.verdict, found.proposer, found.block) == ("reorganized", proposer.ss58, FIRST_BLOCK)


async def test_a_ranking_leaves_with_signatures_that_came_over_the_network(net: Net) -> None:
    proposer, second, third = net.subnet.validators
    for each in net.subnet.validators:
        each.offer_ranking()
    net.subnet.turn_of(0)
    await proposer.proposing.look()
    (bundle,) = queued(proposer)
    signers = {each["hotkey"] for each in bundle["cosignatures"]}  # type: ignore[attr-defined]  # JSON
    assert (bundle["kind"], signers) == ("ranking", {second.keypair.ss58, third.keypair.ss58})
    assert second.candidate("ranking").state is third.candidate("ranking").state is CandidateState.SETTLED


async def test_no_garbage_is_an_error_of_the_validator(net: Net) -> None:
    proposer, second, _ = (each.keypair for each in net.subnet.validators)
    asked, good = net.subnet.validators[1], json.loads(proposed(proposer))
    net.subnet.turn_of(0)
    garbage = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"payload":{},"block_hash":"zz"}',
        b'{"payload":' + b"[" * 5_000 + b"]" * 5_000 + b',"block_hash":"00"}',
        json.dumps({"payload": good["payload"] | {"scores": {"7": {"recall": "x"}}}, "block_hash": "00"}).encode(),
        json.dumps(good | {"block_hash": "0"}).encode(),
        json.dumps({"payload": good["payload"] | {"block": -1}, "block_hash": HASH.hex()}).encode(),
        json.dumps(good).replace("120.0", "1e999").encode(),
    ]
    for path in (api.PROPOSE.path, api.BUNDLE.path):
        for body in garbage:
            status, _ = await net.post(asked, body, net.headers(body, proposer, second), path)
            assert status in (400, 422), (path, body[:60], status)
    large = json.dumps(good).encode() + b" " * 1_100_000
    assert (await net.post(asked, large, net.headers(large, proposer, second)))[0] == 413
    assert asked.ledger.write_now(evidence.newest) == [], "garbage names nobody"


async def test_a_bundle_with_one_signature_settles_nothing(net: Net) -> None:
    proposer, second, _ = (each.keypair for each in net.subnet.validators)
    asked = net.subnet.validators[1]
    asked.offer(SCORES)
    body = msgspec.json.encode(api.BundledOutput(payload=msgspec.Raw(proposal(proposer).document)))
    status, said = await net.post(asked, body, net.headers(body, proposer, second), api.BUNDLE.path)
    assert status == 422
    assert "at least 2 must" in json.dumps(said)
    document = json.loads(proposal(proposer).document)
    document["cosignatures"] = [{"hotkey": second.ss58, "signature": "0x00"}] * (COSIGNATURES_MOST + 1)
    body = msgspec.json.encode(api.BundledOutput(payload=msgspec.Raw(json.dumps(document).encode())))
    status, said = await net.post(asked, body, net.headers(body, proposer, second), api.BUNDLE.path)
    assert (status, "at most 128 are read" in json.dumps(said)) == (422, True)
    assert asked.candidate().state is CandidateState.WAITING


async def test_a_validator_that_does_not_answer_does_not_hold_up_the_others(net: Net) -> None:
    proposer, _, third = net.subnet.validators
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        net.urls[net.subnet.keys[1].public_key] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        proposer.offer()
        net.subnet.turn_of(0)
        await proposer.proposing.look()
    (bundle,) = queued(proposer)
    assert [each["hotkey"] for each in bundle["cosignatures"]] == [third.keypair.ss58]  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [api.PROPOSE.path, api.BUNDLE.path])
async def test_nothing_is_read_for_who_holds_no_permit_and_what_is_large_is_read_in_a_thread(
    net: Net, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    proposer, second, _ = (each.keypair for each in net.subnet.validators)
    asked, read_in = net.subnet.validators[1], list[int]()

    def read(*_: object) -> None:
        read_in.append(threading.get_ident())
        raise MalformedProposal("read")

    monkeypatch.setattr(peers_app_module, "read_proposal", read)
    monkeypatch.setattr(peers_app_module, "read_bundle", read)
    for padding in (0, 20_000):
        body = json.dumps({"payload": {"pad": "x" * padding}, "block_hash": HASH.hex()}).encode()
        stranger = key(77)
        assert (await net.post(asked, body, net.headers(body, stranger, second), path))[0] == 403
        assert (await net.post(asked, body, net.headers(body, proposer, second), path))[0] == 422
    here = threading.get_ident()
    assert [each == here for each in read_in] == [True, False]


@pytest.mark.parametrize("path", [api.PROPOSE.path, api.BUNDLE.path])
async def test_while_the_chain_was_not_read_nobody_is_heard(net: Net, path: str) -> None:
    proposer, second, _ = (each.keypair for each in net.subnet.validators)
    asked, body = net.subnet.validators[1], proposed(proposer)
    asked.cosigner._ports = msgspec.structs.replace(asked.cosigner._ports, metagraph=lambda: None)
    assert (await net.post(asked, body, net.headers(body, proposer, second), path))[0] == 425
