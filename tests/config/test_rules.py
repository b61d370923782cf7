"""Wrong combinations refuse to start and name the setting to change."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
from config import ConfigError, Settings
from config.model import BackupSettings, LedgerSettings, ValidatorSettings, WorkerSettings
from config.networks import Money
from config.rules import MEANT, Place, cautions, check_sockets, checksummed, place_of, refusals

pytestmark = pytest.mark.rules

MINE = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
OWNER = "akash1" + "q" * 38
AKASH = {
    "akash__key_file": "akash-key",
    "provisioning__miner_image": "ghcr.io/example/engram@sha256:" + "0" * 64,
    "gateway__public_url": "https://gateway.example",
}


def settings(profile: str = "local", **changes: Any) -> Settings:
    """Settings of a profile with everything outside `local` that an operator must name; `section__key=value`."""
    loaded = config.load(profile, (), {}, None, ()).settings
    if profile != "local":
        changes = {
            "payments__recipient": MINE,
            "payments__facilitator_url": "https://x402.example",
            "payments__rpc_url": "https://rpc.example",
            "akash__owner_address": OWNER,
            **AKASH,
        } | changes
    for name, value in changes.items():
        section, _, key = name.partition("__")
        changed = msgspec.structs.replace(getattr(loaded, section), **{key: value})
        loaded = msgspec.structs.replace(loaded, **{section: changed})
    return loaded


def refused(given: Settings, *roles: str) -> list[str]:
    return [refusal.key for refusal in refusals(given, roles or ("gateway",))]


@pytest.mark.parametrize("profile", config.PROFILES)
def test_each_profile_starts_once_the_operator_named_what_is_theirs(profile: str) -> None:
    assert refused(settings(profile), "gateway", "miner") == []


@pytest.mark.parametrize("url", ["https://rpc.example/key", "http://127.0.0.1:8545", ""])
def test_a_chain_is_asked_by_https_or_on_this_machine(url: str) -> None:
    assert refused(settings("mainnet", payments__rpc_url=url, miner__require_signature=True)) == []


def test_a_ledger_on_a_server_is_not_backed_up_as_a_file() -> None:
    given = msgspec.structs.replace(settings(), ledger=LedgerSettings(url="postgresql://engram@db.example/engram"))
    assert refused(given) == []
    assert refused(msgspec.structs.replace(given, backup=BackupSettings(folder="/backups"))) == ["backup.folder"]


def test_a_certificate_and_its_key_are_named_together() -> None:
    assert refused(settings(gateway__tls_certificate="chain.pem")) == ["gateway.tls_key"]
    assert refused(settings(gateway__tls_key="key.pem")) == ["gateway.tls_certificate"]
    assert refused(settings(gateway__tls_certificate="chain.pem", gateway__tls_key="key.pem")) == []


@pytest.mark.parametrize("profile", ["testnet", "mainnet"])
def test_outside_local_what_the_operator_must_name_is_asked_for_by_name(profile: str) -> None:
    loaded = config.load(profile, (), {}, None, ())
    with pytest.raises(ConfigError) as caught:
        config.check(loaded.settings)
    text = str(caught.value)
    assert all(
        name in text for name in ("X402_RECIPIENT_ADDRESS", "X402_FACILITATOR_URL", "AKASH_OWNER_ADDRESS", "is missing")
    )


@pytest.mark.parametrize(
    ("profile", "changes", "key"),
    [
        # The chain
        ("local", {"payments__rpc_url": "http://127.0.0.1:8545"}, "payments.rpc_url"),
        ("testnet", {"payments__rpc_url": "wss://rpc.example"}, "payments.rpc_url"),
        ("testnet", {"payments__rpc_url": "https://"}, "payments.rpc_url"),
        ("mainnet", {"payments__rpc_url": "http://rpc.example"}, "payments.rpc_url"),
        # Play money
        (
            "local",
            {"provisioning__backend": "docker", "docker__host": "tcp://10.0.0.5:1", "docker__tls_ca": "ca"},
            "docker.host",
        ),
        ("local", {"provisioning__backend": "akash"} | AKASH, "provisioning.backends"),
        ("local", {"provisioning__backends": ("local", "akash")} | AKASH, "provisioning.backends"),
        ("local", {"provisioning__backends": ("local", "local")}, "provisioning.backends"),
        ("local", {"provisioning__backends": ("local", "docker"), "docker__first_port": 18_900}, "docker.first_port"),
        ("local", {"gateway__host": "0.0.0.0"}, "gateway.host"),
        ("local", {"gateway__host": "gateway.example"}, "gateway.host"),
        ("local", {"payments__network": "base"}, "payments.facilitator_url"),
        # Akash
        ("mainnet", {"akash__key_file": ""}, "akash.key_file"),
        ("mainnet", {"akash__endpoints": ()}, "akash.endpoints"),
        ("mainnet", {"provisioning__miner_image": "ghcr.io/example/engram:latest"}, "provisioning.miner_image"),
        ("mainnet", {"gateway__public_url": ""}, "gateway.public_url"),
        ("mainnet", {"akash__allow_private_providers": True}, "akash.allow_private_providers"),
        ("mainnet", {"akash__bids_enough_s": 5.0}, "akash.bids_enough_s"),
        # Test networks
        ("testnet", {"provisioning__backend": "akash"}, "akash.chain_id"),
        (
            "testnet",
            {"provisioning__backend": "docker", "docker__host": "tcp://10.0.0.5:1", "docker__tls_ca": "ca"},
            "docker.host",
        ),
        ("testnet", {"payments__facilitator_url": "embedded"}, "payments.facilitator_url"),
        ("testnet", {"payments__facilitator_url": "ftp://x"}, "payments.facilitator_url"),
        ("testnet", {"payments__facilitator_url": "https://"}, "payments.facilitator_url"),
        ("testnet", {"payments__recipient": "0x000000000000000000000000000000000000dEaD"}, "payments.recipient"),
        ("testnet", {"payments__recipient": MINE.replace("aA", "Aa")}, "payments.recipient"),
        ("testnet", {"payments__recipient": "0x12"}, "payments.recipient"),
        ("testnet", {"akash__owner_address": "cosmos1" + "q" * 38}, "akash.owner_address"),
        ("testnet", {"gateway__auth_required": False, "gateway__host": "0.0.0.0"}, "gateway.host"),
        # What nodes announce
        ("testnet", {"miner__announce": "gateway.example"}, "miner.announce"),
        ("testnet", {"miner__announce": "10.0.0.5"}, "miner.announce"),
        ("testnet", {"miner__announce": "168.63.129.16"}, "miner.announce"),
        ("testnet", {"miner__announce": "64:ff9b:1::7f00:1"}, "miner.announce"),
        ("testnet", {"miner__announce": "8.8.8.8:8091"}, "miner.announce"),
        ("testnet", {"miner__announce": "8.8.8.8", "chain__endpoints": ()}, "chain.endpoints"),
        ("local", {"miner__announce": "10.0.0.5"}, "chain.source"),
        # Beginning again on another chain
        ("local", {"chain__reset_after_s": 60.0}, "chain.reset_after_s"),
        ("local", {"chain__reset_after_s": 0.001}, "chain.reset_after_s"),
        # Mainnet
        ("mainnet", {"payments__facilitator_url": "http://x402.example"}, "payments.facilitator_url"),
        ("mainnet", {"payments__recipient": MINE.lower()}, "payments.recipient"),
        ("mainnet", {"gateway__auth_required": False}, "gateway.auth_required"),
    ],
)
def test_a_wrong_combination_names_the_setting_to_change(profile: str, changes: dict[str, Any], key: str) -> None:
    assert refused(settings(profile, **changes)) == [key]


NETWORK_OF: dict[Money, str] = {"play": "eip155:31337", "test": "base-sepolia", "real": "base"}
URL_OF: dict[Place, str] = {
    "embedded": "embedded",
    "loopback": "https://127.0.0.1:4021",
    "elsewhere": "https://x402.example",
}
STARTS: set[tuple[str, Money, Place]] = {
    ("local", "play", "embedded"),
    ("local", "play", "loopback"),
    ("local", "test", "loopback"),
    ("testnet", "test", "loopback"),
    ("testnet", "test", "elsewhere"),
    ("mainnet", "real", "loopback"),
    ("mainnet", "real", "elsewhere"),
}
PROFILE_MEANT: dict[tuple[str, Money, Place], str] = {
    ("local", "play", "elsewhere"): "--profile mainnet",
    ("local", "test", "embedded"): "--profile testnet",
    ("local", "test", "elsewhere"): "--profile testnet",
    ("local", "real", "embedded"): "--profile mainnet",
    ("local", "real", "loopback"): "--profile mainnet",
    ("local", "real", "elsewhere"): "--profile mainnet",
    ("testnet", "play", "embedded"): "--profile local",
    ("testnet", "play", "loopback"): "--profile local",
    ("testnet", "play", "elsewhere"): "--profile local",
    ("testnet", "test", "embedded"): "--profile testnet",
    ("testnet", "real", "embedded"): "--profile mainnet",
    ("testnet", "real", "loopback"): "--profile mainnet",
    ("testnet", "real", "elsewhere"): "--profile mainnet",
    ("mainnet", "play", "embedded"): "mainnet takes base",
    ("mainnet", "play", "loopback"): "mainnet takes base",
    ("mainnet", "play", "elsewhere"): "mainnet takes base",
    ("mainnet", "test", "embedded"): "--profile testnet",
    ("mainnet", "test", "loopback"): "mainnet takes base",
    ("mainnet", "test", "elsewhere"): "mainnet takes base",
    ("mainnet", "real", "embedded"): "--profile mainnet",
}


def moving(profile: str, worth: Money, place: Place) -> Settings:
    return settings(
        profile,
        payments__network=NETWORK_OF[worth],
        payments__facilitator_url=URL_OF[place],
        payments__recipient=MINE,
        payments__rpc_url="",
        provisioning__backend="local",
    )


def test_network_and_facilitator_alone_decide_in_which_environments_a_gateway_starts() -> None:
    everything = {(profile, worth, place) for profile in config.PROFILES for worth, place in MEANT}
    assert everything == STARTS | set(PROFILE_MEANT)
    assert {one for one in everything if not refused(moving(*one))} == STARTS


@pytest.mark.parametrize(("combination", "words"), PROFILE_MEANT.items())
def test_a_contradiction_between_money_and_profile_names_the_profile_that_is_meant(
    combination: tuple[str, Money, Place], words: str
) -> None:
    found = refusals(moving(*combination), ("gateway",))
    assert len(found) == 1
    assert found[0].key in ("payments.network", "payments.facilitator_url")
    assert words in found[0].message


@pytest.mark.parametrize("named", [MINE, MINE.lower()])
def test_the_originals_three_exports_without_a_network_do_not_start_as_play_money(named: str) -> None:
    environ = {
        "X402_RECIPIENT_ADDRESS": named,
        "X402_FACILITATOR_URL": "https://x402.dexter.cash",
        "AKASH_OWNER_ADDRESS": OWNER,
    }
    with pytest.raises(ConfigError, match="--profile mainnet"):
        config.check(config.load(None, (), environ, None, ()).settings)
    meant = config.load("mainnet", (), environ | {"X402_RECIPIENT_ADDRESS": MINE}, None, ()).settings
    assert refused(meant) == ["akash.key_file", "provisioning.miner_image", "gateway.public_url"]


def test_real_money_in_the_profile_local_is_refused_by_the_variable_that_names_it() -> None:
    environ = {
        "X402_NETWORK": "base",
        "X402_RECIPIENT_ADDRESS": MINE.lower(),
        "X402_FACILITATOR_URL": "http://x402.example",
    }
    with pytest.raises(ConfigError, match=r"payments.network \(X402_NETWORK\): base moves real money"):
        config.check(config.load("local", (), environ, None, ()).settings)


@given(
    st.sampled_from(config.PROFILES),
    st.sampled_from(["base", "eip155:8453"]),
    st.sampled_from(["embedded", "http://127.0.0.1:1", "http://x402.example", "https://x402.example", "https://[::1]"]),
    st.sampled_from([MINE, MINE.lower(), "0x000000000000000000000000000000000000dEaD", ""]),
    st.booleans(),
    st.sampled_from(["", "http://rpc.example", "https://rpc.example"]),
)
def test_what_takes_real_money_obeys_every_rule_of_mainnet(
    profile: str, network: str, facilitator: str, recipient: str, auth_required: bool, rpc_url: str
) -> None:
    real = settings(
        profile,
        payments__network=network,
        payments__facilitator_url=facilitator,
        payments__recipient=recipient,
        payments__rpc_url=rpc_url,
        gateway__auth_required=auth_required,
        provisioning__backend="local",
    )
    if not refused(real):
        assert profile == "mainnet"
        assert facilitator.startswith("https://")
        assert (recipient, auth_required) == (MINE, True)
        assert rpc_url != "http://rpc.example"


@pytest.mark.parametrize(
    "url", ["http://[", "https://[::1", "http://host:99999", "http://host:0", "http://:80", "//host", "host"]
)
@pytest.mark.parametrize("key", ["payments__facilitator_url", "payments__rpc_url"])
def test_what_is_no_url_at_all_is_refused_in_words(key: str, url: str) -> None:
    assert refused(settings("testnet", **{key: url})) == [key.replace("__", ".")]


@pytest.mark.parametrize("host", ["tcp://[::1", "tcp://10.0.0.5:2375", ""])
def test_a_docker_host_that_cannot_be_read_is_not_on_loopback(host: str) -> None:
    docker = settings("testnet", provisioning__backend="docker", docker__host=host)
    assert "docker.host" in refused(docker)


def test_an_engine_on_another_machine_is_spoken_to_by_tls_alone() -> None:
    def judged(**changes: object) -> list[str]:
        return refused(settings("mainnet", provisioning__backends=("docker",), **changes))

    far = "tcp://10.0.0.5:2376"
    assert judged(docker__host=far) == ["docker.tls_ca"]
    assert judged(docker__host=far, docker__tls_ca="ca.pem") == []
    assert judged(docker__host=far, docker__tls_ca="ca.pem", docker__tls_key="key.pem") == ["docker.tls_certificate"]
    assert judged(docker__host="tcp://127.0.0.1:2375", docker__tls_certificate="a.pem") == ["docker.tls_key"]
    assert judged(docker__host="unix:///var/run/docker.sock") == []


def test_a_facilitator_on_this_machine_is_known_by_its_host_alone() -> None:
    assert place_of("http://127.0.0.1@x402.example") == "elsewhere"
    assert place_of("http://user:secret@localhost:4021") == "loopback"


@pytest.mark.parametrize("network", ["base-sepolia", "eip155:31337"])
def test_mainnet_takes_real_money_alone(network: str) -> None:
    assert "payments.network" in refused(settings("mainnet", payments__network=network))


@pytest.mark.parametrize(
    ("profile", "changes"),
    [
        ("local", {"gateway__host": "::1"}),
        ("local", {"chain__reset_after_s": 60.1}),
        ("local", {"chain__reset_after_s": 0.0}),
        ("local", {"akash__owner_address": OWNER}),
        ("testnet", {"payments__recipient": "0x" + MINE[2:].upper()}),
        ("local", {"gateway__host": "localhost", "gateway__auth_required": False}),
        ("local", {"payments__recipient": "0x" + "a" * 40, "payments__facilitator_url": "http://127.0.0.1:4021"}),
        ("testnet", {"gateway__host": "0.0.0.0"}),
        ("testnet", {"gateway__auth_required": False}),
        ("testnet", {"payments__recipient": MINE.lower()}),
        ("testnet", {"provisioning__backend": "akash", "akash__chain_id": "sandbox-2"}),
        (
            "local",
            AKASH
            | {
                "provisioning__backend": "akash",
                "akash__chain_id": "copy-1",
                "akash__endpoints": ("http://127.0.0.1:1317",),
                "akash__allow_private_providers": True,
            },
        ),
        ("testnet", {"provisioning__backend": "docker"}),
        ("testnet", {"provisioning__backend": "docker", "docker__host": "tcp://127.0.0.1:2375"}),
        ("mainnet", {"gateway__host": "0.0.0.0", "provisioning__backend": "docker"}),
        ("testnet", {"miner__announce": "8.8.8.8"}),
        ("local", {"miner__announce": "10.0.0.5", "chain__source": "rpc", "chain__endpoints": ("http://127.0.0.1:1",)}),
    ],
)
def test_a_right_combination_starts(profile: str, changes: dict[str, Any]) -> None:
    assert refused(settings(profile, **changes)) == []


def test_the_facilitator_is_for_this_machine_and_for_local() -> None:
    assert refused(settings("local"), "facilitator") == []
    assert refused(settings("local", facilitator__host="0.0.0.0"), "facilitator") == ["facilitator.host"]
    assert refused(settings("testnet"), "facilitator") == ["environment"]


def test_a_mainnet_miner_checks_signatures() -> None:
    assert refused(settings("mainnet", miner__require_signature=False), "miner") == ["miner.require_signature"]


@pytest.mark.parametrize(
    ("profile", "announced", "refusals"),
    [
        ("local", "127.0.0.1:8091", []),
        ("local", "miner.example:8091", ["miner.announce"]),
        ("testnet", "[2606:4700::1]:8091", []),
        ("testnet", "[2001:db8::1]:8091", ["miner.announce"]),
        ("mainnet", "192.168.1.5:8091", ["miner.announce"]),
    ],
)
def test_a_miner_announces_an_address_that_its_validators_reach(
    profile: str, announced: str, refusals: list[str]
) -> None:
    assert refused(settings(profile, miner__announce=announced, miner__require_signature=True), "miner") == refusals


def test_a_miner_is_not_asked_about_money() -> None:
    bare = config.load("mainnet", (), {}, None, ()).settings
    assert refused(bare, "miner") == []
    assert "payments.recipient" in refused(bare, "gateway")


def test_roles_together_are_refused_for_a_reason_only_once() -> None:
    wrong = settings("local", gateway__host="0.0.0.0")
    assert refused(wrong, "gateway", "gateway", "facilitator") == ["gateway.host"]


@pytest.mark.parametrize(
    "address",
    [  # the examples of EIP-55
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    ],
)
def test_checksums_are_those_of_eip_55(address: str) -> None:
    assert checksummed(address.lower()) == address
    assert checksummed(checksummed(address)) == address


@given(
    st.sampled_from(config.PROFILES),
    st.sampled_from(["local", "docker", "akash"]),
    st.sampled_from(["base", "base-sepolia", "eip155:31337"]),
    st.sampled_from(["127.0.0.1", "0.0.0.0"]),
    st.booleans(),
)
def test_worthless_money_never_buys_what_costs_something(
    profile: str, backend: str, network: str, host: str, auth_required: bool
) -> None:
    given_settings = settings(
        profile,
        provisioning__backend=backend,
        payments__network=network,
        gateway__host=host,
        gateway__auth_required=auth_required,
    )
    if refused(given_settings):
        return
    assert network == "base" or backend != "akash"
    assert network != "eip155:31337" or host == "127.0.0.1"
    assert auth_required or host == "127.0.0.1"
    assert profile != "mainnet" or (network == "base" and auth_required)


def test_an_operators_listener_that_others_reach_is_told_of_and_starts() -> None:
    assert cautions(settings()) == []
    for host in ("0.0.0.0", "10.0.0.7", "::"):
        exposed = settings(ops__host=host)
        assert [caution.key for caution in cautions(exposed)] == ["ops.host"]
        assert refused(exposed) == []
    assert cautions(settings(ops__host="0.0.0.0"), ("miner",)) == []


@pytest.mark.parametrize("environment", ["testnet", "mainnet"])
def test_a_real_network_without_a_node_of_its_chain_is_told_of_and_starts(environment: str) -> None:
    blind = settings(environment, payments__rpc_url="", miner__require_signature=True)
    assert [caution.key for caution in cautions(blind)] == ["payments.rpc_url"]
    assert refused(blind) == []
    assert cautions(blind, ("miner",)) == []


KEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.mark.parametrize("role", ["gateway", "validator"])
@pytest.mark.parametrize(
    ("relay", "told"),
    [
        ({}, []),
        ({"url": "http://127.0.0.1:9600/payloads"}, []),
        ({"url": "https://xeris.example/payloads"}, ["relay.receiver_key"]),
        ({"url": "https://xeris.example/payloads", "receiver_key": KEY}, []),
        ({"url": "https://xeris.example/payloads", "original_receiver": True}, []),
    ],
)
def test_a_receiver_whose_key_is_not_named_is_told_of_and_sent_to(
    role: str, relay: dict[str, object], told: list[str]
) -> None:
    for environment in ("local", "mainnet"):
        named = settings(environment, **{f"relay__{name}": value for name, value in relay.items()})
        keys = [caution.key for caution in cautions(named, (role,)) if caution.key.startswith("relay")]
        assert keys == told
        assert [key for key in refused(named, role) if key.startswith("relay")] == []
        assert cautions(named, ("miner",)) == []


@pytest.mark.parametrize(
    ("environment", "relay", "expected"),
    [
        ("mainnet", {"url": "http://xeris.example/payloads"}, ["relay.url"]),
        ("mainnet", {"url": "http://xeris.example/payloads", "receiver_key": KEY}, []),
        (
            "mainnet",
            {"url": "http://xeris.example/payloads", "receiver_key": KEY, "original_receiver": True},
            ["relay.url"],
        ),
        ("testnet", {"url": "http://xeris.example/payloads"}, []),
        ("mainnet", {"url": "http://[::1]:9600/payloads"}, []),
        ("local", {"url": "https://xeris.example/payloads", "receiver_key": "5Grwva"}, ["relay.receiver_key"]),
    ],
)
def test_where_money_is_real_whoever_is_on_the_way_cannot_acknowledge_payloads(
    environment: str, relay: dict[str, object], expected: list[str]
) -> None:
    named = settings(environment, **{f"relay__{name}": value for name, value in relay.items()})
    for role in ("gateway", "validator"):
        assert [key for key in refused(named, role) if key.startswith("relay")] == expected


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ({"embedder": "hash"}, []),
        ({"embedding_url": "http://127.0.0.1:1/v1", "embedding_model": "m", "embedding_dimension": 3}, []),
        (
            {"embedding_url": "ftp://there"},
            ["miner.embedding_url", "miner.embedding_model", "miner.embedding_dimension"],
        ),
        ({"embedding_url": "http://", "embedding_model": "m", "embedding_dimension": 3}, ["miner.embedding_url"]),
    ],
)
def test_an_embedding_server_needs_url_model_and_dimension(told: dict[str, object], missing: list[str]) -> None:
    fields = {f"miner__{name}": value for name, value in ({"embedder": "openai"} | told).items()}
    for role in ("miner", "gateway"):
        assert refused(settings("local", **fields), role) == missing


@pytest.mark.parametrize(
    ("environment", "changes", "key"),
    [
        ("local", {}, "validator.hotkey_file"),
        ("mainnet", {"hotkey_file": "key", "private_addresses": True}, "validator.private_addresses"),
        ("local", {"hotkey_file": "key", "blacklist": ("nobody because",)}, "validator.blacklist"),
    ],
)
def test_a_validator_does_not_start_with_a_wrong_setting(environment: str, changes: dict[str, Any], key: str) -> None:
    wrong = msgspec.structs.replace(settings(environment), validator=ValidatorSettings(**changes))
    assert refused(wrong, "validator") == [key]


def test_a_validator_on_mainnet_needs_vectors_with_a_meaning() -> None:
    right = msgspec.structs.replace(settings("mainnet"), validator=ValidatorSettings(hotkey_file="key"))
    assert refused(right, "validator") == []
    hashed = msgspec.structs.replace(right, miner=msgspec.structs.replace(right.miner, embedder="hash"))
    assert refused(hashed, "validator") == ["miner.embedder"]


def test_a_blacklist_of_hotkeys_with_their_reasons_is_right() -> None:
    entry = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY served another's records"
    right = ValidatorSettings(hotkey_file="key", blacklist=(entry,))
    assert refused(msgspec.structs.replace(settings("local"), validator=right), "validator") == []


ORCHESTRATED: dict[str, Any] = {
    "orchestrator_url": "https://a.example",
    "inference_url": "http://127.0.0.1:8091/inference",
}


@pytest.mark.parametrize(
    ("environment", "changes", "keys"),
    [
        ("mainnet", {}, []),
        ("local", {"orchestrator_url": "http://a.example:8080/"}, []),
        ("local", {"inference_url": "", "training_url": "http://127.0.0.1:1"}, []),
        ("local", {"inference_url": "", "kinds": ("echo=a:B",)}, []),
        ("local", {"inference_url": ""}, ["worker.inference_url"]),
        ("local", {"orchestrator_url": ""}, ["worker.orchestrator_url"]),
        ("local", {"orchestrator_url": "https://a.example/jobs"}, ["worker.orchestrator_url"]),
        ("local", {"orchestrator_url": "https://a.example?x=1"}, ["worker.orchestrator_url"]),
        ("mainnet", {"orchestrator_url": "http://a.example"}, ["worker.orchestrator_url"]),
        ("local", {"backoff_min_s": 2.0, "backoff_max_s": 1.0}, ["worker.backoff_min_s"]),
    ],
)
def test_a_worker_needs_an_orchestrator_and_a_kind_of_jobs(
    environment: str, changes: dict[str, Any], keys: list[str]
) -> None:
    of_a_worker = msgspec.structs.replace(settings(environment), worker=WorkerSettings(**(ORCHESTRATED | changes)))
    assert refused(of_a_worker, "worker") == keys


def test_a_worker_does_not_share_a_ledger_with_another() -> None:
    shared = LedgerSettings(url="postgresql://engram:secret@127.0.0.1/engram")
    of_a_worker = msgspec.structs.replace(settings("local"), worker=WorkerSettings(**ORCHESTRATED), ledger=shared)
    (refusal,) = refusals(of_a_worker, ("worker",))
    assert refusal.key == "ledger.url"
    assert "leave it empty, each worker has its data_dir" in refusal.message
    assert "secret" not in refusal.message
    assert refused(of_a_worker, "miner") == []


HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.mark.parametrize("entry", ["no key https://peer.example", HOTKEY, f"{HOTKEY} ftp://peer.example"])
def test_a_peer_of_the_relay_is_a_hotkey_and_a_url(entry: str) -> None:
    assert "relay.peers" in refused(settings(relay__peers=(entry,)), "validator")
    assert "relay.peers" not in refused(settings(relay__peers=(f"{HOTKEY} https://peer.example",)), "validator")


@pytest.mark.parametrize(
    ("changes", "missing"),
    [({"relay__tool": "price"}, "relay.tool_url"), ({"relay__tool_url": "https://dex.example/mcp"}, "relay.tool")],
)
def test_a_tool_of_the_relay_has_a_server_and_a_name(changes: dict[str, str], missing: str) -> None:
    assert missing in refused(settings(**changes))
    both = settings(relay__tool="price", relay__tool_url="https://dex.example/mcp")
    assert not {key for key in refused(both) if key.startswith("relay.tool")}


@pytest.mark.parametrize(
    ("given", "surface", "host"),
    [
        (settings(), "gateway", "0.0.0.0"),
        (settings(), "gateway", "::"),
        (settings(), "facilitator", "192.0.2.1"),
        (settings("testnet", gateway__auth_required=False), "gateway", "0.0.0.0"),
    ],
)
def test_a_socket_that_a_process_is_given_is_held_to_the_rules_of_its_surface(
    given: Settings, surface: str, host: str
) -> None:
    with pytest.raises(ConfigError, match=rf"socket '{surface}': {host} is not loopback"):
        check_sockets(given, [(surface, "127.0.0.1"), (surface, host)])


def test_a_socket_that_no_rule_is_about_is_taken_at_any_address() -> None:
    check_sockets(settings(), [("gateway", "::1"), ("ops", "0.0.0.0"), ("", "0.0.0.0")])
    check_sockets(settings("testnet"), [("gateway", "0.0.0.0")])
