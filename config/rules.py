"""The rules for combinations of settings in each environment. Pure functions from settings to refusals.

| Rule | Why |
|---|---|
| play money pays only for nodes on this machine: `local`, a Docker engine or a copy of Akash here | others cost money |
| test networks never pay for mainnet Akash, nor for Docker hosts that are not loopback | the same |
| no backend is named twice, and their ports do not overlap | or two nodes get one port |
| a Docker engine on another machine is spoken to by TLS | who reaches its port is root there |
| play money or signatures switched off: the gateway listens on loopback only | anybody could take nodes or sessions |
| the embedded facilitator takes play money, and only it | it cannot settle on any chain |
| outside `local`: recipient, facilitator and Akash owner are named by the operator | or money goes to nobody |
| the chain is asked at an http(s) URL, on mainnet by https or on loopback | whoever answers says who paid |
| the embedder `openai` has an http(s) URL, a model and a dimension | or no text can be embedded |
| a node announces an address, outside `local` a public one, on a chain that takes it | or nobody finds the node |
| a gateway's nodes announce no port but their own | they would all announce one |
| mainnet: real money, https facilitator, signatures on, recipient with EIP-55 checksum | a typo costs money |
| nodes on Akash: a key that signs, endpoints, an image by its digest, a gateway that they reach | or none starts |
| the app is served over https, or on loopback in `local` | browsers keep no keys safe otherwise |
| a session costs at least one atomic unit and at most a billion dollars | what is sold is paid for |
| a ledger on a server is not backed up as a file | or no backup would ever be made |
| lower bounds are below their upper ones | or nothing fits between |
| a worker has an orchestrator, on mainnet by https, and a kind of jobs | or there is nothing to do |
| a worker has its ledger for itself, in its data folder | another would end its jobs |
| network and facilitator fit the environment (see `MEANT`) | or real money is taken under looser rules |

What each rule looks at depends on the roles that share the process: a miner takes no money.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from config.addresses import announced_at, is_base_url, is_http_url, is_loopback, is_public
from config.engines import engine_at, is_local
from config.environment import variable_of
from config.errors import ConfigError, Problem
from config.keys import mask_url
from config.model import Environment, Settings
from config.networks import Money, money
from config.pricing import MOST_UNITS, price_range

EMBEDDED: Final = "embedded"
PLAY_RECIPIENT: Final = "0x000000000000000000000000000000000000dEaD"
"""What the `local` profile names: it stands for the address of the gateway's own refund key."""
AKASH_MAINNET: Final = "akashnet-2"
PORTS_OF_A_BACKEND: Final = 1_000
"""Ports from `first_port` on that are given to nodes of a backend."""

Place = Literal["embedded", "loopback", "elsewhere"]
"""Where a facilitator answers: in the gateway's own process, on this machine, or anywhere else."""

MEANT: Final[Mapping[tuple[Money, Place], tuple[Environment, ...]]] = MappingProxyType(
    {
        ("play", "embedded"): ("local",),
        ("play", "loopback"): ("local",),
        ("play", "elsewhere"): (),
        ("test", "embedded"): (),
        ("test", "loopback"): ("local", "testnet"),
        ("test", "elsewhere"): ("testnet",),
        ("real", "embedded"): (),
        ("real", "loopback"): ("mainnet",),
        ("real", "elsewhere"): ("mainnet",),
    }
)
"""Environments in which this money may be settled by a facilitator at this place; none: they contradict each other.

A test network with its facilitator on this machine may be a private copy of the chain, which `local` is for too.
"""

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_BY_DIGEST: Final = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}", re.ASCII)
_HOTKEY: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{47,48}")
_AKASH_ADDRESS: Final = re.compile(r"akash1[02-9ac-hj-np-z]{38}")


class Forbidden(msgspec.Struct, frozen=True):
    """A combination that must not start: the setting to change, and to what."""

    key: str
    message: str


