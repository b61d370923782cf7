"""The hotkeys that the gateway signs with in the name of nodes."""

import shutil
from pathlib import Path

import pytest

from engram.hotkeys import Keypair
from engram.hotkeys.passwords import password_for
from engram.provisioning import node_keys
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.provisioning.model import NodeKey
from tests.hotkeys.test_passwords import ENCRYPTED, PASSWORD, SEED


def key_at(path: Path, keypair: Keypair, source: str = "added") -> NodeKey:
    return NodeKey(public_key=keypair.public_key, path=str(path), source=source, added_at=0.0)


def no_password(_: Path) -> str | None:
    return None


async def test_a_generated_key_is_found_in_the_folder_of_the_pool_and_read_once(tmp_path: Path) -> None:
    keypair = Keypair.generate()
    path = node_keys.write_key(tmp_path / "hotkeys", keypair)
    ring, key = (
        HotkeyRing(tmp_path / "hotkeys", no_password),
        key_at(Path("elsewhere", path.name), keypair, "generated"),
    )
    assert await ring.keypair(key) == keypair
    path.unlink()
    assert await ring.keypair(key) == keypair


async def test_a_file_that_holds_another_key_or_is_missing_is_refused(tmp_path: Path) -> None:
    path = node_keys.write_key(tmp_path, Keypair.generate())
    ring = HotkeyRing(tmp_path, no_password)
    with pytest.raises(NodeKeyError, match="holds 5"):
        await ring.keypair(key_at(path, Keypair.generate()))
    with pytest.raises(NodeKeyError, match="no key file"):
        await ring.keypair(key_at(tmp_path / "none", Keypair.generate()))


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    path = tmp_path / "hot"
    shutil.copy(ENCRYPTED, path)
    path.chmod(0o600)
    return path


async def test_an_encrypted_key_without_a_password_is_refused_by_its_file(encrypted: Path) -> None:
    key = key_at(encrypted, Keypair.from_seed(SEED))
    with pytest.raises(NodeKeyError, match="encrypted"):
        await HotkeyRing(encrypted.parent, no_password).keypair(key)
    told = HotkeyRing(encrypted.parent, lambda file: password_for(file, "", "miner.hotkey_password_file", environ=None))
    with pytest.raises(
        NodeKeyError, match=r"name a file of mode 0600 with its password in miner\.hotkey_password_file"
    ):
        await told.keypair(key)


@pytest.mark.nightly
async def test_an_encrypted_key_is_opened_by_a_process_of_its_own(encrypted: Path) -> None:
    key = key_at(encrypted, Keypair.from_seed(SEED))
    ring = HotkeyRing(encrypted.parent, lambda _: PASSWORD)
    assert (await ring.keypair(key)).sign(b"x")
    with pytest.raises(NodeKeyError, match="wrong password"):
        await HotkeyRing(encrypted.parent, lambda _: "not the one").keypair(key)
