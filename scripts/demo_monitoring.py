"""`make demo-monitoring`: a real Prometheus scrapes a gateway and its node, alerts fire and clear, panels have data.

Needs Debian's package `prometheus`. The rules are those of `deploy/prometheus` with every `for` shortened to 2 s. Three
faults are made and mended: a receiver that does not know the gateway, one that is gone, and a gateway that is killed.
Every query of the dashboards for the gateway, its node and its relay is put to that Prometheus; those that must have
data here are named. Last, the series by which `promtool test rules` tests each alert are served to a second Prometheus,
with a minute in less than a second: every one of them fires and clears.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio
from rich.console import Console

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engram.hotkeys import Keypair  # noqa: E402  # the repository is no installed package
from engram.http.client import HttpClient  # noqa: E402
from engram.http.errors import HttpError  # noqa: E402
from engram.payments.play_wallet import PlayWallet  # noqa: E402
from engram.sdk.gateway import GatewayClient  # noqa: E402
from engram.sdk.node import NodeClient  # noqa: E402
from tests.e2e.gateway_process import FAST, GatewayProcess  # noqa: E402
from tests.monitoring.neighbours import Neighbour, address, neighbours, receiving, selling  # noqa: E402
from tests.monitoring.panels import filled, surprises  # noqa: E402
from tests.monitoring.replay import play  # noqa: E402
from tests.shared import free_port  # noqa: E402
from tests.xeris.xeris_process import XerisProcess  # noqa: E402

LIMIT_S: Final = 90.0
WORK: Final = 2
"""How often each process gets something to count, while it is scraped."""
SEEN_S: Final = 10.0
"""Until gauges that are set every few seconds show what was done."""
RULES: Final = ROOT / "deploy" / "prometheus" / "engram.rules.yml"
SETTINGS: Final = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [engram.rules.yml]
scrape_configs:
  - job_name: engram
    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]
"""

console: Final = Console(highlight=False)


