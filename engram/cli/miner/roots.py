"""The roots that a running node signs."""

import time
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from engram.api import node
from engram.api.node_model import Commitment, Health
from engram.cli.failures import CommandFailed
from engram.cli.wallet.passwords import signing_key
from engram.clock import SystemClock
from engram.hotkeys import HotkeyError, miner_scheme, parse_hotkey
from engram.miner import folder
from engram.sdk.errors import Impostor
from engram.sdk.node_calls import NodeCalls, checked, require_root
from engram.sdk.transport import Transport

_WITHIN_S = 60.0


class Roots(msgspec.Struct, frozen=True):
    """Roots in hex: over the public records, and over all (empty when not requested)."""

    public: str
    whole: str


def roots_of_node(data: Path, key: Path | None) -> Roots:
    """Request the signed roots of the node that owns the folder; `key` is its controller's, for the root over all.

    Raises SdkError, Impostor when another process answers at its address or a signature does not hold, CommandFailed.
    """
    there = folder.read_node_file(data)
    if there is None:
        raise Impostor(f"{data / folder.NODE_FILE} does not say where the node is")
    transport, clock = Transport(there.url, timeout_s=_WITHIN_S), SystemClock()
    try:
        health = checked(transport.request("GET", node.HEALTH.path), Health)
        if health.launch_token != there.launch_token:
            raise Impostor(f"another node answers at {there.url}")
        hotkey = parse_hotkey(health.hotkey)
        call = NodeCalls(clock).commitment(hotkey)
        public = call.read(transport.request(call.method, call.path)).root_hex
        if key is None:
            return Roots(public, "")
        fields = miner_scheme.sign_body(
            signing_key(key), node.COMMITMENT.signed_as, {"scope": "all"}, time.time_ns() // 10**6
        )
        whole = checked(transport.request("GET", f"{node.COMMITMENT.path}?{urlencode(fields)}"), Commitment)
    except HotkeyError as error:
        raise CommandFailed(f"{error}") from None
    finally:
        transport.close()
    require_root(hotkey, whole, "whole", clock.now())
    return Roots(public, whole.root_hex)
