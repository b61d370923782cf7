"""Archives: archiving a node's folder, keeping it up to date, restoring it; restic and tar | zstd | age beside it.

Each of ours runs in a process of its own, which says what it took: CPU seconds beside wall, the better of three, and
the most memory of any. `check` goes from segments to verified rows; `restore` writes them to databases, too, and reads
those. `query_p99_ms` is of a node at an open-loop 100 queries a second, while it is archived. Records have random
vectors of 384 numbers and texts of 50 words. Peers that are not installed are null.
`python -m bench.archive [--quick]`.
"""

import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import trio

from bench.support import memories
from bench.support.http_load import open_loop, percentile
from bench.support.report import print_line
from config.model import MinerSettings
from engram.archive import opening, signing
from engram.archive.archiver import Archiver
from engram.archive.folder_place import FolderPlace
from engram.archive.journal import Journal
from engram.archive.model import HEADER, Header, HotkeySource
from engram.archive.reading import open_archive
from engram.archive.restorer import check, restore
from engram.durable.driver import sqlite3
from engram.hotkeys import Keypair
from engram.memory import cid
from engram.memory.model import PUBLIC, Entry
from engram.memory.store import record_sql
from engram.memory.store.notebook_db import Notebook
from engram.memory.upkeep.data_files import NOTEBOOK, TRUTH
from tests.miner.nodes import NodeProcess

QUICK: Final = "--quick" in sys.argv
RECORDS: Final = 10_000 if QUICK else 100_000
ROUNDS: Final = 3
SERVED: Final = 2_000 if QUICK else 8_000
SERVED_S: Final = 4.0 if QUICK else 10.0
OWNER: Final = Keypair.from_seed(b"\x07" * 32)
ARCHIVE_ID: Final = bytes(16)
SECRET: Final = opening.of_hotkey(OWNER, ARCHIVE_ID)
HEADING: Final = opening.proven(
    SECRET,
    Header(
        archive_id=ARCHIVE_ID,
        owner=bytes(OWNER.public_key),
        archive_key=opening.public_of(SECRET),
        source=HotkeySource(),
        created_at=0.0,
    ),
)
WANTED: Final = {
    "archive_mb_cpu_s": ">= 60",
    "check_mb_cpu_s": ">= 110",
    "restore_mb_cpu_s": ">= 110",
    "archive_mb_s": ">= 28",
    "restore_mb_s": ">= 28",
    "incremental_share_replaced": "<= 0.03",
    "incremental_share_deleted": "<= 0.01",
    "rss_mb": "<= 150",
    "query_p99_vs_idle": "<= 2",
    "archive_wall_vs_restic": "<= 0.7",
    "archive_cpu_vs_tar_zstd_age": "<= 2.5",
}


def entries(rng: random.Random, first: int, count: int) -> Iterator[Entry]:
    """Records that no two runs of a test would have alike."""
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(3_000)]
    for number in range(first, first + count):
        embedding = struct.pack("<384f", *(rng.uniform(-1, 1) for _ in range(384)))
        metadata = {"n": str(number)}
        text = " ".join(rng.choices(words, k=50))
        yield Entry(PUBLIC, cid.compute(embedding, metadata), embedding, text, metadata, "v1", None)


def put(folder: Path, first: int, count: int) -> None:
    rng = random.Random(first)
    with closing(sqlite3.connect(folder / TRUTH)) as truth, truth:
        record_sql.put_all(truth, list(entries(rng, first, count)), 1.0)


def make_node(folder: Path, records: int) -> None:
    folder.mkdir()
    with closing(sqlite3.connect(folder / TRUTH)) as truth, truth:
        record_sql.create_schema(truth, "00000000-0000-4000-8000-000000000000")
    Notebook.open(folder / NOTEBOOK).close()
    for first in range(0, records, 5_000):
        put(folder, first, min(5_000, records - first))


def delete_at_random(folder: Path, count: int) -> None:
    with closing(sqlite3.connect(folder / TRUTH)) as truth, truth:
        all_of_them = [cid for (cid,) in truth.execute("SELECT cid FROM records ORDER BY id")]
        for each in random.Random(5).sample(all_of_them, count):
            record_sql.delete(truth, PUBLIC, each)


async def act(what: str, folder: Path) -> int:
    """One run of ours; returns the bytes sent."""
    place = FolderPlace(folder / "archive")
    if what == "archive":
        journal = Journal.open(folder / "journal")
        return (await Archiver(place, HEADING, OWNER, journal, time.time).update(folder / "node")).sent_bytes
    opened = await open_archive(place, HEADING, SECRET)
    if what == "check":
        await check(place, opened)
        return 0
    await restore(place, opened, folder / "restored", "11111111-0000-4000-8000-000000000000")
    return 0


def child(what: str, folder: Path) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    sent = trio.run(act, what, folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "rss_mb": rss_mb, "sent": sent}))


