"""What a spending key owns, and the faucet that play money alone has."""

from tests.gateway.surface import running_gateway

ADDRESS = "0x" + "ab" * 20


async def test_play_money_is_what_the_books_say_and_the_faucet_fills_what_is_nearly_empty() -> None:
    async with running_gateway(facilitator={"opening_balance_usd": 5.0}) as gateway:
        path = f"/balances/{ADDRESS}"
        shown = (await gateway.ask("GET", path)).json()
        assert (shown["amount"], shown["network"], shown["faucet"]) == ("5000000", "engram-play", True)
        assert shown["address"].lower() == ADDRESS
        for owned in ("105000000", "105000000"):
            given = await gateway.ask("POST", f"{path}/faucet")
            assert (given.status_code, given.json()["amount"]) == (200, owned)
        assert (await gateway.ask("GET", path)).json()["amount"] == "105000000"


async def test_what_is_no_address_is_named_and_only_signed_requests_are_answered() -> None:
    async with running_gateway() as gateway:
        refused = await gateway.ask("GET", "/balances/0x12")
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed_address")
        assert (await gateway.client.get(f"{gateway.url}/balances/{ADDRESS}")).status_code == 401
        assert (await gateway.client.post(f"{gateway.url}/balances/{ADDRESS}/faucet")).status_code == 401


async def test_real_money_has_no_faucet_and_without_a_chain_no_known_balance() -> None:
    async with running_gateway(
        payments={"network": "base-sepolia", "facilitator_url": "http://127.0.0.1:9"}
    ) as gateway:
        shown = (await gateway.ask("GET", f"/balances/{ADDRESS}")).json()
        assert (shown["amount"], shown["network"], shown["faucet"]) == (None, "base-sepolia", False)
        refused = await gateway.ask("POST", f"/balances/{ADDRESS}/faucet")
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


async def test_a_chain_that_does_not_answer_is_a_balance_for_later() -> None:
    away = "http://127.0.0.1:9"
    settings: dict[str, object] = {"network": "base-sepolia", "facilitator_url": away, "rpc_url": away}
    async with running_gateway(payments=settings) as gateway:
        refused = await gateway.ask("GET", f"/balances/{ADDRESS}")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
