"""What a node on a machine of somebody else is told."""

import msgspec

from config.model import ChainSettings, GatewaySettings, MinerSettings, Settings
from engram.hotkeys import Keypair
from engram.nodes import environment
from engram.provisioning.node_environment import environment_of, foreign_settings
from tests.provisioning.test_local import a_spec

SETTINGS = Settings(
    gateway=GatewaySettings(public_url="https://gateway.example/"),
    chain=ChainSettings(endpoints=("ws://127.0.0.1:9944", "http://localhost:9944", "wss://chain.example")),
    miner=MinerSettings(
        weights_dir="/here/weights",
        cache_dir="/here/cache",
        hotkey_password_file="/here/password",
        announce="203.0.113.5",
        max_text_chars=99,
    ),
)
KEYS = {"hotkey": Keypair.from_uri("//Charlie").public_key, "controller": Keypair.from_uri("//Dave").public_key}


def test_the_environment_of_a_node_starts_it_with_what_the_session_bought() -> None:
    spec = msgspec.structs.replace(a_spec("s1", "t1"), **KEYS)
    told = environment_of(spec, foreign_settings(SETTINGS))
    launch = environment.read(told)
    assert (launch.session_id, launch.launch_token, launch.ends_at) == ("s1", spec.token, spec.ends_at)
    assert (launch.storage_bytes, launch.memory_bytes) == (spec.tier.storage_bytes, spec.tier.memory_bytes)
    assert (launch.named_hotkey(), launch.controller()) == (KEYS["hotkey"], KEYS["controller"])
    assert launch.miner is not None
    assert launch.miner.max_text_chars == 99
    assert told["OMP_NUM_THREADS"] == str(spec.tier.cpu_vcpu)


def test_nothing_that_is_told_names_this_machine_or_a_secret() -> None:
    spec = msgspec.structs.replace(a_spec("s1", "t1"), **KEYS, hotkey_file="/here/hotkey")
    told = environment_of(spec, foreign_settings(SETTINGS))
    assert not [value for value in told.values() if "/here/" in value or "127.0.0.1" in value or "localhost" in value]
    launch = environment.read(told)
    assert launch.chain() == ("wss://chain.example",)
    assert launch.gateway == "https://gateway.example"
    assert not launch.hotkey_file
    assert launch.miner is not None
    assert not launch.miner.announce
