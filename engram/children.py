"""How this program starts programs of its own: a closed table, in every form that it is shipped in.

From a checkout or an installed package, a child is `python -P -m MODULE`. In the packed folder (the binary, the Debian
package, the gateway's image) there is no `python` to start: a child is the same file again, `engram --engram-child
MODULE`, which runs nothing that is not in the table. No other module reads `sys.executable`; the linter holds that.
"""

import os
import runpy
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, Never

CHILD: Final = "--engram-child"
SCRIPT: Final = "--engram-script"
BUILD_FILE: Final = "build.json"
"""At the top of a packed folder: what it was built from."""
PROGRAM_FILE: Final = "engram"
LOADER_FILE: Final = "lib/ld-linux.so"
"""Of a packed folder: its program, and the dynamic loader, which the program names by its absolute path."""
UNNAMED_LOADER: Final = b"/" + b"x" * 1_022 + b"\0"
"""What the program has in that place until its folder is where it stays."""
_USAGE: Final = 2
_AUTHORITIES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Of Debian and Arch, Fedora, SUSE, and Alpine."""


class Program(StrEnum):
    """Every program that is started as a child, by its module."""

    ENGRAM = "engram"
    """The command line."""
    NODE = "engram.miner"
    NODE_HEALTH = "engram.miner.container_health"
    INDEX_WORKER = "engram.memory.index.edge_worker"
    INDEX_BUILDER = "engram.memory.index.edge_build"
    WALLET_OPENER = "engram.hotkeys.opening"
    WORKBENCH = "engram.validator.workbench_child"
    AGENTS = "engram.agents"
    """The memory of a node for an agent."""
    AKASH_DOUBLE = "tests.doubles.akash"
    """In a checkout alone."""


def folder() -> Path | None:
    """Return the packed folder that this process runs from, or None when it runs from Python's own installation."""
    home = Path(sys.prefix)
    return home if (home / BUILD_FILE).is_file() else None


def command(program: Program, *arguments: str) -> tuple[str, ...]:
    """Return the command that starts a program of the table. Its first word is an absolute path."""
    if _IS_PACKED:
        return (sys.executable, *(() if program is Program.ENGRAM else (CHILD, program)), *arguments)
    return (sys.executable, "-P", "-m", program, *arguments)


def script(path: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a Python file of the operator, such as the `miner.py` of a project."""
    return (sys.executable, *((SCRIPT,) if _IS_PACKED else ()), path, *arguments)


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return `base` with what a child needs to find this package where this process found it."""
    if _IS_PACKED:
        return dict(base)
    root, inherited = str(Path(__file__).resolve().parents[1]), base.get("PYTHONPATH")
    return {**base, "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}


def become(arguments: Sequence[str]) -> None:
    """Run the child or script that a packed program was started as, and exit; return when it was started as neither."""
    match arguments:
        case [flag, name, *rest] if flag == CHILD and _IS_PACKED:
            if name not in set(Program):
                _refuse(f"{name!r} is no program that Engram starts, only {', '.join(sorted(Program))}")
            sys.argv[:] = [name, *rest]
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        case [flag, path, *rest] if flag == SCRIPT and _IS_PACKED:
            if not Path(path).is_file():
                _refuse(f"there is no file {path} to run")
            sys.argv[:] = [path, *rest]
            sys.path.insert(0, str(Path(path).resolve().parent))
            runpy.run_path(path, run_name="__main__")
        case [flag, *_] if flag in (CHILD, SCRIPT) and _IS_PACKED:
            _refuse(f"{flag} wants what to run")
        case _:
            return
    sys.exit(0)


def _refuse(reason: str) -> Never:
    print(f"engram: {reason}", file=sys.stderr)
    sys.exit(_USAGE)


def use_authorities(environ: MutableMapping[str, str]) -> None:
    """Name the machine's certificate authorities, or those that came along, where a packed OpenSSL looks for them.

    It was built for one distribution, and these keep them in different places.
    """
    home = folder()
    if home is not None and not environ.get("SSL_CERT_FILE") and not environ.get("SSL_CERT_DIR"):
        found = next((place for place in _AUTHORITIES if Path(place).is_file()), None)
        environ["SSL_CERT_FILE"] = found or str(home / "share" / "ca-certificates.crt")


_IS_PACKED: Final = folder() is not None
