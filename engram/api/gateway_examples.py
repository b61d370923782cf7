"""One example of every answer, for the API's document; a test holds each against its schema."""

from typing import Final

_HOTKEY: Final = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
_SESSION_ID: Final = "3f0e0f0a-6a52-4f0b-9a2e-0d8f5d6b7c11"
_PAYMENT_ID: Final = "9b8f8a52-11d5-4d5c-8a48-6f1f4f1f2a77"
_TRANSACTION: Final = "0x" + "5a" * 32
_RECIPIENT: Final = "0x000000000000000000000000000000000000dEaD"

_SESSION_FIELDS: Final[dict[str, object]] = {
    "session_id": _SESSION_ID,
    "controller_hotkey": _HOTKEY,
    "status": "active",
    "created_at": 1763680000.0,
    "expires_at": 1763766412.5,
    "node_endpoint": "http://127.0.0.1:18100",
    "node_hotkey": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "payment_tx": _TRANSACTION,
    "network": "engram-play",
    "amount_paid_usd": 2.4,
    "stats": {"vectors": 3, "proof_rate": 1.0, "p50_latency_ms": 4.2, "block": 4210001},
    "error": None,
    "remaining_seconds": 86388.2,
    "tier": "lite",
    "payment_id": _PAYMENT_ID,
    "end_reason": None,
    "stats_age_s": 12.1,
    "emptied_at": None,
    "restored_at": None,
    "memory": "kept",
}

