"""Proof of the hardware that a miner answers with. Where there is none, the answer is None and the reason, never a word
that looks like proof.

A report is bound to who asks and who answers: its nonce is sha256("<nonce>|<hotkey>"), the asker's nonce as he wrote
it and the miner's hotkey as SS58 text.
"""

import base64
import hashlib
import math
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec
import trio

from engram.gpu import nvml

MOST_BYTES: Final = 256 * 1024
"""Of what a command prints: a report with both certificate chains is about 30 KiB in base64."""
DEADLINE_S: Final = 10.0
"""Validators wait about so long for an answer."""
MOST_COMMANDS: Final = 4
"""Commands that run at once; further ones wait, within their own deadline."""
_LAST_WAIT_S: Final = 0.5
NONE: Final = "no attestation is configured"


class Attestation(msgspec.Struct, frozen=True):
    """The proof as text, or None and why there is none."""

    attestation: str | None
    attestation_reason: str | None = None


class AttestationProvider(Protocol):
    """Where proofs come from."""

    async def attest(self, nonce: str, hotkey: str) -> Attestation:
        """Return a proof bound to both. Never raises but for cancellation."""
        ...


class NvmlReport(msgspec.Struct, frozen=True):
    """A GPU's own signed report and the certificates that lead to NVIDIA's root; all in base64 but the nonce (hex)."""

    provider: str
    nonce: str
    gpu_uuid: str
    report: str
    certificate_chain: str
    attestation_certificate_chain: str


def bound_nonce(nonce: str, hotkey: str) -> bytes:
    """Return the 32 bytes that a report is made over."""
    return hashlib.sha256(f"{nonce}|{hotkey}".encode()).digest()


class NoAttestation:
    """For machines that prove nothing."""

    async def attest(self, nonce: str, hotkey: str) -> Attestation:
        return Attestation(None, NONE)


class NvmlAttestation:
    """Reports of NVML, of GPUs in confidential computing mode (H100 and later): JSON of a list of NvmlReport.

    They are made one at a time, in a thread. One whose asker goes away is still made, and the next asker waits for its
    end. One that hangs in the driver is left behind at the deadline, and until it comes back every answer is None at
    once.
    """

    def __init__(self, *, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._one_at_a_time = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self._due = -math.inf
        """When the report that is under way counts as hanging."""

    async def attest(self, nonce: str, hotkey: str) -> Attestation:
        bound = bound_nonce(nonce, hotkey)
        with trio.move_on_after(self._deadline_s):
            async with self._one_at_a_time:
                if not await self._free():
                    return Attestation(None, "NVML hangs in an attestation report that it was asked for before")
                self._due = trio.current_time() + self._deadline_s
                return await trio.to_thread.run_sync(_reports, bound, abandon_on_cancel=True, limiter=self._threads)
        return Attestation(None, f"NVML has not answered for {self._deadline_s:g} s")

    async def _free(self) -> bool:
        """Return whether the thread is free, after waiting until the report that it makes counts as hanging."""
        if self._threads.available_tokens:
            return True
        with trio.move_on_at(self._due):
            async with self._threads:
                return True
        return False


class CommandAttestation:
    """What an operator's command prints, such as a script around `nvattest`.

    It finds the bound nonce (hex) in ENGRAM_ATTESTATION_NONCE and the hotkey in ENGRAM_HOTKEY. It runs in a process
    group of its own, which is killed at the deadline; its end is not awaited.
    """

    def __init__(self, command: Sequence[str], *, deadline_s: float = DEADLINE_S) -> None:
        self._command = list(command)
        self._deadline_s = deadline_s
        self._places = trio.CapacityLimiter(MOST_COMMANDS)

    async def attest(self, nonce: str, hotkey: str) -> Attestation:
        environ = os.environ | {"ENGRAM_ATTESTATION_NONCE": bound_nonce(nonce, hotkey).hex(), "ENGRAM_HOTKEY": hotkey}
        output = bytearray()
        try:
            with trio.fail_after(self._deadline_s):
                process = await self._start(environ)
                try:
                    await _read(process, output)
                finally:
                    _kill(process)
        except (OSError, trio.TooSlowError) as error:
            return Attestation(None, f"{self._command[0]} gave no attestation: {_why(error, self._deadline_s)}")
        if len(output) > MOST_BYTES:
            return Attestation(None, f"{self._command[0]} printed more than {MOST_BYTES} bytes")
        if process.returncode:
            return Attestation(None, f"{self._command[0]} ended with {process.returncode}")
        text = output.decode("utf-8", "replace").strip()
        return Attestation(text) if text else Attestation(None, f"{self._command[0]} printed nothing")

    async def _start(self, environ: dict[str, str]) -> trio.Process:
        """Return the running command, which has its place until the system has ended it."""
        place = object()
        await self._places.acquire_on_behalf_of(place)
        try:
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environ,
                start_new_session=True,
            )
        except BaseException:
            self._places.release_on_behalf_of(place)
            raise
        trio.lowlevel.spawn_system_task(self._reap, process, place)
        return process

    async def _reap(self, process: trio.Process, place: object) -> None:
        try:
            await process.wait()  # one that hangs in a driver outlives its kill
        finally:
            with trio.move_on_after(_LAST_WAIT_S, shield=True):  # the program ends
                await process.wait()
            self._places.release_on_behalf_of(place)


async def _read(process: trio.Process, output: bytearray) -> None:
    """Return once the command has ended, or has printed too much."""
    assert process.stdout is not None
    async with process.stdout:
        async for part in process.stdout:
            output += part
            if len(output) > MOST_BYTES:
                return
        await process.wait()


def _kill(process: trio.Process) -> None:
    if process.returncode is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _why(error: BaseException, deadline_s: float) -> str:
    return f"it ran longer than {deadline_s:g} s" if isinstance(error, trio.TooSlowError) else str(error)


def _reports(nonce: bytes) -> Attestation:
    try:
        with nvml.opened() as library:
            state = library.nvmlSystemGetConfComputeState()
            if not state.ccFeature:
                return Attestation(None, "confidential computing is off on this machine")
            found = []
            for index in range(library.nvmlDeviceGetCount()):
                handle = library.nvmlDeviceGetHandleByIndex(index)
                report = library.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
                certificates = library.nvmlDeviceGetConfComputeGpuCertificate(handle)
                found.append(
                    NvmlReport(
                        provider="nvml",
                        nonce=nonce.hex(),
                        gpu_uuid=nvml.as_text(library.nvmlDeviceGetUUID(handle)),
                        report=_base64(report.attestationReport, report.attestationReportSize),
                        certificate_chain=_base64(certificates.certChain, certificates.certChainSize),
                        attestation_certificate_chain=_base64(
                            certificates.attestationCertChain, certificates.attestationCertChainSize
                        ),
                    )
                )
    except nvml.NvmlAbsent as absent:
        return Attestation(None, str(absent))
    except Exception as error:  # noqa: BLE001 - a driver's library may fail in ways that are not NVML's own
        return Attestation(None, f"NVML gave no attestation report: {error}")
    if not found:
        return Attestation(None, "the NVIDIA driver is here and shows no GPU to this process")
    return Attestation(msgspec.json.encode(found).decode())


def _base64(array: "bytes", size: int) -> str:
    return base64.b64encode(bytes(array)[:size]).decode()
