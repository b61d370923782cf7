"""Forms of addresses: where a node says that it is reached (`miner.announce`), and URLs that can be asked."""

import ipaddress
import re
from typing import Final, TypeAlias
from urllib.parse import urlsplit

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORM: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")


def announced_at(text: str) -> tuple[IpAddress, int | None]:
    """Return the address and the port that are announced; no port when the text names none.

    The chain knows addresses, no names. An IPv4 address in IPv6 clothes is the IPv4 address. Raises ValueError saying
    what would be right.

    >>> announced_at("203.0.113.5:8091"), announced_at("[2001:db8::1]:8091"), announced_at("2001:db8::1")
    ((IPv4Address('203.0.113.5'), 8091), (IPv6Address('2001:db8::1'), 8091), (IPv6Address('2001:db8::1'), None))
    """
    found = _FORM.fullmatch(text)
    host = text if found is None else found["six"] or found["four"]
    port = None if found is None or found["port"] is None else int(found["port"])
    try:
        address: IpAddress = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address, IPv4:PORT or [IPv6]:PORT") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone, which means nothing elsewhere")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{address} is where nobody can be reached")
    if port is not None and not 0 < port < 65_536:
        raise ValueError(f"port {port} is not of 1 to 65535")
    return address, port


def is_http_url(url: str) -> bool:
    """Tell whether the text is an http(s) URL with a host, and with a port that exists if it names one.

    >>> is_http_url("https://rpc.example/key"), is_http_url("http://[::1"), is_http_url("http://host:99999")
    (True, False, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_ORIGIN_PORTS: Final = {"http": 80, "https": 443}


def right_origin(text: str) -> str | None:
    """Return the origin as browsers send it, or None when the text holds none.

    A slash at the end means nothing and is let pass; a path, capitals or the scheme's own port would never match.

    >>> right_origin("https://app.example"), right_origin("https://App.example:443/shop"), right_origin("app.example")
    ('https://app.example', 'https://app.example', None)
    """
    if text in ("*", "null"):  # `null` is the origin of pages from files and sandboxes
        return text
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        encoded = host.encode("idna").decode("ascii") if not host.isascii() else host
    except (ValueError, UnicodeError):
        return None
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", parts.scheme) or not re.fullmatch(r"[a-z0-9._:-]+", encoded):
        return None
    named = f"[{encoded}]" if ":" in encoded else encoded
    suffix = "" if port is None or port == _ORIGIN_PORTS.get(parts.scheme) else f":{port}"
    return f"{parts.scheme}://{named}{suffix}"
