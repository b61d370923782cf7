"""The note of an announcement in flight, on a real disk."""

import stat
from pathlib import Path

import pytest

from engram.chain.registry.announce_journal import AnnouncementFile
from engram.chain.registry.announce_rules import Attempt
from tests.chain.test_announcement import HERE

ATTEMPT = Attempt(HERE, 1_000, 1_064)


async def test_a_note_is_found_again_and_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "announcement.json"
    assert await AnnouncementFile(path).load() is None
    await AnnouncementFile(path).keep(ATTEMPT)
    assert await AnnouncementFile(path).load() == ATTEMPT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await AnnouncementFile(path).keep(None)
    await AnnouncementFile(path).keep(None)
    assert await AnnouncementFile(path).load() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"place":1}', b'{"place":{"ip":"\xff"}}', b"\xff" * 70_000])
async def test_a_note_that_is_none_holds_up_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "announcement.json"
    path.write_bytes(content)
    assert await AnnouncementFile(path).load() is None


async def test_a_folder_that_is_gone_is_told_as_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await AnnouncementFile(tmp_path / "gone" / "announcement.json").keep(ATTEMPT)
