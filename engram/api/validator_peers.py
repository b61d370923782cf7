"""The endpoints of a validator for other validators: one row each. Requests are signed with Epistula version 2."""

from typing import Any, Final

import msgspec

from engram.api.node_model import Health
from engram.api.route import NoBody, Response, Route


class ProposedOutput(msgspec.Struct, frozen=True):
    """Scores or a ranking, to be co-signed."""

    payload: msgspec.Raw
    """The signed payload; see GET /schemas/scores and GET /schemas/ranking of a receiver."""
    block_hash: str
    """Of the payload's block, in hex."""


class BundledOutput(msgspec.Struct, frozen=True):
    """An output that has left, so that this epoch needs no other of its kind."""

    payload: msgspec.Raw
    """The signed payload with its `cosignatures`."""


class DifferingValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that cannot be vouched for; null where one side has none."""

    uid: str
    field: str
    proposed: float | None = None
    lowest: float | None = None
    """The lowest that was measured here."""
    highest: float | None = None
    tolerance: float = 0.0


class CosignerOpinion(msgspec.Struct, frozen=True, kw_only=True):
    """What this validator says of a proposal."""

    verdict: str
    reason: str = ""
    differences: list[DifferingValue] = []
    hotkey: str
    """ss58 of this validator."""
    signature: str | None = None
    """0x and sr25519 over the ASCII of the proposal's signed_hash; null unless the verdict is `signed`."""


class BundleNoted(msgspec.Struct, frozen=True):
    """Whether the bundle was the first of its epoch to be heard of."""

    first: bool


CALLER: Final = "Epistula"
_REFUSED: Final[tuple[Response[Any], ...]] = (
    Response(401, "The request is not signed as it must be."),
    Response(403, "The proposer holds no validator permit.", CosignerOpinion),
    Response(409, "Refused; `verdict` says why, and `differences` which values.", CosignerOpinion),
    Response(422, "No proposal, or its hashes or its signature do not hold.", CosignerOpinion),
    Response(425, "It cannot be judged yet: ask again.", CosignerOpinion),
)

PROPOSE: Final = Route(
    "propose",
    "POST",
    "/relay/proposals",
    "Ask for a signature on the scores of a round, or on a ranking.",
    ProposedOutput,
    Response(200, "Signed.", CosignerOpinion),
    others=_REFUSED,
    callers=(CALLER,),
    max_values=40_000,
)
BUNDLE: Final = Route(
    "bundle",
    "POST",
    "/relay/bundles",
    "Say that the scores of an epoch, or its ranking, have left with enough signatures.",
    BundledOutput,
    Response(200, "BundleNoted.", BundleNoted),
    others=(
        Response(401, "The request is not signed as it must be."),
        Response(403, "The caller holds no validator permit."),
        Response(422, "No bundle, or its signatures do not hold or are too few."),
        Response(425, "The chain was not read lately: say it again."),
    ),
    callers=(CALLER,),
    max_values=40_000,
)
HEALTH: Final = Route(
    "health", "GET", "/health", "Whether it is up", NoBody, Response(200, "It is.", Health), probe=True
)

ROUTES: Final = (PROPOSE, BUNDLE, HEALTH)
