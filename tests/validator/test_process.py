"""`run.py validator` as a process: two real nodes, one honest, and the living chain over HTTP."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.fakes.chain import ChainServer
from tests.miner.nodes import ROOT, NodeProcess
from tests.validator.subnets import VALIDATOR, SmallSubnet, miner_key, write_key
from tests.validator.toy_miners import ServesPublicFile

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
[validator]
hotkey_file = "{folder}/hotkey"
dry_run = false
round_s = 2.5
deadline_s = 20.0
timeout_s = 5.0
private_addresses = true
share_scores = false
planted = 20
"""


class ValidatorProcess:
    def __init__(self, folder: Path, chain_url: str) -> None:
        write_key(folder / "hotkey", VALIDATOR)
        self.config = folder / "engram.toml"
        self.config.write_text(TOML.format(folder=folder, chain=chain_url))
        self.log = folder / "validator.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "run.py", "validator", "--config", str(self.config)],
                cwd=ROOT,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(timeout=20)

    async def told(self, *command: str) -> object:
        done = await trio.run_process(
            [
                str(Path(sys.executable).with_name("engram")),
                "validator",
                *command,
                "--config",
                str(self.config),
                "--json",
            ],
            cwd=ROOT,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)


@pytest.mark.heavy
async def test_a_validator_scores_two_real_miners_and_sets_weights_across_a_kill(tmp_path: Path) -> None:
    chain = SmallSubnet()
    chain.seal_at_look = True
    folder = tmp_path / "node"
    folder.mkdir()
    node = NodeProcess(folder)
    (folder / "hotkey").unlink()
    write_key(folder / "hotkey", miner_key(7))
    cheat = ServesPublicFile(miner_key(9))
    server = ChainServer(chain)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.run)
        await nursery.start(cheat.run)
        await trio.to_thread.run_sync(node.start)
        chain.announce({7: node.port, 9: int(cheat.url.rpartition(":")[2])})
        validator = ValidatorProcess(tmp_path, url)
        validator.start()
        try:
            with trio.fail_after(60):
                while not chain.weights_of():
                    await trio.sleep(0.2)
                    assert validator.process is not None
                    assert validator.process.poll() is None, validator.log.read_text()
            assert set(chain.weights_of()) == {7}
            validator.end(signal.SIGKILL)
            validator.start()
            sent = chain.asked.count("author_submitExtrinsic")
            with trio.fail_after(60):
                while chain.asked.count("author_submitExtrinsic") == sent:  # noqa: ASYNC110  # another process sends it
                    await trio.sleep(0.2)
            scores = await validator.told("scores")
            assert isinstance(scores, list)
            by_uid = {each["uid"]: each for each in scores}
            assert by_uid[7]["ema"] > 0.9
            assert by_uid[9]["ema"] <= 0.3
            status = await validator.told("status")
            assert isinstance(status, dict)
            assert status["planted"]["held"] > 0
            explained = await validator.told("explain", "7")
            assert isinstance(explained, dict)
            assert explained["rounds"][0]["questions"]
        finally:
            assert validator.end() == 0, validator.log.read_text()
            node.terminate()
        nursery.cancel_scope.cancel()
