"""Parses and judges addresses: announced ones (`miner.announce`), public ones, and URLs.

Every part that announces, commits or connects to an address uses `is_public` and `is_public_host`.
"""

import ipaddress
import re
from typing import Final, TypeAlias
from urllib.parse import urlsplit

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORM: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")


def announced_at(text: str) -> tuple[IpAddress, int | None]:
    """Return the address and the port that are announced; no port when the text names none.

    The chain stores addresses, not names. An IPv4-mapped IPv6 address counts as the IPv4 address. Raises ValueError
    saying what would be valid.

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


def canonical(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 address stands for (mapped, NAT64, 6to4, Teredo), else the address.

    Of a Teredo address that is the client's, which the host has once for all the servers and ports that it may name.

    >>> canonical(ipaddress.ip_address("::ffff:8.8.8.8")), canonical(ipaddress.ip_address("64:ff9b::808:808"))
    (IPv4Address('8.8.8.8'), IPv4Address('8.8.8.8'))
    """
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: IpAddress) -> bool:
    """Tell whether an address can be reached from the internet; what an IPv6 address embeds counts too.

    >>> is_public(ipaddress.ip_address("13.89.38.129")), is_public(ipaddress.ip_address("::ffff:10.0.0.1"))
    (True, False)
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = canonical(address)
        if inner is not address:
            return is_public(inner)
        return address in _ROUTED and address.is_global
    return address.is_global and not address.is_multicast and not any(address in network for network in _OF_HOSTS)


def is_public_host(host: str) -> bool:
    """Tell whether an IP address (IPv6 with or without brackets) or a host name can be one of the public internet.

    A name is judged by its ending alone; what it means is judged when it is resolved. Names of one label, and names
    that are set aside for one machine, one site or no use at all, mean nothing elsewhere (RFC 2606, 6303, 6761, 6762,
    7686, 8375, 9476; ICANN's .internal; common ones of routers and offices).

    >>> is_public_host("miner.example.org"), is_public_host("localhost"), is_public_host("printer.LAN.")
    (True, False, False)
    """
    try:
        return is_public(ipaddress.ip_address(host.removeprefix("[").removesuffix("]").partition("%")[0]))
    except ValueError:
        labels = host.removesuffix(".").lower().split(".")
    return len(labels) > 1 and not any(f".{'.'.join(labels)}".endswith(f".{ending}") for ending in _NOT_PUBLIC)


_ROUTED: Final = ipaddress.IPv6Network("2000::/3")
"""All that is routed on the internet (IANA). Python takes site-local addresses, NAT64 of one's own network and IPv4 in
deprecated forms for global ones."""
_OF_HOSTS: Final = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
"""Addresses by which machines of Oracle and Azure reach their own host."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC: Final = (
    "alt",
    "arpa",
    "corp",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mail",
    "onion",
    "private",
    "test",
)
"""Endings of names. `corp`, `home` and `mail` are never delegated (ICANN 2018)."""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a listener on `host`.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_http_url(url: str) -> bool:
    """Tell whether the text is an http(s) URL with a host, and with a port that exists if it names one.

    >>> is_http_url("https://rpc.example/key"), is_http_url("http://[::1"), is_http_url("http://host:99999")
    (True, False, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and _is_written_out(url)
    except ValueError:
        return False


def is_postgresql_url(url: str) -> bool:
    """Tell whether the text is the address of a database on a PostgreSQL server.

    >>> is_postgresql_url("postgresql://engram@db.example/engram"), is_postgresql_url("https://db.example/engram")
    (True, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme in ("postgresql", "postgres") and len(parts.path) > 1 and _is_written_out(url)
    except ValueError:
        return False


def _is_written_out(url: str) -> bool:
    """Return whether the URL is free of spaces and invisible characters, which a paste may bring along."""
    return url.isprintable() and " " not in url


def is_base_url(url: str) -> bool:
    """Tell whether the text is an http(s) URL that paths can be put behind and that strangers may be shown.

    >>> is_base_url("https://gateway.example/shop/"), is_base_url("https://me:key@gateway.example"), is_base_url("x.y")
    (True, False, False)
    """
    return is_http_url(url) and not set("@?#") & set(url)


_ORIGIN_PORTS: Final = {"http": 80, "https": 443}


def right_origin(text: str) -> str | None:
    """Return the origin as browsers send it, or None when the text holds none.

    A trailing slash is ignored; a path, capitals or the scheme's default port would never match.

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
