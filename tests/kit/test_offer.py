"""`/cvm` where the driver hangs or vanishes: an answer in time, with null and the reason."""

from collections.abc import Callable
from functools import partial

import pytest
import trio

from engram.gpu import GpuReader, nvml
from engram.kit import Miner, MinerSettings
from engram.kit.settings import MinerSection, OfferSection, ServeSection
from engram.kit.testing import Served, serve
from tests.gpu.conftest import machine, nvml_folder
from tests.proxy.signing import ALICE, BOB

__all__ = ["machine", "nvml_folder"]  # fixtures


def offering(**offer: object) -> Miner:
    settings = MinerSettings(
        miner=MinerSection(hotkey=BOB.ss58),
        serve=ServeSection(port=0),
        offer=OfferSection(**offer),  # type: ignore[arg-type]
    )
    return Miner(settings)


async def test_a_driver_that_hangs_delays_no_answer_beyond_its_deadline(
    machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.kit.miner.GpuReader", partial(GpuReader, deadline_s=0.1, fresh_s=0))
    machine("hang")

    async def use(to: Served) -> None:
        reasons = []
        with trio.fail_after(30):
            for _ in range(3):
                offer = (await to.post("/cvm", {"nonce": "n-1"}, signed_by=ALICE)).json()
                assert (offer["gpu_type"], offer["vram_gb"], offer["attestation"]) == (None, None, None)
                assert offer["gpu_reason"].startswith("NVML has not answered for ")
                reasons.append(offer["attestation_reason"])
            assert (await to.get("/health")).status == 200
        hanging = "NVML hangs in an attestation report that it was asked for before"
        assert reasons == ["NVML has not answered for 0.1 s", hanging, hanging]
        machine("cc")
        nvml.look()  # opened as another machine, what hangs comes back
        with trio.fail_after(30):
            while None in (offer["attestation"], offer["gpu_type"]):  # each has a thread of its own
                offer = (await to.post("/cvm", {}, signed_by=ALICE)).json()
        assert (offer["gpu_type"], offer["vram_gb"], offer["gpu_count"]) == ("NVIDIA H100 PCIe", 80, 2)

    await serve(offering(attestation="nvml", attestation_s=0.1), [ALICE], use)


async def test_a_machine_of_slices_offers_one_of_them(machine: Callable[[str], None]) -> None:
    machine("mig")

    async def use(to: Served) -> None:
        offer = (await to.post("/cvm", {}, signed_by=ALICE)).json()
        assert (offer["gpu_type"], offer["vram_gb"]) == ("NVIDIA H100 PCIe MIG 1g.10gb", 10)

    await serve(offering(), [ALICE], use)


async def test_a_driver_that_vanishes_between_two_requests_makes_the_offer_null(
    machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.kit.miner.GpuReader", partial(GpuReader, fresh_s=0))

    async def use(to: Served) -> None:
        offers = []
        for name in ("cc", "gone-9-0", "gone-15-6", "cc"):
            machine(name)
            answer = await to.post("/cvm", {}, signed_by=ALICE)
            assert answer.status == 200
            offers.append(answer.json())
        there, unloaded, lost, again = offers
        assert (there["gpu_count"], there["gpu_type"], there["vram_gb"]) == (2, "NVIDIA H100 PCIe", 80)
        assert (unloaded["gpu_count"], unloaded["gpu_type"], unloaded["attestation"]) == (0, None, None)
        assert unloaded["gpu_reason"] == "NVML does not open: Driver Not Loaded"
        assert unloaded["attestation_reason"] == "NVML does not open: Driver Not Loaded"
        assert (lost["gpu_type"], lost["vram_gb"], lost["attestation"]) == (None, None, None)
        assert lost["gpu_reason"].endswith(": GPU is lost")  # the report's calls count too: which fails first is open
        assert again["gpu_type"] == "NVIDIA H100 PCIe"

    await serve(offering(attestation="nvml"), [ALICE], use)
