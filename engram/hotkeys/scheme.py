"""One verifier for every scheme that signs requests, by headers or by fields of a JSON body; a scheme is a table.

The order of the checks is part of the contract, cheap before dear: exactly one of each header, all that is required,
the version, strict forms, the receiver, the time window (past and future), who may call (`admit`), and last the
signature (42 µs, twice that for a wrong one). Replays are the caller's: `SignedRequest.replay_key` and a ReplayStore;
`Verifier` joins both.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

from engram.hotkeys.errors import AuthError, MalformedHotkey
from engram.hotkeys.keypair import Keypair, verify
from engram.hotkeys.python_json import JsonObject, JsonValue, MalformedJson, ReadObject, parse_object
from engram.hotkeys.ss58 import PublicKey, decode, encode, parse_hotkey

Headers: TypeAlias = Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]]
"""Header lines in the order received, repetitions included (an ASGI scope's `headers`, or a dict's items())."""

Part = Literal["hotkey", "timestamp", "signature", "second_signature", "version", "uuid", "receiver"]

Values: TypeAlias = dict[Part, str]

SIGNATURE = re.compile(r"(?:0x)?([0-9a-fA-F]{128})\Z")
SIGNATURE_0X = re.compile(r"0x([0-9a-fA-F]{128})\Z")
UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z")
TIMESTAMP_MS = re.compile(r"[1-9][0-9]{9,12}\Z")


class TimeUnit(msgspec.Struct, frozen=True):
    """How a scheme spells a moment: unix time in decimal digits of ASCII, no sign, no leading zero."""

    name: str
    spelling: re.Pattern[str]
    per_second: int

    def to_ms(self, text: str) -> int:
        """Return the moment in unix milliseconds, rounded down; `text` matches `spelling`."""
        return int(text) * 1000 // self.per_second

    def spell(self, now_ns: int) -> str:
        """Return the moment `now_ns` (unix nanoseconds), rounded down to this unit."""
        return str(now_ns * self.per_second // 1_000_000_000)


SECONDS: Final = TimeUnit("seconds", re.compile(r"[1-9][0-9]{9}\Z"), 1)
MILLISECONDS: Final = TimeUnit("milliseconds", TIMESTAMP_MS, 1_000)
NANOSECONDS: Final = TimeUnit("nanoseconds", re.compile(r"[1-9][0-9]{9,18}\Z"), 1_000_000_000)
"""A stamp in seconds or milliseconds is well formed here: it is one of January 1970, and refused as stale."""


class Signable(msgspec.Struct, frozen=True):
    """What a scheme's message is made of."""

    method: str
    raw_path: bytes
    """The path's bytes as sent, without the query."""
    body: bytes
    timestamp: str
    """As spelled by the sender."""
    version: int
    hotkey: str
    uuid: str = ""
    receiver: str = ""
    fields: Mapping[str, JsonValue] = {}
    """The object that carries the signing fields, for schemes that sign by fields."""
    read: ReadObject | None = None
    """The same with its canonical texts, where it was read from a body by this verification's caller."""
    body_hash: str = ""
    """The body's SHA-256 in hex where it is known without the body."""

    @property
    def body_sha256(self) -> str:
        """The body's SHA-256 in hex."""
        return self.body_hash or hashlib.sha256(self.body).hexdigest()


