"""Attestations: who stands for a namespace, with what stake."""

import time
from pathlib import Path
from typing import Any

import msgspec

from engram.api.node_model import Neuron
from engram.chain import Axon, Subnets
from engram.clock import ManualClock
from engram.hotkeys import PublicKey, ss58
from engram.memory.store.attestations import Attestations
from engram.miner.stakes import SyncedSubnet
from tests.chain.samples import key, metagraph, neuron
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.endpoints import attested, opened
from tests.miner.nodes import CONTROLLER, NODE, STRANGER, encoded, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)


class Rich:
    """A subnet in which stakes are as told."""

    block = 7

    def __init__(self) -> None:
        self.stakes: dict[PublicKey, float] = {}

    def uid(self, hotkey: PublicKey) -> int | None:
        return 3

    def stake_tao(self, hotkey: PublicKey) -> float | None:
        return self.stakes.get(hotkey)

    def neurons(self) -> list[Neuron]:
        return [Neuron(uid=3, hotkey=NODE.ss58, ip="1.2.3.4", port=8091, incentive=0.5)]


async def test_a_namespace_bears_the_tier_of_its_owners_stake_as_it_is_now(tmp_path: Path) -> None:
    subnet = Rich()
    async with serving(tmp_path, subnet=subnet, tenants="anyone") as service:
        assert endpoints.health(service).body["uid"] == endpoints.stats(service).body["uid"] == 3
        assert (await endpoints.attestation(service, "notes")).body == {
            "namespace": "notes",
            "trust_tier": "anonymous",
            "attested": False,
        }
        subnet.stakes[STRANGER.public_key] = 150.0
        made = opened(await endpoints.attest(service, attested(STRANGER, "notes")))
        assert made == {"ok": True, "namespace": "notes", "trust_tier": "verified", "stake_tao": 150.0}
        assert (await endpoints.attest(service, attested(CONTROLLER, "notes"))).status == 403
        subnet.stakes[STRANGER.public_key] = 1_000.0
        shown = (await endpoints.attestation(service, "notes")).body
        assert (shown["trust_tier"], shown["owner_hotkey"], shown["attested"]) == ("sovereign", STRANGER.ss58, True)
        stored = signed(STRANGER, "IngestSynapse", {"raw_embedding": UP, "namespace": "notes"})
        assert (await endpoints.ingest(service, stored)).body["error"] is None
        query = signed(STRANGER, "QuerySynapse", {"query_vector": UP, "namespace": "notes"})
        results: Any = (await endpoints.query(service, query)).body["results"]
        assert [hit["trust_tier"] for hit in results] == ["sovereign"]
        reloaded = Attestations(service.notebook)
        await reloaded.load()
        assert reloaded.get("notes") == service.attestations.get("notes")
        assert (await endpoints.metagraph(service)).body["neurons"] == msgspec.to_builtins(subnet.neurons())
        assert (endpoints.stats(service).body["block"], endpoints.stats(service).body["uid"]) == (7, 3)


def attested_as_another(name: str) -> bytes:
    return attested(CONTROLLER, "notes").replace(b'"notes"', f'"{name}"'.encode())


async def test_a_bad_attestation_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        stale = time.time_ns() // 10**6 - 120_000
        for body, status in (
            (b"{}", 400),
            (b"[]", 400),
            (encoded({"namespace": 5}), 400),
            (encoded({"namespace": "n"}), 400),
            (attested(CONTROLLER, "not-a-name"), 400),
            (attested(STRANGER, "notes"), 403),
            (attested(CONTROLLER, "notes", stale), 401),
            (attested_as_another("other"), 401),
        ):
            answer = await endpoints.attest(service, body)
            assert (answer.status, bool(answer.body["error"])) == (status, True), body


async def test_stakes_are_those_of_the_subnet_as_last_read() -> None:
    subnets = Subnets(ManualClock(), (450,), 60.0)
    subnet = SyncedSubnet(subnets, 450)
    assert (subnet.block, subnet.uid(key(7)), subnet.stake_tao(key(7)), subnet.neurons()) == (None, None, None, [])
    there = neuron(0, 7, stake_rao=150 * 10**9, axon=Axon("1.2.3.4", 8091, 1, 4, 9))
    subnets.publish(metagraph(there, neuron(1, 8)), [])
    assert (subnet.block, subnet.uid(key(7)), subnet.stake_tao(key(7))) == (1100, 0, 150.0)
    assert subnet.uid(key(9)) is None
    told = subnet.neurons()
    assert told[0] == Neuron(uid=0, hotkey=ss58.encode(key(7)), ip="1.2.3.4", port=8091, incentive=0.0)
    assert (told[1].ip, told[1].port) == ("0.0.0.0", 0)
    assert subnet.neurons() is told


async def test_a_tier_follows_the_stake_that_the_chain_tells(tmp_path: Path) -> None:
    subnets = Subnets(ManualClock(), (450,), 60.0)

    def staked(tao: float) -> None:
        there = msgspec.structs.replace(neuron(0, 7, stake_rao=int(tao * 10**9)), hotkey=STRANGER.public_key)
        subnets.publish(metagraph(there, neuron(1, 8)), [])

    async with serving(tmp_path, subnet=SyncedSubnet(subnets, 450), tenants="anyone") as service:
        unknown = opened(await endpoints.attest(service, attested(STRANGER, "notes")))
        assert (unknown["trust_tier"], unknown["stake_tao"]) == ("anonymous", 0.0)  # nothing is known of the chain yet
        for tao, tier in (
            (0.9, "anonymous"),
            (1, "community"),
            (100, "verified"),
            (1_000, "sovereign"),
            (2, "community"),
        ):
            staked(tao)
            told = (await endpoints.attestation(service, "notes")).body
            assert (told["trust_tier"], told["stake_tao"]) == (tier, tao)
        subnets.publish(metagraph(neuron(1, 8)), [])  # deregistered
        assert (await endpoints.attestation(service, "notes")).body["trust_tier"] == "anonymous"
