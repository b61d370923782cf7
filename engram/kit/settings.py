"""The settings of a kit miner: one TOML file, `miner.toml`."""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from config.addresses import is_http_url
from config.errors import ConfigError, Problem
from config.model import Count, Netuid, Port, Seconds, Section
from engram import wire
from engram.chain.read.endpoints import http_url
from engram.gpu.attestation import DEADLINE_S
from engram.hotkeys import MalformedHotkey, PublicKey, profiles, ss58
from engram.proxy.settings.model import PLACEHOLDERS, StakeUnit

SCHEMES: Final = ("epistula-v2", "dippy", "x-epistula")


class MinerSection(Section, frozen=True):
    """Who the miner is."""

    hotkey: str
    """SS58 address of the hotkey that is registered on the subnet. The secret key is not needed to serve."""
    netuid: Netuid = 11


class ServeSection(Section, frozen=True):
    """Where it listens."""

    host: str = "127.0.0.1"
    port: Port = 8091
    behind_proxy: bool = True
    """Whether `engram run proxy` on this machine stands in front: its requests come from loopback, without a signature,
    with the proven caller in X-Epistula-Caller. Only with a loopback `host`."""
    requests_per_minute_per_caller: Count = 600
    max_body_bytes: Annotated[int, Meta(ge=1_024, le=1_073_741_824)] = 1_048_576
    drain_s: Seconds = 10.0


class CallersSection(Section, frozen=True):
    """Who may call without the proxy: what the proxy decides by its own settings, this miner decides by these."""

    allowed: tuple[str, ...] = ()
    """SS58 addresses that pass without permit and stake."""
    schemes: tuple[str, ...] = SCHEMES
    """How requests may be signed. `x-epistula` names no receiver: whoever gets such a request can pass it on."""
    chain_endpoint: str = ""
    """JSON-RPC endpoint (wss, ws, https or http) that tells permits and stakes; empty: only `allowed` pass."""
    min_stake: Annotated[float, Meta(ge=0, le=1e15)] = 1_000.0
    """A validator needs more than this."""
    stake_unit: StakeUnit = "weighted"
    """What of a validator's stake counts: `alpha`, `tao`, or `weighted`, both as the chain weights them, which is
    `metagraph.S` of Bittensor's SDK."""
    cache_duration_s: Seconds = 3_600.0
    """A metagraph older than this authorizes no one."""


class OfferSection(Section, frozen=True):
    """What `/cvm` answers."""

    gpu_type: str = ""
    """Empty: the name of the first GPU, as the driver has it."""
    vram_gb: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """0: the memory of the first GPU, in whole GiB as GPUs are sold by."""
    bid_per_hour: Annotated[float, Meta(ge=0, le=1e6)] = 0.5
    """US dollars."""
    attestation: Literal["none", "nvml", "command"] = "none"
    attestation_command: tuple[str, ...] = ()
    """Program and arguments; its output is the attestation."""
    attestation_s: Seconds = DEADLINE_S
    """Seconds within which an attestation must be made; null is answered after it. Validators wait about 10 s."""


class MinerSettings(Section, frozen=True):
    """All settings of one miner."""

    miner: MinerSection
    serve: ServeSection = ServeSection()
    callers: CallersSection = CallersSection()
    offer: OfferSection = OfferSection()

    @property
    def hotkey(self) -> PublicKey:
        """The miner's public key."""
        return ss58.decode(self.miner.hotkey)


def load(path: Path, *, host: str | None = None, port: int | None = None) -> MinerSettings:
    """Read the file; `host` and `port` win over it. Raises ConfigError with the key and what would be right."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError([Problem(str(path), "", f"it cannot be read: {error.strerror}")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), "", f"it is not TOML: {error}")]) from None
    return read(document, str(path), host=host, port=port)


def read(document: dict[str, Any], where: str, *, host: str | None = None, port: int | None = None) -> MinerSettings:
    """Return the settings of a decoded file. Raises ConfigError."""
    try:
        settings = wire.convert(document, MinerSettings)
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(where, "", str(error))]) from None
    serve = settings.serve
    serve = msgspec.structs.replace(serve, host=host or serve.host, port=serve.port if port is None else port)
    return checked(msgspec.structs.replace(settings, serve=serve), where)


def checked(settings: MinerSettings, where: str) -> MinerSettings:
    """Return the settings. Raises ConfigError with all that cannot be used in them; `where` is where they come from."""
    if problems := _problems(settings, where):
        raise ConfigError(problems)
    return settings


def _problems(settings: MinerSettings, where: str) -> list[Problem]:
    found = []
    hotkey = settings.miner.hotkey
    if hotkey in PLACEHOLDERS:
        found.append(Problem(where, "miner.hotkey", "write the SS58 address of your registered hotkey here"))
    for key, addresses in (("miner.hotkey", (hotkey,)), ("callers.allowed", settings.callers.allowed)):
        for address in addresses:
            try:
                ss58.decode(address)
            except MalformedHotkey as error:
                if address not in PLACEHOLDERS or key != "miner.hotkey":
                    found.append(Problem(where, key, f"{address!r} is no SS58 address: {error}"))
    known = ", ".join(profiles.STRICT)
    unknown = [scheme for scheme in settings.callers.schemes if scheme not in profiles.STRICT]
    found += [Problem(where, "callers.schemes", f"{scheme!r} is none of {known}") for scheme in unknown]
    if settings.callers.chain_endpoint and not is_http_url(http_url(settings.callers.chain_endpoint)):
        text = f"{settings.callers.chain_endpoint!r} is no URL, such as wss://entrypoint-finney.opentensor.ai:443"
        found.append(Problem(where, "callers.chain_endpoint", text))
    if settings.serve.behind_proxy and not _is_loopback(settings.serve.host):
        text = f"{settings.serve.host} is not loopback: anyone could say who calls; set behind_proxy = false"
        found.append(Problem(where, "serve.behind_proxy", text))
    if settings.offer.attestation == "command" and not settings.offer.attestation_command:
        found.append(Problem(where, "offer.attestation_command", "name the program that prints the attestation"))
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