HEALTH: Final[dict[str, object]] = {"status": "ok", "service": "engram-cloud-gateway"}
READY: Final[dict[str, object]] = {"ready": True, "checks": {"ledger": "", "chain": ""}}
NOT_READY: Final[dict[str, object]] = {"ready": False, "checks": {"ledger": "", "chain": "not synced yet"}}
TIERS: Final[dict[str, object]] = {
    "tiers": [
        {
            "tier": "lite",
            "cpu_vcpu": 1,
            "memory_gb": 2,
            "storage_gb": 10,
            "price_akt_per_hour": 0.05,
            "price_usd_per_hour": 0.1,
        }
    ]
}
NODES: Final[dict[str, object]] = {
    "note": "Nodes provisioned on Akash on demand, as many as its account can pay for.",
    "akash_network": "akashnet-2",
    "available": True,
    "not_enforced": [],
    "price_usd_per_hour": {"lite": 0.1, "standard": 0.2, "pro": 0.36},
    "backends": [
        {
            "name": "akash",
            "answers": True,
            "places": 50,
            "free": 47,
            "note": "Nodes provisioned on Akash on demand, as many as its account can pay for.",
            "not_enforced": [],
        }
    ],
}
IDENTITY: Final[dict[str, object]] = {
    "hotkey": _HOTKEY,
    "public_key": "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
    "scheme": "engram-cloud",
    "sig_versions": [1, 2],
    "environment": "local",
    "version": "0.1.0",
}
_REFUND_TERMS: Final[dict[str, object]] = {
    "not_delivered_percent": 100,
    "node_lost_percent": 100,
    "ended_by_operator_percent": 100,
    "early_stop_percent": 0,
    "outage_percent": 100,
    "outage_free_s": 60.0,
    "smallest_part": "10000",
    "recipient": "payer",
    "sent": "automatically",
    "text": "Goes back to the payer, at once: everything if no node comes up or you stop before it is active; …",
}
TERMS: Final[dict[str, object]] = {
    "terms_url": "",
    "min_hours": 0.5,
    "max_hours": 720.0,
    "live_sessions_per_hotkey": 3,
    "payment_flow": "upfront",
    "paid_time": "Paid time starts when the node is active; provisioning costs nothing.",
    "refunds": "If no node can be provided, the whole payment is sent back at once, to the address that paid it.",
    "refund_terms": _REFUND_TERMS,
    "early_stop": "Remaining time of an active session that its owner stops is not refunded.",
    "early_stop_refund_percent": 0,
}
METAGRAPH: Final[dict[str, object]] = {
    "network": "Bittensor",
    "block": 4210001,
    "netuid": 450,
    "note": "Read at a finalized block of Bittensor.",
    "neurons": [{"uid": 0, "hotkey": _HOTKEY, "incentive": 0.01}],
}
SESSION: Final = _SESSION_FIELDS
SESSIONS: Final[dict[str, object]] = {"sessions": [_SESSION_FIELDS]}
BOUGHT: Final[dict[str, object]] = _SESSION_FIELDS | {
    "status": "provisioning",
    "node_endpoint": None,
    "node_hotkey": None,
    "stats": {},
    "stats_age_s": None,
    "payment_status": "settled",
    "code": "accepted",
}
STOPPED: Final[dict[str, object]] = {"stopped": True, "session_id": _SESSION_ID}
TICKET: Final[dict[str, object]] = {
    "ticket": "AAAAAGkflwAAAAAAAAAABwAAAABn3tJ5cXk0e8mM1n2rWQoL",
    "expires_in_s": 120,
    "url": f"/sessions/{_SESSION_ID}/events?ticket=AAAAAGkflwAAAAAAAAAABwAAAABn3tJ5cXk0e8mM1n2rWQoL",
}
PAYMENT: Final[dict[str, object]] = {
    "payment_id": _PAYMENT_ID,
    "session_id": _SESSION_ID,
    "kind": "session",
    "status": "settled",
    "amount_usd": 2.4,
    "network": "engram-play",
    "transaction": _TRANSACTION,
    "reason": None,
    "created_at": 1763680000.0,
    "settled_at": 1763680000.4,
    "refunds": [],
}
SPENDING: Final[dict[str, object]] = {
    "address": _RECIPIENT,
    "network": "engram-play",
    "amount": "1000000000",
    "faucet": True,
}
TRANSFER: Final = "5f" * 16
ORDER_TEXT: Final = "eyJpZCI6Ii4uLiJ9.c2lnbmF0dXJl"
ORDER: Final[dict[str, object]] = {
    "order": ORDER_TEXT,
    "url": f"https://gateway.example/app/#/pay/{ORDER_TEXT}",
    "expires_at": 1763680900.0,
    "amount_usd": 2.4,
    "network": "base",
    "recipient": _RECIPIENT,
    "tier": "lite",
    "duration_hours": 24.0,
    "session_id": None,
}
ORDER_STATUS: Final[dict[str, object]] = {
    "status": "paid",
    "expires_at": 1763680900.0,
    "amount_usd": 2.4,
    "session_id": _SESSION_ID,
    "payment_id": _PAYMENT_ID,
    "payer": _RECIPIENT,
}
LINK_PAYMENT: Final[dict[str, object]] = {
    "code": "accepted",
    "payment_status": "settled",
    "payment_id": _PAYMENT_ID,
    "amount_usd": 2.4,
    "network": "base",
    "payer": _RECIPIENT,
    "transaction": _TRANSACTION,
    "refunds": [],
}
PAYMENT_REQUIRED: Final[dict[str, object]] = {
    "error": "Payment required",
    "code": "payment_required",
    "request_id": "6f2d1c0b5e4f4c7a",
    "x402Version": 1,
    "accepts": [
        {
            "scheme": "exact",
            "network": "base",
            "maxAmountRequired": "2400000",
            "resource": "https://gateway.example/sessions",
            "description": "Engram memory node, lite, 24 h",
            "mimeType": "application/json",
            "payTo": _RECIPIENT,
            "maxTimeoutSeconds": 120,
            "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            "extra": {"name": "USD Coin", "version": "2"},
        }
    ],
    "amount_usd": 2.4,
    "network": "base",
    "recipient": _RECIPIENT,
    "protocol": "x402",
    "docs": "https://x402.org",
    "terms": "https://gateway.example/terms",
    "refund_terms": _REFUND_TERMS,
}
EVENTS: Final = (
    'id: 17\nevent: state\ndata: {"session_id":"…","what":"active","at":1763680012.5,"details":{},"session":{}}\n\n'
    'event: stats\ndata: {"session_id":"…","stats":{"vectors":3},"age_s":0.4}\n\n'
)

COUNTERSIGN: Final[dict[str, object]] = {
    "certificate": "engram-cert-1.eyJob3RrZXkiOi4uLn0.c2lnbmF0dXJl",
    "statement": {
        "type": "root",
        "form": "keyed-1",
        "namespace": "__public__",
        "root_hex": "00" * 32,
        "count": 0,
        "at_ms": 1_767_225_600_000,
    },
    "sent_at_ms": 1_767_225_600_000,
    "signature": "ab" * 64,
}
COUNTERSIGNED: Final[dict[str, object]] = {"signature": "ab" * 64}


def error(code: str, text: str) -> dict[str, object]:
    """Return an example of an error."""
    return {"error": text, "code": code, "request_id": "6f2d1c0b5e4f4c7a"}
