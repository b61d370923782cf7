"""A node whose hotkey is an encrypted wallet file, as a process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.model import MinerSettings
from engram.hotkeys import Keypair
from engram.nodes import launch
from tests.hotkeys.test_passwords import ENCRYPTED, PASSWORD, SEED, password_file
from tests.miner.nodes import ROOT, NodeProcess
from tests.terminal import OnTerminal

pytestmark = pytest.mark.serial


def encrypted(folder: Path, miner: MinerSettings | None = None, content: bytes | None = None) -> NodeProcess:
    """A node that is not started, with an encrypted hotkey (or `content` in its place)."""
    folder.mkdir(exist_ok=True)
    made = NodeProcess(folder, miner=miner or MinerSettings())
    shutil.copy(ENCRYPTED, folder / "hotkey")
    if content is not None:
        (folder / "hotkey").write_bytes(content)
    (folder / "hotkey").chmod(0o600)
    launch.write(made.launch_file, made.launch)
    return made


def refused(node: NodeProcess, **environ: str) -> str:
    """What a node says that cannot start."""
    command = [sys.executable, "-m", "engram.miner", "--config", str(node.launch_file)]
    ran = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, env={**os.environ, **environ}, timeout=60, check=False
    )
    assert ran.returncode == 2
    return node.log()


def test_a_node_opens_its_encrypted_hotkey_with_the_password_in_a_file(tmp_path: Path) -> None:
    settings = MinerSettings(hotkey_password_file=str(password_file(tmp_path, PASSWORD.encode())))
    node = encrypted(tmp_path, settings)
    try:
        node.start()
        assert node.get("/health")["hotkey"] == Keypair.from_seed(SEED).ss58
        assert PASSWORD not in node.log() + node.launch_file.read_text()
        assert node.terminate() == 0
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()


def test_what_is_wrong_with_an_encrypted_hotkey_is_told_before_anything_is_deciphered(tmp_path: Path) -> None:
    told = refused(encrypted(tmp_path))
    assert "this node cannot start: the key file" in told
    assert "miner.hotkey_password_file, or set ENGRAM_WALLET_PASSWORD" in told


@pytest.mark.nightly
def test_a_password_file_that_is_open_and_an_old_encryption_are_told(tmp_path: Path) -> None:
    open_file = MinerSettings(hotkey_password_file=str(password_file(tmp_path, PASSWORD.encode(), 0o644)))
    assert "chmod 600" in refused(encrypted(tmp_path / "b", open_file))
    old = encrypted(tmp_path / "c", content=b"$ANSIBLE_VAULT;1.1;AES256\n6162")
    assert f"engram wallet convert {tmp_path}/c/hotkey" in refused(old, ENGRAM_WALLET_PASSWORD="any")


@pytest.mark.nightly
def test_a_wrong_password_is_told_as_that(tmp_path: Path) -> None:
    told = refused(encrypted(tmp_path), ENGRAM_WALLET_PASSWORD="not the one")
    assert told.splitlines()[-1] == f"this node cannot start: wrong password for the key file {tmp_path}/hotkey"


@pytest.mark.nightly
def test_a_node_asks_for_the_password_on_a_terminal_and_does_not_show_it(tmp_path: Path) -> None:
    node = encrypted(tmp_path)
    command = [sys.executable, "-m", "engram.miner", "--config", str(node.launch_file)]
    environ = {name: value for name, value in os.environ.items() if name != "ENGRAM_WALLET_PASSWORD"}
    with OnTerminal(command, cwd=ROOT, environ=environ) as terminal:
        terminal.until("password of the key file")
        terminal.type(PASSWORD + "\n")
        node.await_health()
        assert node.get("/health")["hotkey"] == Keypair.from_seed(SEED).ss58
        assert PASSWORD not in terminal.shown + node.log()
