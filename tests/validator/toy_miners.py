"""Miners on real loopback sockets that cheat in one way each; `Keeps` is the honest one."""

import hashlib
import json
import struct
from typing import Any

import msgspec
import trio

from engram.hotkeys import Keypair, miner_scheme
from engram.memory import cid as cids
from engram.memory.model import PUBLIC
from engram.memory.proof import keyed_tree, proofs
from tests.fakes.responder import Answer, Asked, Responder


def cosine(a: bytes, b: bytes) -> float:
    n = len(a) // 4
    x, y = struct.unpack(f"<{n}f", a), struct.unpack(f"<{n}f", b)
    return float(sum(p * q for p, q in zip(x, y, strict=True)))


class Keeps:
    """Stores, answers by cosine, proves by version 2."""

    def __init__(self, keypair: Keypair, **more: Any) -> None:
        self.keypair = keypair
        self.records: dict[str, bytes] = {}
        self.signers: dict[str, str] = {}
        """Signer of each record, by CID."""
        self.came: list[tuple[str, str, int]] = []
        """CID, signer and length of the text of each record, in the order in which they came."""
        self.deleted: list[str] = []
        self.askers: list[str] = []
        self.delay_s = 0.0
        self.responder = Responder(self.answer)
        self.url = ""
        for name, value in more.items():
            setattr(self, name, value)

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self.url = await nursery.start(self.responder.run)
            task_status.started(self.url)

    async def answer(self, asked: Asked) -> Answer | None:
        await trio.sleep(self.delay_s)
        endpoint = "DeleteSynapse" if asked.method == "DELETE" else asked.target.strip("/")
        signed = miner_scheme.verify_body(asked.body, endpoint, _nonce(asked.body))
        body = json.loads(asked.body)
        found: Any
        match endpoint:
            case "IngestSynapse":
                found = self.ingest(body, signed.request.hotkey)
            case "QuerySynapse":
                self.askers.append(signed.request.hotkey)
                found = self.query(body)
            case "ChallengeSynapse":
                found = self.challenge(body)
            case "DeleteSynapse":
                found = self.delete(body, signed.request.hotkey)
            case _:
                return 404, {}, b'{"error": "no such endpoint"}'
        status, answer = found if isinstance(found, tuple) else (200, found)
        return status, {"content-type": "application/json"}, json.dumps(answer).encode()

    def ingest(self, body: dict[str, Any], signer: str) -> Any:
        vector = struct.pack(f"<{len(body['raw_embedding'])}f", *body["raw_embedding"])
        cid = cids.compute(vector, body["metadata"])
        self.came.append((cid, signer, len(body["metadata"]["text"])))
        self.keep(cid, vector, signer)
        return {"cid": cid, "error": None}

    def keep(self, cid: str, vector: bytes, signer: str) -> None:
        self.records[cid] = vector
        self.signers[cid] = signer

    def query(self, body: dict[str, Any]) -> Any:
        vector = struct.pack(f"<{len(body['query_vector'])}f", *body["query_vector"])
        scored = sorted(((cosine(vector, held), cid) for cid, held in self.records.items()), reverse=True)
        hits = [{"cid": cid, "score": score, "metadata": {}} for score, cid in scored[: body["top_k"]]]
        return {"results": hits, "latency_ms": 0.1, "error": None}

    def challenge(self, body: dict[str, Any]) -> Any:
        cid, vector = body["cid"], self.records.get(body["cid"])
        if vector is None:
            return 404, {"error": "Nothing stored under that CID"}
        return self.proof(cid, vector, body)

    def proof(self, cid: str, vector: bytes, body: dict[str, Any]) -> Any:
        tree = keyed_tree.KeyedTree(keyed_tree.entry_of(each, held) for each, held in self.records.items())
        challenge = proofs.Challenge(
            self.keypair.public_key,
            bytes.fromhex(body["validator_hotkey_hex"]),
            bytes.fromhex(body["nonce_hex"]),
            cid,
            PUBLIC,
            tree.root,
            len(self.records),
            body["expires_at"],
        )
        proof = proofs.possession_proof(vector, challenge)
        signature = self.keypair.sign(proofs.transcript(challenge) + bytes.fromhex(proof))
        return {
            "version": 2,
            "proof": proof,
            "root_hex": tree.root.hex(),
            "count": len(self.records),
            "signature": "0x" + signature.hex(),
            "inclusion": msgspec.to_builtins(tree.show(cid)),
        }

    def delete(self, body: dict[str, Any], signer: str) -> Any:
        cid = body["cid"]
        if self.signers.get(cid, signer) != signer:
            return 403, {"error": "not yours"}
        self.deleted.append(cid)
        if self.records.pop(cid, None) is None:
            return 404, {"error": "not found"}
        return {"deleted": True, "cid": cid}


class ServesPublicFile(Keeps):
    """Knows the public file and keeps nothing of what it is given."""

    def keep(self, cid: str, vector: bytes, signer: str) -> None:
        pass


class KeepsHashes(ServesPublicFile):
    """Keeps the hash of each vector alone, which the legacy proof is satisfied with."""

    def __init__(self, keypair: Keypair, **more: Any) -> None:
        self.hashes: dict[str, str] = {}
        super().__init__(keypair, **more)

    def keep(self, cid: str, vector: bytes, signer: str) -> None:
        self.hashes[cid] = hashlib.sha256(vector).hexdigest()

    def challenge(self, body: dict[str, Any]) -> Any:
        if body["cid"] not in self.hashes:
            return 404, {"error": "Nothing stored under that CID"}
        return {"embedding_hash": self.hashes[body["cid"]], "proof": "00" * 32}


class Relays(ServesPublicFile):
    """Passes everything on to a miner that does not know of it; signs proofs itself, having no vector."""

    other: Keeps

    def ingest(self, body: dict[str, Any], signer: str) -> Any:
        return self.other.ingest(body, signer)

    def query(self, body: dict[str, Any]) -> Any:
        return self.other.query(body)

    def challenge(self, body: dict[str, Any]) -> Any:
        return self.other.challenge(body)


class Drops(Keeps):
    """Drops what is older than a round; `forget` is called between rounds."""

    def __init__(self, keypair: Keypair, **more: Any) -> None:
        self.fresh: set[str] = set()
        super().__init__(keypair, **more)

    def keep(self, cid: str, vector: bytes, signer: str) -> None:
        super().keep(cid, vector, signer)
        self.fresh.add(cid)

    def forget(self) -> None:
        self.records = {cid: vector for cid, vector in self.records.items() if cid in self.fresh}
        self.fresh = set()


def _nonce(body: bytes) -> int:
    return int(json.loads(body)["nonce"])
