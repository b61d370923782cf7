"""Whatever arrives at a running gateway is answered below 500 or cut, tells nobody's secrets and leaves it selling."""

import base64
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engram.hotkeys import gateway_scheme
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import GatewayProcess

ORDER_OF_A_CURVE = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
REFUSED_BY_HTTP = (b"501", b"505")

FRAMES = (
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"POST /sessions/x HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
    b"GET /health HTTP/3.0\r\nHost: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
    b"GET /sessions/%00%ff%2e%2e%2f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /sessions/x/events?ticket=%ff HTTP/1.1\r\nHost: x\r\nLast-Event-ID: " + b"9" * 5_000 + b"\r\n\r\n",
    b"GET /bittensor/metagraph?netuid=%d9%a1&fields=%ff HTTP/1.1\r\nHost: x\r\nIf-None-Match: \xff\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    bytes.fromhex("160301020001000001fc0303") + b"a" * 500,
    b"\r\n" * 5_000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
)
BODIES = (
    b"null",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"duration_hours":NaN}',
    b'{"duration_hours":1e400}',
    b'{"duration_hours":' + b"9" * 5_000 + b"}",
    b'{"duration_hours":true}',
    b'{"tier":"\\ud800"}',
    b'{"tier":{}}',
    b'{"tier":"' + b"a" * 60_000 + b'"}',
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("garbage") / "data") as process:
        yield process.start()
        log = process.log_path.read_text(errors="replace")
        assert process.terminate() == 0
        assert "Traceback" not in log
        assert '"level":"error"' not in log


def said(gateway: GatewayProcess, data: bytes, *, end: bool) -> bytes:
    port = int(gateway.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        try:
            return connection.recv(65_536)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: repr(frame[:24]))
def test_frames_that_are_no_requests_are_refused_or_cut(gateway: GatewayProcess, frame: bytes) -> None:
    answer = said(gateway, frame, end=True)
    assert answer == b"" or answer[9:10] in (b"2", b"4") or answer[9:12] in REFUSED_BY_HTTP, answer[:80]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:24]))
def test_bodies_that_are_no_orders_are_refused(gateway: GatewayProcess, body: bytes) -> None:
    assert Buyer().send(gateway.url, "POST", "/sessions", body).status == 400


def spoilt(header: str) -> dict[str, tuple[str, int]]:
    """Payments that are none, each with the status it deserves."""
    made: dict[str, tuple[str, int]] = {}

    def edited(name: str, status: int, path: tuple[str, ...], value: object) -> None:
        document: dict[str, Any] = json.loads(base64.b64decode(header))
        within = document
        for key in path[:-1]:
            within = within[key]
        within[path[-1]] = value
        made[name] = (base64.b64encode(json.dumps(document).encode()).decode(), status)

    signature = bytes.fromhex(json.loads(base64.b64decode(header))["payload"]["signature"][2:])
    mirrored = ORDER_OF_A_CURVE - int.from_bytes(signature[32:64], "big")
    high_s = signature[:32] + mirrored.to_bytes(32, "big") + bytes([55 - signature[64]])
    authorization = ("payload", "authorization")
    edited("high s", 402, ("payload", "signature"), "0x" + high_s.hex())
    edited("zero signature", 402, ("payload", "signature"), "0x" + "00" * 65)
    edited("compact signature", 400, ("payload", "signature"), "0x" + signature[:64].hex())
    edited("less", 402, (*authorization, "value"), "1")
    edited("leading zero", 400, (*authorization, "value"), "0100000")
    edited("to somebody else", 402, (*authorization, "to"), "0x" + "11" * 20)
    edited("from somebody else", 402, (*authorization, "from"), "0x" + "11" * 20)
    edited("for ever", 402, (*authorization, "validBefore"), "9" * 70)
    edited("0X nonce", 400, (*authorization, "nonce"), "0X" + "1" * 64)
    edited("cheaper terms", 402, ("accepted", "amount"), "1")
    edited("real network", 402, ("accepted", "network"), "eip155:8453")
    edited("lone surrogate", 402, ("accepted", "scheme"), "\ud800")
    edited("text version", 400, ("x402Version",), "2")
    edited("true version", 400, ("x402Version",), True)
    made["unpadded"] = (header.rstrip("="), 400) if header.endswith("=") else (header + "=", 400)
    made["spaced"] = (header[:20] + " " + header[20:], 400)
    made["deep"] = (base64.b64encode(b"[" * 5_000).decode(), 400)
    made["NaN"] = (base64.b64encode(b'{"x402Version":NaN}').decode(), 400)
    made["two keys"] = (base64.b64encode(base64.b64decode(header)[:-1] + b',"x402Version":1}').decode(), 400)
    made["receipt"] = (base64.b64encode(b'{"txHash":"0x1"}').decode(), 402)
    return made


def test_payments_that_are_none_move_nothing_and_the_true_one_still_does(gateway: GatewayProcess) -> None:
    buyer = Buyer()
    buyer.quote(gateway.url)
    header = buyer.payment["PAYMENT-SIGNATURE"]
    told = {
        name: buyer.post(gateway.url, "/sessions", {"PAYMENT-SIGNATURE": text}).status
        for name, (text, _) in spoilt(header).items()
    }
    assert told == {name: status for name, (_, status) in spoilt(header).items()}
    both = buyer.post(gateway.url, "/sessions", {"PAYMENT-SIGNATURE": header, "X-PAYMENT": header})
    assert both.status == 400
    answer = buyer.pay(gateway.url)
    assert answer.status == 202
    session_id = str(answer.body["session_id"])
    ticket = buyer.send(gateway.url, "POST", f"/sessions/{session_id}/ticket", b"").body["ticket"]
    for path in (f"/sessions/{session_id}?ticket={ticket}", f"/payments/{answer.body['payment_id']}?ticket={ticket}"):
        assert said(gateway, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), end=True)[9:12] == b"401"
    buyer.stop(gateway.url, session_id)
    secrets = json.loads(base64.b64decode(header))["payload"]
    log = gateway.log_path.read_text()
    for secret in (header[:64], secrets["signature"][2:66], secrets["authorization"]["nonce"][2:], ticket):
        assert secret not in log


def test_a_signature_for_one_request_is_good_for_no_other(gateway: GatewayProcess) -> None:
    buyer, now_ms = Buyer(), int(time.time() * 1000)
    signed = gateway_scheme.sign_request(buyer.keypair, "GET", "/sessions/x", now_ms, b"", version=2)
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    downgraded = lines.replace("X-Sig-Version: 2\r\n", "")
    forged = lines.replace(signed["X-Sig"], os.urandom(64).hex())
    for start, headers, status in (
        ("GET /sessions/x", lines, b"404"),
        ("GET /sessions/%78", lines, b"401"),
        ("GET /sessions/y", lines, b"401"),
        ("DELETE /sessions/x", lines, b"401"),
        ("GET /sessions/x", downgraded, b"401"),
        ("GET /sessions/x", forged, b"401"),
        ("GET /sessions/x", lines + f"X-Hotkey: {buyer.keypair.ss58}\r\n", b"400"),
    ):
        request = f"{start} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
        assert said(gateway, request, end=True)[9:12] == status, (start, headers)
