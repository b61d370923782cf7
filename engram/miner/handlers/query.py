"""Finding: by meaning, or one record by its CID."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import final

from engram.memory import cid as cids
from engram.memory import rules
from engram.memory.errors import NotFound
from engram.memory.model import Excerpt, Record
from engram.miner.answers import RETRY, Answer, Asked, from_parameters, plain, told
from engram.miner.auth import Caller, Space
from engram.miner.service import Service


async def query(service: Service, body: bytes) -> Answer:
    """POST /QuerySynapse: the nearest records of the public or of a private namespace, by cosine."""
    began = time.perf_counter()

    def latency_ms() -> float:
        return round((time.perf_counter() - began) * 1000, 3)

    def form(status: int, error: str | None, **more: object) -> Answer:
        shown = {"results": [], "latency_ms": latency_ms(), "error": error, **more}
        return Answer(status, shown, RETRY if status == 503 else ())

    async def act(asked: Asked) -> Answer:
        caller = await service.gate.admit(body, "QuerySynapse")
        space = await service.space(asked, caller)
        checked = rules.check_query(caller.fields, service.limits)
        vector = checked.embedding
        if vector is None:
            (vector,) = await service.embedder.embed([checked.text or ""])
        hits = await service.store.query(space.key, vector, checked.top_k, checked.conditions)
        if not space.is_private:  # what others can see tells nothing of a tenant
            service.statistics.query_answered(latency_ms())
        tier, reader = service.trust_tier(space), Reader(service, caller, space)
        results = [{**reader.sees(hit.record), "score": round(hit.score, 6), "trust_tier": tier} for hit in hits]
        return form(200, None, results=results)

    answer = await told(service.disguise, act, form)
    outcome = "failed" if answer.status >= 500 else "refused" if answer.body["error"] else "answered"
    service.metrics.queries.labels(outcome).inc()
    service.metrics.query_seconds.observe(time.perf_counter() - began)
    return answer


async def retrieve(service: Service, cid: str, parameters: Mapping[str, str]) -> Answer:
    """GET /retrieve/{cid}: one record. A private one needs the namespace's fields as query parameters."""

    async def act(asked: Asked) -> Answer:
        caller = await service.gate.admit_reading(from_parameters(parameters, cid=cid), "retrieve")
        space = await service.space(asked, caller)
        return Answer(200, Reader(service, caller, space).sees(await found_record(service, space.key, cid)))

    return await told(service.disguise, act, plain)


async def found_record(service: Service, key: str, cid: str) -> Record:
    """Returns a record of a namespace, hashed. Raises NotFound, RecordDamaged, TruthUnavailable."""
    record = await held_record(service, key, cid)
    service.soundness.require(cid, record.embedding, record.metadata, record.model_version)
    return record


async def held_record(service: Service, key: str, cid: str) -> Record:
    """Returns a record of a namespace, whole or not. Raises NotFound, TruthUnavailable."""
    record = await service.store.get(key, cid) if cids.is_cid(cid) else None
    if record is None:
        raise NotFound
    return record


@final
class Reader:
    """Somebody who may see the records of a namespace.

    The text that a public record was made from is for the controller and for whoever stored it: what is meant for
    everybody is put in the metadata, as with the original.
    """

    __slots__ = ("_all_texts", "_signer")

    def __init__(self, service: Service, caller: Caller, space: Space) -> None:
        self._signer = caller.signer
        self._all_texts = space.is_private or caller.signer == service.gate.controller

    def sees(self, record: Record | Excerpt) -> dict[str, object]:
        """Returns what is shown of a record."""
        if record.text is not None and (self._all_texts or (self._signer is not None and self._signer == record.owner)):
            return {"cid": record.cid, "metadata": record.metadata, "text": record.text}
        return {"cid": record.cid, "metadata": record.metadata}
