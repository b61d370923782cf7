"""A hotkey's own sessions: fields, errors and their texts, stopping, lost memories, signatures of the answers."""

from typing import Any

import pytest

from actors import CallTimeout
from engram.gateway.views import TimedStats
from engram.hotkeys import AuthError, answers
from engram.ledger import CommitUnknown
from engram.sessions import SessionEvent, history
from engram.sessions import records as session_records
from tests.gateway.surface import GATEWAY, PHONE, STRANGER, running_gateway
from tests.gateway.test_purchases import assert_error, assert_session


async def test_a_session_is_shown_to_its_controller() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        await gateway.happen(session_id, SessionEvent.NODE_READY)
        gateway.stats.by_session[session_id] = TimedStats({"vectors": 3, "block": 7}, gateway.clock.monotonic() - 12)
        shown = (await gateway.ask("GET", f"/sessions/{session_id}")).json()
        assert_session(shown)
        assert shown["status"] == "active"
        assert shown["controller_hotkey"] == PHONE.ss58
        assert shown["stats"] == {"vectors": 3, "block": 7}
        assert shown["stats_age_s"] == pytest.approx(12, abs=0.1)
        gateway.clock.advance(600)
        later = (await gateway.ask("GET", f"/sessions/{session_id}")).json()
        assert later["remaining_seconds"] == pytest.approx(3_000, abs=1)
        assert later["expires_at"] == pytest.approx(shown["expires_at"], abs=0.1)


async def test_the_hotkey_may_be_spelled_in_hex_and_is_the_same_identity() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        path = f"/sessions/{session_id}"
        for spelled in (PHONE.public_key.hex(), PHONE.public_key.hex().upper(), "0x" + PHONE.public_key.hex()):
            shown = await gateway.ask("GET", path, headers={"X-Hotkey": spelled})
            assert shown.status_code == 200
            assert shown.json()["controller_hotkey"] == PHONE.ss58


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_sessions_are_refused_in_the_originals_words(method: str) -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}"
        assert_error(await gateway.client.request(method, gateway.url + path), 401, "Unauthorized.", "missing_header")
        assert_error(await gateway.ask(method, "/sessions/none"), 404, "Session not found.", "not_found")
        assert_error(await gateway.ask(method, path, keypair=STRANGER), 403, "Not your session.", "not_yours")


async def test_a_signature_for_another_path_or_method_is_none() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}"
        signed = gateway.auth("GET", path)
        assert (await gateway.client.get(gateway.url + path, headers=signed)).status_code == 200
        assert (await gateway.client.get(gateway.url + path + "?a=b", headers=signed)).status_code == 200
        assert_error(await gateway.client.delete(gateway.url + path, headers=signed), 401, code="bad_signature")
        encoded = path.replace("/sessions/", "/%73essions/")
        assert_error(await gateway.client.get(gateway.url + encoded, headers=signed), 401, code="bad_signature")


async def test_version_2_covers_the_body() -> None:
    async with running_gateway() as gateway:
        body = b'{"tier":"lite"}'
        signed = gateway.auth("POST", "/sessions", body, version=2)
        good = await gateway.client.post(gateway.url + "/sessions", content=body, headers=signed)
        assert good.status_code == 402
        bad = await gateway.client.post(gateway.url + "/sessions", content=b'{"tier":"pro"}', headers=signed)
        assert_error(bad, 401, code="bad_signature")


async def test_repeated_auth_headers_are_refused() -> None:
    async with running_gateway() as gateway:
        signed = [*gateway.auth("GET", "/sessions/none").items()]
        twice = await gateway.client.get(gateway.url + "/sessions/none", headers=[*signed, ("X-Hotkey", STRANGER.ss58)])
        assert_error(twice, 400, code="duplicate_header")


