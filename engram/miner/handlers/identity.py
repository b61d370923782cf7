"""Who the node is: introducing itself to a nonce, and taking the certificate of its session key."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qs

import msgspec
import structlog

from engram import wire
from engram.api.call import Call
from engram.api.node_model import Certified, Certify, Introduced
from engram.api.route import NoBody
from engram.hotkeys import node_identity, ss58
from engram.hotkeys.node_identity import Introduction
from engram.memory.errors import InvalidRequest
from engram.miner import authority
from engram.miner.auth import Caller, parse
from engram.miner.errors import Refused
from engram.miner.fields import string
from engram.miner.service import Service
from engram.nodes.agreement import PROTOCOL, NodeSecrets

_log = structlog.get_logger("engram.miner")


async def introduce(service: Service, call: Call[NoBody, Caller]) -> Introduced:
    """GET /identity: show by which key the node signs, signed together with the nonce."""
    for name in parse_qs(call.http.query_string.decode("latin-1"), keep_blank_values=True):
        if name != "nonce_hex":  # a probe passes by the gate that refuses fields of authority elsewhere
            raise authority.refused(name[:64], f"{name[:64]} is not understood by identity: leave it out.")
    try:
        nonce = bytes.fromhex(call.query("nonce_hex") or "")
    except ValueError:
        nonce = b""
    if len(nonce) != node_identity.NONCE_BYTES:
        raise InvalidRequest(f"nonce_hex must be {2 * node_identity.NONCE_BYTES} hex digits.")
    signer, shown = service.identity.signer, _introduction(service)
    return Introduced(
        protocol=PROTOCOL,
        hotkey=signer.address,
        key=ss58.encode(shown.key),
        box_key=shown.box_key.hex(),
        session_id=shown.session_id,
        launch_token=shown.launch_token,
        signature=signer.introduce(shown, nonce).hex(),
        certificate=signer.certificate,
    )


async def certify(service: Service, call: Call[Certify, Caller]) -> Certified:
    """POST /certificate: take a certificate that the node's hotkey signed for its session key, and sealed secrets.

    Anyone may deliver it: only the hotkey can have made it.
    """
    fields = parse(call.http.body, call.route.signed_as).fields
    try:
        sealed = base64.b64decode(string(fields, "sealed"), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest("sealed must be base64.") from None
    text, at = string(fields, "certificate"), service.clock.now()
    opened = service.identity.signer.accept(text, _introduction(service), sealed, at)
    if opened:
        try:
            service.use_secrets(wire.decode(opened, NodeSecrets))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Refused(403, "other_secrets", "The secrets cannot be read.") from None
    _log.info("certified", ends_at=service.identity.signer.ends_at)
    return Certified(accepted=True)


def _introduction(service: Service) -> Introduction:
    return service.identity.signer.introduction(service.identity.session_id, service.identity.launch_token)
