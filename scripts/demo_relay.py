"""`make demo-relay`: a node, a gateway and a receiver of the relay; one payload from a poll to an anchored answer.

Each is a process of its own on this machine; the chain is the tests' double, with a block every half second. The node
is bought with play money. The gateway, whose hotkey is registered on that chain, polls it, asks it for the root that it
signs, and hands both on once their block is final; the receiver verifies the root and signs its acknowledgement. The
gateway commits the root over what was acknowledged, and the receiver reads the commitment itself.
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
from engram.memory.proof import rfc6962  # noqa: E402
from engram.payments.play_wallet import PlayWallet  # noqa: E402
from engram.sdk.gateway import GatewayClient  # noqa: E402
from engram.sdk.node import NodeClient  # noqa: E402
from tests.e2e.gateway_process import FAST, GatewayProcess  # noqa: E402
from tests.fakes.chain import ChainServer  # noqa: E402
from tests.validator.subnets import SmallSubnet, miner_key, write_key  # noqa: E402
from tests.xeris.xeris_process import XerisProcess  # noqa: E402

LIMIT_S: Final = 180.0
BLOCK_S: Final = 0.5
TEXTS: Final = ("The root covers this memory.", "And this one.")
GATEWAY: Final = miner_key(5)
CHAIN: Final = """
[chain]
source = "rpc"
endpoints = ["{chain}"]
network = "test"
poll_s = 0.5
"""
RELAY: Final = """
[gateway]
hotkey_file = "{key}"
[relay]
url = "http://127.0.0.1:{port}/payloads"
round_s = 3.0
"""

console: Final = Console(highlight=False)


async def main() -> int:
    """Run the demo; return the exit status."""
    began = time.monotonic()
    chain = SmallSubnet()
    chain.seal_at_look = False
    with tempfile.TemporaryDirectory(prefix="engram-demo-") as name:
        async with trio.open_nursery() as nursery:
            at_chain = CHAIN.format(chain=await nursery.start(ChainServer(chain).run))
            nursery.start_soon(_make_blocks, chain)
            port, key = _free_port(), write_key(Path(name, "gateway-hotkey"), GATEWAY)
            settings = FAST + at_chain + RELAY.format(key=key, port=port)
            with GatewayProcess(Path(name, "gateway"), settings=settings) as gateway:
                await trio.to_thread.run_sync(gateway.start)
                console.print(f"1. A gateway, hotkey {GATEWAY.ss58}, registered on a chain of this machine.")
                receiver = XerisProcess(Path(name, "receiver"), GATEWAY.ss58, port=port, besides=at_chain)
                http = HttpClient()
                try:
                    await trio.to_thread.run_sync(_buy_and_fill, gateway.url)
                    await trio.to_thread.run_sync(receiver.start)
                    console.print(f"3. The receiver is up at {receiver.url}; what was polled until now waited for it.")
                    found = await _followed(http, receiver.url)
                    if found is None:
                        console.print(gateway.log(), receiver.log(), "no payload with a node's root was anchored")
                finally:
                    receiver.kill()
                    await http.aclose()
                    await trio.to_thread.run_sync(gateway.terminate)
            nursery.cancel_scope.cancel()
    console.print(f"Done in {time.monotonic() - began:.0f} s.")
    return 0 if found is not None else 1


async def _make_blocks(chain: SmallSubnet) -> None:
    while True:
        chain.seal()
        await trio.sleep(BLOCK_S)


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


async def _followed(http: HttpClient, url: str) -> dict[str, Any] | None:
    """Show the first payload with a root over all that the node holds, and return it once it is anchored."""
    accepted: dict[str, Any] | None = None
    with trio.move_on_after(LIMIT_S):
        while True:
            if accepted is None:
                accepted = _with_a_root((await _said(http, f"{url}/intelligence?kind=memory")).get("items", []))
                if accepted is not None:
                    _show(accepted)
            else:
                found = await _said(http, f"{url}/intelligence/{accepted['signed_hash']}")
                if found.get("state") == "anchored":
                    _show_anchor(found)
                    return found
            await trio.sleep(0.5)
    return None


async def _said(http: HttpClient, url: str) -> dict[str, Any]:
    try:
        return dict((await http.request("GET", url)).json())
    except HttpError:
        return {}


def _with_a_root(items: list[dict[str, Any]]) -> dict[str, Any] | None:
    for item in items:
        roots = [node["root"] for node in item["document"]["nodes"].values()]
        if any(root is not None and root["count"] == len(TEXTS) for root in roots):
            return item
    return None


def _show(item: dict[str, Any]) -> None:
    document, acknowledgement = item["document"], item["acknowledgement"]
    for name, node in document["nodes"].items():
        root = node["root"]
        console.print(f"4. Polled: {node['vectors']} vectors. Signed by {name[:12]}…: root {root['root_hex'][:16]}…")
    console.print(f"5. {document['schema_version']}, signed by {item['signer'][:12]}…: {item['signed_hash'][:16]}…")
    message = f"engram-accepted:{item['signed_hash']}:{acknowledgement['received_ms']}".encode()
    signature = bytes.fromhex(acknowledgement["signature"].removeprefix("0x"))
    holds = verify(ss58.decode(acknowledgement["receiver"]), message, signature)
    waited_s = item["received_at"] - document["round_ts"]
    console.print(
        f"6. accepted {waited_s:.1f} s after its round, when block {document['block']} was final and deep enough; "
        f"the receiver's signature holds: {holds}"
    )


def _show_anchor(item: dict[str, Any]) -> None:
    anchor = item["anchor"]
    path = [bytes.fromhex(each) for each in anchor["path"]]
    leaf = rfc6962.leaf(bytes.fromhex(item["output_hash"]))
    leads = rfc6962.root_from_path(leaf, anchor["leaf"], anchor["leaves"], path).hex() == anchor["root"]
    console.print(f"7. anchored: {anchor['commitment'][:32]}… is committed by {anchor['hotkey'][:12]}…")
    console.print(
        f"   in block {anchor['block']}, epoch {anchor['epoch']}; leaf {anchor['leaf'] + 1} of {anchor['leaves']}, "
        f"and its path leads to that root: {leads}"
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(trio.run(main))
