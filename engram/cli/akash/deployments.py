"""`engram akash list`, `orphans`, `close`, `costs` and `balance`: the chain beside the ledger, which may be in use."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
import trio
from cyclopts import Parameter
from sqlalchemy import Connection

from config.model import Settings
from engram.cli import output
from engram.cli.at_rest import read_in_use
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import facts, open_inline
from engram.provisioning import ProvisioningError
from engram.provisioning.akash import costs, records
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.errors import UnusableKey
from engram.provisioning.akash.factory import make_parts, open_chain, open_signer
from engram.provisioning.akash.model import PICO
from engram.provisioning.akash.reconciling import Found, Reconciler, judge
from engram.provisioning.akash.reconciling_rules import Verdict
from engram.telemetry.metrics import Metrics

T = TypeVar("T")
DAY_S = 86_400.0
Days = Annotated[float, Parameter(help="Of sessions that ended in so many days.")]


class DeploymentRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """An active deployment of the account."""

    dseq: int
    whose: str
    """`session`, `orphan`, `new` (too young to tell) or `foreign`."""
    session: str = ""
    state: str = ""
    provider: str = ""
    price_uact: float = 0.0
    """A block."""
    funds_act: float = 0.0
    """In its escrow at the last settlement."""


class CostRow(msgspec.Struct, frozen=True):
    """What a session's node cost."""

    session: str
    sold_for_usd: float
    refunded_usd: float
    cost_act: float
    fees_akt: float
    deployments: int
    final: bool


class BalanceShown(msgspec.Struct, frozen=True):
    """What the account has."""

    address: str
    akt: float
    act: float


_WHOSE = {Verdict.KEEP: "session", Verdict.CLOSE: "orphan", Verdict.WAIT: "new", Verdict.FOREIGN: "foreign"}
_DEPLOYMENTS = (
    Column("number", "dseq"),
    Column("whose", "whose"),
    Column("session", "session"),
    Column("state", "state"),
    Column("provider", "provider"),
    Column("uact a block", "price_uact"),
    Column("escrow ACT", "funds_act"),
)
_COSTS = (
    Column("session", "session"),
    Column("sold for USD", "sold_for_usd"),
    Column("refunded USD", "refunded_usd"),
    Column("cost ACT", "cost_act"),
    Column("fees AKT", "fees_akt"),
    Column("deployments", "deployments"),
    Column("final", "final"),
)