async def test_a_stop_is_answered_at_once_hinted_and_never_undone() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        gateway.hinted.clear()
        for _ in range(2):
            stopped = await gateway.ask("DELETE", f"/sessions/{session_id}")
            assert stopped.status_code == 200
            assert stopped.json() == {"stopped": True, "session_id": session_id}
        assert set(gateway.hinted) == {session_id}
        shown = (await gateway.ask("GET", f"/sessions/{session_id}")).json()
        assert shown["status"] == "stopping"
        assert shown["remaining_seconds"] == 0
        with pytest.raises(AssertionError):
            await gateway.happen(session_id, SessionEvent.NODE_READY)


async def test_one_lists_only_ones_own_sessions() -> None:
    async with running_gateway() as gateway:
        first = (await gateway.buy())["session_id"]
        gateway.clock.advance(1)
        second = (await gateway.buy())["session_id"]
        await gateway.buy(keypair=STRANGER)
        for spelled in (PHONE.ss58, PHONE.public_key.hex()):
            listed = (await gateway.ask("GET", f"/sessions/hotkey/{spelled}")).json()
            assert [session["session_id"] for session in listed["sessions"]] == [second, first]
            assert_session(listed["sessions"][0])
            assert listed["sessions"][0]["payment_tx"].startswith("0x")
        for other in (STRANGER.ss58, "5nonsense", "0x"):
            refused = await gateway.ask("GET", f"/sessions/hotkey/{other}")
            assert_error(refused, 403, "Can only list your own sessions.")
        assert_error(await gateway.client.get(gateway.url + f"/sessions/hotkey/{PHONE.ss58}"), 401, "Unauthorized.")


async def test_a_payment_is_shown_to_who_made_it() -> None:
    async with running_gateway() as gateway:
        session = await gateway.buy()
        path = f"/payments/{session['payment_id']}"
        shown = (await gateway.ask("GET", path)).json()
        assert shown["status"] == "settled"
        assert shown["session_id"] == session["session_id"]
        assert shown["transaction"] == session["payment_tx"]
        assert shown["amount_usd"] == 0.1
        assert shown["refunds"] == []
        assert_error(await gateway.ask("GET", path, keypair=STRANGER), 403)
        assert_error(await gateway.ask("GET", "/payments/none"), 404)
        assert_error(await gateway.client.get(gateway.url + path), 401)


async def test_answers_to_signed_requests_are_signed_by_the_gateway() -> None:
    async with running_gateway() as gateway:
        identity = (await gateway.client.get(gateway.url + "/identity")).json()
        assert identity["hotkey"] == GATEWAY.ss58
        assert identity["public_key"] == GATEWAY.public_key.hex()
        for method, path, status in (("GET", "/sessions/none", 404), ("POST", "/sessions", 402)):
            body = b"{}" if method == "POST" else b""
            signed = gateway.auth(method, path)
            answer = await gateway.client.request(method, gateway.url + path, content=body, headers=signed)
            assert answer.status_code == status
            stamp = signed["X-Timestamp"]
            key = GATEWAY.public_key
            answers.verify_answer(dict(answer.headers), status, stamp, answer.content, gateway=key)
            with pytest.raises(AuthError):
                answers.verify_answer(dict(answer.headers), status, stamp, answer.content + b" ", gateway=key)
        unsigned = await gateway.client.get(gateway.url + "/tiers")
        assert "X-Gateway-Sig" not in unsigned.headers


async def test_a_hotkey_has_a_rate_of_its_own() -> None:
    async with running_gateway(http={"requests_per_minute_per_hotkey": 60}) as gateway:
        statuses = [(await gateway.ask("GET", "/sessions/none")).status_code for _ in range(12)]
        assert statuses == [404] * 10 + [429] * 2
        slow = await gateway.ask("GET", "/sessions/none")
        assert_error(slow, 429, code="rate_limited")
        assert int(slow.headers["Retry-After"]) >= 1
        assert (await gateway.ask("GET", "/sessions/none", keypair=STRANGER)).status_code == 404


