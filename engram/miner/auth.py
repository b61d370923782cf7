"""Authenticates callers and authorizes access to namespaces: signatures, replays, ownership.

Only a verified signature counts; a claimed hotkey alone never does. Where signatures are not required (local), an
unsigned request, or one with an invalid signature, has the rights of anyone: to store and find public records. A
private namespace belongs to the key that signs for it. Two keys that use the same name have two namespaces, so no key
can take, see or overwrite another's, or learn that it exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, final

import msgspec
import trio

from engram.clock import Clock
from engram.hotkeys import AuthError, PublicKey, ReplayStore, miner_scheme, ss58
from engram.hotkeys.python_json import JsonObject, JsonValue, MalformedJson, ReadObject
from engram.hotkeys.replay_guard import FirstUse, ReplayFloor
from engram.hotkeys.scheme import SignedRequest
from engram.memory import rules
from engram.memory.model import PUBLIC
from engram.miner import authority
from engram.miner.errors import Refused
from engram.miner.namespace_keys import NamespaceKeys

_REMEMBERED = 300_000
_REMEMBERED_OF_ONE = 100_000
"""The most signed requests of one key in a minute: 1,600/s, a third of the capacity."""
_READS = frozenset(
    {
        "QuerySynapse",
        "list",
        "LookupBatch",
        "retrieve",
        "ChallengeSynapse",
        "commitment",
        "prove-memory",
        "KeyShareRetrieve",
    }
)
"""Endpoints that change nothing. As the original does, a node answers an identical request with the same version 1
signature again."""
_LARGEST_BUT_BATCHES = 1_048_576
_READ_ON_THE_LOOP = 16_384
"""A body of up to this many bytes is parsed and verified on the loop: about 1 ms."""


class Caller(msgspec.Struct, frozen=True):
    """A request and its signer; `doubt` says why a signature that was present does not count."""

    read: ReadObject
    endpoint: str
    signer: PublicKey | None
    request: SignedRequest | None = None
    doubt: str = ""
    doubt_code: str = ""
    """The code for `doubt`: an AuthError's, or `replayed`."""
    body_sha256: bytes = b""
    """The digest of the raw body of a request with a version 1 namespace signature; empty for others."""
    named_by: PublicKey | Refused | None = None
    """The key that made the version 1 signature, or the reason to refuse it."""
    named: SignedRequest | AuthError | None = None
    """The version 2 namespace signature, or why it is invalid. Not yet checked for replay."""

    @property
    def fields(self) -> JsonObject:
        """The object that was sent."""
        return self.read.fields


class Space(msgspec.Struct, frozen=True):
    """A namespace with its owner. `key` is its name in the store, different for each owner."""

    key: str
    name: str = PUBLIC
    owner: PublicKey | None = None
    """None for the public namespace and for one opened by a `namespace_key`."""
    bound: bool = False
    """Whether the signature covers this request, not only the name of the namespace."""

    @property
    def is_private(self) -> bool:
        """Whether it is not the public namespace."""
        return self.key != PUBLIC


EVERYBODYS = Space(PUBLIC)


