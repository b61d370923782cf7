"""The parts of a node that its endpoints share."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any, final
from urllib.parse import parse_qsl

import msgspec
import structlog

from engram.api.call import Call
from engram.api.node_model import Noise
from engram.clock import Clock
from engram.hotkeys.python_json import JsonValue
from engram.http.client import HttpClient
from engram.memory import rules
from engram.memory.embed import noise
from engram.memory.embed.protocol import Embedder
from engram.memory.errors import IndexUnavailable
from engram.memory.model import PUBLIC, Record
from engram.memory.proof.commitment import Commitment
from engram.memory.proof.soundness import Soundness
from engram.memory.search.searcher import Searcher
from engram.memory.search.windows import Windows
from engram.memory.search.words import Words
from engram.memory.store.attestations import ANONYMOUS, Attestations, tier
from engram.memory.store.notebook_db import Notebook
from engram.memory.store.protocol import Store
from engram.memory.store.record_db import Truth
from engram.miner.auth import Caller, Gate, Space, private_name
from engram.miner.countersigning import Countersigner
from engram.miner.cursors import Cursors
from engram.miner.disguise import Disguise
from engram.miner.signer import Signer
from engram.miner.stakes import Subnet
from engram.miner.statistics import Statistics
from engram.miner.storage import StorageGauge
from engram.miner.uptime import Uptime
from engram.nodes.agreement import NodeSecrets
from engram.telemetry.metrics import Metrics

VERSION = "0.1.0"
_WINDOWS_WITHIN_S = 20.0
"""How long an answer waits for the windows of long texts, where it waits for them."""
_log = structlog.get_logger("engram.miner")
_SECURE = random.SystemRandom()


class Identity(msgspec.Struct, frozen=True):
    """The identity of this node."""

    session_id: str
    launch_token: str
    boot_id: str
    started_at: float
    netuid: int
    signer: Signer


@final
class Service:
    """Holds the parts; the endpoints are functions on it (handlers/)."""

    def __init__(
        self,
        *,
        identity: Identity,
        gate: Gate,
        limits: rules.RecordLimits,
        store: Store,
        truth: Truth,
        embedder: Embedder,
        commitment: Commitment,
        notebook: Notebook,
        attestations: Attestations,
        subnet: Subnet,
        storage: StorageGauge,
        statistics: Statistics,
        uptime: Uptime,
        metrics: Metrics,
        clock: Clock,
        searchable: Callable[[], bool],
        ready: Callable[[], bool] = lambda: True,
        private_bucket_s: float = 0.1,
        noise_sigma: float = 0.0,
        gauss: Callable[[float, float], float] = _SECURE.gauss,
        use_secrets: Callable[[NodeSecrets], None] = lambda _: None,
        countersigner: Countersigner | None = None,
        words: Words | None = None,
        windows: Windows | None = None,
        waits_for_windows: bool = False,
    ) -> None:
        self.identity = identity
        self.gate = gate
        self.limits = limits
        self.store = store
        self.truth = truth
        self.searcher = Searcher(store, truth, words, windows)
        for what, follows in (("words", words), ("windows", windows)):
            if follows is not None:
                follows.report(metrics.search_behind.labels(what).set)
        self._windows = windows
        self._waits_for_windows = waits_for_windows
        self.embedder = embedder
        self.commitment = commitment
        self.notebook = notebook
        self.attestations = attestations
        self.subnet = subnet
        self.storage = storage
        self.statistics = statistics
        self.uptime = uptime
        self.metrics = metrics
        self.clock = clock
        self.soundness = Soundness(truth, self._damage_met)
        self.searchable = searchable
        self.ready = ready
        self.noise = Noise(noise_sigma, noise.epsilon(noise_sigma), noise.DELTA) if noise_sigma > 0 else None
        self.cursors = Cursors(truth.truth_id)
        self._gauss = gauss
        self.countersigner = countersigner or Countersigner(HttpClient(), "", identity.signer, clock)
        self.use_secrets = use_secrets
        """Gives the parts what a gateway sent after the start."""
        self.exports_open = 0
        """The number of streamed exports in progress."""
        self.disguise = Disguise(private_bucket_s, metrics.late_buckets.inc)

    async def admit(self, call: Call[Any, Caller]) -> Caller:
        """Return the caller of a request, verified for its endpoint's operation as Gate.admit does."""
        if call.route.takes_body:
            return await self.gate.admit(call.http.body, call.route.signed_as)
        query = call.http.query_string.decode("latin-1")
        parameters = dict(reversed(parse_qsl(query, keep_blank_values=True, encoding="utf-8", errors="replace")))
        return await self.gate.admit_reading(_as_body(parameters, call.http.parameters), call.route.signed_as)

    async def enter(self, call: Call[Any, Caller]) -> tuple[Caller, Space]:
        """Return the caller and the namespace that the request names, and mark whether its answer must be disguised.

        Raises as Gate.admit and Gate.space do.
        """
        caller = await self.admit(call)
        self.statistics.used_by(caller.signer)
        call.is_private = call.is_private or private_name(caller.fields) is not None
        return caller, await self.gate.space(caller)

    def _damage_met(self, cid: str) -> None:
        self.metrics.damaged_records.inc()
        _log.error("record_damaged", cid=cid, advice="engram miner verify")

    def as_stored(self, space: Space, embedding: bytes) -> bytes:
        """Return the vector to store: unchanged, unless it is private and noise is on."""
        if self.noise is None or not space.is_private:
            return embedding
        return noise.blurred(embedding, self.noise.sigma, self._gauss)

    def has_windows(self, space: Space, text: str, metadata: Mapping[str, str]) -> bool:
        """Return whether a long text of this namespace gets windows, with this metadata."""
        if self._windows is None:
            return False
        return self.noise is None if space.is_private else metadata.get("text") == text

    async def wait_for_windows(self, record: Record | None) -> None:
        """Wait until a record is found by its windows, where the settings say so; 20 s at most."""
        if self._windows is not None and self._waits_for_windows and record is not None:
            with contextlib.suppress(IndexUnavailable):
                await self._windows.reached(_WINDOWS_WITHIN_S, record)

    def has_windows_of(self, record: Record | None) -> bool:
        """Return whether a record is found by its windows, if it has any."""
        return self._windows is not None and record is not None and self._windows.has(record)

    def trust_tier(self, space: Space) -> str:
        """Return the trust tier of a namespace, from the current stake of the hotkey that attested it."""
        held = self.attestations.get(space.name)
        if held is None or (space.key != PUBLIC and held.owner != space.owner):
            return ANONYMOUS
        return tier(self.subnet.stake_tao(held.owner))


def _as_body(parameters: Mapping[str, str], path: Mapping[str, str]) -> bytes:
    """Return the parameters of a GET as the body that signatures cover; path parameters win over the query."""
    typed: dict[str, JsonValue] = {**parameters, **path}
    for name in ("namespace_timestamp_ms", "namespace_sig_version", "nonce"):
        value = parameters.get(name)
        if value is not None and value.isascii() and value.isdigit() and len(value) <= 16:
            typed[name] = int(value)
    return msgspec.json.encode(typed)
