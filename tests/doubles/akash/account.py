"""An owner of deployments, for tests of the double: signs with coincurve over the double's own encoder."""

import base64
import hashlib
import json
from typing import Any

import coincurve

from tests.doubles.akash import addresses, wire
from tests.doubles.akash.messages import (
    TYPES,
    Amount,
    AnyValue,
    Attribute,
    AuthInfo,
    BidId,
    CloseDeployment,
    CloseLease,
    Coin,
    Cpu,
    CreateDeployment,
    CreateLease,
    DeploymentId,
    Deposit,
    Duration,
    Endpoint,
    Fee,
    Gpu,
    GroupSpec,
    Memory,
    Message,
    ModeInfo,
    PubKey,
    Reclamation,
    Requirements,
    Resources,
    ResourceUnit,
    SignDoc,
    SignedBy,
    SignerInfo,
    Single,
    Storage,
    Timestamp,
    TxBody,
    TxRaw,
)
from tests.doubles.akash.store import ONE
from tests.doubles.akash.transaction import PUBKEY_TYPE

URLS = {kind: url for url, kind in TYPES.items()}
ONE_GIB = 1024**3
_BETA3 = (Attribute("class", "beta3"), Attribute("persistent", "true"))


class Account:
    """A key and the transactions it signs."""

    def __init__(self, seed: bytes = b"owner") -> None:
        self._key = coincurve.PrivateKey(hashlib.sha256(seed).digest())
        self.public_key: bytes = self._key.public_key.format()
        self.address = addresses.of_public_key(self.public_key)

    def sign(
        self,
        *messages: Message,
        number: int,
        sequence: int = 0,
        timeout_ns: int = 0,
        chain_id: str = "akashnet-2",
        gas: int = 500_000,
        fee: int | None = None,
        memo: str = "",
        timeout_height: int = 0,
    ) -> bytes:
        """Return a TxRaw; with `timeout_ns` (unix nanoseconds) it is unordered."""
        body = TxBody(
            tuple(AnyValue(URLS[type(each)], wire.encode(each)) for each in messages),
            memo,
            timeout_height,
            unordered=bool(timeout_ns),
            timeout_timestamp=Timestamp(*divmod(timeout_ns, 10**9)) if timeout_ns else None,
        )
        info = SignerInfo(AnyValue(PUBKEY_TYPE, wire.encode(PubKey(self.public_key))), ModeInfo(Single(1)), sequence)
        paid = (gas // 40) if fee is None else fee
        auth = AuthInfo((info,), Fee((Coin("uakt", str(paid)),), gas))
        body_bytes, auth_bytes = wire.encode(body), wire.encode(auth)
        document = wire.encode(SignDoc(body_bytes, auth_bytes, chain_id, number))
        return wire.encode(TxRaw(body_bytes, auth_bytes, (self.signature(document),)))

    def signature(self, document: bytes) -> bytes:
        return bytes(self._key.sign_recoverable(document)[:64])

    def token(self, claims: dict[str, Any], algorithm: str = "ES256K") -> str:
        """Return a JSON Web Token of the claims."""
        parts = [json.dumps(each).encode() for each in ({"alg": algorithm, "typ": "JWT"}, claims)]
        signed = b".".join(_b64url(part) for part in parts)
        return (signed + b"." + _b64url(self.signature(signed))).decode()

    def claims(self, now_s: float, leases: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return claims that are good for 30 s; `leases` is the access, full where it is left out."""
        at = int(now_s)
        access = leases or {"access": "full"}
        return {"iss": self.address, "iat": at, "nbf": at, "exp": at + 30, "version": "v1", "leases": access}

    # ---------------------------------------------------------------------------------------------- messages

    def create(
        self,
        dseq: int,
        version: bytes,
        *,
        deposit: int = 500_000,
        denom: str = "uact",
        groups: tuple[GroupSpec, ...] | None = None,
        window_s: int | None = None,
        price_denom: str = "uact",
    ) -> CreateDeployment:
        return CreateDeployment(
            DeploymentId(self.address, dseq),
            (spec(denom=price_denom),) if groups is None else groups,
            version,
            Deposit(Coin(denom, str(deposit)), (1,)),
            Reclamation(Duration(window_s)) if window_s is not None else None,
        )

    def close(self, dseq: int) -> CloseDeployment:
        return CloseDeployment(DeploymentId(self.address, dseq))

    def lease(self, dseq: int, provider: str, oseq: int = 1) -> CreateLease:
        return CreateLease(BidId(self.address, dseq, 1, oseq, provider))

    def close_lease(self, dseq: int, provider: str, oseq: int = 1) -> CloseLease:
        return CloseLease(BidId(self.address, dseq, 1, oseq, provider), 0)


def spec(
    name: str = "akash",
    *,
    price: int = 100,
    denom: str = "uact",
    cpu: int = 1_000,
    attributes: tuple[tuple[str, str], ...] = (),
    any_of: tuple[str, ...] = (),
    count: int = 1,
) -> GroupSpec:
    """Return a group as the lite tier's: a root volume, a volume for data, two endpoints."""
    volumes = (
        Storage("default", Amount(str(ONE_GIB).encode())),
        Storage("data", Amount(str(10 * ONE_GIB).encode()), _BETA3),
    )
    resource = Resources(
        1,
        Cpu(Amount(str(cpu).encode())),
        Memory(Amount(str(2 * ONE_GIB).encode())),
        volumes,
        Gpu(Amount(b"0")),
        (Endpoint(0), Endpoint(1)),
    )
    wanted = Requirements(SignedBy((), any_of), tuple(Attribute(*each) for each in attributes))
    return GroupSpec(name, wanted, (ResourceUnit(resource, count, Coin(denom, str(price * ONE))),))


def manifest(environment: dict[str, str] | None = None, name: str = "akash") -> list[dict[str, Any]]:
    """Return the manifest of `spec`'s group."""

    def expose(port: int, external: int) -> dict[str, Any]:
        return {
            "port": port,
            "externalPort": external,
            "proto": "TCP",
            "service": "",
            "global": True,
            "hosts": None,
            "httpOptions": {},
            "ip": "",
            "endpointSequenceNumber": 0,
        }

    resources = {
        "id": 1,
        "cpu": {"units": {"val": "1000"}},
        "memory": {"size": {"val": str(2 * ONE_GIB)}},
        "storage": [
            {"name": "default", "size": {"val": str(ONE_GIB)}},
            {"name": "data", "size": {"val": str(10 * ONE_GIB)}},
        ],
        "gpu": {"units": {"val": "0"}},
        "endpoints": [{"sequence_number": 0}, {"kind": 1, "sequence_number": 0}],
    }
    service = {
        "name": "miner",
        "image": "registry.example/miner@sha256:00",
        "command": None,
        "args": None,
        "env": [f"{key}={value}" for key, value in (environment or {}).items()] or None,
        "resources": resources,
        "count": 1,
        "expose": [expose(8080, 80), expose(8091, 8091)],
        "credentials": None,
    }
    return [{"name": name, "services": [service]}]


def _b64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
