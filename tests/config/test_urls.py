"""Every setting that is a URL is looked at before a process starts, whatever becomes of it later."""

import pytest

import config
from config import ConfigError
from config.keys import KEYS

pytestmark = pytest.mark.rules

URLS = [key for key in KEYS if key.endswith(("url", "endpoints"))]
OPENAI = {"miner.embedder": "openai", "miner.embedding_model": "m", "miner.embedding_dimension": "8"}
"""With these the embedding server is asked."""


def started_with(key: str, value: str) -> None:
    flags: dict[str, str | float | None] = {**OPENAI, "miner.embedding_url": "https://a.example", key: value}
    config.check(config.load(None, (), {}, flags, ()).settings, ("gateway", "miner"))


def test_the_settings_that_are_urls_are_these() -> None:
    assert sorted(URLS) == [
        "akash.endpoints",
        "akash.node_url",
        "chain.endpoints",
        "gateway.public_url",
        "gateway.terms_url",
        "ledger.url",
        "miner.embedding_url",
        "miner.hub_url",
        "payments.facilitator_url",
        "payments.rpc_url",
        "relay.tool_url",
        "relay.url",
        "worker.inference_url",
        "worker.orchestrator_url",
        "worker.training_url",
        "xeris.archive_endpoints",
        "xeris.public_url",
    ]


@pytest.mark.parametrize("key", URLS)
@pytest.mark.parametrize(
    "value",
    [
        "host.example/in",
        "ftp://a.example",
        "https://",
        "http://[::1",
        "https://a:99999",
        "https://a b.example",
        "data:,x",
    ],
)
def test_what_is_no_url_is_refused_at_the_start_by_the_name_of_its_setting(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        started_with(key, value)
    assert any(key in str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize(
    "key", ["akash.node_url", "gateway.public_url", "gateway.terms_url", "miner.hub_url", "relay.url"]
)
@pytest.mark.parametrize("value", ["", "https://a.example", "http://127.0.0.1:8080/base/", "https://[2001:db8::1]/x"])
def test_a_url_is_taken(key: str, value: str) -> None:
    started_with(key, value)


@pytest.mark.parametrize("rest", ["me:key@a.example", "a.example/?shop=1", "a.example/#shop"])
def test_the_url_that_every_buyer_is_shown_has_no_secrets_and_can_be_continued_by_a_path(rest: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.public_url.*no user") as caught:
        started_with("gateway.public_url", f"https://{rest}")
    assert "key@" not in str(caught.value)
