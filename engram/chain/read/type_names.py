"""Refuses metadata whose type names would take all memory there is, before it is handed to the codec.

bittensor-core spells every type out by the types it is made of. A tuple of two tuples of two tuples … has a name that
doubles at each level, so 264 kB of metadata from one endpoint end the process (25 levels take 1 GB, 60 all there is).
Runtime 293 has 633 types, whose names come to 36 kB; 4 MB are let pass.

Read here is the list of types that opens metadata V15 (`meta`, 15, Vec<PortableType>), and of each only its name and
what it is spelled by: parameters, and the parts of tuples, sequences, arrays and compacts. Fields are not spelled.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar, final

from engram.chain.errors import AnswerMalformed

T = TypeVar("T")

NAMES_BYTES: Final = 4_000_000
_HEAD: Final = b"meta\x0f"
_OWN: Final = 8
"""Bytes of the brackets and commas around a name, or of a primitive's name."""


@lru_cache(maxsize=2)
def check_type_names(metadata: bytes) -> None:
    """Raise AnswerMalformed for metadata whose type names are too long. Takes 10 ms of CPU once per metadata."""
    if metadata.startswith(_HEAD):
        _add_up(_Types(metadata).read())


def _add_up(types: "dict[int, tuple[int, list[int]]]") -> None:
    """Raise AnswerMalformed when all names together are too long, or a name contains itself."""
    sizes: dict[int, int] = {}
    begun: set[int] = set()
    total = 0
    for each in types:
        waiting = [each]
        while waiting:
            at = waiting[-1]
            own, parts = types.get(at, (_OWN, []))
            if at in sizes:
                waiting.pop()
            elif at in begun:
                sizes[at] = own + sum(sizes[part] for part in parts)
                total += sizes[at]
                if total > NAMES_BYTES:
                    raise AnswerMalformed(f"metadata: the names of its types have more than {NAMES_BYTES} bytes")
            else:
                begun.add(at)
                unknown = [part for part in parts if part not in sizes]
                if not begun.isdisjoint(unknown):
                    raise AnswerMalformed(f"metadata: the name of type {at} is spelled by itself")
                waiting += unknown


@final
class _Types:
    """By id: bytes of a type's own name, and the types it is spelled by."""

    def __init__(self, metadata: bytes) -> None:
        self._octets = metadata
        self._place = len(_HEAD)

    def read(self) -> dict[int, tuple[int, list[int]]]:
        """Raise AnswerMalformed."""
        try:
            return dict(self._many(self._type))
        except IndexError:
            raise AnswerMalformed("metadata: its types are cut off") from None

    def _type(self) -> tuple[int, tuple[int, list[int]]]:
        number = self._compact()
        own = _OWN + sum(self._many(self._text))
        spelled = [part for part in self._many(self._parameter) if part is not None]
        match self._octet():
            case 0:
                self._many(self._field)
            case 1:
                self._many(self._variant)
            case 2 | 6:
                spelled.append(self._compact())
            case 3:
                self._skip(4)
                spelled.append(self._compact())
            case 4:
                spelled += self._many(self._compact)
            case 5:
                self._skip(1)
            case 7:
                spelled += [self._compact(), self._compact()]
            case other:
                raise AnswerMalformed(f"metadata: type {number} is of kind {other}")
        self._many(self._text)
        return number, (own, spelled)

    def _parameter(self) -> int | None:
        self._text()
        return self._compact() if self._octet() else None

    def _variant(self) -> None:
        self._text()
        self._many(self._field)
        self._skip(1)
        self._many(self._text)

    def _field(self) -> None:
        if self._octet():
            self._text()
        self._compact()
        if self._octet():
            self._text()
        self._many(self._text)

    def _many(self, read: Callable[[], T]) -> list[T]:
        return [read() for _ in range(self._compact())]

    def _text(self) -> int:
        size = self._compact()
        self._skip(size)
        return size

    def _skip(self, count: int) -> None:
        self._place += count

    def _octet(self) -> int:
        self._place += 1
        return self._octets[self._place - 1]

    def _compact(self) -> int:
        first = self._octet()
        mode = first & 3
        if mode == 0:
            return first >> 2
        width = (0, 1, 3, 4 + (first >> 2))[mode]
        rest = self._octets[self._place : self._place + width]
        if len(rest) < width:
            raise IndexError
        self._place += width
        number = int.from_bytes(rest, "little")
        return number if mode == 3 else (number << 8 | first) >> 2
