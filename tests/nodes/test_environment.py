"""A node's launch as environment variables: what goes in comes out, and what is wrong is named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import MinerSettings
from engram.hotkeys import Keypair
from engram.nodes import environment, launch
from engram.nodes.launch import EmbedderLaunch, LaunchFile, LaunchFileError

HOTKEY = Keypair.from_uri("//Charlie")
CONTROLLER = Keypair.from_uri("//Dave")
TOLD = {
    "ENGRAM_NODE_SESSION_ID": "s1",
    "ENGRAM_NODE_LAUNCH_TOKEN": "ledger-t1",
    "ENGRAM_NODE_HOTKEY": HOTKEY.ss58,
    "ENGRAM_NODE_CONTROLLER_PUBLIC_KEY": CONTROLLER.ss58,
    "PATH": "/usr/bin",
}
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40)


def test_four_variables_are_enough_and_the_image_gives_the_place() -> None:
    read = environment.read(TOLD)
    assert (read.host, read.port, read.data_dir) == ("0.0.0.0", 8091, "/data")
    assert (read.named_hotkey(), read.controller()) == (HOTKEY.public_key, CONTROLLER.public_key)


@given(
    session=TEXT,
    port=st.integers(1, 65_535),
    ends_at=st.none() | st.floats(0, 2e9),
    data_dir=st.sampled_from(["/data", "/elsewhere"]),
    host=st.sampled_from(["0.0.0.0", "127.0.0.1"]),
    chars=st.integers(1, 10_000),
    kind=st.sampled_from(["hash", "minilm"]),
)
def test_what_is_put_into_the_environment_is_read_out_of_it(
    session: str, port: int, ends_at: float | None, data_dir: str, host: str, chars: int, kind: Any
) -> None:
    launched = LaunchFile(
        session_id=session,
        launch_token="t",
        host=host,
        port=port,
        data_dir=data_dir,
        hotkey=HOTKEY.ss58,
        controller_public_key=CONTROLLER.ss58,
        ends_at=ends_at,
        chain_endpoints=("wss://one.example", "https://two.example"),
        embedder=EmbedderLaunch(kind=kind),
        miner=MinerSettings(max_text_chars=chars),
    )
    assert environment.read(environment.variables(launched)) == launched


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"ENGRAM_NODE_LAUNCH_TOKEN": ""}, "launch_token must not be empty"),
        ({"ENGRAM_NODE_HOTKEY": "5nobody"}, "hotkey must be an address"),
        ({"ENGRAM_NODE_HOTKEY_FILE": "/key"}, "one of hotkey_file"),
        ({"ENGRAM_NODE_HOTKEY": ""}, "one of hotkey_file"),
        ({"ENGRAM_NODE_PORT": "eighty"}, "ENGRAM_NODE_PORT is 'eighty', which is no JSON"),
        ({"ENGRAM_NODE_PORT": "0"}, "port is 0; it must be 1 to 65535"),
        ({"ENGRAM_NODE_ENDS_AT": '"soon"'}, "Expected `float | null`"),
        ({"ENGRAM_NODE_SESION_ID": "s"}, "ENGRAM_NODE_SESION_ID is no variable of a node"),
        ({"ENGRAM_NODE_GATEWAY": "ftp://x"}, "gateway is 'ftp://x', which is no http"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(told: dict[str, str], reason: str) -> None:
    with pytest.raises(LaunchFileError, match=reason):
        environment.read(TOLD | told)


def test_a_missing_variable_is_named() -> None:
    for name in TOLD.keys() - {"PATH", "ENGRAM_NODE_HOTKEY"}:
        with pytest.raises(LaunchFileError, match=name.removeprefix("ENGRAM_NODE_").lower()):
            environment.read({key: value for key, value in TOLD.items() if key != name})


def test_a_launch_that_is_invalid_is_not_put_into_an_environment() -> None:
    with pytest.raises(LaunchFileError, match="port"):
        environment.variables(
            launch.LaunchFile(
                session_id="s",
                launch_token="t",
                port=0,
                data_dir="/d",
                hotkey=HOTKEY.ss58,
                controller_public_key=CONTROLLER.ss58,
            )
        )
