"""What each request to a node may do and see, said once more without any of the node's code.

It knows by construction who made which signature (nothing is verified here), and from that: whose namespace a request
acts on, its HTTP status, and the CIDs, counts and texts that its answer shows.
"""

import hashlib
import json
import struct
from typing import Any, Literal

import msgspec

Endpoint = Literal[
    "ingest", "batch", "query", "list", "retrieve", "delete", "challenge", "challenge2", "prove", "root", "whole",
    "legacy root", "put share", "get share", "walk", "look up", "delete batch", "windows", "words", "hybrid",
    "repair", "export", "export stream", "save chat", "chat", "chats",
    "make chat", "rename chat", "delete chat", "attest", "attestation", "health", "stats", "metagraph", "metrics",
]  # fmt: skip
SPACED = frozenset(
    {"ingest", "batch", "query", "list", "retrieve", "delete", "challenge", "challenge2", "prove", "root", "whole",
     "legacy root", "put share", "get share", "walk", "look up", "delete batch", "windows", "words", "hybrid"}
)  # fmt: skip
"""Endpoints that act on a namespace; their answers are disguised when it is a private one."""
GETS = frozenset({"retrieve", "root", "whole", "legacy root", "chat", "chats"})
CHANGING = frozenset({"ingest", "batch", "delete", "delete batch", "put share"})
OPEN = frozenset({"attestation", "health", "stats", "metagraph", "metrics"})
"""Endpoints that look at no signature."""
RULED = frozenset({"ingest", "query", "windows", "words", "hybrid"})
"""Endpoints that tell a broken rule with status 200."""

Space = tuple[str, str]
"""Who opens it (a person, or `key:…`) and its name; everybody's is `("", "")`."""
EVERYBODYS: Space = ("", "")


class Shown(msgspec.Struct, frozen=True):
    """What a request shows of its right. Signatures have numbers: the same number is the same signature."""

    endpoint: Endpoint
    name: str | None = None
    signer: str | None = None
    """Who signed the body; `body` is the number of that signature."""
    body: int = 0
    body_is_wrong: bool = False
    namer: str | None = None
    """Who signed the namespace, by version 1 (`stamp`) or 2 (`bound`)."""
    stamp: int = 0
    bound: int = 0
    name_is_wrong: bool = False
    key: str | None = None
    elsewhere: bool = False
    cid: str = ""
    contents: tuple[int, ...] = ()
    text: str = ""
    share: str = ""
    wire: bytes = b""
    """Everything that was sent."""


class Told(msgspec.Struct, frozen=True):
    """What the answer must be. None: not said."""

    status: int
    disguised: bool
    whose: str = ""
    """Whose right the request had: a person, a key, or nobody's."""
    cids: tuple[str, ...] | None = None
    texts: frozenset[str] = frozenset()
    """The only private texts that may be in the answer."""
    count: int | None = None
    share: str | None = None


class Held(msgspec.Struct, frozen=True):
    """A record: who stored it, and the text beside it."""

    owner: str | None
    text: str


def embedding(content: int) -> list[float]:
    """A vector of 8 numbers for each content."""
    return [1.0, content / 4, *([0.0] * 6)]


def cid_of(content: int) -> str:
    packed = struct.pack("<8f", *embedding(content))
    metadata = json.dumps({"content": str(content), "model_version": "v1"}, separators=(",", ":"))
    return "v1::" + hashlib.sha256(packed + metadata.encode()).hexdigest()


