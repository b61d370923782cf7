"""Passes a proven request on while its client is watched: one that leaves ends the backend's request at once, or lets
it finish within bounds, as the route says.
"""

from typing import final

import trio

from engram.proxy.exchange.admission import Admission
from engram.proxy.exchange.bodies import Body
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Gone
from engram.proxy.exchange.sinks import ClientSink
from engram.proxy.exchange.transfer import Transfer
from engram.proxy.exchange.watching import GONE_IN, Watches
from engram.proxy.plan import Plan
from engram.proxy.routing import Matched


@final
class Passing:
    """One request that is passed on to one group."""

    def __init__(
        self,
        request: Incoming,
        plan: Plan,
        matched: Matched,
        body: Body,
        admission: Admission,
        watches: Watches,
    ) -> None:
        self._request = request
        self._body = body
        self._admission = admission
        self._watches = watches
        first_byte_s = matched.route.first_byte_s or plan.settings.services.request_timeout_s
        group = plan.groups[matched.route.backend]
        self._transfer = Transfer(request, matched, body, group, first_byte_s=first_byte_s)
        self._sink = ClientSink(request)
        self._scope = trio.CancelScope()
        self._gone = False

    async def run(self) -> None:
        """Answer the request. Raises Refusal (nothing was sent), AnswerCut, Gone."""
        with self._scope:
            if self._body.live:
                await self._pass_on_live()
            else:
                watched = self._watches.begin(self._request, self._leave)
                try:
                    await self._pass_on()
                finally:
                    await self._watches.end(watched)
        if self._gone:
            raise Gone

    async def _pass_on(self) -> None:
        place = await self._admission.place(self._request)
        try:
            await self._transfer.run(self._sink)
        finally:
            place.release()

    async def _pass_on_live(self) -> None:
        """Pass on what still arrives; its client may leave while nothing of it is read, in the queue or where the
        backend takes no more."""
        raised: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_unread)
            nursery.start_soon(self._watch_after_upload)
            try:
                await self._pass_on()
            except Exception as error:  # noqa: BLE001 -- raised again outside the nursery, which would wrap it
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised

    async def _watch_unread(self) -> None:
        await self._request.hung_up()
        if not self._request.answered and not self._gone:
            self._leave()

    async def _watch_after_upload(self) -> None:
        await self._transfer.uploaded.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        if not self._request.answered and not self._gone:
            self._leave()

    def _leave(self) -> None:
        self._gone = True
        phase = self._request.phase
        if phase == "upload" and not self._request.read_to_end:
            phase = "body"
        self._request.code = GONE_IN.get(phase, "client_gone")
        self._transfer.leave(self._scope)
