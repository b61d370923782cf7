"""The peer: FastAPI behind the x402 package's own middleware, as its documentation shows it, served by uvicorn.

`python -m bench.support.fastapi_shop FACILITATOR_URL RECIPIENT READY_FD`. It sells the same thing for the same price on
the same chain, keeps what it sold in memory, and knows neither hotkeys nor a ledger nor refunds. GET /spent tells the
seconds it waited for the facilitator.
"""

import json
import os
import sys
import time
import uuid
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from x402 import x402ResourceServer
    from x402.http import FacilitatorConfig, HTTPFacilitatorClient
    from x402.http.middleware.fastapi import payment_middleware
    from x402.mechanisms.evm.exact import ExactEvmServerScheme

from bench.support.http_peers import listening
from engram.payments.networks import BASE_SEPOLIA


class TimedFacilitator(HTTPFacilitatorClient):
    """The package's client with a stop watch."""

    spent_s = 0.0

    async def verify(self, *args: Any) -> Any:
        return await self._timed(super().verify(*args))

    async def settle(self, *args: Any) -> Any:
        return await self._timed(super().settle(*args))

    async def _timed(self, asked: Any) -> Any:
        began = time.perf_counter()
        answer = await asked
        self.spent_s += time.perf_counter() - began
        return answer


def shop(facilitator_url: str, recipient: str) -> FastAPI:
    facilitator = TimedFacilitator(FacilitatorConfig(url=facilitator_url))
    server = x402ResourceServer(facilitator)
    scheme: Any = ExactEvmServerScheme
    server.register(BASE_SEPOLIA.caip2, scheme())
    offer = {"scheme": "exact", "payTo": recipient, "price": "$0.10", "network": BASE_SEPOLIA.caip2}
    routes: Any = {"POST /sessions": {"accepts": offer}}
    paid = payment_middleware(routes, server)
    app, sold = FastAPI(), {}

    @app.middleware("http")
    async def payments(request: Request, call_next: Any) -> Response:
        answer: Response = await paid(request, call_next)
        return answer

    @app.post("/sessions", status_code=202)
    async def create_session(order: dict[str, Any]) -> dict[str, Any]:
        session = {"session_id": str(uuid.uuid4()), "status": "provisioning", **order}
        sold[session["session_id"]] = session
        return session

    @app.get("/spent")
    async def show_spent() -> dict[str, float]:
        return {"facilitator_s": facilitator.spent_s}

    return app


def main(facilitator_url: str, recipient: str, ready_fd: int) -> None:
    listener = listening()
    app = shop(facilitator_url, recipient)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    os.write(ready_fd, json.dumps({"url": url}).encode() + b"\n")
    os.close(ready_fd)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