class Model:
    """A node on which `anyone` (or only `host`, its controller) may have private namespaces."""

    def __init__(self, host: str, *, is_open: bool, is_strict: bool) -> None:
        self.host = host
        self.is_open = is_open
        self.is_strict = is_strict
        self.records: dict[Space, dict[str, Held]] = {EVERYBODYS: {}}
        self.shares: dict[Space, str] = {}
        self.chats: dict[str, str] = {}
        self.attested: dict[str, str] = {}
        self._bodies: set[int] = set()
        self._bounds: set[int] = set()
        self._stamps: dict[int, bytes] = {}

    def answer(self, shown: Shown) -> Told:
        """What the node must answer; changes the model as the request changes the node."""
        if shown.endpoint in OPEN:
            return self._open(shown)
        stamped = self._stamped(shown)
        signer, is_new = shown.signer, shown.body not in self._bodies
        disguised = shown.endpoint in SPACED and shown.name is not None
        if shown.elsewhere:
            return Told(401, disguised)
        if signer is not None:
            self._bodies.add(shown.body)
        doubtful = shown.body_is_wrong or (signer is not None and not is_new)
        signer = None if doubtful else signer
        if self.is_strict and (doubtful or (signer is None and shown.endpoint not in GETS | {"attest"})):
            return Told(401, disguised)
        if shown.endpoint not in SPACED:
            return self._signed(shown, signer)
        return self._spaced(shown, signer, stamped)

    def visible_texts(self, whose: str) -> frozenset[str]:
        """All texts of records and chats in the namespaces of a person or key."""
        held = [each.text for space, there in self.records.items() if space[0] == whose for each in there.values()]
        return frozenset({*held, *(text for space, text in self.shares.items() if space[0] == whose)})

    def _stamped(self, shown: Shown) -> int:
        """The status that a signature for the name alone earns: 200, or 403 for what it did not come with first."""
        if not shown.stamp or shown.name_is_wrong:
            return 200
        if shown.stamp not in self._stamps:
            self._stamps[shown.stamp] = shown.wire
            return 200
        return 200 if self._stamps[shown.stamp] == shown.wire and shown.endpoint not in CHANGING else 403

    def _spaced(self, shown: Shown, signer: str | None, stamped: int) -> Told:
        disguised = shown.name is not None
        if shown.name is None:
            if shown.endpoint in ("put share", "get share"):
                return Told(400, disguised=False)
            return self._act(shown, signer, EVERYBODYS, whose=signer or "", bound=False)
        if not shown.name.isidentifier():
            return Told(200 if shown.endpoint in RULED else 400, disguised)
        if shown.namer is not None:
            if shown.name_is_wrong or stamped != 200 or shown.bound in self._bounds:
                return Told(403, disguised)
            if shown.bound:
                self._bounds.add(shown.bound)
            whose, bound = shown.namer, bool(shown.bound) or signer == shown.namer
        elif shown.key is not None:
            if not self.is_open:
                return Told(403, disguised)
            whose, bound = shown.key, True
        elif signer is not None:
            whose, bound = signer, True
        else:
            return Told(403, disguised)
        if not self.is_open and whose != self.host and "share" not in shown.endpoint:
            return Told(403, disguised)
        return self._act(shown, signer, (whose, shown.name), whose=whose, bound=bound)

    def _act(self, shown: Shown, signer: str | None, space: Space, *, whose: str, bound: bool) -> Told:
        there = self.records.setdefault(space, {})
        private = space != EVERYBODYS
        owner = signer or (None if space[0].startswith("key:") or not private else space[0])
        seen = {cid for cid, held in there.items() if private or (signer and signer in (self.host, held.owner))}
        texts = frozenset(there[cid].text for cid in seen)
        match shown.endpoint:
            case "ingest" | "batch":
                for content in shown.contents:
                    there.setdefault(cid_of(content), Held(owner, shown.text))
                return Told(200, private, whose, tuple(cid_of(content) for content in shown.contents))
            case "words" if not private:  # only words in metadata, of which there are none, may be found by everyone
                return Told(200, private, whose, (), count=0)
            case "query" | "list" | "walk" | "windows" | "words" | "hybrid":
                return Told(200, private, whose, tuple(there), texts, len(there))
            case "look up":
                found = [cid for cid in map(cid_of, dict.fromkeys(shown.contents)) if cid in there]
                texts = frozenset(there[cid].text for cid in found if cid in seen)
                return Told(200, private, whose, tuple(found), texts, len(found))
            case "delete batch":
                return self._delete_batch(shown, signer, space, whose=whose, bound=bound)
            case "retrieve":
                held = shown.cid in there
                return Told(200 if held else 404, private, whose, (shown.cid,) if held else None, texts)
            case "challenge" | "challenge2":
                count = len(there) if shown.endpoint == "challenge2" else None
                return Told(200, private, whose, count=count) if shown.cid in there else Told(404, private, whose)
            case "prove" if not shown.cid.startswith("v1::"):
                return Told(404, private, whose)
            case "prove":
                return Told(200, private, whose, (shown.cid,) if shown.cid in there else (), count=len(there))
            case "root":
                return Told(200, private, whose, count=len(there))
            case "legacy root":
                return Told(400, private, whose) if private else Told(200, private, whose, count=len(there))
            case "whole" if private:
                return Told(400, private, whose)
            case "whole":
                if signer != self.host:
                    return Told(403 if signer else 401, private, whose)
                return Told(200, private, whose, count=sum(map(len, self.records.values())))
            case "delete":
                return self._delete(shown, signer, space, whose=whose, bound=bound)
            case "put share":
                kept = self.shares.setdefault(space, shown.share)
                return Told(200 if kept == shown.share else 409, private, whose)
            case _:
                kept = self.shares.get(space, "")
                return Told(200 if kept else 404, private, whose, texts=frozenset({kept}), share=kept or None)

    def _delete(self, shown: Shown, signer: str | None, space: Space, *, whose: str, bound: bool) -> Told:
        there, private = self.records[space], space != EVERYBODYS
        if private and not bound:
            return Told(401, private, whose)
        if shown.cid not in there:
            return Told(404, private, whose)
        if not private and (signer is None or signer not in (self.host, there[shown.cid].owner)):
            return Told(403 if signer else 401, private, whose)
        del there[shown.cid]
        return Told(200, private, whose, (shown.cid,))

    def _delete_batch(self, shown: Shown, signer: str | None, space: Space, *, whose: str, bound: bool) -> Told:
        there, private = self.records[space], space != EVERYBODYS
        if not (bound if private else signer):
            return Told(401, private, whose)
        may = {cid for cid, held in there.items() if private or signer in (self.host, held.owner)}
        gone = [cid for cid in dict.fromkeys(map(cid_of, shown.contents)) if cid in may]
        for cid in gone:
            del there[cid]
        return Told(200, private, whose, tuple(gone))

    def _signed(self, shown: Shown, signer: str | None) -> Told:
        """Endpoints that act for whoever signed the body, or for everybody."""
        match shown.endpoint:
            case "repair":
                held = shown.cid in self.records[EVERYBODYS]
                return Told(200 if held else 404, False, cids=(shown.cid,) if held else None)
            case "attest":
                return self._attest(shown)
            case "export" | "export stream":
                if signer != self.host:
                    return Told(403 if signer else 401, False, signer or "")
                texts = self.visible_texts(self.host) | self.visible_texts("")
                chats = frozenset({self.chats[self.host]} if self.host in self.chats else ())
                cids = [cid for space in self.records if space[0] in ("", self.host) for cid in self.records[space]]
                return Told(200, False, signer, tuple(cids), texts | chats)
            case _:
                if signer is None or not (self.is_open or signer == self.host):
                    return Told(401 if signer is None else 403, False, signer or "")
                return self._chat(shown, signer)

    def _chat(self, shown: Shown, signer: str) -> Told:
        there = signer in self.chats
        match shown.endpoint:
            case "save chat":
                self.chats[signer] = shown.text
                return Told(200, False, signer)
            case "make chat":
                self.chats.setdefault(signer, "")
                return Told(200, False, signer)
            case "delete chat":
                self.chats.pop(signer, None)
                return Told(200 if there else 404, False, signer)
            case "rename chat":
                return Told(200 if there else 404, False, signer)
            case "chat":
                return Told(200, False, signer, texts=frozenset({self.chats.get(signer, "")}))
            case _:
                return Told(200, False, signer, count=int(there))

    def _attest(self, shown: Shown) -> Told:
        """`namer` attests; the first one stays."""
        if shown.name_is_wrong:
            return Told(401, False)
        namer, name = shown.namer or "", shown.name or ""
        if not self.is_open and namer != self.host:
            return Told(403, False)
        if not name.isidentifier():
            return Told(400, False)
        return Told(200 if self.attested.setdefault(name, namer) == namer else 403, False)

    def _open(self, shown: Shown) -> Told:
        match shown.endpoint:
            case "health" | "stats":
                return Told(200, False, count=len(self.records[EVERYBODYS]))
            case "attestation":
                return Told(200, False, share=self.attested.get(shown.name or "", "") or None)
            case "metrics":
                return Told(404, False)
            case _:
                return Told(200, False)


def shown_cids(endpoint: Endpoint, body: dict[str, Any]) -> tuple[str, ...]:
    """The CIDs that an answer claims are there."""
    match endpoint:
        case "batch":
            return tuple(result["cid"] for result in body["results"])
        case "query" | "windows" | "words" | "hybrid":
            return tuple(sorted(hit["cid"] for hit in body["results"]))
        case "delete batch":
            return tuple(result["cid"] for result in body["results"] if result["deleted"])
        case "list" | "walk" | "look up":
            return tuple(record["cid"] for record in body["records"])
        case "prove":
            return (body["cid"],) if body["included"] else ()
        case _:
            return (body["cid"],)
