"""`engram subnet`: register a hotkey, show its status, announce a node, set weights, link identities."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from engram import wire
from engram.cli import output
from engram.cli.chain.common import (
    CHAIN,
    SHOWN,
    WALLET,
    ChainOptions,
    FormatOptions,
    PublicHotkey,
    WalletOptions,
    coldkey_of,
    failing,
    hotkey_of,
    hotkey_to,
    in_seconds,
    public_coldkey_of,
    public_hotkey_of,
    run,
)
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.hotkeys import Keypair, MalformedHotkey, PublicKey, parse_hotkey, ss58

if TYPE_CHECKING:
    from engram.chain.model import EndpointHealth
    from engram.chain.registry.hotkey_status import HotkeyStatus
    from engram.cli.chain.subnet_calls import Sent

app = App(
    name="subnet",
    help="Register a hotkey on a subnet, show its status, announce a node, set weights.",
    help_epilogue="Example: `engram subnet status --network finney --netuid 11 --wallet.name W --wallet.hotkey H`",
)

Online = Annotated[bool, Parameter(help="Send it; without this nothing is sent.", negative="")]
Patience = Annotated[float, Parameter(help="Seconds to wait for a finalized block.", validator=in_seconds)]
Commits = Annotated[
    Path | None,
    Parameter(help="Folder for the salts of weights committed by hash; by default weight-commits next to the wallets."),
]
COMMITS = "weight-commits"
PATIENCE_S = 180.0
ALPHA_RAO = 1_000_000_000
"""Rao in one alpha, the unit in which upstream prints emissions."""


@app.command(
    name="register",
    help_epilogue="Example: `engram subnet register --network finney --netuid 11 --wallet.name W --wallet.hotkey H`",
)
def register(
    *,
    yes: Annotated[bool, Parameter(help="Pay without asking.", negative="")] = False,
    max_cost: Annotated[float | None, Parameter(help="Refuse to pay more than this many TAO.")] = None,
    patience: Patience = PATIENCE_S,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Register the hotkey by burning TAO of its coldkey; the cost is shown first and must be confirmed."""
    from engram.chain.model import RAO_PER_TAO
    from engram.chain.submit import calls
    from engram.chain.submit.register import require_payable
    from engram.cli.chain.subnet_calls import Sent, burn, included, read_terms

    hotkey = public_hotkey_of(wallet)
    payer = public_coldkey_of(wallet)
    if payer is None:
        raise CommandFailed(f"{wallet.folder.coldkey_public_path} does not name a coldkey to pay with")
    healths: list[EndpointHealth] = []
    terms = run(lambda: read_terms(chain, hotkey, payer, healths))
    call = calls.burned_register(chain.netuid, hotkey)
    sent = Sent(
        call=f"{call.pallet}.{call.function}",
        signer=ss58.encode(payer),
        netuid=chain.netuid,
        online=False,
        arguments={"netuid": chain.netuid, "hotkey": ss58.encode(hotkey)},
        cost_tao=terms.burn_rao / RAO_PER_TAO,
        balance_tao=terms.balance_rao / RAO_PER_TAO,
    )
    if terms.uid is not None:
        _show(msgspec.structs.replace(sent, uid=terms.uid), shown, f"already registered as uid {terms.uid}")
        return Exit.DONE
    with failing():
        require_payable(terms, max_cost)
    offer = f"Registering on subnet {sent.netuid} burns {sent.cost_tao:.9f} TAO of {sent.balance_tao:.9f}."
    if yes:
        sys.stderr.write(offer + "\n")
    elif not _agreed(offer):
        raise CommandFailed("nothing was paid")
    coldkey = _coldkey(wallet, payer)
    # Between the agreement and the payment the cost may have risen.
    limit_rao = terms.burn_rao if max_cost is None else max_cost * RAO_PER_TAO
    done = run(lambda: burn(chain, coldkey, hotkey, limit_rao, patience, healths))
    sent = included(msgspec.structs.replace(sent, uid=done.uid), done.included)
    _show(sent, shown, f"registered as uid {done.uid}")
    return Exit.DONE


