"""What a provider makes of a manifest: its version, whether it is valid, whether it is what the lease is for."""

import hashlib
import json
import re
from typing import Any, Final

from tests.doubles.akash.deployment import number
from tests.doubles.akash.messages import GroupSpec, ResourceUnit

_SERVICE: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_VARIABLE: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_ESCAPES: Final = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


class Invalid(Exception):
    """The manifest is refused; the text says why."""


def sorted_json(manifest: Any) -> bytes:
    """Return the manifest as Go writes it: compact, keys sorted, the characters of HTML escaped."""
    text = json.dumps(manifest, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for character, escaped in _ESCAPES:
        text = text.replace(character, escaped)
    return text.encode()


def version(manifest: Any) -> bytes:
    """Return the hash that the deployment bears on the chain."""
    return hashlib.sha256(sorted_json(manifest)).digest()


def check(body: bytes, expected: bytes, groups: list[GroupSpec]) -> list[dict[str, Any]]:
    """Return the groups of the manifest. Raises Invalid."""
    try:
        manifest = json.loads(body)
    except ValueError:
        raise Invalid("invalid character in manifest") from None
    if not isinstance(manifest, list) or not all(isinstance(each, dict) for each in manifest):
        raise Invalid("json: cannot unmarshal into Go value of type manifest.Manifest")
    if version(manifest) != expected:
        raise Invalid("manifest version validation failed")
    try:
        for group in manifest:
            _check_group(group)
        _check_against(manifest, groups)
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"invalid manifest: {error!r}") from None
    return manifest


def _check_group(group: dict[str, Any]) -> None:
    services = group["services"]
    names = [service["name"] for service in services]
    if not group["name"] or not services:
        raise Invalid("invalid manifest: group without name or services")
    if names != sorted(set(names)):
        raise Invalid("invalid manifest: services are not sorted")
    for service in services:
        if not _SERVICE.fullmatch(service["name"]):
            raise Invalid(f"invalid manifest: service name {service['name']!r} is invalid")
        if not service["image"]:
            raise Invalid(f"invalid manifest: service {service['name']!r} has no image")
        for variable in service["env"] or ():
            name, found, _ = variable.partition("=")
            if not found or not _VARIABLE.fullmatch(name):
                raise Invalid(f"invalid manifest: service {service['name']!r} env var {name!r} is invalid")
        order = [(each["service"], each["port"], each["proto"], not each["global"]) for each in service["expose"]]
        if order != sorted(order):
            raise Invalid("invalid manifest: expose is not sorted")
    if not any(each["global"] for service in services for each in service["expose"]):
        raise Invalid("invalid manifest: zero global services")


def _check_against(manifest: list[dict[str, Any]], groups: list[GroupSpec]) -> None:
    specs = {spec.name: spec for spec in groups}
    if {group["name"] for group in manifest} != set(specs) or len(manifest) != len(specs):
        raise Invalid("manifest cross-validation error: group names differ")
    for group in manifest:
        units = {unit.resource.id: unit for unit in specs[group["name"]].resources if unit.resource}
        left = {id_: unit.count for id_, unit in units.items()}
        for service in group["services"]:
            id_ = service["resources"]["id"]
            if id_ not in units:
                raise Invalid(f"manifest cross-validation error: service {service['name']!r}: no resource {id_}")
            left[id_] -= service["count"]
            if _of_manifest(service) != _of_chain(units[id_]):
                raise Invalid(f"manifest cross-validation error: service {service['name']!r}: resources differ")
        if any(left.values()):
            raise Invalid("manifest cross-validation error: underutilized or overutilized group")


def _of_manifest(service: dict[str, Any]) -> tuple[Any, ...]:
    found = service["resources"]
    return (
        int(found["cpu"]["units"]["val"]),
        int(found["memory"]["size"]["val"]),
        int(found["gpu"]["units"]["val"]),
        sorted((each["name"], int(each["size"]["val"])) for each in found["storage"]),
        sorted(_kind(each.get("kind", 0)) for each in found["endpoints"]),
        sum(1 for each in service["expose"] if each["global"]),
    )


def _kind(kind: Any) -> int:
    return ("SHARED_HTTP", "RANDOM_PORT", "LEASED_IP").index(kind) if isinstance(kind, str) else int(kind)


def _of_chain(unit: ResourceUnit) -> tuple[Any, ...]:
    found = unit.resource
    assert found is not None
    assert found.cpu is not None
    assert found.memory is not None
    assert found.gpu is not None
    return (
        number(found.cpu.units),
        number(found.memory.quantity),
        number(found.gpu.units),
        sorted((each.name, number(each.quantity)) for each in found.storage),
        sorted(each.kind for each in found.endpoints),
        len(found.endpoints),
    )
