"""Parses the address of a container engine (`docker.host`)."""

from urllib.parse import urlsplit

import msgspec

from config.addresses import is_loopback


class EngineAddress(msgspec.Struct, frozen=True):
    """Where an engine listens: at a Unix socket, or at a TCP port."""

    path: str = ""
    host: str = ""
    port: int = 0


def engine_at(text: str) -> EngineAddress:
    """Return the address. Raises ValueError saying what would be valid.

    >>> engine_at("unix:///run/podman/podman.sock"), engine_at("tcp://10.0.0.5:2376")
    (EngineAddress(path='/run/podman/podman.sock', host='', port=0), EngineAddress(path='', host='10.0.0.5', port=2376))
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/") and text.isprintable():
        return EngineAddress(path=parts.path)
    if parts.scheme == "tcp" and host and port and not parts.path.strip("/") and not parts.username:
        return EngineAddress(host=host, port=port)
    raise ValueError(f"{text!r} is no address such as unix:///var/run/docker.sock or tcp://10.0.0.5:2376")


def is_local(text: str) -> bool:
    """Tell whether an engine is on this machine; one whose address cannot be read is not.

    >>> is_local("unix:///run/docker.sock"), is_local("tcp://127.0.0.1:2375"), is_local("tcp://10.0.0.5:2376")
    (True, True, False)
    """
    try:
        address = engine_at(text)
    except ValueError:
        return False
    return bool(address.path) or is_loopback(address.host)
