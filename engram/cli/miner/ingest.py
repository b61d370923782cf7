"""`engram miner ingest`: stores a file of memories (JSON Lines) in a running node."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, Final, final

import msgspec
from cyclopts import Parameter

from engram import wire
from engram.api import node as api
from engram.api import node_model as model
from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.miner.target import NODE, BodySigner, NodeTarget, answered
from engram.cli.numbers import whole
from engram.cli.options import SHOW, Show
from engram.cli.progress import progress
from engram.hotkeys import authority
from engram.hotkeys.python_json import JsonObject, JsonValue, MalformedJson, ReadObject
from engram.sdk.errors import NotReached, OutcomeUnknown
from engram.sdk.node_calls import belongs_to, checked, keeps_text
from engram.sdk.transport import Answer, Transport, error_of

_SUFFIX: Final = ".ingested"
_LONGEST_LINE: Final = 4 * 1024**2
_NO_LINE: Final = 16 * 1024**2
_BATCH_BYTES: Final = 4 * 1024**2
_TRIES: Final = 6
_LONGEST_PAUSE_S: Final = 30.0
_MOST_LISTED: Final = 20
_PUBLIC: Final = "__public__"
_UNDERSTOOD: Final = frozenset({"namespace", "is_public", "owner", "timestamp", "timestamp_ms"})
"""The fields of authority that a line may have: its namespace, and the facts that exports add to a record."""
_TAKEN: Final = ("text", "model_version", "raw_embedding_b64", "key", "supersedes", "expires_at", "superseded_by")
_VECTORS: Final = ("raw_embedding", "embedding", "vector")


class Line(msgspec.Struct, frozen=True):
    """A line that can be sent."""

    number: int
    item: JsonObject
    namespace: str | None
    cid: str | None
    """The CID that the line gives, if any; the stored record must have it."""
    is_exported: bool = False


class Bookmark(msgspec.Struct, frozen=True):
    """How far a file was ingested: its first `bytes` bytes, with their digest and number of lines."""

    node: str
    bytes: int
    lines: int
    sha256: str


class IngestSummary(msgspec.Struct, frozen=True):
    """The result of an ingest. `skipped` counts empty lines and lines of an export that are not records.

    `not_owned` counts the lines of `stored` that do not belong to the key that signed.
    """

    stored: int
    not_owned: int
    refused: int
    skipped: int
    resumed_after_lines: int


class LineRefused(ValueError):
    """A line cannot be stored; the text says why."""


def ingest(
    file: Annotated[Path, Parameter(help="File of memories; see above.")],
    *,
    node: NodeTarget = NODE,
    batch: Annotated[int, Parameter(converter=whole, help="Lines sent at once, 1 to 256.")] = 64,
    show: Show = SHOW,
) -> int:
    """Store the memories of FILE, a JSON object a line: `text`, or a vector (`embedding`), or both, and `metadata`.

    Files of `engram miner export` are accepted too. A line is stored in its `namespace`, unless --namespace names one;
    private namespaces need --key. Refused lines are reported by number and the rest is stored. Stored lines that do not
    belong to --key are reported too: the same was stored first by another key, or the clock is wrong. After a stop, run
    it again to resume (it keeps FILE.ingested); storing a line twice is harmless.
    """
    if not 1 <= batch <= 256:
        raise CommandFailed(f"--batch must be 1 to 256, not {batch}", Exit.USAGE)
    url, signer = node.url(), BodySigner(node.keypair())
    try:
        size = file.stat().st_size
        with open(file, "rb") as opened, answered():
            transport = Transport(url, timeout_s=120.0)
            try:
                hotkey = checked(_patiently(transport, "GET", api.HEALTH.path, None), model.Health).hotkey
                work = Work(opened, file, f"{hotkey} {node.namespace or ''}", transport, signer, node, batch)
                with progress("bytes") as on_progress:
                    done = work.run(lambda at: on_progress(at, size))
            finally:
                transport.close()
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from None
    output.record(done, json=show.json)
    return Exit.FAILED if done.refused or done.not_owned else Exit.DONE


@final
class Work:
    """One file on its way into one node."""

    def __init__(
        self,
        opened: BinaryIO,
        file: Path,
        where: str,
        transport: Transport,
        signer: BodySigner,
        node: NodeTarget,
        batch: int,
    ) -> None:
        self._file = opened
        self._mark_file = file.with_name(file.name + _SUFFIX)
        self._where = where
        self._transport = transport
        self._signer = signer
        self._node = node
        self._batch = batch
        self._digest = hashlib.sha256()
        self._bytes = self._stored = self._not_owned = self._refused = self._skipped = 0
        self._unmarked = False

    def run(self, on_progress: Callable[[int], None]) -> IngestSummary:
        """Send what was not sent before. Raises CommandFailed, SdkError, OSError."""
        resumed = self._resume()
        for lines, upto, raw in self._batches(resumed):
            if lines:
                self._send(lines)
            for part in raw:
                self._digest.update(part)
            self._bytes += sum(map(len, raw))
            self._keep_mark(upto)
            on_progress(self._bytes)
        self._mark_file.unlink(missing_ok=True)
        return IngestSummary(self._stored, self._not_owned, self._refused, self._skipped, resumed)

    def _batches(self, after: int) -> Iterator[tuple[list[Line], int, list[bytes]]]:
        """Yield lines of one namespace to send together, the number of the last line read, and the raw lines."""
        lines: list[Line] = []
        raws: list[bytes] = []
        size, number = 0, after
        for number, raw in enumerate(_lines(self._file), after + 1):
            line = self._read(raw, number)
            if line is not None and lines:
                is_full = len(lines) == self._batch or size + len(raw) > _BATCH_BYTES
                # a node supersedes only what it holds, which the items of one request are not yet
                is_full = is_full or line.item.get("supersedes") in [each.cid or "" for each in lines]
                if is_full or line.namespace != lines[0].namespace:
                    yield lines, number - 1, raws
                    lines, raws, size = [], [], 0
            raws.append(raw)
            size += len(raw)
            if line is not None:
                lines.append(line)
        if raws:
            yield lines, number, raws

    def _read(self, raw: bytes, number: int) -> Line | None:
        try:
            line = read_line(raw, number, self._node.namespace)
            if line is not None and line.namespace is not None and self._node.key is None:
                raise LineRefused(f"it belongs to the private namespace {line.namespace!r}: name its --key")
        except LineRefused as error:
            self._refuse(number, str(error))
            return None
        self._skipped += line is None
        return line

    def _send(self, lines: Sequence[Line]) -> None:
        """Send a batch until the node has answered it. Raises CommandFailed, SdkError."""
        items: list[JsonValue] = [line.item for line in lines]

        def body() -> bytes:
            return msgspec.json.encode(self._signer.signed("IngestBatch", {"items": items}, lines[0].namespace))

        results = checked(_patiently(self._transport, "POST", api.INGEST_BATCH.path, body), model.IngestedBatch).results
        if len(results) != len(lines):
            raise CommandFailed(f"the node gave {len(results)} results for {len(lines)} lines")
        freed: list[Line] = []
        for line, result in zip(lines, results, strict=True):
            if result.cid is None and line.is_exported and "supersedes" in line.item:
                freed.append(_without_predecessor(line))
            elif result.cid is not None and not keeps_text(result):
                self._refuse(line.number, f"{result.cid} exists with another text for the same vector and metadata")
            elif result.cid is not None:
                self._stored += 1
                if not belongs_to(result, self._signer.ss58):
                    self._note_owner(line.number, result)
                if line.cid not in (None, result.cid):
                    output.complain(f"line {line.number}: stored as {result.cid}, which is not its cid {line.cid}")
            elif result.code in ("over_quota", "store_unavailable", "unknown"):
                raise CommandFailed(f"line {line.number}: {result.error} Run it again to resume")
            else:
                self._refuse(line.number, result.error or "the node did not say why")
        if freed:  # what they supersede was deleted before the export
            self._send(freed)

    def _note_owner(self, number: int, result: model.Result) -> None:
        self._not_owned += 1
        if self._not_owned <= _MOST_LISTED:
            reason = model.known(result.owner_reason) or "stored_first_by_other"
            owner = model.known(result.owner) or "nobody"
            output.complain(f"line {number}: {result.cid} is stored, and belongs to {owner} ({reason}), not to --key")
        elif self._not_owned == _MOST_LISTED + 1:
            output.complain("more lines belong to other keys; from here on they are only counted")

    def _refuse(self, number: int, reason: str) -> None:
        self._refused += 1
        if self._refused <= _MOST_LISTED:
            output.complain(f"line {number} is refused: {reason}")
        elif self._refused == _MOST_LISTED + 1:
            output.complain("more lines are refused; from here on they are only counted")

    def _resume(self) -> int:
        """Go to where an earlier call stopped with the same file and node, and return the lines before that."""
        try:
            mark = wire.decode(self._mark_file.read_bytes(), Bookmark)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return 0
        if mark.node == self._where:
            left = mark.bytes
            while left > 0 and (part := self._file.read(min(left, _LONGEST_LINE))):
                self._digest.update(part)
                left -= len(part)
            if left == 0 and self._digest.hexdigest() == mark.sha256:
                self._bytes = mark.bytes
                return mark.lines
        output.complain(f"{self._mark_file.name} is of another file, node or namespace: starting from the beginning")
        self._file.seek(0)
        self._digest = hashlib.sha256()
        return 0

    def _keep_mark(self, lines: int) -> None:
        mark = Bookmark(self._where, self._bytes, lines, self._digest.hexdigest())
        staged = self._mark_file.with_name(f".{self._mark_file.name}")
        try:
            staged.write_bytes(msgspec.json.encode(mark))
            os.replace(staged, self._mark_file)
        except OSError as error:
            if not self._unmarked:
                output.complain(
                    f"{self._mark_file} cannot be written ({error.strerror}): a later run starts at the beginning"
                )
            self._unmarked = True


def read_line(raw: bytes, number: int, namespace: str | None) -> Line | None:
    """Return the record of a line, for `namespace` if given; None for an empty line or another kind of document.

    Raises LineRefused.
    """
    if not raw.strip():
        return None
    if len(raw) > _LONGEST_LINE:
        raise LineRefused(f"it has more than {_LONGEST_LINE} bytes")
    fields = _object(raw)
    if fields.get("kind", "record") != "record":
        return None
    item: JsonObject = {name: fields[name] for name in _TAKEN if fields.get(name) is not None}
    if (encoded := fields.get("embedding_b64")) is not None:
        item["raw_embedding_b64"] = encoded
    for name in _VECTORS:
        if fields.get(name) is not None:
            item["raw_embedding"] = fields[name]
    if not item.keys() & {"text", "raw_embedding", "raw_embedding_b64"}:
        raise LineRefused("it has neither text nor embedding")
    if fields.get("metadata") is not None:
        item["metadata"] = fields["metadata"]
    if (field := authority.misplaced(fields, _UNDERSTOOD)) is not None:
        raise LineRefused(f"it has {field}, which a line cannot ask for: sign for all lines with --key")
    named, cid = fields.get("namespace"), fields.get("cid")
    if named is not None and not isinstance(named, str):
        raise LineRefused("its namespace is no string")
    where = namespace or (named if named not in (None, "", _PUBLIC) else None)
    if where is None and fields.get("is_public", True) is not True:
        raise LineRefused("it is not public, and names no namespace")
    return Line(number, item, where, cid if isinstance(cid, str) else None, fields.get("kind") == "record")


def _without_predecessor(line: Line) -> Line:
    return msgspec.structs.replace(line, item={name: line.item[name] for name in line.item if name != "supersedes"})


def _object(raw: bytes) -> JsonObject:
    """Parse a line exactly as the node parses an item of a batch, with the same limits."""
    try:
        read = ReadObject(b'{"items":[' + raw.strip() + b"]}").fields
        msgspec.json.encode(read)
    except MalformedJson as error:
        raise LineRefused(f"it is not JSON: {str(error).removeprefix('the body is not JSON: ')}") from None
    except UnicodeEncodeError:
        raise LineRefused("it has half of a surrogate pair, which is not valid Unicode") from None
    match read:
        case {"items": [dict() as fields]} if len(read) == 1:
            return fields
        case _:
            raise LineRefused("it is no JSON object")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their line ends. Raises CommandFailed for a line without end: the file is not JSONL."""
    while raw := file.readline(_NO_LINE):
        if len(raw) == _NO_LINE:
            raise CommandFailed(f"the line that ends behind byte {file.tell()} is no line of JSON: it has no end")
        yield raw


def _patiently(transport: Transport, method: str, path: str, body: Callable[[], bytes] | None) -> Answer:
    """Send a request until the node answers anything but 429 or 503, at most six times; each try is signed again.

    Raises NotReached, OutcomeUnknown, MalformedAnswer.
    """
    for attempt in range(_TRIES):
        pause_s = min(2.0**attempt, _LONGEST_PAUSE_S)
        try:
            answer = transport.request(method, path, body=None if body is None else body())
        except (NotReached, OutcomeUnknown):  # storing the same again is harmless
            if attempt == _TRIES - 1:
                raise
        else:
            if answer.status not in (429, 503) or attempt == _TRIES - 1:
                return answer
            retry_after_s = error_of(answer).retry_after_s
            pause_s = min(_LONGEST_PAUSE_S, max(pause_s, retry_after_s or 0.0))
        time.sleep(pause_s)
    raise AssertionError("unreachable")
