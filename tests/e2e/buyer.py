"""A phone with a play-money wallet that keeps what it sent, so that the very same purchase can be sent again."""

import http.client
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from engram.hotkeys import Keypair, gateway_scheme
from engram.payments.play_wallet import PlayWallet


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]


class Buyer:
    """One hotkey and one wallet; requests are made by the standard library's client, a connection each."""

    def __init__(self, address: str = "") -> None:
        """`address` is where its connections come from."""
        self._from = (address, 0) if address else None
        self.keypair = Keypair.generate()
        self.wallet = PlayWallet(secrets.token_bytes(32))
        self.payment: dict[str, str] = {}
        self.order: dict[str, object] = {"tier": "lite", "duration_hours": 1}

    def quote(self, url: str, **order: object) -> Answer:
        """Ask for a session and sign the payment for it."""
        self.order = {**self.order, **order}
        answer = self.post(url, "/sessions")
        assert answer.status == 402, answer
        header = self.wallet.pay(answer.headers["payment-required"], time.time(), secrets.token_bytes(32))
        self.payment = {"PAYMENT-SIGNATURE": header}
        return answer

    def pay(self, url: str, *, timeout: float = 15.0, ahead_ms: int = 0) -> Answer:
        """Send the paid order: the same payment each time, a fresh request signature."""
        return self.post(url, "/sessions", self.payment, timeout=timeout, ahead_ms=ahead_ms)

    def get(self, url: str, session_id: str) -> Answer:
        return self.send(url, "GET", f"/sessions/{session_id}", b"")

    def stop(self, url: str, session_id: str) -> Answer:
        return self.send(url, "DELETE", f"/sessions/{session_id}", b"")

    def sessions(self, url: str) -> list[dict[str, Any]]:
        answer = self.send(url, "GET", f"/sessions/hotkey/{self.keypair.ss58}", b"")
        return list(answer.body["sessions"])

    def wait(self, url: str, session_id: str, *statuses: str, timeout: float = 30.0) -> dict[str, Any]:
        """Ask until the session is in one of these states; the last answer otherwise fails the test."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self.get(url, session_id)
            if answer.status == 200 and answer.body["status"] in statuses:
                return answer.body
            assert time.monotonic() < deadline, f"wanted {statuses}, still {answer}"
            time.sleep(0.1)

    def post(
        self,
        url: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 15.0,
        ahead_ms: int = 0,
    ) -> Answer:
        body = json.dumps(self.order).encode()
        return self.send(url, "POST", path, body, headers, timeout=timeout, ahead_ms=ahead_ms)

    def send(
        self,
        url: str,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 15.0,
        ahead_ms: int = 0,
    ) -> Answer:
        """`ahead_ms`: how far the phone's clock is ahead; what may be used once must be stamped after the start."""
        now_ms = int(time.time() * 1000) + ahead_ms
        signed = gateway_scheme.sign_request(self.keypair, method, path, now_ms, body, version=2)
        at = urlsplit(url)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=timeout, source_address=self._from)
        try:
            connection.request(method, path, body=body or None, headers={**signed, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return Answer(
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            json.loads(content) if content else {},
        )


def balance(facilitator_url: str, wallet: PlayWallet) -> int:
    """What the play-money books say the wallet owns, in atomic units."""
    return balance_of(facilitator_url, wallet.address)


def balance_of(facilitator_url: str, address: bytes) -> int:
    """What the play-money books say an address owns, in atomic units."""
    at = urlsplit(facilitator_url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=10)
    try:
        connection.request("GET", f"/balance/0x{address.hex()}")
        return int(json.loads(connection.getresponse().read())["balance"])
    finally:
        connection.close()
