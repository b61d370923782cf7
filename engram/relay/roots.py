"""The roots that nodes signed: asked of a node over HTTP, and checked, here and by a receiver."""

from typing import Final, final

import structlog

from engram.api import node as api
from engram.api.node_model import Commitment, known
from engram.clock import Clock
from engram.hotkeys import MalformedHotkey, PublicKey, certificates, ss58
from engram.hotkeys.certificates import CertificateRefused
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer, HttpError
from engram.memory.model import PUBLIC
from engram.relay.model import SignedRoot

FORM: Final = "keyed-1"
FARTHEST_S: Final = 3_600.0
"""How far the time of a root may be from that of its payload."""
MAX_ANSWER_BYTES: Final = 65_536

_log = structlog.get_logger(__name__)


class RootRefused(Exception):
    """A root does not hold; the text says why."""


def require_root(node: PublicKey, root: SignedRoot, at: float, *, session_id: str | None = None) -> None:
    """Check that the node signed this root over its public records about then (unix seconds).

    A certificate must have been valid at the root's own time, and be of the session where that is known. Raises
    RootRefused.
    """
    if (root.form, root.namespace) != (FORM, PUBLIC):
        raise RootRefused(f"it is of form {root.form!r} over {root.namespace[:80]!r}, not {FORM!r} over {PUBLIC!r}")
    signed_at = root.at_ms / 1000
    if abs(signed_at - at) > FARTHEST_S:
        raise RootRefused(f"it is of {signed_at:.0f}, more than {FARTHEST_S:.0f} s from {at:.0f}")
    try:
        signature = bytes.fromhex(root.signature.removeprefix("0x"))
        certificates.require_signed(
            node, root.message, signature, root.certificate, at=signed_at, session_id=session_id
        )
    except (ValueError, MalformedHotkey, CertificateRefused) as error:
        raise RootRefused(str(error)) from None


@final
class NodeRoots:
    """Asks nodes for their roots. `timeout_s` bounds each question as a whole."""

    def __init__(self, http: HttpClient, clock: Clock, timeout_s: float) -> None:
        self._http = http
        self._clock = clock
        self._timeout_s = timeout_s

    async def __call__(self, endpoint: str, node: PublicKey, session_id: str) -> SignedRoot | None:
        """Return the node's root, checked; None when it cannot be had now, which is logged. Never raises HttpError."""
        try:
            answer = await self._http.request(
                "GET",
                endpoint + api.COMMITMENT.path,
                headers={certificates.HEADER: "1"},
                connect_s=self._timeout_s,
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
                fresh=True,
            )
            if answer.status != 200:
                raise BadAnswer(f"{api.COMMITMENT.path} answered {answer.status}")
            root = _root_in(answer.decode(Commitment))
            require_root(node, root, self._clock.now(), session_id=session_id)
        except (HttpError, RootRefused) as error:
            _log.warning("root_not_relayed", session=session_id, node=ss58.encode(node), reason=str(error))
            return None
        return root


def _root_in(found: Commitment) -> SignedRoot:
    """Return the root that an answer holds; its time is read from what was signed. Raises RootRefused."""
    milliseconds = found.signed.rpartition(":")[2]
    if not (milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) < 16):
        raise RootRefused(f"what was signed ends in {milliseconds[:40]!r}, not in unix milliseconds")
    return SignedRoot(
        form=found.form,
        namespace=PUBLIC,
        root_hex=found.root_hex,
        count=found.count,
        at_ms=int(milliseconds),
        signature=found.signature,
        certificate=known(found.certificate),
    )
