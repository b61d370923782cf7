"""What a test makes go wrong. Each switch names what it hits; some are used up."""

import msgspec


class NodeFaults(msgspec.Struct):
    """Of one REST endpoint."""

    stale: bool = False
    """It no longer follows the chain: its answers are of the block when this was set, what is sent to it is lost."""
    syncing: bool = False
    """It says so, and what is sent to it is lost."""
    down: bool = False
    """Connections are closed without an answer."""
    error_500: int = 0
    """So many requests are answered 500 and nothing is done."""
    broadcast_then_hang: int = 0
    """So many broadcasts take effect and are never answered."""
    broadcast_then_500: int = 0
    """So many broadcasts take effect and are answered 500."""
    broadcast_lost: int = 0
    """So many broadcasts are answered with code 0 and lost."""
    no_unordered: bool = False
    """Unordered transactions are refused, as chains before SDK 0.53 do."""
    garbage: int = 0
    """So many requests are answered 200 with a page of HTML."""
    huge: int = 0
    """So many requests are answered 200 with 32 MB."""
    lie: str = ""
    """It lies in this way to those who read (lies.py)."""
    missing: tuple[str, ...] = ()
    """Paths beginning so are answered 501: the chain has other versions."""


class ProviderFaults(msgspec.Struct):
    """Of one provider."""

    no_bids: bool = False
    dead: bool = False
    """Its gateway closes connections without an answer."""
    slow_s: float = 0.0
    """Its gateway answers so much later."""
    impostor: bool = False
    """Its gateway presents a certificate of its name that is not on the chain."""
    never_ready: bool = False
    """It takes manifests and starts nothing."""
    ignores_manifest: bool = False
    """It answers 200 with nothing in it and keeps no manifest."""
    answers_itself: bool = False
    """It starts no node and answers in its place, with the launch token that the manifest names."""
    keeps_running: bool = False
    """Its workloads go on after their leases."""
    loses_workloads: bool = False
    """The lease is active, the workload is gone and the status empty."""
    error_500: int = 0
    """So many requests are answered 500."""
    huge: int = 0
    """So many requests are answered 200 with 32 MB."""
    redirects: str = ""
    """All requests are sent on to this URL."""
    status_404: int = 0
    """So many status requests are answered 404, as by a provider that has restarted."""


class ChainFaults(msgspec.Struct):
    """Of the chain itself."""

    second_writer: int = 0
    """Before so many ordered transactions, another writer of the same account uses its sequence."""
    out_of_gas: int = 0
    """So many transactions use three times the gas that was simulated."""
    drop_waiting: bool = False
    """What waits in the mempool is lost at the next block."""
    no_blocks: bool = False
    """The chain stands still."""


class Faults(msgspec.Struct):
    nodes: list[NodeFaults]
    providers: dict[str, ProviderFaults]
    chain: ChainFaults


def used(holder: msgspec.Struct, name: str) -> bool:
    """Return whether the fault is set, using up one of a counted one."""
    value = getattr(holder, name)
    if isinstance(value, bool):
        return value
    if value > 0:
        setattr(holder, name, value - 1)
        return True
    return False
