"""Proof of the hardware that a miner answers with. Where there is none, the answer is None and the reason, never a word
that looks like proof.

A report is bound to who asks and who answers: its nonce is sha256("<nonce>|<hotkey>"), the asker's nonce as he wrote
it and the miner's hotkey as SS58 text.
"""

import base64
import hashlib
import os
import subprocess
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import trio

from engram.gpu import nvml

MOST_BYTES: Final = 256 * 1024
"""Of what a command prints: a report with both certificate chains is about 30 KiB in base64."""
DEADLINE_S: Final = 30.0
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
    """Reports of NVML, of GPUs in confidential computing mode (H100 and later): JSON of a list of NvmlReport."""

    def __init__(self, *, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._threads = trio.CapacityLimiter(1)

    async def attest(self, nonce: str, hotkey: str) -> Attestation:
        bound = bound_nonce(nonce, hotkey)
        with trio.move_on_after(self._deadline_s):
            return await trio.to_thread.run_sync(_reports, bound, abandon_on_cancel=True, limiter=self._threads)
        return Attestation(None, f"NVML has not answered for {self._deadline_s:g} s")


class CommandAttestation:
    """What an operator's command prints, such as a script around `nvattest`.

    It finds the bound nonce (hex) in ENGRAM_ATTESTATION_NONCE and the hotkey in ENGRAM_HOTKEY.
    """

    def __init__(self, command: Sequence[str], *, deadline_s: float = DEADLINE_S) -> None:
        self._command = list(command)
        self._deadline_s = deadline_s

    async def attest(self, nonce: str, hotkey: str) -> Attestation:
        environ = os.environ | {"ENGRAM_ATTESTATION_NONCE": bound_nonce(nonce, hotkey).hex(), "ENGRAM_HOTKEY": hotkey}
        output = bytearray()
        try:
            with trio.fail_after(self._deadline_s):
                async with trio.open_nursery() as nursery:
                    process: trio.Process = await nursery.start(_run, self._command, environ)
                    assert process.stdout is not None
                    async for part in process.stdout:
                        output += part
                        if len(output) > MOST_BYTES:
                            nursery.cancel_scope.cancel()
                            break
                    else:
                        await process.wait()
        except (OSError, trio.TooSlowError, ExceptionGroup) as error:
            return Attestation(None, f"{self._command[0]} gave no attestation: {_why(error, self._deadline_s)}")
        if len(output) > MOST_BYTES:
            return Attestation(None, f"{self._command[0]} printed more than {MOST_BYTES} bytes")
        if process.returncode:
            return Attestation(None, f"{self._command[0]} ended with {process.returncode}")
        text = output.decode("utf-8", "replace").strip()
        return Attestation(text) if text else Attestation(None, f"{self._command[0]} printed nothing")


async def _run(
    command: list[str], environ: dict[str, str], task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> None:
    await trio.run_process(
        command,
        stdin=b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        capture_stdout=False,
        check=False,
        env=environ,
        task_status=task_status,
    )


def _why(error: BaseException, deadline_s: float) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"it ran longer than {deadline_s:g} s"
    if isinstance(error, ExceptionGroup):
        return _why(error.exceptions[0], deadline_s)
    return str(error)


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
