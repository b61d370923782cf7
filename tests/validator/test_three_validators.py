"""Three `run.py validator` and a `run.py xeris` over the living chain: one validator is deceived and says what no
other has measured; the others go on, and the evidence names it."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from engram.chain.epochs import epoch_of
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import NETUID
from tests.miner.nodes import ROOT
from tests.validator.subnets import SUBTENSOR, VALIDATOR, SmallSubnet, miner_key, write_key
from tests.validator.toy_miners import Keeps, ServesPublicFile

KEYS = (VALIDATOR, miner_key(1), miner_key(2))
LIAR, HONEST, CHEAT = 0, 7, 9
TEMPO = 59
"""18 s of this chain: each validator has its turn within an epoch."""
TOML = """
environment = "local"
data_dir = "{folder}/data"
[chain]
source = "rpc"
endpoints = ["{chain}"]
network = "test"
poll_s = 0.3
[miner]
embedder = "hash"
[ops]
port = 0
[relay]
url = "{receiver}/payloads"
turn_blocks = 15
confirmations = 1
peers = {peers}
[validator]
port = {port}
hotkey_file = "{folder}/hotkey"
dry_run = false
round_s = 3.0
deadline_s = 20.0
private_addresses = true
share_scores = false
"""
RECEIVER = """
environment = "local"
data_dir = "{folder}/data"
[chain]
source = "rpc"
endpoints = ["{chain}"]
network = "test"
poll_s = 0.3
[xeris]
port = {port}
quorum = 2
"""


class ThreePermits(SmallSubnet):
    """Uids 0, 1 and 2 are validators."""

    def __init__(self) -> None:
        super().__init__()
        self.seal_at_look = False
        permits = [uid < len(KEYS) for uid in range(256)]
        self.put(permits, SUBTENSOR, "ValidatorPermit", NETUID)
        for uid in range(len(KEYS)):
            self.put([], SUBTENSOR, "Weights", NETUID, uid)
        self.put(TEMPO, SUBTENSOR, "Tempo", NETUID)

    def fields_changed(self, fields: dict[str, Any]) -> None:
        fields["validator_permit"] = [uid < len(KEYS) for uid in range(len(fields["hotkeys"]))]
        fields["tempo"] = TEMPO
        fields["last_step"] = epoch_of(fields["block"], NETUID, TEMPO).first_block


class DeceivingServer(ChainServer):
    """Sends its one reader to another machine for the miner that cheats all others."""

    def __init__(self, double: SmallSubnet, ports: dict[int, int]) -> None:
        super().__init__(double)
        self._subnet = double
        self._ports = {miner_key(uid).ss58: port for uid, port in ports.items()}

    def _reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        true, self._subnet.at = self._subnet.at, self._ports
        try:
            return super()._reply(asked)
        finally:
            self._subnet.at = true


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Program:
    def __init__(self, role: str, folder: Path, toml: str, keypair: Keypair | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        if keypair is not None:
            write_key(folder / "hotkey", keypair)
        self.config = folder / "engram.toml"
        self.config.write_text(toml)
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "run.py", role, "--config", str(self.config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()

    async def said(self, *command: str) -> Any:
        engram = str(Path(sys.executable).with_name("engram"))
        done = await trio.run_process(
            [engram, "relay", *command, "--config", str(self.config), "--json"],
            cwd=ROOT,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)


async def accepted(http: HttpClient, url: str) -> list[dict[str, Any]]:
    try:
        answer = await http.request("GET", f"{url}/intelligence?kind=scores")
    except HttpError:
        return []
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


@pytest.mark.nightly
@pytest.mark.heavy
async def test_what_one_validator_alone_has_measured_does_not_get_through(tmp_path: Path) -> None:
    chain = ThreePermits()
    honest, cheat, decoy = Keeps(miner_key(HONEST)), ServesPublicFile(miner_key(CHEAT)), Keeps(miner_key(CHEAT))
    programs: list[Program] = []
    http = HttpClient()
    async with trio.open_nursery() as nursery:
        ports = [int((await nursery.start(each.run)).rpartition(":")[2]) for each in (honest, cheat, decoy)]
        chain.announce({HONEST: ports[0], CHEAT: ports[1]})
        true = await nursery.start(ChainServer(chain).run)
        false = await nursery.start(DeceivingServer(chain, {HONEST: ports[0], CHEAT: ports[2]}).run)

        async def seal() -> None:
            while True:
                chain.seal()
                await trio.sleep(0.3)

        nursery.start_soon(seal)
        receiver = f"http://127.0.0.1:{(receiver_port := free_port())}"
        own = [free_port() for _ in KEYS]
        peers = json.dumps([f"{key.ss58} http://127.0.0.1:{port}" for key, port in zip(KEYS, own, strict=True)])
        try:
            toml = RECEIVER.format(folder=tmp_path / "xeris", chain=true, port=receiver_port)
            programs.append(Program("xeris", tmp_path / "xeris", toml))
            for uid, key in enumerate(KEYS):
                folder = tmp_path / f"validator{uid}"
                seen = false if uid == LIAR else true
                toml = TOML.format(folder=folder, chain=seen, receiver=receiver, peers=peers, port=own[uid])
                programs.append(Program("validator", folder, toml, key))
            with trio.fail_after(200):  # below the bound of a whole test
                found: list[dict[str, Any]] = []
                blamed: set[str] = set()
                while not (found and blamed):
                    await trio.sleep(1.0)
                    for each in programs:
                        assert each.process.poll() is None, each.log.read_text()[-4_000:]
                    found = await accepted(http, receiver)
                    kept = [row for each in programs[2:] for row in await each.said("evidence")]
                    # A proposer keeps the refusals of its own proposals as well: those of the deceived one.
                    evidence = [row for row in kept if row["judge"] != KEYS[LIAR].ss58]
                    blamed = {row["proposer"] for row in evidence}
            assert blamed == {KEYS[LIAR].ss58}
            fields = {each["uid"] for row in evidence for each in row["differences"]}
            assert fields == {str(CHEAT)}
            assert {each["signer"] for each in found} <= {key.ss58 for key in KEYS[1:]}
            assert all(each["signers"] >= 2 for each in found)
        finally:
            for each in programs:
                each.end()
            await http.aclose()
        nursery.cancel_scope.cancel()
