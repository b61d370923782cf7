"""`make demo-validator`: two miners, one honest and one that serves the public file alone; a validator; its weights.

Everything is on this machine: the chain is the tests' double, the honest miner a real node, the validator a process of
its own. It ends when the chain has weights in which the cheat, slashed by then, has none.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trio
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.chain import ChainServer  # noqa: E402  # the repository is no installed package
from tests.miner.nodes import NodeProcess  # noqa: E402
from tests.validator.benches import public_file, write_file  # noqa: E402
from tests.validator.subnets import VALIDATOR, SmallSubnet, miner_key, write_key  # noqa: E402
from tests.validator.toy_miners import ServesPublicFile  # noqa: E402

HONEST: Final = 7
CHEAT: Final = 9
LIMIT_S: Final = 180.0
TOML: Final = """
environment = "local"
data_dir = "{folder}/data"
[chain]
source = "rpc"
endpoints = ["{chain}"]
network = "test"
poll_s = 0.5
[miner]
embedder = "hash"
[ops]
port = 0
[validator]
hotkey_file = "{folder}/hotkey"
dry_run = false
round_s = 4.0
private_addresses = true
share_scores = false
planted = 8
challenges = 3
ground_truth = "{folder}/truth.jsonl"
"""

console: Final = Console(highlight=False)


async def main() -> int:
    """Run the demo; returns the exit status."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="engram-demo-") as name:
        folder = Path(name)
        (folder / "node").mkdir()
        chain = SmallSubnet()
        server, cheat = ChainServer(chain), ServesPublicFile(miner_key(CHEAT))
        public = public_file(60, 384)
        write_file(folder / "truth.jsonl", public)
        cheat.records = {each.cid: each.vector_bytes for each in public}
        node = NodeProcess(folder / "node")
        (folder / "node" / "hotkey").unlink()
        write_key(folder / "node" / "hotkey", miner_key(HONEST))
        config = folder / "validator.toml"
        async with trio.open_nursery() as nursery:
            url = await nursery.start(server.run)
            await nursery.start(cheat.run)
            await trio.to_thread.run_sync(node.start)
            chain.announce({HONEST: node.port, CHEAT: int(cheat.url.rpartition(":")[2])})
            console.print(f"1. A subnet on this machine; uid {HONEST} is a real node, uid {CHEAT} has the public file.")
            write_key(folder / "hotkey", VALIDATOR)
            config.write_text(TOML.format(folder=folder, chain=url), encoding="utf-8")
            with (folder / "log").open("wb") as log:
                validator = subprocess.Popen(  # noqa: ASYNC220  # it outlives this block
                    [sys.executable, "run.py", "validator", "--config", str(config)], cwd=ROOT, stdout=log, stderr=log
                )
            console.print("2. The validator plants records at both, then asks for them. A round takes about 4 s.")
            try:
                done = await _weights(chain, validator)
                if done:
                    _show(await _said(config, "scores"), chain.weights_of())
            finally:
                if validator.poll() is None:
                    os.kill(validator.pid, signal.SIGTERM)
                await trio.to_thread.run_sync(validator.wait)
                node.terminate()
            if not done:
                console.print((folder / "log").read_text())
                console.print("no weights were set")
            nursery.cancel_scope.cancel()
    console.print(f"Done in {time.monotonic() - began:.0f} s.")
    return 0 if done else 1


async def _weights(chain: SmallSubnet, validator: "subprocess.Popen[bytes]") -> bool:
    with trio.move_on_after(LIMIT_S):
        while validator.poll() is None:
            if chain.weights_of() and CHEAT not in chain.weights_of():
                return True
            await trio.sleep(0.5)
    return False


async def _said(config: Path, command: str) -> list[dict[str, Any]]:
    engram = str(Path(sys.executable).with_name("engram"))
    done = await trio.run_process(
        [engram, "validator", command, "--config", str(config), "--json"], capture_stdout=True, cwd=ROOT
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _show(scores: list[dict[str, Any]], weights: dict[int, int]) -> None:
    table = Table("uid", "what it does", "recall", "proofs", "average", "weight", box=None, header_style="bold")
    does = {HONEST: "stores what it is given", CHEAT: "serves only the public file"}
    for each in scores:
        if each["uid"] in does:
            share = weights.get(each["uid"], 0) / max(sum(weights.values()), 1)
            parts = (f"{each[part] or 0:.2f}" for part in ("recall", "proof_rate", "ema"))
            table.add_row(str(each["uid"]), does[each["uid"]], *parts, f"{share:.2f}")
    console.print("3. What it found, and the weights that are on the chain now:")
    console.print(table)


if __name__ == "__main__":
    sys.exit(trio.run(main))
