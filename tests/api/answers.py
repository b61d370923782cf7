"""A walk past every endpoint of a gateway, and what of each answer a client may rely on."""

import json
from typing import Any, Final

import httpx2

from tests.gateway.surface import PHONE, STRANGER, Gateway

_FRAMING: Final = frozenset({"date", "content-length", "connection", "x-request-id"})
_CHANGING: Final = frozenset({"clock_skew_ms", "request_id"})

Noted = dict[str, Any]


async def walk(gateway: Gateway) -> list[Noted]:
    """Call every endpoint in its good and its bad ways; return what was answered, in that order."""
    noted: list[Noted] = []

    async def signed(method: str, path: str, body: object = None, **more: Any) -> httpx2.Response:
        answer = await gateway.ask(method, path, body, **more)
        noted.append(note(f"{method} {path}", answer, ids))
        return answer

    async def plain(method: str, path: str, **more: Any) -> httpx2.Response:
        answer = await gateway.client.request(method, gateway.url + path, **more)
        noted.append(note(f"plain {method} {path}", answer, ids))
        return answer

    ids = {gateway.url: "URL"}
    order = {"tier": "lite", "duration_hours": 1.0}
    for path in ("/health", "/ready", "/tiers", "/nodes", "/identity", "/terms", "/openapi.json"):
        await plain("GET", path)
        await plain("HEAD", path)
        await plain("POST", path)
    for query in ("", "?netuid=3", "?netuid=x", "?netuid=70000", "?fields=nothing", "?owner=x"):
        await plain("GET", f"/bittensor/metagraph{query}")
    asked = await signed("POST", "/sessions", order)
    bought = (await signed("POST", "/sessions", order, headers=gateway.payment(asked))).json()
    ids |= {bought["session_id"]: "SESSION", bought["payment_id"]: "PAYMENT", PHONE.ss58: "PHONE"}
    session = f"/sessions/{bought['session_id']}"
    payment = f"/payments/{bought['payment_id']}"
    for body in (b"{", b"[]", b"null", b'{"a":1,"a":2}', b"[" * 2_000, b'{"tier":7}', b'{"duration_hours":"1"}'):
        await signed("POST", "/sessions", body)
        await signed("POST", f"{session}/extend", body)
    await signed("POST", "/sessions", {"tier": "none"})
    await signed("POST", "/sessions", order, headers={"X-Payment": "nonsense"})
    await signed("POST", "/sessions", order | {"owner": "x"})
    await signed("POST", "/sessions", {"duration_hours": 0.1})
    await signed("POST", "/sessions", {"duration_hours": 1e9})
    for path in (session, f"/sessions/hotkey/{PHONE.ss58}", payment):
        await signed("GET", path)
        await signed("HEAD", path)
        await signed("PUT", path)
        await signed("GET", path, keypair=STRANGER)
        await plain("GET", path)
        await plain("GET", path, headers={"X-Hotkey": PHONE.ss58, "X-Timestamp": "1", "X-Sig": "00" * 64})
    await signed("POST", f"{session}/extend", {"duration_hours": 1})
    await signed("POST", f"{session}/ticket")
    for path in ("/extend", "/ticket", "/events", ""):
        method = "GET" if path in ("/events", "") else "POST"
        await signed(method, f"/sessions/none{path}", {} if method == "POST" else None)
        await signed(method, f"{session}{path}", {} if method == "POST" else None, keypair=STRANGER)
        await plain(method, f"{session}{path}")
    await signed("GET", "/payments/none")
    await signed("HEAD", f"{session}/events")
    await plain("GET", f"{session}/events?ticket=AAAA")
    await signed("DELETE", session, keypair=STRANGER)
    await signed("DELETE", session)
    for path in ("/nothing", "/sessions//x", "/sessions/a%2Fb", "/sessions/hotkey/none/more", "/sessions/"):
        await signed("GET", path)
    await plain("POST", "/sessions", content=b"x" * 300_000)
    await plain("POST", "/sessions", content=b"x", headers={"Content-Encoding": "gzip"})
    return noted


def note(request: str, answer: httpx2.Response, ids: dict[str, str]) -> Noted:
    """What stays the same from one run to the next: status, headers by name, an error's words, a success's keys."""
    for value, name in ids.items():
        request = request.replace(value, name)
    headers = sorted(set(answer.headers.keys()) - _FRAMING)
    kind = answer.headers.get("content-type") if answer.content else None
    noted: Noted = {"request": request, "status": answer.status_code, "headers": headers, "type": kind}
    if answer.content and kind == "application/json":
        body = json.loads(answer.content)
        noted["body"] = _words(body, ids) if "code" in body and answer.status_code >= 400 else sorted(body)
    return noted


def _words(body: dict[str, object], ids: dict[str, str]) -> dict[str, object]:
    """Texts as they are, but for those that no two runs share."""

    def word(name: str, value: object) -> object:
        if name in _CHANGING or not isinstance(value, str):
            return None
        for text, stands in ids.items():
            value = value.replace(text, stands)
        return value

    return {name: word(name, value) for name, value in sorted(body.items())}
