"""`engram registry`: register a miner's endpoint on the chain, and check and read what others have registered."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.chain import upstream
from engram.cli.chain.common import (
    CHAIN,
    SHOWN,
    WALLET,
    ChainOptions,
    Form,
    FormatOptions,
    WalletOptions,
    fork_in_words,
    hotkey_of,
    in_seconds,
    public_coldkey_of,
    public_hotkey_of,
    run,
)
from engram.cli.failures import CommandFailed, Exit
from engram.hotkeys import Keypair, PublicKey, ss58

if TYPE_CHECKING:
    from engram.chain.registry.probe import ProbeResult
    from engram.chain.registry.registrations import RegistryEntry
    from engram.chain.submit.submit_extrinsic import Included

app = App(
    name="registry",
    help="Endpoints of miners, as committed on the chain.",
    help_epilogue="Example: `engram registry check --network finney --netuid 11`",
)

Probe = Annotated[bool, Parameter(help="Probe every registered endpoint, as validators do.", negative="")]
AllowPrivate = Annotated[
    bool, Parameter(name="--allow-private", help="Accept addresses outside the public internet.", negative="")
]
_EXPLAINED = {
    "AccountNotAllowedCommit": "the hotkey is not registered on this subnet: engram subnet register",
    "SpaceLimitExceeded": "a hotkey may commit 3,100 bytes an epoch, each commit counting for 100 at least "
    "(31 commits): wait for the next epoch",
    "CommitmentSetRateLimitExceeded": "an older runtime takes one commit in 100 blocks: wait 20 minutes",
}


class Committed(msgspec.Struct, frozen=True):
    """A registration that was committed, or would be."""

    hotkey: str
    coldkey: str | None
    network: str
    netuid: int
    committed: str
    online: bool
    block: int | None = None
    block_hash: str | None = None
    extrinsic_hash: str | None = None


@app.default
@app.command(
    name="register",
    help_epilogue="Example: `engram registry register --network finney --netuid 11 --wallet.name W --wallet.hotkey H "
    "--address 13.89.38.129 --port 9999 --online`",
)
def register(
    *,
    address: Annotated[str, Parameter(help="IP address or host name of the miner (45 bytes at most).")],
    port: Annotated[str, Parameter(help="Its port (5 bytes at most).")],
    online: Annotated[bool, Parameter(help="Commit it; without this nothing is sent.", negative="")] = False,
    allow_private: AllowPrivate = False,
    patience: Annotated[float, Parameter(help="Seconds to wait for a finalized block.", validator=in_seconds)] = 180.0,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Commit where your miner serves, and read it back from a finalized block."""
    from engram.chain.registry.registrations import InvalidRegistration, registration

    form = shown.form
    try:
        found = registration(address, port, allow_private=allow_private)
    except InvalidRegistration as invalid:
        return _failed(form, str(invalid))
    keypair = hotkey_of(wallet) if online else None
    hotkey = ss58.encode(public_hotkey_of(wallet)) if keypair is None else keypair.ss58
    coldkey = public_coldkey_of(wallet)
    planned = Committed(
        hotkey=hotkey,
        coldkey=None if coldkey is None else ss58.encode(coldkey),
        network=chain.named,
        netuid=chain.netuid,
        committed=found.text,
        online=online,
    )
    if form != "json":
        lines = upstream.summary(planned.coldkey or "", hotkey, planned.network, chain.netuid, found.text)
        _write(lines)
    if keypair is None:
        return _dry(form, planned)
    if form != "json":
        _write(["Making commit call..."])
    import trio

    from engram.chain.errors import ChainError, EndpointsForked, NotReadBack, OutcomeUnknown, RefusedInBlock

    try:
        done = trio.run(commit_text, chain, keypair, found.text, patience)
    except RefusedInBlock as refused:
        explained = _EXPLAINED.get(refused.name, "")
        text = f"{refused} (block {refused.block})" + (f"; {explained}" if explained else "")
        return _failed(form, f"Error during commit: {text}")
    except (NotReadBack, OutcomeUnknown) as unknown:
        return _failed(form, f"Error during commit: {type(unknown).__name__}: {unknown}", Exit.UNKNOWN)
    except EndpointsForked as forked:
        return _failed(form, f"Error during commit: {fork_in_words(forked)}", Exit.FORKED)
    except ChainError as error:
        return _failed(form, f"Error during commit: {type(error).__name__}: {error}")
    if form == "json":
        output.document(
            msgspec.structs.replace(
                planned,
                block=done.block.number,
                block_hash="0x" + done.block.hash.hex(),
                extrinsic_hash="0x" + done.extrinsic_hash.hex(),
            )
        )
        return Exit.DONE
    _write(
        [
            "Commit result: True",
            f"Successfully committed {found.text} under {hotkey} on netuid {chain.netuid}",
        ]
    )
    return Exit.DONE


