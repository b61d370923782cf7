"""The programs of docs/clients.md, and running them as they stand there: in Python, in Node, in Chromium."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.browser.chromium import run_in_page
from tests.evm import node

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "clients.md"
PYTHON_V1 = ROOT / ".x402-v1"
_BLOCK = re.compile(r"^```(js|python) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TIMEOUT_S = 60


class ClientError(AssertionError):
    """A program ended with an error; the text is what it wrote."""


class Given(msgspec.Struct, frozen=True):
    """What the page calls `gateway`, `seed` and `secret`."""

    gateway: str
    seed: bytes
    secret: bytes


class Outcome(msgspec.Struct, frozen=True):
    """What a program bought."""

    status: int
    session: dict[str, Any]
    receipt: dict[str, Any]


def blocks(language: str) -> dict[str, str]:
    """The page's programs in one language ("js" or "python") by their names; `order` is the head of all others."""
    return {name: text for kind, name, text in _BLOCK.findall(PAGE.read_text()) if kind == language}


def program(language: str, name: str, *, without: str | None = None) -> str:
    """A whole program. `without` drops the lines whose comment has that word, and must drop one at least."""
    found = blocks(language)
    lines = (found["order"] + found[name]).splitlines()
    kept = [line for line in lines if without is None or without not in line]
    assert without is None or len(kept) < len(lines), f"{name} has no line with {without!r}"
    return "\n".join(kept) + "\n"


def run_python(text: str, given: Given, *, version: int = 2) -> Outcome:
    """Run a Python program with the package `x402` of that version. Raises ClientError."""
    head = f"gateway, seed, secret = {given.gateway!r}, {given.seed!r}, {given.secret!r}\n"
    tail = "print(json.dumps({'status': answer.status_code, 'session': session, 'receipt': dict(receipt)}))\n"
    if version == 2:
        tail = tail.replace("dict(receipt)", "receipt.model_dump()")
    path = os.pathsep.join([str(PYTHON_V1)] * (version == 1) + [str(ROOT)])
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    return _ran([sys.executable, "-c", head + text + tail], environ)


def run_node(text: str, given: Given) -> Outcome:
    """Run a JavaScript program in Node. Raises ClientError."""
    with tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=node.FOLDER / "node_modules") as file:
        file.write(_module(text, f"const {{ gateway, seed, secret }} = {_javascript(given)};", "console.log"))
        file.flush()
        return _ran(["node", file.name], os.environ)


def bundle(text: str) -> bytes:
    """A JavaScript program as one module for browsers, which finds what it is given as `given`."""
    head = "const { gateway, seed, secret } = globalThis.given;"
    done = subprocess.run(
        ["node_modules/.bin/esbuild", "--bundle", "--format=esm", "--platform=browser", "--log-level=error"],
        cwd=node.FOLDER,
        input=_module(text, head, "globalThis.bought").encode(),
        capture_output=True,
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


_IMPORT = """async (given) => {
  globalThis.given = { ...given, seed: new Uint8Array(given.seed) };
  globalThis.bought = (text) => { globalThis.outcome = text; };
  await import("/program.js");
  return globalThis.outcome;
}"""


def run_in_browser(origin: str, given: Given) -> Outcome:
    """Run the bundle that a site serves as /program.js on its blank page. Raises PageError."""
    argument = {"gateway": given.gateway, "seed": list(given.seed), "secret": "0x" + given.secret.hex()}
    return msgspec.json.decode(run_in_page(origin, _IMPORT, argument), type=Outcome)


def installed() -> list[tuple[str, str]]:
    """The clients that are tested, each with its version (major and minor)."""
    npm = json.loads((node.FOLDER / "package.json").read_text())["devDependencies"]
    locks = "".join((ROOT / "requirements" / name).read_text() for name in ("dev.txt", "x402-v1.txt"))
    pinned = [(name, npm[name]) for name in ("@x402/fetch", "@x402/axios", "x402-fetch", "x402-axios")]
    pinned += [("x402", version) for version in re.findall(r"^x402==(\S+)", locks, re.MULTILINE)]
    return [(name, version.rpartition(".")[0]) for name, version in pinned]


def _module(text: str, head: str, tell: str) -> str:
    return f"{head}\n{text}\n{tell}(JSON.stringify({{ status: answer.status, session, receipt }}));\n"


def _javascript(given: Given) -> str:
    seed = f"new Uint8Array({list(given.seed)})"
    return f'{{ gateway: "{given.gateway}", seed: {seed}, secret: "0x{given.secret.hex()}" }}'


def _ran(command: list[str], environ: Mapping[str, str]) -> Outcome:
    done = subprocess.run(
        command, cwd=node.FOLDER, env=dict(environ), capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    if done.returncode != 0:
        raise ClientError(done.stderr)
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Outcome)
