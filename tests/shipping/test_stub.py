"""The one file's stub, on a payload of its own: a program that prints what it was given."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engram.children import LOADER_FILE, PROGRAM_FILE
from shipping import native_code
from shipping.binary import write_file
from shipping.entries import ContentsError, Entry
from tests.shipping import confined
from tests.shipping.test_units import UNITS

SAY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    printf("[%d", getpid());
    for (int i = 0; i < argc; i++) printf(", \"%s\"", argv[i]);
    printf(", \"%s\"]\n", getenv("ENGRAM_BINARY"));
}
"""
pytestmark = [pytest.mark.external, pytest.mark.xdist_group("stub")]
needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a payload of 3 MB."""
    folder = tmp_path_factory.mktemp("stub")
    source, program = folder / "say.c", folder / "say"
    source.write_text(SAY)
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    if shutil.which("cc") is None or not Path("/usr/include/zlib.h").exists() or not loader.exists():
        pytest.skip("needs gcc and zlib1g-dev")
    room = f"-Wl,--dynamic-linker=/{'x' * 500}"
    subprocess.run(["cc", "-o", str(program), str(source), room], check=True)
    entries = [
        Entry(path=PROGRAM_FILE, content=program.read_bytes(), mode=0o755),
        Entry(path=LOADER_FILE, source=loader.resolve(), mode=0o755),
        Entry(path="data/random", content=os.urandom(3_000_000)),
        Entry(path="data/empty", content=b""),
    ]
    try:
        stub = native_code.stub(folder / "stub")
    except ContentsError as error:
        pytest.skip(str(error))
    return write_file(folder / "engram", stub, entries).path


def start(binary: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(binary), *arguments], env=environ, capture_output=True, text=True, check=False)


def cached(cache: Path) -> list[str]:
    return sorted(entry.name for entry in cache.iterdir() if entry.name != ".lock")


def test_the_first_start_unpacks_and_every_start_becomes_the_program(binary: Path, tmp_path: Path) -> None:
    for _ in range(2):
        process = subprocess.Popen(
            [str(binary), "a", "b c"], env={"ENGRAM_UNPACK_DIR": str(tmp_path / "x/y")}, stdout=subprocess.PIPE
        )
        out, _ = process.communicate()
        assert json.loads(out) == [process.pid, str(binary), "a", "b c", str(binary)]
    (home,) = cached(tmp_path / "x/y")
    unpacked = tmp_path / "x/y" / home
    assert sorted(str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()) == [
        ".files",
        "data/empty",
        "data/random",
        PROGRAM_FILE,
        LOADER_FILE,
    ]
    assert (unpacked / PROGRAM_FILE).stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "x/y").stat().st_mode & 0o777 == 0o700


def test_the_folder_is_the_one_named_or_the_services_or_the_users(binary: Path, tmp_path: Path) -> None:
    given = {
        "ENGRAM_UNPACK_DIR": tmp_path / "named",
        "CACHE_DIRECTORY": tmp_path / "service",
        "XDG_CACHE_HOME": tmp_path / "cache",
        "HOME": tmp_path / "home",
    }
    used = [tmp_path / "named", tmp_path / "service", tmp_path / "cache/engram", tmp_path / "home/.cache/engram"]
    for first, place in enumerate(used):
        environ = {name: str(path) for name, path in list(given.items())[first:]}
        assert start(binary, **environ).returncode == 0
        assert len(cached(place)) == 1


def test_starts_at_once_share_one_unpacking_and_leave_nothing_else(binary: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: start(binary, ENGRAM_UNPACK_DIR=str(tmp_path)), range(6)))
    assert [each.returncode for each in done] == [0] * 6
    assert len(cached(tmp_path)) == 1


def test_what_a_killed_start_left_is_removed(binary: Path, tmp_path: Path) -> None:
    (tmp_path / ".unpacking-killed" / "lib").mkdir(parents=True)
    (tmp_path / ".unpacking-killed" / "lib" / "half").write_text("half")
    assert start(binary, ENGRAM_UNPACK_DIR=str(tmp_path)).returncode == 0
    assert len(cached(tmp_path)) == 1


@pytest.mark.parametrize("name", ["data/random", "data/empty", PROGRAM_FILE, LOADER_FILE, ".files"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"junk")], ids=["removed", "overwritten"])
def test_a_folder_that_is_not_whole_any_more_is_put_aside_and_unpacked_again(
    binary: Path, tmp_path: Path, name: str, spoil: Callable[[Path], object]
) -> None:
    assert start(binary, ENGRAM_UNPACK_DIR=str(tmp_path)).returncode == 0
    (home,) = cached(tmp_path)
    before = {path.name: path.stat().st_size for path in (tmp_path / home).rglob("*") if path.is_file()}
    spoil(tmp_path / home / name)
    again = start(binary, ENGRAM_UNPACK_DIR=str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert {path.name: path.stat().st_size for path in (tmp_path / home).rglob("*") if path.is_file()} == before
    assert cached(tmp_path) == [home]


def test_a_folder_that_something_runs_from_stays_when_it_is_put_aside_and_goes_afterwards(
    binary: Path, tmp_path: Path
) -> None:
    assert start(binary, ENGRAM_UNPACK_DIR=str(tmp_path)).returncode == 0
    (home,) = cached(tmp_path)
    running = os.open(tmp_path / home, os.O_RDONLY)
    fcntl.flock(running, fcntl.LOCK_SH)  # as the program does (native/program.c)
    for _ in range(2):
        (tmp_path / home / "data/random").unlink()
        assert start(binary, ENGRAM_UNPACK_DIR=str(tmp_path)).returncode == 0
        aside, ours = cached(tmp_path)
        assert ours == home
        assert re.fullmatch(rf"\.broken-{home}-\d+", aside)
        assert os.stat(running).st_ino == (tmp_path / aside).stat().st_ino
    os.close(running)
    (tmp_path / home / "data/random").unlink()
    assert start(binary, ENGRAM_UNPACK_DIR=str(tmp_path)).returncode == 0
    assert cached(tmp_path) == [home]


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_a_damaged_payload_is_refused_and_never_put_in_place(binary: Path, tmp_path: Path, at: float) -> None:
    content = bytearray(binary.read_bytes())
    stub = int.from_bytes(content[-96:-88], "little")
    place = stub + int((len(content) - 96 - stub) * at)
    content[place] ^= 0x40
    damaged = tmp_path / "engram"
    damaged.write_bytes(content)
    damaged.chmod(0o755)
    refused = start(damaged, ENGRAM_UNPACK_DIR=str(tmp_path / "cache"))
    assert refused.returncode == 2
    assert refused.stderr.startswith("engram cannot start: this file is damaged (")
    assert cached(tmp_path / "cache") == []


@pytest.mark.parametrize("kept", [0.2, 0.8, 0.9999])
def test_a_file_that_was_cut_off_is_refused(binary: Path, tmp_path: Path, kept: float) -> None:
    content = binary.read_bytes()
    stub = int.from_bytes(content[-96:-88], "little")
    cut = tmp_path / "engram"
    cut.write_bytes(content[: stub + int((len(content) - stub) * kept)])
    cut.chmod(0o755)
    refused = start(cut, ENGRAM_UNPACK_DIR=str(tmp_path / "cache"))
    assert (refused.returncode, "its end is missing" in refused.stderr) == (2, True)


def test_a_cache_that_others_can_write_is_not_used(binary: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    refused = start(binary, ENGRAM_UNPACK_DIR=str(tmp_path))
    assert (refused.returncode, "others could plant a program there" in refused.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_link_of_the_user_may_lead_to_another_disk(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    assert start(binary, ENGRAM_UNPACK_DIR=str(tmp_path / "cache")).returncode == 0
    assert len(cached(tmp_path / "disk")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own a link as somebody else")
def test_a_link_of_somebody_else_is_not_followed(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    os.lchown(tmp_path / "cache", 65_534, 65_534)
    (tmp_path / "disk").mkdir(mode=0o700)
    refused = start(binary, ENGRAM_UNPACK_DIR=str(tmp_path / "cache"))
    assert (refused.returncode, "is a link of user 65534" in refused.stderr) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own a file as somebody else")
def test_a_folder_that_somebody_else_planted_is_not_run(binary: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    start(binary, ENGRAM_UNPACK_DIR=str(cache))
    (home,) = cached(cache)
    (cache / home / PROGRAM_FILE).write_text("#!/bin/sh\necho planted\n")
    os.chown(cache / home, 65_534, 65_534)
    refused = start(binary, ENGRAM_UNPACK_DIR=str(cache))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "was not unpacked by this user" in refused.stderr
    os.chown(cache, 65_534, 65_534)
    refused = start(binary, ENGRAM_UNPACK_DIR=str(cache))
    assert (refused.returncode, "belongs to user 65534" in refused.stderr) == (2, True)


@needs_mounts
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("size=2m", "unpacking needs"),
        ("size=64m,noexec", "mounted noexec, where no program runs"),
        ("size=64m,ro", "cannot be written: Read-only file system"),
    ],
)
def test_a_disk_that_cannot_be_used_is_named(binary: Path, tmp_path: Path, options: str, said: str) -> None:
    script = f'mount -t tmpfs -o mode=700,{options} none "$1" && exec "$2"'
    refused = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "bash", str(tmp_path), str(binary)],
        env={"PATH": os.environ["PATH"], "ENGRAM_UNPACK_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr


@needs_mounts
def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(binary: Path, tmp_path: Path) -> None:
    """By a limit on the size of files, which no look at the free space foresees."""
    script = 'ulimit -f 1000; trap "" XFSZ; exec "$1"'
    refused = subprocess.run(
        ["bash", "-c", script, "bash", str(binary)],
        env={"PATH": os.environ["PATH"], "ENGRAM_UNPACK_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, "cannot be written: File too large" in refused.stderr) == (2, True)
    assert cached(tmp_path) == []


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not confined.HEADER.exists(),
    reason="needs systemd-analyze and the headers of the kernel (Debian: systemd, linux-libc-dev)",
)
@pytest.mark.parametrize("unit", ["engram-gateway.service", "engram-miner@.service"])
def test_the_first_start_unpacks_in_the_sandbox_of_the_units(binary: Path, tmp_path: Path, unit: str) -> None:
    confined_by = [sys.executable, confined.__file__, str(UNITS / unit)]
    environ = {"CACHE_DIRECTORY": str(tmp_path), "PATH": os.environ["PATH"]}
    for _ in range(2):
        done = subprocess.run([*confined_by, str(binary)], env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert len(cached(tmp_path)) == 1


def test_a_user_without_a_home_gets_a_folder_of_his_own(binary: Path, tmp_path: Path) -> None:
    ran = start(binary, HOME="/proc/nowhere")
    place = Path(f"/var/tmp/engram-{os.geteuid()}")
    assert ran.returncode == 0, ran.stderr
    (ours,) = [name for name in cached(place) if (place / name / "data/random").exists()]
    shutil.rmtree(place / ours)
