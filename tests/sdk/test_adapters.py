"""LangChain's and LlamaIndex's adapters: their tests run where these are installed; elsewhere the error says how."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-adapters" / "bin" / "python"


@pytest.mark.external
@pytest.mark.serial
@pytest.mark.skipif(not PYTHON.exists(), reason="needs LangChain and LlamaIndex: run scripts/setup-adapters")
def test_the_adapters_do_what_their_frameworks_ask_for() -> None:
    command = [str(PYTHON), "-m", "pytest", "-q", "-c", "tests/adapters/pytest.ini", "--rootdir", str(ROOT)]
    command.append("tests/adapters")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "extra", "framework"),
    [("langchain", "langchain", "langchain_core"), ("llama_index", "llamaindex", "llama_index")],
)
def test_without_the_framework_the_error_names_the_extra(module: str, extra: str, framework: str) -> None:
    """With it missing for sure, wherever this runs; and nothing of it is imported by the rest of the SDK."""
    code = f"import sys; sys.modules[{framework!r}] = None; import engram.sdk; import engram.sdk.{module}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(f"pip install 'engram[{extra}]'")
