"""Headers and manifests: signed, checked, read. A signature of the owner admits the writers, theirs admit manifests."""

import hashlib

import msgspec

from engram import wire
from engram.archive.errors import Damaged, Foreign, Forged
from engram.archive.model import FORMAT, ID_BYTES, Envelope, Header, Manifest, SignedHeader
from engram.archive.sealing import purpose, seal, unseal
from engram.hotkeys import Keypair, PublicKey, ss58, verify

_decode_signed = wire.msgpack_decoder(SignedHeader).decode
_decode_header = wire.msgpack_decoder(Header).decode
_decode_envelope = wire.msgpack_decoder(Envelope).decode
_decode_manifest = wire.msgpack_decoder(Manifest).decode
_HEADER_CONTEXT = b"engram archive header 1\0"
_MANIFEST_CONTEXT = b"engram archive manifest 1\0"


def sign_header(owner: Keypair, header: Header) -> bytes:
    """Return the signed header as it is stored."""
    content = msgspec.msgpack.encode(header)
    return msgspec.msgpack.encode(SignedHeader(content, owner.sign(_HEADER_CONTEXT + content)))


def read_header(stored: bytes, owner: bytes | None = None) -> Header:
    """Return a header whose owner signed it. Raises Damaged, Forged, and Foreign when it is not `owner`'s."""
    try:
        signed = _decode_signed(stored)
        header = _decode_header(signed.header)
    except msgspec.MsgspecError as error:
        raise Damaged(f"the header is not that of an archive: {error}") from None
    if header.format != FORMAT or len(header.archive_id) != ID_BYTES:
        raise Damaged(f"the header has format {header.format}; this version of Engram reads format {FORMAT}")
    if not _is_signed(header.owner, _HEADER_CONTEXT + signed.header, signed.signature):
        raise Forged("the header is not signed by the owner it names")
    if owner is not None and header.owner != owner:
        raise Foreign(f"the archive belongs to {ss58.encode(PublicKey(header.owner))}")
    return header


def seal_manifest(key: bytes, manifest: Manifest, writer: Keypair, sequence: int, previous: bytes, epoch: int) -> bytes:
    """Return a sealed and signed manifest as it is stored."""
    sealed = seal(key, purpose(manifest.archive_id, epoch, "manifest"), msgspec.msgpack.encode(manifest))
    envelope = Envelope(
        archive_id=manifest.archive_id,
        sequence=sequence,
        previous=previous,
        epoch=epoch,
        writer=bytes(writer.public_key),
        sealed=sealed,
    )
    return msgspec.msgpack.encode(msgspec.structs.replace(envelope, signature=writer.sign(_signed_part(envelope))))


def read_envelope(stored: bytes, header: Header, sequence: int) -> Envelope:
    """Return an envelope that a writer of the archive signed. Raises Damaged, Foreign, Forged."""
    try:
        envelope = _decode_envelope(stored)
    except msgspec.MsgspecError as error:
        raise Damaged(f"manifest {sequence} cannot be read: {error}") from None
    if envelope.archive_id != header.archive_id:
        raise Foreign(f"manifest {sequence} belongs to another archive")
    if envelope.sequence != sequence:
        raise Forged(f"manifest {sequence} says that it is number {envelope.sequence}")
    if envelope.writer != header.owner and envelope.writer not in header.writers:
        raise Forged(f"manifest {sequence} is signed by a key that may not write this archive")
    if not _is_signed(envelope.writer, _signed_part(envelope), envelope.signature):
        raise Forged(f"the signature of manifest {sequence} does not hold")
    return envelope


def open_manifest(envelope: Envelope, key: bytes, header: Header) -> Manifest:
    """Return the manifest in an envelope. Raises Damaged, Foreign."""
    content = unseal(key, purpose(header.archive_id, envelope.epoch, "manifest"), envelope.sealed)
    try:
        manifest = _decode_manifest(content)
    except msgspec.MsgspecError as error:
        raise Damaged(f"manifest {envelope.sequence} cannot be read: {error}") from None
    if (manifest.archive_id, manifest.owner) != (header.archive_id, header.owner):
        raise Foreign(f"manifest {envelope.sequence} is of another archive or owner")
    return manifest


def link_of(stored: bytes) -> bytes:
    """Return what the next manifest names this one by."""
    return hashlib.sha256(stored).digest()


def _signed_part(envelope: Envelope) -> bytes:
    return _MANIFEST_CONTEXT + msgspec.msgpack.encode(msgspec.structs.replace(envelope, signature=b""))


def _is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    return len(public_key) == 32 and verify(PublicKey(public_key), message, signature, allow_wrapped=False)