class Scheme(msgspec.Struct, frozen=True):
    """A request signing scheme as a table."""

    name: str
    required: frozenset[Part]
    messages: Callable[[Signable], Iterable[bytes]]
    """What may have been signed; the first is what is signed by us, further ones are read only when it does not hold,
    and each costs a verification."""
    past_ms: int
    """How old a request may be; exactly this old passes."""
    future_ms: int
    """How far ahead of our clock a request may be stamped."""
    names_receiver: bool = False
    """Whether every request of the dialect names its receiver, so that the name is a header like any other
    (missing_header). Where the dialect leaves it open, demanding it is the table's own strictness
    (signed_for_missing)."""
    headers: dict[str, Part] = {}
    """Lower-case header name -> what it carries."""
    fields: dict[str, Part] = {}
    """Field of the JSON object -> what it carries."""
    integers: frozenset[Part] = frozenset()
    """The parts that are JSON integers when they come in fields; all others are strings."""
    unit: TimeUnit = MILLISECONDS
    signature: re.Pattern[str] = SIGNATURE
    signs_0x: bool = False
    """Whether our own signatures are written with 0x."""
    uuid: re.Pattern[str] = UUID
    hotkey: Callable[[str], PublicKey] = parse_hotkey
    versions: tuple[str, ...] = ()
    """Accepted values of the version; absent means the first."""
    allow_wrapped: bool = True
    prefixes: dict[Part, str] = {}
    """Prefix that is removed from the value (an Authorization scheme), matched in any case."""
    repeatable: frozenset[str] = frozenset()
    """Methods whose requests may be received again: they change nothing, and two honest ones may be one message."""
    max_body_bytes: int = 262_144
    """Larger bodies are refused by a scheme whose fields must be read from the body before anything is believed."""
    carriers: dict[str | bytes, Part] = {}
    """Made from `headers`: their names as text and as bytes."""

    def __post_init__(self) -> None:
        both: dict[str | bytes, Part] = {}
        for name, part in self.headers.items():
            both[name] = both[name.encode("ascii")] = part
        msgspec.structs.force_setattr(self, "carriers", both)


class Claim(msgspec.Struct, frozen=True):
    """What a request's headers claim, checked in all but the signature."""

    scheme: Scheme
    public_key: PublicKey
    signature: bytes
    timestamp_ms: int
    skew_ms: int
    version: int
    values: Values
    """As spelled by the sender."""
    fields: Mapping[str, JsonValue]
    read: ReadObject | None
    receiver: PublicKey | None = None


class SignedRequest(msgspec.Struct, frozen=True):
    """A request whose signature holds."""

    public_key: PublicKey
    timestamp_ms: int
    version: int
    message: bytes
    """The bytes that were signed."""
    skew_ms: int = 0
    """The sender's timestamp minus our clock."""
    uuid: str = ""
    receiver: PublicKey | None = None
    scheme: str = ""
    timestamp: str = ""
    """As spelled by the sender; an answer is signed over it."""

    @property
    def message_sha256(self) -> bytes:
        """The sha256 of the signed message, the same whatever the spelling of a header."""
        return hashlib.sha256(self.message).digest()

    @property
    def hotkey(self) -> str:
        """The sender's SS58 address."""
        return encode(self.public_key)

    @property
    def replay_key(self) -> bytes:
        """64 bytes that every repetition shares: the key and the sha256 of the uuid, or of the message without one."""
        nonce = hashlib.sha256(self.uuid.lower().encode()).digest() if self.uuid else self.message_sha256
        return self.public_key + nonce


def verify_signed(
    scheme: Scheme,
    headers: Headers,
    *,
    method: str,
    raw_path: bytes,
    body: bytes,
    now_ms: int,
    self_key: PublicKey | None = None,
    not_before_ms: int = 0,
    admit: Callable[[PublicKey], None] | None = None,
) -> SignedRequest:
    """Return who signed the request under `scheme`.

    `self_key` is the receiver's own key, for schemes that name one. Requests stamped before `not_before_ms` are
    refused: it is how a replay guard without a memory survives a restart. `admit` is asked about the claimed key
    before the signature is looked at, and refuses by raising. Raises AuthError, and what `admit` raises.
    """
    values = _one_of_each(scheme, headers)
    _demand(scheme, values, scheme.headers)
    if scheme.fields:
        values |= _values_of(scheme, _glance(scheme, body))
    claim = _claim(scheme, values, {}, now_ms, self_key, not_before_ms, admit, None)
    signed = prove(claim, method=method, raw_path=raw_path, body=body)
    if scheme.fields:
        try:
            parse_object(body)
        except MalformedJson as error:
            raise AuthError("malformed", str(error), signed.skew_ms) from None
    return signed


def read_claim(
    scheme: Scheme,
    headers: Headers,
    *,
    now_ms: int,
    self_key: PublicKey | None = None,
    not_before_ms: int = 0,
    admit: Callable[[PublicKey], None] | None = None,
) -> Claim:
    """Return what the headers of a request claim, before its body is known; `prove` then believes it.

    For schemes that sign by headers. Raises as `verify_signed`.
    """
    values = _one_of_each(scheme, headers)
    _demand(scheme, values, scheme.headers)
    return _claim(scheme, values, {}, now_ms, self_key, not_before_ms, admit, None)


