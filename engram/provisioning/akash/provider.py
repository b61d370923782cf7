"""The gateway of a provider: takes the manifest of a lease, runs the node, says how it is.

It is a stranger. It is known by its certificate (`provider_tls`), reached only at public addresses
(`provider_addresses`), answers are bounded, and it gets a token of 30 s for one thing at this provider alone.
"""

import contextlib
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, final
from urllib.parse import urlencode

import msgspec
import structlog
import trio

from engram import wire
from engram.clock import Clock
from engram.http.client import HttpClient, HttpError, NotSent, Response
from engram.http.websocket_client import read_texts
from engram.provisioning.akash import jwt, provider_tls
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.events import Accepted, ManifestRejected, NoLeaseYet, NotReady, ProviderFailed, Ready
from engram.provisioning.akash.model import Deployment
from engram.provisioning.akash.provider_addresses import ProviderAddress, vet_node, vetted
from engram.provisioning.akash.provider_model import LeaseStatus, readiness
from engram.provisioning.errors import Unavailable
from engram.provisioning.node_addresses import UnusableAddress

CONNECT_S: Final = 8.0
MANIFEST_S: Final = 60.0
STATUS_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 262_144
KNOWN_FOR_S: Final = 600.0
PROVIDERS_KNOWN: Final = 256
LOG_LINES: Final = 100
LOGS_S: Final = 10.0
LOG_BYTES: Final = 4_000
_log = structlog.get_logger("engram.provisioning.akash")
_VERSION_LAG = "manifest version validation failed"


class Contact(msgspec.Struct, frozen=True):
    """How a provider is reached."""

    at: ProviderAddress
    contexts: tuple[ssl.SSLContext, ...]
    """To be tried in this order: known authorities, then the certificate on chain."""
    until: float


