"""Attestations: bound to both sides, or None with the reason."""

import base64
import hashlib
import sys
from collections.abc import Callable

import msgspec

from engram.gpu.attestation import CommandAttestation, NoAttestation, NvmlAttestation, NvmlReport

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
