"""The calls that Engram makes, as the runtime names them."""

import ipaddress

from engram.chain.errors import CallNotComposable
from engram.chain.read.runtime import SUBTENSOR, RuntimeCall
from engram.hotkeys import PublicKey

COMMITMENT_BYTES = 128
"""The largest Raw field of a commitment."""
HTTP_PROTOCOL = 4
"""Protocol number of HTTP over TCP (source: bittensor's axon)."""
IDENTITY = "IdentitiesV2"
"""Storage item that set_identity writes."""
IDENTITY_FIELDS = ("name", "url", "github_repo", "image", "discord", "description", "additional")


def set_commitment(netuid: int, payload: bytes) -> RuntimeCall:
    """Commit up to 128 bytes under the signer on this subnet. Raises CallNotComposable when there are more."""
    if len(payload) > COMMITMENT_BYTES:
        raise CallNotComposable(f"a commitment has at most {COMMITMENT_BYTES} bytes, not {len(payload)}")
    field = {f"Raw{len(payload)}": payload}
    return RuntimeCall("Commitments", "set_commitment", {"netuid": netuid, "info": {"fields": [[field]]}})


def serve_axon(netuid: int, ip: str, port: int, version: int) -> RuntimeCall:
    """Announce where the signer serves. `ip` is a literal IPv4 or IPv6 address. Raises CallNotComposable."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError as error:
        raise CallNotComposable(f"an axon is announced by its IP address, not as {ip!r}") from error
    if not 0 < port < 65_536:
        raise CallNotComposable(f"port {port} is not of 1 to 65535")
    arguments: dict[str, object] = {
        "netuid": netuid,
        "version": version,
        "ip": int(address),
        "port": port,
        "ip_type": address.version,
        "protocol": HTTP_PROTOCOL,
        "placeholder1": 0,
        "placeholder2": 0,
    }
    return RuntimeCall(SUBTENSOR, "serve_axon", arguments)


def burned_register(netuid: int, hotkey: PublicKey) -> RuntimeCall:
    """Register a hotkey; the signer is the coldkey that pays the burn."""
    return RuntimeCall(SUBTENSOR, "burned_register", {"netuid": netuid, "hotkey": hotkey})


def set_weights(netuid: int, uids: tuple[int, ...], weights: tuple[int, ...], version_key: int) -> RuntimeCall:
    """Set weights in the open."""
    arguments: dict[str, object] = {
        "netuid": netuid,
        "dests": list(uids),
        "weights": list(weights),
        "version_key": version_key,
    }
    return RuntimeCall(SUBTENSOR, "set_weights", arguments)


def set_identity(fields: dict[str, str]) -> RuntimeCall:
    """Set the identity of a coldkey; `fields` are of IDENTITY_FIELDS. Raises CallNotComposable."""
    unknown = sorted(set(fields) - set(IDENTITY_FIELDS))
    if unknown:
        raise CallNotComposable(f"an identity has no {', '.join(unknown)}")
    return RuntimeCall(SUBTENSOR, "set_identity", {name: fields.get(name, "").encode() for name in IDENTITY_FIELDS})