@app.command(
    name="status",
    help_epilogue="Example: `engram subnet status --network finney --netuid 11 --wallet.name W --wallet.hotkey H`",
)
def status(
    *,
    hotkey: Annotated[str | None, Parameter(help="An address in place of the wallet's hotkey.")] = None,
    since: Annotated[
        int | None,
        Parameter(
            converter=whole,
            help="Show the change of incentive and emission from this block; default: over the last epoch.",
        ),
    ] = None,
    probe: Annotated[bool, Parameter(help="Probe the committed endpoint, as validators do.")] = True,
    allow_private: Annotated[bool, Parameter(help="Allow private addresses.", negative="")] = False,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Show uid, stake, permit, incentive and emission with their change, last update, and whether the endpoint answers.

    An earlier block is read for the change; `--network archive` has those that other endpoints have dropped.
    """
    from engram.chain.registry.probe import Probing
    from engram.cli.chain.subnet_calls import read_status

    public_key = _named(hotkey, wallet)
    probing = Probing(allow_private=allow_private) if probe else None
    found = run(lambda: read_status(chain, public_key, probing, since))
    if shown.form == "json":
        output.document(found)
    elif shown.form == "upstream":
        for title, value in _upstream_lines(found):
            sys.stdout.write(f"{title}: {output.printable(str(value))}\n")
    else:
        output.record(found, json=False)
    return Exit.DONE if found.registered else Exit.FAILED


@app.command(
    name="serve",
    help_epilogue="Example: `engram subnet serve --netuid 11 --ip 13.89.38.129 --port 8091 --wallet.name W --online`",
)
def serve(
    *,
    ip: Annotated[str, Parameter(help="IPv4 or IPv6 address that the node serves at.")],
    port: Annotated[int, Parameter(converter=whole, help="Its port, 1 to 65535.")],
    version: Annotated[int, Parameter(converter=whole, help="Version of the node's interface.")] = 1,
    allow_private: Annotated[bool, Parameter(help="Allow private addresses.", negative="")] = False,
    online: Online = False,
    patience: Patience = PATIENCE_S,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Announce the address of the hotkey's node (serve_axon)."""
    from config.addresses import is_public_host
    from engram.chain import ChainError
    from engram.chain.registry.announce_rules import ServingAddress
    from engram.chain.submit import calls
    from engram.cli.chain.subnet_calls import announce

    try:
        call = calls.serve_axon(chain.netuid, ip.strip("[]"), port, version)
    except ChainError as error:
        raise CommandFailed(str(error)) from None
    if not allow_private and not is_public_host(ip):
        raise CommandFailed(f"{ip} cannot be reached from the internet (--allow-private announces it)")
    keypair = hotkey_to(wallet, sign=online)
    sent = run(lambda: announce(chain, call, keypair, online, patience))
    _show(
        sent,
        shown,
        f"{ServingAddress(ip.strip('[]'), port).text} is announced" if online else "dry run: nothing was sent",
    )
    return Exit.DONE


@app.command(
    name="set-weights",
    help_epilogue="Example: `engram subnet set-weights 3=0.7 9=0.3 --netuid 11 --wallet.name W --online`",
)
def set_weights(
    *weights: Annotated[str, Parameter(help="UID=WEIGHT; only the proportions matter.")],
    file: Annotated[Path | None, Parameter(help="JSON object of uid and weight, in place of the arguments.")] = None,
    version_key: Annotated[int | None, Parameter(converter=whole, help="Default: the subnet's own.")] = None,
    commits: Commits = None,
    online: Online = False,
    follow: Annotated[
        bool, Parameter(help="With --online: wait until committed weights are revealed, hours if need be.", negative="")
    ] = False,
    patience: Patience = PATIENCE_S,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Set weights, openly or committed for a later reveal, as the subnet requires."""
    from engram.cli.chain.weights import in_words, weigh

    given = _weights(weights, file)
    if follow and not online:
        raise CommandFailed("--follow waits for what was sent, and nothing is sent without --online", Exit.USAGE)
    keypair = hotkey_to(wallet, sign=online)
    folder = commits or wallet.path.parent / COMMITS
    sent = run(lambda: weigh(chain, keypair, given, version_key, online, patience, folder, follow=follow))
    by_hash = follow and "kept_in" in sent.arguments
    if not by_hash or shown.form != "json":
        _show(sent, shown, in_words(sent) if online else "dry run: nothing was sent")
    if by_hash:
        return _reveal(chain, keypair, folder, shown, online=True, wait=True, patience_s=patience)
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
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Reveal weights that were committed by hash, where the runtime has no timelocks."""
    keypair = hotkey_to(wallet, sign=online)
    folder = commits or wallet.path.parent / COMMITS
    return _reveal(chain, keypair, folder, shown, online=online, wait=wait, patience_s=patience)


def _reveal(
    chain: ChainOptions,
    keypair: Keypair | PublicHotkey,
    folder: Path,
    shown: FormatOptions,
    *,
    online: bool,
    wait: bool,
    patience_s: float,
) -> int:
    from engram.cli.chain.weights import reveal_commits

    found = run(lambda: reveal_commits(chain, keypair, folder, online=online, wait=wait, patience_s=patience_s))
    if shown.form == "json":
        output.document(found)
    else:
        for one in found.commits:
            output.record(msgspec.structs.asdict(one), {}, json=False)
        output.say(f"at block {found.block}" if online else f"dry run at block {found.block}: nothing was sent")
    return Exit.FAILED if any(one.stage in ("expired", "gone") for one in found.commits) else Exit.DONE


@app.command(
    name="link",
    help_epilogue="Example: `engram subnet link --name Ada --github https://github.com/ada --wallet.name W --online`",
)
def link(
    *,
    name: Annotated[str, Parameter(help="Your public name.")] = "",
    url: Annotated[str, Parameter(help="Your web site.")] = "",
    github: Annotated[str, Parameter(help="Account or repository on GitHub.")] = "",
    github_id: Annotated[str, Parameter(help="Tag for your pull requests; by default the last part of --github.")] = "",
    discord: Annotated[str, Parameter(help="Name on Discord.")] = "",
    image: Annotated[str, Parameter(help="URL of an image.")] = "",
    description: Annotated[str, Parameter(help="A description of what you do.")] = "",
    additional: Annotated[str, Parameter(help="Any additional text.")] = "",
    online: Online = False,
    patience: Patience = PATIENCE_S,
    chain: ChainOptions = CHAIN,
    wallet: WalletOptions = WALLET,
    shown: FormatOptions = SHOWN,
) -> int:
    """Link the wallet to its owner: an identity on the chain, and a statement signed by the hotkey."""
    from engram.chain.submit import calls
    from engram.chain.submit.identity import link_statement
    from engram.cli.chain.subnet_calls import Sent, included, link_identity

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
    statement = link_statement(hotkey.ss58, given)
    sent = Sent(
        call=f"{call.pallet}.{call.function}",
        signer="" if payer is None else ss58.encode(payer),
        netuid=chain.netuid,
        online=online,
        arguments={**given, "statement": statement, "signature": hotkey.sign(statement.encode()).hex()},
    )
    if online:
        coldkey = _coldkey(wallet, payer)
        done = run(lambda: link_identity(chain, given, coldkey, patience))
        sent = included(msgspec.structs.replace(sent, signer=coldkey.ss58), done)
    if shown.form == "upstream":
        sys.stdout.write(f"Registered hotkey: {hotkey.ss58}\n")
        if github:
            tag = output.printable(github_id or github.rstrip("/").rpartition("/")[2])
            sys.stdout.write(f"Link this hotkey to GitHub account: {output.printable(github)}\n")
            sys.stdout.write(f"Add to PR descriptions: 'Mining $OGX - Hotkey {tag}'\n")
    _show(sent, shown, "the identity is on the chain" if online else "dry run: nothing was sent")
    return Exit.DONE


# output and confirmation


def _agreed(offer: str) -> bool:
    if not sys.stdin.isatty():
        raise CommandFailed(f"{offer} There is no terminal to confirm on: --yes pays")
    sys.stderr.write(f"{offer} Pay? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _coldkey(wallet: WalletOptions, payer: PublicKey | None) -> Keypair:
    """Return the coldkey. Raises CommandFailed when it is not the one whose address was shown."""
    coldkey = coldkey_of(wallet)
    if payer not in (None, coldkey.public_key):
        raise CommandFailed(
            f"{wallet.folder.coldkey_public_path} does not match {wallet.folder.coldkey_path}; nothing was sent"
        )
    return coldkey


def _named(address: str | None, wallet: WalletOptions) -> PublicKey:
    if address is None:
        return public_hotkey_of(wallet)
    try:
        return parse_hotkey(address)
    except MalformedHotkey as error:
        raise CommandFailed(f"--hotkey: {error}", Exit.USAGE) from None


def _weights(pairs: Sequence[str], file: Path | None) -> dict[int, float]:
    if (file is None) == (not pairs):
        given_now = "neither was given" if file is None else "not both"
        raise CommandFailed(f"give weights as UID=WEIGHT (3=0.7 9=0.3), or --file FILE; {given_now}", Exit.USAGE)
    try:
        if file is not None:
            return wire.decode(file.read_bytes(), dict[int, float])
        given: dict[int, float] = {}
        for pair in pairs:
            uid, weight = _weight(pair)
            if uid in given:
                raise ValueError(f"uid {uid} is named twice")
            given[uid] = weight
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, msgspec.DecodeError) as error:
        raise CommandFailed(f"invalid weights: {error}", Exit.USAGE) from None
    return given


def _weight(pair: str) -> tuple[int, float]:
    uid, _, weight = pair.partition("=")
    try:
        return int(uid), float(weight)
    except ValueError:
        raise ValueError(f"{pair!r} is not UID=WEIGHT, such as 3=0.7") from None


def _upstream_lines(found: "HotkeyStatus") -> list[tuple[str, object]]:
    if not found.registered:
        return [("Hotkey", found.hotkey), ("Registered", False)]
    return [
        ("UID", found.uid),
        ("Stake", found.stake_tao),
        ("Validator Permit", found.validator_permit),
        ("Incentive", found.incentive),
        ("Emission", (found.emission_rao or 0) / ALPHA_RAO),
        ("Change", _change(found)),
        ("Last Update", found.last_update_block),
        ("Axon", found.axon or "none"),
        ("Committed Endpoint", found.committed or f"none ({found.commitment_error})"),
        ("Check Endpoint", _reached(found)),
    ]


def _change(found: "HotkeyStatus") -> str:
    if found.incentive_change is None or found.emission_change_rao is None:
        return f"not known ({found.change_unknown_because})"
    emission = found.emission_change_rao / ALPHA_RAO
    return f"incentive {found.incentive_change:+.6f}, emission {emission:+.9f} since block {found.since_block}"


def _reached(found: "HotkeyStatus") -> str:
    if found.reachable is None:
        return "not asked"
    return "valid" if found.reachable else f"invalid ({found.unreachable_because})"


def _show(sent: "Sent", shown: FormatOptions, words: str) -> None:
    if shown.form == "json":
        output.document(sent)
        return
    filled = {name: value for name, value in msgspec.structs.asdict(sent).items() if value not in (None, [], {})}
    output.record(filled, {"arguments": lambda value: msgspec.json.encode(value).decode()}, json=False)
    output.say(words)