_APP_NEEDS_HTTPS: Final = (
    "needs https, or browsers have nothing that protects keys: set gateway.public_url to the https address that a "
    "front serves, or gateway.tls_certificate and gateway.tls_key"
)

Rule = Callable[[Settings], Iterator[Forbidden]]


def check(settings: Settings, roles: Collection[str] = ("gateway",)) -> None:
    """Raise ConfigError when a process of these roles must not start with these settings."""
    refused = refusals(settings, roles)
    if refused:
        raise ConfigError([_problem(settings, refusal) for refusal in refused])


def refusals(settings: Settings, roles: Collection[str]) -> list[Forbidden]:
    """Return every reason why a process of these roles must not start; empty when it may."""
    rules: Iterable[Rule] = (rule for role in roles for rule in _RULES.get(role, ()))
    return list(dict.fromkeys(refusal for rule in rules for refusal in rule(settings)))


def check_sockets(settings: Settings, given: Iterable[tuple[str, str]]) -> None:
    """Raise ConfigError when a socket that this process was given listens where its surface must not.

    `given` are pairs of a surface and the host that its socket is bound to, which stands in the place of the setting.
    """
    refused = []
    for surface, host in given:
        if (doors := _DOORS.get(surface)) is not None:
            section = msgspec.structs.replace(getattr(settings, surface), host=host)
            at = msgspec.structs.replace(settings, **{surface: section})
            where = f"environment {settings.environment}"
            refused += [Problem(where, f"socket {surface!r}", refusal.message) for refusal in doors(at)]
    if refused:
        raise ConfigError(refused)


def cautions(settings: Settings, roles: Collection[str] = ("gateway",)) -> list[Forbidden]:
    """Return warnings about settings that do not prevent a start: the setting to check, and why."""
    found = []
    if "gateway" in roles and not is_loopback(settings.ops.host):
        found.append(
            Forbidden("ops.host", f"{settings.ops.host} is not loopback: whoever reaches it reads /status and /metrics")
        )
    if "gateway" in roles and settings.phone.serve == "auto" and not is_secure(settings):
        found.append(Forbidden("phone.serve", f"is auto, and the app is not served: it {_APP_NEEDS_HTTPS}"))
    if "gateway" in roles and settings.environment != "local" and not settings.payments.rpc_url:
        found.append(
            Forbidden(
                "payments.rpc_url",
                "is not set: what became of a payment is the facilitator's word alone, and one that it never tells "
                "stays unknown and keeps its place; name a JSON-RPC node of the network",
            )
        )
    if {"gateway", "validator"} & set(roles) and _believes_any_receiver(settings):
        found.append(
            Forbidden(
                "relay.receiver_key",
                "is not set: whoever answers at relay.url is believed to be the receiver, whatever key it signs with, "
                "and what it acknowledges is never sent again; set it to the key that the receiver's operator names",
            )
        )
    return found


def checksummed(address: str) -> str:
    """Return an EVM address in the mixed case of EIP-55. `address` is 0x and 40 hex digits.

    >>> checksummed("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")
    '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed'
    """
    from Crypto.Hash import keccak  # and with it cffi: in no process that names no address

    digits = address[2:].lower()
    digest = keccak.new(digest_bits=256, data=digits.encode()).hexdigest()
    cased = (digit.upper() if int(hint, 16) >= 8 else digit for digit, hint in zip(digits, digest, strict=False))
    return "0x" + "".join(cased)


def is_secure(settings: Settings) -> bool:
    """Return whether browsers give pages of the gateway what protects keys: over https, or in `local` on loopback."""
    at = settings.gateway
    return settings.environment == "local" or at.public_url.startswith("https://") or bool(at.tls_certificate)


def _phone(settings: Settings) -> Iterator[Forbidden]:
    if settings.phone.serve == "on" and not is_secure(settings):
        yield Forbidden("phone.serve", _APP_NEEDS_HTTPS)


