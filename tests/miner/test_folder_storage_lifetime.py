"""One owner of a folder, a bound on what it holds, and an end that comes by itself."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from msgspec import structs
from trio.testing import MockClock

from engram.clock import ManualClock, SeededIds, TrioClock
from engram.memory.errors import QuotaExceeded
from engram.memory.rules import IngestInput
from engram.memory.store.record_db import Truth
from engram.miner import auth, folder, storage
from engram.miner.errors import FolderInUse, NoFolder, Refused
from engram.miner.lifetime import Lifetime
from engram.miner.statistics import Statistics
from engram.miner.storage import StorageGauge, cost_bytes, size_on_disk
from engram.miner.uptime import Uptime
from engram.nodes import launch
from tests.memory.stores import until
from tests.miner.nodes import CONTROLLER, STRANGER, signed

LAUNCH = launch.LaunchFile(
    session_id="s", launch_token="t", port=9, data_dir="/d", hotkey_file="/k", controller_public_key="ab" * 32
)


@pytest.mark.parametrize("wanted", ["file", "file/data"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, wanted: str) -> None:
    (tmp_path / "file").write_text("notes")
    with pytest.raises(NoFolder, match=f"data_dir is {tmp_path / wanted}: {tmp_path / 'file'} is a file"):
        folder.claim(tmp_path / wanted)


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    claimer = "import sys; from pathlib import Path; from engram.miner import folder; folder.claim(Path(sys.argv[1]))"
    with folder.claim(tmp_path / "data"):
        other = subprocess.run(
            [sys.executable, "-c", claimer, str(tmp_path / "data")], capture_output=True, check=False
        )
        assert b"FolderInUse" in other.stderr
        with pytest.raises(FolderInUse, match="in use"):
            folder.claim(tmp_path / "data")
    with folder.claim(tmp_path / "data"):
        pass


def test_the_owner_is_noted(tmp_path: Path) -> None:
    with folder.claim(tmp_path) as claim:
        claim.write_node_file(LAUNCH, 5.0)
    noted = json.loads((tmp_path / "node.json").read_bytes())
    assert noted == {
        "launch_token": "t",
        "session_id": "s",
        "boot_id": folder.boot_id(),
        "pid": os.getpid(),
        "start_ticks": folder.start_ticks(os.getpid()),
        "port": 9,
        "started_at": 5.0,
        "host": "127.0.0.1",
    }
    assert stat.S_IMODE((tmp_path / "node.json").stat().st_mode) == 0o600


def test_a_launch_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "launch.json"
    launch.write(path, LAUNCH)
    assert launch.read(path) == LAUNCH
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert LAUNCH.controller() == bytes.fromhex("ab" * 32)
    assert "ab" not in repr(LAUNCH)


def test_the_controller_may_be_named_by_its_address(tmp_path: Path) -> None:
    path = tmp_path / "launch.json"
    launch.write(path, structs.replace(LAUNCH, controller_public_key=CONTROLLER.ss58))
    assert launch.read(path).controller() == CONTROLLER.public_key


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"port": 0}, "port"),
        ({"controller_public_key": "ab"}, "64 hex"),
        ({"controller_public_key": "zz" * 32}, "64 hex"),
        ({"session_id": ""}, "session_id"),
        ({"storage_bytes": 0}, "storage_bytes"),
        ({"hotkey_file": "~/node"}, "hotkey_file is ~/node: write the whole path"),
        ({"embedder": {"cache_dir": "~/c"}}, "cache_dir is ~/c"),
        ({"schema": 2}, "schema"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"embedder": {"kind": "gpt"}}, "kind"),
    ],
)
def test_an_impossible_launch_file_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "launch.json"
    launch.write(path, LAUNCH)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(launch.LaunchFileError, match=reason):
        launch.read(path)


def test_a_launch_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "launch.json"
    launch.write(path, LAUNCH)
    path.chmod(0o640)
    with pytest.raises(launch.LaunchFileError, match="0600"):
        launch.read(path)
    with pytest.raises(launch.LaunchFileError, match="No such file"):
        launch.read(tmp_path / "none.json")


async def test_the_gauge_refuses_what_would_go_over_the_quota(tmp_path: Path) -> None:
    gauge = StorageGauge(tmp_path, 100_000)
    gauge.admit(60_000, None)
    with pytest.raises(QuotaExceeded):
        gauge.admit(60_000, None)
    gauge.admit(40_000, None)
    (tmp_path / "file").write_bytes(b"x" * 50_000)
    assert await gauge.measure() == size_on_disk(tmp_path) >= 50_000
    gauge.admit(10_000, None)
    with pytest.raises(QuotaExceeded, match="used up"):
        gauge.admit(60_000, None)


async def test_room_that_deletions_left_inside_files_is_given_again(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "database").write_bytes(b"x" * 1_000_000)
    free, looked = 0, trio.Event()

    async def reusable() -> int:
        if free:
            looked.set()
        return free

    gauge = StorageGauge(tmp_path, 1_100_000, reusable=reusable)
    await gauge.measure()
    monkeypatch.setattr(storage, "_MEASURE_EVERY_S", 0.001)
    nursery.start_soon(gauge.run, lambda: None)
    with pytest.raises(QuotaExceeded):
        gauge.admit(300_000, None)
    free = 400_000
    with pytest.raises(QuotaExceeded):  # reason enough to look again, though nothing was admitted since
        gauge.admit(300_000, None)
    await looked.wait()
    await until(lambda: gauge.used_bytes < 700_000)
    gauge.admit(300_000, None)
    with pytest.raises(QuotaExceeded):
        gauge.admit(300_000, None)


async def test_what_is_kept_for_the_controller_nobody_else_fills(tmp_path: Path) -> None:
    gauge = StorageGauge(tmp_path, 100_000, keeper=CONTROLLER.public_key, kept_share=0.4)
    gauge.admit(60_000, None)
    for other in (None, STRANGER.public_key):
        with pytest.raises(QuotaExceeded, match="its controller's"):
            gauge.admit(1, other)
    gauge.admit(40_000, CONTROLLER.public_key)
    with pytest.raises(QuotaExceeded, match="used up"):
        gauge.admit(1, CONTROLLER.public_key)


def test_the_cost_of_a_record_covers_its_bytes() -> None:
    assert cost_bytes(IngestInput("é" * 100, None, {"k": "v"}, "v1"), 384) > 4 * 4 * 384 + 200


async def test_a_node_ends_at_its_end(autojump_clock: MockClock) -> None:
    clock = TrioClock(start=1_000.0)
    end = clock.now() + 3_600
    await Lifetime(clock, end, lambda: end).over()
    assert clock.now() == pytest.approx(end, abs=1)


async def test_a_moved_end_is_respected(autojump_clock: MockClock) -> None:
    clock = TrioClock(start=1_000.0)
    end = clock.now() + 100
    await Lifetime(clock, end, lambda: end + 1_000).over()
    assert clock.now() == pytest.approx(end + 1_000, abs=1)


async def test_a_wall_clock_that_goes_back_gives_no_hours(autojump_clock: MockClock) -> None:
    clock = ManualClock()
    end = clock.now() + 10
    life = Lifetime(clock, end, lambda: None if clock.now() < end - 100 else end)
    clock.jump(-50)
    clock.advance(11)
    over = trio.Event()

    async def live() -> None:
        await life.over()
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await trio.sleep(60)
        assert not over.is_set()  # asked again at its end, the file names the same end, which is not there yet
        clock.advance(50)
        await over.wait()


async def test_a_node_without_an_end_stays(autojump_clock: MockClock) -> None:
    with trio.move_on_after(10**5) as scope:
        await Lifetime(TrioClock(), None, lambda: None).over()
    assert scope.cancelled_caught


def test_queries_are_counted_by_the_day() -> None:
    clock = ManualClock(now=86_400.0 * 20_000 + 86_000)
    told = Statistics(clock)
    assert (told.queries_today, told.p50_latency_ms, told.proof_rate) == (0, None, None)
    for latency in (1.0, 9.0, 2.0):
        told.query_answered(latency)
    assert (told.queries_today, told.p50_latency_ms) == (3, 2.0)
    clock.advance(1_000)
    assert told.queries_today == 0
    told.query_answered(5.0)
    assert told.queries_today == 1
    told.proof_given()
    told.proof_failed()
    assert told.proof_rate == 0.5
    assert told.uptime_s == 1_000


async def test_a_key_that_sends_too_much_is_told_to_wait_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED_OF_ONE", 2)
    clock = ManualClock()
    gate = auth.Gate(controller=CONTROLLER.public_key, require_signature=True, clock=clock)
    now_ms = int(clock.now() * 1000)
    for later_ms in (0, 1):
        await gate.admit(signed(STRANGER, "list", {}, now_ms + later_ms), "list")
    with pytest.raises(Refused, match="Too many"):
        await gate.admit(signed(STRANGER, "list", {}, now_ms + 2), "list")
    await gate.admit(signed(CONTROLLER, "list", {}, now_ms), "list")
    clock.advance(32)
    now_ms += 32_000
    assert (await gate.admit(signed(STRANGER, "list", {}, now_ms), "list")).signer == STRANGER.public_key


async def test_uptime_counts_what_was_missed(tmp_path: Path) -> None:
    clock = ManualClock()

    async def live(seconds: float) -> float | None:
        """Notes every minute of a life that ends without a last note."""
        truth = Truth.open(tmp_path / "truth.db", clock, SeededIds(1))
        uptime = Uptime(truth, clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(truth.run, lambda: None)
            nursery.start_soon(uptime.run, lambda: None)
            while uptime.percent is None:
                await trio.lowlevel.checkpoint()
            await truth.count()
            clock.advance(seconds)
            await truth.note({"up_s": repr(uptime._up_s())})  # pyright: ignore[reportPrivateUsage]
            told = uptime.percent
            nursery.cancel_scope.cancel()
        truth.close()
        return told

    assert await live(600) == 100.0
    clock.advance(600)
    assert await live(1_200) == 75.0