async def test_where_checks_are_off_the_hotkey_is_believed() -> None:
    async with running_gateway(gateway={"auth_required": False}) as gateway:
        asked = await gateway.client.post(gateway.url + "/sessions", content=b'{"tier":"lite"}')
        paid = await gateway.client.post(
            gateway.url + "/sessions", content=b'{"tier":"lite"}', headers=gateway.payment(asked)
        )
        assert paid.status_code == 202
        session_id = paid.json()["session_id"]
        assert (await gateway.client.get(f"{gateway.url}/sessions/{session_id}")).status_code == 200
        other = await gateway.client.get(f"{gateway.url}/sessions/{session_id}", headers={"X-Hotkey": PHONE.ss58})
        assert_error(other, 403)
        odd = await gateway.client.get(f"{gateway.url}/sessions/{session_id}", headers={"X-Hotkey": "some name"})
        assert_error(odd, 403)


async def test_a_ledger_that_cannot_be_asked_is_a_503_that_says_so() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}"

        def lost() -> None:
            raise CommitUnknown("the disk went away")

        def silent() -> None:
            raise CallTimeout("ledger", 30.0, taken=True)

        for fault in (lost, silent):
            gateway.ledger.before_commit = fault
            stopped = await gateway.ask("DELETE", path)
            assert_error(stopped, 503, code="outcome_unknown")
        gateway.ledger.before_commit = None
        gateway.ledger.close()
        shown = await gateway.ask("GET", path)
        assert_error(shown, 503, code="unavailable")
        assert shown.headers["Retry-After"]
        assert shown.headers["X-Gateway-Sig"]


async def test_a_lost_memory_is_told_until_its_controller_has_restored_it() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        path = f"/sessions/{session_id}"
        await gateway.happen(session_id, SessionEvent.NODE_READY)

        async def memory() -> tuple[str, float | None, float | None]:
            shown = (await gateway.ask("GET", path)).json()
            return shown["memory"], shown["emptied_at"], shown["restored_at"]

        async def lose(store: str) -> float:
            session = await gateway.ledger.read(lambda c: session_records.get(c, session_id))
            assert session is not None
            at = gateway.clock.now()
            await gateway.ledger.write(lambda c: session_records.note_store(c, session, store, at))
            return at

        async def say_restored(emptied_at: float, **more: Any) -> Any:
            return await gateway.ask("POST", f"{path}/restored", {"emptied_at": emptied_at}, **more)

        await lose("first")
        assert await memory() == ("kept", None, None)
        refused = await say_restored(1.5)
        assert_error(refused, 409, "emptied_at is 1.5, and this session has lost nothing.", "not_this_loss")
        lost_at = await lose("second")
        assert await memory() == ("lost", lost_at, None)

        assert_error(await say_restored(lost_at, keypair=STRANGER), 403, code="not_yours")
        gateway.clock.advance(60)
        restored = (await say_restored(lost_at)).json()
        assert (restored["memory"], restored["restored_at"]) == ("restored", pytest.approx(lost_at + 60, abs=1))
        gateway.clock.advance(60)
        assert (await say_restored(lost_at)).status_code == 200, "it may be said again"
        assert await memory() == ("restored", lost_at, restored["restored_at"])

        await lose("third")
        assert (await memory())[0] == "lost"
        assert_error(await say_restored(lost_at), 409, code="not_this_loss")
        events = await gateway.ledger.read(lambda c: history.events_since(c, session_id))
        assert [e.event for e in events][-3:] == ["memory_lost", "memory_restored", "memory_lost"]


@pytest.mark.parametrize("body", [{}, {"emptied_at": "now"}, {"emptied_at": None}, {"emptied_at": [1.0]}])
async def test_a_loss_that_cannot_be_read_is_refused(body: dict[str, Any]) -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/restored"
        assert (await gateway.ask("POST", path, body)).status_code == 400
