"""Three `run.py validator` and a `run.py xeris` over the living chain: one validator is deceived and says what no
other has measured; the others go on, scores and rankings leave co-signed, and the evidence names it."""

import json
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
from tests.shared import free_port
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
latency_tolerance_ms = 20000.0
peers = {peers}
[validator]
port = {port}
hotkey_file = "{folder}/hotkey"
dry_run = false
round_s = 3.0
decoys = 0
timeout_s = 20.0
deadline_s = 60.0
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

    @property
    def is_ready(self) -> bool:
        """Whether everything serves, so that its ledger is made."""
        return '"event":"ready"' in self.log.read_text()

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


async def accepted(http: HttpClient, url: str, kind: str) -> list[dict[str, Any]]:
    try:
        answer = await http.request("GET", f"{url}/intelligence?kind={kind}")
    except HttpError:
        return []
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def praises_the_cheat(difference: dict[str, Any]) -> bool:
    """Whether more right answers or proofs of the miner that cheats were proposed than the judge has ever seen."""
    is_of_answers = difference["uid"] == str(CHEAT) and difference["field"] in ("recall", "proof_rate")
    return is_of_answers and difference["proposed"] > difference["highest"] + difference["tolerance"]


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
                rankings: list[dict[str, Any]] = []
                blamed: set[str] = set()
                while not all(each.is_ready for each in programs):
                    ended = [each.log.read_text() for each in programs if each.process.poll() is not None]
                    assert not ended, ended
                    await trio.sleep(0.5)
                while not (found and rankings and blamed):
                    await trio.sleep(1.0)
                    for each in programs:
                        assert each.process.poll() is None, each.log.read_text()[-4_000:]
                    found = await accepted(http, receiver, "scores")
                    rankings = await accepted(http, receiver, "ranking")
                    kept = [row for each in programs[2:] for row in await each.said("evidence")]
                    # A proposer keeps the refusals of its own proposals as well: those of the deceived one.
                    # Of rankings honest ones may differ: a miner that cheats is slashed by one before the other.
                    # Answers that came late to one of two honest ones make them differ as well, but never in that
                    # direction: neither has seen the cheating miner give a right answer.
                    of_scores = [row for row in kept if row["kind"] == "scores" and row["judge"] != KEYS[LIAR].ss58]
                    blamed = {row["proposer"] for row in of_scores if any(map(praises_the_cheat, row["differences"]))}
            assert blamed == {KEYS[LIAR].ss58}
            assert {each["signer"] for each in (*found, *rankings)} <= {key.ss58 for key in KEYS[1:]}
            assert all(each["signers"] >= 2 for each in (*found, *rankings))
        finally:
            for each in programs:
                each.end()
            await http.aclose()
        nursery.cancel_scope.cancel()
