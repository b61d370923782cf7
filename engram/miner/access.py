"""Who asks, and what they may: signatures of bodies and namespaces, replays, the controller's rights.

A signature is verified or it does not count; a claimed hotkey alone is never believed. Where signatures are not
required (local), an unsigned request, or one whose signature does not hold, may do what anyone may: store and
find public records. Everything else needs the controller's signature, and deleting a public record its owner's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import msgspec

from engram.clock import Clock
from engram.hotkeys import AuthError, PublicKey, miner_scheme
from engram.hotkeys.python_json import JsonObject, MalformedJson, parse_object
from engram.hotkeys.scheme import SignedRequest
from engram.memory import rules
from engram.memory.model import PUBLIC
from engram.miner.errors import Refused

_REMEMBERED = 200_000


class Caller(msgspec.Struct, frozen=True):
    """What was asked and who signed it; `doubt` says why a signature that was there does not count."""

    fields: JsonObject
    signer: PublicKey | None
    doubt: str = ""


@final
class ReplayGuard:
    """Remembers signed messages for as long as their stamps would pass; bounded."""

    def __init__(self, clock: Clock, window_s: float, bound: int = _REMEMBERED) -> None:
        self._clock = clock
        self._window_s = window_s
        self._bound = bound
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def is_new(self, key: bytes) -> bool:
        """Notes the message; False when it was noted before. Raises Refused when there are too many to note."""
        now = self._clock.monotonic()
        while self._seen and next(iter(self._seen.values())) <= now:
            self._seen.popitem(last=False)
        if key in self._seen:
            return False
        if len(self._seen) >= self._bound:
            raise Refused(503, "busy", "Too many signed requests at once; try again in a minute.")
        self._seen[key] = now + self._window_s
        return True


@final
class Gate:
    """Decides for one node. Stamps from before its start are refused, so replays need not outlive the process."""

    def __init__(self, *, controller: PublicKey, require_signature: bool, clock: Clock) -> None:
        self.controller = controller
        self.require_signature = require_signature
        self._clock = clock
        self._started_ms = int(clock.now() * 1000)
        self._replays = ReplayGuard(clock, 2 * miner_scheme.WINDOW_MS / 1000)

    def admit(self, body: bytes, endpoint: str) -> Caller:
        """Reads a body and who signed it for that endpoint.

        Raises Refused: 400 when it is no JSON object, 401 when a signature is required and does not hold.
        """
        fields = parse(body)
        if not miner_scheme.is_signed(fields):
            if self.require_signature:
                raise Refused(401, "missing_signature", "This node requires signed requests: hotkey, nonce, signature.")
            return Caller(fields, None)
        try:
            signed = miner_scheme.verify_body(body, endpoint, self._now_ms(), self._started_ms)
        except AuthError as error:
            return self._doubted(fields, error.message)
        if not self._is_new(signed.request):
            return self._doubted(fields, "this signed request was received before")
        return Caller(fields, signed.request.public_key)

    def namespace(self, caller: Caller) -> str:
        """Returns the namespace that the request names and may use: public, or a private one of the controller.

        Raises Refused (401, 403), InvalidInput for an impossible name.
        """
        name = caller.fields.get("namespace")
        if name is None or name in ("", PUBLIC):
            return PUBLIC
        if not isinstance(name, str):
            raise Refused(400, "malformed", "namespace must be a string.")
        rules.check_namespace(name)
        if caller.signer != self.controller and self._namespace_signer(caller) != self.controller:
            raise Refused(403, "not_owner", "Only the controller of this node may use its private namespaces.")
        return name

    def require_controller_or(self, owner: PublicKey | None, caller: Caller) -> None:
        """Raises Refused unless the controller signed, or the owner of the record."""
        if caller.signer is None:
            reason = caller.doubt or "hotkey, nonce and signature are missing"
            raise Refused(401, "missing_signature", f"This must be signed by the controller or the owner: {reason}.")
        if caller.signer not in (self.controller, owner):
            raise Refused(403, "not_owner", "Only the controller of this node or the owner of the record may do this.")

    def _namespace_signer(self, caller: Caller) -> PublicKey | None:
        fields = caller.fields
        if all(fields.get(name) is None for name in miner_scheme.NAMESPACE_FIELDS):
            if caller.signer is not None:
                return caller.signer
            raise Refused(
                403,
                "namespace_unsigned",
                "A private namespace requires namespace_hotkey, namespace_sig and namespace_timestamp_ms.",
            )
        try:
            return miner_scheme.verify_namespace(fields, self._now_ms(), self._started_ms).public_key
        except AuthError as error:
            text = f"The namespace signature does not hold: {error.message}."
            raise Refused(403, "namespace_signature", text) from error

    def _doubted(self, fields: JsonObject, reason: str) -> Caller:
        if self.require_signature:
            raise Refused(401, "bad_signature", f"The signature does not hold: {reason}.")
        return Caller(fields, None, reason)

    def _is_new(self, request: SignedRequest) -> bool:
        return self._replays.is_new(request.public_key + request.message_sha256)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def parse(body: bytes) -> JsonObject:
    """Returns the JSON object of a body; an empty body is an empty object. Raises Refused(400)."""
    if not body.strip():
        return {}
    try:
        return parse_object(body)
    except MalformedJson as error:
        raise Refused(400, "malformed", f"The body is not acceptable JSON: {error}.") from error