class Prometheus:
    """A Prometheus of its own, and what it knows."""

    def __init__(self, folder: Path, http: HttpClient) -> None:
        self.folder = folder
        self._http = http
        self.port = free_port()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it until the end of the block."""
        (self.folder / "prometheus.yml").write_text(SETTINGS, encoding="utf-8")
        rules = re.sub(r"for: \d+[smh]", "for: 2s", RULES.read_text(encoding="utf-8"))
        (self.folder / "engram.rules.yml").write_text(rules, encoding="utf-8")
        self.scrape({})
        command = ["prometheus", f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"]
        command += ["--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        with subprocess.Popen(command, cwd=self.folder) as process:
            try:
                yield
            finally:
                process.terminate()

    def scrape(self, targets: dict[str, str]) -> None:
        """Scrape these addresses from now on, by the names that they have as instances."""
        found = [{"targets": [address], "labels": {"instance": name}} for name, address in targets.items()]
        staged = self.folder / "targets.new"
        staged.write_text(json.dumps(found), encoding="utf-8")
        staged.rename(self.folder / "targets.json")

    async def ask(self, path: str) -> Any:
        answer = await self._http.request("GET", f"http://127.0.0.1:{self.port}/api/v1/{path}", max_bytes=10_000_000)
        return answer.json()["data"]

    async def reads(self, count: int) -> None:
        """Wait until it has read so many targets."""
        with trio.fail_after(LIMIT_S):
            while len((await self.ask("query?query=up%3D%3D1"))["result"]) < count:  # noqa: ASYNC110
                await trio.sleep(0.2)

    async def firing(self) -> set[str]:
        """Return the alerts that fire."""
        try:
            found = (await self.ask("alerts"))["alerts"]
        except HttpError:
            return set()
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    async def wait(self, *names: str, fires: bool) -> bool:
        """Wait until all of these alerts fire, or none of them does any more."""
        began = time.monotonic()
        with trio.move_on_after(LIMIT_S):
            while not _reached(set(names), await self.firing(), fires=fires):  # noqa: ASYNC110
                await trio.sleep(0.5)
            console.print(f"   {'fires' if fires else 'clears'}: {', '.join(names)} ({time.monotonic() - began:.0f} s)")
            return True
        console.print(f"   {', '.join(names)} did not {'fire' if fires else 'clear'}; firing: {await self.firing()}")
        return False


def _reached(names: set[str], firing: set[str], *, fires: bool) -> bool:
    return names <= firing if fires else not names & firing


async def main() -> int:
    """Run the demo; return the exit status."""
    if shutil.which("prometheus") is None:
        console.print("there is no prometheus here (Debian: apt-get install prometheus)")
        return 1
    began, http = time.monotonic(), HttpClient()
    with tempfile.TemporaryDirectory(prefix="engram-demo-") as name:
        port = free_port()
        relay = f'[relay]\nurl = "http://127.0.0.1:{port}/payloads"\nround_s = 2.0\n'
        relay += "backoff_min_s = 1.0\nbackoff_max_s = 2.0\n"
        (Path(name) / "prometheus").mkdir()
        prometheus = Prometheus(Path(name) / "prometheus", http)
        with GatewayProcess(Path(name, "gateway"), settings=FAST + relay) as gateway, prometheus.running():
            await trio.to_thread.run_sync(gateway.start)
            receivers: list[XerisProcess] = []
            try:
                good = await shown(http, prometheus, gateway, Path(name), port, receivers)
            finally:
                for receiver in receivers:
                    receiver.kill()
                await trio.to_thread.run_sync(gateway.terminate)
                await http.aclose()
        good &= await trio.to_thread.run_sync(played, Path(name))
    console.print(f"Done in {time.monotonic() - began:.0f} s.")
    return 0 if good else 1


async def shown(
    http: HttpClient,
    prometheus: Prometheus,
    gateway: GatewayProcess,
    folder: Path,
    port: int,
    receivers: list[XerisProcess],
) -> bool:
    """Make faults and mend them; return whether everything fired, cleared and was answered."""
    identity = str((await http.request("GET", f"{gateway.url}/identity")).json()["hotkey"])
    node = await trio.to_thread.run_sync(bought, gateway)
    targets = {"gateway": address(gateway.ops_url), "node": node.ops}
    prometheus.scrape(targets)
    console.print("1. A gateway with a node, scraped each second. Its receiver is gone.")
    good = await prometheus.wait("RelayFailing", fires=True)

    console.print("2. A receiver is up that does not know this gateway: it answers 403.")
    receivers.append(XerisProcess(folder / "stranger", Keypair.generate().ss58, port=port))
    await trio.to_thread.run_sync(receivers[0].start)
    good &= await prometheus.wait("RelayHeldBack", fires=True)
    receivers[0].kill()

    console.print("3. A receiver is up that takes its payloads.")
    receivers.append(XerisProcess(folder / "receiver", identity, port=port))
    await trio.to_thread.run_sync(receivers[1].start)
    good &= await prometheus.wait("RelayFailing", "RelayHeldBack", fires=False)

    console.print("4. The gateway is killed, and started again.")
    await trio.to_thread.run_sync(gateway.kill)
    good &= await prometheus.wait("EngramDown", fires=True)
    await trio.to_thread.run_sync(gateway.start)
    prometheus.scrape(targets | {"gateway": address(gateway.ops_url)})
    good &= await prometheus.wait("EngramDown", fires=False)

    console.print("5. A process of every role beside them, each with work. The dashboards' queries:")
    async with neighbours(folder) as others:
        everyone = [selling(gateway, http), used(node, http), receiving(receivers[1], http), *others]
        prometheus.scrape({each.name: each.address for each in everyone})
        await prometheus.reads(len(everyone))
        for _ in range(WORK):
            for each in everyone:
                await each.work()
        off = [sys.executable, "-m", "engram", "selling", "off", "--data-dir", str(gateway.data_dir)]
        await trio.run_process(off, cwd=ROOT, capture_stdout=True, capture_stderr=True)
        await trio.sleep(SEEN_S)
        return await answered(prometheus) and good


def played(folder: Path) -> bool:
    """Let every alert fire and clear; return whether each did."""
    console.print("6. The series that every alert is tested with, a minute in less than a second:")
    found = play(RULES, RULES.with_name("engram.test.yml"), folder)
    for words, alerts in zip(("fired too early", "did not fire", "did not clear"), found, strict=True):
        if alerts:
            console.print(f"   {', '.join(sorted(alerts))} {words}")
    if not any(found):
        console.print("   each fired, and cleared")
    return not any(found)


async def answered(prometheus: Prometheus) -> bool:
    """Put every query of the dashboards to Prometheus; return whether the panels that must have data do."""
    found = await filled(prometheus.ask)
    for name in {board for board, _ in found}:
        panels = [has for (board, _), has in found.items() if board == name]
        console.print(f"   {name}: {sum(panels)} of {len(panels)} panels have data")
    wrong = surprises(found)
    for line in wrong:
        console.print(f"   {line}")
    return not wrong


class Bought(NamedTuple):
    """A node that was bought, and who owns it."""

    phone: Keypair
    url: str
    ops: str
    """Its operator's listener."""


def bought(gateway: GatewayProcess) -> Bought:
    """Buy the first node."""
    phone = Keypair.generate()
    with GatewayClient(gateway.url, phone, PlayWallet(b"\7" * 32)) as shop:
        session = shop.wait_active(shop.create_session("lite", hours=1).session_id, timeout_s=LIMIT_S)
    assert session.node_endpoint is not None
    [found] = gateway.data_dir.rglob("ops.json")
    return Bought(phone, session.node_endpoint, address(json.loads(found.read_text(encoding="utf-8"))["url"]))


def used(node: Bought, http: HttpClient) -> Neighbour:
    """Return the node: a text is stored, found and asked for by a challenge."""

    def work() -> str:
        with NodeClient(node.url, node.phone) as client:
            cid = client.ingest_text(f"Otters hold hands while they sleep, said {time.monotonic()}.")
            client.query("otters")
        return cid

    async def challenged() -> None:
        cid = await trio.to_thread.run_sync(work)
        asked = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": int(time.time()) + 60}
        await http.request("POST", f"{node.url}/ChallengeSynapse", json=asked)

    return Neighbour("node", node.ops, challenged)


if __name__ == "__main__":
    sys.exit(trio.run(main))
