"""Akash's stack definition language (SDL 2.0 and 2.1) as Structs; YAML is one way to write it down.

Names and types are those of upstream's schema (sdl-input.schema.yaml). Quantities and references are checked in
`sdl_checks.py`; `compiler.py` makes groups and manifest of it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engram import wire
from engram.provisioning.akash.errors import InvalidSdl

Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
Natural: TypeAlias = Annotated[int, Meta(ge=0)]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
DEFAULT_VOLUME: Final = "default"
"""The volume that holds a container's own files."""
_NULLABLE: Final = frozenset({"args", "command", "env", "expose", "nvidia"})


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Refuses what the schema does not name; what is left out has upstream's default."""


class Credentials(_Part, frozen=True, kw_only=True):
    """Of a private registry of images."""

    host: Text
    username: Text
    password: str
    email: str = ""

    def __repr__(self) -> str:
        return f"Credentials(host={self.host!r}, username={self.username!r})"


class HttpOptions(_Part, frozen=True, kw_only=True):
    """How the provider's ingress forwards requests; times in milliseconds."""

    max_body_size: Annotated[int, Meta(ge=0, le=104_857_600)] = 1_048_576
    read_timeout: Annotated[int, Meta(ge=0, le=60_000)] = 60_000
    send_timeout: Annotated[int, Meta(ge=0, le=60_000)] = 60_000
    next_tries: Natural = 3
    next_timeout: Natural = 0
    next_cases: tuple[Literal["error", "timeout", "500", "502", "503", "504", "403", "404", "429", "off"], ...] = (
        "error",
        "timeout",
    )
    proxy_buffer_size: Annotated[int, Meta(ge=0, le=1_048_576)] = 0


class ExposeTo(_Part, frozen=True, kw_only=True):
    """Who reaches a port: a service of this deployment, or everybody."""

    service: str = ""
    everybody: bool = msgspec.field(default=False, name="global")
    ip: str = ""
    """Name of a leased address, from `endpoints`."""


class Expose(_Part, frozen=True, kw_only=True):
    """A port that others reach."""

    port: Port
    as_port: Port | None = msgspec.field(default=None, name="as")
    """The port outside; 80 over TCP is the provider's shared ingress. None: the same."""
    proto: Literal["TCP", "UDP", "tcp", "udp"] = "TCP"
    accept: tuple[str, ...] | None = None
    """Host names of our own that the ingress takes."""
    http_options: HttpOptions = HttpOptions()
    to: tuple[ExposeTo, ...] = ()


class Mount(_Part, frozen=True, kw_only=True):
    """Where a volume appears."""

    mount: Annotated[str, Meta(pattern="^/")] | None = None
    read_only: bool = msgspec.field(default=False, name="readOnly")


class Params(_Part, frozen=True, kw_only=True):
    """What a service says of its volumes and of trusted execution."""

    storage: Mapping[str, Mount] = {}
    tee: Literal["cpu", "cpu-gpu"] | None = None


class Dependency(_Part, frozen=True, kw_only=True):
    """A service that another needs."""

    service: str = ""


class Service(_Part, frozen=True, kw_only=True):
    """A container."""

    image: Text
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    credentials: Credentials | None = None
    dependencies: tuple[Dependency, ...] = ()
    expose: tuple[Expose, ...] | None = None
    params: Params | None = None

    def __repr__(self) -> str:
        return f"Service(image={self.image!r})"  # its environment holds a launch token


class CpuWanted(_Part, frozen=True, kw_only=True):
    """`units` is processors (0.5) or thousandths ("500m")."""

    units: int | float | str
    attributes: Mapping[str, str | bool | int] = {}


class MemoryWanted(_Part, frozen=True, kw_only=True):
    """Bytes, with k, M, G … for powers of 1000 and Ki, Mi, Gi … of 1024."""

    size: str


class StorageAttributes(_Part, frozen=True, kw_only=True):
    """Kind of a volume."""

    storage_class: str | None = msgspec.field(default=None, name="class")
    persistent: bool | Literal["true", "false"] | None = None

    @property
    def is_persistent(self) -> bool:
        """Whether it outlives its container."""
        return self.persistent in {True, "true"}