@final
class Providers:
    """Speaks to the providers of our leases."""

    def __init__(self, chain: Chain, signer: Signer, clock: Clock, *, allow_private: bool) -> None:
        self._chain = chain
        self._signer = signer
        self._clock = clock
        self._allow_private = allow_private
        self._contacts: OrderedDict[str, Contact] = OrderedDict()
        self._system: ssl.SSLContext | None = None

    async def send_manifest(self, row: Deployment) -> Accepted | NoLeaseYet | ManifestRejected | ProviderFailed:
        """Hand the lease's manifest over. Repeating it is harmless."""
        path = f"/deployment/{row.dseq}/manifest"
        answer = await self._ask(row, "PUT", path, ("send-manifest",), MANIFEST_S, row.manifest)
        if isinstance(answer, ProviderFailed):
            return answer
        text = answer.content[:500].decode("utf-8", "replace").strip()
        match answer.status:
            case 200:
                return Accepted()
            case 404:
                return NoLeaseYet()
            case 422 if _VERSION_LAG in text:  # its node has not seen the deployment as it is now
                return NoLeaseYet()
            case 422:
                return ManifestRejected(text)
            case status:
                return ProviderFailed(f"the manifest was answered by {status}: {text}")

    async def status(self, row: Deployment, service: str, port: int) -> Ready | NotReady | ProviderFailed:
        """Return whether the provider runs the node, and where."""
        path = f"/lease/{row.dseq}/{row.gseq}/{row.oseq}/status"
        answer = await self._ask(row, "GET", path, ("status",), STATUS_S)
        if isinstance(answer, ProviderFailed):
            return answer
        if answer.status == 404:
            return NotReady("the provider does not know the lease")
        if answer.status != 200:
            return ProviderFailed(f"the status was answered by {answer.status}")
        try:
            found = readiness(answer.decode(LeaseStatus), service, port)
            if isinstance(found, Ready):
                await vet_node(found.endpoint, allow_private=self._allow_private)
        except (HttpError, UnusableAddress) as error:
            return ProviderFailed(str(error))
        return found

    async def logs(self, row: Deployment, service: str) -> str:
        """Return the last lines of the node's output, at most `LOG_BYTES`; empty when they are not to be had."""
        if row.provider is None:
            return ""
        query = urlencode({"service": service, "follow": "false", "tail": LOG_LINES})
        path = f"/lease/{row.dseq}/{row.gseq}/{row.oseq}/logs?{query}"
        try:
            contact = await self._contact(row.provider)
            token = jwt.issue(self._signer, row.provider, ("logs",), self._clock.now())
        except (Unavailable, UnusableAddress):
            return ""
        for context in contact.contexts:
            with contextlib.suppress(HttpError):
                frames = await read_texts(
                    contact.at.url + path,
                    headers=[("authorization", f"Bearer {token}")],
                    tls=context,
                    address=contact.at.address,
                    total_s=LOGS_S,
                    max_bytes=MAX_ANSWER_BYTES,
                )
                return "\n".join(_line(frame) for frame in frames)[-LOG_BYTES:]
        return ""

    async def _ask(
        self,
        row: Deployment,
        method: str,
        path: str,
        scope: Sequence[jwt.Scope],
        total_s: float,
        content: bytes | None = None,
    ) -> Response | ProviderFailed:
        """Ask by a token of our clock; where that is refused, by one of the chain's, which providers go by too."""
        if row.provider is None:
            return ProviderFailed("no provider is chosen")
        try:
            contact = await self._contact(row.provider)
            answer = await self._sent(contact, row.provider, (method, path, content), scope, total_s, self._clock.now())
            if isinstance(answer, Response) and answer.status == 401:
                at = (await self._chain.endpoints.head()).time
                _log.warning("akash_token_refused", provider=row.provider, clock_ahead_s=self._clock.now() - at)
                answer = await self._sent(contact, row.provider, (method, path, content), scope, total_s, at)
        except (Unavailable, UnusableAddress) as error:
            return ProviderFailed(str(error))
        return answer

    async def _sent(
        self,
        contact: Contact,
        provider: str,
        request: tuple[str, str, bytes | None],
        scope: Sequence[jwt.Scope],
        total_s: float,
        at: float,
    ) -> Response | ProviderFailed:
        """Send a request with a token that begins at this time (unix seconds)."""
        method, path, content = request
        headers = {"authorization": f"Bearer {jwt.issue(self._signer, provider, scope, at)}"}
        if content is not None:
            headers["content-type"] = "application/json"
        reason = ""
        for context in contact.contexts:
            try:
                return await HttpClient(tls=context).request(
                    method,
                    contact.at.url + path,
                    content=content,
                    headers=headers,
                    connect_s=CONNECT_S,
                    read_s=total_s,
                    total_s=total_s,
                    max_bytes=MAX_ANSWER_BYTES,
                    address=contact.at.address,
                )
            except NotSent as error:  # the handshake fails before anything is sent: the other proof may do
                reason = reason or str(error)
            except HttpError as error:
                return ProviderFailed(f"{type(error).__name__}: {error}")
        self._contacts.pop(provider, None)
        return ProviderFailed(reason or "no connection")

    async def _contact(self, provider: str) -> Contact:
        """Return the address of a provider, kept for a while. Raises Unavailable, UnusableAddress."""
        now = trio.current_time()
        known = self._contacts.get(provider)
        if known is not None and now < known.until:
            self._contacts.move_to_end(provider)
            return known
        host_uri = await self._chain.provider(provider)
        if host_uri is None:
            raise UnusableAddress(f"the chain knows no provider {provider}")
        at = await vetted(host_uri, allow_private=self._allow_private)
        pinned = provider_tls.pinned_context(await self._chain.certificates(provider))
        contexts = [await self._known_authorities()] + ([] if pinned is None else [pinned])
        contact = self._contacts[provider] = Contact(at, tuple(contexts), now + KNOWN_FOR_S)
        while len(self._contacts) > PROVIDERS_KNOWN:
            self._contacts.popitem(last=False)
        return contact

    async def _known_authorities(self) -> ssl.SSLContext:
        if self._system is None:
            self._system = await trio.to_thread.run_sync(provider_tls.system_context)
        return self._system


class _LogLine(msgspec.Struct, frozen=True):
    name: str = ""
    message: str = ""


def _line(frame: str) -> str:
    try:
        return wire.decode(frame, _LogLine).message
    except msgspec.DecodeError:
        return ""
