"""What a deployment asks providers for: groups of resources, and the most that each may cost a block."""

import enum
from typing import Annotated

import msgspec

from engram.provisioning.akash.cosmos import DecCoin
from engram.provisioning.akash.protobuf import Uint32


class Attribute(msgspec.Struct, frozen=True, order=True):
    """A property that is asked for."""

    key: Annotated[str, 1] = ""
    value: Annotated[str, 2] = ""


class SignedBy(msgspec.Struct, frozen=True):
    """Auditors whose word for a provider is wanted: of all, and of at least one."""

    all_of: Annotated[tuple[str, ...], 1] = ()
    any_of: Annotated[tuple[str, ...], 2] = ()


class PlacementRequirements(msgspec.Struct, frozen=True):
    """Which providers may bid."""

    signed_by: Annotated[SignedBy, 1] = SignedBy()
    attributes: Annotated[tuple[Attribute, ...], 2] = ()


class ResourceValue(msgspec.Struct, frozen=True):
    """A number as ASCII decimal."""

    val: Annotated[bytes, 1] = b""


class CPU(msgspec.Struct, frozen=True):
    """Thousandths of a processor."""

    units: Annotated[ResourceValue, 1] = ResourceValue()
    attributes: Annotated[tuple[Attribute, ...], 2] = ()


class Memory(msgspec.Struct, frozen=True):
    """Bytes of memory."""

    quantity: Annotated[ResourceValue, 1] = ResourceValue()
    attributes: Annotated[tuple[Attribute, ...], 2] = ()


class Storage(msgspec.Struct, frozen=True):
    """Bytes of a volume."""

    name: Annotated[str, 1] = ""
    quantity: Annotated[ResourceValue, 2] = ResourceValue()
    attributes: Annotated[tuple[Attribute, ...], 3] = ()


class GPU(msgspec.Struct, frozen=True):
    """Number of graphics processors."""

    units: Annotated[ResourceValue, 1] = ResourceValue()
    attributes: Annotated[tuple[Attribute, ...], 2] = ()


class EndpointKind(enum.IntEnum):
    """How a port is reached from outside."""

    SHARED_HTTP = 0
    RANDOM_PORT = 1
    LEASED_IP = 2


class Endpoint(msgspec.Struct, frozen=True):
    """A port that is reached from outside."""

    kind: Annotated[EndpointKind, 1] = EndpointKind.SHARED_HTTP
    sequence_number: Annotated[Uint32, 2] = 0


class Resources(msgspec.Struct, frozen=True):
    """What one instance of a service gets."""

    id: Annotated[Uint32, 1] = 0
    cpu: Annotated[CPU, 2] = CPU()
    memory: Annotated[Memory, 3] = Memory()
    storage: Annotated[tuple[Storage, ...], 4] = ()
    gpu: Annotated[GPU, 5] = GPU()
    endpoints: Annotated[tuple[Endpoint, ...], 6] = ()


class ResourceUnit(msgspec.Struct, frozen=True):
    """Instances of a service, and the most that one may cost a block."""

    resource: Annotated[Resources, 1] = Resources()
    count: Annotated[Uint32, 2] = 0
    price: Annotated[DecCoin, 3] = DecCoin()


class GroupSpec(msgspec.Struct, frozen=True):
    """What is leased from one provider."""

    name: Annotated[str, 1] = ""
    requirements: Annotated[PlacementRequirements, 2] = PlacementRequirements()
    resources: Annotated[tuple[ResourceUnit, ...], 3] = ()
