"""What makes a library independent of the machine that built it."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from shipping import loading
from shipping.entries import ContentsError

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("cc") is None or shutil.which("readelf") is None, reason="needs gcc"),
]


def library(folder: Path, *options: str) -> bytes:
    source = folder / "a.c"
    source.write_text('#include <stdio.h>\nvoid a(void) { puts("a"); }\n')
    made = folder / "a.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source), *options], check=True)
    return made.read_bytes()


def search_path(folder: Path, content: bytes) -> str:
    (folder / "b.so").write_bytes(content)
    shown = subprocess.run(["readelf", "-d", str(folder / "b.so")], capture_output=True, text=True, check=True).stdout
    return " ".join(
        line.split(")", 1)[1].strip() for line in shown.splitlines() if "RPATH" in line or "RUNPATH" in line
    )


def test_a_search_path_of_the_build_machine_is_taken_out(tmp_path: Path) -> None:
    before = library(tmp_path, "-Wl,-rpath,/opt/builder/lib,--enable-new-dtags")
    assert "/opt/builder/lib" in search_path(tmp_path, before)
    assert search_path(tmp_path, loading.self_contained(before)) == ""


def test_a_search_path_beside_the_library_leaves_room_for_the_programs(tmp_path: Path) -> None:
    before = library(tmp_path, "-Wl,-rpath,$ORIGIN/../x.libs,--enable-new-dtags")
    assert search_path(tmp_path, before) == "Library runpath: [$ORIGIN/../x.libs]"
    assert search_path(tmp_path, loading.self_contained(before)) == "Library rpath: [$ORIGIN/../x.libs]"


def test_what_has_no_search_path_or_is_no_library_stays_as_it_is(tmp_path: Path) -> None:
    plain = library(tmp_path)
    assert loading.self_contained(plain) == plain
    assert loading.self_contained(b"#!/bin/sh\n") == b"#!/bin/sh\n"


def test_the_oldest_libc_that_a_file_runs_on_is_read_from_it(tmp_path: Path) -> None:
    library(tmp_path)
    assert loading.newest_glibc(tmp_path / "a.so") == (2, 2, 5)
    (tmp_path / "text").write_bytes(b"no library")
    assert loading.newest_glibc(tmp_path / "text") == (0,)


def test_a_program_gets_a_loader_as_long_as_there_is_room(tmp_path: Path) -> None:
    source, program = tmp_path / "m.c", tmp_path / "m"
    source.write_text("int main(void) { return 7; }\n")
    room = f"-Wl,--dynamic-linker=/{'x' * 98}"
    subprocess.run(["cc", "-o", str(program), str(source), room], check=True)
    content = program.read_bytes()
    program.write_bytes(loading.with_loader(content, "/lib64/ld-linux-x86-64.so.2"))
    assert subprocess.run([str(program)], check=False).returncode == 7
    with pytest.raises(ContentsError, match="has room for 99 bytes"):
        loading.with_loader(content, "/" + "y" * 99)
    with pytest.raises(ContentsError, match="names no loader"):
        loading.with_loader(library(tmp_path), "/lib/ld.so")


def test_strings_in_no_loaded_part_are_refused(tmp_path: Path) -> None:
    content = bytearray(library(tmp_path, "-Wl,-rpath,/opt/builder/lib"))
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for index in range(count):
        if struct.unpack_from("<I", content, start + index * size) == (1,):
            struct.pack_into("<I", content, start + index * size, 0)
    with pytest.raises(ContentsError, match="in no loaded part"):
        loading.self_contained(bytes(content))