def _recipient(settings: Settings) -> Iterator[Forbidden]:
    address = settings.payments.recipient
    if not address:
        yield Forbidden("payments.recipient", "is missing: the 0x address of yours that receives the USDC")
    elif not _ADDRESS.fullmatch(address):
        yield Forbidden("payments.recipient", f"{address!r} is not 0x and 40 hex digits")
    elif settings.environment != "local" and address.lower() == PLAY_RECIPIENT.lower():
        yield Forbidden("payments.recipient", "is an address that nobody owns; give one of yours")
    elif _has_bad_checksum(settings.environment == "mainnet", address[2:]):
        yield Forbidden(
            "payments.recipient", f"{address} has no valid EIP-55 checksum; if it is right: {checksummed(address)}"
        )


def _has_bad_checksum(required: bool, digits: str) -> bool:
    """Digits of one case alone carry no checksum."""
    carries_one = digits not in (digits.lower(), digits.upper())
    return (required or carries_one) and checksummed("0x" + digits)[2:] != digits


def _facilitator(settings: Settings) -> Iterator[Forbidden]:
    url, key = settings.payments.facilitator_url, "payments.facilitator_url"
    worth = money(settings.payments.network)
    if not url:
        yield Forbidden(key, "is missing: the https URL of the x402 facilitator that settles")
    elif url == EMBEDDED:
        if worth != "play":
            yield Forbidden(
                key,
                f"the embedded facilitator takes play money alone, not {settings.payments.network}: for that money "
                f"name a facilitator that settles it, and start with --profile {_PROFILE_OF[worth]}",
            )
    elif not is_http_url(url):
        yield Forbidden(key, f"{mask_url(url)!r} is not an http(s) URL or {EMBEDDED!r}")
    elif settings.environment == "mainnet" and urlsplit(url).scheme != "https":
        yield Forbidden(key, f"{mask_url(url)!r} is not https, which mainnet needs")


_PROFILE_OF: Final[Mapping[Money, Environment]] = MappingProxyType(
    {"play": "local", "test": "testnet", "real": "mainnet"}
)


def place_of(facilitator_url: str) -> Place:
    """Tell where the facilitator answers.

    >>> place_of("embedded"), place_of("http://[::1]:4021"), place_of("https://x402.example")
    ('embedded', 'loopback', 'elsewhere')
    """
    if facilitator_url == EMBEDDED:
        return "embedded"
    return "loopback" if _is_loopback_url(facilitator_url) else "elsewhere"


def _prices(settings: Settings) -> Iterator[Forbidden]:
    key, lite, sessions = "pricing.lite_usd_per_hour", settings.pricing.lite_usd_per_hour, settings.sessions
    if sessions.min_hours > sessions.max_hours:
        yield Forbidden(
            "sessions.min_hours",
            f"is {sessions.min_hours:g}; it must be no more than sessions.max_hours ({sessions.max_hours:g})",
        )
        return
    lowest, highest = price_range(lite, sessions.min_hours, sessions.max_hours)
    if lowest < 1:
        yield Forbidden(
            key,
            f"is {lite!r}; the price must come to at least 0.000001 USDC for the shortest session "
            f"({sessions.min_hours:g} h)",
        )
    elif highest > MOST_UNITS:
        yield Forbidden(
            key,
            f"is {lite!r}; the price must come to no more than {MOST_UNITS // 1_000_000} USDC for the longest session "
            f"of the tier pro ({sessions.max_hours:g} h)",
        )


def _time_to_pay(settings: Settings) -> Iterator[Forbidden]:
    payments = settings.payments
    if payments.min_validity_left_s >= payments.max_timeout_s:
        yield Forbidden(
            "payments.min_validity_left_s",
            f"is {payments.min_validity_left_s}; it must be less than payments.max_timeout_s "
            f"({payments.max_timeout_s}), or every authorization expires too soon",
        )


