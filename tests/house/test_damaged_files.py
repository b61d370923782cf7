"""Our own small files, read after a disk has changed a byte of them: one that is no UTF-8 too."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engram.memory.upkeep import backups
from engram.miner import folder
from engram.nodes import launch
from engram.provisioning import node_folder

NO_UTF_8 = b'{"launch_token": "\xff", "format": "\xff", "session_id": "\xff"}'


@pytest.mark.parametrize("read", [node_folder.read_node, folder.read_node_file])
def test_a_node_file_that_is_no_utf_8_is_as_none(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / folder.NODE_FILE).write_bytes(NO_UTF_8)
    assert read(tmp_path) is None


def test_a_launch_file_that_is_no_utf_8_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "launch.json"
    file.write_bytes(NO_UTF_8)
    file.chmod(0o600)
    with pytest.raises(launch.LaunchFileError, match=r"launch\.json: .*(?i:utf-8)"):
        launch.read(file)


def test_a_backup_whose_manifest_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / backups.MANIFEST).write_bytes(NO_UTF_8)
    with pytest.raises(backups.BackupFailed, match="cannot be read"):
        backups.check(tmp_path)
