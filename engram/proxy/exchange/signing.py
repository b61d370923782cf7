"""Signs answers for those who asked, in the headers of Epistula version 2."""

from collections.abc import Callable

from engram.hotkeys import Keypair, epistula
from engram.proxy.exchange.incoming import Incoming, Sign


def signing(keypair: Keypair | None, request: Incoming, now_ns: Callable[[], int]) -> Sign | None:
    """Return what signs answers to a proven request by its uuid; None without a key, or where it has no uuid."""
    caller = request.caller
    if keypair is None or caller is None or not request.uuid:
        return None

    def sign(body_hash: str) -> list[tuple[bytes, bytes]]:
        signed = epistula.sign_answer_hash(keypair, body_hash, uuid=request.uuid, receiver=caller, now_ns=now_ns())
        return [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in signed.items()]

    return sign