def verify_fields(
    scheme: Scheme,
    fields: Mapping[str, JsonValue] | ReadObject,
    *,
    now_ms: int,
    raw_path: bytes = b"",
    self_key: PublicKey | None = None,
    not_before_ms: int = 0,
    admit: Callable[[PublicKey], None] | None = None,
) -> SignedRequest:
    """Return who signed `fields` under a scheme that signs by fields alone.

    That is the payload of an event, or a body that was read (ReadObject, which schemes that cover the whole of it
    need). Raises as `verify_signed`.
    """
    read = fields if isinstance(fields, ReadObject) else None
    found = fields.fields if isinstance(fields, ReadObject) else fields
    values = _values_of(scheme, found)
    claim = _claim(scheme, values, found, now_ms, self_key, not_before_ms, admit, read)
    return prove(claim, method="", raw_path=raw_path)


def sign_headers(
    scheme: Scheme,
    keypair: Keypair,
    *,
    now_ns: int,
    method: str = "",
    raw_path: bytes = b"",
    body: bytes = b"",
    uuid: str = "",
    receiver: PublicKey | None = None,
    body_hash: str = "",
) -> dict[str, str]:
    """Return the headers that sign a request under a scheme of headers; `now_ns` is unix nanoseconds.

    `body_hash` (SHA-256, hex) stands for a body that is not at hand.

    Raises ValueError when the scheme wants a uuid or a receiver and there is none, or the uuid is none.
    """
    values = _signed_values(scheme, keypair, method, raw_path, body, {}, now_ns, uuid, receiver, body_hash)
    return {
        spelled(name): scheme.prefixes.get(part, "") + values[part]
        for name, part in scheme.headers.items()
        if part in values
    }


def sign_fields(
    scheme: Scheme,
    keypair: Keypair,
    fields: Mapping[str, JsonValue],
    *,
    now_ns: int,
    raw_path: bytes = b"",
    body: bytes = b"",
    receiver: PublicKey | None = None,
) -> JsonObject:
    """Return `fields` with the fields that sign them under a scheme of fields. Raises as `sign_headers`."""
    values = _signed_values(scheme, keypair, "", raw_path, body, fields, now_ns, "", receiver)
    signing: JsonObject = {
        name: int(values[part]) if part in scheme.integers else values[part]
        for name, part in scheme.fields.items()
        if part in values
    }
    return {**fields, **signing}


def check_window(timestamp_ms: int, now_ms: int, *, past_ms: int, future_ms: int, not_before_ms: int = 0) -> None:
    """Raise AuthError (stale, future, before_start) unless the timestamp is inside the window; bounds pass."""
    skew_ms = timestamp_ms - now_ms
    if skew_ms < -past_ms:
        raise AuthError("stale", _skew_text(skew_ms, past_ms), skew_ms)
    if skew_ms > future_ms:
        raise AuthError("future", _skew_text(skew_ms, future_ms), skew_ms)
    if timestamp_ms < not_before_ms:
        raise AuthError("before_start", "the request is older than this server's start; sign it again", skew_ms)


def spelled(name: str) -> str:
    """Return a lower-case header name as people write it.

    >>> spelled("x-chutes-hotkey")
    'X-Chutes-Hotkey'
    """
    return "-".join(word.capitalize() for word in name.split("-"))


# --- reading -----------------------------------------------------------------------------------------------------


def _one_of_each(scheme: Scheme, headers: Headers) -> Values:
    values: Values = {}
    carriers, prefixes = scheme.carriers, scheme.prefixes
    for name, raw_value in headers:
        part = carriers.get(name)
        if part is None and (name.islower() or (part := carriers.get(name.lower())) is None):
            continue
        assert part is not None
        if part in values:
            raise AuthError("duplicate_header", f"{_text(name)} was sent more than once")
        value = raw_value.decode("latin-1") if isinstance(raw_value, bytes) else raw_value
        if prefixes and (prefix := prefixes.get(part)) is not None:
            if value[: len(prefix)].lower() != prefix.lower():
                raise AuthError("malformed", f"{_text(name)} does not start with {prefix!r}")
            value = value[len(prefix) :]
        values[part] = value
    return values


