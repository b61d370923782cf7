"""What an image is made of, as a CycloneDX 1.6 document: interpreter, packages, system libraries, weights."""

from __future__ import annotations

import hashlib
import platform
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution
from typing import Final

import msgspec

from engram.memory.embed import weights
from shipping import distributions
from shipping.libraries import Library
from shipping.phone_app import Bundled

_NAMESPACE: Final = uuid.UUID("6f2c9e0a-6d0e-5b6c-9c55-0d4b4b9f5a11")


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a document describes."""

    kind: str
    """A component type of CycloneDX."""
    reference: str
    name: str


IMAGE: Final = Subject(kind="container", reference="image", name="engram-node")


def document(
    digest: str,
    version: str,
    packages: Iterable[Distribution],
    libraries: Iterable[Library],
    subject: Subject = IMAGE,
    app: Iterable[Bundled] = (),
) -> dict[str, object]:
    """Return the document of what was built, which has that SHA-256; the same for the same content.

    `app` are the packages of the app of phones, where it is part of it.
    """
    packages = tuple(packages)
    locked = distributions.locked_hashes()
    named = {distributions.normalized(each.name) for each in packages}
    published = weights.PUBLISHED if distributions.WEIGHTS in named else {}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": subject.kind,
                "bom-ref": subject.reference,
                "name": subject.name,
                "version": version,
                "hashes": [_sha256(digest.removeprefix("sha256:"))],
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": [
            _interpreter(),
            *(_package(each, locked) for each in packages),
            *(_bundled(each) for each in app),
            *(_library(each) for each in libraries),
            *(_weights(name, sha256) for name, sha256 in sorted(published.items())),
        ],
    }


def encode(document: Mapping[str, object]) -> bytes:
    """Return the document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _interpreter() -> dict[str, object]:
    version = platform.python_version()
    return {
        "type": "application",
        "bom-ref": "python",
        "name": "cpython",
        "version": version,
        "purl": f"pkg:generic/python@{version}",
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        "licenses": [{"license": {"id": "Python-2.0"}}],
    }


def _package(each: Distribution, locked: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """Return the component of a package; its hashes are those of the archives that the lock allows."""
    name = distributions.normalized(each.name)
    purl = f"pkg:pypi/{name}@{each.version}"
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": each.version,
        "purl": purl,
        "hashes": [_sha256(digits) for digits in locked.get(name, ())],
    }
    expression, license_ = each.metadata.json.get("license_expression"), each.metadata.json.get("license")
    if expression:
        component["licenses"] = [{"expression": expression}]
    elif isinstance(license_, str) and len(license_) < 100:
        component["licenses"] = [{"license": {"name": license_}}]
    return component


def _bundled(each: Bundled) -> dict[str, object]:
    purl = f"pkg:npm/{each.name.replace('@', '%40')}@{each.version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": each.name,
        "version": each.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-512", "content": each.sha512}],
        "licenses": [{"expression": each.license}],
    }


def _library(each: Library) -> dict[str, object]:
    purl = f"pkg:deb/debian/{each.package}@{each.version}" if each.package else f"pkg:generic/{each.name}"
    with each.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "type": "library",
        "bom-ref": f"{purl}#{each.name}",
        "name": each.name,
        "version": each.version,
        "purl": purl,
        "hashes": [_sha256(found)],
    }


def _weights(name: str, sha256: str) -> dict[str, object]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"weights/{name}",
        "name": f"sentence-transformers/all-MiniLM-L6-v2 {name}",
        "hashes": [_sha256(sha256)],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }


def _sha256(digits: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digits}
