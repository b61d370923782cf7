"""What the doctor finds where money is concerned: recipient, facilitator, chain, clock, token, refund key.

The chain is asked by `payments.rpc_url`. Without one the token cannot be looked at, and the clock is compared with the
facilitator's. Nothing is sent that moves anything.
"""

import email.utils
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, final

from config.keys import mask_url
from config.model import PaymentSettings, Settings
from config.pricing import price_range
from config.rules import EMBEDDED, checksummed
from engram.cli.doctor.finding import Finding
from engram.http.client import HttpClient, HttpError
from engram.payments import networks, refund_key
from engram.payments.errors import MalformedPayment, RpcFailed, UnknownNetwork, UnusableRefundKey
from engram.payments.evm_rpc import EvmRpc, RpcCall, json_rpc
from engram.payments.keccak import keccak256
from engram.payments.networks import Network
from engram.payments.supported import read_supported
from engram.payments.x402 import strict_json

TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 262_144
SKEW_S: Final = 15.0
"""Clocks further apart than this make authorizations expire too early or too late: they must be good for 20 s more."""
OLD_BLOCK_S: Final = 60.0
"""Base makes a block every 2 s: a node whose newest block is older is behind, or our clock is ahead."""
DECIMALS: Final = 6
OUR_METHOD: Final = "eip3009"
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


async def money(settings: Settings, owed: int = 0, now: Callable[[], float] = time.time) -> list[Finding]:
    """Look at everything; a thing that cannot be looked at because a setting is missing is left out.

    `owed` is what the ledger's refunds that are not sent yet come to, in atomic units.
    """
    try:
        network = networks.find(settings.payments.network)
    except UnknownNetwork as error:
        return [Finding("network", "bad", f"{error}: set payments.network")]
    http = HttpClient()
    try:
        looking = _Look(settings, network, http, owed, now)
        return [finding async for finding in looking.at_everything()]
    finally:
        await http.aclose()


