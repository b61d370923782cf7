"""Miners that announce no axon are found by what their hotkeys have committed; the same guard holds for both."""

import pytest

from engram.chain.errors import EndpointUnreachable
from engram.chain.read.node import Json
from engram.chain.registry.registrations import Registration, parse_text
from engram.hotkeys import Keypair, ss58
from engram.validator import peers, reports
from engram.validator.commitments import Commitments
from tests.fakes.living_chain import NETUID
from tests.validator.benches import OWN, key, metagraph, neuron, over
from tests.validator.subnets import SmallSubnet, miner_key
from tests.validator.toy_miners import Keeps

AXON = "http://13.89.38.129:8091"
UNREACHABLE = "which is not reachable from the internet"


@pytest.mark.parametrize(
    ("axon", "committed", "url", "reason"),
    [
        (AXON, None, AXON, ""),
        (AXON, "20.1.2.3:9", AXON, ""),
        (None, "20.1.2.3:9", "http://20.1.2.3:9", ""),
        (None, "[2606:4700::1111]:9", "http://[2606:4700::1111]:9", ""),
        ("http://10.0.0.7:80", "20.1.2.3:9", "http://20.1.2.3:9", ""),
        (None, None, None, "announces no address"),
        (None, "127.0.0.1:9", None, f"has committed 127.0.0.1, {UNREACHABLE}"),
        (None, "169.254.169.254:80", None, f"has committed 169.254.169.254, {UNREACHABLE}"),
        (None, "[::ffff:10.0.0.1]:80", None, f"has committed 10.0.0.1, {UNREACHABLE}"),
        (None, "miner.example.org:443", None, "has committed 'miner.example.org' port 443, which is no IP address"),
        (
            "http://10.0.0.7:80",
            "192.168.1.1:9",
            None,
            f"announces 10.0.0.7, {UNREACHABLE}; has committed 192.168.1.1, {UNREACHABLE}",
        ),
        ("http://13.89.38.129:0", None, None, "announces 13.89.38.129 port 0, which is no port"),
    ],
)
def test_an_axon_that_may_be_asked_comes_before_a_commitment_and_the_guard_is_one(
    axon: str | None, committed: str | None, url: str | None, reason: str
) -> None:
    graph = metagraph([neuron(0, OWN, None), neuron(1, key(1), axon)])
    registered = {} if committed is None else {key(1).public_key: parse_text(committed)}
    (found,) = peers.miners(graph, OWN.public_key, registered)
    assert (found.url, found.reason) == (url, reason)


def test_a_miner_on_the_blacklist_is_asked_by_neither_and_its_reason_is_shown() -> None:
    graph = metagraph([neuron(1, key(1), AXON), neuron(2, key(2), AXON)])
    registered = {key(1).public_key: Registration("20.1.2.3", 9)}
    listed = peers.blacklisted([f"{key(1).ss58} sells what it is given", f"{key(2).ss58} "])
    found = peers.miners(graph, OWN.public_key, registered, blacklist=listed)
    assert [(each.url, each.reason) for each in found] == [
        (None, "on the blacklist: sells what it is given"),
        (None, "on the blacklist"),
    ]


def commit(chain: SmallSubnet, who: Keypair, field: dict[str, str] | str) -> None:
    info = {"fields": [[field]]}
    registration = {"deposit": 0, "block": 1, "info": info}
    chain.put(registration, "Commitments", "CommitmentOf", NETUID, who.public_key)


def raw(octets: bytes) -> dict[str, str]:
    return {f"Raw{len(octets)}": "0x" + octets.hex()}


async def test_registrations_are_read_from_the_chain_whatever_else_is_committed_there() -> None:
    chain = SmallSubnet()
    commit(chain, miner_key(3), raw(b"20.1.2.3:9"))
    commit(chain, miner_key(4), raw(b"an-older-kind:of:commitment:x"))
    commit(chain, miner_key(5), raw(b"\xff\xfe"))
    commit(chain, miner_key(6), {"Sha256": "0x" + "11" * 32})
    assert await Commitments([chain], NETUID)() == {miner_key(3).public_key: Registration("20.1.2.3", 9)}


async def test_while_the_chain_does_not_answer_the_registrations_read_last_stand() -> None:
    class Silent(SmallSubnet):
        silent = False

        async def ask(self, calls: object) -> list[Json]:
            if self.silent:
                raise EndpointUnreachable("no connection")
            return await super().ask(calls)  # type: ignore[arg-type]

    chain = Silent()
    commitments = Commitments([chain], NETUID)
    commit(chain, miner_key(3), raw(b"20.1.2.3:9"))
    read = await commitments()
    assert read
    chain.silent = True
    assert await commitments() == read
    chain.silent = False
    commit(chain, miner_key(3), raw(b"20.1.2.4:9"))
    assert (await commitments())[miner_key(3).public_key].address == "20.1.2.4"


async def test_a_miner_that_has_only_committed_its_address_is_planted_at_asked_and_scored() -> None:
    committed = Keeps(key(2))
    async with over([Keeps(key(1)), committed]) as bench:
        host, _, port = committed.url.removeprefix("http://").rpartition(":")

        async def registrations() -> dict[bytes, Registration]:
            return {key(2).public_key: Registration(host, int(port))}

        bench.rounds._committed = registrations
        url, committed.url = committed.url, ""  # no axon
        await bench.hold()
        scores = {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}
        assert scores[2].url == url
        assert scores[2].score == pytest.approx(1.0, abs=0.02)
        assert ss58.decode(scores[2].hotkey) == key(2).public_key
