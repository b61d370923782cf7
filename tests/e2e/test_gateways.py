"""Two gateways on one PostgreSQL ledger: what one sells the other knows, and takes over when the first is gone."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.buyer import Buyer, balance
from tests.e2e.gateway_process import ROOT, GatewayProcess
from tests.e2e.purchases import LITE_HOUR, OPENING_BALANCE, buy, until, until_it_sells
from tests.e2e.shared_ledger import running
from tests.postgres import cluster, needs_postgresql, rows

pytestmark = needs_postgresql


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with cluster() as server:
        yield server.new_ledger()


@pytest.fixture
def gateways(address: str, tmp_path: Path) -> Iterator[list[GatewayProcess]]:
    with running(address, tmp_path) as started:
        yield started


def test_what_one_gateway_sold_the_other_knows_and_takes_over(gateways: list[GatewayProcess], address: str) -> None:
    first, second = gateways
    buyer = Buyer()
    session = buy(first, buyer)
    until_it_sells(second)
    # The same signed payment at the other gateway is the same session, and moves no money.
    assert buyer.pay(second.url).body["session_id"] == session["session_id"]
    assert balance(second.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - LITE_HOUR
    (owner,) = rows(address, "SELECT owner_epoch FROM sessions")[0]
    first.kill()
    until(lambda: rows(address, "SELECT owner_epoch FROM sessions")[0][0] != owner)
    assert second.is_running()
    assert buyer.stop(second.url, str(session["session_id"])).status == 200
    buyer.wait(second.url, str(session["session_id"]), "stopped", timeout=60.0)
    assert balance(second.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - LITE_HOUR


def test_a_gateway_that_was_replaced_ends_by_itself(gateways: list[GatewayProcess], address: str) -> None:
    first, second = gateways
    first.send_signal(signal.SIGSTOP)
    until(lambda: len(rows(address, "SELECT epoch FROM gateways WHERE ended_at IS NULL")) == 1)
    first.send_signal(signal.SIGCONT)
    assert first.wait(20) != 0
    assert "another gateway has taken over" in first.log()
    assert second.is_running()


def test_the_operator_sees_drains_and_evicts_gateways(gateways: list[GatewayProcess], address: str) -> None:
    first, second = gateways

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        settings = str(first.data_dir.with_name(first.data_dir.name + ".toml"))
        program = [sys.executable, "-c", "from engram.cli import main; main()", "gateways"]
        command = [*program, *arguments, "--profile", "local", "--config", settings]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    listed = json.loads(command("list", "--json").stdout)
    live = [row["epoch"] for row in listed if row["state"] == "live"]
    assert len(live) == 2
    assert command("drain", str(min(live))).returncode == 0
    assert first.wait(30) == 0
    assert command("evict", str(max(live))).returncode == 0
    assert second.wait(30) != 0
    assert [row["state"] for row in json.loads(command("list", "--json").stdout)][:2] == ["ended", "ended"]
    assert "no gateway of epoch" in command("drain", str(min(live))).stderr


needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="no HAProxy: apt-get install haproxy")


@contextlib.contextmanager
def balanced(gateways: list[GatewayProcess], folder: Path) -> Iterator[str]:
    """The address of a real HAProxy with the documentation's configuration."""
    documented = (ROOT / "docs" / "scaling.md").read_text().split("```haproxy\n")[1].split("```")[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configured = documented.replace("bind :9000", f"bind 127.0.0.1:{port}")
    for number, each in enumerate(gateways, start=1):
        configured = configured.replace(f"10.0.0.1{number}:9000", each.url.removeprefix("http://"))
    (folder / "haproxy.cfg").write_text(configured)
    balancer = subprocess.Popen(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")])
    try:
        for each in gateways:
            until_it_sells(each)
        until(lambda: answers(f"http://127.0.0.1:{port}"))
        yield f"http://127.0.0.1:{port}"
    finally:
        balancer.terminate()
        balancer.wait(10)


@pytest.mark.nightly
@needs_haproxy
def test_phones_buy_through_the_balancer_of_the_documentation(gateways: list[GatewayProcess], tmp_path: Path) -> None:
    with balanced(gateways, tmp_path) as url:
        buyer = Buyer()
        buyer.quote(url)
        session_id = str(buyer.pay(url).body["session_id"])
        buyer.wait(url, session_id, "active", timeout=60.0)
        sold_by = next(each for each in gateways if each.nodes())
        sold_by.kill()
        until(lambda: answers(url))
        assert buyer.pay(url).body["session_id"] == session_id
        assert buyer.stop(url, session_id).status == 200


@pytest.mark.nightly
@needs_haproxy
def test_each_phone_behind_the_balancer_has_limits_of_its_own(address: str, tmp_path: Path) -> None:
    """With the limits that a gateway has by default: more requests in a minute than one address may make."""
    settings = '[miner]\nembedder = "hash"\n[log]\nformat = "json"\n[http]\ntrusted_proxies = ["127.0.0.1/32"]\n'
    with running(address, tmp_path, settings) as gateways, balanced(gateways, tmp_path) as url:
        statuses = {status_from(f"127.0.1.{1 + number % 100}", url, "/nodes") for number in range(1_300)}
        assert statuses == {200}
        bought = []
        for number in range(1, 6):
            buyer = Buyer(address=f"127.0.2.{number}")
            buyer.quote(url)
            bought.append(buyer.pay(url).status)
        assert bought == [202] * 5
        lines = [line for each in gateways for line in each.log_path.read_text().splitlines() if '"client":' in line]
        clients = {json.loads(line)["client"] for line in lines}
        assert {f"127.0.2.{number}" for number in range(1, 6)} <= clients


def status_from(address: str, url: str, path: str) -> int:
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=15, source_address=(address, 0))
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
