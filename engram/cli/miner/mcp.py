"""`engram miner mcp`: the memory of one node for an agent, over standard input and output, or HTTP."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec
from cyclopts import Parameter

from engram import children
from engram.agents.memories import check_private
from engram.agents.options import EmbedderName, Options
from engram.cli.failures import CommandFailed, Exit
from engram.cli.miner.target import NodeTarget
from engram.mcp.rules import is_loopback_name

_LAST_PORT: Final = 65_535


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Where:
    """The node, the key, and what of it an agent may use."""

    to: Annotated[str | None, Parameter(help="URL of the node.")] = None
    data: Annotated[Path | None, Parameter(help="The node's data folder, to find its URL instead of --to.")] = None
    key: Annotated[Path | None, Parameter(help="Hotkey file to sign and encrypt with.")] = None
    namespace: Annotated[
        tuple[str, ...], Parameter(help="Private namespace that agents may use; repeatable.", negative="")
    ] = ()
    public: Annotated[bool, Parameter(help="Open the public namespace too, where everyone can read.", negative="")] = (
        False
    )
    embedder: Annotated[
        EmbedderName, Parameter(help="What makes vectors of private texts; all users of a namespace need the same.")
    ] = "minilm"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Http:
    """Who reaches it with --listen."""

    host: Annotated[
        tuple[str, ...],
        Parameter(
            help="Name that clients reach it by (NAME or NAME:PORT), beside the address of --listen; repeatable.",
            negative="",
        ),
    ] = ()
    open_loopback: Annotated[
        bool,
        Parameter(
            help="Let programs on this machine in without a token. Behind a reverse proxy that opens it to the world.",
            negative="",
        ),
    ] = False
    revoked: Annotated[Path, Parameter(help="File that keeps revoked tokens.")] = Path("~/.engram/mcp-revoked.json")


WHERE = Where()
HTTP = Http()


def mcp(
    *,
    where: Where = WHERE,
    listen: Annotated[
        str | None, Parameter(help="HOST:PORT to serve over HTTP instead of standard input; port 0 picks a free one.")
    ] = None,
    http: Http = HTTP,
) -> NoReturn:
    """Serve the memory of one node to an agent as MCP tools: remember, recall, forget, list.

    Private text is encrypted here, before it leaves, with a key derived from the hotkey. It runs until its input ends.
    """
    if where.key is None and where.namespace:
        raise CommandFailed("a private namespace needs --key, the hotkey file that it belongs to", Exit.USAGE)
    if not where.namespace and not where.public:
        raise CommandFailed("name a private namespace by --namespace, or open the public one by --public", Exit.USAGE)
    try:
        check_private(where.namespace)
    except ValueError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    url = NodeTarget(to=where.to, data=where.data).url()
    _check_http(listen, http, has_key=where.key is not None)
    options = Options(
        url=url,
        key=None if where.key is None else str(where.key.expanduser()),
        namespaces=where.namespace,
        public=where.public,
        embedder=where.embedder,
        listen=listen,
        hosts=http.host,
        open_loopback=http.open_loopback,
        revoked=str(http.revoked),
    )
    # This process has imported a command line; the one that it becomes serves in half the memory.
    program = children.command(children.Program.AGENTS, msgspec.json.encode(options).decode())
    os.execve(program[0], program, children.environment(os.environ))  # noqa: S606


def _check_http(listen: str | None, http: Http, *, has_key: bool) -> None:
    """Check how it is reached over HTTP. Raises CommandFailed."""
    if listen is None:
        if http.host or http.open_loopback:
            raise CommandFailed("--host and --open-loopback go with --listen", Exit.USAGE)
        return
    address, _, port = listen.rpartition(":")
    if not address or not port.isdecimal() or int(port) > _LAST_PORT:
        raise CommandFailed(f"--listen is HOST:PORT, such as 127.0.0.1:8765, not {listen!r}", Exit.USAGE)
    if http.open_loopback and not is_loopback_name(listen):
        raise CommandFailed(f"--open-loopback needs a --listen such as 127.0.0.1:8765, not {listen!r}", Exit.USAGE)
    if not has_key and not http.open_loopback:
        raise CommandFailed(
            "--listen needs --key, whose tokens open it (engram mcp token), or --open-loopback", Exit.USAGE
        )
