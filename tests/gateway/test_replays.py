"""A request that was signed once and is sent by somebody else again: what it gets them."""

import trio

from engram.gateway.tickets import LIFETIME_S
from tests.gateway.surface import PHONE, STRANGER, Gateway, running_gateway
from tests.gateway.test_purchases import assert_error


async def sent_again(gateway: Gateway, method: str, path: str, times: int = 2) -> list[int]:
    signed = gateway.auth(method, path)
    return [
        (await gateway.client.request(method, gateway.url + path, headers=signed)).status_code for _ in range(times)
    ]


async def test_a_captured_request_for_a_ticket_makes_no_second_ticket() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/ticket"
        for version in (1, 2):
            signed = gateway.auth("POST", path, version=version)
            assert (await gateway.client.post(gateway.url + path, headers=signed)).status_code == 200
            spelled = {**signed, "X-Hotkey": "0x" + PHONE.public_key.hex(), "X-Sig": "0x" + signed["X-Sig"].upper()}
            for headers in (signed, spelled):
                again = await gateway.client.post(gateway.url + path + "?again=1", headers=headers)
                assert_error(again, 401, code="replayed")
                assert "ticket" not in again.json()
            gateway.clock.advance(LIFETIME_S / 2)
            assert (await gateway.client.post(gateway.url + path, headers=signed)).status_code == 401


async def test_of_many_replays_at_once_one_gets_the_ticket() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/ticket"
        signed, statuses = gateway.auth("POST", path), list[int]()

        async def send() -> None:
            statuses.append((await gateway.client.post(gateway.url + path, headers=signed)).status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(send)
        assert sorted(statuses) == [200] + [401] * 7


async def test_a_stranger_takes_no_room_and_uses_up_nobodys_request() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/ticket"
        refused = gateway.auth("POST", path, keypair=STRANGER)
        for _ in range(2):
            assert_error(await gateway.client.post(gateway.url + path, headers=refused), 403, code="not_yours")
        unknown = gateway.auth("POST", "/sessions/none/ticket")
        for _ in range(2):
            assert_error(await gateway.client.post(gateway.url + "/sessions/none/ticket", headers=unknown), 404)
        assert (await gateway.ask("POST", path)).status_code == 200


async def test_reading_and_stopping_may_be_sent_again() -> None:
    async with running_gateway() as gateway:
        session = await gateway.buy()
        path = f"/sessions/{session['session_id']}"
        for read in (path, f"/sessions/hotkey/{PHONE.ss58}", f"/payments/{session['payment_id']}"):
            assert await sent_again(gateway, "GET", read) == [200, 200], read
        assert await sent_again(gateway, "DELETE", path) == [200, 200]
        assert (await gateway.ask("GET", path)).json()["status"] == "stopping"


async def test_a_request_that_got_its_ticket_at_one_gateway_gets_none_at_another_of_the_ledger() -> None:
    async with running_gateway() as gateway, running_gateway(ledger=gateway.ledger) as other:
        path = f"/sessions/{(await gateway.buy())['session_id']}/ticket"
        signed = gateway.auth("POST", path)
        issued = await gateway.client.post(gateway.url + path, headers=signed)
        assert_error(await other.client.post(other.url + path, headers=signed), 401, code="replayed")
        async with other.client.stream("GET", other.url + issued.json()["url"]) as opened:
            assert opened.status_code == 200
        assert_error(await gateway.client.get(gateway.url + issued.json()["url"]), 401, code="bad_ticket")
