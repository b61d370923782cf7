"""The official Python client of x402 buys a session of the real surface, unchanged."""

import base64
import hashlib
import json
import time

from tests.fakes.official_x402 import paying_client
from tests.gateway.surface import running_gateway

BODY = b'{"tier":"lite","duration_hours":1}'


async def test_the_official_client_buys_a_session_with_one_set_of_signed_headers() -> None:
    async with running_gateway(now=time.time()) as gateway:
        signed = gateway.auth("POST", "/sessions", BODY)
        async with paying_client(hashlib.sha256(b"official").digest()) as client:
            bought = await client.post(gateway.url + "/sessions", content=BODY, headers=signed)
        assert bought.status_code == 202, bought.text
        assert bought.json()["code"] == "accepted"
        receipt = json.loads(base64.b64decode(bought.headers["PAYMENT-RESPONSE"]))
        assert receipt["transaction"] == bought.json()["payment_tx"]
        assert len(gateway.facilitator.settled) == 1


async def test_the_official_client_prolongs_a_session() -> None:
    async with running_gateway(now=time.time()) as gateway:
        session_id = (await gateway.buy())["session_id"]
        path = f"/sessions/{session_id}/extend"
        signed = gateway.auth("POST", path, b"{}", version=2)
        async with paying_client(hashlib.sha256(b"official").digest()) as client:
            longer = await client.post(gateway.url + path, content=b"{}", headers=signed)
        assert longer.status_code == 202, longer.text
        assert longer.json()["remaining_seconds"] == 7_200.0
