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
    """Make key and certificate in the folder, by the openssl program. Raises CalledProcessError."""
    chain_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    serial = secrets.randbits(63) | 1
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]
    command += ["-subj", f"/CN={address}", "-set_serial", str(serial)]
    command += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth,serverAuth"]
    command += ["-keyout", str(key_file), "-out", str(chain_file)]
    subprocess.run(command, check=True, capture_output=True)
    public = subprocess.run(
        ["openssl", "x509", "-in", str(chain_file), "-pubkey", "-noout"], check=True, capture_output=True
    )
    return Certificate(chain_file.read_bytes(), public.stdout, serial, chain_file, key_file)
