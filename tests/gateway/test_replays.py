"""A request that was signed once and is sent by somebody else again: what it gets them."""

import pytest
import trio

from engram.gateway.caller import Caller, consume_signature
from engram.gateway.tickets import LIFETIME_S
from engram.hotkeys import gateway_scheme
from engram.hotkeys.replay_guard import SingleUse
from engram.http.errors import ApiError
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


async def test_a_request_of_before_the_start_gets_no_ticket() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/ticket"
        early = gateway.auth_at("POST", path, gateway.started_s)
        refused = await gateway.client.post(gateway.url + path, headers=early)
        assert_error(refused, 401, code="before_start")
        assert refused.json()["clock_skew_ms"] < 0


async def test_a_full_guard_is_answered_503_with_a_time_to_come_again() -> None:
    async with running_gateway() as gateway:
        full = SingleUse(started_ms=0, window_ms=gateway_scheme.WINDOW_MS, bound=0)
        caller = Caller(PHONE.public_key, b"m" * 32, int(gateway.clock.now() * 1000))
        with pytest.raises(ApiError) as refused:
            consume_signature(gateway.services, full, caller)
        assert (refused.value.status, refused.value.code) == (503, "busy")
        assert dict(refused.value.headers) == {"Retry-After": "5"}
