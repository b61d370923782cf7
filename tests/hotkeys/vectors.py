"""Requests signed by the original clients, each with the verdict that a strict receiver owes it."""

import base64
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from engram.hotkeys import PublicKey, Verifier, ss58
from engram.hotkeys.errors import AuthError
from engram.hotkeys.replay_guard import ReplayStore
from engram.hotkeys.scheme import Scheme, SignedRequest

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "epistula_http_vectors.json").read_bytes())
VECTORS: list[dict[str, Any]] = RECORDED["vectors"]
BY_ID: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in VECTORS}
OTHERS: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in RECORDED["other_schemes"]}


def senders(vector: dict[str, Any]) -> frozenset[PublicKey]:
    """Who may call, as the recordings have it."""
    texts = [*RECORDED["allowed_senders"], *vector.get("allowed_senders_needed", [])]
    return frozenset(ss58.decode(text) for text in texts)


def verifier_for(vector: dict[str, Any], schemes: Collection[Scheme]) -> Verifier:
    return Verifier(
        list(schemes),
        started_ms=0,
        replays=ReplayStore(),
        self_key=ss58.decode(vector["self_hotkey"]),
        permitted=senders(vector).__contains__,
    )


def ask(verifier: Verifier, vector: dict[str, Any]) -> SignedRequest:
    return verifier.request(
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in vector["headers"]],
        method=vector["method"],
        raw_path=vector["path"].encode(),
        body=base64.b64decode(vector["body_b64"]),
        now_ms=vector["now_ms"],
    )


def verdict(verifier: Verifier, vector: dict[str, Any]) -> str:
    """`accept`, or the code of the refusal."""
    try:
        ask(verifier, vector)
    except AuthError as refused:
        return refused.code
    return "accept"
