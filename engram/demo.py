"""The main job on this machine, with play money: buy a node, remember three texts, find one by meaning, stop.

A real gateway runs as a process of its own in a folder of its own; everything is spoken to it over HTTP, as a phone
would. Run by `make demo` or `engram demo`; `--backend docker` runs the node in a
container engine, `--backend akash` on a double of Akash (demo_backends.py).
"""

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape

from config.model import MinerSettings
from engram import children, crash_reports, demo_backends
from engram.children import Program
from engram.demo_backends import DemoFailed
from engram.hotkeys import Keypair
from engram.payments.play_wallet import PlayWallet
from engram.provisioning import node_parts
from engram.sdk import GatewayClient, NodeClient, NotReached, SdkError

TEXTS: Final = (
    "Late frost ruined most of the vineyard just before harvest.",
    "A physician prescribed tablets to bring the child's fever down.",
    "The central bank raised interest rates to slow inflation.",
)
QUESTION: Final = "Which medicine cured our sick kid?"
"""Shares no word stem with its answer, the second text: only meaning finds it."""
ANSWER: Final = TEXTS[1]

READY_TIMEOUT_S: Final = 60.0
ACTIVE_TIMEOUT_S: Final = 120.0
STATS_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 60.0

SETTINGS: Final = """
[stats]
interval_s = 1.0
[log]
format = "json"
"""
"""A stranger to the demo would poll every 30 s; nobody wants to watch that long."""


class DemoResult(msgspec.Struct, frozen=True):
    """The demo's last line."""

    demo: str
    session_id: str
    time_to_active_s: float
    query_top_text: str
    stats: dict[str, Any]
    stopped: bool


