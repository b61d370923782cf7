"""`engram miner mcp`: the memory of one node for an agent, over standard input and output, or HTTP."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import trio
from cyclopts import Parameter

from engram.cli.failures import CommandFailed, Exit
from engram.cli.miner.target import NodeTarget
from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.telemetry import logs

if TYPE_CHECKING:
    from engram.agents.memories import Memories
    from engram.memory.embed.protocol import Embedder

EmbedderName = Literal["minilm", "hash"]


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
) -> int:
    """Serve the memory of one node to an agent as MCP tools: remember, recall, forget, list.

    Private text is encrypted here, before it leaves, with a key derived from the hotkey. It runs until its input ends.
    """
    keypair = NodeTarget(to=where.to, data=where.data, key=where.key).keypair()
    if not where.namespace and not where.public:
        raise CommandFailed("name a private namespace by --namespace, or open the public one by --public", Exit.USAGE)
    if where.namespace and keypair is None:
        raise CommandFailed("a private namespace needs --key, the hotkey file that it belongs to", Exit.USAGE)
    url = NodeTarget(to=where.to, data=where.data).url()
    logs.configure("WARNING", json=False)
    try:
        return trio.run(_serve, url, keypair, where, listen, revoked.expanduser())
    except* ValueError as errors:
        raise CommandFailed(str(errors.exceptions[0]), Exit.USAGE) from None
    except* OSError as errors:
        raise CommandFailed(f"it cannot listen on {listen}: {errors.exceptions[0]}") from None


async def _serve(url: str, keypair: Keypair | None, where: Where, listen: str | None, revoked: Path) -> int:
    from engram.agents.memories import PUBLIC, Memories
    from engram.agents.vault import Vault
    from engram.sdk.async_transport import AsyncTransport

    async with trio.open_nursery() as nursery:

        def start(embedder: "Embedder") -> None:
            nursery.start_soon(embedder.run, lambda: None)

        vault = None if keypair is None else Vault(keypair, lambda: _embedder(where.embedder), start)
        names = [*where.namespace, *([PUBLIC] if where.public else [])]
        transport = AsyncTransport(url, timeout_s=15.0)
        try:
            memories = Memories(transport, keypair, names, vault, SystemClock())
            if listen is None:
                await _on_standard_input(memories)
            else:
                await _over_http(memories, listen, keypair, revoked)
        finally:
            with trio.CancelScope(shield=True):
                await transport.close()
        nursery.cancel_scope.cancel()
    return Exit.DONE


async def _on_standard_input(memories: "Memories") -> None:
    from engram.agents.tools import catalog
    from engram.mcp import Dispatcher
    from engram.mcp.stdio import serve, serves, standard_streams

    source, sink = standard_streams()
    await serve(serves(Dispatcher(catalog(memories))), source, sink)


async def _over_http(memories: "Memories", listen: str, keypair: Keypair | None, revoked: Path) -> None:
    from engram.agents.serving import serve_until_stopped

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"--listen is HOST:PORT, such as 127.0.0.1:8765, not {listen!r}")
    await serve_until_stopped(memories, host.strip("[]"), int(port), keypair, revoked)


def _embedder(name: EmbedderName) -> "Embedder":
    if name == "hash":
        from engram.memory.embed.hash_embedder import HashEmbedder

        return HashEmbedder()
    from engram.memory.embed.minilm import MiniLmEmbedder

    return MiniLmEmbedder(None, Path("~/.cache/engram").expanduser())
