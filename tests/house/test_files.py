"""Files that must be there, whole, after a crash."""

import os
import stat
from pathlib import Path

import pytest

from engram import files


def test_a_file_is_replaced_whole_with_nothing_beside_it_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    files.put(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_is_kept_where_only_a_new_one_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.put(path, b"first", os.link)
    with pytest.raises(FileExistsError):
        files.put(path, b"second", os.link)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_placed_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "within").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        files.put(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
