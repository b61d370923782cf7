"""The SDL of a node: one container with its image by digest, one port, its tier's size, a volume for what it stores.

Port and volumes are declared in the order in which all compilers agree: the port that becomes 80 first, the volume of
the container's own files before the larger one of the node's.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from engram.nodes import environment
from engram.provisioning.akash import sdl
from engram.provisioning.akash.errors import InvalidSdl
from engram.provisioning.akash.sdl import Sdl
from engram.sessions import Tier

SERVICE: Final = "miner"
PLACEMENT: Final = "akash"
NODE_PORT: Final = environment.PORT
"""What the node listens on, inside its container."""
ROOT_GIB: Final = 1
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""A node takes bodies of this size; the ingress must pass them."""
_BY_DIGEST: Final = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}", re.ASCII)
_DIGEST_FORM: Final = "name@sha256: and 64 hex digits"


class NodeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from node to node."""

    tier: Tier
    image: str
    """By digest: a tag may become another image while the session is sold."""
    environment: Mapping[str, str]
    max_price_uact: str
    """A block, decimal text."""
    auditors: tuple[str, ...] = ()
    """At least one must have signed for the provider; none: any provider may bid."""
    attributes: Mapping[str, str] = {}
    """What a provider must have, such as its region."""
    storage_class: str | None = "beta3"
    """Kind of the volume; None: what the node stores is lost when its container is restarted."""
    reclamation: str | None = None
    """The notice that is asked of providers, such as 1h. Compilers before 2026 refuse an SDL that has it."""

    def __repr__(self) -> str:
        return f"NodeOrder(tier={self.tier.name!r}, image={self.image!r})"  # its environment holds a launch token


def node_sdl(order: NodeOrder) -> Sdl:
    """Return the SDL of a node. Raises InvalidSdl for an image without its digest."""
    if not _BY_DIGEST.fullmatch(order.image):
        raise InvalidSdl(f"the image is {order.image!r}; it must be {_DIGEST_FORM}")
    variables = tuple(f"{name}={value}" for name, value in sorted(order.environment.items()))
    options = sdl.HttpOptions(max_body_size=MAX_BODY_BYTES)
    port = sdl.Expose(port=NODE_PORT, as_port=80, http_options=options, to=(sdl.ExposeTo(everybody=True),))
    persistent = order.storage_class is not None
    mounts = {"data": sdl.Mount(mount=environment.DATA_DIR)} if persistent else {}
    service = sdl.Service(
        image=order.image, env=variables, expose=(port,), params=sdl.Params(storage=mounts) if mounts else None
    )
    price = sdl.Price(denom="uact", amount=order.max_price_uact)
    placement = sdl.Placement(
        attributes=order.attributes, signed_by=sdl.Signers(any_of=order.auditors), pricing={SERVICE: price}
    )
    return Sdl(
        version="2.0" if order.reclamation is None else "2.1",
        services={SERVICE: service},
        profiles=sdl.Profiles(
            compute={SERVICE: sdl.ComputeProfile(resources=_size(order.tier, order.storage_class))},
            placement={PLACEMENT: placement},
        ),
        deployment={SERVICE: {PLACEMENT: sdl.Instances(profile=SERVICE, count=1)}},
        reclamation=None if order.reclamation is None else sdl.ReclamationWanted(min_window=order.reclamation),
    )


def _size(tier: Tier, storage_class: str | None) -> sdl.ResourcesWanted:
    if storage_class is None:
        volumes: tuple[sdl.Volume, ...] = (sdl.Volume(size=f"{ROOT_GIB + tier.storage_gb}Gi"),)
    else:
        kind = sdl.StorageAttributes(storage_class=storage_class, persistent=True)
        volumes = (
            sdl.Volume(size=f"{ROOT_GIB}Gi"),
            sdl.Volume(name="data", size=f"{tier.storage_gb}Gi", attributes=kind),
        )
    return sdl.ResourcesWanted(
        cpu=sdl.CpuWanted(units=tier.cpu_vcpu), memory=sdl.MemoryWanted(size=f"{tier.memory_gb}Gi"), storage=volumes
    )
