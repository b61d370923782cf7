"""What the parts of an SDL must say of each other, beside its schema: the rules of compilers, chain and providers."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from engram.provisioning.akash import quantities
from engram.provisioning.akash.cosmos import DECIMALS
from engram.provisioning.akash.errors import InvalidSdl
from engram.provisioning.akash.sdl import Instances, ResourcesWanted, Sdl, Service, Volume

MAX_CPU_M: Final = 384_000
MAX_MEMORY: Final = 2 * 1024**4
MAX_STORAGE: Final = 32 * 1024**4
MAX_COUNT: Final = 50
MAX_GROUPS: Final = 20
MAX_PRICE: Final = 10_000_000
_CLASSES: Final = ("beta1", "beta2", "beta3", "default")
"""Classes of volumes that outlive their container."""
_SERVICE: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_VARIABLE: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*", re.ASCII)
_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
_DIVERGING: Final = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
"""Characters that Go and TypeScript write differently into the JSON that is hashed."""
_MIN_PASSWORD: Final = 6
_MIN_EMAIL: Final = 5
Q = TypeVar("Q")


def check(sdl: Sdl) -> None:
    """Raise InvalidSdl with the first reason, if there is one."""
    for reason in _reasons(sdl):
        raise InvalidSdl(reason)


def _read(where: str, read: Callable[[], Q]) -> Q:
    try:
        return read()
    except InvalidSdl as error:
        raise InvalidSdl(f"{where}: {error}") from None


def _reasons(sdl: Sdl) -> Iterator[str]:
    placements = {place for places in sdl.deployment.values() for place in places}
    if not placements:
        yield "deployment: it names no placement; at least one service must run somewhere"
    if len(placements) > MAX_GROUPS:
        yield f"deployment: {len(placements)} placements; the chain takes at most {MAX_GROUPS}"
    for name in sorted(sdl.services.keys() ^ sdl.deployment.keys()):
        missing = "deployment" if name in sdl.services else "services"
        yield f"{missing}: {name!r} is missing; services and deployment must name the same"
    for name, places in sdl.deployment.items():
        yield from _service(name, sdl.services[name])
        for place, instances in places.items():
            yield from _instances(sdl, name, place, instances)
    for place in placements:
        inside = [sdl.services[name] for name, places in sdl.deployment.items() if place in places]
        if not any(to.everybody for service in inside for expose in service.expose or () for to in expose.to):
            yield f"deployment: nothing in {place!r} is global; one port must be reached from outside"
    yield from _endpoints(sdl)
    if sdl.reclamation is not None:
        window = sdl.reclamation.min_window
        _read("reclamation.min_window", lambda: quantities.window(window))
    hosts = Counter(
        host for service in sdl.services.values() for expose in service.expose or () for host in expose.accept or ()
    )
    for host, times in hosts.items():
        if times > 1 or not _HOST.fullmatch(host):
            yield f"accept: {host!r} must be a DNS name in lower case, and be named once"


def _service(name: str, service: Service) -> Iterator[str]:
    if not _SERVICE.fullmatch(name):
        yield f"services: {name!r} must be lower-case letters, digits and '-', and begin with a letter"
    credentials = service.credentials
    if credentials is not None and len(credentials.password) < _MIN_PASSWORD:
        yield f"services.{name}.credentials.password has less than {_MIN_PASSWORD} characters"
    if credentials is not None and credentials.email and len(credentials.email) < _MIN_EMAIL:
        yield f"services.{name}.credentials.email: {credentials.email!r} has less than {_MIN_EMAIL} characters"
    for entry in service.env or ():
        variable, _, value = entry.partition("=")
        if not _VARIABLE.fullmatch(variable):
            yield f"services.{name}.env: {variable!r} is no name of a variable"
        if _DIVERGING.search(value):
            odd = "a control character or a line separator, which compilers hash differently"
            yield f"services.{name}.env: the value of {variable} has {odd}"


def _instances(sdl: Sdl, name: str, place: str, instances: Instances) -> Iterator[str]:
    profile = instances.profile
    compute, placement = sdl.profiles.compute.get(profile), sdl.profiles.placement.get(place)
    if compute is None:
        yield f"profiles.compute: {profile!r} is missing, which deployment.{name}.{place} names"
        return
    if placement is None:
        yield f"profiles.placement: {place!r} is missing, which deployment.{name} names"
        return
    price = placement.pricing.get(profile)
    if price is None:
        yield f"profiles.placement.{place}.pricing: {profile!r} is missing, which deployment.{name}.{place} names"
    else:
        where = f"profiles.placement.{place}.pricing.{profile}.amount"
        if int(_read(where, lambda: quantities.price(price.denom, price.amount)).amount) > MAX_PRICE * DECIMALS:
            yield f"{where}: {price.amount} is more than {MAX_PRICE}"
    if instances.count > MAX_COUNT:
        yield f"deployment.{name}.{place}.count is {instances.count}; the chain takes at most {MAX_COUNT}"
    yield from _sizes(profile, compute.resources)
    yield from _volumes(name, sdl.services[name], profile, compute.resources)
    yield from _graphics(name, sdl.services[name], profile, compute.resources)


def _sizes(profile: str, wanted: ResourcesWanted) -> Iterator[str]:
    for what, read, most in (
        ("cpu.units", lambda: quantities.millicpu(wanted.cpu.units), MAX_CPU_M),
        ("memory.size", lambda: quantities.size(wanted.memory.size), MAX_MEMORY),
        ("storage", lambda: sum(quantities.size(volume.size) for volume in wanted.volumes), MAX_STORAGE),
    ):
        where = f"profiles.compute.{profile}.resources.{what}"
        amount = _read(where, read)
        if not 1 <= amount <= most:
            yield f"{where} comes to {amount}; it must be 1 to {most}"


def _volumes(name: str, service: Service, profile: str, wanted: ResourcesWanted) -> Iterator[str]:
    mounts = {} if service.params is None else service.params.storage
    names = [volume.name for volume in wanted.volumes]
    where = f"services.{name}.params.storage"
    if len({*names}) != len(names):
        yield f"profiles.compute.{profile}.resources.storage: {names} must be different names"
    for mounted in mounts:
        if mounted not in names:
            yield f"{where}: {mounted!r} is no volume of the profile {profile!r}, which has {names}"
    paths = [mount.mount for mount in mounts.values()]
    if len({*paths}) != len(paths):
        yield f"{where}: two volumes have the same mount"
    for volume in wanted.volumes:
        place, mount = f"profiles.compute.{profile}.resources.storage.{volume.name}", mounts.get(volume.name)
        yield from _kind(place, volume)
        if _is_persistent(volume) and (mount is None or mount.mount is None):
            yield f"{where}.{volume.name}: a persistent volume needs a mount"
        kind = volume.attributes
        if kind is not None and (kind.storage_class is None or kind.persistent is None):
            yield f"{place}.attributes: {'class' if kind.storage_class is None else 'persistent'} is missing"


def _kind(where: str, volume: Volume) -> Iterator[str]:
    kind = volume.attributes
    if kind is None:
        return
    if kind.storage_class == "ram" and kind.is_persistent:
        yield f"{where}: a volume of class ram cannot be persistent"
    if kind.storage_class in _CLASSES and not kind.is_persistent:
        yield f"{where}: a volume of class {kind.storage_class} must be persistent"


def _is_persistent(volume: Volume) -> bool:
    return volume.attributes is not None and volume.attributes.is_persistent


def _graphics(name: str, service: Service, profile: str, wanted: ResourcesWanted) -> Iterator[str]:
    where = f"profiles.compute.{profile}.resources.gpu"
    units = _read(f"{where}.units", lambda: quantities.count(wanted.gpu.units))
    if (units > 0) != (wanted.gpu.attributes is not None):
        yield f"{where}: units and attributes are given together or not at all"
    if service.params is not None and service.params.tee == "cpu-gpu" and not units:
        yield f"services.{name}.params.tee is cpu-gpu, and the profile {profile!r} has no gpu"


def _endpoints(sdl: Sdl) -> Iterator[str]:
    used: set[tuple[str, int, str]] = set()
    for name, service in sdl.services.items():
        for expose in service.expose or ():
            for to in expose.to:
                if not to.ip:
                    continue
                port = (to.ip, expose.as_port or expose.port, expose.proto.upper())
                if not to.everybody:
                    yield f"services.{name}.expose: port {expose.port} has the address {to.ip!r} and is not global"
                if to.ip not in sdl.endpoints:
                    yield f"endpoints: {to.ip!r} is missing, which services.{name} names"
                if port in used:
                    yield f"services.{name}.expose: port {port[1]} of the address {to.ip!r} is taken twice"
                used.add(port)
    for endpoint in sorted(sdl.endpoints.keys() - {ip for ip, _, _ in used}):
        yield f"endpoints: {endpoint!r} is used by no service"
