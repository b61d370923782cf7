"""`engram miner-check`: look at a miner as a validator would, and go through the checklist of a miner."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import trio
from cyclopts import Parameter

from config.addresses import is_http_url
from config.errors import ConfigError
from engram import children
from engram.cli import output
from engram.cli.chain.common import (
    CHAIN,
    WALLET,
    ChainOptions,
    WalletOptions,
    public_hotkey_of,
    run,
)
from engram.cli.failures import CommandFailed, Exit
from engram.cli.miner import committing
from engram.cli.options import SHOW, Show
from engram.clock import SystemClock
from engram.gpu import GpuReader
from engram.gpu.requirement import parse
from engram.hotkeys import HotkeyError, Keypair, MalformedHotkey, PublicKey, parse_hotkey
from engram.hotkeys import wallet as wallets
from engram.http.client import HttpClient
from engram.kit.checklist import Line, OnChain, checklist
from engram.kit.inspection import Finding, Inspected, Inspection, Question
from engram.kit.settings import load

STARTING_S: Final = 30.0
STOPPING_S: Final = 15.0


def miner_check(
    url: Annotated[str | None, Parameter(help="Base URL of the miner, as validators reach it.")] = None,
    /,
    *,
    local: Annotated[
        bool, Parameter(help="Start the project on this machine, with a mock validator and no chain.", negative="")
    ] = False,
    project: Annotated[Path, Parameter(help="Folder of the miner's source.")] = Path(),
    hotkey: Annotated[
        str | None, Parameter(help="The miner's hotkey (ss58); else miner.toml's, else the wallet's.")
    ] = None,
    validator_key: Annotated[
        Path | None, Parameter(help="Hotkey file to ask with, of a key that the miner admits; else a new key.")
    ] = None,
    inference: Annotated[str, Parameter(help="Path of a small inference to try.")] = "/inference",
    body: Annotated[str, Parameter(help="Its JSON body.")] = '{"query": "What do you offer?"}',
    external_address: Annotated[
        str | None, Parameter(help="address:port that validators reach, behind NAT or a tunnel.")
    ] = None,
    register: Annotated[
        bool, Parameter(help="Register the hotkey if it is not; needs --max-cost.", negative="")
    ] = False,
    max_cost: Annotated[float | None, Parameter(help="Pay at most this many TAO for it.")] = None,
    gpu: Annotated[
        str | None, Parameter(help="What this machine's GPUs must be, as `engram gpu --require` takes it.")
    ] = None,
    commit_endpoint: Annotated[
        bool, Parameter(help="Commit the address, once it was seen to be this miner's.", negative="")
    ] = False,
    commit: Annotated[str | None, Parameter(help="Commit this text (128 bytes at most), whatever answers.")] = None,
    allow_private: Annotated[
        bool, Parameter(help="Accept a committed address outside the public internet.", negative="")
    ] = False,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    show: Show = SHOW,
) -> int:
    """Look at a miner as a validator would. Nothing is registered or committed unless it is asked for.

    The exit status is 1 while a line is to be done.
    """
    if local == (url is not None):
        raise CommandFailed("name the miner's URL, or --local for the project in this folder", Exit.USAGE)
    if local:
        _require_none(
            {
                "--register": register,
                "--max-cost": max_cost is not None,
                "--commit-endpoint": commit_endpoint,
                "--commit": commit is not None,
                "--hotkey": hotkey is not None,
                "--validator-key": validator_key is not None,
                "--external-address": external_address is not None,
                "--allow-private": allow_private,
            }
        )
    if max_cost is not None and not register:
        raise CommandFailed("--max-cost is for --register, which is not there", Exit.USAGE)
    if commit_endpoint and commit is not None:
        raise CommandFailed(
            "--commit-endpoint and --commit: the chain holds one text of a hotkey; name one", Exit.USAGE
        )
    question = Question(inference, body.encode())
    gpus = _gpus(gpu)
    if local:
        return _show(_checked_here(project, question, gpus), show)
    assert url is not None
    if not is_http_url(url):
        raise CommandFailed(f"{url!r} is no http or https URL, such as https://miner.example.org:8080", Exit.USAGE)
    if register and max_cost is None:
        raise CommandFailed("--register pays TAO: say how much at most by --max-cost", Exit.USAGE)
    public = to_commit = None
    if external_address is not None or commit_endpoint:
        public = committing.endpoint_of(url, external_address, allow_private=allow_private or not commit_endpoint)
    if commit is not None or commit_endpoint:
        to_commit = public if commit is None else committing.text_of(commit)
    validator = _validator(validator_key)
    key = _hotkey(hotkey, project, wallet)
    if (register or to_commit is not None) and key != public_hotkey_of(wallet):
        raise CommandFailed(
            "--register and --commit are for the wallet's hotkey, which is not this miner's: name the wallet",
            Exit.USAGE,
        )
    if register and max_cost is not None:
        _register(chain, wallet, key, max_cost)
    if commit_endpoint and public is not None:
        look = partial(committing.look_at, public, url, key, validator, question, allow_private=allow_private)
        committing.require_seen(public, trio.run(look))
    if to_commit is not None:
        committing.commit(chain, wallet, to_commit)
    on_chain = run(lambda: _read_chain(chain, key))
    found = trio.run(_inspect, url, key, validator, question)
    found.work.extend(gpus)
    committed = []
    if on_chain.address is not None:
        look = partial(committing.look_at, on_chain.address, url, key, validator, question, allow_private=allow_private)
        committed = trio.run(look)
    folder = project if (project / "miner.py").exists() or project != Path() else None
    lines = checklist(
        found,
        chain=on_chain,
        seen_from=validator.ss58,
        project=folder,
        public=public if external_address is not None else None,
        committed=committed,
    )
    return _show(lines, show)


def _require_none(given: Mapping[str, bool]) -> None:
    """Raise CommandFailed if an option was given that --local has no use for."""
    if unused := [name for name, is_given in given.items() if is_given]:
        words = f"{', '.join(unused)}: not with --local, which uses no chain and a validator of its own"
        raise CommandFailed(words, Exit.USAGE)


def _gpus(required: str | None) -> list[Finding]:
    """Return whether this machine's GPUs meet the conditions. Raises CommandFailed for what is none."""
    if required is None:
        return []
    try:
        conditions = parse(required)
    except ValueError as error:
        raise CommandFailed(f"--gpu: {error}", Exit.USAGE) from None
    info = trio.run(GpuReader().read)
    unmet = [why for condition in conditions if (why := condition.unmet(info)) is not None]
    return [Finding("GPUs", not unmet, "; ".join(unmet) or f"{required} is met")]


