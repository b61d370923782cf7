"""The document of the proxy's endpoints, read by schemathesis, which sends what it allows and forbids, signed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from engram.api import openapi
from engram.api import proxy as rows
from engram.http.asgi import JSON, Receive, Scope, Send, respond
from tests.http.servers import bare
from tests.proxy.harness import proxying, settings_for
from tests.sampling import NIGHTLY, SEED

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".schemathesis"
HOOKS = Path(__file__).parent / "data"


async def pleased(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    await respond(send, 200, b'{"ok":true}', [JSON])


@pytest.mark.heavy
@pytest.mark.external
@pytest.mark.skipif(not PROGRAM.is_dir(), reason="there is no .schemathesis here (scripts/setup-clients)")
async def test_requests_by_the_document_and_against_it_get_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "document.json").write_bytes(openapi.document(rows.ROUTES, {"title": "proxy", "version": "1"}))
    async with bare(pleased) as server, proxying(settings_for(server.port)) as proxied:
        command = [sys.executable, "-m", "schemathesis.cli", "run", "document.json", "--url", proxied.url, "-c", "all"]
        command += ["--max-examples", "500" if NIGHTLY else "20", "--seed", str(SEED), "--continue-on-failure"]
        found = await trio.run_process(
            command,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (PROGRAM, ROOT, HOOKS))),
                "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            },
            check=False,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
        )
        assert found.returncode == 0, found.stdout.decode()[-8_000:]
        codes = {ended.code for ended in proxied.ends}
        assert {"own", "done", "no_job", "wrong_method"} <= codes
        assert not {"internal", "bad_signature", "unsigned"} & codes
