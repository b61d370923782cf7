"""The manifest: what a provider is to run, sent to it alone; the chain holds the hash of it.

The hash covers one form of the JSON: compact, keys sorted at every level, `<`, `>`, `&`, U+2028 and U+2029 escaped as
Go escapes them. A list that is empty in Go is null. Source: akash-network/chain-sdk, go/manifest.
"""

import hashlib
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from engram.provisioning.akash.resources import Attribute, Endpoint, EndpointKind, Resources

_ESCAPES: Final = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
Json: TypeAlias = dict[str, object]


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class HttpOptions(_Part, frozen=True, kw_only=True):
    """How the ingress forwards; times in milliseconds."""

    max_body_size: int
    read_timeout: int
    send_timeout: int
    next_tries: int
    next_timeout: int
    next_cases: tuple[str, ...]
    proxy_buffer_size: int | UnsetType = UNSET


class Expose(_Part, frozen=True, kw_only=True):
    """A port, for one of those who reach it."""

    port: int
    external_port: int
    """0: the same."""
    proto: str
    service: str
    everybody: bool = msgspec.field(name="global")
    hosts: tuple[str, ...] | None
    http_options: HttpOptions
    ip: str
    endpoint_sequence_number: int


class Mount(_Part, frozen=True, kw_only=True):
    """Where a volume appears."""

    name: str
    mount: str
    read_only: bool


class Tee(_Part, frozen=True, kw_only=True):
    """Trusted execution."""

    type: str
    attestation: bool = True


class Params(_Part, frozen=True, kw_only=True):
    """Volumes and trusted execution."""

    storage: tuple[Mount, ...] | None
    tee: Tee | UnsetType = UNSET


class Credentials(_Part, frozen=True, kw_only=True):
    """Of a private registry."""

    host: str
    email: str
    username: str
    password: str


class Service(_Part, frozen=True, kw_only=True):
    """A container."""

    name: str
    image: str
    command: tuple[str, ...] | None
    args: tuple[str, ...] | None
    env: tuple[str, ...] | None
    resources: Json
    count: int
    expose: tuple[Expose, ...]
    params: Params | UnsetType
    credentials: Credentials | None

    def __repr__(self) -> str:
        return f"Service(name={self.name!r}, image={self.image!r})"  # its environment holds a launch token


class Group(_Part, frozen=True, kw_only=True):
    """What one provider runs."""

    name: str
    services: tuple[Service, ...]


def canonical(groups: tuple[Group, ...]) -> bytes:
    """Return the JSON that is hashed, and sent."""
    return msgspec.json.encode(groups, order="sorted").decode().translate(_ESCAPES).encode()


def version_of(content: bytes) -> bytes:
    """Return the hash of a manifest (its canonical JSON), 32 bytes."""
    return hashlib.sha256(content).digest()


def resources_json(resources: Resources) -> Json:
    """Return resources as a manifest writes them: numbers as text, sizes as `size`, what is empty left out."""
    return {
        "id": resources.id,
        "cpu": {"units": _value(resources.cpu.units.val)} | _attributes(resources.cpu.attributes),
        "memory": {"size": _value(resources.memory.quantity.val)} | _attributes(resources.memory.attributes),
        "storage": [
            {"name": volume.name, "size": _value(volume.quantity.val)} | _attributes(volume.attributes)
            for volume in resources.storage
        ],
        "gpu": {"units": _value(resources.gpu.units.val)} | _attributes(resources.gpu.attributes),
        "endpoints": [_endpoint(endpoint) for endpoint in resources.endpoints],
    }


def _value(number: bytes) -> Json:
    return {"val": number.decode()}


def _attributes(attributes: tuple[Attribute, ...]) -> Json:
    return {"attributes": [{"key": one.key, "value": one.value} for one in attributes]} if attributes else {}


def _endpoint(endpoint: Endpoint) -> Json:
    kind: Json = {} if endpoint.kind is EndpointKind.SHARED_HTTP else {"kind": int(endpoint.kind)}
    return kind | {"sequence_number": endpoint.sequence_number}
