"""The process that serves an agent: `python -m engram.agents OPTIONS`, where OPTIONS is JSON (`Options`).

`engram miner mcp` becomes it. It imports what serving needs and no more: an agent's computer runs one for each agent.
"""

import logging
import os
import sys
from pathlib import Path

import trio

from engram import crash_reports, wire
from engram.agents.memories import Memories
from engram.agents.options import EmbedderName, Options
from engram.agents.tools import catalog
from engram.agents.vault import Vault
from engram.clock import SystemClock
from engram.hotkeys import HotkeyError, Keypair, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.mcp import Dispatcher
from engram.mcp.stdio import serve, serves, standard_streams
from engram.memory.embed.protocol import Embedder
from engram.sdk.async_transport import AsyncTransport

ATTEMPT_S = 15.0
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argument: str) -> int:
    """Serve until the input ends, or a signal; return the exit status."""
    options = wire.decode(argument, Options)
    try:
        keypair = _keypair(options.key)
    except HotkeyError as error:
        return _refused(str(error), FAILED)
    try:
        trio.run(_serve, options, keypair)
    except BaseExceptionGroup as errors:
        match _first(errors):
            case ValueError() as cause:
                return _refused(str(cause), USAGE)
            case OSError() as cause:
                return _refused(f"{options.listen or 'standard input'} cannot be served: {cause}", FAILED)
            case KeyboardInterrupt():
                return INTERRUPTED
            case _:
                raise
    return 0


async def _serve(options: Options, keypair: Keypair | None) -> None:
    async with trio.open_nursery() as nursery:

        def start(embedder: Embedder) -> None:
            nursery.start_soon(embedder.run, lambda: None)

        vault = None if keypair is None else Vault(keypair, lambda: _embedder(options.embedder), start)
        transport = AsyncTransport(options.url, timeout_s=ATTEMPT_S)
        try:
            memories = Memories(transport, keypair, options.namespaces, vault, SystemClock(), public=options.public)
            if options.listen is None:
                source, sink = standard_streams()
                await serve(serves(Dispatcher(catalog(memories))), source, sink)
            else:
                await _over_http(memories, options, options.listen, keypair)
        finally:
            with trio.CancelScope(shield=True):
                await transport.close()
        nursery.cancel_scope.cancel()


async def _over_http(memories: Memories, options: Options, listen: str, keypair: Keypair | None) -> None:
    from engram.agents.serving import (  # an HTTP server's parts, in no process that has none
        policy_of,
        serve_until_stopped,
    )
    from engram.telemetry import logs

    logs.configure("WARNING", json=not sys.stderr.isatty())
    host, _, port = listen.rpartition(":")
    policy = policy_of(keypair, options.hosts, open_loopback=options.open_loopback)
    await serve_until_stopped(memories, host.strip("[]"), int(port), policy, Path(options.revoked).expanduser())


def _embedder(name: EmbedderName) -> Embedder:
    if name == "hash":
        from engram.memory.embed.hash_embedder import HashEmbedder

        return HashEmbedder()
    from engram.memory.embed.minilm import MiniLmEmbedder  # 100 MB, at the first private text

    return MiniLmEmbedder(None, Path("~/.cache/engram").expanduser())


def _keypair(key: str | None) -> Keypair | None:
    if key is None:
        return None
    path = Path(key)
    return wallet.read_hotkey_file(path, password_for(path, "", "", os.environ, at_terminal()))


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _refused(text: str, status: int) -> int:
    print(f"engram: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    crash_reports.enable()
    logging.basicConfig(level=logging.WARNING, format="engram: %(message)s")  # to standard error
    sys.exit(main(sys.argv[1]))
