"""Attestations: bound to both sides, or None with the reason."""

import base64
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from engram.gpu import attestation, nvml
from engram.gpu.attestation import MOST_COMMANDS, CommandAttestation, NoAttestation, NvmlAttestation, NvmlReport

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOUND = hashlib.sha256(f"n-1|{HOTKEY}".encode()).digest()


async def test_where_nothing_is_configured_there_is_no_word_that_looks_like_proof() -> None:
    found = await NoAttestation().attest("n-1", HOTKEY)
    assert (found.attestation, found.attestation_reason) == (None, "no attestation is configured")


async def test_a_report_of_each_gpu_carries_the_bound_nonce(machine: Callable[[str], None]) -> None:
    machine("cc")
    found = await NvmlAttestation().attest("n-1", HOTKEY)
    reports = msgspec.json.decode(found.attestation or "", type=list[NvmlReport])
    assert [report.gpu_uuid for report in reports] == ["GPU-0", "GPU-1"]
    assert {report.nonce for report in reports} == {BOUND.hex()}
    assert base64.b64decode(reports[0].report) == b"report: " + BOUND
    assert base64.b64decode(reports[0].certificate_chain) == b"chain"
    assert base64.b64decode(reports[0].attestation_certificate_chain) == b"attestation"


async def test_a_machine_without_confidential_computing_says_so(machine: Callable[[str], None]) -> None:
    machine("plain")
    found = await NvmlAttestation().attest("n-1", HOTKEY)
    assert (found.attestation, found.attestation_reason) == (None, "confidential computing is off on this machine")


async def test_a_command_finds_the_nonce_and_the_hotkey_and_what_it_prints_is_the_proof() -> None:
    script = "import os; print(os.environ['ENGRAM_ATTESTATION_NONCE'], os.environ['ENGRAM_HOTKEY'])"
    found = await CommandAttestation([sys.executable, "-c", script]).attest("n-1", HOTKEY)
    assert (found.attestation, found.attestation_reason) == (f"{BOUND.hex()} {HOTKEY}", None)


async def _reason(script: str, *, deadline_s: float = 30) -> str:
    found = await CommandAttestation(["/bin/sh", "-c", script], deadline_s=deadline_s).attest("n-1", HOTKEY)
    assert found.attestation is None
    assert found.attestation_reason is not None
    return found.attestation_reason


async def test_a_command_that_gives_no_proof_is_a_reason() -> None:
    assert await _reason("exit 3") == "/bin/sh ended with 3"
    assert await _reason("true") == "/bin/sh printed nothing"
    assert await _reason("yes") == "/bin/sh printed more than 262144 bytes"
    assert await _reason("exec sleep 600", deadline_s=0.05) == (
        "/bin/sh gave no attestation: it ran longer than 0.05 s"
    )
    missing = await CommandAttestation(["/no/such/command"]).attest("n-1", HOTKEY)
    assert missing.attestation_reason is not None
    assert missing.attestation_reason.startswith("/no/such/command gave no attestation: [Errno 2]")


@pytest.mark.parametrize("code", [1, 9, 15, 999])
async def test_a_driver_that_vanishes_at_any_call_is_a_reason(machine: Callable[[str], None], code: int) -> None:
    provider = NvmlAttestation()
    for calls in range(9):
        machine(f"gone-{code}-{calls}")
        found = await provider.attest("n-1", HOTKEY)
        assert found.attestation is None
        assert found.attestation_reason is not None
        assert "NVML" in found.attestation_reason
    machine("cc")
    assert (await provider.attest("n-1", HOTKEY)).attestation is not None


async def test_a_driver_that_hangs_is_waited_for_once_and_asked_again_when_it_has_come_back(
    machine: Callable[[str], None],
) -> None:
    machine("hang")
    provider = NvmlAttestation(deadline_s=0.05)
    first = await provider.attest("n-1", HOTKEY)
    assert (first.attestation, first.attestation_reason) == (None, "NVML has not answered for 0.05 s")
    patient = trio.current_time()
    provider._deadline_s = 60.0
    second = await provider.attest("n-2", HOTKEY)
    assert second.attestation_reason == "NVML hangs in an attestation report that it was asked for before"
    assert trio.current_time() - patient < 30.0
    machine("cc")
    nvml.look()  # opened as another machine, what hangs comes back
    with trio.fail_after(30):
        while (await provider.attest("n-3", HOTKEY)).attestation is None:  # the thread is still ending
            await trio.lowlevel.checkpoint()


async def test_a_command_that_ignores_the_signal_to_end_holds_nobody_up_and_its_children_end_with_it(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "alive")
    reading = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 3>{tmp_path / 'alive'}; trap '' TERM INT HUP; sleep 600 & wait; sleep 600"
    began = trio.current_time()
    assert await _reason(script, deadline_s=0.5) == "/bin/sh gave no attestation: it ran longer than 0.5 s"
    assert trio.current_time() - began < 3.0
    os.set_blocking(reading, True)
    with trio.fail_after(10):
        assert await trio.to_thread.run_sync(os.read, reading, 1) == b"", "all that held the pipe has ended"
    os.close(reading)


async def test_a_command_that_outlives_its_kill_keeps_its_place_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attestation, "_kill", lambda process: None)  # as one that hangs in a driver
    monkeypatch.setattr(attestation, "MOST_COMMANDS", 1)
    provider = CommandAttestation(["/bin/sh", "-c", "exec sleep 2"], deadline_s=0.2)
    began = trio.current_time()
    for _ in range(2):
        found = await provider.attest("n-1", HOTKEY)
        assert found.attestation_reason == "/bin/sh gave no attestation: it ran longer than 0.2 s"
        assert provider._places.borrowed_tokens == 1
    assert trio.current_time() - began < 2.0
    with trio.fail_after(30):
        while provider._places.borrowed_tokens:  # noqa: ASYNC110 -- the system ends it
            await trio.sleep(0.01)


async def test_a_report_whose_asker_goes_away_costs_the_next_one_a_wait_and_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, goes_on = trio.Event(), threading.Event()

    def make(nonce: bytes) -> attestation.Attestation:
        trio.from_thread.run_sync(begun.set)
        goes_on.wait(30)
        return attestation.Attestation(nonce.hex())

    monkeypatch.setattr(attestation, "_reports", make)
    provider, found = NvmlAttestation(), list[attestation.Attestation]()

    async def ask(nonce: str) -> None:
        found.append(await provider.attest(nonce, HOTKEY))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "n-0")
        await begun.wait()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "n-1")
        await trio.testing.wait_all_tasks_blocked()
        goes_on.set()
    assert [each.attestation for each in found] == [BOUND.hex()]


async def test_commands_run_a_few_at_once_whatever_is_asked() -> None:
    provider = CommandAttestation(["/bin/sh", "-c", "exec sleep 600"], deadline_s=1.0)
    running = 0

    async def ask() -> None:
        found = await provider.attest("n-1", HOTKEY)
        assert found.attestation_reason == "/bin/sh gave no attestation: it ran longer than 1 s"

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        running = provider._places.borrowed_tokens
    assert running == MOST_COMMANDS
