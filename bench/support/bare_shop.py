"""The yardstick of a purchase: a bare process that does the same work with sqlite3, coincurve, sr25519 and sockets.

`python -m bench.support.bare_shop FACILITATOR_URL OFFER LEDGER READY_FD`. It imports nothing of ours and no framework.
For each paid POST it verifies the phone's sr25519 signature, recovers the payer's secp256k1 signature, writes the same
rows in the same three transactions (tables, indexes and a row of each are read from LEDGER, of a gateway that has sold
something), asks the same facilitator twice, signs its answer. One thread serves; one commits, and whatever waits shares
a commit, as in the gateway. Without a payment it answers 402 with OFFER. GET /commits tells the transactions so far.
"""

import base64
import hashlib
import json
import os
import queue
import secrets
import select
import socket
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Generator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import sr25519
from coincurve import PublicKey
from Crypto.Hash import keccak
from scalecodec.utils.ss58 import ss58_decode

Statement: TypeAlias = tuple[str, Sequence[Any]]
Step: TypeAlias = "list[Statement] | tuple[str, bytes]"
"""A transaction, or what is sent to a path of the facilitator."""
Sale: TypeAlias = Generator[Step, bytes, bytes]

_LENGTH: Final = b"content-length:"
_WRITTEN: Final = ("payments", "sessions", "answered_requests", "session_events")


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


_DOMAIN: Final = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_TRANSFER: Final = keccak256(
    b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
    b"bytes32 nonce)"
)


def domain_of(offer: dict[str, Any]) -> bytes:
    """The EIP-712 domain of the token that is asked for."""
    name, version = (keccak256(offer["extra"][field].encode()) for field in ("name", "version"))
    chain = int(offer["network"].partition(":")[2]).to_bytes(32)
    return keccak256(b"".join((_DOMAIN, name, version, chain, _word(offer["asset"]))))


