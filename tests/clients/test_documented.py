"""x402's own clients buy by the lines of docs/clients.md, and their defaults refuse what the page says."""

import secrets

import pytest

from engram.hotkeys import Keypair
from engram.payments.networks import BASE_SEPOLIA, PLAY
from tests.browser.chromium import PageError, Site, needs_chromium
from tests.clients import documented
from tests.clients.documented import ClientError, Given, Outcome
from tests.e2e.buyer import Buyer
from tests.evm import node
from tests.evm.shop import RECIPIENT, Shop
from tests.evm.wallet import EvmWallet

pytestmark = [node.needs_node, needs_chromium, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("evm")]

PRICE = 2_400_000
JAVASCRIPT = ("@x402/fetch", "@x402/axios", "x402-fetch", "x402-axios")
PYTHON = ("x402-httpx", "x402-requests", "x402-v1-httpx", "x402-v1-requests")
V1 = ("x402-fetch", "x402-axios", "x402-v1-httpx", "x402-v1-requests")
CAPPED = ("@x402/fetch", "x402-fetch", "x402-httpx", "x402-requests")
"""Those that refuse $2.40 by default."""
PLAYLESS = ("@x402/fetch", "x402-httpx", "x402-requests")
"""Those that take play money when it is allowed, and only then."""
BOTH = ("@x402/fetch", "@x402/axios", "x402-httpx", "x402-requests")
"""Those that can be made to take play money."""


def run(client: str, given: Given, *, page: Site | None = None, without: str | None = None) -> Outcome:
    """Run a documented program: in Chromium where a page is given, else in Node or Python."""
    text = documented.program("python" if client in PYTHON else "js", client, without=without)
    if client in PYTHON:
        if client in V1 and not documented.PYTHON_V1.is_dir():
            pytest.skip("needs version 1 of x402's Python package: run scripts/setup-clients")
        return documented.run_python(text, given, version=1 if client in V1 else 2)
    if page is None:
        return documented.run_node(text, given)
    page.files["/program.js"] = documented.bundle(text)
    return documented.run_in_browser(page.origin, given)


def given(url: str, secret: bytes | None = None) -> Given:
    return Given(url, secrets.token_bytes(32), secret or secrets.token_bytes(32))


def stop(at: Given, outcome: Outcome) -> None:
    buyer = Buyer()
    buyer.keypair = Keypair.from_seed(at.seed)
    assert buyer.stop(at.gateway, str(outcome.session["session_id"])).status == 200


def buy_with_play_money(url: str, client: str, page: Site | None) -> None:
    at = given(url)
    outcome = run(client, at, page=page)
    stop(at, outcome)
    assert (outcome.status, outcome.session["code"]) == (202, "accepted")
    assert outcome.receipt["transaction"] == outcome.session["payment_tx"]
    assert outcome.receipt["network"] == PLAY.caip2


def buy_on_the_chain(shop: Shop, client: str, page: Site | None) -> None:
    wallet = EvmWallet()
    shop.chain.mint(wallet.address, PRICE)
    at = given(shop.url, wallet.secret)
    outcome = run(client, at, page=page)
    stop(at, outcome)
    assert (outcome.status, outcome.session["code"]) == (202, "accepted")
    assert outcome.receipt["transaction"] == outcome.session["payment_tx"]
    assert outcome.receipt["network"] == (BASE_SEPOLIA.v1_name if client in V1 else BASE_SEPOLIA.caip2)
    assert shop.chain.transfers(wallet.address, RECIPIENT) == [PRICE]


@pytest.mark.parametrize("client", BOTH)
def test_a_client_of_version_2_buys_with_play_money(local: str, client: str) -> None:
    buy_with_play_money(local, client, None)


@pytest.mark.parametrize("client", [client for client in BOTH if client in JAVASCRIPT])
def test_a_page_of_another_origin_buys_with_play_money(local: str, page: Site, client: str) -> None:
    buy_with_play_money(local, client, page)


@pytest.mark.parametrize("client", [*JAVASCRIPT, *PYTHON])
def test_a_client_buys_on_the_chain_and_the_money_moves_once(shop: Shop, client: str) -> None:
    buy_on_the_chain(shop, client, None)


@pytest.mark.parametrize("client", JAVASCRIPT)
def test_a_page_of_another_origin_buys_on_the_chain(shop: Shop, page: Site, client: str) -> None:
    buy_on_the_chain(shop, client, page)


# What defaults refuse.


@pytest.mark.parametrize("client", PLAYLESS)
def test_version_2_takes_no_play_money_without_its_line(local: str, client: str) -> None:
    with pytest.raises(ClientError, match="only default assets"):
        run(client, given(local), without="play money")


@pytest.mark.parametrize("client", V1)
def test_version_1_takes_no_play_money_at_all(local: str, client: str) -> None:
    with pytest.raises(ClientError, match="engram-play"):
        run(client, given(local))


@pytest.mark.parametrize("client", CAPPED)
def test_a_client_with_a_cap_of_its_own_refuses_the_price_without_the_line(shop: Shop, client: str) -> None:
    with pytest.raises(ClientError, match=r"exceeds maximum allowed|\(\$1"):
        run(client, given(shop.url), without="the cap")


def test_a_page_that_may_not_call_gets_no_price(shop: Shop, page: Site) -> None:
    """The same program from an origin that the gateway does not know."""
    page.files["/program.js"] = documented.bundle(documented.program("js", "@x402/fetch"))
    with pytest.raises(PageError, match="CORS policy"):
        documented.run_in_browser(page.origin.replace("127.0.0.1", "localhost"), given(shop.url))
