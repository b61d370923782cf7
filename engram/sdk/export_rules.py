"""Exports a node's memory over as many connections as needed: the requests and the parsing of answers. Does no I/O.

The answer of `/export-stream` has one JSON document per line; only one line is in memory at a time. A connection that
ends before the last line (`"kind": "end"`) was cut off, and the next one resumes after the last document received.
"""

from collections.abc import Callable, Iterator
from typing import Final, final

import msgspec

from engram import wire
from engram.api.node_model import Commitment, ExportEnd
from engram.memory.upkeep.export_pages import KINDS
from engram.sdk.errors import MalformedAnswer, NotReached, OutcomeUnknown
from engram.sdk.node_calls import Call, NodeCalls, ready
from engram.sdk.transport import Answer, error_of

MAX_LINE_BYTES: Final = 8_388_608
RECONNECTS: Final = 5
"""Connections lost in a row, with nothing received between, before an export is given up."""
SILENCE_S: Final = 60.0
"""Seconds for which a node may send nothing."""


class Exported(msgspec.Struct, frozen=True):
    """A document of a node's memory, as it is stored: encrypted data stays encrypted.

    `kind` is record, conversation, key_share or attestation; an export goes on behind a document by `kind` and `id`.
    engram.memory.upkeep.export_pages lists the fields.
    """

    kind: str
    id: int
    fields: dict[str, object]
    """All fields, including `kind` and `id`: `engram miner ingest` takes a line of this as JSON."""


@final
class ExportWalk:
    """One export. Send `request`, pass its answer to `opened` and `take`, a lost connection to `lost`, until `done`."""

    def __init__(self, calls: NodeCalls, after: Exported | None, check: Callable[[Commitment | None], None]) -> None:
        """Take `check`, called with the root that the node signs at the end. Raises ValueError for an unknown kind."""
        self.done = False
        self._calls = calls
        self._check = check
        self._at = (0, 0) if after is None else (_place(after.kind), after.id)
        self._came = 0
        self._line = bytearray()
        self._losses = 0
        self._began = False

    def request(self) -> Call[None]:
        """Return the request for the next connection."""
        self._came = 0
        self._line.clear()
        place, number = self._at
        return self._calls.export_stream(KINDS[place], number)

    def opened(self, answer: Answer) -> None:
        """Check the head of the answer. Raises ApiError, or OutcomeUnknown while a lost connection blocks the node."""
        if answer.status == 503 and self._began:
            raise OutcomeUnknown(str(error_of(answer)))
        ready(answer)
        self._began = True

    def take(self, part: bytes) -> Iterator[Exported]:
        """Yield the documents that are completed by a part of the answer.

        Raises MalformedAnswer, and what `check` raises.
        """
        self._line += part
        *lines, rest = self._line.split(b"\n")
        self._line = rest
        for line in lines:
            if self.done:
                raise MalformedAnswer("the node's export goes on behind its end")
            if (document := self._read(bytes(line))) is not None:
                yield document
        if len(rest) > MAX_LINE_BYTES:
            raise MalformedAnswer(f"a document of the node's export has more than {MAX_LINE_BYTES} bytes")

    def lost(self, error: NotReached | OutcomeUnknown | None) -> float:
        """Return the seconds until the next connection, or raise `error`; None means that the answer was cut off."""
        self._losses += 1
        if not self._began or self._losses > RECONNECTS:
            place, number = self._at
            where = f"the last document was {KINDS[place]} {number}"
            raise error or OutcomeUnknown(f"the node ended the export {self._losses} times without an end; {where}")
        return min(10.0, 0.25 * float(2**self._losses))

    def _read(self, line: bytes) -> Exported | None:
        try:
            fields = wire.decode(line, dict[str, object])
            if fields.get("kind") == "end":
                self._end(wire.convert(fields, ExportEnd))
                return None
            head = wire.convert(fields, _Head)
            at = (_place(head.kind), head.id)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise MalformedAnswer(f"a document of the node's export could not be read: {error}") from None
        if at <= self._at:
            raise MalformedAnswer(f"the node's export went back: {head.kind} {head.id} came again or too late")
        self._at, self._losses = at, 0
        self._came += 1
        return Exported(head.kind, head.id, fields)

    def _end(self, end: ExportEnd) -> None:
        if end.count != self._came:
            raise MalformedAnswer(f"the node says that it sent {end.count} documents, {self._came} came")
        self._check(end.commitment)
        self.done = True


class _Head(msgspec.Struct, frozen=True):
    kind: str
    id: int


def _place(kind: str) -> int:
    for place, known in enumerate(KINDS):
        if kind == known:
            return place
    raise ValueError(f"a document's kind is one of {', '.join(KINDS)}, not {kind[:40]!r}")
