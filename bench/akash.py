"""Akash: what it costs to make and sign the transaction that creates a deployment, beside cosmjs on the same message.

Times are of the CPU; a peer that is not installed (scripts/setup-node) is null.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time

from bench.support.report import print_line
from engram.provisioning.akash import account, messages, tx
from engram.provisioning.akash.messages import Message
from tests.evm import node
from tests.provisioning.akash.vectors import public_mnemonic, vectors

QUICK = "--quick" in sys.argv
ROUNDS = 100 if QUICK else 1_000
REPEATS = 3 if QUICK else 7
WANTED = {"sign_tx_ms": "<= 2"}


def message() -> Message:
    """Return the deployment of a node of the tier lite, as a peer made it."""
    (created,) = tx.decode_tx(bytes.fromhex(vectors("peer-tx-vectors")["cases"][0]["tx_raw"])).messages
    return created


def sign_tx_ms() -> float:
    """Return milliseconds of CPU for a transaction, message included."""
    signer = account.Signer(account.secret_of(public_mnemonic()))
    wanted, fee, of = (message(),), tx.fee_of(400_000), tx.Account(1)
    started = time.thread_time()
    for number in range(ROUNDS):
        tx.sign(wanted, tx.Unordered(1_790_000_000_000_000_000 + number), fee, of, signer)
    return (time.thread_time() - started) * 1000 / ROUNDS


def cosmjs_sign_tx_ms() -> float | None:
    """Return milliseconds of CPU for the same by cosmjs; None where it is not installed."""
    if shutil.which("node") is None or not (node.FOLDER / "node_modules" / "@cosmjs").is_dir():
        return None
    packed = messages.pack(message())
    question = {
        "mnemonic": public_mnemonic(),
        "type_url": packed.type_url,
        "value": packed.value.hex(),
        "rounds": ROUNDS,
    }
    done = subprocess.run(
        ["node", "signing_speed.mjs"],
        cwd=node.FOLDER,
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return float(done.stdout)


def main() -> None:
    ours, theirs = [], []
    for _ in range(REPEATS):
        ours.append(sign_tx_ms())
        theirs.append(cosmjs_sign_tx_ms())
    figures = {"sign_tx_ms": statistics.median(ours)}
    measured = [one for one in theirs if one is not None]
    cosmjs = statistics.median(measured) if measured else None
    print_line(
        "akash",
        figures,
        {"cosmjs": {"sign_tx_ms": cosmjs}},
        {"sign_tx_vs_cosmjs": None if cosmjs is None else figures["sign_tx_ms"] / cosmjs},
        WANTED,
    )


if __name__ == "__main__":
    main()
