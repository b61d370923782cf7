"""Who asks is in the signed headers alone: whatever else asks for authority is refused, and nothing is sold by it."""

import json
from urllib.parse import urlencode

import pytest

from engram.hotkeys import authority
from tests.gateway.surface import PHONE, RECIPIENT, STRANGER, running_gateway
from tests.hotkeys.test_authority import SPELLINGS

ORDER = {"tier": "lite", "duration_hours": 1.0}


async def test_no_route_ignores_a_field_of_authority() -> None:
    async with running_gateway() as gateway:
        session = (await gateway.buy())["session_id"]
        routes = {
            (method, rule.rule.replace("<session_id>", session).replace("<hotkey>", PHONE.ss58))
            for rule in gateway.public.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in ("HEAD", "OPTIONS")
            # A node judges what is passed on to it; the app's files take nothing.
            if not rule.rule.startswith(("/sessions/<session_id>/node/", "/app"))
        }
        assert len(routes) > 10
        for method, route in sorted(routes):
            path = route.replace("<payment_id>", "p").replace("<address>", RECIPIENT)
            for name in sorted(authority.FIELDS):
                for body, query in ((ORDER | {name: STRANGER.ss58}, {}), (ORDER, {name: STRANGER.ss58})):
                    answer = await gateway.ask(method, path + (f"?{urlencode(query)}" if query else ""), body)
                    told = (answer.status_code, answer.json()["code"], answer.json().get("field"))
                    assert told == (400, "misplaced_field", name), (method, path)
        assert len((await gateway.ask("GET", f"/sessions/hotkey/{PHONE.ss58}")).json()["sessions"]) == 1


@pytest.mark.parametrize("name", sorted(authority.FIELDS))
async def test_an_order_that_asks_for_authority_gets_no_offer(name: str) -> None:
    async with running_gateway() as gateway:
        for spell in SPELLINGS:
            answer = await gateway.ask("POST", "/sessions", ORDER | {spell(name): "x"})
            assert (answer.status_code, answer.json()["field"]) == (400, spell(name))
        answer = await gateway.ask("POST", "/sessions", json.dumps(ORDER | {name: None, "note": "x"}).encode())
        assert answer.status_code == 402