def ours(what: str, folder: Path, *before: str) -> dict[str, float]:
    words = [*before, sys.executable, "-m", "bench.archive", "--child", what, str(folder)]
    done = subprocess.run(words, capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def serving(folder: Path) -> dict[str, float]:
    """p99 of queries to a node, alone and while it is archived again and again by a process beside it."""
    folder.mkdir()
    make_node(folder / "data", SERVED)
    (folder / "node").symlink_to("data")
    settings = MinerSettings(requests_per_minute=100_000_000)
    node, stopped = NodeProcess(folder, is_warm=False, miner=settings), Event()
    node.start()

    def archive() -> None:
        while not stopped.is_set():
            start(folder)
            ours("archive", folder, "nice")  # as the documentation has it

    def p99_ms(seconds: float) -> float:
        load = open_loop(node.port, queries, connections=8, per_s=100, seconds=seconds)
        return percentile(load.took_ms, 0.99)

    try:
        queries = [memories.query(vector) for vector in memories.clustered(2, 100)]
        p99_ms(2.0)
        idle = p99_ms(SERVED_S)
        archiver = Thread(target=archive)
        archiver.start()
        meanwhile = p99_ms(SERVED_S)
        stopped.set()
        archiver.join()
    finally:
        node.kill()
    return {"query_p99_idle_ms": idle, "query_p99_ms": meanwhile, "query_p99_vs_idle": meanwhile / idle}


def start(folder: Path) -> None:
    """An empty archive."""
    shutil.rmtree(folder / "archive", ignore_errors=True)
    (folder / "journal").unlink(missing_ok=True)
    (folder / "archive").mkdir()
    (folder / "archive" / HEADER).write_bytes(signing.sign_header(OWNER, HEADING))


def timed(command: str, folder: Path, **environ: str) -> tuple[float, float]:
    """Wall and CPU seconds of a shell command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env={**os.environ, **environ})  # fmt: skip
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def restic(folder: Path) -> tuple[float, float] | None:
    if not shutil.which("restic"):
        return None
    shutil.rmtree(folder / "restic", ignore_errors=True)
    secret = {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(folder / "restic")}
    timed("restic init --quiet", folder, **secret)
    return timed("restic backup --quiet --no-cache node", folder, **secret)


def tar_zstd_age(folder: Path) -> tuple[float, float] | None:
    if not (shutil.which("age") and shutil.which("zstd")):
        return None
    if not (folder / "key").exists():
        timed("age-keygen -o key", folder)
    return timed("tar c node | zstd -1 -q | age -e -i key > all.age && sync all.age", folder)


def main() -> None:
    figures: dict[str, Any] = {"records": RECORDS}
    best: dict[str, dict[str, float]] = {}
    peers: dict[str, list[tuple[float, float]]] = {"restic": [], "tar_zstd_age": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_node(folder / "node", RECORDS)
        mb = sum(file.stat().st_size for file in (folder / "node").iterdir()) / 1e6
        for _ in range(ROUNDS):
            start(folder)
            for what in ("archive", "check", "restore"):
                shutil.rmtree(folder / "restored", ignore_errors=True)
                found = ours(what, folder)
                kept = best.setdefault(what, found)
                best[what] = {key: (max if key == "rss_mb" else min)(kept[key], found[key]) for key in found}
            for peer, run in (("restic", restic), ("tar_zstd_age", tar_zstd_age)):
                if (took := run(folder)) is not None:
                    peers[peer].append(took)
        one_percent = RECORDS // 100
        delete_at_random(folder / "node", one_percent)
        figures["incremental_share_deleted"] = ours("archive", folder)["sent"] / (mb * 1e6)
        delete_at_random(folder / "node", one_percent)
        put(folder / "node", RECORDS, one_percent)
        figures["incremental_share_replaced"] = ours("archive", folder)["sent"] / (mb * 1e6)
        figures |= serving(folder / "serving")
    for what, found in best.items():
        figures[f"{what}_mb_s"], figures[f"{what}_mb_cpu_s"] = mb / found["wall"], mb / found["cpu"]
    figures["node_mb"], figures["rss_mb"] = mb, best["archive"]["rss_mb"]
    least = {peer: [min(column) for column in zip(*took, strict=True)] for peer, took in peers.items() if took}
    print_line(
        "archive",
        figures,
        {peer: {"wall_s": wall, "cpu_s": cpu} for peer, (wall, cpu) in least.items()},
        {
            "archive_wall_vs_restic": best["archive"]["wall"] / least["restic"][0] if "restic" in least else None,
            "archive_cpu_vs_tar_zstd_age": best["archive"]["cpu"] / least["tar_zstd_age"][1]
            if "tar_zstd_age" in least
            else None,
        },
        WANTED,
    )


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[-2], Path(sys.argv[-1]))
    else:
        main()
