"""`/cvm`: the compute that a miner offers, honestly: null where it is not known."""

from typing import final

import msgspec
import trio

from engram.gpu import GpuReader
from engram.gpu.attestation import (
    Attestation,
    AttestationProvider,
    CommandAttestation,
    NoAttestation,
    NvmlAttestation,
)
from engram.kit.settings import OfferSection


class CvmRequest(msgspec.Struct, frozen=True):
    """What a validator sends; other fields are ignored."""

    nonce: str = ""
    """A word of the validator's own that the attestation is bound to."""


class CvmInfo(msgspec.Struct, frozen=True):
    """The compute on offer. What is null has its reason beside it."""

    gpu_type: str | None
    vram_gb: int | None
    """Memory of one GPU in GiB, as GPUs are sold by: 80 for an H100 80GB."""
    bid_per_hour: float
    """US dollars."""
    attestation: str | None
    attestation_reason: str | None = None
    gpu_count: int = 0
    gpu_reason: str | None = None


@final
class Offer:
    """Answers `/cvm` from the settings and the GPUs of this machine."""

    def __init__(self, settings: OfferSection, hotkey: str, gpus: GpuReader) -> None:
        self._settings = settings
        self._hotkey = hotkey
        self._gpus = gpus
        self._attestation = _provider(settings)

    async def answer(self, request: CvmRequest) -> CvmInfo:
        """Return the offer, with an attestation bound to the request's nonce and the miner's hotkey.

        A driver that hangs costs the longer of the two deadlines, not both.
        """
        async with trio.open_nursery() as nursery:
            proofs: list[Attestation] = []
            nursery.start_soon(self._attest, request.nonce, proofs)
            info = await self._gpus.read()
        (proof,) = proofs
        vram_gb = self._settings.vram_gb or (None if info.vram_gib is None else round(info.vram_gib))
        return CvmInfo(
            gpu_type=self._settings.gpu_type or info.gpu_name,
            vram_gb=vram_gb,
            bid_per_hour=self._settings.bid_per_hour,
            attestation=proof.attestation,
            attestation_reason=proof.attestation_reason,
            gpu_count=info.gpu_count,
            gpu_reason=info.reason,
        )

    async def _attest(self, nonce: str, proofs: list[Attestation]) -> None:
        proofs.append(await self._attestation.attest(nonce, self._hotkey))


def _provider(settings: OfferSection) -> AttestationProvider:
    match settings.attestation:
        case "nvml":
            return NvmlAttestation(deadline_s=settings.attestation_s)
        case "command":
            return CommandAttestation(settings.attestation_command, deadline_s=settings.attestation_s)
        case "none":
            return NoAttestation()
