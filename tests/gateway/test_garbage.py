"""Whatever a client sends, the answer is never a 500 and always has the usual form."""

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.surface import Gateway, running_gateway

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.fixed_dictionaries({"tier": JSON, "duration_hours": JSON}),
    st.fixed_dictionaries({"tier": st.sampled_from(["lite", "pro"]), "duration_hours": JSON}),
    JSON,
)
HEADER_TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
PATH_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "X-Hotkey",
            "X-Timestamp",
            "X-Sig",
            "X-Sig-Version",
            "X-Payment",
            "PAYMENT-SIGNATURE",
            "Last-Event-ID",
            "If-None-Match",
            "X-Request-Id",
            "Origin",
            "Cookie",
            "Content-Type",
            "X-Forwarded-For",
        ]
    ),
    HEADER_TEXT,
    max_size=4,
)
ROUTES = (
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/tiers"),
    ("GET", "/nodes"),
    ("GET", "/identity"),
    ("GET", "/terms"),
    ("GET", "/bittensor/metagraph?netuid={}"),
    ("GET", "/bittensor/metagraph?fields={}"),
    ("GET", "/openapi.json"),
    ("POST", "/sessions"),
    ("GET", "/sessions/{}"),
    ("DELETE", "/sessions/{}"),
    ("GET", "/sessions/hotkey/{}"),
    ("GET", "/sessions/{}/events"),
    ("GET", "/sessions/x/events?ticket={}"),
    ("GET", "/sessions/x/events?last_event_id={}"),
    ("POST", "/sessions/{}/ticket"),
    ("POST", "/sessions/{}/extend"),
    ("GET", "/payments/{}"),
    ("POST", "/orders"),
    ("POST", "/orders/status"),
    ("POST", "/orders/pay"),
    ("PATCH", "/{}"),
)
REQUESTS = st.tuples(st.sampled_from(ROUTES), PATH_TEXT, BODIES, HEADERS, st.booleans())


async def send(gateway: Gateway, request: tuple[tuple[str, str], str, Any, dict[str, str], bool]) -> None:
    (method, template), text, body, headers, signed = request
    path = template.format(quote(text, safe=""))
    content = body if isinstance(body, bytes) else repr_json(body)
    lines = gateway.auth(method, path, content) if signed else {}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in (lines | headers).items()]
    answer = await gateway.client.request(method, gateway.url + path, content=content, headers=raw)
    if answer.status_code == 503 and path == "/ready":
        return
    assert answer.status_code < 500, (request, answer.text)
    if answer.status_code >= 400:
        assert {"error", "code", "request_id"} <= answer.json().keys()


def repr_json(value: object) -> bytes:
    return json.dumps(value).encode()  # NaN and Infinity included: no JSON, and some clients send them


@settings(max_examples=25)
@given(st.lists(REQUESTS, min_size=10, max_size=10), st.booleans())
async def test_garbage_at_any_endpoint_is_never_a_500(requests: list[Any], auth_required: bool) -> None:
    async with running_gateway(gateway={"auth_required": auth_required}) as gateway:
        for request in requests:
            await send(gateway, request)
