"""Everything that a provider has of a node is searched for every secret: its disk, the node's environment, command
line and memory, the manifest, and each request that chain and provider got. What it must be able to see is found there,
and no key.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from engram.hotkeys import Keypair
from engram.provisioning.akash.account import Signer
from engram.sdk import NodeClient
from tests.doubles.akash.process import DoubleProcess
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.purchases import buy, stop
from tests.e2e.test_akash import CHAIN_ID, settings

pytestmark = [pytest.mark.heavy, pytest.mark.nightly]

KEY: Final = hashlib.sha256(b"of the Akash account").digest()
TEXT: Final = "A physician prescribed tablets to bring the child's fever down."
_KEYS: Final = re.compile(rb'"(?:privateKey|secretSeed)": ?"0x([0-9a-f]{64,128})"')
_PART: Final = 16 * 1024**2


def forms(secret: bytes) -> set[bytes]:
    """Return how a secret may be written: raw, hex, base64 at each of the three places in its text.

    >>> b"68656c6c6f" in forms(b"hello"), b"aGVsb" in {form[:5] for form in forms(b"hello")}
    (True, True)
    """
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for before in range(3):
        text = base64.b64encode(bytes(before) + secret).rstrip(b"=")[(before * 8 + 5) // 6 : -1]
        found |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def secrets_of(folder: Path, buyer: Buyer) -> dict[str, bytes]:
    """Return every secret that the gateway's data folder holds, and the buyer's."""
    found = {"akash": KEY, "buyer": buyer.keypair.private_key()}
    for path in folder.rglob("*"):
        if not path.is_file() or path.stat().st_size > 100_000:
            continue
        for number, digits in enumerate(_KEYS.findall(path.read_bytes())):
            found[f"{path.name}:{number}"] = bytes.fromhex(digits.decode())
    return found


def processes_of(session_id: str) -> list[int]:
    """Return the node's processes: those that were told its session."""
    needle = f"ENGRAM_NODE_SESSION_ID={session_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and needle in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def memory_of(process: int) -> Iterator[bytes]:
    """Yield what can be read of a process' memory, in parts that overlap a little."""
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb", 0) as memory:
        for line in maps:
            area, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(each, 16) for each in area.split("-"))
            for at in range(start, end, _PART):
                try:
                    memory.seek(at)
                    yield memory.read(min(_PART + 256, end - at))
                except (OSError, ValueError):
                    continue


def what_is_there(machine: Path, processes: list[int], record: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all that the provider can read, with where it is."""
    for path in machine.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(machine)), path.read_bytes()
    for process in processes:
        for name in ("environ", "cmdline"):
            yield name, Path(f"/proc/{process}/{name}").read_bytes()
        for part in memory_of(process):
            yield "memory", part
    yield "traffic", record.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to read the memory of a process, as a provider can")
def test_a_provider_that_reads_everything_finds_no_key_but_the_sessions_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, record, folder = tmp_path / "machine", tmp_path / "record", tmp_path / "gateway"
    machine.mkdir()
    monkeypatch.setenv("TMPDIR", str(machine))
    monkeypatch.setenv("AKASH_DOUBLE_RECORD", str(record))
    buyer = Buyer()
    with DoubleProcess("--fund", Signer(KEY).address, "--chain-id", CHAIN_ID, "--block-s", "0.2") as double:
        monkeypatch.delenv("TMPDIR")
        text = settings(double, tmp_path).replace(Signer(b"\7" * 32).address, Signer(KEY).address)
        (tmp_path / "akash.key").write_text(KEY.hex())
        with GatewayProcess(folder, settings=text) as gateway:
            gateway.start()
            session = buy(gateway, buyer)
            with NodeClient(session["node_endpoint"], buyer.keypair) as node:
                node.ingest_text(TEXT)
            secrets = secrets_of(folder, buyer)
            assert len(secrets) >= 4, "the Akash account's, the gateway's, the node's hotkey, the buyer's"
            processes = processes_of(session["session_id"])
            assert processes, "the node is not to be found"
            needles = {form: name for name, secret in secrets.items() for form in forms(secret)}
            needles |= {form: name for name, secret in secrets.items() for form in forms(secret[:32])}
            pattern = re.compile(b"|".join(re.escape(form) for form in sorted(needles)))
            seen: set[str] = set()
            found: list[tuple[str, str]] = []
            for where, content in what_is_there(machine, processes, record):
                if TEXT.encode() in content or session["session_id"].encode() in content:
                    seen.add(where.rpartition("/")[2])
                found += [(where, needles[match.group()]) for match in pattern.finditer(content)]
            assert found == []
            assert {"environ", "memory", "traffic", "truth.db"} <= {name.removesuffix("-wal") for name in seen}, seen
            stop(gateway, buyer, session["session_id"])
            again = [where for where, content in what_is_there(machine, [], record) if pattern.search(content)]
            assert again == []
    assert pattern.search(b"x" + Keypair.generate().private_key()) is None
    assert pattern.search(base64.b64encode(b"xy" + KEY)), "the search finds what is there"
