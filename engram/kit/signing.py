"""Requests to a miner, signed as validators sign them."""

import time
import uuid

from engram.hotkeys import Keypair, PublicKey, epistula


def signed(body: bytes, key: Keypair, receiver: PublicKey) -> dict[str, str]:
    """Return the headers of Epistula version 2 for a body that is sent now."""
    return epistula.sign_request(key, body, uuid=str(uuid.uuid4()), receiver=receiver, now_ns=time.time_ns())
