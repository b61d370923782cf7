"""The certificate authorities that this machine trusts, for TLS to servers of others."""

import os
import re
import ssl
from typing import Final

_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/cert.pem",  # their older releases
    "/etc/ssl/cert.pem",  # BSD, macOS
    "/etc/ssl/ca-bundle.pem",  # SUSE
)
"""Where systems keep them; a Python that was built elsewhere (a packed one) does not know."""
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")


def machine_tls() -> ssl.SSLContext:
    """Return a client's context that trusts them, or only those of SSL_CERT_FILE or SSL_CERT_DIR where that is set.

    Takes about 20 ms. Raises OSError for a file that is not there or holds no certificate.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
    known = ssl.get_default_verify_paths()
    if known.cafile or (known.capath and any(_HASHED.match(name) for name in os.listdir(known.capath))):
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if (found := next(filter(os.path.isfile, _FILES), None)) is not None:
        context.load_verify_locations(found)
    return context
