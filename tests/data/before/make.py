"""Makes data-folder.tar.gz and known.json: what a gateway and a node of commit fd04aaf leave when they are killed.

Run in a checkout of that commit, by an interpreter that has what it needs:

    PYTHONPATH=. python .../tests/data/before/make.py .../tests/data/before

Its databases were written by SQLite 3.40.1, and their logs are not empty.
"""

import json
import os
import signal
import sys
import tarfile
import tempfile
from pathlib import Path

from engram.hotkeys import Keypair
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import GatewayProcess
from tests.miner.nodes import CONTROLLER, NodeProcess, in_namespace, signed

BUYER = Keypair.from_seed(bytes([9]) * 32)


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        gateway, node = Path(folder) / "gateway", Path(folder) / "node"
        node.mkdir()
        known = {**sold(gateway), **remembered(node)}
        with tarfile.open(target / "data-folder.tar.gz", "w:gz") as archive:
            for place, data in (("gateway", gateway), ("node", node / "data")):
                for name in ("ledger.sqlite3", "truth.db", "notebook.db"):
                    for path in (data / name, data / f"{name}-wal"):
                        if path.exists():
                            archive.add(path, f"{place}/{path.name}", filter=nobodys)
    (target / "known.json").write_text(json.dumps(known, indent=2) + "\n")


def sold(data: Path) -> dict[str, object]:
    gateway, buyer = GatewayProcess(data).start(), Buyer()
    buyer.keypair = BUYER
    buyer.quote(gateway.url)
    bought = buyer.pay(gateway.url).body["session_id"]
    active = buyer.wait(gateway.url, bought, "active")
    buyer.quote(gateway.url)
    stopped = buyer.pay(gateway.url).body["session_id"]
    buyer.wait(gateway.url, stopped, "active")
    buyer.stop(gateway.url, stopped)
    buyer.wait(gateway.url, stopped, "stopped")
    os.kill(gateway.pid, signal.SIGKILL)
    for process in Path("/proc").glob("[0-9]*"):
        if str(data).encode() in (process / "cmdline").read_bytes():
            os.kill(int(process.name), signal.SIGKILL)
    return {"active": bought, "stopped": stopped, "payment_tx": active["payment_tx"]}


def remembered(folder: Path) -> dict[str, object]:
    node = NodeProcess(folder)
    node.start()

    def ask(path: str, endpoint: str, **fields: object) -> dict[str, object]:
        status, answer = node.ask("POST", path, signed(CONTROLLER, endpoint, fields))
        assert status == 200, (path, status, answer)
        return dict(answer)

    public = [
        ask("/IngestSynapse", "IngestSynapse", text=text, metadata={"_ref": ref})["cid"]
        for text, ref in (("a late frost", "r1"), ("a rate rise", "r\0two"), ("what is deleted", "r3"))
    ]
    status, answer = node.ask(
        "DELETE", f"/retrieve/{public[2]}", signed(CONTROLLER, "DeleteSynapse", {"cid": public[2]})
    )
    assert status == 200, answer
    private = ask("/IngestSynapse", "IngestSynapse", text="between us", **in_namespace(CONTROLLER, "notes"))["cid"]
    said = [{"role": "user", "content": "hello"}]
    ask("/chat-history", "SaveChat", user_id="u", conv_id="c", messages=said)
    node.kill()
    return {"public": public[:2], "deleted": public[2], "private": private}


def nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1]))
