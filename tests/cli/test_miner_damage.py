"""Folders damaged by chance: every command says what is wrong, and what was repaired is sound."""

import contextlib
import random
import shutil
import struct
from pathlib import Path

import pytest

from engram.durable.driver import sqlite3
from engram.memory import cid as cids
from engram.memory.model import PUBLIC, Entry
from engram.memory.store import record_sql
from engram.memory.store.notebook_db import Notebook
from engram.memory.upkeep.data_files import NOTEBOOK, TRUTH
from tests.cli.conftest import Run
from tests.sampling import NIGHTLY, SEED

ROUNDS = 150 if NIGHTLY else 6
_PAGE = 4_096


@pytest.fixture
def whole(here: Path) -> Path:
    data = here / "whole"
    data.mkdir()
    rng = random.Random(SEED)
    with contextlib.closing(sqlite3.connect(data / TRUTH, isolation_level=None)) as truth:
        truth.execute("PRAGMA journal_mode = WAL")
        truth.execute("BEGIN")
        record_sql.create_schema(truth, "truth")
        for number in range(600):
            vector, metadata = struct.pack("<64f", *(rng.random() for _ in range(64))), {"n": str(number)}
            cid = cids.compute(vector, metadata)
            record_sql.put(truth, Entry(PUBLIC, cid, vector, "some text", metadata, "v1", None), 1.0)
        truth.execute("COMMIT")
    Notebook.open(data / NOTEBOOK).close()
    return data


def damage(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    match rng.randrange(5):
        case 0:
            content = content[: rng.randrange(len(content))]
        case 1 | 2:
            for _ in range(rng.randrange(1, 6)):
                at = rng.randrange(len(content) // _PAGE) * _PAGE
                content[at : at + _PAGE] = rng.randbytes(_PAGE)
        case 3:
            for _ in range(rng.randrange(1, 60)):
                content[rng.randrange(len(content))] = rng.randrange(256)
        case _:
            return
    path.write_bytes(content)
    if rng.random() < 0.2:
        path.with_name(f"{path.name}-wal").write_bytes(rng.randbytes(rng.randrange(5_000)))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_damage_is_told_and_what_was_repaired_is_sound(whole: Path, here: Path, run: Run, number: int) -> None:
    rng = random.Random(SEED * 10_000 + number)
    data = here / "damaged"
    shutil.copytree(whole, data)
    for name in (TRUTH, NOTEBOOK):
        damage(data / name, rng)
    for command in (("verify", str(data)), ("export", str(data), "all.jsonl"), ("backup", str(data), "copy")):
        ran = run("miner", *command)  # raises what nobody handles
        assert (ran.code == 0) == (not ran.err or "documents" in ran.err), ran
    repaired = run("miner", "repair", str(data))
    if repaired.code == 0:
        assert run("miner", "verify", str(data)).code == 0
    else:
        assert "engram miner restore" in repaired.err
    assert run("miner", "erase", str(data), "--yes").code == 0
    assert not data.exists()
