"""`engram gpu` as a process, with NVML found where a driver would have put it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def _run(*words: str, folder: Path | None = None, machine: str = "plain") -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"ENGRAM_TEST_NVML": machine}
    if folder is not None:
        environ["LD_LIBRARY_PATH"] = str(folder)
    command = [str(Path(sys.executable).with_name("engram")), "gpu", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_machine_without_a_driver_has_no_gpus_and_says_why() -> None:
    shown = _run("--json")
    assert (shown.returncode, json.loads(shown.stdout)) == (
        0,
        {"gpu_count": 0, "reason": "no NVIDIA driver on this machine (libnvidia-ml.so.1 was not found)"},
    )


def test_gpus_are_shown_as_lines_and_conditions_judged(nvml_folder: Path) -> None:
    shown = _run("--require", "driver>=570,name~A100", folder=nvml_folder)
    assert shown.returncode == 1
    assert shown.stdout.splitlines() == [
        "Driver 570.172.08, CUDA 12.8",
        "GPU\tNAME\tMEMORY\tFREE\tBUSY\tPROCESSES\tMIG",
        "0\tNVIDIA H100 PCIe\t79.6 GiB\t79.6 GiB\t42 %\t2\toff",
        "1\tNVIDIA H100 PCIe\t79.6 GiB\t79.6 GiB\t42 %\t2\toff",
    ]
    assert shown.stderr == "engram: not met: name is NVIDIA H100 PCIe, wanted one that contains 'A100'\n"


@pytest.mark.heavy  # it waits for the whole deadline
def test_a_driver_that_never_answers_ends_the_command_with_the_reason(nvml_folder: Path) -> None:
    shown = _run(folder=nvml_folder, machine="hang")
    assert shown.returncode == 0
    assert shown.stdout.startswith("No GPU: NVML has not answered for 5 s")


@pytest.mark.parametrize("words", ["driver", "color>=5"])
def test_a_condition_that_is_none_is_refused_before_anything_is_read(words: str) -> None:
    refused = _run("--require", words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("engram: --require: ")
