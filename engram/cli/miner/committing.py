"""What `engram miner-check` commits to the chain, and how it looks at what is committed there."""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from config.addresses import is_base_url, is_public_host
from engram.cli.chain.common import ChainOptions, WalletOptions, failing, hotkey_of
from engram.cli.failures import CommandFailed, Exit
from engram.hotkeys import Keypair, PublicKey
from engram.http.client import HttpClient
from engram.kit.inspection import Finding, Inspection, Question

if TYPE_CHECKING:
    from engram.chain.registry.registrations import RegistryEntry

PATIENCE_S: Final = 180.0
_PORTS: Final = {"http": 80, "https": 443}


def endpoint_of(url: str, external: str | None, *, allow_private: bool) -> str:
    """Return the text by which validators find the miner at this URL, or at `external` (address:port).

    Raises CommandFailed for what cannot be committed: a path, or an address outside the public internet.
    """
    from engram.chain.registry.registrations import InvalidRegistration, parse_text, registration

    try:
        if external is not None:
            named = parse_text(external)
            return registration(named.address, str(named.port), allow_private=allow_private).text
        parts = urlsplit(url)
        if not is_base_url(url) or parts.path.strip("/"):
            where = f"{parts.scheme}://{parts.hostname}"
            raise CommandFailed(f"a host and a port alone are committed, and the URL has more: {where}", Exit.USAGE)
        port = parts.port or _PORTS[parts.scheme]
        return registration(parts.hostname or "", str(port), allow_private=allow_private).text
    except (InvalidRegistration, ValueError) as error:
        raise CommandFailed(f"{external or url} cannot be committed: {error}", Exit.USAGE) from None


def text_of(text: str) -> str:
    """Return this text if it can be committed. Raises CommandFailed."""
    from engram.chain.submit.calls import COMMITMENT_BYTES

    size = len(text.encode())
    if not 0 < size <= COMMITMENT_BYTES:
        raise CommandFailed(f"--commit: {size} bytes; a commitment has 1 to {COMMITMENT_BYTES}", Exit.USAGE)
    return text


def commit(chain: ChainOptions, wallet: WalletOptions, text: str) -> None:
    """Commit a text under the wallet's hotkey. Raises CommandFailed."""
    from engram.cli.chain.registry import commit_text

    keypair = hotkey_of(wallet)
    with failing():
        trio.run(commit_text, chain, keypair, text, PATIENCE_S)


def address_in(entry: "RegistryEntry") -> str | None:
    """Return the address that a commitment holds, host:port or a base URL; None for any other text."""
    if entry.registration is not None:
        return entry.registration.text
    return entry.raw if is_base_url(entry.raw) else None


def require_seen(address: str, seen: list[Finding]) -> None:
    """Raise CommandFailed unless the miner was seen at the address."""
    if wrong := "; ".join(f"{each.what}: {each.words}" for each in seen if not each.good):
        words = f"{address} was not committed; as seen from here it is not this miner: {wrong}"
        raise CommandFailed(f"{words} (--commit {address} commits it all the same)")


async def look_at(
    address: str, url: str, hotkey: PublicKey, validator: Keypair, question: Question, *, allow_private: bool
) -> list[Finding]:
    """Return what is found at this address: by https where it is public, else as `url` has it."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    if "://" not in address:
        address = f"{'https' if is_public_host(host) else urlsplit(url).scheme}://{address}"
    seen = []
    if not allow_private and not is_public_host(host):
        words = f"{host} cannot be reached from the internet (--allow-private takes it)"
        seen.append(Finding("address", False, words))
    http = HttpClient()
    try:
        return seen + await Inspection(address, hotkey, validator, http).own(question)
    finally:
        await http.aclose()
