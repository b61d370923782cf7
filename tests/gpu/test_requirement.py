"""Conditions on GPUs."""

import pytest

from engram.gpu import GpuInfo
from engram.gpu.requirement import parse

pytestmark = pytest.mark.rules

H100 = GpuInfo(
    gpu_count=2, gpu_name="NVIDIA H100 PCIe", vram_gb=85.52, driver_version="570.172.08", cuda_version="12.8"
)


@pytest.mark.parametrize(
    ("text", "unmet"),
    [
        ("driver>=570,cuda>=12.8,name~H100", []),
        ("driver>=570.172.8", []),
        ("cuda>=12.8.0", []),
        ("driver>=570.173", ["driver is 570.172.08, wanted 570.173 or more"]),
        ("cuda>=12.10", ["cuda is 12.8, wanted 12.10 or more"]),
        ("name~h100", []),
        ("name~A100", ["name is NVIDIA H100 PCIe, wanted one that contains 'A100'"]),
        ("count>=2,vram_gb>=85.5", []),
        ("count>=10", ["count is 2, wanted 10 or more"]),
        ("vram_gb>=85.6", ["vram_gb is 85.520, wanted 85.6 or more"]),
    ],
)
def test_each_condition_is_met_or_its_reason_given(text: str, unmet: list[str]) -> None:
    assert [why for each in parse(text) if (why := each.unmet(H100))] == unmet


@pytest.mark.parametrize("text", ["driver>=570", "cuda>=12", "name~H100", "vram_gb>=1", "count>=1"])
def test_nothing_is_met_by_a_machine_without_gpus(text: str) -> None:
    (requirement,) = parse(text)
    assert requirement.unmet(GpuInfo(gpu_count=0)) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("driver", "'driver' is not a requirement: write FIELD>=NUMBER or FIELD~TEXT"),
        ("", "'' is not a requirement"),
        ("driver>=new", "is not a requirement"),
        ("name>=5", "fields that take >= are count, driver, cuda, vram_gb"),
        ("driver~570", "those that take ~ are name"),
        ("color>=5", "fields that take >= are"),
        ("vram_gb>=80.1.2", "vram_gb is compared with one number"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_would_be(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".*") as refused:
        parse(text)
    assert words in str(refused.value)