def _text(header: str | bytes) -> str:
    return header.decode("latin-1") if isinstance(header, bytes) else header


def _glance(scheme: Scheme, body: bytes) -> JsonObject:
    """Return the signing fields of a body without decoding the rest.

    Decoding the largest body takes 35 ms, too much to spend on a request without a known signer.
    """
    if len(body) > scheme.max_body_bytes:
        raise AuthError("malformed", f"a {scheme.name} body may have {scheme.max_body_bytes} bytes")
    try:
        found = _glancer(tuple(scheme.fields)).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AuthError("malformed", f"the body is no {scheme.name} body: {error}") from None
    return dict(zip(scheme.fields, msgspec.structs.astuple(found), strict=True))


@lru_cache(maxsize=16)
def _glancer(names: tuple[str, ...]) -> "msgspec.json.Decoder[msgspec.Struct]":
    """Decode these fields of an object and skip the others."""
    fields = [
        (f"field_{number}", int | str | None, msgspec.field(name=name, default=None))
        for number, name in enumerate(names)
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Glanced", fields))


def _values_of(scheme: Scheme, fields: Mapping[str, JsonValue]) -> Values:
    values: Values = {}
    for name, part in scheme.fields.items():
        match fields.get(name):
            case None:
                continue
            case str(text) if part not in scheme.integers:
                values[part] = text
            case int(number) if part in scheme.integers and not isinstance(number, bool) and abs(number) < 10**20:
                values[part] = str(number)
            case "":
                continue
            case _:
                kind = "an integer" if part in scheme.integers else "a string"
                raise AuthError("malformed", f"{name} is not {kind}")
    _demand(scheme, values, scheme.fields)
    return values


def _demand(scheme: Scheme, values: Values, carriers: Mapping[str, Part]) -> None:
    """Raise unless all required fields that these carriers hold are present."""
    if scheme.required <= values.keys() and all(values.values()):
        return
    for part in _AS_DEMANDED:
        if part in scheme.required and not values.get(part) and part in carriers.values():
            open_elsewhere = part == "receiver" and not scheme.names_receiver
            code = "signed_for_missing" if open_elsewhere else "missing_header"
            raise AuthError(code, f"{_name(scheme, part)} is missing")


_AS_DEMANDED: Final[tuple[Part, ...]] = ("signature", "hotkey", "timestamp", "uuid", "version", "receiver")


# --- judging -----------------------------------------------------------------------------------------------------


def _claim(
    scheme: Scheme,
    values: Values,
    fields: Mapping[str, JsonValue],
    now_ms: int,
    self_key: PublicKey | None,
    not_before_ms: int,
    admit: Callable[[PublicKey], None] | None,
    read: ReadObject | None,
) -> Claim:
    version = _version(scheme, values)
    timestamp = values["timestamp"]
    if scheme.unit.spelling.match(timestamp) is None:
        raise AuthError("malformed", f"{_name(scheme, 'timestamp')} is no unix time in {scheme.unit.name}")
    timestamp_ms = scheme.unit.to_ms(timestamp)
    skew_ms = timestamp_ms - now_ms
    signature = _signature(scheme, values, skew_ms)
    try:
        public_key = scheme.hotkey(values["hotkey"])
    except MalformedHotkey as error:
        raise AuthError("malformed", f"{_name(scheme, 'hotkey')}: {error}", skew_ms) from None
    uuid = values.get("uuid", "")
    if uuid and scheme.uuid.match(uuid) is None:
        raise AuthError("malformed", f"{_name(scheme, 'uuid')} is not a UUID", skew_ms)
    receiver: PublicKey | None = None
    if text := values.get("receiver"):
        try:
            receiver = decode(text)
        except MalformedHotkey as error:
            raise AuthError("malformed", f"{_name(scheme, 'receiver')}: {error}", skew_ms) from None
        if receiver != self_key:
            raise AuthError("signed_for_mismatch", "the request was signed for another receiver", skew_ms)
    check_window(timestamp_ms, now_ms, past_ms=scheme.past_ms, future_ms=scheme.future_ms, not_before_ms=not_before_ms)
    if admit is not None:
        admit(public_key)
    return Claim(scheme, public_key, signature, timestamp_ms, skew_ms, version, values, fields, read, receiver)


def prove(claim: Claim, *, method: str, raw_path: bytes, body: bytes = b"", body_hash: str = "") -> SignedRequest:
    """Return the request of a claim whose signature holds over this body, or over a body with this SHA-256 (hex).

    Raises AuthError.
    """
    scheme, values = claim.scheme, claim.values
    uuid = values.get("uuid", "")
    signable = Signable(
        method,
        raw_path,
        body,
        values["timestamp"],
        claim.version,
        values["hotkey"],
        uuid,
        values.get("receiver", ""),
        claim.fields,
        claim.read,
        body_hash,
    )
    for message in scheme.messages(signable):
        if verify(claim.public_key, message, claim.signature, allow_wrapped=scheme.allow_wrapped):
            return SignedRequest(
                claim.public_key,
                claim.timestamp_ms,
                claim.version,
                message,
                claim.skew_ms,
                uuid,
                claim.receiver,
                scheme.name,
                values["timestamp"],
            )
    text = f"the signature is not this hotkey's over this {scheme.name} request"
    raise AuthError("bad_signature", text, claim.skew_ms)


def _version(scheme: Scheme, values: Values) -> int:
    if not scheme.versions:
        return 0
    version = values.get("version", scheme.versions[0])
    if version not in scheme.versions:
        known = " or ".join(scheme.versions)
        raise AuthError("bad_version", f"{_name(scheme, 'version')} must be {known}")
    return int(version)


def _signature(scheme: Scheme, values: Values, skew_ms: int) -> bytes:
    if (matched := scheme.signature.match(values["signature"])) is None:
        raise AuthError("malformed", f"{_name(scheme, 'signature')} is not 128 hex digits", skew_ms)
    digits: str = matched.group(1)
    if (second := values.get("second_signature")) is not None:
        again = scheme.signature.match(second)
        if again is None or again.group(1).lower() != digits.lower():
            raise AuthError("malformed", f"{_name(scheme, 'second_signature')} is another signature", skew_ms)
    return bytes.fromhex(digits)


def _skew_text(skew_ms: int, allowed_ms: int) -> str:
    side = "behind" if skew_ms < 0 else "ahead of"
    return (
        f"the request's timestamp is {abs(skew_ms) / 1000:.3f} s {side} the server's clock "
        f"({allowed_ms / 1000:g} s allowed): check the clock and sign again"
    )


def _name(scheme: Scheme, part: Part) -> str:
    names = [spelled(name) for name, carried in scheme.headers.items() if carried == part]
    return "/".join([*names, *(name for name, carried in scheme.fields.items() if carried == part)]) or part


# --- signing -----------------------------------------------------------------------------------------------------


def _signed_values(
    scheme: Scheme,
    keypair: Keypair,
    method: str,
    raw_path: bytes,
    body: bytes,
    fields: Mapping[str, JsonValue],
    now_ns: int,
    uuid: str,
    receiver: PublicKey | None,
    body_hash: str = "",
) -> Values:
    values: Values = {"hotkey": keypair.ss58, "timestamp": scheme.unit.spell(now_ns)}
    if scheme.versions:
        values["version"] = scheme.versions[0]
    if uuid:
        values["uuid"] = uuid
    if receiver is not None:
        values["receiver"] = encode(receiver)
    for part in sorted(scheme.required - values.keys() - {"signature"}):
        raise ValueError(f"a {scheme.name} request cannot be signed without its {part}")
    if uuid and scheme.uuid.match(uuid) is None:
        raise ValueError("the uuid of a signed request is a UUID")
    signable = Signable(
        method=method,
        raw_path=raw_path,
        body=body,
        timestamp=values["timestamp"],
        version=int(values.get("version", "0")),
        hotkey=keypair.ss58,
        uuid=uuid,
        receiver=values.get("receiver", ""),
        fields=fields,
        body_hash=body_hash,
    )
    digits = keypair.sign(next(iter(scheme.messages(signable)))).hex()
    values["signature"] = "0x" + digits if scheme.signs_0x else digits
    if "second_signature" in scheme.headers.values():
        values["second_signature"] = values["signature"]
    return values
