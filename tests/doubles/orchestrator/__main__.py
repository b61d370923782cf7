"""The orchestrator as a program: `python -m tests.doubles.orchestrator [--port N] [--journal FILE]`.

Its first line is one JSON object with its port. POST /jobs takes a list of jobs, GET /state shows what became of them.
"""

import argparse
import json
from pathlib import Path

import trio

from engram.http.head import Bounds
from engram.http.server import Limits
from tests.doubles.orchestrator.app import Orchestrator
from tests.doubles.orchestrator.desk import Desk
from tests.http.servers import bare


async def main(port: int, journal: Path | None) -> None:
    """Serve until killed."""
    orchestrator = Orchestrator(Desk(journal), ping_s=2.0, patience_s=2.0)
    async with (
        bare(orchestrator, Limits(bounds=Bounds(websocket=True)), port=port) as server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(orchestrator.run)
        print(json.dumps({"port": server.port}), flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 takes a free one")
    parser.add_argument("--journal", type=Path, help="file of jobs and results, which survives kill -9")
    words = parser.parse_args()
    trio.run(main, words.port, words.journal)