@final
class _Look:
    def __init__(
        self, settings: Settings, network: Network, http: HttpClient, owed: int, now: Callable[[], float]
    ) -> None:
        self._payments: Final[PaymentSettings] = settings.payments
        self._least_units, _ = price_range(
            settings.pricing.lite_usd_per_hour, settings.sessions.min_hours, settings.sessions.max_hours
        )
        self._network: Final = network
        self._http: Final = http
        self._owed: Final = owed
        self._now: Final = now

    async def at_everything(self) -> AsyncIterator[Finding]:
        if recipient := _recipient(self._payments.recipient):
            yield recipient
        async for finding in self._facilitator():
            yield finding
        if self._network.play:
            return
        if not self._payments.rpc_url:
            yield Finding(
                "chain", "note", "payments.rpc_url is not set: what became of a payment is the facilitator's word alone"
            )
            if self._payments.refund_key_file:
                yield self._key_without_chain()
            return
        async for finding in self._chain():
            yield finding

    async def _facilitator(self) -> AsyncIterator[Finding]:
        url = self._payments.facilitator_url
        if url == EMBEDDED:
            yield Finding("facilitator", "good", "embedded: play money, in the gateway's own process")
            return
        if not url:
            return  # the settings' own check says so
        shown = mask_url(url.rstrip("/"))
        began = self._now()
        try:
            answer = await self._http.request(
                "GET", f"{url.rstrip('/')}/supported", total_s=TIMEOUT_S, max_bytes=MAX_ANSWER_BYTES
            )
            found = read_supported(strict_json(answer.content), self._network) if answer.status == 200 else None
        except (HttpError, MalformedPayment) as error:
            yield Finding("facilitator", "bad", f"{shown}/supported cannot be read: {error}")
            return
        if found is None:
            yield Finding("facilitator", "bad", f"{shown}/supported answers {answer.status}, and no list of kinds")
            return
        name = f"{self._network.caip2} ({self._network.v1_name})"
        if found.kind is None:
            yield Finding("facilitator", "bad", f"{shown} does not settle `exact` on {name}: choose another one")
        elif found.kind.minimum > self._least_units:
            least, ours = found.kind.minimum / 1e6, self._least_units / 1e6
            yield Finding(
                "facilitator",
                "note",
                f"{shown} settles no less than ${least:g}; what is cheaper (from ${ours:g}) is not sold",
            )
        elif found.kind.transfer_method not in (None, OUR_METHOD):
            yield Finding(
                "facilitator",
                "note",
                f"{shown} settles `exact` on {name} and names {found.kind.transfer_method[:40]!r} as its transfer"
                f" method; our offers ask for {OUR_METHOD}: check that a small payment settles",
            )
        else:
            yield Finding("facilitator", "good", f"{shown} settles `exact` on {name}")
        if not self._payments.rpc_url and (served_at := _date(answer.headers.get("date"))) is not None:
            yield _clock("the facilitator's", served_at, (began + self._now()) / 2)

    async def _chain(self) -> AsyncIterator[Finding]:
        shown = mask_url(self._payments.rpc_url)
        call = json_rpc(self._http, self._payments.rpc_url, TIMEOUT_S)
        try:
            chain_id = await call("eth_chainId", [])
            if chain_id != hex(self._network.chain_id):
                wanted = f"{self._network.chain_id} of payments.network"
                yield Finding("chain", "bad", f"{shown} serves chain {_shown(chain_id)}, not {wanted}")
                return
            block = await EvmRpc(call, self._network, self._payments.confirmations).block("latest")
            yield Finding("chain", "good", f"{shown} is at block {block.number} of {self._network.caip2}")
            yield _clock("the chain's newest block", float(block.timestamp), self._now(), behind_s=OLD_BLOCK_S)
            yield await self._token(call)
            async for finding in self._refund_float(call):
                yield finding
        except RpcFailed as failed:
            yield Finding("chain", "bad", f"{shown} gives no usable answer: {failed}")

    async def _token(self, call: RpcCall) -> Finding:
        address = checksummed("0x" + self._network.asset.hex())
        code = await call("eth_getCode", ["0x" + self._network.asset.hex(), "latest"])
        if code in (None, "", "0x"):
            return Finding("token", "bad", f"there is no contract at {address} on this chain")
        name, version = _text(await self._ask(call, "name()")), _text(await self._ask(call, "version()"))
        decimals = _number(await self._ask(call, "decimals()"))
        found = (name, version, decimals)
        wanted = (self._network.asset_name, self._network.asset_version, DECIMALS)
        if found != wanted:
            return Finding(
                "token",
                "bad",
                f"{address} calls itself {name!r}, version {version!r}, {decimals} decimals; buyers sign for"
                f" {wanted[0]!r}, version {wanted[1]!r}, {wanted[2]} decimals: their signatures would be invalid",
            )
        return Finding("token", "good", f"{address} is {name!r}, version {version!r}, {decimals} decimals")

    async def _refund_float(self, call: RpcCall) -> AsyncIterator[Finding]:
        if not self._payments.refund_key_file:
            yield Finding("refunds", "note", "payments.refund_key_file is not set: refunds wait for the operator")
            return
        try:
            key = refund_key.read(Path(self._payments.refund_key_file))
        except UnusableRefundKey as error:
            yield Finding("refunds", "bad", str(error))
            return
        address = checksummed("0x" + key.address.hex())
        balance = _number(await self._ask(call, "balanceOf(address)", bytes(12) + key.address)) or 0
        owns = f"{address} owns ${balance / 1e6:,.2f}"
        daily = self._payments.refund_daily_usd
        if balance == 0:
            yield Finding("refunds", "bad", f"{owns}: no refund can be sent; send it USDC")
        elif balance < self._owed:
            yield Finding("refunds", "bad", f"{owns}, and ${self._owed / 1e6:,.2f} of refunds are due: send it USDC")
        elif balance < daily * 1_000_000:
            yield Finding("refunds", "note", f"{owns}, less than payments.refund_daily_usd ({daily:g})")
        else:
            yield Finding("refunds", "good", owns)

    def _key_without_chain(self) -> Finding:
        try:
            key = refund_key.read(Path(self._payments.refund_key_file))
        except UnusableRefundKey as error:
            return Finding("refunds", "bad", str(error))
        address = checksummed("0x" + key.address.hex())
        return Finding("refunds", "note", f"{address} sends them; its balance is unknown without payments.rpc_url")

    async def _ask(self, call: RpcCall, signature: str, arguments: bytes = b"") -> bytes | None:
        """Return the contract's answer, None when it does not have the function."""
        data = "0x" + (keccak256(signature.encode())[:4] + arguments).hex()
        try:
            returned = await call("eth_call", [{"to": "0x" + self._network.asset.hex(), "data": data}, "latest"])
        except RpcFailed:
            return None
        try:
            return bytes.fromhex(returned[2:]) if isinstance(returned, str) else None
        except ValueError:
            return None


def _recipient(address: str) -> Finding | None:
    """Check the recipient's checksum; None for an address that the check of settings refuses."""
    if not _ADDRESS.fullmatch(address):
        return None
    digits = address[2:]
    if digits in (digits.lower(), digits.upper()):
        return Finding(
            "recipient",
            "note",
            f"{address} has no checksum, so a typo would go unnoticed; as EIP-55: {checksummed(address)}",
        )
    if checksummed(address) != address:
        return Finding("recipient", "bad", f"{address} has a wrong checksum; if it is right: {checksummed(address)}")
    return Finding("recipient", "good", f"{address} has a valid checksum")


def _clock(whose: str, other: float, ours: float, *, behind_s: float = SKEW_S) -> Finding:
    """Compare our clock with another; `behind_s` is how old the other's time may be."""
    ahead = ours - other
    if ahead < -SKEW_S:
        return Finding("clock", "bad", f"our clock is {-ahead:.0f} s behind {whose}: set it by NTP")
    if ahead > behind_s:
        return Finding("clock", "bad", f"our clock is {ahead:.0f} s ahead of {whose}: set it by NTP, or that is behind")
    return Finding("clock", "good", f"within {max(1.0, abs(ahead)):.0f} s of {whose}")


def _date(header: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(header).timestamp() if header else None
    except ValueError:
        return None


def _text(answer: bytes | None) -> str | None:
    """Return an ABI-encoded string."""
    if answer is None or len(answer) < 64:
        return None
    length = int.from_bytes(answer[32:64], "big")
    return answer[64 : 64 + length].decode(errors="replace") if length <= 100 else None


def _number(answer: bytes | None) -> int | None:
    return int.from_bytes(answer, "big") if answer is not None and len(answer) == 32 else None


def _shown(chain_id: object) -> str:
    try:
        return str(int(str(chain_id), 16))
    except ValueError:
        return "?"
