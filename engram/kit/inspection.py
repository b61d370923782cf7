"""A look at a running miner as a validator would have it: from a key of its own, over the address that is committed.

Nothing here writes to the chain, and every request has its deadline.
"""

import email.utils
import ssl
import time
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import urlsplit

import msgspec
import trio

from config.addresses import is_public_host
from engram.hotkeys import Keypair, PublicKey, ss58
from engram.http.client import HttpClient, Response
from engram.http.errors import HttpError, NotSent
from engram.kit.signing import signed

SKEW_S: Final = 3.0
"""Clocks further apart than this make signed requests fail sooner or later."""
EXPIRY_DAYS: Final = 14
DAY_S: Final = 86_400.0
_STARTING_S: Final = 6.0
_AGAIN_S: Final = 0.5
_SHOWN: Final = 300
_PROXY: Final = "reverse-proxy"
BACKEND_PORT: Final = 8091
_OUTSIDE_S: Final = 5.0


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    good: bool
    words: str
    """What was seen; where it is not good, what to do."""


class Inspected(msgspec.Struct, frozen=True):
    """What was found, by topic."""

    reach: list[Finding]
    """Whether it answers, its clock, its certificate."""
    signatures: list[Finding]
    """Whether strangers, replays and foreign requests are refused."""
    work: list[Finding]
    """Whether it does what it is paid for."""


class Question(msgspec.Struct, frozen=True):
    """The inference to try."""

    path: str = "/inference"
    body: bytes = b'{"query": "What do you offer?"}'


