"""Renewing certificates while the ledger takes no writes: no session holds up another, and the job goes on."""

from typing import Any, cast

import trio
from structlog.testing import capture_logs

from engram.ledger import LedgerUnavailable
from engram.provisioning import certifier
from engram.provisioning.certifier import CertifierPorts
from engram.sessions import RunningSession


class _FullLedger:
    """Reads, and takes no writes."""

    async def read(self, query: object) -> list[RunningSession]:
        fields = dict.fromkeys(RunningSession.__struct_fields__)
        return [
            RunningSession(**{**fields, "session_id": name, "endpoint": f"http://{name}", "token": name})  # type: ignore[arg-type]
            for name in ("s1", "s2")
        ]


class _Enrollment:
    """Cannot note a renewal of the first session."""

    def __init__(self) -> None:
        self.attended: list[str] = []

    async def attend(self, endpoint: str, token: str, *, launching: bool) -> bool:
        await trio.lowlevel.checkpoint()
        if token == "s1":
            raise LedgerUnavailable("the disk is full")
        await trio.sleep(1.0)
        self.attended.append(token)
        return True


class _Context:
    def ready(self) -> None:
        pass


async def test_a_session_whose_renewal_cannot_be_noted_holds_up_no_other_and_ends_no_job(autojump_clock: Any) -> None:
    enrollment = _Enrollment()
    parts: dict[str, Any] = {"ledger": _FullLedger(), "enrollment": enrollment, "instants": None, "hints": None}
    ports = CertifierPorts(**parts)
    with capture_logs() as logs, trio.move_on_after(certifier.SWEEP_S * 1.5):
        await certifier.certify_for_ever(ports, cast(Any, _Context()))
    assert enrollment.attended == ["s2", "s2"]
    assert [(line["event"], line["node"]) for line in logs] == [("certificates_not_renewed", "s1")] * 2
