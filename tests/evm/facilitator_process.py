"""The official `x402` package's own facilitator, in a process of its own: `python -m tests.evm.facilitator_process`.

Takes the key that pays gas and the chain's URL from its environment; prints its port and serves until it is killed.
"""

import functools
import json
import os
import subprocess
import sys
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


class OfficialFacilitator:
    """Starts it, and starts it again where it was: a restart forgets what it had broadcast."""

    def __init__(self, rpc_url: str, secret: str, log: Path) -> None:
        self._environ = {"RPC_URL": rpc_url, "FACILITATOR_KEY": secret}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.evm.facilitator_process", str(self.port)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": os.environ["PATH"], **self._environ},
            )
        assert self._process.stdout is not None
        with self._process.stdout as output:
            line = output.readline()
        assert line, self._log.read_text()
        self.port = int(line)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _serve(port: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from x402 import x402FacilitatorSync
        from x402.mechanisms.evm.exact import register_exact_evm_facilitator
        from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
        from x402.schemas import PaymentPayload, PaymentRequirements

    from tests.evm.chain import NETWORK

    signer = FacilitatorWeb3Signer(os.environ["FACILITATOR_KEY"], os.environ["RPC_URL"])
    # anvil makes a block a moment after it took the transaction; web3 by itself looks again after 100 ms only.
    eth: Any = signer._w3.eth
    eth.wait_for_transaction_receipt = functools.partial(eth.wait_for_transaction_receipt, poll_latency=0.005)
    facilitator = x402FacilitatorSync()
    register_exact_evm_facilitator(facilitator, signer, networks=NETWORK.caip2)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(200, facilitator.get_supported().model_dump(by_alias=True, exclude_none=True))

        def do_POST(self) -> None:
            body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
            payload = PaymentPayload.model_validate(body["paymentPayload"])
            requirements = PaymentRequirements.model_validate(body["paymentRequirements"])
            call = facilitator.settle if self.path == "/settle" else facilitator.verify
            self._answer(200, call(payload, requirements).model_dump(by_alias=True, exclude_none=True))

        def _answer(self, status: int, document: object) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
