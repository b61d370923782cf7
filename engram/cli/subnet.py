"""`engram subnet`: register a hotkey, see how it stands, announce a node, set weights, link identities."""

import ipaddress
import json as json_text
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.chain import (
    CHAIN,
    SHOWN,
    WALLET,
    Chain,
    Shown,
    Wallet,
    coldkey_of,
    hotkey_of,
    in_seconds,
    public_coldkey_of,
    public_hotkey_of,
    run,
)
from engram.cli.failures import CommandFailed, Exit
from engram.hotkeys import Keypair, MalformedHotkey, PublicKey, parse_hotkey, ss58

if TYPE_CHECKING:
    from engram.chain.model import Metagraph
    from engram.chain.runtime import Call
    from engram.chain.submitting import Included

app = App(
    name="subnet",
    help="Register a hotkey on a subnet, see how it stands, announce a node, set weights.",
    help_epilogue="Example: `engram subnet status --network finney --netuid 11 --wallet.name W --wallet.hotkey H`",
)

Online = Annotated[bool, Parameter(help="Send it; without this nothing is sent.", negative="")]
Patience = Annotated[float, Parameter(help="Seconds to wait for a finalized block.", validator=in_seconds)]
Commits = Annotated[
    Path | None,
    Parameter(help="Folder of what opens weights committed by hash; weight-commits beside the wallets by default."),
]
COMMITS = "weight-commits"
PATIENCE_S = 180.0
ALPHA_RAO = 1_000_000_000
"""Of one alpha, as upstream writes emissions."""


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was sent, or would be."""

    call: str
    signer: str
    netuid: int
    online: bool
    arguments: dict[str, object]
    cost_tao: float | None = None
    balance_tao: float | None = None
    uid: int | None = None
    objections: list[str] = []
    block: int | None = None
    block_hash: str | None = None
    extrinsic_hash: str | None = None


class Standing(msgspec.Struct, frozen=True):
    """How a hotkey stands on a subnet."""

    hotkey: str
    netuid: int
    block: int
    registered: bool
    uid: int | None = None
    coldkey: str | None = None
    stake_tao: float | None = None
    validator_permit: bool | None = None
    active: bool | None = None
    incentive: float | None = None
    emission_rao: int | None = None
    """Alpha per tempo."""
    last_update_block: int | None = None
    registered_at_block: int | None = None
    axon: str | None = None
    committed: str | None = None
    commitment_error: str | None = None
    reachable: bool | None = None
    """Whether validators can reach the committed endpoint; None when it was not asked."""
    unreachable_because: str | None = None


@app.command(
    name="register",
    help_epilogue="Example: `engram subnet register --network finney --netuid 11 --wallet.name W --wallet.hotkey H`",
)
def register(
    *,
    yes: Annotated[bool, Parameter(help="Pay without asking.", negative="")] = False,
    max_cost: Annotated[float | None, Parameter(help="Refuse to pay more than this many TAO.")] = None,
    patience: Patience = PATIENCE_S,
    chain: Chain = CHAIN,
    wallet: Wallet = WALLET,
    shown: Shown = SHOWN,
) -> int:
    """Register the hotkey by burning TAO of its coldkey; the cost is shown first and must be agreed to."""
    from engram.chain import calls
    from engram.chain.model import RAO_PER_TAO

    hotkey = hotkey_of(wallet).public_key
    payer = public_coldkey_of(wallet)
    if payer is None:
        raise CommandFailed(f"{wallet.folder.coldkey_public_path} names no coldkey that could pay")
    metagraph, balance_rao = run(lambda: _before_register(chain, payer))
    held = metagraph.neuron(hotkey)
    call = calls.burned_register(chain.netuid, hotkey)
    sent = Sent(
        call=f"{call.pallet}.{call.function}",
        signer=ss58.encode(payer),
        netuid=chain.netuid,
        online=False,
        arguments={"netuid": chain.netuid, "hotkey": ss58.encode(hotkey)},
        cost_tao=metagraph.parameters.burn_rao / RAO_PER_TAO,
        balance_tao=balance_rao / RAO_PER_TAO,
    )
    if held is not None:
        _show(msgspec.structs.replace(sent, uid=held.uid), shown, f"already registered as uid {held.uid}")
        return Exit.DONE
    _may_pay(metagraph, sent, max_cost)
    told = f"Registering on subnet {sent.netuid} burns {sent.cost_tao:.9f} TAO of {sent.balance_tao:.9f}."
    if yes:
        sys.stderr.write(told + "\n")
    elif not _agreed(told):
        raise CommandFailed("nothing was paid")
    coldkey = coldkey_of(wallet)
    # Between the agreement and the payment the cost may have risen.
    limit_rao = metagraph.parameters.burn_rao if max_cost is None else max_cost * RAO_PER_TAO
    done, uid = run(lambda: _burn(chain, call, coldkey, hotkey, limit_rao, patience))
    _show(_included(msgspec.structs.replace(sent, uid=uid), done), shown, f"registered as uid {uid}")
    return Exit.DONE


@app.command(
    name="status",
    help_epilogue="Example: `engram subnet status --network finney --netuid 11 --wallet.name W --wallet.hotkey H`",
)
def status(
    *,
    hotkey: Annotated[str | None, Parameter(help="An address in place of the wallet's hotkey.")] = None,
    probe: Annotated[bool, Parameter(help="Ask the committed endpoint, as validators do.")] = True,
    allow_private: Annotated[bool, Parameter(help="Private addresses too.", negative="")] = False,
    chain: Chain = CHAIN,
    wallet: Wallet = WALLET,
    shown: Shown = SHOWN,
) -> int:
    """Show uid, stake, permit, incentive, emission, last update, and whether validators reach the endpoint."""
    public_key = _named(hotkey, wallet)
    standing = run(lambda: _standing(chain, public_key, probe, allow_private))
    if shown.form == "json":
        output.document(standing)
    elif shown.form == "upstream":
        for title, value in _upstream_lines(standing):
            sys.stdout.write(f"{title}: {output.printable(str(value))}\n")
    else:
        output.record(standing, json=False)
    return Exit.DONE if standing.registered else Exit.FAILED


@app.command(
    name="serve",
    help_epilogue="Example: `engram subnet serve --netuid 11 --ip 13.89.38.129 --port 8091 --wallet.name W --online`",
)
def serve(
    *,
    ip: Annotated[str, Parameter(help="IPv4 or IPv6 address that the node serves at.")],
    port: int,
    version: Annotated[int, Parameter(help="Version of the node's interface.")] = 1,
    allow_private: Annotated[bool, Parameter(help="Private addresses too.", negative="")] = False,
    online: Online = False,
    patience: Patience = PATIENCE_S,
    chain: Chain = CHAIN,
    wallet: Wallet = WALLET,
    shown: Shown = SHOWN,
) -> int:
    """Announce where the node of the hotkey serves (serve_axon)."""
    from engram.chain import ChainError, calls
    from engram.chain.registrations import is_public

    try:
        call = calls.serve_axon(chain.netuid, ip.strip("[]"), port, version)
    except ChainError as error:
        raise CommandFailed(str(error)) from None
    if not allow_private and not is_public(ipaddress.ip_address(ip.strip("[]"))):
        raise CommandFailed(f"{ip} cannot be reached from the internet (--allow-private announces it)")
    keypair = hotkey_of(wallet)
    sent = run(lambda: _serve(chain, call, keypair, online, patience))
    _show(sent, shown, f"{_authority(ip.strip('[]'), port)} is announced" if online else "dry run: nothing was sent")
    return Exit.DONE


@app.command(
    name="set-weights",
    help_epilogue="Example: `engram subnet set-weights 3=0.7 9=0.3 --netuid 11 --wallet.name W --online`",
)
def set_weights(
    *weights: Annotated[str, Parameter(help="UID=WEIGHT; only their proportions count.")],
    file: Annotated[Path | None, Parameter(help="JSON object of uid and weight, in place of the arguments.")] = None,
    version_key: Annotated[int | None, Parameter(help="The subnet's own when not given.")] = None,
    commits: Commits = None,
    online: Online = False,
    patience: Patience = PATIENCE_S,
    chain: Chain = CHAIN,
    wallet: Wallet = WALLET,
    shown: Shown = SHOWN,
) -> int:
    """Set weights, in the open or committed for a later reveal, as the subnet demands."""
    given = _weights(weights, file)
    keypair = hotkey_of(wallet)
    folder = commits or wallet.path.parent / COMMITS
    sent = run(lambda: _set_weights(chain, keypair, given, version_key, online, patience, folder))
    done = f"weights of {len(given)} uids are set"
    if "kept_in" in sent.arguments:
        done = "weights are committed: reveal them with `engram subnet reveal-weights`, in that window only"
    _show(sent, shown, done if online else "dry run: nothing was sent")
    return Exit.FAILED if sent.objections else Exit.DONE


@app.command(
    name="reveal-weights",
    help_epilogue="Example: `engram subnet reveal-weights --netuid 11 --wallet.name W --wait --online`",
)
def reveal_weights(
    *,
    commits: Commits = None,
    wait: Annotated[
        bool, Parameter(help="Wait for the window of the next one, hours if need be.", negative="")
    ] = False,
    online: Online = False,
    patience: Patience = PATIENCE_S,
    chain: Chain = CHAIN,
    wallet: Wallet = WALLET,
    shown: Shown = SHOWN,
) -> int:
    """Reveal weights that were committed by hash, where the runtime knows no timelocks."""
    from engram.cli.revealing import reveal

    keypair = hotkey_of(wallet)
    folder = commits or wallet.path.parent / COMMITS
    told = run(lambda: reveal(chain, keypair, folder, online=online, wait=wait, patience_s=patience))
    if shown.form == "json":
        output.document(told)
    else:
        for one in told.commits:
            output.record(msgspec.structs.asdict(one), {}, json=False)
        output.say(f"at block {told.block}" if online else f"dry run at block {told.block}: nothing was sent")
    return Exit.FAILED if any(one.stage in ("expired", "gone") for one in told.commits) else Exit.DONE


@app.command(
    name="link",
    help_epilogue="Example: `engram subnet link --name Ada --github https://github.com/ada --wallet.name W --online`",
)
def link(
    *,
    name: str = "",
    url: str = "",
    github: Annotated[str, Parameter(help="Account or repository at GitHub.")] = "",
    discord: str = "",
    image: str = "",
    description: str = "",
    additional: str = "",
    online: Online = False,
    patience: Patience = PATIENCE_S,
    chain: Chain = CHAIN,
    wallet: Wallet = WALLET,
    shown: Shown = SHOWN,
) -> int:
    """Link the wallet to what it is elsewhere: an identity on the chain, and a statement signed by the hotkey."""
    from engram.chain import calls

    fields = {
        "name": name,
        "url": url,
        "github_repo": github,
        "image": image,
        "discord": discord,
        "description": description,
        "additional": additional,
    }
    given = {field: value for field, value in fields.items() if value}
    if not given:
        raise CommandFailed("name something to link: --github, --url, --discord, --name …", Exit.USAGE)
    hotkey = hotkey_of(wallet)
    call = calls.set_identity(given)
    payer = public_coldkey_of(wallet)
    statement = f"link:{hotkey.ss58}:{json_text.dumps(given, sort_keys=True, ensure_ascii=False)}"
    sent = Sent(
        call=f"{call.pallet}.{call.function}",
        signer="" if payer is None else ss58.encode(payer),
        netuid=chain.netuid,
        online=online,
        arguments={**given, "statement": statement, "signature": hotkey.sign(statement.encode()).hex()},
    )
    if online:
        coldkey = coldkey_of(wallet)
        done = run(lambda: _link(chain, call, coldkey, patience))
        sent = _included(sent, done)
    if shown.form == "upstream":
        sys.stdout.write(f"Registered hotkey: {hotkey.ss58}\n")
        if github:
            sys.stdout.write(f"Link this hotkey to GitHub account: {output.printable(github)}\n")
    _show(sent, shown, "the identity is on the chain" if online else "dry run: nothing was sent")
    return Exit.DONE


# what is asked of the chain


async def _before_register(chain: Chain, payer: PublicKey) -> "tuple[Metagraph, int]":
    from engram.chain.view import open_view
    from engram.cli.endpoints import endpoints
    from engram.clock import SystemClock

    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        metagraph = await view.metagraph(chain.netuid, SystemClock().monotonic())
        account = await view.storage("System", "Account", payer)
    return metagraph, msgspec.convert(account, _Account).data.free


class _Balance(msgspec.Struct):
    free: int


class _Account(msgspec.Struct):
    data: _Balance


async def _burn(
    chain: Chain, call: "Call", coldkey: Keypair, hotkey: PublicKey, limit_rao: float, patience_s: float
) -> "tuple[Included, int | None]":
    from engram.chain.model import RAO_PER_TAO
    from engram.chain.view import open_view
    from engram.cli.endpoints import endpoints, read_back, send

    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        burn_rao = msgspec.convert(await view.storage("SubtensorModule", "Burn", chain.netuid), int)
        if burn_rao > limit_rao:
            raise CommandFailed(f"the cost has risen to {burn_rao / RAO_PER_TAO:.9f} TAO; nothing was paid")
        done = await send(chain, view, nodes, call, coldkey, patience_s)
        uid = await read_back(
            view, nodes, done, lambda there: there.storage("SubtensorModule", "Uids", chain.netuid, hotkey)
        )
    return done, uid if isinstance(uid, int) else None


async def _link(chain: Chain, call: "Call", coldkey: Keypair, patience_s: float) -> "Included":
    from engram.chain.calls import IDENTITY, SUBTENSOR
    from engram.chain.view import open_view
    from engram.cli.endpoints import endpoints, read_back, send

    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        done = await send(chain, view, nodes, call, coldkey, patience_s)
        if not view.types.has_storage(SUBTENSOR, IDENTITY):
            return done
        held = await read_back(view, nodes, done, lambda there: there.storage(SUBTENSOR, IDENTITY, coldkey.public_key))
        sent = view.types.encode_storage(SUBTENSOR, IDENTITY, call.arguments)
        if held is None or view.types.encode_storage(SUBTENSOR, IDENTITY, held) != sent:
            raise CommandFailed(f"included in block {done.block.number}, but the chain holds {held!r}")
    return done


async def _serve(chain: Chain, call: "Call", keypair: Keypair, online: bool, patience_s: float) -> Sent:
    from engram.chain.view import open_view
    from engram.cli.endpoints import endpoints, read_back, send

    sent = Sent(f"{call.pallet}.{call.function}", keypair.ss58, chain.netuid, online, dict(call.arguments))
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        view.types.compose(call)
        if not online:
            return sent
        done = await send(chain, view, nodes, call, keypair, patience_s)
        held = await read_back(
            view, nodes, done, lambda there: there.storage("SubtensorModule", "Axons", chain.netuid, keypair.public_key)
        )
    announced = held if isinstance(held, dict) else {}
    if (announced.get("ip"), announced.get("port")) != (call.arguments["ip"], call.arguments["port"]):
        raise CommandFailed(f"included in block {done.block.number}, but the chain holds {held!r}")
    return _included(sent, done)


async def _set_weights(
    chain: Chain,
    keypair: Keypair,
    given: dict[int, float],
    version_key: int | None,
    online: bool,
    patience_s: float,
    folder: Path,
) -> Sent:
    from engram.chain import weights
    from engram.chain.view import open_view
    from engram.cli.endpoints import endpoints, read_back, send
    from engram.cli.revealing import commit_by_hash, committed
    from engram.clock import SystemClock

    clock = SystemClock()
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        metagraph = await view.metagraph(chain.netuid, clock.monotonic())
        key = metagraph.parameters.weights_version if version_key is None else version_key
        neuron = metagraph.neuron(keypair.public_key)
        scaled = weights.upscale(given, metagraph, None if neuron is None else neuron.uid)
        planned = await weights.plan(view, metagraph, scaled, keypair.public_key, key, clock.now())
        sent = Sent(
            call=f"{planned.call.pallet}.{planned.call.function}",
            signer=keypair.ss58,
            netuid=chain.netuid,
            online=online,
            arguments={
                "uids": list(planned.weights.uids),
                "weights": list(planned.weights.values),
                "version_key": planned.version_key,
                **({} if planned.reveal_round is None else {"reveal_round": planned.reveal_round}),
                **({} if planned.hashed is None else committed(planned.hashed, metagraph, folder)),
            },
            uid=None if neuron is None else neuron.uid,
            objections=weights.objections(metagraph, keypair.public_key, key, scaled),
        )
        if not online:
            return sent
        if sent.objections or neuron is None:
            raise CommandFailed("\n".join(["not sent, the chain would refuse it", *sent.objections]))
        if planned.hashed is None:
            done = await send(chain, view, nodes, planned.call, keypair, patience_s)
        else:
            done = await commit_by_hash(chain, view, nodes, planned, keypair, patience_s, folder)
            shown = committed(planned.hashed, metagraph, folder, done.block.number)
            sent = msgspec.structs.replace(sent, arguments=sent.arguments | shown)
        uid = neuron.uid
        held = await read_back(view, nodes, done, lambda there: weights.stands(there, planned, chain.netuid, uid))
        if not held:
            raise CommandFailed(f"included in block {done.block.number}, but the chain does not hold these weights")
    return _included(sent, done)


async def _standing(chain: Chain, hotkey: PublicKey, probing: bool, allow_private: bool) -> Standing:
    from engram.chain.commitments import read_commitment
    from engram.chain.model import MECHANISM_MAX_U16, RAO_PER_TAO
    from engram.chain.probing import Probing, ask
    from engram.chain.registrations import entry
    from engram.chain.view import open_view
    from engram.cli.endpoints import endpoints
    from engram.clock import SystemClock
    from engram.http.client import HttpClient

    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        metagraph = await view.metagraph(chain.netuid, SystemClock().monotonic())
        commitment = await read_commitment(view, chain.netuid, hotkey)
    neuron = metagraph.neuron(hotkey)
    if neuron is None:
        return Standing(ss58.encode(hotkey), chain.netuid, metagraph.block, False)
    committed = None if commitment is None else entry(commitment)
    there = None if committed is None else committed.registration
    answer = None
    if there is not None and probing:
        http = HttpClient()
        answer = await ask(http, there, hotkey, Probing(allow_private=allow_private))
        await http.aclose()
    return Standing(
        hotkey=ss58.encode(hotkey),
        netuid=chain.netuid,
        block=metagraph.block,
        registered=True,
        uid=neuron.uid,
        coldkey=ss58.encode(neuron.coldkey),
        stake_tao=neuron.stake_rao / RAO_PER_TAO,
        validator_permit=neuron.validator_permit,
        active=neuron.active,
        incentive=round(neuron.incentive_u16 / MECHANISM_MAX_U16, 6),
        emission_rao=neuron.emission_rao,
        last_update_block=neuron.last_update_block,
        registered_at_block=neuron.registered_at_block,
        axon=None if neuron.axon is None else _authority(neuron.axon.ip, neuron.axon.port),
        committed=None if there is None else there.text,
        commitment_error="nothing is committed" if committed is None else committed.error or None,
        reachable=None if answer is None else answer.valid,
        unreachable_because=None if answer is None else answer.reason or None,
    )


# what is said


def _may_pay(metagraph: "Metagraph", sent: Sent, max_cost: float | None) -> None:
    cost, balance = sent.cost_tao or 0.0, sent.balance_tao or 0.0
    if not metagraph.parameters.registration_allowed:
        raise CommandFailed(f"SubNetRegistrationDisabled: subnet {sent.netuid} takes no registrations now")
    if max_cost is not None and not cost <= max_cost:  # Not a number is no limit that one could mean.
        raise CommandFailed(f"registering costs {cost:.9f} TAO, more than --max-cost {max_cost:g}; nothing was paid")
    if balance < cost:
        raise CommandFailed(f"registering costs {cost:.9f} TAO, {sent.signer} has {balance:.9f}; nothing was paid")


def _agreed(told: str) -> bool:
    if not sys.stdin.isatty():
        raise CommandFailed(f"{told} There is no terminal to ask at: --yes pays")
    sys.stderr.write(f"{told} Pay? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _named(address: str | None, wallet: Wallet) -> PublicKey:
    if address is None:
        return public_hotkey_of(wallet)
    try:
        return parse_hotkey(address)
    except MalformedHotkey as error:
        raise CommandFailed(f"--hotkey: {error}", Exit.USAGE) from None


def _weights(pairs: Sequence[str], file: Path | None) -> dict[int, float]:
    if (file is None) == (not pairs):
        raise CommandFailed("give weights as UID=WEIGHT, or --file", Exit.USAGE)
    try:
        if file is not None:
            return msgspec.json.decode(file.read_bytes(), type=dict[int, float])
        given: dict[int, float] = {}
        for pair in pairs:
            uid, _, weight = pair.partition("=")
            if int(uid) in given:
                raise ValueError(f"uid {uid} is named twice")
            given[int(uid)] = float(weight)
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, msgspec.DecodeError) as error:
        raise CommandFailed(f"no weights: {error}", Exit.USAGE) from None
    return given


def _upstream_lines(standing: Standing) -> list[tuple[str, object]]:
    if not standing.registered:
        return [("Hotkey", standing.hotkey), ("Registered", False)]
    return [
        ("UID", standing.uid),
        ("Stake", standing.stake_tao),
        ("Validator Permit", standing.validator_permit),
        ("Incentive", standing.incentive),
        ("Emission", (standing.emission_rao or 0) / ALPHA_RAO),
        ("Last Update", standing.last_update_block),
        ("Axon", standing.axon or "none"),
        ("Committed Endpoint", standing.committed or f"none ({standing.commitment_error})"),
        ("Check Endpoint", _reached(standing)),
    ]


def _reached(standing: Standing) -> str:
    if standing.reachable is None:
        return "not asked"
    return "valid" if standing.reachable else f"invalid ({standing.unreachable_because})"


def _included(sent: Sent, done: "Included") -> Sent:
    return msgspec.structs.replace(
        sent,
        online=True,
        block=done.block.number,
        block_hash="0x" + done.block.hash.hex(),
        extrinsic_hash="0x" + done.extrinsic_hash.hex(),
    )


def _show(sent: Sent, shown: Shown, words: str) -> None:
    if shown.form == "json":
        output.document(sent)
        return
    told = {name: value for name, value in msgspec.structs.asdict(sent).items() if value not in (None, [], {})}
    output.record(told, {"arguments": lambda value: msgspec.json.encode(value).decode()}, json=False)
    output.say(words)


def _authority(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
