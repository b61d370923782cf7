"""A path has one reading: what some routers would take for another path is 404 and never a redirect."""

from collections.abc import Iterator

import pytest

from tests.gateway.surface import PHONE, running_gateway

ORDER = {"tier": "lite", "duration_hours": 1.0}


def other_spellings(path: str) -> Iterator[str]:
    """The path with each of its slashes doubled or encoded."""
    for at in (number for number, letter in enumerate(path) if letter == "/"):
        yield f"{path[:at]}//{path[at + 1 :]}"
        if at:
            yield f"{path[:at]}%2f{path[at + 1 :]}"
            yield f"{path[:at]}%2F{path[at + 1 :]}"


async def test_no_route_has_a_second_spelling() -> None:
    async with running_gateway() as gateway:
        session = (await gateway.buy())["session_id"]
        routes = {
            (method, rule.rule.replace("<session_id>", session).replace("<hotkey>", PHONE.ss58))
            for rule in gateway.public.url_map.iter_rules()
            for method in rule.methods or ()
            if method != "OPTIONS"
        } | {("GET", "/health"), ("GET", "/ready")}
        assert len(routes) > 15
        for method, route in sorted(routes):
            for path in other_spellings(route.replace("<payment_id>", "p")):
                answer = await gateway.ask(method, path, ORDER if method == "POST" else None)
                assert answer.status_code == 404, (method, path)
                assert "location" not in answer.headers
        assert (await gateway.ask("GET", f"/sessions/{session}")).json()["status"] == "provisioning"


@pytest.mark.parametrize("path", ["//evil.example/tiers", "/tiers//", "//", "/bittensor//metagraph"])
async def test_no_host_of_a_request_is_redirected_to(path: str) -> None:
    async with running_gateway() as gateway:
        answer = await gateway.client.get(gateway.url + path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "location" not in answer.headers


async def test_slashes_of_a_query_are_its_own() -> None:
    async with running_gateway() as gateway:
        assert (await gateway.client.get(f"{gateway.url}/tiers?from=http://a%2fb")).status_code == 200


async def test_a_text_with_nul_is_refused_before_it_is_looked_up() -> None:
    async with running_gateway() as gateway:
        answer = await gateway.ask("POST", "/orders", b'{"session_id": "sess_1\\u0000junk"}')
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
        assert "NUL" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a":[' + b",".join([b"{}"] * 1_100) + b"]}", "invalid_json"),
        (b'{"a":[' + b",".join([b"1"] * 1_100) + b"]}", "invalid_json"),
        (b'{"a":' + b"[" * 1_100 + b"]" * 1_100 + b"}", "invalid_json"),
        (b"{" + b",".join(b'"k%d":1' % number for number in range(2_100)) + b"}", "too_many_fields"),
    ],
)
async def test_an_order_of_thousands_of_values_is_refused_before_it_is_read(body: bytes, code: str) -> None:
    async with running_gateway() as gateway:
        answer = await gateway.ask("POST", "/sessions", body)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
