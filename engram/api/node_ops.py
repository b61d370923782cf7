"""The operator's listener of a node, on loopback: one row each."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from engram.api.node_model import Health
from engram.api.route import NoBody, Response, Route


class Administer(msgspec.Struct, frozen=True, kw_only=True):
    """POST /namespace: `list` counts records by namespace, `delete` erases the one that is named as `list` names it."""

    action: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET


class NamespaceCount(msgspec.Struct, frozen=True):
    """How many records a namespace has."""

    namespace: str
    records: int


class Administered(msgspec.Struct, frozen=True, kw_only=True):
    """What there is, or how many records were erased."""

    namespaces: list[NamespaceCount] | UnsetType = UNSET
    deleted: int | UnsetType = UNSET
    namespace: str | UnsetType = UNSET


METRICS: Final = Route(
    "metrics", "GET", "/metrics", "Every metric, for Prometheus", NoBody, Response(200, "The metrics.", str)
)
STATUS: Final = Route(
    "status", "GET", "/status", "The node, its chain and its announcement", NoBody, Response(200, "The status.", object)
)
HEALTH: Final = Route("health", "GET", "/health", "Whether the node is up", NoBody, Response(200, "It is.", Health))
NAMESPACE: Final = Route(
    "namespace",
    "POST",
    "/namespace",
    "Count or erase namespaces",
    Administer,
    Response(200, "Done.", Administered),
    signed_as="namespace",
    body_required=False,
)
WALLETS: Final = Route(
    "walletStats",
    "GET",
    "/wallet-stats",
    "Who signed requests since the start",
    NoBody,
    Response(200, "All of them.", object),
)
WALLET: Final = Route(
    "walletStatsOf",
    "GET",
    "/wallet-stats/{hotkey}",
    "What one hotkey signed since the start",
    NoBody,
    Response(200, "Its requests.", object),
)

ROUTES: Final[tuple[Route[Any, Any], ...]] = (METRICS, STATUS, HEALTH, NAMESPACE, WALLETS, WALLET)