@final
class Gate:
    """Authenticates the requests to one node. Timestamps from before its start are refused, so replays need not be kept
    for the next process."""

    def __init__(
        self,
        *,
        controller: PublicKey,
        require_signature: bool,
        clock: Clock,
        node: PublicKey | None = None,
        tenants: Literal["controller", "anyone"] = "controller",
        floor: ReplayFloor | None = None,
    ) -> None:
        """`node` is this node's own key, which a request may name as its only receiver (`signed_for`).

        Without `floor`, a request whose timestamp is in the future could be accepted again after a restart.
        """
        self.controller = controller
        self.require_signature = require_signature
        self._node = "" if node is None else ss58.encode(node)
        self._tenants = tenants
        self._clock = clock
        self._floor = floor
        self._raising_floor = trio.Lock()
        self._started_ms = max(self._now_ms(), 0 if floor is None else floor.ms)
        self._replays = ReplayStore(bound=_REMEMBERED, per_sender=_REMEMBERED_OF_ONE)
        self._request_replays = ReplayStore(bound=_REMEMBERED, per_sender=_REMEMBERED_OF_ONE)
        self._first_uses = FirstUse(
            window_ms=miner_scheme.NAMESPACE_WINDOW_MS, bound=_REMEMBERED, per_sender=_REMEMBERED_OF_ONE
        )
        self._keys = NamespaceKeys()
        self._reading = trio.CapacityLimiter(1)

    async def admit(self, body: bytes, endpoint: str) -> Caller:
        """Read a body and verify who signed it for that endpoint.

        Raises Refused: 400 when it is not a JSON object, 401 when a required signature is missing or invalid.
        """
        caller = await self.admit_reading(body, endpoint)
        if self.require_signature and caller.signer is None:
            refused = Refused(401, "missing_signature", "This node requires signed requests: hotkey, nonce, signature.")
            refused.names_private = _names_private(caller.fields)
            raise refused
        return caller

    async def admit_reading(self, body: bytes, endpoint: str) -> Caller:
        """Do as `admit` for a request that never requires a signature (a GET)."""
        if len(body) > _LARGEST_BUT_BATCHES and endpoint != "IngestBatch":
            raise Refused(413, "body_too_large", f"At most {_LARGEST_BUT_BATCHES} bytes; only batches may be larger.")
        if len(body) <= _READ_ON_THE_LOOP:
            caller = self._read(body, endpoint)
        else:
            caller = await trio.to_thread.run_sync(self._read, body, endpoint, limiter=self._reading)
        if caller.body_sha256:  # first of all: even a refused request has exposed its signature
            caller = msgspec.structs.replace(caller, named_by=self._named_by(caller))
        if self._floor is not None and (caller.request or caller.named or caller.named_by):
            await self._cover(self._floor, caller)
        try:
            return self._admitted(caller)
        except Refused as refused:
            refused.names_private = _names_private(caller.fields)
            raise

    async def space(self, caller: Caller) -> Space:
        """Return the namespace that the request names and may use: public, or a private one.

        Raises Refused (400, 401, 403), InvalidInput for an impossible name.
        """
        space = await self.claimed(caller)
        if space.is_private and self._tenants == "controller" and space.owner != self.controller:
            raise _not_the_controllers()
        return space

    async def claimed(self, caller: Caller) -> Space:
        """Return the namespace that the request names and signs for, whether or not its owner may use one on this node.

        A namespace that is opened by a key is allowed only where anyone may have one.

        Raises as `space` does.
        """
        name = private_name(caller.fields)
        if name is None:
            return EVERYBODYS
        rules.check_namespace(name)
        fields = caller.fields
        if _signs_namespace(fields):
            return self._signed_space(caller, name)
        if _opens_by_key(fields):
            if self._tenants == "controller":  # before the costly derivation from a key that a client may invent
                raise _not_the_controllers()
            return Space(await self._keys.derive(name, fields["namespace_key"]), name, bound=True)
        if caller.signer is not None:
            return self._of(caller.signer, name, bound=True)
        raise Refused(
            403,
            "namespace_unsigned",
            "A private namespace requires namespace_hotkey, namespace_sig and namespace_timestamp_ms.",
        )

    def require_controller_or(self, owner: PublicKey | None, caller: Caller) -> None:
        """Raise Refused unless the controller or the owner of the record signed."""
        signer = self.require_signer(caller)
        if signer not in (self.controller, owner):
            raise Refused(403, "not_owner", "Only the controller of this node or the owner of the record may do this.")

    def require_controller(self, caller: Caller) -> None:
        """Raise Refused unless the controller signed."""
        if self.require_signer(caller) != self.controller:
            raise Refused(403, "not_controller", "Only the controller of this node may do this.")

    def require_tenant(self, caller: Caller) -> PublicKey:
        """Return the signer if it may store private data on this node. Raises Refused."""
        if self._tenants == "controller":
            self.require_controller(caller)
        return self.require_signer(caller)

    def require_signer(self, caller: Caller) -> PublicKey:
        """Return the key that signed the body. Raises Refused when none did."""
        if caller.signer is None:
            reason = caller.doubt or "hotkey, nonce and signature are missing"
            raise Refused(401, "missing_signature", f"This must be signed by the controller or the owner: {reason}.")
        return caller.signer

    def attester(self, fields: Mapping[str, JsonValue]) -> PublicKey:
        """Return the key that signed an attestation. Raises Refused."""
        try:
            owner = miner_scheme.verify_attestation(fields, self._now_ms(), self._started_ms).public_key
        except AuthError as error:
            status = 400 if error.code in ("malformed", "missing_header") else 401
            raise Refused(status, "attestation_signature", f"The attestation does not hold: {error}.") from error
        if self._tenants == "controller" and owner != self.controller:
            raise Refused(403, "not_owner", "Only the controller of this node may attest its namespaces.")
        if fields.get("namespace") == PUBLIC and owner != self.controller:
            raise Refused(403, "not_owner", "Only the controller of this node may stand for its public namespace.")
        return owner

    async def _cover(self, floor: ReplayFloor, caller: Caller) -> None:
        stamps = [each.timestamp_ms for each in (caller.request, caller.named) if isinstance(each, SignedRequest)]
        if isinstance(caller.named_by, PublicKey):
            stamps.append(int(str(caller.fields["namespace_timestamp_ms"])))
        latest_ms = max(stamps, default=0)
        if floor.covers(latest_ms, now_ms=self._now_ms()):
            return
        try:
            async with self._raising_floor:
                await trio.to_thread.run_sync(floor.raise_above, latest_ms)
        except OSError as error:
            why = f"A timestamp ahead of this node's clock is not accepted now ({error.strerror}); sign it again."
            raise Refused(503, "stamp_not_kept", why) from error

    def _admitted(self, caller: Caller) -> Caller:
        authority.require(caller.endpoint, caller.fields)
        wanted = caller.fields.get(miner_scheme.SIGNED_FOR)
        if wanted is not None and wanted != self._node:
            raise Refused(401, "signed_for_mismatch", "This request is meant for another node (signed_for).")
        if caller.request is not None and not self._is_new(self._replays, caller.request, miner_scheme.WINDOW_MS):
            doubt = "this signed request was received before"
            caller = msgspec.structs.replace(caller, signer=None, doubt=doubt, doubt_code="replayed")
        if self.require_signature and caller.doubt:
            raise Refused(401, "bad_signature", f"The signature does not hold: {caller.doubt}.")
        return caller

    def _read(self, body: bytes, endpoint: str) -> Caller:
        """Read a body and verify all signatures that cover all of it."""
        read = _object(body)
        digest = hashlib.sha256(body).digest() if _signs_name_alone(read.fields) else b""
        named = self._request_signed(read, endpoint) if _signs_request(read.fields) else None
        if not miner_scheme.is_signed(read.fields):
            return Caller(read, endpoint, None, body_sha256=digest, named=named)
        try:
            signed = miner_scheme.verify_read_body(read, endpoint, self._now_ms(), self._started_ms)
        except AuthError as error:
            return Caller(
                read, endpoint, None, doubt=error.message, doubt_code=error.code, body_sha256=digest, named=named
            )
        return Caller(read, endpoint, signed.public_key, signed, body_sha256=digest, named=named)

    def _request_signed(self, read: ReadObject, endpoint: str) -> SignedRequest | AuthError:
        try:
            return miner_scheme.verify_namespace_request(read, endpoint, self._now_ms(), self._started_ms)
        except AuthError as error:
            return error

    def _signed_space(self, caller: Caller, name: str) -> Space:
        if isinstance(caller.named_by, Refused):
            raise caller.named_by
        if caller.named_by is not None:
            return self._of(caller.named_by, name, bound=caller.signer == caller.named_by)
        signed = caller.named
        assert signed is not None  # verified when the body was read
        if isinstance(signed, AuthError):
            raise _does_not_hold(signed) from signed
        if not self._is_new(self._request_replays, signed, miner_scheme.NAMESPACE_WINDOW_MS):
            raise Refused(403, "replayed", "This signed request was received before.")
        return self._of(signed.public_key, name, bound=True)

    def _named_by(self, caller: Caller) -> PublicKey | Refused:
        fields, now_ms = caller.fields, self._now_ms()
        try:
            signed = miner_scheme.verify_namespace(fields, now_ms, self._started_ms)
        except AuthError as error:
            return _does_not_hold(error)
        try:
            self._first_uses.accept(
                signed,
                str(fields["namespace_sig"]),
                caller.endpoint,
                caller.body_sha256,
                now_ms=now_ms,
                repeatable=caller.endpoint in _READS,
            )
        except AuthError as error:
            return _not_new(error)
        return signed.public_key

    def _is_new(self, replays: ReplayStore, request: SignedRequest, window_ms: int) -> bool:
        expires_ms = request.timestamp_ms + window_ms
        try:
            replays.require_new(request.replay_key, expires_ms=expires_ms, now_ms=self._now_ms())
        except AuthError as error:
            if error.code == "busy":
                raise _not_new(error) from error
            return False
        return True

    def _of(self, owner: PublicKey, name: str, *, bound: bool) -> Space:
        return Space(name if owner == self.controller else f"{owner.hex()}:{name}", name, owner, bound)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def private_name(fields: Mapping[str, JsonValue]) -> str | None:
    """Return the private namespace that a request names, unchecked; None for the public one. Raises Refused(400)."""
    name = fields.get("namespace")
    if name is None or name in ("", PUBLIC):
        return None
    if not isinstance(name, str):
        raise Refused(400, "malformed", "namespace must be a string.")
    return name


