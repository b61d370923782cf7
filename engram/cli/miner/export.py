"""`engram miner export`: writes a node's memory to a file, from its folder, or over HTTP as its controller."""

import base64
import hashlib
import importlib
import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
from cyclopts import Parameter

from engram.cli import output
from engram.cli.data_folder import truth_of
from engram.cli.failures import CommandFailed, Exit
from engram.cli.progress import progress

Document = dict[str, object]
_ROWS_AT_ONCE = 256
_TAIL_BYTES = 64 * 1024**2
"""How far from the end the last line of an interrupted export is searched for."""


def export(
    source: Annotated[str, Parameter(help="A node's data folder, or the URL of a node (then with --key).")],
    target: Annotated[Path, Parameter(help="File to write; - for standard output (JSONL).", allow_leading_hyphen=True)],
    *,
    key: Annotated[Path | None, Parameter(help="The controller's hotkey file, to sign requests to a URL.")] = None,
    form: Annotated[
        Literal["jsonl", "parquet"] | None, Parameter(name="--format", help="Else by the file's ending.")
    ] = None,
) -> None:
    """Write records, key shares, conversations and attestations to a file, one document a row.

    From a folder: everything; the node may run. From a URL: everything public and the controller's own; after a stop,
    run it again to resume (JSONL). The file contains private data and has mode 0600.
    """
    chosen = form or ("parquet" if target.suffix == ".parquet" else "jsonl")
    remote = source.startswith(("http://", "https://"))
    if remote and key is None:
        raise CommandFailed(
            "only a node's controller can export its memory: name the controller's hotkey file with --key", Exit.USAGE
        )
    if str(target) == "-":
        for document in _documents(source, key, None):
            sys.stdout.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
        return
    if target.exists():
        raise CommandFailed(f"{target} exists already: name another file")
    whose = hashlib.sha256(f"{source} {key}".encode()).hexdigest()[:8]  # never continue another export's file
    partial = target.with_name(f"{target.name}.{whose}.partial")
    try:
        if chosen == "parquet":
            count = _write_parquet(_documents(source, key, None), partial)
        else:
            count = _write_lines(source, key, partial, go_on=remote)
        partial.rename(target)
    except OSError as error:
        raise CommandFailed(f"{target} was not written: {error}") from None
    output.complain(f"{target} has {count} documents")


def _write_lines(source: str, key: Path | None, partial: Path, *, go_on: bool) -> int:
    with open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        last = _last_line(file) if go_on else None
        if last is None:
            file.truncate(0)
        file.seek(0)
        count = sum(1 for _ in file)
        for document in _documents(source, key, last):
            file.write(msgspec.json.encode(document) + b"\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def _last_line(file: BinaryIO) -> tuple[str, int] | None:
    """Return kind and number of the last complete line, and cut off what follows it."""
    from engram.memory.upkeep.export_pages import KINDS

    end = file.seek(0, os.SEEK_END)
    start = max(0, end - _TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    whole, newline, _ = tail.rpartition(b"\n")
    if not newline:
        return None
    file.truncate(start + len(whole) + 1)
    try:
        document = json.loads(whole.rpartition(b"\n")[2])
        kind, number = str(document["kind"]), int(document["id"])
    except (ValueError, KeyError, TypeError):
        return None
    return (kind, number) if kind in KINDS else None


def _documents(source: str, key: Path | None, last: tuple[str, int] | None) -> Iterator[Document]:
    """Yield the documents after the one that `last` names. Raises CommandFailed."""
    from engram.hotkeys import HotkeyError
    from engram.memory.errors import MemoryAreaError
    from engram.sdk.errors import SdkError

    try:
        if key is not None and source.startswith(("http://", "https://")):
            yield from _from_node(source, key, last)
            return
        from engram.memory.upkeep import export_pages

        truth_of(Path(source))
        with progress("records") as on_progress:
            yield from export_pages.everything(Path(source), on_progress)
    except SdkError as error:
        raise CommandFailed(f"the export is incomplete: {error}; run it again to resume") from None
    except (MemoryAreaError, HotkeyError) as error:
        raise CommandFailed(str(error)) from None


def _from_node(url: str, key: Path, last: tuple[str, int] | None) -> Iterator[Document]:
    from engram.api.node import EXPORT
    from engram.api.node_model import ExportedPage
    from engram.cli.wallet.passwords import signing_key
    from engram.hotkeys import miner_scheme
    from engram.memory.upkeep.export_pages import KINDS
    from engram.sdk.node_calls import checked
    from engram.sdk.transport import Transport

    keypair = signing_key(key)
    at, number = last or (KINDS[0], 0)
    names = list[str](KINDS)
    transport = Transport(url, timeout_s=60.0)
    done, stamp = 0, 0
    try:
        with progress("documents") as on_progress:
            for kind in names[names.index(at) :]:
                after: int | None = number if kind == at else 0
                while after is not None:
                    stamp = max(time.time_ns() // 10**6, stamp + 1)
                    body = miner_scheme.sign_body(keypair, EXPORT.signed_as, {"kind": kind, "after": after}, stamp)
                    page = checked(transport.request("POST", EXPORT.path, body=msgspec.json.encode(body)), ExportedPage)
                    behind = after
                    for document in page.records:
                        behind = _behind(document, kind, behind)
                        yield document
                    done += len(page.records)
                    on_progress(done, done)
                    if page.next is not None and not after < page.next == behind:
                        raise CommandFailed(f"the node's export repeats itself: after {kind} {after} {page.next}")
                    after = page.next
    finally:
        transport.close()


def _behind(document: Document, kind: str, after: int) -> int:
    """Return the number of a document that must come after number `after`. Raises CommandFailed when it does not."""
    number = document.get("id")
    if type(number) is not int or number <= after or document.get("kind") != kind:
        raise CommandFailed(f"the node's export is not as one is: behind {kind} {after} it gave {str(number)[:40]}")
    return number


def _write_parquet(documents: Iterator[Document], partial: Path) -> int:
    """Write a row a document: columns for records, `document` (JSON) for other kinds. Raises CommandFailed, OSError."""
    try:
        pa: Any = importlib.import_module("pyarrow")
        pq: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise CommandFailed("Parquet needs pyarrow: pip install 'engram[parquet]', or write .jsonl") from None
    schema = pa.schema(
        [
            *((name, pa.string()) for name in _TEXTS),
            ("is_public", pa.bool_()),
            ("created_at", pa.float64()),
            ("embedding", pa.list_(pa.float32())),
            ("metadata", pa.string()),
            ("document", pa.string()),
        ]
    )
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    count = 0
    with pq.ParquetWriter(partial, schema) as writer:
        rows: list[dict[str, Any]] = []
        for document in documents:
            rows.append(_row(document))
            count += 1
            if len(rows) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return count


_TEXTS = ("kind", "namespace", "cid", "text", "model_version", "owner")


def _row(document: Document) -> dict[str, Any]:
    row: dict[str, Any] = {name: document.get(name) for name in (*_TEXTS, "is_public", "created_at")}
    if document["kind"] != "record":
        return row | {"document": json.dumps(document, ensure_ascii=False)}
    raw = base64.b64decode(str(document["embedding_b64"]))
    embedding = struct.unpack(f"<{len(raw) // 4}f", raw)
    return row | {"embedding": list(embedding), "metadata": json.dumps(document["metadata"], ensure_ascii=False)}
