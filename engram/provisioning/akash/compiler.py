"""SDL -> groups, manifest and its hash, as akash-network's Go implementation compiles it.

Services, placements, attributes and ports are sorted, so that a definition has one manifest. Services of one placement
and one profile share a resource unit.
"""

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import UNSET, UnsetType

from engram.provisioning.akash import manifest, quantities, resources
from engram.provisioning.akash.messages import Reclamation
from engram.provisioning.akash.resources import Attribute, Endpoint, EndpointKind, GroupSpec, ResourceUnit
from engram.provisioning.akash.sdl import (
    Expose,
    ExposeTo,
    GpuWanted,
    Params,
    Placement,
    ResourcesWanted,
    Sdl,
    Service,
    StorageAttributes,
)
from engram.provisioning.akash.sdl_checks import check

HTTP_PORT = 80


class Compiled(msgspec.Struct, frozen=True):
    """A deployment as chain and provider take it."""

    groups: tuple[GroupSpec, ...]
    manifest: bytes
    """JSON, for the provider alone: it holds the environment."""
    version: bytes
    """Hash of the manifest, 32 bytes, for the chain."""
    reclamation: Reclamation | None = None

    def __repr__(self) -> str:
        return f"Compiled(groups={self.groups!r}, version={self.version.hex()})"


def compile_sdl(sdl: Sdl) -> Compiled:
    """Compile a definition. Raises InvalidSdl."""
    check(sdl)
    sequence = _sequence_numbers(sdl)
    specs: list[GroupSpec] = []
    groups: list[manifest.Group] = []
    for name in sorted({place for places in sdl.deployment.values() for place in places}):
        units, services = _group(sdl, name, sequence)
        placement = sdl.profiles.placement[name]
        specs.append(GroupSpec(name, _requirements(placement, _tee_types(sdl, name)), units))
        groups.append(manifest.Group(name=name, services=services))
    content = manifest.canonical(tuple(groups))
    window = None if sdl.reclamation is None else Reclamation(quantities.window(sdl.reclamation.min_window))
    return Compiled(tuple(specs), content, manifest.version_of(content), window)


def _group(
    sdl: Sdl, placement: str, sequence: Mapping[str, int]
) -> tuple[tuple[ResourceUnit, ...], tuple[manifest.Service, ...]]:
    units: dict[str, ResourceUnit] = {}
    services: list[manifest.Service] = []
    for name in sorted(service for service, places in sdl.deployment.items() if placement in places):
        wanted, service = sdl.deployment[name][placement], sdl.services[name]
        endpoints = _endpoints(service, sequence)
        shared = units.get(wanted.profile)
        if shared is None:
            size = sdl.profiles.compute[wanted.profile].resources
            cost = sdl.profiles.placement[placement].pricing[wanted.profile]
            unit = ResourceUnit(
                _resources(size, len(units) + 1, endpoints), wanted.count, quantities.price(cost.denom, cost.amount)
            )
            own = unit.resource
        else:
            own = msgspec.structs.replace(shared.resource, endpoints=endpoints)
            merged = (*shared.resource.endpoints, *endpoints)
            together = msgspec.structs.replace(
                own, endpoints=tuple(sorted(merged, key=lambda endpoint: endpoint.sequence_number))
            )
            unit = ResourceUnit(together, shared.count + wanted.count, shared.price)
        units[wanted.profile] = unit
        services.append(_service(name, service, wanted.count, own, sequence))
    return tuple(units.values()), tuple(services)


def _resources(wanted: ResourcesWanted, number: int, endpoints: tuple[Endpoint, ...]) -> resources.Resources:
    volumes = [
        resources.Storage(volume.name, _value(quantities.size(volume.size)), _storage_attributes(volume.attributes))
        for volume in wanted.volumes
    ]
    return resources.Resources(
        id=number,
        cpu=resources.CPU(_value(quantities.millicpu(wanted.cpu.units)), _attributes(wanted.cpu.attributes)),
        memory=resources.Memory(_value(quantities.size(wanted.memory.size))),
        storage=tuple(sorted(volumes, key=lambda one: (int(one.quantity.val), _persistence(one), one.name))),
        gpu=resources.GPU(_value(quantities.count(wanted.gpu.units)), _gpu_attributes(wanted.gpu)),
        endpoints=endpoints,
    )


def _persistence(volume: resources.Storage) -> str:
    return next((one.value for one in volume.attributes if one.key == "persistent"), "")


def _value(number: int) -> resources.ResourceValue:
    return resources.ResourceValue(str(number).encode())


def _attributes(attributes: Mapping[str, str | bool | int]) -> tuple[Attribute, ...]:
    return tuple(Attribute(key, _text(value)) for key, value in sorted(attributes.items()))


