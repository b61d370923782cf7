"""`engram miner mcp`: the memory of one node for an agent, over standard input and output, or HTTP."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec
from cyclopts import Parameter

from engram import children
from engram.agents.memories import PUBLIC
from engram.agents.options import EmbedderName, Options
from engram.cli.failures import CommandFailed, Exit
from engram.cli.miner.target import NodeTarget

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


WHERE = Where()


def mcp(
    *,
    where: Where = WHERE,
    listen: Annotated[
        str | None, Parameter(help="HOST:PORT to serve over HTTP instead of standard input; port 0 picks a free one.")
    ] = None,
    revoked: Annotated[Path, Parameter(help="File that keeps revoked tokens, with --listen.")] = Path(
        "~/.engram/mcp-revoked.json"
    ),
) -> NoReturn:
    """Serve the memory of one node to an agent as MCP tools: remember, recall, forget, list.

    Private text is encrypted here, before it leaves, with a key derived from the hotkey. It runs until its input ends.
    """
    if where.key is None and where.namespace:
        raise CommandFailed("a private namespace needs --key, the hotkey file that it belongs to", Exit.USAGE)
    if not where.namespace and not where.public:
        raise CommandFailed("name a private namespace by --namespace, or open the public one by --public", Exit.USAGE)
    url = NodeTarget(to=where.to, data=where.data).url()
    if listen is not None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > _LAST_PORT:
            raise CommandFailed(f"--listen is HOST:PORT, such as 127.0.0.1:8765, not {listen!r}", Exit.USAGE)
    options = Options(
        url=url,
        key=None if where.key is None else str(where.key.expanduser()),
        namespaces=(*where.namespace, *([PUBLIC] if where.public else [])),
        embedder=where.embedder,
        listen=listen,
        revoked=str(revoked),
    )
    # This process has imported a command line; the one that it becomes serves in half the memory.
    program = children.command(children.Program.AGENTS, msgspec.json.encode(options).decode())
    os.execve(program[0], program, children.environment(os.environ))  # noqa: S606