def _checked_here(project: Path, question: Question, gpus: list[Finding]) -> list[Line]:
    settings_file = project / "miner.toml"
    if not (project / "miner.py").is_file():
        raise CommandFailed(f"{project / 'miner.py'} is not there: make one with engram new miner NAME", Exit.USAGE)
    try:
        hotkey = load(settings_file).hotkey
    except ConfigError as error:
        raise CommandFailed(str(error)) from None
    validator = Keypair.generate()
    with _started(project, validator) as url:
        found = trio.run(_inspect, url, hotkey, validator, question)
    found.work.extend(gpus)
    return checklist(found, chain=None, seen_from=validator.ss58, project=project)


@contextmanager
def _started(project: Path, validator: Keypair) -> Iterator[str]:
    """Run the project's miner on a free port, open to one validator, and yield its URL; stop it at the end."""
    reader, writer = os.pipe()
    wanted = ["--port", "0", "--allow", validator.ss58, "--unregistered"]
    wanted += ["--ready-fd", str(writer), "--log-level", "WARNING"]
    with subprocess.Popen(children.script("miner.py", *wanted), cwd=project, pass_fds=(writer,)) as process:
        os.close(writer)
        try:
            yield _ready_url(process, reader)
        finally:
            os.close(reader)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOPPING_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready_url(process: "subprocess.Popen[bytes]", reader: int) -> str:
    line, until = b"", time.monotonic() + STARTING_S
    while not line.endswith(b"\n"):
        left_s = until - time.monotonic()
        if left_s <= 0 or not select.select([reader], [], [], left_s)[0]:
            raise CommandFailed(f"the miner does not serve after {STARTING_S:.0f} s: see its log above")
        part = os.read(reader, 4_096)
        if not part:
            raise CommandFailed(f"the miner ended at its start with {process.wait(STOPPING_S)}: see its log above")
        line += part
    return str(json.loads(line)["miner_url"])