@final
class Inspection:
    """Looks at one miner."""

    def __init__(
        self, url: str, hotkey: PublicKey, validator: Keypair, http: HttpClient, tls: ssl.SSLContext | None = None
    ) -> None:
        """Take the miner's base URL and hotkey, and a key that it admits.

        `tls` trusts other authorities than this machine's, as that of `http` does.
        """
        self._url = url.rstrip("/")
        self._hotkey = hotkey
        self._validator = validator
        self._http = http
        self._tls = tls

    async def run(self, question: Question) -> Inspected:
        """Look at all of it. An error of the miner or the network is a finding."""
        try:
            health = await self._get("/health")
            front = await self._get("/") if health.status == 404 else None
        except HttpError as error:
            text = f"{self._url} does not answer: {error}. Is it running, and is the address right?"
            seen = [Finding("answers", False, text)]
            if urlsplit(self._url).scheme == "https":
                seen.append(await self._certificate())
            return Inspected(seen, [], [])
        proxied = front is not None and is_proxy(front)
        reach = [
            _answers(front if proxied and front is not None else health),
            _clock(health),
            await self._certificate(),
        ]
        work = await self._work(question)  # first: right after its start a miner refuses all requests for a moment
        if proxied:
            reach.append(await self._check())
            work.append(await self._capacity())
            reach.append(await self._past_the_proxy())
        return Inspected(reach, await self._signatures(question), work)

    async def own(self, question: Question) -> list[Finding]:
        """Look whether it is the miner of this hotkey: it takes requests for it, and refuses those for another one."""
        seen = [await self._certificate()]
        if not seen[0].good:
            return seen
        status, said = await self._admitted(question)
        if status == 0:
            return [*seen, Finding("answers", False, said)]
        for_another = signed(question.body, self._validator, Keypair.generate().public_key)
        other, _ = await self._ask(question, for_another)
        if status == 401 or other != 401:
            words = f"not as the miner of this hotkey: {status} to a request for it, {other} to one for another"
            return [*seen, Finding("answers", False, words)]
        if not (200 <= status < 300 or status == 403):  # 403: this validator is proven, and not admitted
            words = f"it answered a request for this hotkey with {status}: {said}"
            return [*seen, Finding("answers", False, words)]
        return [*seen, Finding("answers", True, f"it takes requests for this hotkey alone ({status})")]

    async def _get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        return await self._http.request("GET", self._url + path, headers=headers, total_s=10.0)

    async def _check(self) -> Finding:
        """Ask a proxy whether it stands for this hotkey, as validators do before they send work."""
        address = ss58.encode(self._hotkey)
        try:
            answer = await self._get(f"/check/{address}")
        except HttpError as error:
            return Finding("/check", False, str(error))
        if answer.status == 200:
            return Finding("/check", True, f"it stands for {address}")
        text = f"it does not stand for {address} ({answer.status}): set auth.miner_hotkey, or MINER_HOTKEY"
        return Finding("/check", False, text)

    async def _past_the_proxy(self) -> Finding:
        """Try the port where backends listen by default: none of them may answer strangers."""
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        if not is_public_host(host) or parts.port == BACKEND_PORT:
            return Finding("backends", True, f"not tried from here: {self._url}")
        try:
            shown = f"[{host}]" if ":" in host else host
            await self._http.request("GET", f"http://{shown}:{BACKEND_PORT}/", total_s=_OUTSIDE_S)
        except NotSent:
            return Finding("backends", True, f"none answers at {host}:{BACKEND_PORT}")
        except HttpError:
            pass  # something listens there, whatever it speaks
        text = f"{host}:{BACKEND_PORT} answers, past the proxy: bind backends to loopback or a private network"
        return Finding("backends", False, text)

    async def _capacity(self) -> Finding:
        """Ask a proxy what it offers, in the shape that its profile gives."""
        headers = signed(b"", self._validator, self._hotkey)
        try:
            answer = await self._get("/capacity", headers)
        except HttpError as error:
            return Finding("/capacity", False, str(error))
        shape = capacity_shape(answer) if answer.status == 200 else ""
        if shape:
            return Finding("/capacity", True, f"{shape}: {_said(answer)[:120]}")
        return Finding("/capacity", False, f"answered with {answer.status}: {_said(answer)}")

    async def _certificate(self) -> Finding:
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        if parts.scheme != "https":
            if is_public_host(host):
                words = "it speaks http, and validators demand https: `engram run proxy` speaks it"
                return Finding("https", False, words)
            return Finding("https", True, f"not judged at {host}: validators demand https of the public address")
        try:
            with trio.fail_after(10.0):
                certificate = await _certificate_of(host, parts.port or 443, self._tls or ssl.create_default_context())
        except ssl.SSLCertVerificationError as error:
            words = f"{error.verify_message}: take a certificate of a public authority, with its whole chain"
            return Finding("certificate", False, words)
        except (OSError, trio.TooSlowError) as error:
            return Finding("certificate", False, f"no TLS connection: {str(error) or 'no handshake within 10 s'}")
        days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / DAY_S
        if days < EXPIRY_DAYS:
            words = f"it is good for {days:.0f} more days: renew it {EXPIRY_DAYS} days before its end at the latest"
            return Finding("certificate", False, words)
        return Finding("certificate", True, f"it is good for {days:.0f} more days")

    async def _signatures(self, question: Question) -> list[Finding]:
        stranger = Keypair.generate()
        body = question.body
        for_another = signed(body, self._validator, stranger.public_key)
        return [
            await self._refused("a stranger's key", question, signed(body, stranger, self._hotkey), {403}),
            await self._refused("no signature", question, {}, {401}),
            await self._refused("a request for another miner", question, for_another, {401}),
            await self._refused("a changed body", question, signed(b"{}", self._validator, self._hotkey), {400, 401}),
            await self._replayed(question),
        ]

    async def _refused(self, what: str, question: Question, headers: Mapping[str, str], wanted: set[int]) -> Finding:
        status, said = await self._ask(question, headers)
        if status in wanted:
            return Finding(what, True, f"refused with {status}: {said}")
        return Finding(what, False, f"answered with {status or said}, and must be refused with {min(wanted)}")

    async def _replayed(self, question: Question) -> Finding:
        headers = signed(question.body, self._validator, self._hotkey)
        first, _ = await self._ask(question, headers)
        second, said = await self._ask(question, headers)
        if first in (401, 403):
            words = f"not seen: this validator is not admitted ({first}); name one by --validator-key"
            return Finding("the same request again", False, words)
        if second == 401:
            return Finding("the same request again", True, f"refused with 401: {said}")
        words = f"answered with {second or said}: remember the uuid of each request"
        return Finding("the same request again", False, words)

    async def _work(self, question: Question) -> list[Finding]:
        status, said = await self._admitted(question)
        good = 200 <= status < 300
        words = f"answered with {status}" if good else f"answered with {status or 'nothing'}: {said}"
        inference = Finding(f"a small inference at {question.path}", good, words)
        status, said = await self._admitted(Question("/cvm", b"{}"))
        if status == 404:
            return [inference, Finding("/cvm", True, "not served")]
        return [inference, Finding("/cvm", status == 200, said[:120])]

    async def _admitted(self, question: Question) -> tuple[int, str]:
        """Ask as a validator that is admitted, for a moment longer while the miner starts."""
        until = trio.current_time() + _STARTING_S
        while True:
            status, said = await self._ask(question, signed(question.body, self._validator, self._hotkey))
            if status != 401 or "before_start" not in said or trio.current_time() > until:
                return status, said
            await trio.sleep(_AGAIN_S)

    async def _ask(self, question: Question, headers: Mapping[str, str]) -> tuple[int, str]:
        lines = {"Content-Type": "application/json", **headers}
        try:
            answer = await self._http.request("POST", self._url + question.path, content=question.body, headers=lines)
        except HttpError as error:
            return 0, str(error)
        return answer.status, _said(answer)


