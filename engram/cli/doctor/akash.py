"""What the doctor finds of Akash: key and address, endpoints, versions of the chain's modules, balances."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from config.model import Settings
from engram.cli.doctor.finding import Finding, Verdict
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.provisioning.akash.account import read_key_file
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.errors import UnusableKey
from engram.provisioning.akash.factory import open_chain
from engram.provisioning.errors import Unavailable

WHAT: Final = "akash"
MICRO: Final = 1_000_000


async def akash(settings: Settings) -> list[Finding]:
    """Look at everything; nothing where no node runs on Akash. Nothing is sent that moves anything."""
    if "akash" not in settings.provisioning.chosen:
        return []
    found = [_key(settings)]
    owner = settings.akash.owner_address
    if not owner:
        return found
    http = HttpClient()
    try:
        chain = open_chain(settings, owner, http, SystemClock())
        found += [finding async for finding in _chain(settings, chain)]
    except Unavailable as error:
        found.append(Finding(WHAT, "bad", str(error)))
    finally:
        await http.aclose()
    return found


def _key(settings: Settings) -> Finding:
    akash = settings.akash
    if not akash.key_file:
        return Finding("akash.key_file", "bad", "is missing: engram akash wallet new FILE makes one")
    try:
        signer = read_key_file(Path(akash.key_file).expanduser())
    except UnusableKey as error:
        return Finding("akash.key_file", "bad", str(error))
    if akash.owner_address and signer.address != akash.owner_address:
        return Finding("akash.owner_address", "bad", f"the key is that of {signer.address}")
    return Finding("akash.key_file", "good", f"the key of {signer.address}")


async def _chain(settings: Settings, chain: Chain) -> AsyncIterator[Finding]:
    await chain.endpoints.usable()
    for url, trouble in chain.endpoints.troubles().items():
        yield Finding("akash.endpoints", "note", f"{url} is not used: {trouble}")
    good = await chain.endpoints.usable()
    if chain.endpoints.quorum < 2 or len(good) < 2:
        yield Finding("akash.endpoints", "note", "only one can be used: what it does not find is uncertain for long")
    await chain.probe()
    yield Finding(WHAT, "good", f"{len(good)} endpoints serve {settings.akash.chain_id}")
    if await chain.account() is None:
        yield Finding("akash.owner_address", "bad", f"{chain.owner} was never funded: send AKT to it")
        return
    for denom, coin, alarm, what in (
        ("uakt", "AKT", settings.akash.alarm_akt, "fees"),
        ("uact", "ACT", settings.akash.alarm_act, "deployments"),
    ):
        balance = min(await chain.balance(denom)) / MICRO
        verdict: Verdict = "good" if balance >= alarm else "bad" if balance == 0 else "note"
        text = f"{balance:g} {coin} for {what}"
        yield Finding(f"akash {coin}", verdict, text if verdict == "good" else f"{text}, the alarm is at {alarm:g}")
