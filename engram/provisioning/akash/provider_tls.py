"""How a provider proves who it is: a certificate of a known authority for its host, or the one it has put on chain."""

import ssl
from collections.abc import Sequence


def system_context() -> ssl.SSLContext:
    """Return a context that trusts the machine's authorities and checks the host's name. Blocks (reads files)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def pinned_context(certificates: Sequence[str]) -> ssl.SSLContext | None:
    """Return a context that takes exactly these certificates (PEM), whatever host they name; None without any.

    A certificate with the same names, signed by itself as well, is refused in the handshake: before a token is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    pinned = False
    for pem in certificates:
        try:
            context.load_verify_locations(cadata=pem)
        except (ssl.SSLError, ValueError):
            continue
        pinned = True
    return context if pinned else None
