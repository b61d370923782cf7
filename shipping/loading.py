"""Where a file of the packed folder looks for its libraries: in the folder, and nowhere on the machine.

The program's RPATH (`$ORIGIN/lib`) is inherited by whatever it loads, but a library that has a RUNPATH of its own does
not inherit. A RUNPATH of the machine that built it is taken out; one beside the library becomes an RPATH.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from shipping.entries import ContentsError

_SECTION_OF_LOADER: Final = 3
_DYNAMIC: Final = 2
_RPATH, _RUNPATH, _STRINGS, _END = 15, 29, 5, 0
_IGNORED: Final = 0x6000000D
"""The first tag that is left to operating systems: loaders skip those they do not know."""
_ELF64: Final = b"\x7fELF\x02\x01"
_LOADED: Final = 1


def self_contained(content: bytes) -> bytes:
    """Return an ELF file that finds its libraries by the program's RPATH; what is no such file is returned as it is."""
    if not content.startswith(_ELF64):
        return content
    headers = _program_headers(content)
    place = next((offset for kind, offset, _, _ in headers if kind == _DYNAMIC), None)
    if place is None:
        return content
    tags = list(_tags(content, place))
    strings = next((value for _, tag, value in tags if tag == _STRINGS), None)
    if strings is None:
        return content
    table = _offset_of(headers, strings)
    changed = bytearray(content)
    for at, tag, value in tags:
        if tag in (_RPATH, _RUNPATH):
            begin = table + value
            path = content[begin : content.index(b"\0", begin)]
            struct.pack_into("<Q", changed, at, _RPATH if path.startswith(b"$ORIGIN") else _IGNORED)
    return bytes(changed)


def is_loadable(content: bytes) -> bool:
    """Return whether each part of an ELF file lies on pages as in memory; a loader refuses it otherwise.

    `strip` moves the parts of libraries that patchelf has changed, as auditwheel does, off their pages.
    """
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for index in range(count):
        kind, _, offset, address, _, _, _, alignment = struct.unpack_from("<IIQQQQQQ", content, start + index * size)
        if kind == _LOADED and alignment and (offset - address) % alignment:
            return False
    return True


def with_loader(program: bytes, loader: str) -> bytes:
    """Return the program with the path of its dynamic loader. Raises ContentsError when there is no room for it."""
    for kind, offset, _, size in _program_headers(program):
        if kind == _SECTION_OF_LOADER:
            path = loader.encode()
            if len(path) >= size:
                raise ContentsError(f"the path {loader} is too long: a program has room for {size - 1} bytes")
            return program[:offset] + path.ljust(size, b"\0") + program[offset + size :]
    raise ContentsError("the program names no loader")


def newest_glibc(path: Path) -> tuple[int, ...]:
    """Return the newest version of glibc whose symbols a file needs; (0,) when it needs none."""
    content = path.read_bytes()
    found: list[tuple[int, ...]] = [(0,)]
    at = content.find(b"GLIBC_")
    while at >= 0:
        version = content[at + 6 : content.index(b"\0", at)].decode("ascii", "replace")
        if version.replace(".", "").isdigit():
            found.append(tuple(map(int, version.split("."))))
        at = content.find(b"GLIBC_", at + 1)
    return max(found)


def _program_headers(content: bytes) -> list[tuple[int, int, int, int]]:
    """Return kind, offset in the file, address and size in the file of each part."""
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    headers = []
    for index in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", content, start + index * size)
        headers.append((kind, offset, address, length))
    return headers


def _tags(content: bytes, place: int) -> list[tuple[int, int, int]]:
    """Return place, tag and value of each entry of the dynamic section."""
    found: list[tuple[int, int, int]] = []
    while True:
        tag, value = struct.unpack_from("<QQ", content, place)
        if tag == _END:
            return found
        found.append((place, tag, value))
        place += 16


def _offset_of(headers: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, begin, length in headers:
        if kind == _LOADED and begin <= address < begin + length:
            return offset + address - begin
    raise ContentsError("a shared library has its strings in no loaded part")