def _signs_namespace(fields: Mapping[str, JsonValue]) -> bool:
    return any(fields.get(each) is not None for each in miner_scheme.NAMESPACE_FIELDS)


def _signs_name_alone(fields: Mapping[str, JsonValue]) -> bool:
    """Return whether the request has a version 1 namespace signature, which names no operation."""
    return _signs_namespace(fields) and fields.get(miner_scheme.NAMESPACE_VERSION) is None


def _signs_request(fields: Mapping[str, JsonValue]) -> bool:
    """Return whether the request has a version 2 namespace signature, which covers the whole body."""
    return _signs_namespace(fields) and not _signs_name_alone(fields)


def _opens_by_key(fields: Mapping[str, JsonValue]) -> bool:
    named = private_name(fields) is not None and fields.get("namespace_key") is not None
    return named and not _signs_namespace(fields)


def _names_private(fields: Mapping[str, JsonValue]) -> bool:
    """Return whether the answer must be disguised, even when the request is refused early."""
    name = fields.get("namespace")
    return isinstance(name, str) and name not in ("", PUBLIC)


def _does_not_hold(error: AuthError) -> Refused:
    return Refused(403, "namespace_signature", f"The namespace signature does not hold: {error.message}.")


def _not_new(error: AuthError) -> Refused:
    """Return the answer to a request that the replay guard refuses."""
    match error.code:
        case "busy":
            return Refused(503, "busy", "Too many signed requests at once; try again in a minute.")
        case "bound_elsewhere":
            text = "This namespace signature came with another request before: sign each request by itself."
            return Refused(403, "namespace_signature_used", text)
        case _:
            return Refused(403, "replayed", "This signed request was received before.")


def _not_the_controllers() -> Refused:
    return Refused(403, "not_owner", "Only the controller of this node may use its private namespaces.")


def parse(body: bytes, endpoint: str) -> ReadObject:
    """Return the JSON object of a body without namespace signatures; an empty body is an empty object.

    Raises Refused (400) for any other body, and for a field of authority that the endpoint would ignore.
    """
    read = _object(body)
    authority.require(endpoint, read.fields)
    return read


def _object(body: bytes) -> ReadObject:
    try:
        return ReadObject(body if body.strip() else b"{}")
    except MalformedJson as error:
        raise Refused(400, "malformed", f"The body is not acceptable JSON: {error}.") from error
