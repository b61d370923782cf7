"""What a buyer and an operator of a gateway can rely on, seen from outside a real process."""

import base64
import json
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from engram.hotkeys import Keypair, gateway_scheme
from engram.sdk import GatewayClient, NodeClient
from tests.e2e.buyer import Answer, Buyer, balance
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.fakes import official_x402

OPENING_BALANCE = 1_000_000_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("gateway") / "data") as process:
        yield process.start()
        assert process.terminate() == 0


def bought(gateway: GatewayProcess) -> tuple[Buyer, str]:
    buyer = Buyer()
    buyer.quote(gateway.url)
    answer = buyer.pay(gateway.url)
    assert answer.status == 202, answer
    return buyer, str(answer.body["session_id"])


def test_fifty_racing_posts_with_one_payment_are_one_session_and_one_settlement(gateway: GatewayProcess) -> None:
    buyer = Buyer()
    buyer.quote(gateway.url)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: buyer.pay(gateway.url), range(50)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body["session_id"] for answer in answers}) == 1
    assert balance(gateway.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - 100_000
    buyer.stop(gateway.url, str(answers[0].body["session_id"]))


def test_a_payment_presented_with_another_order_or_hotkey_is_a_conflict(gateway: GatewayProcess) -> None:
    buyer, session_id = bought(gateway)
    thief = Buyer()
    thief.order, thief.payment = buyer.order, buyer.payment
    dearer = {"tier": "pro", "duration_hours": 1}
    longer = {"tier": "lite", "duration_hours": 2}
    answers = [thief.pay(gateway.url)]
    for order in (dearer, longer):
        buyer.order = order
        answers.append(buyer.pay(gateway.url))
    assert [answer.status for answer in answers] == [409, 409, 409]
    assert all(session_id not in str(answer.body) for answer in answers)
    buyer.stop(gateway.url, session_id)


@pytest.mark.parametrize("behind", [b"\r\n", b"\x16\x03\x01 no request\r\n\r\n"], ids=["a blank line", "garbage"])
def test_a_paid_request_gets_its_own_answer_whatever_is_sent_behind_it(gateway: GatewayProcess, behind: bytes) -> None:
    buyer = Buyer()
    buyer.quote(gateway.url)
    body = json.dumps(buyer.order).encode()
    signed = gateway_scheme.sign_request(buyer.keypair, "POST", "/sessions", int(time.time() * 1000), body, version=2)
    headers = {"Host": "test", "Connection": "close", "Content-Length": str(len(body)), **signed, **buyer.payment}
    head = "\r\n".join(["POST /sessions HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""])
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=15) as client:
        client.sendall(head.encode() + body + behind)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 202 ")
    session_id = str(json.loads(answer.partition(b"\r\n\r\n")[2])["session_id"])
    buyer.wait(gateway.url, session_id, "active")
    buyer.stop(gateway.url, session_id)


def test_a_stop_during_provisioning_stays_stopped_and_leaves_no_node(gateway: GatewayProcess) -> None:
    buyer, session_id = bought(gateway)
    assert buyer.stop(gateway.url, session_id).status == 200
    ended = buyer.wait(gateway.url, session_id, "stopped")
    assert ended["end_reason"] == "stopped_by_user"
    assert not [pid for pid in gateway.nodes() if session_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    time_to_come_back = 3.0
    with pytest.raises(AssertionError):
        buyer.wait(gateway.url, session_id, "provisioning", "active", timeout=time_to_come_back)


def test_a_killed_node_is_seen_within_two_seconds_and_serves_the_same_memories_within_ten(
    gateway: GatewayProcess,
) -> None:
    buyer, session_id = bought(gateway)
    session = buyer.wait(gateway.url, session_id, "active")
    with NodeClient(session["node_endpoint"], buyer.keypair) as node:
        cids = [node.ingest_text(f"memory number {number}") for number in range(20)]
    node_pid = next(pid for pid in gateway.nodes() if session_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())
    killed_at = time.monotonic()
    os.kill(node_pid, signal.SIGKILL)
    while node_pid in gateway.nodes():
        time.sleep(0.02)
    restarted = wait_for_other_node(gateway, session_id, node_pid, within_s=5.0)
    assert restarted - killed_at < 5.0
    with NodeClient(session["node_endpoint"], buyer.keypair, timeout_s=2.0) as node:
        wait_until_served(node, cids, deadline=killed_at + 10.0)
    buyer.stop(gateway.url, session_id)


def wait_for_other_node(gateway: GatewayProcess, session_id: str, former: int, within_s: float) -> float:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for pid in gateway.nodes():
            if pid != former and session_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return time.monotonic()
        time.sleep(0.02)
    raise AssertionError("the node was not started again")


def wait_until_served(node: NodeClient, cids: list[str], deadline: float) -> None:
    from engram.sdk import SdkError

    while True:
        try:
            assert all(node.get(cid) is not None for cid in cids)
        except (SdkError, AssertionError):
            assert time.monotonic() < deadline, "the node does not serve its memories again"
            time.sleep(0.05)
        else:
            return


def test_sigterm_drains_keeps_the_nodes_and_the_next_start_finds_them(tmp_path: Path) -> None:
    keep = FAST + '[shutdown]\nnodes = "keep"\n'
    with GatewayProcess(tmp_path / "data", settings=keep) as gateway:
        gateway.start()
        buyer, session_id = bought(gateway)
        session = buyer.wait(gateway.url, session_id, "active")
        with NodeClient(session["node_endpoint"], buyer.keypair) as node:
            cid = node.ingest_text("kept over the restart")
        before = gateway.nodes()
        events = follow_events(gateway, buyer, session_id)
        assert gateway.terminate() == 0
        events.join(10)
        assert not events.is_alive()
        assert gateway.nodes() == before

        gateway.start()
        assert buyer.wait(gateway.url, session_id, "active")["node_endpoint"] == session["node_endpoint"]
        assert gateway.nodes() == before
        with NodeClient(session["node_endpoint"], buyer.keypair) as node:
            assert node.get(cid) is not None
        buyer.stop(gateway.url, session_id)
        buyer.wait(gateway.url, session_id, "stopped")
        assert gateway.nodes() == []


def follow_events(gateway: GatewayProcess, buyer: Buyer, session_id: str) -> threading.Thread:
    """An open event stream; the thread ends with it."""
    first = threading.Event()

    def follow() -> None:
        from engram.sdk import SdkError

        try:
            with GatewayClient(gateway.url, buyer.keypair, sleep=lambda _: None) as client:
                for _ in client.events(session_id):
                    first.set()
        except SdkError:
            return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert first.wait(10)
    return thread


def test_a_hanging_facilitator_delays_nobody_and_its_buyer_is_answered_in_time(tmp_path: Path) -> None:
    with HangingFacilitator() as facilitator:
        settings = FAST + f'[payments]\nfacilitator_url = "{facilitator.url}"\n'
        with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
            gateway.start()
            buyers = [Buyer() for _ in range(3)]
            for buyer in buyers:
                buyer.quote(gateway.url)
            started = time.monotonic()
            with ThreadPoolExecutor(3) as pool:
                answers: list[Answer] = list(pool.map(lambda one: one.pay(gateway.url), buyers))
            assert time.monotonic() - started < 10.5
            for answer in answers:
                assert answer.status in (202, 503), answer
                assert "payment-required" not in answer.headers
                assert "retry-after" in answer.headers
            quick = time.monotonic()
            assert Buyer().quote(gateway.url).status == 402
            assert time.monotonic() - quick < 1.0
            assert gateway.terminate() == 0


SUPPORTED = json.dumps(
    {
        "kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:31337"}],
        "extensions": [],
        "signers": {},
    }
).encode()


class HangingFacilitator:
    """Says what it supports, and never answers anything else."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self._kept.append(connection)
            if connection.recv(4).startswith(b"GET"):
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
                connection.sendall(head + b"content-length: %d\r\n\r\n" % len(SUPPORTED) + SUPPORTED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._kept:
            connection.close()


async def test_the_official_client_buys_a_session_unchanged(gateway: GatewayProcess) -> None:
    phone, body = Keypair.generate(), b'{"tier":"lite","duration_hours":1}'
    signed = gateway_scheme.sign_request(phone, "POST", "/sessions", int(time.time() * 1000), body, version=2)
    async with official_x402.paying_client(secrets.token_bytes(32)) as client:
        answer = await client.post(
            gateway.url + "/sessions", content=body, headers={**signed, "content-type": "application/json"}
        )
    assert answer.status_code == 202, answer.text
    receipt = json.loads(base64.b64decode(answer.headers["payment-response"]))
    assert receipt["success"] is True
    buyer = Buyer()
    buyer.keypair = phone
    session_id = answer.json()["session_id"]
    buyer.stop(gateway.url, session_id)
    buyer.wait(gateway.url, session_id, "stopped")


def ops(gateway: GatewayProcess, path: str) -> Any:
    import urllib.request

    with urllib.request.urlopen(gateway.ops_url + path, timeout=5) as answer:
        content = answer.read()
    return json.loads(content) if path == "/status" else content.decode()


def test_the_operator_sees_the_tree_and_the_metrics(gateway: GatewayProcess) -> None:
    status = ops(gateway, "/status")
    paths = {node["path"] for node in status["tree"]}
    assert {"root/ledger", "root/payments/payment_verifier", "root/fleet/provisioner", "root/http"} <= paths
    assert "engram_http_requests_total" in ops(gateway, "/metrics")
    deadline = time.monotonic() + 10
    while not re.search(r"^engram_loop_lag_seconds_count [1-9]", ops(gateway, "/metrics"), re.MULTILINE):
        assert time.monotonic() < deadline, "the loop's lag is not measured"
