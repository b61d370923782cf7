"""The tables of config agree with the settings and with the areas that read them."""

import msgspec
import pytest

from config.environment import NAMES, VARIABLES, misspelled, variable_of
from config.keys import KEYS, SECTIONS, describe, is_secret, read_text, read_value
from config.model import Settings
from config.networks import NETWORKS, money
from engram.payments import networks as payment_networks


def test_every_variable_gives_a_setting() -> None:
    assert sorted(VARIABLES.values()) == sorted({key for key in KEYS if variable_of(key)})
    assert {variable_of(key) for key in KEYS} - {None} == set(VARIABLES)
    assert variable_of("gateway.port") == "GATEWAY_PORT"
    assert variable_of("gateway.host") is None


def test_every_default_is_a_value_that_would_be_taken() -> None:
    defaults = msgspec.to_builtins(Settings())
    for key, hint in KEYS.items():
        section, dot, name = key.partition(".")
        value = defaults[section][name] if dot else defaults[section]
        assert read_value(key, list(value) if isinstance(value, tuple) else value) is not None
        assert describe(hint)


def test_sections_are_the_fields_of_settings() -> None:
    assert {*SECTIONS, *(key for key in KEYS if "." not in key)} == set(Settings.__struct_fields__)


@pytest.mark.parametrize("name", NAMES)
def test_a_known_variable_is_not_misspelt(name: str) -> None:
    assert misspelled(name) is None


def test_the_networks_that_can_be_configured_are_those_that_payments_take() -> None:
    def worth(network: payment_networks.Network) -> str:
        return "play" if network.play else "test" if network.test else "real"

    assert dict(NETWORKS) == {name: worth(network) for name, network in payment_networks.NETWORKS.items()}


def test_a_near_miss_of_a_network_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'base-sepolia'"):
        money("base-sepoila")


def test_secrets_are_known_by_their_names() -> None:
    assert is_secret("ledger.password")
    assert is_secret("relay.api_key")
    assert not is_secret("gateway.port")


def test_words_are_taken_in_any_case() -> None:
    assert read_text("log.level", " warning ") == "WARNING"
    assert read_text("gateway.auth_required", "OFF") is False
    assert read_text("gateway.host", " x ") == " x "