async def _certificate_of(host: str, port: int, context: ssl.SSLContext) -> dict[str, object]:
    """Return the certificate of a server, verified. Raises SSLCertVerificationError, OSError."""
    tcp = await trio.open_tcp_stream(host, port)
    stream = trio.SSLStream(tcp, context, server_hostname=host)
    try:
        await stream.do_handshake()
        certificate: dict[str, object] = stream.getpeercert()
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, OSError) else OSError("the connection was closed") from None
    finally:
        await trio.aclose_forcefully(stream)
    return certificate


def _said(answer: Response) -> str:
    """Return the beginning of what was answered; of an error, its text and code."""
    text = answer.content[:_SHOWN].decode("utf-8", "replace")
    if answer.status < 400:
        return text
    try:
        document = answer.json()
    except HttpError:
        return text
    if not isinstance(document, dict):
        return text
    words = str(document.get("detail") or document.get("error") or text)
    code = document.get("code")
    return f"{words} ({code})" if code else words


def is_proxy(answer: Response) -> bool:
    """Return whether the answer to GET / is that of a reverse proxy of miners, ours or the original."""
    try:
        document = answer.json()
    except HttpError:
        return False
    return answer.status == 200 and isinstance(document, dict) and str(document.get("service")).endswith(_PROXY)


def capacity_shape(answer: Response) -> str:
    """Return in which of its two shapes a capacity is, "" for neither; newer orchestrators read booleans alone."""
    try:
        document = answer.json()
    except HttpError:
        return ""
    if not isinstance(document, dict):
        return ""
    if all(isinstance(value, bool) for value in document.values()):
        return "booleans"
    return "lists" if all(isinstance(value, list) for value in document.values()) else ""


def _answers(health: Response) -> Finding:
    if health.status == 200:
        return Finding("answers", True, "it answers 200 for its health")
    return Finding("answers", False, f"/health answers {health.status}, and should answer 200")


def _clock(health: Response) -> Finding:
    try:
        its_time_s = email.utils.parsedate_to_datetime(health.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return Finding("clock", True, "its answers have no Date, so its clock cannot be seen")
    ahead_s = its_time_s - time.time()
    if abs(ahead_s) <= SKEW_S:
        return Finding("clock", True, "its clock agrees with this machine's")
    return Finding("clock", False, f"its clock is {ahead_s:+.0f} s off: synchronize it (chrony, systemd-timesyncd)")
