"""What a generated project's Containerfile is built from where there is no network: this machine's own files.

An image stands for `docker.io/library/python:3.11-slim`: this interpreter with pip, a shell and useradd. Wheels are the
installed packages, packed again.
"""

import io
import re
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from shipping import interpreter, libraries
from shipping.distributions import OURS, normalized, own_entries
from shipping.entries import Entry, file_entry, ordered

NAME = "docker.io/library/python"
TAG = "3.11-slim"
PATH = "PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin"
_LIBRARY = Path(sysconfig.get_path("stdlib"))
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/gshadow": "root:*::\n",
    "etc/login.defs": "UID_MIN 1000\nUID_MAX 70000\nGID_MIN 1000\nGID_MAX 70000\nUSERGROUPS_ENAB yes\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
}


def image(requirements: Iterable[str]) -> bytes:
    """The image's root, as a tar, with the system's libraries that the extensions of these packages are linked to."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for entry in ordered(_root(requirements)):
            info = tarfile.TarInfo(entry.path)
            info.mode = entry.mode
            content = entry.content if entry.source is None else entry.source.read_bytes()
            if entry.target is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
            elif content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return made.getvalue()


def _root(requirements: Iterable[str]) -> Iterator[Entry]:
    programs = {"bin/sh": Path("/bin/dash"), "usr/sbin/useradd": Path("/usr/sbin/useradd")}
    python = list(interpreter.entries())
    yield from python
    for name, path in programs.items():
        yield file_entry(name, path)
    for name in ("python", "python3"):
        yield Entry(path=f"usr/local/bin/{name}", target=f"/{interpreter.PROGRAM}", mode=0o777)
    yield Entry(path="usr/local/bin/pip", content=b'#!/bin/sh\nexec python -m pip "$@"\n', mode=0o755)
    (pip,) = (_LIBRARY / "ensurepip" / "_bundled").glob("pip-*.whl")
    with zipfile.ZipFile(pip) as wheel:
        for name in wheel.namelist():
            yield Entry(path=f"{interpreter.LIBRARY}/site-packages/{name}", content=wheel.read(name))
    binaries = [each.source for each in python if each.source is not None and _is_binary(each.source)]
    located = [Path(str(file.locate())) for each in _needed(requirements) for file in each.files or ()]
    packages = Path(sysconfig.get_path("platlib"))
    binaries += [path for path in located if ".so" in path.name and path.is_relative_to(packages)]
    yield from libraries.entries(libraries.needed([*binaries, *programs.values()], [packages]))
    for name, text in _ACCOUNTS.items():
        yield Entry(path=name, content=text.encode(), mode=0o600 if "shadow" in name else 0o644)
    for name in ("tmp", "home", "root", "var/tmp"):
        yield Entry(path=name, mode=0o1777 if name.endswith("tmp") else 0o755)


def _is_binary(path: Path) -> bool:
    return ".so" in path.name or path == Path(sys.executable).resolve()


def wheels(requirements: Iterable[str], folder: Path) -> None:
    """Write a wheel of each package that the requirements need."""
    for each in _needed(requirements):
        files = _own(each) if each.name == "engram" else _files(each)
        (record,) = {name.split("/")[0] for name in files if name.endswith(".dist-info/METADATA")}
        files[f"{record}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{record}/RECORD"]).encode()
        *_, tag = re.findall(r"^Tag: (\S+)", files[f"{record}/WHEEL"].decode(), re.MULTILINE)
        name = normalized(each.name).replace("-", "_")
        with zipfile.ZipFile(folder / f"{name}-{each.version}-{tag}.whl", "w", zipfile.ZIP_STORED) as wheel:
            for path, content in files.items():
                wheel.writestr(path, content)


def _needed(requirements: Iterable[str]) -> list[Distribution]:
    waiting, found = [Requirement(each) for each in requirements], dict[str, Distribution]()
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found[normalized(wanted.name)] = each = distribution(wanted.name)
        for text in each.requires or ():
            needed = Requirement(text)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                waiting.append(needed)
    return list(found.values())


def _files(each: Distribution) -> dict[str, bytes]:
    return {
        file.as_posix(): Path(str(file.locate())).read_bytes()
        for file in each.files or ()
        if not file.as_posix().startswith("../") and "__pycache__" not in file.parts and file.name != "RECORD"
    }


def _own(each: Distribution) -> dict[str, bytes]:
    """The files of this checkout, which is installed as a link to itself."""
    own = {
        entry.path.removeprefix(f"{OURS}/"): entry.source.read_bytes()
        for entry in own_entries(with_command_line=True)
        if entry.source is not None
    }
    kept = {name: content for name, content in _files(each).items() if ".dist-info/" in name}
    return own | kept