def main(backend: str = "local") -> int:
    """Run the demo on a backend of `demo_backends`; 0 when every step was seen to work.

    The last line on standard output is one JSON object.
    """
    console = Console(highlight=False, soft_wrap=True)
    if absent := node_parts.missing(MinerSettings()):
        return _failed(console, f"{', '.join(absent)} not installed: {node_parts.remedy(absent)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # ends what was started, as Ctrl-C does
    try:
        with (
            tempfile.TemporaryDirectory(prefix="engram-demo-") as folder,
            demo_backends.BACKENDS[backend](Path(folder)) as settings,
            _gateway(Path(folder), SETTINGS + settings, demo_backends.WHERE[backend], console) as url,
        ):
            result = _buy_use_stop(url, console)
    except (DemoFailed, SdkError) as error:
        return _failed(console, str(error))
    except KeyboardInterrupt:
        console.print("Interrupted; nothing is left running.")
        return 130
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0


def _failed(console: Console, reason: str) -> int:
    console.print("[bold red]The demo failed:[/]", escape(reason))
    sys.stdout.write(json.dumps({"demo": "failed", "error": reason}) + "\n")
    return 1


def _buy_use_stop(url: str, console: Console) -> DemoResult:
    phone, wallet = Keypair.generate(), PlayWallet(secrets.token_bytes(32))
    console.print(f"Phone hotkey      {phone.ss58}")
    console.print(f"Play-money wallet {wallet.address_text}")
    with GatewayClient(url, phone, wallet) as gateway:
        for tier in gateway.tiers():
            console.print(
                f"  {tier.tier:<9}{tier.cpu_vcpu:g} vCPU {tier.memory_gb:g} GB RAM {tier.storage_gb:g} GB disk"
                f"  {tier.price_usd_per_hour:.2f} USD/h"
            )
        started = time.monotonic()
        with _step(console, "Asking for a lite session, one hour: 402, paying by x402"):
            session = gateway.create_session("lite", hours=1)
        console.print(f"  paid {session.amount_paid_usd:g} play USD, transaction {session.payment_tx}")
        with _step(console, "Waiting for the node"):
            session = gateway.wait_active(session.session_id, timeout_s=ACTIVE_TIMEOUT_S)
        time_to_active_s = round(time.monotonic() - started, 2)
        if session.node_endpoint is None:
            raise DemoFailed(f"session {session.session_id} is active without a node endpoint")
        console.print(f"  active after {time_to_active_s} s at {session.node_endpoint}, hotkey {session.node_hotkey}")
        with NodeClient(session.node_endpoint, phone) as node:
            top_text = _remember_and_ask(node, console)
            with _step(console, "Waiting for the gateway to poll the node's stats"):
                stats = _polled_stats(gateway, session.session_id)
            console.print("  " + "  ".join(f"{name} {value}" for name, value in stats.items() if value is not None))
            with _step(console, "Stopping the session"):
                gateway.stop(session.session_id)
                ended = gateway.wait_ended(session.session_id, timeout_s=STOP_TIMEOUT_S)
            _require_gone(node)
        console.print(f"  session is {ended.status}, its node does not answer any more")
    return DemoResult("ok", session.session_id, time_to_active_s, top_text, stats, stopped=True)


def _remember_and_ask(node: NodeClient, console: Console) -> str:
    with _step(console, "Storing three texts"):
        cids = [node.ingest_text(text) for text in TEXTS]
    for cid, text in zip(cids, TEXTS, strict=True):
        console.print(f"  {cid[:16]}…  {text}")
    with _step(console, f"Asking: {QUESTION}"):
        hits = node.query(QUESTION, top_k=len(TEXTS))
    for hit in hits:
        console.print(f"  {hit.score:+.3f}  {hit.text}")
    if not hits or hits[0].text != ANSWER:
        raise DemoFailed(f"expected {ANSWER!r} first, got {[hit.text for hit in hits]}")
    return hits[0].text


def _polled_stats(gateway: GatewayClient, session_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + STATS_TIMEOUT_S
    while time.monotonic() < deadline:
        stats = gateway.get(session_id).stats
        if stats.get("vectors") == len(TEXTS):
            return stats
        time.sleep(0.25)
    raise DemoFailed(f"the gateway showed no stats with {len(TEXTS)} vectors within {STATS_TIMEOUT_S:g} s")


def _require_gone(node: NodeClient) -> None:
    try:
        node.health()
    except (NotReached, SdkError):
        return
    raise DemoFailed("the node still answers after its session has stopped")


@contextlib.contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    if console.is_terminal:
        started = time.monotonic()
        with console.status(title):
            yield
        console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")
    else:
        console.print(f"{title} …")
        yield


@contextlib.contextmanager
def _gateway(folder: Path, text: str, where: str, console: Console) -> Iterator[str]:
    """Run a gateway with the `local` profile on a free port; yields its URL, and ends it and its nodes afterwards."""
    settings, log = folder / "demo.toml", folder / "gateway.log"
    settings.write_text(text, encoding="utf-8")
    ready_read, ready_write = os.pipe()
    command = [*children.command(Program.ENGRAM, "gateway", "--profile", "local")]
    command += ["--config", str(settings), "--data-dir", str(folder / "data")]
    command += ["--port", "0", "--ops-port", "0", "--ready-fd", str(ready_write)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=children.environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(ready_write,),
        )
    os.close(ready_write)
    try:
        with _step(console, f"Starting a gateway (profile local), nodes {where}"):
            url = _ready_url(ready_read, log)
        console.print(f"  {url}")
        yield url
    finally:
        os.close(ready_read)
        demo_backends.end(process)


def _ready_url(ready: int, log: Path) -> str:
    line = demo_backends.ready_line(ready, READY_TIMEOUT_S)
    if not line:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise DemoFailed(f"the gateway did not start:\n{tail}")
    return str(json.loads(line)["url"])


def _backend(arguments: list[str]) -> str:
    parser = argparse.ArgumentParser(prog="python -m engram.demo", description=__doc__)
    parser.add_argument("--backend", choices=demo_backends.BACKENDS, default="local", help="where the node runs")
    return str(parser.parse_args(arguments).backend)


if __name__ == "__main__":
    crash_reports.enable()
    sys.exit(main(_backend(sys.argv[1:])))