async def _inspect(url: str, hotkey: PublicKey, validator: Keypair, question: Question) -> Inspected:
    http = HttpClient()
    try:
        return await Inspection(url, hotkey, validator, http).run(question)
    finally:
        await http.aclose()


def _hotkey(named: str | None, project: Path, wallet: WalletOptions) -> PublicKey:
    try:
        if named is not None:
            return parse_hotkey(named)
        if (project / "miner.toml").is_file():
            return load(project / "miner.toml").hotkey
    except MalformedHotkey as error:
        raise CommandFailed(f"--hotkey {named}: {error}", Exit.USAGE) from None
    except ConfigError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    return public_hotkey_of(wallet)


def _validator(path: Path | None) -> Keypair:
    if path is None:
        return Keypair.generate()
    try:
        return wallets.read_private_hotkey_file(path)
    except HotkeyError as error:
        raise CommandFailed(f"--validator-key: {error}", Exit.USAGE) from None


def _register(chain: ChainOptions, wallet: WalletOptions, hotkey: PublicKey, max_cost: float) -> None:
    """Register the hotkey if it is not, and say what was paid. Raises CommandFailed."""
    from engram.cli.chain.registering import register_if_needed

    register_if_needed(chain, wallet, hotkey, max_cost)


async def _read_chain(chain: ChainOptions, hotkey: PublicKey) -> OnChain:
    from engram.chain.model import MECHANISM_MAX_U16
    from engram.chain.read.view import open_view
    from engram.chain.registry.hotkey_status import read_facts
    from engram.chain.registry.registrations import registry_entry
    from engram.cli.chain.endpoints import endpoints

    async with endpoints(chain) as nodes:
        facts = await read_facts(await open_view(nodes), chain.netuid, hotkey, SystemClock().monotonic())
    neuron = facts.metagraph.neuron(hotkey)
    if neuron is None:
        return OnChain(registered=False, netuid=chain.netuid)
    entry = None if facts.commitment is None else registry_entry(facts.commitment)
    return OnChain(
        registered=True,
        netuid=chain.netuid,
        uid=neuron.uid,
        committed=None if entry is None else entry.raw,
        address=None if entry is None else committing.address_in(entry),
        incentive=neuron.incentive_u16 / MECHANISM_MAX_U16,
        emission_rao=neuron.emission_rao,
        since_block=facts.change.since_block,
        incentive_change=facts.change.incentive,
        emission_change_rao=facts.change.emission_rao,
        change_unknown_because=facts.change.unknown_because,
    )


def _show(lines: list[Line], show: Show) -> int:
    if show.json:
        output.document(lines)
    else:
        output.table([[_mark(each), each.line, each.words] for each in lines], ["STATE", "CHECK", "SEEN"])
        for each in lines:
            for finding in each.findings:
                output.say(f"  {'ok' if finding.good else 'NOT OK'}  {finding.what}: {finding.words}")
    return Exit.FAILED if any(each.state == "to do" for each in lines) else Exit.DONE


def _mark(line: Line) -> str:
    return {"good": "ok", "later": "ok here; before the subnet:", "to do": "to do"}[line.state]
