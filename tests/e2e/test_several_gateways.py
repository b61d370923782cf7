"""What must hold over several gateways on one PostgreSQL ledger, with real processes and a real server."""

import contextlib
import http.client
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engram.hotkeys import gateway_scheme
from tests.e2e.buyer import Answer, Buyer, balance
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.purchases import LITE_HOUR, OPENING_BALANCE, buy, until, until_it_sells
from tests.e2e.shared_ledger import of_one_operator, running
from tests.postgres import cluster, needs_postgresql, rows

pytestmark = needs_postgresql
LIVE = "SELECT epoch FROM gateways WHERE ended_at IS NULL ORDER BY epoch"


@pytest.fixture
def address() -> Iterator[str]:
    with cluster() as server:
        yield server.new_ledger()


@pytest.fixture
def gateways(address: str, tmp_path: Path) -> Iterator[list[GatewayProcess]]:
    with running(address, tmp_path, of_one_operator(tmp_path), lease_s=10.0) as started:
        for each in started:
            until_it_sells(each)
        yield started


def test_one_authorization_sent_200_times_to_two_gateways_buys_once(
    gateways: list[GatewayProcess], address: str
) -> None:
    buyer = Buyer()
    buyer.quote(gateways[0].url)
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda n: buyer.pay(gateways[n % 2].url, timeout=60.0), range(200)))
    assert {answer.status for answer in answers} == {202}, Counter((a.status, a.body.get("code")) for a in answers)
    assert len({answer.body["session_id"] for answer in answers}) == 1
    assert rows(address, "SELECT count(*) FROM payments") == [(1,)]
    assert balance(gateways[1].ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - LITE_HOUR


def test_a_hotkey_has_three_live_sessions_over_two_gateways_and_each_node_a_port_of_its_own(
    gateways: list[GatewayProcess], address: str
) -> None:
    buyers = [Buyer() for _ in range(8)]
    for each in buyers:
        each.keypair = buyers[0].keypair
        each.quote(gateways[0].url)
    with ThreadPoolExecutor(8) as threads:
        # Two that were signed in the same millisecond would be one request, and get one answer.
        paying = [
            threads.submit(each.pay, gateways[n % 2].url, timeout=60.0, ahead_ms=n * 100)
            for n, each in enumerate(buyers)
        ]
        answers = [each.result() for each in paying]
    sold = {str(answer.body["session_id"]) for answer in answers if answer.status == 202}
    assert len(sold) == 3, [(answer.status, answer.body) for answer in answers]
    assert all(answer.status < 500 for answer in answers)
    for session_id in sold:
        buyers[0].wait(gateways[1].url, session_id, "active", timeout=60.0)
    ports = [port for (port,) in rows(address, "SELECT port FROM nodes WHERE state <> 'gone'")]
    assert len(set(ports)) == 3
    paid = [each for each in buyers if balance(gateways[0].ready["facilitator_url"], each.wallet) < OPENING_BALANCE]
    assert len(paid) == 3


def test_a_stream_at_one_gateway_tells_of_what_another_did(gateways: list[GatewayProcess]) -> None:
    first, second = gateways
    buyer = Buyer()
    session_id = str(buy(first, buyer)["session_id"])
    path = f"/sessions/{session_id}/events"
    signed = gateway_scheme.sign_request(buyer.keypair, "GET", path, int(time.time() * 1000), b"", version=2)
    at = urlsplit(second.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    connection.request("GET", path, headers=signed)
    stream = connection.getresponse()
    assert stream.status == 200
    assert b"active" in until_line(stream, b"active")
    began = time.monotonic()
    assert buyer.stop(first.url, session_id).status == 200
    until_line(stream, b"stopping")
    assert time.monotonic() - began < 1.5
    connection.close()


def until_line(stream: http.client.HTTPResponse, word: bytes) -> bytes:
    while True:
        line = stream.readline()
        assert line, "the stream has ended"
        if word in line:
            return line


def test_a_server_that_is_away_for_longer_than_the_lease_costs_buyers_503_and_no_gateway_its_life(
    tmp_path: Path,
) -> None:
    with cluster() as server:
        address = server.new_ledger()
        with running(address, tmp_path, of_one_operator(tmp_path), number=3) as gateways:
            buyer = Buyer()
            session_id = str(buy(gateways[0], buyer)["session_id"])
            node = gateways[0].nodes()
            epochs = rows(address, LIVE)
            seen: Counter[int] = Counter()
            until(lambda: rows(address, "SELECT min(groups) > 8 FROM gateways") == [(True,)])
            with asking(gateways, buyer, session_id, seen):
                server.stop("immediate")
                until(lambda: seen[503] > 0)
                time.sleep(5.0)  # two leases and a half
                server.start()
                before = seen[200]
                until(lambda: seen[200] > before + 30)
            assert set(seen) <= {200, 503}
            assert rows(address, LIVE) == epochs
            assert all(each.is_running() for each in gateways)
            assert gateways[0].nodes() == node
            assert buyer.get(gateways[1].url, session_id).body["status"] in ("active", "degraded")


@contextlib.contextmanager
def asking(gateways: list[GatewayProcess], buyer: Buyer, session_id: str, seen: "Counter[int]") -> Iterator[None]:
    """Ask all of them for the session, over and over; count the statuses."""
    over = threading.Event()

    def ask(gateway: GatewayProcess) -> None:
        while not over.wait(0.1):
            seen[buyer.get(gateway.url, session_id).status] += 1

    with ThreadPoolExecutor(len(gateways)) as threads:
        asked = [threads.submit(ask, gateway) for gateway in gateways]
        try:
            yield
        finally:
            over.set()
    for each in asked:
        each.result()


def answered(gateways: list[GatewayProcess], step: Callable[[str], Answer]) -> Answer:
    """Take the step at whichever gateway answers, as a phone does, until one does it."""
    for _ in range(300):
        for each in gateways:
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                return step(each.url)
        time.sleep(0.2)
    raise AssertionError("no gateway did it within a minute")


def bought(gateways: list[GatewayProcess]) -> Buyer:
    """Buy, sending the same payment again until it is known to be taken, and stop the session."""

    def pay(url: str) -> Answer:
        answer = buyer.pay(url)
        assert answer.status == 202, answer
        return answer

    def stop(url: str) -> Answer:
        answer = buyer.stop(url, session_id)
        assert answer.status in (200, 409), answer
        return answer

    buyer = Buyer()
    answered(gateways, buyer.quote)
    session_id = str(answered(gateways, pay).body["session_id"])
    assert answered(gateways, pay).body["session_id"] == session_id
    answered(gateways, stop)
    return buyer


def require_each_sold_once(gateways: list[GatewayProcess], address: str, buyers: list[Buyer]) -> None:
    """Each paid for one session or has the money back; no node and no hold is left."""
    open_rows = "SELECT (SELECT count(*) FROM sessions WHERE ended_at IS NULL), "
    open_rows += "(SELECT count(*) FROM nodes WHERE state <> 'gone')"
    until(lambda: rows(address, open_rows) == [(0, 0)], within_s=120.0)
    assert rows(address, "SELECT count(*), count(DISTINCT session_id) FROM payments") == [(len(buyers), len(buyers))]
    for each in buyers:
        left = balance(gateways[0].ready["facilitator_url"], each.wallet)
        assert left in (OPENING_BALANCE, OPENING_BALANCE - LITE_HOUR)


def are_done(buying: Sequence[Future[Buyer]], number: int) -> bool:
    return sum(each.done() for each in buying) >= number


@pytest.mark.nightly
def test_nothing_is_lost_or_sold_twice_while_the_primary_restarts_in_a_storm_of_purchases(tmp_path: Path) -> None:
    with cluster() as server:
        address = server.new_ledger()
        with running(address, tmp_path, of_one_operator(tmp_path), number=3, lease_s=4.0) as gateways:
            for each in gateways:
                until_it_sells(each)
            with ThreadPoolExecutor(4) as threads:
                buying = [threads.submit(bought, gateways[n % 3 :] + gateways[: n % 3]) for n in range(24)]
                for number, how in enumerate(("fast", "immediate", "immediate", "fast")):
                    until(partial(are_done, buying, 1 + 5 * number), within_s=120.0)
                    server.stop(how)
                    server.start()
                buyers = [each.result() for each in buying]
            assert all(each.is_running() for each in gateways)
            require_each_sold_once(gateways, address, buyers)


@pytest.mark.nightly
def test_nothing_is_lost_or_sold_twice_while_gateways_are_killed_and_stopped(address: str, tmp_path: Path) -> None:
    """One of three at a time, by SIGKILL or stopped for longer than its lease; then it is started again."""
    with running(address, tmp_path, of_one_operator(tmp_path), number=3) as gateways:
        for each in gateways:
            until_it_sells(each)
        with ThreadPoolExecutor(3) as threads:
            buying = [threads.submit(bought, gateways[n % 3 :] + gateways[: n % 3]) for n in range(24)]
            for number in range(6):
                victim = gateways[number % 3]
                if number % 2:
                    victim.send_signal(signal.SIGSTOP)
                    until(lambda: len(rows(address, LIVE)) == 2)
                    victim.send_signal(signal.SIGCONT)
                    assert victim.wait(30) != 0
                else:
                    victim.kill()
                victim.start()
            buyers = [each.result() for each in buying]
        require_each_sold_once(gateways, address, buyers)