def _text(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _storage_attributes(attributes: StorageAttributes | None) -> tuple[Attribute, ...]:
    if attributes is None:
        return ()
    return _attributes({"class": str(attributes.storage_class), "persistent": attributes.is_persistent})


def _gpu_attributes(gpu: GpuWanted) -> tuple[Attribute, ...]:
    if gpu.attributes is None:
        return ()
    keys = []
    for model in gpu.attributes.vendor.nvidia or ():
        ram = f"/ram/{model.ram}" if model.ram else ""
        interface = f"/interface/{model.interface}" if model.interface else ""
        keys.append(f"vendor/nvidia/model/{model.model}{ram}{interface}")
    return tuple(Attribute(key, "true") for key in sorted(keys or ["vendor/nvidia/model/*"]))


def _requirements(placement: Placement, tee_types: set[str]) -> resources.PlacementRequirements:
    attributes = dict(placement.attributes)
    for tee in tee_types:
        attributes["tee/type"] = tee
    signed_by = resources.SignedBy(placement.signed_by.all_of, placement.signed_by.any_of)
    return resources.PlacementRequirements(signed_by, _attributes(attributes))


def _tee_types(sdl: Sdl, placement: str) -> set[str]:
    params = [sdl.services[name].params for name, places in sdl.deployment.items() if placement in places]
    return {one.tee for one in params if one is not None and one.tee is not None}


# -------------------------------------------------------------------------------------------------------- ports


def _sequence_numbers(sdl: Sdl) -> dict[str, int]:
    """Give numbers to the leased addresses from 1; one that is named twice has its last number, as Go counts."""
    named = sorted(to.ip for service in sdl.services.values() for _, to in _reached(service) if to.ip)
    return {name: number for number, name in enumerate(named, 1)}


def _reached(service: Service) -> Iterator[tuple[Expose, ExposeTo]]:
    for expose in service.expose or ():
        for to in expose.to:
            yield expose, to


def _endpoints(service: Service, sequence: Mapping[str, int]) -> tuple[Endpoint, ...]:
    found: list[Endpoint] = []
    for expose, to in sorted(_reached(service), key=_order):
        if to.everybody:
            ingress = expose.proto.upper() == "TCP" and (expose.as_port or expose.port) == HTTP_PORT
            found.append(Endpoint(EndpointKind.SHARED_HTTP if ingress else EndpointKind.RANDOM_PORT))
            if to.ip:
                found.append(Endpoint(EndpointKind.LEASED_IP, sequence[to.ip]))
    return tuple(found)


def _order(reached: tuple[Expose, ExposeTo]) -> tuple[str, int, str, bool]:
    expose, to = reached
    return to.service, expose.port, expose.proto.upper(), not to.everybody


# ----------------------------------------------------------------------------------------------------- manifest


def _service(
    name: str, service: Service, count: int, own: resources.Resources, sequence: Mapping[str, int]
) -> manifest.Service:
    credentials = service.credentials
    return manifest.Service(
        name=name,
        image=service.image,
        command=service.command or None,
        args=service.args or None,
        env=service.env or None,
        resources=manifest.resources_json(own),
        count=count,
        expose=tuple(_expose(expose, to, sequence) for expose, to in sorted(_reached(service), key=_order)),
        params=_params(service.params),
        credentials=None
        if credentials is None
        else manifest.Credentials(
            host=credentials.host,
            email=credentials.email,
            username=credentials.username,
            password=credentials.password,
        ),
    )


def _params(params: Params | None) -> manifest.Params | UnsetType:
    if params is None:
        return UNSET
    mounts = tuple(
        manifest.Mount(name=name, mount=mount.mount or "", read_only=mount.read_only)
        for name, mount in sorted(params.storage.items())
    )
    tee = UNSET if params.tee is None else manifest.Tee(type=params.tee)
    return manifest.Params(storage=mounts or None, tee=tee)


def _expose(expose: Expose, to: ExposeTo, sequence: Mapping[str, int]) -> manifest.Expose:
    options = expose.http_options
    return manifest.Expose(
        port=expose.port,
        external_port=expose.as_port or 0,
        proto=expose.proto.upper(),
        service=to.service,
        everybody=to.everybody,
        hosts=expose.accept or None,
        http_options=manifest.HttpOptions(
            max_body_size=options.max_body_size,
            read_timeout=options.read_timeout,
            send_timeout=options.send_timeout,
            next_tries=options.next_tries,
            next_timeout=options.next_timeout,
            next_cases=options.next_cases,
            proxy_buffer_size=options.proxy_buffer_size or UNSET,
        ),
        ip=to.ip,
        endpoint_sequence_number=sequence.get(to.ip, 0),
    )
