"""What a validator will think of the proxy's certificate: a handshake in memory, verified by this machine's
authorities. Blocks for a few ms.
"""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from engram.proxy.settings.model import ServerSettings

SOON_DAYS: Final = 14
_TIMES: Final = re.compile(rb"\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z")
"""UTCTime and GeneralizedTime in DER; a certificate's validity is its first two."""


def certificate_cautions(server: ServerSettings, now: datetime) -> list[str]:
    """Return what is wrong with the certificate, in words; empty without one, or with a good one."""
    if not server.tls_certificate:
        return []
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(server.tls_certificate), Path(server.tls_key))
    except OSError as error:
        return [f"server.tls_certificate: does not load: {error}"]
    found = []
    if (why := _handshake(context)) is not None:
        found.append(f"server.tls_certificate: a validator will not trust it: {why}")
    expires = expiry_of(Path(server.tls_certificate).read_bytes())
    if expires is not None and (left := (expires - now).days) < SOON_DAYS:
        when = "has expired" if expires < now else f"expires in {left} days"
        found.append(f"server.tls_certificate: {when} ({expires:%Y-%m-%d}); the file is read again when it changes")
    return found


def _handshake(context: ssl.SSLContext) -> str | None:
    """Return why a client of this machine refuses the certificate; the name is not checked."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
            except ssl.SSLError as error:
                return str(error.reason)
    return None


def expiry_of(pem: bytes) -> datetime | None:
    """Return until when the first certificate of a PEM file is valid; None where that cannot be read."""
    begin, end = pem.find(b"-----BEGIN CERTIFICATE-----"), pem.find(b"-----END CERTIFICATE-----")
    if begin < 0 or end < begin:
        return None
    der = ssl.PEM_cert_to_DER_cert(pem[begin:end].decode("ascii", "replace") + "-----END CERTIFICATE-----\n")
    times = _TIMES.findall(der)
    if len(times) < 2:
        return None
    short, long = times[1]
    text = long.decode() if long else ("20" if short[:2] < b"50" else "19") + short.decode()
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
