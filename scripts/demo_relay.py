"""`make demo-relay`: a node, a gateway and a receiver of the relay; one payload from a poll to its acknowledgement.

Everything is on this machine, each a process of its own. The node is bought with play money. The gateway polls it,
asks it for the root that it signs, and hands both on; the receiver verifies the root and signs its acknowledgement.
"""

import secrets
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engram.hotkeys import Keypair, ss58, verify  # noqa: E402  # the repository is no installed package
from engram.http.client import HttpClient  # noqa: E402
from engram.http.errors import HttpError  # noqa: E402
from engram.payments.play_wallet import PlayWallet  # noqa: E402
from engram.sdk.gateway import GatewayClient  # noqa: E402
from engram.sdk.node import NodeClient  # noqa: E402
from tests.e2e.gateway_process import FAST, GatewayProcess  # noqa: E402
from tests.xeris.xeris_process import XerisProcess  # noqa: E402

LIMIT_S: Final = 120.0
TEXTS: Final = ("The root covers this memory.", "And this one.")

console: Final = Console(highlight=False)


async def main() -> int:
    """Run the demo; return the exit status."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="engram-demo-") as name:
        port = _free_port()
        relay = f'[relay]\nurl = "http://127.0.0.1:{port}/payloads"\nround_s = 3.0\n'
        with GatewayProcess(Path(name, "gateway"), settings=FAST + relay) as gateway:
            await trio.to_thread.run_sync(gateway.start)
            http = HttpClient()
            identity = (await http.request("GET", f"{gateway.url}/identity")).json()["hotkey"]
            console.print(f"1. A gateway, hotkey {identity}. Its receiver is not up yet: payloads wait in its outbox.")
            receiver = XerisProcess(Path(name, "receiver"), identity, port=port)
            try:
                await trio.to_thread.run_sync(_buy_and_fill, gateway.url)
                await trio.to_thread.run_sync(receiver.start)
                console.print(f"3. The receiver is up at {receiver.url} and takes payloads of that hotkey.")
                found = await _first_with_a_root(http, receiver.url)
                if found is None:
                    console.print(gateway.log(), receiver.log(), "no payload with a node's root arrived")
                    return 1
                _show(found)
            finally:
                receiver.kill()
                await http.aclose()
                await trio.to_thread.run_sync(gateway.terminate)
    console.print(f"Done in {time.monotonic() - began:.0f} s.")
    return 0


def _buy_and_fill(url: str) -> None:
    phone, wallet = Keypair.generate(), PlayWallet(secrets.token_bytes(32))
    with GatewayClient(url, phone, wallet) as shop:
        session = shop.create_session("lite", hours=1)
        session = shop.wait_active(session.session_id, timeout_s=LIMIT_S)
    assert session.node_endpoint is not None
    with NodeClient(session.node_endpoint, phone) as node:
        for text in TEXTS:
            node.ingest_text(text)
    console.print(f"2. A node, hotkey {session.node_hotkey}, holds {len(TEXTS)} memories.")


async def _first_with_a_root(http: HttpClient, url: str) -> dict[str, Any] | None:
    """Return the first payload in which a node has a root over what it holds."""
    with trio.move_on_after(LIMIT_S):
        while True:
            try:
                page = (await http.request("GET", f"{url}/intelligence?kind=memory")).json()
            except HttpError:
                page = {"items": []}
            for item in page["items"]:
                roots = [node["root"] for node in item["document"]["nodes"].values()]
                if any(root is not None and root["count"] == len(TEXTS) for root in roots):
                    return dict(item)
            await trio.sleep(0.5)
    return None


def _show(item: dict[str, Any]) -> None:
    document, acknowledgement = item["document"], item["acknowledgement"]
    for name, node in document["nodes"].items():
        root = node["root"]
        console.print(f"4. Polled: {node['vectors']} vectors. Signed by {name[:12]}…: root {root['root_hex'][:16]}…")
    lag_ms = item["received_at"] * 1e3 - document["round_ts"] * 1e3
    console.print(f"5. {document['schema_version']}, signed by {item['signer'][:12]}…: {item['signed_hash'][:16]}…")
    message = f"engram-accepted:{item['signed_hash']}:{acknowledgement['received_ms']}".encode()
    signature = bytes.fromhex(acknowledgement["signature"].removeprefix("0x"))
    holds = verify(ss58.decode(acknowledgement["receiver"]), message, signature)
    console.print(f"6. {item['state']} {lag_ms:.0f} ms after its round; the receiver's signature holds: {holds}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(trio.run(main))