class Volume(_Part, frozen=True, kw_only=True):
    """A volume; the one that is called `default` holds the container's own files."""

    size: str
    name: str = DEFAULT_VOLUME
    attributes: StorageAttributes | None = None


class GpuModel(_Part, frozen=True, kw_only=True):
    """A model that will do."""

    model: str = "*"
    ram: str = ""
    interface: Literal["pcie", "sxm", ""] = ""


class GpuVendor(_Part, frozen=True, kw_only=True):
    """Whose graphics processors will do."""

    nvidia: tuple[GpuModel, ...] | None


class GpuAttributes(_Part, frozen=True, kw_only=True):
    """Which graphics processors will do."""

    vendor: GpuVendor


class GpuWanted(_Part, frozen=True, kw_only=True):
    """Graphics processors."""

    units: int | str = 0
    attributes: GpuAttributes | None = None


class ResourcesWanted(_Part, frozen=True, kw_only=True):
    """What one instance gets."""

    cpu: CpuWanted
    memory: MemoryWanted
    storage: Volume | tuple[Volume, ...]
    gpu: GpuWanted = GpuWanted()

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """All volumes."""
        return (self.storage,) if isinstance(self.storage, Volume) else self.storage


class ComputeProfile(_Part, frozen=True, kw_only=True):
    """A size, by name."""

    resources: ResourcesWanted


class Price(_Part, frozen=True, kw_only=True):
    """The most that an instance may cost a block."""

    denom: Literal["uakt", "uact"]
    amount: int | float | str


class Signers(_Part, frozen=True, kw_only=True):
    """Auditors whose word for a provider is wanted."""

    any_of: tuple[str, ...] = msgspec.field(default=(), name="anyOf")
    all_of: tuple[str, ...] = msgspec.field(default=(), name="allOf")


class Placement(_Part, frozen=True, kw_only=True):
    """Which providers may bid, and for how much."""

    pricing: Mapping[str, Price]
    attributes: Mapping[str, str | bool | int] = {}
    signed_by: Signers = msgspec.field(default=Signers(), name="signedBy")


class Profiles(_Part, frozen=True, kw_only=True):
    """Sizes and places, by name."""

    compute: Mapping[str, ComputeProfile]
    placement: Mapping[str, Placement]


class Instances(_Part, frozen=True, kw_only=True):
    """How often a service runs in a place, and in which size."""

    profile: str
    count: Annotated[int, Meta(ge=1)]


class LeasedEndpoint(_Part, frozen=True, kw_only=True):
    """An address that is leased."""

    kind: Literal["ip"]


class ReclamationWanted(_Part, frozen=True, kw_only=True):
    """The notice that is asked of providers: a whole number of s, m or h."""

    min_window: str


class Sdl(_Part, frozen=True, kw_only=True):
    """A deployment."""

    version: Literal["2.0", "2.1"]
    services: Mapping[str, Service]
    profiles: Profiles
    deployment: Mapping[str, Mapping[str, Instances]]
    endpoints: Mapping[Annotated[str, Meta(pattern="^[a-z]+[-_0-9a-z]+$")], LeasedEndpoint] = {}
    reclamation: ReclamationWanted | None = None


def parse(document: object) -> Sdl:
    """Read an SDL as YAML or JSON gave it; its quantities and references are checked by `compile_sdl`.

    Raises InvalidSdl.
    """
    _refuse_nulls(document, "$")
    try:
        return wire.convert(document, Sdl)
    except msgspec.ValidationError as error:
        raise InvalidSdl(f"not a stack definition: {error}") from None


def document_of(sdl: Sdl) -> dict[str, object]:
    """Return the document that `parse` reads, without what is default."""
    document: dict[str, object] = msgspec.json.decode(msgspec.json.encode(sdl))
    return document


def _refuse_nulls(value: object, path: str) -> None:
    entries: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, one in entries:
        if one is None and key not in _NULLABLE:
            raise InvalidSdl(f"not a stack definition: {path}.{key} is null; leave it out, or give it a value")
        _refuse_nulls(one, f"{path}.{key}")
