"""Certificates of providers: self-signed, with the provider's address as common name."""

import secrets
import ssl
import subprocess
from pathlib import Path

import msgspec


class Certificate(msgspec.Struct, frozen=True):
    pem: bytes
    public_key: bytes
    """PEM"""
    serial: int
    chain_file: Path
    key_file: Path

    def context(self) -> ssl.SSLContext:
        """Return what a gateway serves with: TLS 1.3 only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.chain_file, self.key_file)
        return context


def make(address: str, folder: Path, name: str) -> Certificate:
    """Make key and certificate in the folder, by the openssl program; those that are there are used again.

    Raises CalledProcessError.
    """
    chain_file, key_file, serial_file = (folder / f"{name}.{kind}" for kind in ("pem", "key", "serial"))
    public_file = folder / f"{name}.pub"
    if public_file.exists():
        serial = int(serial_file.read_text())
        return Certificate(chain_file.read_bytes(), public_file.read_bytes(), serial, chain_file, key_file)
    serial = secrets.randbits(63) | 1
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
    constraints = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth,serverAuth")
    subject = ("-subj", f"/CN={address}", "-set_serial", str(serial))
    _openssl("req", "-x509", *curve, *subject, *constraints, "-keyout", str(key_file), "-out", str(chain_file))
    serial_file.write_text(str(serial))
    public_file.write_bytes(_openssl("x509", "-in", str(chain_file), "-pubkey", "-noout"))
    return Certificate(chain_file.read_bytes(), public_file.read_bytes(), serial, chain_file, key_file)


def _openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout
