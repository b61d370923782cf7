"""No type is decoded past engram/wire.py, and what goes through it may first be decoded in many threads at once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engram import wire
from tests.house import sources

ROOT = Path(__file__).parents[2]
SEAM = "engram/wire.py"
JUSTIFIED = {
    "config/keys.py: _convert": "single settings: numbers, texts, Literals and tuples of them, no Struct",
    "config/loader.py: _SETTINGS": "built while config is imported, before there are threads; config imports no engram",
    "config/loader.py: _settings": "of the type that _SETTINGS has built",
    "engram/hotkeys/scheme.py: _glancer": "of a type made in the same call, which no other thread can have",
}
TYPED = {"msgspec.convert"} | {
    f"msgspec.{form}.{name}" for form in ("json", "msgpack", "toml", "yaml") for name in ("decode", "Decoder")
}
RACE = """
import sys, threading
import msgspec
from engram import wire

sys.setswitchinterval(1e-6)
THREADS, TYPES = 8, 40
KINDS = [msgspec.defstruct(f"S{n}", [(f"f{m}", tuple[int, ...] | None) for m in range(30)]) for n in range(TYPES)]
OUTER = [msgspec.defstruct(f"O{n}", [("inner", list[kind])]) for n, kind in enumerate(KINDS)]
INNER = {f"f{m}": (1, 2) for m in range(30)}
CONTENT = msgspec.json.encode({"inner": [INNER]})
PACKED = msgspec.msgpack.encode({"inner": [INNER]})
gate = threading.Barrier(THREADS)
decode = DECODE

def work(number):
    for kind in OUTER:
        gate.wait()
        decode(number, kind)

threads = [threading.Thread(target=work, args=[number]) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
THROUGH_THE_SEAM = """lambda number, kind: [
    lambda: wire.decode(CONTENT, kind),
    lambda: wire.convert({"inner": [INNER]}, kind),
    lambda: wire.decoder(list[kind]).decode(b"[" + CONTENT + b"]"),
    lambda: wire.msgpack_decoder(kind).decode(PACKED),
][number % 4]()"""


def places(source: str) -> Iterator[str]:
    """The functions (or module-level names) that decode a type by msgspec itself; an import that hides it as well."""

    def inside(node: ast.AST, where: str) -> Iterator[str]:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                where = f"{where}.{name}" if where else name
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target) if not where:
                where = ast.unparse(target)
            case ast.Call(func=function, keywords=[]) if ast.unparse(function) == "msgspec.json.decode":
                if len(node.args) == 1:  # no type: dicts, lists, texts and numbers
                    yield from inside(node.args[0], where)
                    return
            case ast.Attribute() if ast.unparse(node) in TYPED:
                yield where
            case ast.ImportFrom(module="msgspec", names=names):
                if any(f"msgspec.{one.name}" in TYPED or f"msgspec.{one.name}.decode" in TYPED for one in names):
                    yield where
            case ast.ImportFrom(module=str(module)) if module.startswith("msgspec."):
                yield where
            case ast.Import(names=names) if any(n.name.split(".")[0] == "msgspec" and n.asname for n in names):
                yield where
        for child in ast.iter_child_nodes(node):
            yield from inside(child, where)

    if "msgspec" in source:
        yield from inside(ast.parse(source), "")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x): return msgspec.json.decode(x, type=T)", ["f"]),
        ("class C:\n    async def f(self): return msgspec.convert(self.x, T)", ["C.f"]),
        ("D: Final = msgspec.json.Decoder(T)", ["D"]),
        ("def f(x): return map(msgspec.msgpack.decode, x)", ["f"]),
        ("from msgspec.json import decode", [""]),
        ("from msgspec import json", [""]),
        ("import msgspec.json as wire", [""]),
        ("def f(x): return msgspec.json.decode(x)", []),
        ("from msgspec import Meta", []),
        ("def f(x): return msgspec.json.encode(x)", []),
    ],
)
def test_the_search_finds_each_way_to_decode_a_type(source: str, found: list[str]) -> None:
    assert list(places(source)) == found


def test_every_type_is_decoded_through_one_seam() -> None:
    found = {
        f"{file.relative_to(ROOT)}: {place}"
        for file in sources.files()
        if str(file.relative_to(ROOT)) != SEAM
        for place in places(file.read_text())
    }
    assert found == set(JUSTIFIED), "decode through engram.wire: see its docstring"


def test_types_first_decoded_by_many_threads_at_once_are_decoded_right() -> None:
    script = RACE.replace("DECODE", THROUGH_THE_SEAM)
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


class Point(msgspec.Struct):
    x: int
    name: bytes = b""


def test_a_decoder_is_built_once() -> None:
    assert wire.decoder(list[Point]) is wire.decoder(list[Point])
    assert wire.decode(b'[{"x": 1}]', list[Point]) == [Point(1)]
    with pytest.raises(msgspec.ValidationError, match="x"):
        wire.decode(b'{"x": "1"}', Point)


def test_attributes_and_octets_are_converted_where_they_are_asked_for() -> None:
    class Row:
        x = 2

    assert wire.convert(Row(), Point, attributes=True) == Point(2)
    assert wire.convert({"x": 3, "name": b"\xff"}, Point, octets=True) == Point(3, b"\xff")
    assert wire.convert({"x": 3, "name": "/w=="}, Point) == Point(3, b"\xff")
    with pytest.raises(msgspec.ValidationError):
        wire.convert(Row(), Point)
