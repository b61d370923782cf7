"""The first look at a ledger: what it claims, and what it says of a disk that refuses."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.ledger import LEDGER_FILE, LedgerUnavailable, LedgerUnusable, data_folder, facts, identity, open_inline
from tests import shared

KIB = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB of its own."""
    with shared.small_disk(tmp_path, "2m") as place:
        yield place


def test_a_new_ledger_takes_the_environment_and_keeps_its_id(tmp_path: Path) -> None:
    first = identity.claim(tmp_path, "testnet")
    assert identity.claim(tmp_path, "testnet") == first
    ledger = open_inline(tmp_path / LEDGER_FILE)
    assert ledger.write_now(lambda connection: facts.get(connection, "environment")) == "testnet"
    ledger.close()


def test_a_ledger_of_another_environment_is_refused(tmp_path: Path) -> None:
    identity.claim(tmp_path, "local")
    with pytest.raises(LedgerUnusable, match="holds the ledger of environment local, not mainnet; set data_dir"):
        identity.claim(tmp_path, "mainnet")


def test_a_first_start_on_a_disk_that_is_full_says_so_wherever_the_space_ends(small_disk: Path) -> None:
    """Bug: between the migrations and the claim of the environment SQLAlchemy's error came out, with a traceback."""
    refused: set[str] = set()
    for free_kib in range(0, 2000, 16):
        folder, ballast = small_disk / "data", small_disk / "ballast"
        ballast.write_bytes(bytes((2 * KIB - free_kib) * KIB) if free_kib else b"")
        if not free_kib:
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while file.write(bytes(4 * KIB)):
                    pass
        with contextlib.suppress(OSError):
            folder.mkdir()
        try:
            identity.claim(folder, "local")
        except LedgerUnavailable as error:
            refused.add(str(error).removeprefix(str(folder / LEDGER_FILE)).partition(":")[0])
        else:
            break
        for left in (*folder.glob("*"), ballast):
            os.unlink(left)
    else:
        pytest.fail("a ledger did not fit on a disk of 2,000 KiB")
    assert refused == {" cannot be opened", " cannot be written"}


def test_a_data_folder_on_a_full_disk_is_named_in_the_refusal(small_disk: Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "ballast").open("ab", buffering=0) as file:
        while file.write(bytes(4 * KIB)):
            pass
    refusal = f"{small_disk}.* cannot be (used|written): No space left"
    with pytest.raises(LedgerUnavailable, match=refusal), data_folder(small_disk):
        pytest.fail("its lock names no process")
