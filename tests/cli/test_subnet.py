"""`engram subnet` against a chain on a real socket."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.chain.read.endpoints import GENESIS
from engram.chain.read.node import Json, RpcCall
from engram.hotkeys import Keypair, ss58, verify
from tests.chain.samples import metadata
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Ran, Run
from tests.fakes import metadata_v15
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain, funded

VALIDATOR = Keypair.from_uri("//Alice")
MINER = Keypair.from_uri("//sn450//hot//7")
STRANGER = Keypair.from_uri("//nobody")
COLDKEY = Keypair.from_uri("//sn450//cold//7")
Subnet = Any


@pytest.fixture
def chain() -> LivingChain:
    chain = LivingChain()
    chain.put(0, "SubtensorModule", "WeightsSetRateLimit", 450)
    return chain


@pytest.fixture
def server(chain: LivingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


@pytest.fixture
def subnet(run: Run, server: ChainServer, here: Path) -> Subnet:
    for name, hotkey in (("validator", VALIDATOR), ("miner", MINER), ("stranger", STRANGER)):
        write_wallet(here / "wallets", name, hotkey=hotkey, coldkey=COLDKEY)

    def command(name: str, *more: str, wallet: str = "validator") -> Ran:
        options = ["--netuid", "450", "--endpoint", server.url, "--wallet.path", str(here / "wallets")]
        options += ["--wallet.name", wallet, "--wallet.hotkey", "hot"]
        if name != "status" and "--patience" not in more:
            options += ["--patience", "5"]
        return run("subnet", name, *options, *more)

    return command


def as_json(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    return document


def test_registering_shows_the_cost_and_pays_nothing_without_an_agreement(subnet: Subnet, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    ran = subnet("register", wallet="stranger")
    assert ran.code == 1
    assert "burns" in ran.err
    assert "--yes pays" in ran.err
    assert chain.burned == []


def test_registering_burns_and_tells_the_uid_from_the_block(subnet: Subnet, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    sent = as_json(subnet("register", "--yes", "--format", "json", wallet="stranger"))
    assert chain.burned == [(COLDKEY.public_key, STRANGER.public_key)]
    assert sent["uid"] == chain.uid(STRANGER.public_key)
    assert sent["block"] in chain.blocks


def test_the_cost_is_shown_before_it_is_paid_also_when_nobody_is_asked(subnet: Subnet, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    told = subnet("register", "--yes", wallet="stranger").err.splitlines()
    assert told[0] == "Registering on subnet 450 burns 0.100000000 TAO of 5000.000000000."
    assert told[1].startswith("sending 0x")


@pytest.mark.parametrize(
    ("rao", "more", "told"),
    [
        (0, [], "has 0.000000000; nothing was paid"),
        (5_000_000_000_000, ["--max-cost", "0"], "more than the limit of 0; nothing was paid"),
    ],
)
def test_what_cannot_or_may_not_be_paid_is_not(
    rao: int, more: list[str], told: str, subnet: Subnet, chain: LivingChain
) -> None:
    funded(chain, COLDKEY.public_key, rao)
    ran = subnet("register", "--yes", *more, wallet="stranger")
    assert ran.code == 1
    assert told in ran.err
    assert chain.burned == []
    assert "author_submitExtrinsic" not in chain.asked


def test_a_cost_that_rose_since_it_was_shown_is_not_paid(subnet: Subnet, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    burn = chain.get("SubtensorModule", "Burn", 450)
    chain.put(50 * burn, "SubtensorModule", "Burn", 450)
    ran = subnet("register", "--yes", wallet="stranger")
    assert ran.code == 1
    assert "the cost has risen" in ran.err
    assert chain.burned == []


def test_a_coldkey_that_is_not_the_one_shown_pays_and_links_nothing(
    subnet: Subnet, chain: LivingChain, here: Path
) -> None:
    funded(chain, STRANGER.public_key, 5_000_000_000_000)
    (here / "wallets" / "stranger" / "coldkeypub.txt").write_text(json.dumps({"ss58Address": STRANGER.ss58}))
    for command in (["register", "--yes"], ["link", "--github", "ada", "--online"]):
        ran = subnet(*command, wallet="stranger")
        assert (ran.code, "coldkeypub.txt does not match" in ran.err) == (1, True)
    assert "author_submitExtrinsic" not in chain.asked


def test_a_registered_hotkey_is_not_registered_again(subnet: Subnet, chain: LivingChain) -> None:
    assert as_json(subnet("register", "--yes", "--format", "json", wallet="miner"))["uid"] == 7
    assert "author_submitExtrinsic" not in chain.asked


def test_status_tells_how_a_hotkey_stands(subnet: Subnet) -> None:
    standing = as_json(subnet("status", "--format", "json"))
    assert (standing["uid"], standing["registered"], standing["validator_permit"]) == (0, True, True)
    assert standing["hotkey"] == VALIDATOR.ss58
    assert standing["commitment_error"] == "nothing is committed"
    assert standing["stake_tao"] > 0


def test_status_tells_whether_the_committed_endpoint_is_reached(subnet: Subnet, chain: LivingChain) -> None:
    info = {"fields": [{"Raw11": "0x" + b"127.0.0.1:9".hex()}]}
    chain.put({"deposit": 0, "block": 1, "info": info}, "Commitments", "CommitmentOf", 450, MINER.public_key)
    standing = as_json(subnet("status", "--format", "json", wallet="miner"))
    assert (standing["committed"], standing["reachable"]) == ("127.0.0.1:9", False)
    assert "not a public address" in standing["unreachable_because"]
    standing = as_json(subnet("status", "--format", "json", "--allow-private", wallet="miner"))
    assert standing["reachable"] is False
    assert "no connection" in standing["unreachable_because"]
    assert as_json(subnet("status", "--format", "json", "--no-probe", wallet="miner"))["reachable"] is None


def test_status_on_a_pipe_has_the_documents_lines(subnet: Subnet) -> None:
    lines = subnet("status", "--no-probe", wallet="miner").out.splitlines()
    assert lines[0] == "UID: 7"
    assert any(line.startswith("Incentive: ") for line in lines)
    assert any(line.startswith("Emission: ") for line in lines)


def test_status_tells_emissions_in_alpha_and_why_an_endpoint_is_not_reached(subnet: Subnet, chain: LivingChain) -> None:
    committed = {"deposit": 0, "block": 1, "info": {"fields": [{"Raw11": "0x" + b"127.0.0.1:1".hex()}]}}
    chain.put(committed, "Commitments", "CommitmentOf", 450, VALIDATOR.public_key)
    lines = subnet("status").out.splitlines()
    assert "Emission: 4.510025173" in lines
    assert "Check Endpoint: invalid (not asked: 127.0.0.1 is not a public address)" in lines


def test_status_of_an_address_needs_no_wallet(run: Run, server: ChainServer) -> None:
    ran = run("subnet", "status", "--netuid", "450", "--endpoint", server.url, "--hotkey", STRANGER.ss58)
    assert (ran.code, ran.out.splitlines()[-1]) == (1, "Registered: False")


def test_status_of_an_unknown_subnet_is_a_clear_error(run: Run, server: ChainServer) -> None:
    ran = run("subnet", "status", "--netuid", "4242", "--endpoint", server.url, "--hotkey", STRANGER.ss58)
    assert (ran.code, ran.err.strip()) == (1, "engram: the chain has no subnet 4242")


@pytest.mark.parametrize(
    ("ip", "number"), [("13.89.38.129", 0x0D592681), ("2606:4700::1111", (0x26064700 << 96) + 0x1111)]
)
def test_a_node_announces_itself(ip: str, number: int, subnet: Subnet, chain: LivingChain) -> None:
    dry = as_json(subnet("serve", "--ip", ip, "--port", "8091", "--format", "json", wallet="miner"))
    assert "block" not in dry
    assert "author_submitExtrinsic" not in chain.asked
    sent = as_json(subnet("serve", "--ip", ip, "--port", "8091", "--online", "--format", "json", wallet="miner"))
    held = chain.get("SubtensorModule", "Axons", 450, MINER.public_key)
    assert (held["ip"], held["port"], held["block"]) == (number, 8091, sent["block"])


def test_an_announcement_that_comes_too_soon_is_refused_by_name(subnet: Subnet, chain: LivingChain) -> None:
    chain.put(50, "SubtensorModule", "ServingRateLimit", 450)
    announce = ["serve", "--ip", "13.89.38.129", "--port", "8091", "--online"]
    assert subnet(*announce, wallet="miner").code == 0
    ran = subnet(*announce, wallet="miner")
    assert ran.code == 1
    assert "ServingRateLimitExceeded" in ran.err


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.1.2.3", "[::1]", "::ffff:192.168.0.1"])
def test_an_address_that_nobody_reaches_is_announced_only_when_told(
    ip: str, subnet: Subnet, chain: LivingChain
) -> None:
    announce = ["serve", "--ip", ip, "--port", "8091"]
    ran = subnet(*announce, "--online", wallet="miner")
    assert (ran.code, "--allow-private" in ran.err) == (1, True)
    assert chain.asked == []
    assert subnet(*announce, "--allow-private", wallet="miner").code == 0


def test_an_axon_is_no_host_name(subnet: Subnet) -> None:
    ran = subnet("serve", "--ip", "miner.example.org", "--port", "8091", wallet="miner")
    assert (ran.code, "IP address" in ran.err) == (1, True)


def test_weights_are_set_and_read_back(subnet: Subnet, chain: LivingChain) -> None:
    dry = as_json(subnet("set-weights", "3=0.7", "9=0.35", "--format", "json"))
    assert dry["arguments"] == {"uids": [3, 9], "weights": [65_535, 32_768], "version_key": 0}
    assert "author_submitExtrinsic" not in chain.asked
    sent = as_json(subnet("set-weights", "3=0.7", "9=0.35", "--online", "--format", "json"))
    assert [tuple(pair) for pair in chain.get("SubtensorModule", "Weights", 450, 0)] == [(3, 65_535), (9, 32_768)]
    assert sent["call"] == "SubtensorModule.set_weights"


def test_weights_from_a_file(subnet: Subnet, here: Path) -> None:
    (here / "weights.json").write_text('{"3": 1.0}')
    assert as_json(subnet("set-weights", "--file", "weights.json", "--format", "json"))["arguments"]["uids"] == [3]


def test_weights_of_one_without_a_permit_are_not_sent(subnet: Subnet, chain: LivingChain) -> None:
    ran = subnet("set-weights", "3=1", "--online", wallet="miner")
    assert ran.code == 1
    assert "NeuronNoValidatorPermit" in ran.err
    assert "author_submitExtrinsic" not in chain.asked


def test_a_weight_on_itself_alone_needs_no_permit(subnet: Subnet, chain: LivingChain) -> None:
    ran = subnet("set-weights", "7=1", "--online", wallet="miner")
    assert (ran.code, ran.err.count("NeuronNoValidatorPermit")) == (0, 0)
    assert [tuple(pair) for pair in chain.get("SubtensorModule", "Weights", 450, 7)] == [(7, 65_535)]


@pytest.mark.parametrize(
    ("weights", "code", "told"),
    [
        (["3=0"], 1, "no weight is above 0"),
        (["300=1"], 1, "subnet 450 has no uid 300"),
        (["3=-1"], 1, "the weight of uid 3 is -1.0"),
        (["3=nan"], 1, "the weight of uid 3 is nan"),
        (["3=1", "3=1"], 2, "uid 3 is named twice"),
        (["3"], 2, "invalid weights"),
        ([], 2, "give weights"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[str], code: int, told: str, subnet: Subnet) -> None:
    ran = subnet("set-weights", *weights)
    assert ran.code == code
    assert told in ran.err


def test_an_identity_is_linked_and_a_statement_is_signed(subnet: Subnet, chain: LivingChain) -> None:
    chain.put([MINER.ss58], "SubtensorModule", "OwnedHotkeys", COLDKEY.public_key)
    sent = as_json(subnet("link", "--github", "ada", "--online", "--format", "json", wallet="miner"))
    held = chain.get("SubtensorModule", "IdentitiesV2", COLDKEY.public_key)
    assert "ada" in str(held) or "0x616461" in str(held)
    statement = sent["arguments"]["statement"]
    assert verify(MINER.public_key, statement.encode(), bytes.fromhex(sent["arguments"]["signature"]))
    assert ss58.encode(COLDKEY.public_key) == sent["signer"]


@pytest.mark.parametrize(
    ("given", "tag"),
    [
        (["--github", "ada"], "ada"),
        (["--github", "https://github.com/ada/"], "ada"),
        (["--github", "https://github.com/ada", "--github-id", "583231"], "583231"),
    ],
)
def test_a_link_on_a_pipe_has_the_documents_three_lines(subnet: Subnet, given: list[str], tag: str) -> None:
    assert subnet("link", *given, wallet="miner").out.splitlines()[:3] == [
        f"Registered hotkey: {MINER.ss58}",
        f"Link this hotkey to GitHub account: {given[1]}",
        f"Add to PR descriptions: 'Mining $OGX - Hotkey {tag}'",
    ]


def test_an_identity_that_does_not_stand_on_the_chain_is_told(subnet: Subnet, chain: LivingChain) -> None:
    chain.put([MINER.ss58], "SubtensorModule", "OwnedHotkeys", COLDKEY.public_key)
    honest = chain._calls["set_identity"]
    chain._calls["set_identity"] = lambda who, given: honest(who, {**given, "name": "0x" + b"Eve".hex()})
    ran = subnet("link", "--github", "ada", "--online", wallet="miner")
    assert (ran.code, "but the chain holds" in ran.err, "Eve" in ran.err) == (1, True, True)


class MainnetInDisguise(LivingChain):
    """Calls itself another network, and is finney."""

    def hash(self, number: int) -> str:
        return "0x" + GENESIS["finney"].hex() if number == 0 else super().hash(number)


def test_a_mainnet_that_is_called_a_test_network_gets_no_signature(run: Run, here: Path) -> None:
    chain = MainnetInDisguise()
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    write_wallet(here / "wallets", "stranger", hotkey=STRANGER, coldkey=COLDKEY)
    with served(chain) as server:
        options = ["--netuid", "450", "--endpoint", server.url, "--network", "test", "--yes", "--patience", "5"]
        wallet = ["--wallet.path", str(here / "wallets"), "--wallet.name", "stranger", "--wallet.hotkey", "hot"]
        ran = run("subnet", "register", *options, *wallet)
    assert ran.code == 1
    assert "the endpoint serves finney, not test: nothing was signed" in ran.err
    assert "author_submitExtrinsic" not in chain.asked


@pytest.mark.parametrize("patience", ["-1", "0", "nan", "inf"])
def test_a_patience_that_is_no_time_is_refused_before_anything_is_sent(
    patience: str, subnet: Subnet, chain: LivingChain
) -> None:
    ran = subnet("serve", "--ip", "13.89.38.129", "--port", "8091", "--online", "--patience", patience)
    assert "author_submitExtrinsic" not in chain.asked
    assert ran.code == 2


def test_a_largest_cost_that_is_no_number_pays_nothing(subnet: Subnet, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    assert subnet("register", "--yes", "--max-cost", "nan", wallet="stranger").code == 1
    assert chain.burned == []


class OtherAccounts(LivingChain):
    """A runtime whose accounts name their balances otherwise."""

    def answer(self, call: RpcCall) -> Json:
        if call.method != "state_call" or call.params[0] != "Metadata_metadata_at_version":
            return super().answer(call)
        tree: dict[str, Any] = metadata_v15.read(metadata())
        (account,) = (one["type"] for one in tree["types"] if one["type"]["path"][-1:] == ["AccountData"])
        account["definition"]["composite"][0]["name"] = "spendable"
        return "0x" + metadata_v15.write(tree).hex()


def test_an_account_of_no_known_form_is_told_and_nothing_is_paid(run: Run, here: Path) -> None:
    chain = OtherAccounts()
    write_wallet(here / "wallets", "stranger", hotkey=STRANGER, coldkey=COLDKEY)
    with served(chain) as server:
        options = ["--netuid", "450", "--endpoint", server.url, "--yes", "--wallet.path", str(here / "wallets")]
        ran = run("subnet", "register", *options, "--wallet.name", "stranger", "--wallet.hotkey", "hot")
    assert (ran.code, "an unknown form" in ran.err) == (1, True)
    assert chain.burned == []
