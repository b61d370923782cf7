"""scripts/gpu-check, for a machine with GPUs, beside the stand-in and an nvidia-smi that says the same or not."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAIN = [f"{index}, GPU-{index}, NVIDIA H100 PCIe, 81559, 570.172.08" for index in (0, 1)]
SLICED = ["0, GPU-0, NVIDIA H100 PCIe, [Insufficient Permissions], 570.172.08"]
MIG = [f"  MIG 1g.10gb     Device  {index}: (UUID: MIG-1{index})" for index in (0, 1)]
NVIDIA_SMI = """#!/bin/sh
case "$*" in
  --query-gpu=*) printf '%s\\n' "$GPUS" ;;
  -L) printf '%s\\n' "$SLICES" ;;
  "conf-compute -f") echo "CC status: OFF" ;;
  "") echo "| NVIDIA-SMI 570.172.08   Driver Version: 570.172.08   CUDA Version: $CUDA |" ;;
  *) exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("machine", "gpus", "slices", "cuda", "differences"),
    [
        ("plain", PLAIN, [], "12.8", []),
        ("slices", SLICED, MIG, "12.8", []),
        ("plain", PLAIN[:1], [], "12.8", ["GPUs: 2 here, 1 by nvidia-smi"]),
        (
            "plain",
            [PLAIN[0], PLAIN[1].replace("81559", "81558").replace("GPU-1", "GPU-7")],
            [],
            "12.9",
            [
                "GPU 1, uuid: 'GPU-1' here, 'GPU-7' by nvidia-smi",
                "GPU 1, memory in MiB: 81559 here, 81558 by nvidia-smi",
                "CUDA: 12.8 here, 12.9 by nvidia-smi",
            ],
        ),
        ("slices", SLICED, MIG[:1], "12.8", ["MIG slices: ['MIG-10', 'MIG-11'] here, ['MIG-10'] by nvidia-smi"]),
        ("gone-9-0", PLAIN, [], "12.8", ["GPUs: 0 here, 2 by nvidia-smi", "CUDA: None here, 12.8 by nvidia-smi"]),
    ],
    ids=["the same", "slices", "one more", "other values", "another slice", "no driver"],
)
def test_each_difference_from_nvidia_smi_is_named_and_fails(
    nvml_folder: Path,
    tmp_path: Path,
    machine: str,
    gpus: list[str],
    slices: list[str],
    cuda: str,
    differences: list[str],
) -> None:
    theirs = tmp_path / "nvidia-smi"
    theirs.write_text(NVIDIA_SMI)
    theirs.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(nvml_folder)}
    environ |= {"ENGRAM_TEST_NVML": machine, "GPUS": "\n".join(gpus), "SLICES": "\n".join(slices), "CUDA": cuda}
    ran = subprocess.run([ROOT / "scripts" / "gpu-check"], env=environ, capture_output=True, text=True, timeout=180)
    assert ran.stderr == ""
    found, _ = json.JSONDecoder().raw_decode(ran.stdout)
    assert found == {"gpus": len(gpus), "mig_slices": len(slices), "differences": differences}
    assert ran.returncode == bool(differences)


def test_without_nvidia_smi_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    for name in ("dirname", "bash"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    ran = subprocess.run([ROOT / "scripts" / "gpu-check"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (2, "gpu-check: no nvidia-smi here\n")
