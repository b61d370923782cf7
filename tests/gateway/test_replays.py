"""A request that was signed once and is sent by somebody else again: what it gets them."""

import pytest
import trio

from engram.gateway.replay_guard import Once
from engram.gateway.tickets import LIFETIME_S
from engram.hotkeys.verifier import CLOCKS_AHEAD_MS
from engram.http.errors import ApiError
from tests.gateway.surface import PHONE, STRANGER, Gateway, running_gateway
from tests.gateway.test_purchases import assert_error

NOW_MS = 1_700_000_000_000


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


def code(guard: Once, stamp_ms: int, *, message: bytes = b"m" * 32, now_ms: int = NOW_MS) -> str:
    try:
        guard.take(PHONE.public_key, message, stamp_ms, now_ms=now_ms)
    except ApiError as refused:
        return refused.code
    return ""


def test_a_full_memory_refuses_for_now_and_forgets_nothing() -> None:
    guard = Once(started_ms=0, bound=2)
    messages = [bytes([number]) * 32 for number in range(3)]
    assert [code(guard, NOW_MS, message=each) for each in messages] == ["", "", "busy"]
    assert code(guard, NOW_MS, message=messages[0]) == "replayed"
    with pytest.raises(ApiError) as full:
        guard.take(PHONE.public_key, messages[2], NOW_MS, now_ms=NOW_MS)
    assert (full.value.status, dict(full.value.headers)) == (503, {"Retry-After": "5"})
    assert code(guard, NOW_MS + 62_000, message=messages[2], now_ms=NOW_MS + 62_000) == ""


def test_one_hotkey_cannot_use_up_the_room_of_all() -> None:
    guard = Once(started_ms=0, per_sender=1)
    assert [code(guard, NOW_MS, message=bytes([number]) * 32) for number in range(2)] == ["", "busy"]
    guard.take(STRANGER.public_key, b"m" * 32, NOW_MS, now_ms=NOW_MS)


def test_a_request_is_remembered_as_long_as_its_stamp_passes() -> None:
    guard = Once(started_ms=0)
    assert code(guard, NOW_MS + 60_000) == ""
    assert code(guard, NOW_MS + 60_000, now_ms=NOW_MS + 120_000) == "replayed"


def test_a_clock_that_is_set_back_lets_nothing_in_again() -> None:
    guard = Once(started_ms=0)
    assert code(guard, NOW_MS) == ""
    assert code(guard, NOW_MS + 100_000, message=b"n" * 32, now_ms=NOW_MS + 100_000) == ""
    assert code(guard, NOW_MS) == "stale"


def test_what_the_process_before_may_have_taken_is_refused() -> None:
    guard = Once(started_ms=NOW_MS)
    told = [code(guard, NOW_MS + offset_ms) for offset_ms in (-1, 0, CLOCKS_AHEAD_MS - 1, CLOCKS_AHEAD_MS)]
    assert told == ["before_start"] * 3 + [""]
