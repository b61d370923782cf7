"""The MCP server `external_intelligence`: what validators and gateways relayed, for agents."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from sqlalchemy import Connection

from engram import __version__
from engram.api import xeris as api
from engram.hotkeys import MalformedHotkey, ss58
from engram.ledger import Ledger, LedgerError
from engram.mcp import Caller, Catalog, Resource, ServerInfo, Template, Tool, ToolFailed
from engram.relay.schemas import SCHEMAS
from engram.xeris import intelligence, records
from engram.xeris.records import Wanted

SCHEME: Final = "engram://intelligence/"
_SHOWN: Final = 50

Netuid = Annotated[
    int, Meta(ge=0, le=65_535, description="The subnet; the first that this receiver serves when left out.")
]
Kind = Annotated[
    Literal["scores", "memory", "ranking", "inference", "gap", "anchor"],
    Meta(description="scores: what validators found of miners; memory: what a gateway knows of its nodes."),
]
Block = Annotated[int, Meta(ge=0, lt=2**53)]


class Search(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `search`."""

    netuid: Netuid | None = None
    kind: Kind | None = None
    signer: Annotated[str, Meta(max_length=64, description="Hotkey (ss58) that signed.")] | None = None
    from_block: Block | None = None
    to_block: Block | None = None
    anchored: bool | None = None
    """Only those whose hash stands on the chain, or only the others."""
    before: Annotated[int, Meta(ge=1, lt=2**53, description="`next` of the page before.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=_SHOWN)] = 20


class Latest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `latest`."""

    netuid: Netuid | None = None
    kind: Kind = "scores"


class Get(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `get`."""

    signed_hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="As `search` shows it.")]


class Found(Struct, frozen=True, kw_only=True):
    """Payloads without their documents, the newest first; `next` is `before` of the page after, null at the end."""

    items: list[api.IntelligenceSummary]
    next: int | None


def catalog(ledger: Ledger, netuids: tuple[int, ...]) -> Catalog:
    """Return what the server offers, of the subnets that the receiver serves."""
    first = next(iter(netuids), 0)

    async def search(given: Search, _: Caller) -> Found:
        try:
            signer = None if given.signer is None else ss58.decode(given.signer)
        except MalformedHotkey as error:
            raise ToolFailed(f"signer: {error}") from None
        wanted = Wanted(
            netuid=first if given.netuid is None else given.netuid,
            kind=given.kind,
            signer=signer,
            from_block=given.from_block,
            to_block=given.to_block,
            anchored=given.anchored,
            before_id=given.before,
        )
        return await _found(wanted, given.limit)

    async def _found(wanted: Wanted, limit: int) -> Found:
        try:
            rows = await ledger.read(lambda c: records.search(c, wanted, limit + 1))
        except LedgerError:
            raise ToolFailed("the receiver's ledger does not answer: try again") from None
        following = rows[limit - 1].id if len(rows) > limit else None
        return Found(items=[intelligence.summary(row) for row in rows[:limit]], next=following)

    async def newest(netuid: int, kind: str) -> api.Intelligence | None:
        def read(connection: Connection) -> api.Intelligence | None:
            found = records.newest(connection, netuid, kind)
            return None if found is None else intelligence.with_proof(connection, found)

        try:
            return await ledger.read(read)
        except LedgerError:
            raise ToolFailed("the receiver's ledger does not answer: try again") from None

    async def latest(given: Latest, _: Caller) -> api.Intelligence:
        netuid = first if given.netuid is None else given.netuid
        found = await newest(netuid, given.kind)
        if found is None:
            raise ToolFailed(f"nothing of kind {given.kind} was accepted of subnet {netuid}")
        return found

    async def get(given: Get, _: Caller) -> api.Intelligence:
        try:
            found = await ledger.read(lambda c: intelligence.one(c, given.signed_hash))
        except LedgerError:
            raise ToolFailed("the receiver's ledger does not answer: try again") from None
        if found is None:
            raise ToolFailed(f"no payload of hash {given.signed_hash} was accepted")
        return found

    async def read(uri: str, _: Caller) -> object | None:
        netuid, slash, kind = uri.removeprefix(SCHEME).partition("/")
        if not uri.startswith(SCHEME) or not netuid.isdecimal() or not netuid.isascii() or len(netuid) > 5:
            return None
        if not slash:
            return await _found(Wanted(netuid=int(netuid)), _SHOWN) if int(netuid) in netuids else None
        return await newest(int(netuid), kind) if kind in SCHEMAS else None

    return Catalog(
        info=ServerInfo(name="external_intelligence", title="Engram external intelligence", version=__version__),
        instructions="Signed outputs of Engram's subnet, as validators and gateways relayed them. Each was verified "
        "when it was accepted; `state` says whether its hash stands on the chain (`anchored`); `get` gives the proof.",
        tools=(
            Tool(
                name="search",
                title="Search outputs",
                description="Find accepted outputs by subnet, kind, signer, block and whether they are anchored.",
                takes=Search,
                gives=Found,
                run=search,
            ),
            Tool(
                name="latest",
                title="Latest output",
                description="The newest accepted output of a kind, whole, with its proof.",
                takes=Latest,
                gives=api.Intelligence,
                run=latest,
            ),
            Tool(
                name="get",
                title="One output",
                description="One accepted output by its hash, whole, with its proof and whether it is anchored.",
                takes=Get,
                gives=api.Intelligence,
                run=get,
            ),
        ),
        resources=tuple(
            Resource(
                uri=f"{SCHEME}{netuid}",
                name=f"subnet-{netuid}",
                title=f"Subnet {netuid}",
                description="The newest accepted outputs, without their documents.",
            )
            for netuid in netuids
        ),
        templates=(
            Template(
                uri_template=f"{SCHEME}{{netuid}}/{{kind}}",
                name="latest-of-kind",
                title="Latest of a kind",
                description="The newest accepted output of a subnet and kind, whole, with its proof.",
            ),
        ),
        read=read,
        is_public=True,
    )
