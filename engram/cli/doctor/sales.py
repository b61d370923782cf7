"""Checks whether a gateway with these settings could sell anything now, by the rules of /ready (gateway/rules.py).

The ledger and the disk are looked at; what only a running process knows (the chain it reads, its breaker) is left out.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection

from config.model import Settings
from engram.cli.at_rest import read_at_rest, read_if_there
from engram.cli.doctor import akash, engine
from engram.cli.doctor.finding import Finding
from engram.gateway import rules, sales_switch
from engram.gateway.standing_facts import fixed_facts
from engram.ledger import facts
from engram.payments.purchase_answer import NoRoom
from engram.provisioning import capacity, node_keys
from engram.sessions import HELD, TierName, counts
from engram.sessions.rules import tiers

_FINDING_NAMES: Final = {"docker": engine.WHAT, "akash": akash.WHAT}
"""What the finding on each backend is named that is asked over a connection."""


class _InLedger(msgspec.Struct, frozen=True):
    selling: bool | None = None
    keys: int = 0
    held: int = 0


def sales(settings: Settings, ledger: Path, others: Iterable[Finding]) -> Iterator[Finding]:
    """Say why nothing could be sold; `others` are the findings on settings, facilitator and backends, asked once.

    The ledger is the server of ledger.url, or else the file `ledger`. A lasting reason is bad, a passing one a note.
    """
    others = tuple(others)
    if any(one.what == "settings" and one.verdict == "bad" for one in others):
        yield Finding("sales", "bad", "nothing can be sold: a gateway does not start with these settings")
        return
    kept = read_if_there(settings, _query) if settings.ledger.url else read_at_rest(ledger, _query) or _InLedger()
    if kept is None:
        yield Finding("sales", "bad", "nothing can be sold: the server of ledger.url cannot be read")
        return
    found = rules.reasons(_facts(settings, kept, others))
    for reason in found:
        yield Finding("sales", "bad" if reason.lasting else "note", f"nothing can be sold: {reason.text}")
    if not found:
        yield Finding("sales", "good", "a session could be sold")


def _facts(settings: Settings, kept: _InLedger, others: tuple[Finding, ...]) -> rules.SalesFacts:
    facilitator = next((one for one in others if one.what == "facilitator" and one.verdict == "bad"), None)
    return msgspec.structs.replace(
        fixed_facts(settings),
        selling=settings.gateway.selling if kept.selling is None else kept.selling,
        usable_keys=None if settings.environment == "local" else kept.keys,
        places=_places(settings),
        held=kept.held,
        silent_backends=_silent_backends(settings, others),
        free_bytes=_free_bytes(Path(settings.data_dir).resolve()),
        facilitator=None if facilitator is None else NoRoom("facilitator_unavailable", facilitator.text, 0),
    )


def _silent_backends(settings: Settings, others: tuple[Finding, ...]) -> tuple[str, ...]:
    """Return the backends that do not answer, if none does."""
    bad = {one.what for one in others if one.verdict == "bad"}
    silent = tuple(name for name in settings.provisioning.chosen if _FINDING_NAMES.get(name) in bad)
    return silent if len(silent) == len(settings.provisioning.chosen) else ()


def _places(settings: Settings) -> int:
    lite = tiers(settings.pricing.lite_usd_per_hour)[TierName.LITE]
    fitting = capacity.places(
        settings.provisioning.places, capacity.memory_bytes(), os.cpu_count() or 1, lite.memory_bytes
    )
    return min(fitting, settings.sessions.live_in_all)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _query(connection: Connection) -> _InLedger:
    switch = facts.get(connection, sales_switch.KEY)
    return _InLedger(
        selling=None if switch is None else switch == "on",
        keys=node_keys.count_usable(connection),
        held=sum(count for state, count in counts.scan(connection).items() if state in HELD),
    )