def list_(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List the account's active deployments, each beside the session that it serves.

    The chain is asked; nothing is changed.
    """
    settings = sources.load().settings
    output.rows([_row(found) for found in _compared(settings)], _DEPLOYMENTS, json=show.json)


def orphans_(*, sources: Sources = SOURCES, show: Show = SHOW) -> int:
    """List deployments of this ledger that no session wants; the running gateway closes them after 15 minutes.

    The exit code is 1 when there are any.
    """
    settings = sources.load().settings
    found = [one for one in _compared(settings) if one.verdict is Verdict.CLOSE]
    output.rows([_row(one) for one in found], _DEPLOYMENTS, json=show.json)
    return int(bool(found))


def close_(
    dseq: Annotated[int, Parameter(converter=whole, help="The deployment's number, as `engram akash list` shows it.")],
    /,
    *,
    foreign: Annotated[bool, Parameter(help="Also one that others have made or changed.", negative="")] = False,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Close a deployment that no session wants: its leases end and the rest of its deposit comes back.

    One that serves a session is refused: `engram sessions stop` ends that.
    """
    settings = sources.load().settings
    found = next((one for one in _compared(settings) if one.info.dseq == dseq), None)
    if found is None:
        raise CommandFailed(f"the account has no active deployment {dseq}; see `engram akash list`")
    if found.verdict is Verdict.KEEP and found.row is not None:
        session = found.row.session_id
        raise CommandFailed(f"{dseq} serves session {session}, which `engram sessions stop {session}` ends")
    if found.verdict is Verdict.KEEP and not foreign:
        raise CommandFailed(
            f"{dseq} is of a session, though its manifest is another than was sent; --foreign closes it all the same",
            Exit.USAGE,
        )
    if found.verdict is Verdict.FOREIGN and not foreign:
        raise CommandFailed(f"{dseq} was not made by this gateway; --foreign closes it all the same", Exit.USAGE)

    async def close(http: HttpClient) -> str:
        ledger = open_inline()
        try:
            signer = open_signer(settings)
            parts = make_parts(
                settings, signer, ledger, read_in_use(settings, facts.ledger_id), http, SystemClock(), Metrics()
            )
            return await Reconciler(parts).close(dseq)
        finally:
            ledger.close()

    outcome = _on_chain(close)
    if outcome != "included":
        raise CommandFailed(f"{dseq} was not closed: {outcome}")
    output.record({"closed": dseq}, json=show.json)


def costs_(*, days: Days = 7.0, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show what the nodes of each session cost beside what the session was sold for.

    1 ACT is worth 1 USD, and an AKT what akash.akt_usd says. Costs of what still runs are counted from its price; the
    ledger alone is read.
    """
    settings = sources.load().settings
    now = time.time()
    found = read_in_use(settings, lambda c: costs.of_sessions(c, now, now - days * DAY_S))
    shown = [
        CostRow(
            session=cost.session_id,
            sold_for_usd=cost.price_usd_micros / 1e6,
            refunded_usd=cost.refunded_usd_micros / 1e6,
            cost_act=cost.cost_uact / 1e6,
            fees_akt=cost.fees_uakt / 1e6,
            deployments=cost.deployments,
            final=cost.is_final,
        )
        for cost in found
    ]
    output.rows(shown, _COSTS, json=show.json)
    margin = costs.margin(found, settings.akash.akt_usd)
    if margin is not None and not show.json:
        output.say(f"of what ended sessions brought, refunds left out, {margin:.1%} was not spent on their nodes")


def balance_(*, sources: Sources = SOURCES, show: Show = SHOW) -> int:
    """Show what the account has: AKT for fees and ACT for deployments.

    The exit code is 1 when one of them is below its alarm (akash.alarm_akt, akash.alarm_act).
    """
    settings = sources.load().settings

    async def read(http: HttpClient) -> BalanceShown:
        chain = open_chain(settings, _owner(settings), http, SystemClock())
        akt, act = [min(await chain.balance(denom)) / 1e6 for denom in ("uakt", "uact")]
        return BalanceShown(chain.owner, akt, act)

    shown = _on_chain(read)
    output.record(shown, json=show.json)
    return int(shown.akt < settings.akash.alarm_akt or shown.act < settings.akash.alarm_act)


def _compared(settings: Settings) -> Sequence[Found]:
    async def read(http: HttpClient) -> Sequence[Found]:
        infos = await Chain.deployments(open_chain(settings, _owner(settings), http, SystemClock()))

        def compare(connection: Connection) -> Sequence[Found]:
            known = records.by_hash(connection, [info.hash for info in infos])
            live = records.live_numbers(connection)
            return judge(infos, known, facts.ledger_id(connection), time.time(), settings.akash.orphan_age_s, live)

        return read_in_use(settings, compare)

    return _on_chain(read)


def _row(found: Found) -> DeploymentRow:
    row = found.row
    return DeploymentRow(
        dseq=found.info.dseq,
        whose=_WHOSE[found.verdict],
        session="" if row is None else row.session_id,
        state="" if row is None else str(row.state),
        provider="" if row is None else row.provider or "",
        price_uact=0.0 if row is None else (row.price or 0) / PICO,
        funds_act=found.info.funds / PICO / 1e6,
    )


def _owner(settings: Settings) -> str:
    if settings.akash.owner_address:
        return settings.akash.owner_address
    try:
        return open_signer(settings).address
    except UnusableKey as error:
        raise CommandFailed(
            f"whose deployments? akash.owner_address is not set, and {error}; set one of them", Exit.USAGE
        ) from None


def _on_chain(ask: Callable[[HttpClient], Awaitable[T]]) -> T:
    """Run what asks the chain. Raises CommandFailed when it does not answer, or the key cannot be used."""

    async def run() -> T:
        http = HttpClient()
        try:
            return await ask(http)
        finally:
            await http.aclose()

    try:
        return trio.run(run)
    except (ProvisioningError, UnusableKey) as error:
        raise CommandFailed(str(error)) from None
