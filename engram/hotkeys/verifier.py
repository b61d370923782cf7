"""The whole policy for signed requests: which scheme, who may call, what was seen before.

One Verifier serves one listener and its own hotkey; several may share a ReplayStore. The size of bodies and the rate
of addresses are the HTTP edge's, before this; what a key has used up is taken after this, when it is known that the
key signed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import final

from engram.hotkeys.errors import AuthError
from engram.hotkeys.python_json import JsonValue
from engram.hotkeys.replay_guard import CLOCKS_AHEAD_MS, ReplayStore
from engram.hotkeys.scheme import (
    Claim,
    Scheme,
    SignedRequest,
    read_claim,
    spelled,
    verify_fields,
    verify_signed,
)
from engram.hotkeys.ss58 import PublicKey


@final
class Verifier:
    """Believes a request once, or refuses it."""

    def __init__(
        self,
        schemes: Sequence[Scheme],
        *,
        started_ms: int,
        replays: ReplayStore,
        self_key: PublicKey | None = None,
        permitted: Callable[[PublicKey], bool] | None = None,
        admit: Callable[[PublicKey], None] | None = None,
    ) -> None:
        """Take requests signed by any of `schemes`, the first of those whose headers all are there.

        `started_ms` is when the process started, in unix ms: stamps of before are refused, because what was taken
        then is not remembered. `permitted` says who may call at all (None: anyone). `admit` may refuse a key by
        raising; it is asked before the signature is checked, so it must look only, and take nothing from the key.
        `judge` asks both from the thread that it runs in. Names of schemes must differ: raises ValueError.
        """
        if len({scheme.name for scheme in schemes}) != len(schemes):
            raise ValueError("two schemes of one verifier bear one name")
        self._by_name = {scheme.name: scheme for scheme in schemes}
        self._by_signature: dict[bytes, list[tuple[Scheme, set[bytes]]]] = {}
        for scheme in schemes:
            needed = {name.encode("ascii") for name, part in scheme.headers.items() if part in scheme.required}
            for name, part in scheme.headers.items():
                if part == "signature":
                    self._by_signature.setdefault(name.encode("ascii"), []).append((scheme, needed))
        self._longest_ms = max((scheme.past_ms for scheme in schemes), default=0)
        self._started_ms = started_ms
        self._replays = replays
        self._self_key = self_key
        self._permitted = permitted
        self._admit = admit

    def request(
        self, headers: Sequence[tuple[bytes, bytes]], *, method: str, raw_path: bytes, body: bytes, now_ms: int
    ) -> SignedRequest:
        """Return who signed this request, and note it: it is not believed again.

        Raises AuthError (docs/signing.md has the codes and their HTTP statuses), and what `admit` raises.
        """
        signed = self.judge(headers, method=method, raw_path=raw_path, body=body, now_ms=now_ms)
        self.note(signed, method=method, now_ms=now_ms)
        return signed

    def judge(
        self, headers: Sequence[tuple[bytes, bytes]], *, method: str, raw_path: bytes, body: bytes, now_ms: int
    ) -> SignedRequest:
        """Return who signed a request, seen before or not: the first half of `request`. Raises as `request`.

        Changes nothing, so that large bodies may be judged in a worker thread.
        """
        signed_by = self._scheme_of(headers)
        return verify_signed(
            signed_by,
            headers,
            method=method,
            raw_path=raw_path,
            body=body,
            now_ms=now_ms,
            self_key=self._self_key,
            not_before_ms=self._not_before_ms(signed_by),
            admit=self._ask,
        )

    def claim(self, headers: Sequence[tuple[bytes, bytes]], *, now_ms: int) -> Claim | None:
        """Return what the headers claim, before the body is known, for `prove`; None where the body has it.

        Raises AuthError, and what `admit` raises.
        """
        signed_by = self._scheme_of(headers)
        if signed_by.fields:
            return None
        return read_claim(
            signed_by,
            headers,
            now_ms=now_ms,
            self_key=self._self_key,
            not_before_ms=self._not_before_ms(signed_by),
            admit=self._ask,
        )

    def note(self, signed: SignedRequest, *, method: str, now_ms: int) -> None:
        """Consume what `judge` returned: the second half of `request`, on the loop's thread.

        Raises AuthError (replay, stale, busy).
        """
        self._note(signed, self._by_name[signed.scheme], method, now_ms)

    def event(self, scheme: Scheme, fields: Mapping[str, JsonValue], *, now_ms: int) -> SignedRequest:
        """Return who signed the payload of an event under `scheme` (SOCKET, PATTERN_B). Raises as `request`."""
        signed = verify_fields(
            scheme,
            fields,
            now_ms=now_ms,
            self_key=self._self_key,
            not_before_ms=self._not_before_ms(scheme),
            admit=self._ask,
        )
        self._note(signed, scheme, "", now_ms)
        return signed

    def _scheme_of(self, headers: Sequence[tuple[bytes, bytes]]) -> Scheme:
        present = {name for name, _ in headers}
        if not b"".join(present).islower():
            present = {name.lower() for name in present}
        signatures = present & self._by_signature.keys()
        if len(signatures) > 1:
            raise AuthError("malformed", f"the request is signed under two schemes: {_listed(signatures, ' and ')}")
        if not signatures:
            names = _listed(set(self._by_signature), " or ")
            raise AuthError("missing_header", f"the request is not signed: {names} is missing")
        candidates = self._by_signature[signatures.pop()]
        for scheme, needed in candidates:
            if needed <= present:
                return scheme
        return candidates[0][0]

    def _not_before_ms(self, scheme: Scheme) -> int:
        return self._started_ms + min(scheme.future_ms, CLOCKS_AHEAD_MS)

    def _ask(self, public_key: PublicKey) -> None:
        if self._permitted is not None and not self._permitted(public_key):
            raise AuthError("not_permitted", "this hotkey may not call here")
        if self._admit is not None:
            self._admit(public_key)

    def _note(self, signed: SignedRequest, scheme: Scheme, method: str, now_ms: int) -> None:
        self._replays.require_new(
            signed.replay_key,
            expires_ms=signed.timestamp_ms + self._longest_ms,
            now_ms=now_ms,
            skew_ms=signed.skew_ms,
            repeatable=method in scheme.repeatable,
        )


def _listed(names: set[bytes], between: str) -> str:
    return between.join(sorted(spelled(name.decode("ascii")) for name in names))
