"""Whether a node is the one that was launched, and the certificate of its session key (docs/node-keys.md).

A node shows by which key it signs. One that has its hotkey has shown enough. A session key is committed to the ledger,
then certified: the certificate is sent to the node, which shows it to its clients.
"""

import base64
import secrets
from collections import OrderedDict
from typing import Final, final

import msgspec
import structlog

from engram import kill_points
from engram.api import node as api
from engram.api.node_model import Certified, Introduced
from engram.hotkeys import certificates, node_identity, sealed, ss58
from engram.hotkeys.certificates import CertificateRefused
from engram.hotkeys.errors import MalformedHotkey
from engram.hotkeys.node_identity import Introduction
from engram.http.client import HttpClient, Response
from engram.http.errors import BadAnswer, HttpError, TooLarge
from engram.ledger import Ledger
from engram.nodes.agreement import DRIVEN, INTRODUCED_SINCE, NodeSecrets
from engram.provisioning import enrollment_rules as rules
from engram.provisioning import session_keys
from engram.provisioning.enrollment_rules import Expected, Verdict
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.health import CONNECT_S, MOST_BYTES, TOTAL_S, health_of, is_ready
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.provisioning.session_keys import Launch
from engram.sessions import Instants
from engram.telemetry.metrics import Metrics

_REMEMBERED: Final = 4_096

_log = structlog.get_logger("engram.provisioning")


class EnrollmentPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What enrolling nodes needs."""

    http: HttpClient
    ledger: Ledger
    instants: Instants
    ring: HotkeyRing
    metrics: Metrics
    launch_timeout_s: float
    secrets: NodeSecrets = NodeSecrets()
    """What is sent to nodes on machines of others, whose providers can read it there."""
    given: frozenset[str] = session_keys.GIVEN
    """The backends whose nodes have their hotkeys."""


@final
class _Recent:
    """A set of the texts that were added last, at most 4,096."""

    def __init__(self) -> None:
        self._held: dict[str, None] = {}

    def add(self, text: str) -> None:
        self._held[text] = None
        if len(self._held) > _REMEMBERED:
            del self._held[next(iter(self._held))]

    def discard(self, text: str) -> None:
        self._held.pop(text, None)

    def __contains__(self, text: object) -> bool:
        return text in self._held


@final
class Enrollment:
    """Asks nodes who they are, and certifies those that may be who they say."""

    def __init__(self, ports: EnrollmentPorts) -> None:
        self._p = ports
        self._suspects = _Recent()
        self._starting = _Recent()
        """Tokens of nodes that are not ready yet and need not be asked again until they are."""
        self._missed: OrderedDict[str, int] = OrderedDict()
        """By token: how often in a row what serves there has not said who it is."""

    async def is_healthy(self, endpoint: str, token: str) -> bool:
        """Return whether the node of that launch answers there, is ready, and has shown a key that it may have.

        A session key is certified on the way. Raises nothing for a node that is not there.
        """
        try:
            health = await health_of(self._p.http, endpoint)
        except HttpError:
            return False
        if health is None or health.launch_token != token:
            return False
        if health.protocol not in DRIVEN:
            _log.error("node_speaks_otherwise", node=token, speaks=health.protocol, driven=sorted(DRIVEN))
            return False
        ready = is_ready(health)
        if not ready and token in self._starting:
            return False
        if not await self.attend(endpoint, token, launching=True, introduced=health.protocol >= INTRODUCED_SINCE):
            return False
        if not ready:
            self._starting.add(token)
            return False
        self._starting.discard(token)
        self._suspects.discard(endpoint)
        return True

    async def attend(self, endpoint: str, token: str, *, launching: bool, introduced: bool = True) -> bool:
        """Return whether the node there shows a key that the launch may have; certify it when that is due.

        True as well when it does not answer while it serves, `MOST_MISSED - 1` times in a row: polls notice silence,
        but not a silence about this question alone. Raises nothing.
        """
        now = self._p.instants.now()
        start_s, given = self._p.launch_timeout_s, self._p.given
        found = await self._p.ledger.read(lambda c: session_keys.launch(c, token, now, start_s, given))
        if found is None:
            return False
        if not introduced:
            return found.expected.has_hotkey
        try:
            shown, certificate = await self._introduced(endpoint, found.expected)
            self._missed.pop(token, None)
            verdict = Verdict.WRONG_KEY
            if shown is not None:
                verdict = rules.judge(shown, found.expected, launching=launching)
            self._note(endpoint, token, verdict)
            if shown is None or verdict not in rules.TRUSTED:
                return False
            if verdict in rules.CERTIFIED and (certificate is None or self._is_due(found, verdict)):
                return await self._certify(endpoint, shown, found, verdict, certificate)
            return True
        except HttpError as error:
            _log.debug("node_not_attended", node=token, reason=str(error))
            return not launching and not self._is_missing(endpoint, token)
        except NodeKeyError as error:
            _log.error("node_key_not_opened", node=token, reason=str(error))
            return False

    def is_suspect(self, endpoint: str) -> bool:
        """Return whether something there showed a key that the node may not have, and was not healthy since."""
        return endpoint in self._suspects

    def _is_missing(self, endpoint: str, token: str) -> bool:
        """Count one more look without an answer; return whether they are too many."""
        missed = self._missed[token] = self._missed.pop(token, 0) + 1
        if len(self._missed) > _REMEMBERED:
            self._missed.popitem(last=False)
        if missed < rules.MOST_MISSED:
            return False
        self._suspects.add(endpoint)
        _log.error("node_does_not_introduce_itself", node=token, endpoint=endpoint, looks=missed)
        return True

    def _note(self, endpoint: str, token: str, verdict: Verdict) -> None:
        if verdict not in rules.TRUSTED:
            self._suspects.add(endpoint)
            _log.error("node_impostor", node=token, endpoint=endpoint, reason=str(verdict))
        elif verdict is Verdict.REPLACED:
            _log.warning("node_started_again", node=token, endpoint=endpoint)
        self._p.metrics.introductions.labels(str(verdict)).inc()

    def _is_due(self, found: Launch, verdict: Verdict) -> bool:
        until = found.certified_until if verdict is Verdict.SAME else None
        return rules.is_due(until, found.expected.serves_until, self._p.instants.now().wall)

    async def _certify(
        self, endpoint: str, shown: Introduction, found: Launch, verdict: Verdict, held: str | None
    ) -> bool:
        """Commit, sign and deliver; `held` is the certificate that the node shows. Raises HttpError, NodeKeyError."""
        at = self._p.instants.now().wall
        hotkey = await self._p.ring.keypair(found.key)
        content = b""
        if self._p.secrets != NodeSecrets():
            content = sealed.seal(shown.box_key, msgspec.json.encode(self._p.secrets))
        certificate = rules.certificate(shown, found.expected, at, sealed.digest(content))
        number = len(found.expected.keys) - (verdict is Verdict.SAME)
        noted = await self._p.ledger.write(
            lambda c: session_keys.note(c, shown, number, float(certificate.not_after), at)
        )
        if not noted:
            _log.error("node_impostor", node=found.expected.token, endpoint=endpoint, reason="key_of_another_launch")
            return False
        kill_points.point("certify:noted")
        answer = await self._deliver(endpoint, certificates.issue(hotkey, certificate), content)
        kill_points.point("certify:delivered")
        if answer.status == 409 and held is not None and self._is_ahead(held, shown, found, at):
            _log.warning("clock_set_back", node=found.expected.token, endpoint=endpoint)
            return True
        return answer.status == 200 and answer.decode(Certified).accepted

    def _is_ahead(self, held: str, shown: Introduction, found: Launch, now: float) -> bool:
        try:
            return rules.is_ahead(certificates.verified(held, found.expected.hotkey), shown, now)
        except CertificateRefused:
            return False

    async def _introduced(self, endpoint: str, expected: Expected) -> tuple[Introduction | None, str | None]:
        """Return what the node shows of itself and its certificate, when the shown key signed our nonce and it is of
        this launch. Raises HttpError."""
        nonce = secrets.token_bytes(node_identity.NONCE_BYTES)
        try:
            answer = await self._get(f"{endpoint}{api.IDENTITY.path}?nonce_hex={nonce.hex()}")
            if answer.status != 200:
                return None, None
            answered = answer.decode(Introduced)
            shown = Introduction(
                hotkey=ss58.decode(answered.hotkey),
                key=ss58.decode(answered.key),
                box_key=bytes.fromhex(answered.box_key),
                session_id=answered.session_id,
                launch_token=answered.launch_token,
            )
            signature = bytes.fromhex(answered.signature)
        except (BadAnswer, TooLarge, MalformedHotkey, ValueError):  # it answers, and not as a node does
            return None, None
        holds = rules.names(shown, expected) and node_identity.holds(shown, nonce, signature)
        return (shown, answered.certificate) if holds else (None, None)

    async def _get(self, url: str) -> Response:
        return await self._p.http.request(
            "GET", url, connect_s=CONNECT_S, read_s=TOTAL_S, total_s=TOTAL_S, max_bytes=MOST_BYTES, fresh=True
        )

    async def _deliver(self, endpoint: str, certificate: str, content: bytes) -> Response:
        return await self._p.http.request(
            "POST",
            endpoint + api.CERTIFY.path,
            json={"certificate": certificate, "sealed": base64.b64encode(content).decode()},
            connect_s=CONNECT_S,
            read_s=TOTAL_S,
            total_s=TOTAL_S,
            max_bytes=MOST_BYTES,
            fresh=True,
        )