@app.command(name="check", help_epilogue="Example: `engram registry check --network finney --netuid 11 --verbose`")
def check(
    *,
    verbose: Annotated[bool, Parameter(help="Explain why entries are invalid.", negative="")] = False,
    probe: Probe = False,
    allow_private: AllowPrivate = False,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Show every commitment of the subnet, valid endpoints and others."""
    del wallet  # accepted as upstream does, and ignored
    form, network = shown.form, chain.named
    entries, probed = run(lambda: _entries(chain, probe, allow_private))
    if form == "json":
        output.document([_as_json(entry, probed) for entry in entries])
    elif not entries:
        _warn(f"No commitments found for netuid {chain.netuid}")
    elif form == "table":
        _table(entries, probed, verbose)
        valid = sum(entry.registration is not None for entry in entries)
        invalid = len(entries) - valid
        tip = "" if verbose or not invalid else " (--verbose says why)"
        _warn(f"netuid {chain.netuid}, {network}: {len(entries)} commitments, {valid} valid, {invalid} invalid{tip}")
    else:
        _write(upstream.check(entries, chain.netuid, network, verbose, probed))
    return Exit.DONE


@app.command(name="read", help_epilogue="Example: `engram registry read --network finney --netuid 11`")
def read(
    *,
    probe: Probe = False,
    allow_private: AllowPrivate = False,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Show every commitment that holds a text, older formats included."""
    del wallet  # accepted as upstream does, and ignored
    form = shown.form
    entries, probed = run(lambda: _entries(chain, probe, allow_private))
    texts = [entry for entry in entries if entry.raw]
    if form == "json":
        output.document([_as_json(entry, probed) for entry in texts])
    elif not texts:
        _warn("No registrations found")
    elif form == "table":
        _table(texts, probed, True)
    else:
        _write(upstream.read(texts, probed))
    return Exit.DONE


async def commit_text(chain: ChainOptions, keypair: Keypair, text: str, patience_s: float) -> "Included":
    """Commit a text for a hotkey and wait until a finalized block has it. Raises ChainError."""
    from engram.chain.read.view import open_view
    from engram.chain.registry.publish import commit
    from engram.cli.chain.endpoints import endpoints, sender

    async with endpoints(chain) as nodes:
        return await commit(sender(chain, nodes, patience_s), await open_view(nodes), chain.netuid, text, keypair)


async def _entries(
    chain: ChainOptions, probing: bool, allow_private: bool
) -> "tuple[list[RegistryEntry], dict[PublicKey, ProbeResult] | None]":
    from engram.chain.read.view import open_view
    from engram.chain.registry.probe import Probing, probe_all
    from engram.chain.registry.registrations import read_entries
    from engram.cli.chain.endpoints import endpoints
    from engram.http.client import HttpClient

    async with endpoints(chain) as nodes:
        entries = await read_entries(await open_view(nodes), chain.netuid)
    if not probing:
        return entries, None
    http = HttpClient()
    try:
        return entries, await probe_all(http, entries, Probing(allow_private=allow_private))
    finally:
        await http.aclose()


def _as_json(entry: "RegistryEntry", probed: "Mapping[PublicKey, ProbeResult] | None") -> dict[str, object]:
    there = entry.registration
    shown: dict[str, object] = {
        "hotkey": entry.address,
        "block": entry.block,
        "valid": there is not None,
        "address": None if there is None else there.address,
        "port": None if there is None else there.port,
        "raw": entry.raw,
        "length": entry.length,
        "error_type": entry.error_type or None,
        "error": entry.error or None,
    }
    answer = None if probed is None else probed.get(entry.hotkey)
    if answer is not None:
        shown |= {"endpoint_valid": answer.valid, "endpoint_error": answer.reason or None}
    return shown


def _table(entries: "Sequence[RegistryEntry]", probed: "Mapping[PublicKey, ProbeResult] | None", verbose: bool) -> None:
    titles = ["hotkey", "block", "address", "port", "endpoint", "problem"]
    lines = []
    for entry in entries:
        there, answer = entry.registration, None if probed is None else probed.get(entry.hotkey)
        reached = "" if answer is None else "valid" if answer.valid else f"invalid: {answer.reason}"
        problem = "" if there is not None else entry.error if verbose else entry.raw or entry.error
        lines.append(
            [
                entry.address,
                str(entry.block or ""),
                "" if there is None else there.address,
                "" if there is None else str(there.port),
                output.printable(reached),
                output.printable(problem),
            ]
        )
    output.table(lines, titles)


def _dry(form: Form, planned: Committed) -> int:
    if form == "json":
        output.document(planned)
    else:
        _write(["Offline mode - Skipping chain commit"])
    return Exit.DONE


def _failed(form: Form, text: str, exit_code: Exit = Exit.FAILED) -> int:
    if form == "upstream":
        _write(text.splitlines())
        return exit_code
    raise CommandFailed(text, exit_code)


def _warn(text: str) -> None:
    sys.stderr.write(text + "\n")


def _write(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(output.printable(line) + "\n" for line in lines))