def _certificate(settings: Settings) -> Iterator[Forbidden]:
    gateway = settings.gateway
    if gateway.tls_certificate and not gateway.tls_key:
        yield Forbidden("gateway.tls_key", "is missing: the PEM file of the key of gateway.tls_certificate")
    elif gateway.tls_key and not gateway.tls_certificate:
        yield Forbidden("gateway.tls_certificate", "is missing: the PEM file of the certificate of gateway.tls_key")


def _relay_backoff(settings: Settings) -> Iterator[Forbidden]:
    relay = settings.relay
    if relay.backoff_min_s > relay.backoff_max_s:
        yield Forbidden(
            "relay.backoff_min_s",
            f"is {relay.backoff_min_s:g}; it must be no more than relay.backoff_max_s ({relay.backoff_max_s:g})",
        )


def _relay_tool(settings: Settings) -> Iterator[Forbidden]:
    if bool(settings.relay.tool_url) != bool(settings.relay.tool):
        missing = "relay.tool" if settings.relay.tool_url else "relay.tool_url"
        yield Forbidden(missing, "is missing: a tool is named by its server's URL and its own name")


def _relay_receiver(settings: Settings) -> Iterator[Forbidden]:
    relay = settings.relay
    if relay.receiver_key and not _HOTKEY.fullmatch(relay.receiver_key):
        yield Forbidden("relay.receiver_key", f"{relay.receiver_key!r} is not a hotkey (ss58)")
    if settings.environment != "mainnet" or urlsplit(relay.url).scheme != "http" or _is_loopback_url(relay.url):
        return
    if relay.original_receiver:
        yield Forbidden("relay.url", "is not https, and an original receiver signs nothing: anyone could answer for it")
    elif not relay.receiver_key:
        text = "is not https, and anyone on the network path could acknowledge payloads: set relay.receiver_key, or "
        yield Forbidden("relay.url", text + "use https")


def _believes_any_receiver(settings: Settings) -> bool:
    relay = settings.relay
    is_elsewhere = bool(relay.url) and not _is_loopback_url(relay.url)
    return is_elsewhere and not relay.receiver_key and not relay.original_receiver


def _relay_peers(settings: Settings) -> Iterator[Forbidden]:
    for entry in settings.relay.peers:
        hotkey, _, url = entry.partition(" ")
        if not _HOTKEY.fullmatch(hotkey) or not is_http_url(url):
            yield Forbidden("relay.peers", f"{entry!r} is not a hotkey (ss58), a space, and an http or https URL")


def _environment_of_the_money(settings: Settings) -> Iterator[Forbidden]:
    """Yield refusals of an environment that does not match the money that network and facilitator can move."""
    payments, environment = settings.payments, settings.environment
    worth, url = money(payments.network), payments.facilitator_url
    if not (url == EMBEDDED or is_http_url(url)):
        return  # `_facilitator` says so
    meant = MEANT[worth, place_of(url)]
    if environment in meant or (worth != "play" and url == EMBEDDED):
        return
    network = payments.network
    match worth, environment:
        case _, "mainnet":
            why = f"{network} is no real money; mainnet takes base"
        case "real", _:
            why = (
                f"{network} moves real money, which is for mainnet, not {environment}: start with --profile mainnet "
                "(or ENGRAM_ENV=mainnet), or set a network whose money is worth nothing"
            )
        case "test", _:
            why = (
                f"{network} with a facilitator that is not on this machine is for testnet, not {environment}: start "
                "with --profile testnet (or ENGRAM_ENV=testnet)"
            )
        case _, "testnet":
            why = f"{network} is play money, which is for local, not testnet: set base-sepolia, or take --profile local"
        case _:
            why = (
                f"{network} is play money, and the facilitator {mask_url(url)!r} is not on this machine: if real USDC "
                "is meant, start with --profile mainnet (or ENGRAM_ENV=mainnet), for a test network with --profile "
                f"testnet; for play money leave payments.facilitator_url at {EMBEDDED!r}"
            )
    yield Forbidden("payments.network", why)