def check(header: str, offer: dict[str, Any], domain: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """The payment of a PAYMENT-SIGNATURE header, its payer and nonce, once terms and signature were found good."""
    paid: dict[str, Any] = json.loads(base64.b64decode(header))
    assert paid["accepted"] == offer
    signed = paid["payload"]["authorization"]
    assert int(signed["value"]) == int(offer["amount"])
    assert signed["to"] == offer["payTo"]
    assert int(signed["validBefore"]) > time.time()
    payer, nonce = bytes.fromhex(signed["from"][2:]), bytes.fromhex(signed["nonce"][2:])
    numbers = [int(signed[name]).to_bytes(32) for name in ("value", "validAfter", "validBefore")]
    message = keccak256(b"".join((_TRANSFER, _word(signed["from"]), _word(signed["to"]), *numbers, nonce)))
    made = bytes.fromhex(paid["payload"]["signature"][2:])
    digest = keccak256(b"\x19\x01" + domain + message)
    key = PublicKey.from_signature_and_message(made[:64] + bytes((made[64] - 27,)), digest, hasher=None)
    assert keccak256(key.format(compressed=False)[1:])[-20:] == payer
    return paid, payer, nonce


# --- the database -----------------------------------------------------------------------------------------------------


class Rows:
    """A database of the same tables as the gateway's, and a thread that commits to it."""

    def __init__(self, ledger: str, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "rows.sqlite3", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        source = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
        source.row_factory = sqlite3.Row
        marks = ",".join("?" * len(_WRITTEN))
        found = f"SELECT sql FROM sqlite_master WHERE tbl_name IN ({marks}) AND sql IS NOT NULL ORDER BY type DESC"
        for (sql,) in source.execute(found, _WRITTEN).fetchall():
            self._database.execute(sql)
        self.examples = {
            table: dict(source.execute(f"SELECT * FROM {table} ORDER BY rowid DESC").fetchone()) for table in _WRITTEN
        }
        source.close()
        self._inserts = {
            table: f"INSERT INTO {table} ({','.join(row)}) VALUES ({','.join('?' * len(row))})"
            for table, row in self.examples.items()
        }
        self._waiting: queue.SimpleQueue[tuple[Sale, list[Statement]]] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Sale] = queue.SimpleQueue()
        self.wake = os.eventfd(0)
        self.commits = 0
        threading.Thread(target=self._work, daemon=True).start()

    def insert(self, table: str, **changed: Any) -> Statement:
        return self._inserts[table], [*(self.examples[table] | changed).values()]

    def write(self, sale: Sale, statements: list[Statement]) -> None:
        self._waiting.put((sale, statements))

    def _work(self) -> None:
        while True:
            group = [self._waiting.get()]
            while not self._waiting.empty():
                group.append(self._waiting.get())
            self._database.execute("BEGIN IMMEDIATE")
            for _, statements in group:
                for sql, values in statements:
                    self._database.execute(sql, values)
            self._database.execute("COMMIT")
            self.commits += 1
            for sale, _ in group:
                self.done.put(sale)
            os.eventfd_write(self.wake, 1)


# --- a sale -----------------------------------------------------------------------------------------------------------


class Seller:
    """What is done for a request; who waits for what is the server's business."""

    def __init__(self, rows: Rows, offer: dict[str, Any]) -> None:
        self._rows, self._offer = rows, offer
        self._header = base64.b64encode(json.dumps({"x402Version": 2, "accepts": [offer]}).encode())
        self._key = sr25519.pair_from_seed(secrets.token_bytes(32))
        self._domain = domain_of(offer)

    def answer(self, head: bytes, body: bytes) -> Sale:
        lines = head.decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        if path == "/commits":
            return _response("200 OK", json.dumps({"commits": self._rows.commits}).encode())
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        signer = self._verify(method, path, headers, body)
        if "payment-signature" not in headers:
            return _response("402 Payment Required", b"{}", b"payment-required: " + self._header + b"\r\n")
        order = json.loads(body)
        paid, payer, nonce = check(headers["payment-signature"], self._offer, self._domain)
        payment, session = str(uuid.uuid4()), str(uuid.uuid4())
        request = {"x402Version": 2, "paymentPayload": paid, "paymentRequirements": self._offer}
        asked = json.dumps(request).encode()
        yield self._reserve(payment, session, signer, payer, nonce, json.dumps(paid).encode(), headers)
        verified = json.loads((yield "/verify", asked))
        assert verified["isValid"], verified
        yield [_progress(payment, "reserved", "settling")]
        settled = json.loads((yield "/settle", asked))
        assert settled["success"], settled
        yield [
            _progress(payment, "settling", "settled"),
            ("UPDATE sessions SET state = 'provisioning' WHERE id = ? AND state = 'payment_pending'", [session]),
            self._rows.insert("session_events", id=None, session_id=session),
        ]
        sold = json.dumps({"session_id": session, "status": "provisioning", **order, "payment": settled}).encode()
        digest = hashlib.sha256(sold).hexdigest()
        message = f"engram-gateway:202:{headers['x-timestamp']}:{digest}".encode()
        signature = sr25519.sign(self._key, message).hex().encode()
        return _response("202 Accepted", sold, b"x-gateway-sig: " + signature + b"\r\n")

    def _verify(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        message = f"engram-cloud:{method}:{path}:{headers['x-timestamp']}:{hashlib.sha256(body).hexdigest()}".encode()
        signer = _public_key(headers["x-hotkey"])
        assert sr25519.verify(bytes.fromhex(headers["x-sig"]), message, signer)
        return signer

    def _reserve(
        self,
        payment: str,
        session: str,
        signer: bytes,
        payer: bytes,
        nonce: bytes,
        payload: bytes,
        headers: dict[str, str],
    ) -> list[Statement]:
        insert = self._rows.insert
        return [
            ("SELECT id FROM payments WHERE payer = ? AND nonce = ?", [payer, nonce]),
            insert(
                "payments",
                id=payment,
                session_id=session,
                state="reserved",
                controller=signer,
                payer=payer,
                nonce=nonce,
                payload=payload,
            ),
            insert("sessions", id=session, controller=signer, payment_id=payment, state="payment_pending"),
            insert(
                "answered_requests",
                public_key=signer,
                message_hash=hashlib.sha256(headers["x-sig"].encode()).digest(),
                payment_id=payment,
            ),
        ]


def _progress(payment: str, was: str, state: str) -> Statement:
    changed = "UPDATE payments SET state = ?, attempts = attempts + 1, updated_at = ? WHERE id = ? AND state = ?"
    return changed, [state, time.time(), payment, was]


@lru_cache
def _public_key(hotkey: str) -> bytes:
    return bytes.fromhex(ss58_decode(hotkey))


def _word(address: str) -> bytes:
    return bytes(12) + bytes.fromhex(address[2:])


def _response(status: str, body: bytes, extra: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + extra + b"\r\n" + body


# --- sockets ----------------------------------------------------------------------------------------------------------


class Wire:
    """A connection, from which whole messages are taken."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self._received = bytearray()
        self.sale: Sale | None = None
        """What an answer on this connection goes to."""

    def receive(self) -> tuple[bytes, bytes] | None:
        """Head and body of a message when it is whole. Raises EOFError when the other side has closed."""
        part = self.socket.recv(262_144)
        if not part:
            raise EOFError
        self._received += part
        head, found, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not found:
            return None
        at = head.lower().find(_LENGTH)
        length = 0 if at < 0 else int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return None
        self._received.clear()
        return head, rest


class Server:
    """An epoll loop over phones, facilitator and the thread that commits."""

    def __init__(self, listener: socket.socket, facilitator: tuple[str, int], rows: Rows, seller: Seller) -> None:
        self._listener, self._facilitator, self._rows, self._seller = listener, facilitator, rows, seller
        self._ready = select.epoll()
        self._wires: dict[int, Wire] = {}
        self._free: list[Wire] = []
        self._phones: dict[Sale, Wire] = {}

    def run(self) -> None:
        self._ready.register(self._listener, select.EPOLLIN)
        self._ready.register(self._rows.wake, select.EPOLLIN)
        while True:
            for number, _ in self._ready.poll():
                if number == self._listener.fileno():
                    self._watch(self._listener.accept()[0])
                elif number == self._rows.wake:
                    os.eventfd_read(number)
                    while not self._rows.done.empty():
                        self._go_on(self._rows.done.get(), b"")
                else:
                    self._take(self._wires[number])

    def _watch(self, connected: socket.socket) -> Wire:
        wire = self._wires[connected.fileno()] = Wire(connected)
        self._ready.register(connected, select.EPOLLIN)
        return wire

    def _take(self, wire: Wire) -> None:
        try:
            message = wire.receive()
        except (EOFError, ConnectionError):
            self._ready.unregister(wire.socket)
            del self._wires[wire.socket.fileno()]
            if wire in self._free:
                self._free.remove(wire)
            wire.socket.close()
            return
        if message is None:
            return
        if wire.sale is None:
            sale = self._seller.answer(*message)
            self._phones[sale] = wire
            self._go_on(sale, None)
        else:
            sale, wire.sale = wire.sale, None
            self._free.append(wire)
            self._go_on(sale, message[1])

    def _go_on(self, sale: Sale, value: bytes | None) -> None:
        try:
            step = next(sale) if value is None else sale.send(value)
        except StopIteration as ended:
            self._phones.pop(sale).socket.sendall(ended.value)
            return
        if isinstance(step, list):
            self._rows.write(sale, step)
            return
        path, body = step
        wire = self._free.pop() if self._free else self._watch(socket.create_connection(self._facilitator))
        wire.sale = sale
        host, port = self._facilitator
        head = f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
        wire.socket.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


def main(facilitator_url: str, offer: str, ledger: str, ready_fd: int) -> None:
    host, _, port = facilitator_url.rpartition("//")[2].rstrip("/").partition(":")
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(ledger, Path(folder))
        listener = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        os.write(ready_fd, json.dumps({"url": url}).encode() + b"\n")
        os.close(ready_fd)
        Server(listener, (host, int(port)), rows, Seller(rows, json.loads(offer))).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
