"""What a sender stamped ahead of the node's clock is not taken again by the node's next process."""

import errno
from pathlib import Path
from typing import Any

import pytest

from engram import files
from engram.clock import ManualClock
from engram.hotkeys import miner_scheme
from engram.hotkeys.replay_guard import ReplayFloor
from engram.miner import auth
from engram.miner.errors import Refused
from tests.miner.nodes import CONTROLLER, encoded, signed

AHEAD_MS = 29_000


def floor_in(folder: Path, clock: ManualClock) -> ReplayFloor:
    return ReplayFloor(folder, now_ms=stamped(clock, 0), longest_ms=miner_scheme.NAMESPACE_WINDOW_MS)


def begun(folder: Path, clock: ManualClock) -> auth.Gate:
    return auth.Gate(
        controller=CONTROLLER.public_key, require_signature=True, clock=clock, floor=floor_in(folder, clock)
    )


def by_body(now_ms: int) -> bytes:
    return signed(CONTROLLER, "list", {}, now_ms)


def by_version_1(now_ms: int) -> bytes:
    return encoded(miner_scheme.sign_namespace(CONTROLLER, "notes", now_ms))


def by_version_2(now_ms: int) -> bytes:
    return encoded(miner_scheme.sign_namespace_request(CONTROLLER, "list", "notes", {}, now_ms))


def stamped(clock: ManualClock, ahead_ms: int) -> int:
    return int(clock.now() * 1_000) + ahead_ms


async def took(gate: auth.Gate, body: bytes) -> bool:
    try:
        caller = await gate.admit_reading(body, "list")
        await gate.space(caller)
    except Refused as refused:
        if refused.status not in (401, 403):
            raise
        return False
    return True


@pytest.mark.parametrize("sign", [by_body, by_version_1, by_version_2])
async def test_a_restart_takes_nothing_again_that_was_stamped_ahead(tmp_path: Path, sign: Any) -> None:
    clock = ManualClock()
    body = sign(stamped(clock, AHEAD_MS))
    assert await took(begun(tmp_path, clock), body)
    clock.advance(10)
    restarted = begun(tmp_path, clock)
    assert not await took(restarted, body)
    clock.advance(AHEAD_MS / 1_000 - 9)
    assert await took(restarted, sign(stamped(clock, 0)))


async def test_stamps_of_a_clock_that_is_right_are_not_written(tmp_path: Path) -> None:
    clock = ManualClock()
    assert await took(begun(tmp_path, clock), by_body(stamped(clock, 0)))
    assert not list(tmp_path.iterdir())


def test_one_write_is_enough_for_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, synced = ManualClock(), list[Path]()
    monkeypatch.setattr(files, "sync", synced.append)
    floor = floor_in(tmp_path, clock)
    second = stamped(clock, 5_000) // 1_000 * 1_000
    for number in range(1_000):
        floor.raise_above(second + number)
    floor.raise_above(second - 1)
    assert len(synced) == 1
    assert floor_in(tmp_path, clock).ms == second + 1_000


async def test_what_cannot_be_kept_is_refused_to_be_stamped_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    clock = ManualClock()
    gate = begun(tmp_path, clock)
    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(Refused, match="No space left") as caught:
        await gate.admit(by_body(stamped(clock, AHEAD_MS)), "list")
    assert caught.value.status == 503
    assert (await gate.admit(by_body(stamped(clock, 0)), "list")).signer == CONTROLLER.public_key


@pytest.mark.parametrize("content", [b"99999999999999", b"torn\x00", b""])
async def test_a_time_that_no_window_reaches_holds_for_one_window(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ReplayFloor.NAME).write_bytes(content)
    clock = ManualClock()
    gate = begun(tmp_path, clock)
    assert not await took(gate, by_body(stamped(clock, 0)))
    clock.advance(61)
    assert await took(gate, by_body(stamped(clock, 0)))