def _backup(settings: Settings) -> Iterator[Forbidden]:
    if settings.backup.folder and settings.ledger.url:
        yield Forbidden(
            "backup.folder",
            "copies a ledger that is a file, and ledger.url names a server: leave it empty, and back the database up "
            "by pg_basebackup and the archived log, or pg_dump",
        )


def _rpc(settings: Settings) -> Iterator[Forbidden]:
    url, key = settings.payments.rpc_url, "payments.rpc_url"
    if not url:
        return
    if not is_http_url(url):
        yield Forbidden(key, f"{mask_url(url)!r} is not an http(s) URL")
    elif settings.environment == "mainnet" and urlsplit(url).scheme != "https" and not _is_loopback_url(url):
        yield Forbidden(key, f"{mask_url(url)!r} is neither https nor on loopback, and its word counts as payment")
    elif money(settings.payments.network) == "play":
        yield Forbidden(key, "play money has no chain to ask")


def _is_loopback_url(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def _akash_owner(settings: Settings) -> Iterator[Forbidden]:
    owner, key = settings.akash.owner_address, "akash.owner_address"
    if not owner:
        if settings.environment != "local":
            yield Forbidden(key, "is missing: the akash1… address that pays for compute")
    elif not _AKASH_ADDRESS.fullmatch(owner):
        yield Forbidden(key, f"{owner!r} is not akash1 and 38 characters of bech32")


def _money_and_nodes(settings: Settings) -> Iterator[Forbidden]:
    worth = money(settings.payments.network)
    for backend in settings.provisioning.chosen:
        match worth, backend:
            case "play", "akash" if not _is_private_akash(settings):
                yield Forbidden(
                    "provisioning.backends",
                    "play money pays only for nodes on this machine, not for akash: start with --profile mainnet, "
                    "or with --profile testnet and a test chain of Akash (akash.chain_id)",
                )
            case "test", "akash" if settings.akash.chain_id == AKASH_MAINNET:
                yield Forbidden("akash.chain_id", f"money of a test network never pays for nodes on {AKASH_MAINNET}")
            case "play" | "test", "docker" if not is_local(settings.docker.host):
                kind = "play money" if worth == "play" else "money of a test network"
                yield Forbidden("docker.host", f"{kind} pays only for Docker hosts on loopback")
            case _:
                pass


def _backends(settings: Settings) -> Iterator[Forbidden]:
    provisioning, docker = settings.provisioning, settings.docker
    twice = [name for name in dict.fromkeys(provisioning.chosen) if provisioning.chosen.count(name) > 1]
    if twice:
        yield Forbidden("provisioning.backends", f"names {twice[0]} twice")
    if "docker" in provisioning.chosen:
        yield from _engine(settings)
    apart = abs(provisioning.first_port - docker.first_port)
    if {"local", "docker"} <= set(provisioning.chosen) and apart < PORTS_OF_A_BACKEND:
        yield Forbidden(
            "docker.first_port",
            f"is {docker.first_port}; it must be {PORTS_OF_A_BACKEND} or more away from provisioning.first_port "
            f"({provisioning.first_port}), or two nodes could get one port",
        )


def _akash_backend(settings: Settings) -> Iterator[Forbidden]:
    akash = settings.akash
    if "akash" not in settings.provisioning.chosen:
        return
    if not akash.key_file:
        yield Forbidden("akash.key_file", "is missing: the file (mode 0600) with the key of akash.owner_address")
    if not (akash.node_url or akash.endpoints):
        yield Forbidden("akash.endpoints", "is empty: name REST endpoints of the chain, two or more")
    if not _BY_DIGEST.fullmatch(settings.provisioning.miner_image):
        yield Forbidden(
            "provisioning.miner_image",
            f"{settings.provisioning.miner_image!r} names no digest, which Akash needs: name@sha256: and 64 hex digits",
        )
    if settings.environment != "local" and not settings.gateway.public_url:
        yield Forbidden("gateway.public_url", "is missing: nodes on Akash ask the gateway for their hotkey's signature")
    if akash.chain_id == AKASH_MAINNET and akash.allow_private_providers:
        yield Forbidden("akash.allow_private_providers", f"is for private networks, not {AKASH_MAINNET}")
    if not akash.bids_first_s <= akash.bids_enough_s <= akash.bids_give_up_s:
        yield Forbidden(
            "akash.bids_enough_s",
            f"is {akash.bids_enough_s:g}; it must lie between bids_first_s ({akash.bids_first_s:g}) and bids_give_up_s "
            f"({akash.bids_give_up_s:g})",
        )


def _is_private_akash(settings: Settings) -> bool:
    """Whether the chain is a copy on this machine, whose money is worth nothing either."""
    urls = [url for url in (settings.akash.node_url, *settings.akash.endpoints) if url]
    return settings.akash.chain_id != AKASH_MAINNET and bool(urls) and all(map(_is_loopback_url, urls))


def _engine(settings: Settings) -> Iterator[Forbidden]:
    docker = settings.docker
    try:
        engine_at(docker.host)
    except ValueError as error:
        yield Forbidden("docker.host", str(error))
        return
    if not is_local(docker.host) and not docker.tls_ca:
        yield Forbidden("docker.tls_ca", f"is missing: without TLS whoever reaches {docker.host} is root there")
    if bool(docker.tls_certificate) != bool(docker.tls_key):
        given, missing = ("tls_certificate", "tls_key") if docker.tls_certificate else ("tls_key", "tls_certificate")
        yield Forbidden(f"docker.{missing}", f"is missing; docker.{given} needs it")


def _open_doors(settings: Settings) -> Iterator[Forbidden]:
    host = settings.gateway.host
    if money(settings.payments.network) == "play" and not is_loopback(host):
        yield Forbidden("gateway.host", f"{host} is not loopback, and play money needs that")
    if not settings.gateway.auth_required:
        if settings.environment == "mainnet":
            yield Forbidden("gateway.auth_required", "signatures are always checked on mainnet")
        elif not is_loopback(host):
            yield Forbidden("gateway.host", f"{host} is not loopback, which switching signature checks off needs")


def _facilitator_doors(settings: Settings) -> Iterator[Forbidden]:
    host = settings.facilitator.host
    if not is_loopback(host):
        yield Forbidden("facilitator.host", f"{host} is not loopback, and play money needs that")
    if settings.environment != "local":
        yield Forbidden("environment", f"the play-money facilitator is for local, not {settings.environment}")


def _miner_signatures(settings: Settings) -> Iterator[Forbidden]:
    if settings.environment == "mainnet" and not settings.miner.require_signature:
        yield Forbidden("miner.require_signature", "signatures are always checked on mainnet")


def _embedding_server(settings: Settings) -> Iterator[Forbidden]:
    miner = settings.miner
    if miner.embedder != "openai":
        return
    url = miner.embedding_url
    if not is_http_url(url):
        yield Forbidden("miner.embedding_url", f"{mask_url(url)!r} is no http(s) URL, which embedder openai needs")
    if not miner.embedding_model:
        yield Forbidden("miner.embedding_model", "is missing: the model that the embedding server is asked for")
    if not miner.embedding_dimension:
        yield Forbidden("miner.embedding_dimension", "is missing: how many numbers a vector of that model has")


def _chain_reset(settings: Settings) -> Iterator[Forbidden]:
    chain = settings.chain
    if 0.0 < chain.reset_after_s <= chain.stall_after_s:
        yield Forbidden(
            "chain.reset_after_s",
            f"{chain.reset_after_s:g} is not more than chain.stall_after_s ({chain.stall_after_s:g}), after which the "
            "other endpoints are asked first; set 0 (never) or more than that",
        )


def _announcement(settings: Settings) -> Iterator[Forbidden]:
    text, key = settings.miner.announce, "miner.announce"
    if not text:
        return
    try:
        address, _ = announced_at(text)
    except ValueError as error:
        yield Forbidden(key, str(error))
        return
    if settings.environment != "local" and not is_public(address):
        yield Forbidden(key, f"{address} cannot be reached from the internet, which validators ask from")


def _announcements_of_nodes(settings: Settings) -> Iterator[Forbidden]:
    text = settings.miner.announce
    refused = list(_announcement(settings))
    yield from refused
    if not text or refused:
        return
    if announced_at(text)[1] is not None:
        yield Forbidden("miner.announce", f"{text!r} names one port for all nodes; without it each announces its own")
    if settings.chain.source == "recorded":
        yield Forbidden("chain.source", "miner.announce is set, and a recorded chain cannot be written to; set rpc")
    elif not settings.chain.endpoints:
        yield Forbidden("chain.endpoints", "is empty, and miner.announce needs a chain to announce on")


def _validator(settings: Settings) -> Iterator[Forbidden]:
    at = settings.validator
    if not at.hotkey_file:
        yield Forbidden("validator.hotkey_file", "is missing: the wallet file of the validator's hotkey")
    if at.private_addresses and settings.environment == "mainnet":
        yield Forbidden("validator.private_addresses", "is for a subnet on one machine, not for mainnet")
    if settings.miner.embedder == "hash" and settings.environment == "mainnet":
        yield Forbidden("miner.embedder", "is hash, whose vectors have no meaning: planted records need minilm")
    for entry in at.blacklist:
        if not _HOTKEY.fullmatch(entry.partition(" ")[0]):
            yield Forbidden("validator.blacklist", f"{entry!r} does not begin with a hotkey (ss58), a space, and why")


def _worker(settings: Settings) -> Iterator[Forbidden]:
    at = settings.worker
    if not at.orchestrator_url:
        yield Forbidden("worker.orchestrator_url", "is missing: where jobs come from")
    elif not is_base_url(at.orchestrator_url) or urlsplit(at.orchestrator_url).path not in ("", "/"):
        yield Forbidden("worker.orchestrator_url", "has more than a host and port; a path is worker.socketio_path")
    elif settings.environment == "mainnet" and not at.orchestrator_url.startswith("https://"):
        yield Forbidden("worker.orchestrator_url", "is not https: anyone on the network path could send jobs")
    if settings.ledger.url:
        words = "is set, and a worker shares its ledger with no other: leave it empty, each worker has its data_dir"
        yield Forbidden("ledger.url", words)
    if at.backoff_min_s > at.backoff_max_s:
        yield Forbidden("worker.backoff_min_s", "is more than worker.backoff_max_s")
    if not (at.inference_url or at.training_url or at.kinds):
        yield Forbidden("worker.inference_url", "is missing, as are training_url and kinds: no job could be run")


_RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "gateway": (
        _recipient,
        _facilitator,
        _environment_of_the_money,
        _prices,
        _time_to_pay,
        _certificate,
        _phone,
        _relay_backoff,
        _relay_tool,
        _relay_receiver,
        _rpc,
        _backup,
        _akash_owner,
        _akash_backend,
        _money_and_nodes,
        _backends,
        _open_doors,
        _embedding_server,
        _announcements_of_nodes,
        _chain_reset,
    ),
    "facilitator": (_facilitator_doors,),
    "validator": (_validator, _relay_backoff, _relay_receiver, _relay_peers, _chain_reset),
    "worker": (_worker,),
    "miner": (_miner_signatures, _embedding_server, _announcement),
}

_DOORS: Final[Mapping[str, Rule]] = MappingProxyType({"gateway": _open_doors, "facilitator": _facilitator_doors})
"""What is held against the address of a surface, by its name."""


def _problem(settings: Settings, refusal: Forbidden) -> Problem:
    variable = variable_of(refusal.key)
    key = f"{refusal.key} ({variable})" if variable else refusal.key
    return Problem(f"environment {settings.environment}", key, refusal.message)
