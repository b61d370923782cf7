"""An identity that moves to another device by a code: kept for a while, given out once, and never to be read here."""

import httpx2
import pytest

from engram.gateway import transfers
from engram.hotkeys import Keypair, answers
from tests.gateway.surface import Gateway, running_gateway
from tests.gateway.test_purchases import assert_error

BODY = {"id": "5f" * 16, "sealed": "3q2+7w=="}
OTHER = Keypair.from_seed(b"\x21" * 32)


async def take(gateway: Gateway, transfer: str = BODY["id"], timestamp: str = "") -> httpx2.Response:
    headers = {"X-Timestamp": timestamp} if timestamp else {}
    return await gateway.client.post(f"{gateway.url}/transfers/take", json={"id": transfer}, headers=headers)


async def test_an_identity_is_taken_once_by_whoever_has_the_code() -> None:
    async with running_gateway() as gateway:
        left = await gateway.ask("POST", "/transfers", BODY)
        assert (left.status_code, left.json()) == (201, {"expires_at": gateway.clock.now() + transfers.LIFETIME_S})
        now_ms = str(int(gateway.clock.now() * 1000))
        taken = await take(gateway, timestamp=now_ms)
        assert (taken.status_code, taken.json()) == (200, {"sealed": BODY["sealed"]})
        assert answers.SIGNATURE_HEADER in taken.headers
        assert_error(await take(gateway), 404, code="no_transfer")


async def test_whoever_left_an_identity_is_told_whether_it_was_taken() -> None:
    async with running_gateway() as gateway:
        assert_error(await gateway.ask("GET", "/transfers"), 404, code="no_transfer")
        expires_at = (await gateway.ask("POST", "/transfers", BODY)).json()["expires_at"]
        waiting = {"id": BODY["id"], "taken": False, "expires_at": expires_at}
        assert (await gateway.ask("GET", "/transfers")).json() == waiting
        assert_error(await gateway.ask("GET", "/transfers", keypair=OTHER), 404, code="no_transfer")
        await take(gateway)
        assert (await gateway.ask("GET", "/transfers")).json() == waiting | {"taken": True}
        newer = BODY | {"id": "60" * 16}
        expires_at = (await gateway.ask("POST", "/transfers", newer)).json()["expires_at"]
        waiting = {"id": newer["id"], "taken": False, "expires_at": expires_at}
        assert (await gateway.ask("GET", "/transfers")).json() == waiting
        gateway.clock.advance(transfers.LIFETIME_S)
        assert_error(await take(gateway, newer["id"]), 404, code="no_transfer")
        assert (await gateway.ask("GET", "/transfers")).json()["taken"] is False


async def test_a_code_is_over_after_its_time_and_a_newer_one_takes_its_place() -> None:
    async with running_gateway() as gateway:
        await gateway.ask("POST", "/transfers", BODY)
        newer = BODY | {"id": "60" * 16}
        await gateway.ask("POST", "/transfers", newer)
        assert_error(await take(gateway), 404, code="no_transfer")
        gateway.clock.advance(transfers.LIFETIME_S)
        assert_error(await take(gateway, newer["id"]), 404, code="no_transfer")


async def test_a_gateway_keeps_no_more_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MOST_AT_ONCE", 1)
    async with running_gateway() as gateway:
        await gateway.ask("POST", "/transfers", BODY)
        other = BODY | {"id": "61" * 16}
        refused = await gateway.ask("POST", "/transfers", other, keypair=OTHER)
        assert_error(refused, 503, code="busy")
        gateway.clock.advance(transfers.LIFETIME_S)  # what is over makes room
        assert (await gateway.ask("POST", "/transfers", other, keypair=OTHER)).status_code == 201


async def test_only_a_signed_request_leaves_an_identity_and_only_of_that_form() -> None:
    async with running_gateway() as gateway:
        unsigned = await gateway.client.post(f"{gateway.url}/transfers", json=BODY)
        assert unsigned.status_code == 401
        for wrong in ({"id": "5F" * 16}, {"id": "5f"}, {"sealed": ""}, {"sealed": "ä"}, {"sealed": "a" * 2_049}):
            assert_error(await gateway.ask("POST", "/transfers", BODY | wrong), 400)
        assert_error(await take(gateway, "zz"), 400)
