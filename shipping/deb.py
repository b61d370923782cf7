"""The Debian package: `python -m shipping.deb FILE.deb [--gateway]`, by dpkg-deb.

The packed folder is in a folder of its version. Nodes that an older version started go on from its folder, so the
package's scripts keep that one through an upgrade, until no process runs from it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from engram.children import PROGRAM_FILE
from engram.cli import manual
from engram.cli.app import app
from shipping import distributions, oci
from shipping.entries import ContentsError, Entry, is_folder, ordered
from shipping.folder import Packed, Variant, content, packed, placed

VERSIONS: Final = "/usr/lib/engram"
_DEPLOY: Final = distributions.ROOT / "deploy"
_SYSTEMD: Final = _DEPLOY / "systemd"
_SCRIPTS: Final = _DEPLOY / "debian"
_MODES: Final = {"preinst": 0o755, "postinst": 0o755, "prerm": 0o755, "postrm": 0o755}
_COMPLETIONS: Final[tuple[tuple[Literal["bash", "zsh", "fish"], str], ...]] = (
    ("bash", "bash-completion/completions/engram"),
    ("zsh", "zsh/vendor-completions/_engram"),
    ("fish", "fish/vendor_completions.d/engram.fish"),
)
_CONTROL: Final = """\
Package: engram
Version: {version}
Architecture: {architecture}
Maintainer: Engram contributors <engram@localhost>
Installed-Size: {size_kib}
Section: net
Priority: optional
Suggests: systemd
Homepage: https://engram.invalid
Description: sells, runs, watches and serves memory nodes ({variant})
 One program with everything it needs: the gateway, memory miners, validators,
 the reverse proxy and the commands for all of them.
 .
 It brings its own interpreter and libraries, and uses none of the system's.
"""


def build(target: Path, variant: Variant) -> Path:
    """Write the package, replacing what is there; the same content gives the same bytes. Raises ContentsError."""
    if shutil.which("dpkg-deb") is None:
        raise ContentsError("there is no dpkg-deb on this machine; install it (Debian: dpkg)")
    staging = target.parent / f".{target.name}.staging"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        folder = packed(variant, staging / "made")
        tree = staging / "tree"
        _write(ordered(entries(folder)), tree)
        _write([*_control(variant, tree)], tree)
        environ = {**os.environ, "SOURCE_DATE_EPOCH": "0", "LC_ALL": "C"}
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z6", "--build", str(tree), str(staging / target.name)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ContentsError(f"dpkg-deb failed: {done.stderr.strip()}")
        os.replace(staging / target.name, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def entries(folder: Packed) -> Iterator[Entry]:
    """Yield the files of the package."""
    home = f"{VERSIONS}/{distributions.version()}"
    yield from placed(folder, home)
    yield Entry(path="usr/bin/engram", target=f"..{home.removeprefix('/usr')}/{PROGRAM_FILE}", mode=0o777)
    for unit in sorted(_SYSTEMD.glob("*.s[eo]*")):
        yield Entry(path=f"lib/systemd/system/{unit.name}", source=unit)
    yield Entry(path="usr/lib/sysusers.d/engram.conf", source=_SYSTEMD / "engram.sysusers")
    yield Entry(path="etc/engram/engram.toml", source=_SCRIPTS / "engram.toml")
    yield Entry(path="usr/share/doc/engram/copyright", source=distributions.ROOT / "LICENSE")
    page = gzip.compress(manual.man_page(app).encode(), mtime=0)
    yield Entry(path="usr/share/man/man1/engram.1.gz", content=page)
    for shell, place in _COMPLETIONS:
        yield Entry(path=f"usr/share/{place}", content=app.generate_completion(shell=shell).encode())


def main(arguments: Sequence[str]) -> int:
    """Build the package that is named; 2 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m shipping.deb", description=__doc__)
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--gateway", action="store_true", help="without the libraries and models of nodes")
    given = parser.parse_args(arguments)
    try:
        built = build(given.target, Variant.GATEWAY if given.gateway else Variant.FULL)
    except ContentsError as error:
        print(f"the package cannot be built: {error}", file=sys.stderr)
        return 2
    print(f"{built}: {built.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0


def _control(variant: Variant, tree: Path) -> Iterator[Entry]:
    size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file())
    facts = _CONTROL.format(
        version=distributions.version(), architecture=oci.architecture(), size_kib=size // 1024, variant=variant
    )
    yield Entry(path="DEBIAN", mode=0o755)
    yield Entry(path="DEBIAN/control", content=facts.encode())
    yield Entry(path="DEBIAN/conffiles", content=b"/etc/engram/engram.toml\n")
    for name, mode in _MODES.items():
        text = (_SCRIPTS / name).read_text(encoding="utf-8")
        yield Entry(
            path=f"DEBIAN/{name}", content=text.replace("@VERSION@", distributions.version()).encode(), mode=mode
        )


def _write(files: Iterable[Entry], tree: Path) -> None:
    """Write entries as files, with no times."""
    for entry in files:
        path = tree / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_folder(entry):
            path.mkdir(exist_ok=True)
            path.chmod(entry.mode)
        elif entry.target is not None:
            path.symlink_to(entry.target)
        else:
            path.write_bytes(content(entry))
            path.chmod(entry.mode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
