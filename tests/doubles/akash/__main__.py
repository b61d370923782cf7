"""Run the double as a process: `python -m tests.doubles.akash --port 1317 --fund akash1...`.

The first line on standard output is one JSON object: endpoints of the chain, the control endpoint, the providers.
"""

import argparse
import json
import signal
import sys

import trio

from tests.doubles.akash.double import NODE_COMMAND, Options, running
from tests.doubles.akash.store import Params


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.akash", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the first node of the chain (default: any)")
    parser.add_argument("--control-port", type=int, default=0, help="of the control endpoint (default: any)")
    parser.add_argument("--block-s", type=float, default=1.0, help="real seconds between blocks; 0: only by control")
    parser.add_argument("--step-s", type=float, default=0.0, help="virtual clock: seconds of chain time for a block")
    parser.add_argument("--index-lag", type=int, default=1, help="blocks until a transaction can be looked up")
    parser.add_argument("--nodes", type=int, default=2, help="nodes of the chain")
    parser.add_argument("--providers", type=int, default=3, help="providers, at most 8")
    parser.add_argument("--fund", action="append", default=[], metavar="ADDRESS", help="1,000 AKT and 1,000 ACT")
    parser.add_argument("--stub-nodes", action="store_true", help="answer /health in this process, start no nodes")
    parser.add_argument("--node-command", nargs="+", default=list(NODE_COMMAND), help="what starts a node")
    parser.add_argument("--chain-id", default=Params().chain_id)
    parser.add_argument("--pull-s", type=float, default=0.0, help="seconds that pulling the image takes")
    parser.add_argument("--unstable-after-s", type=float, default=450.0, help="chain seconds until it is given up")
    given = parser.parse_args()
    return Options(
        block_s=given.block_s,
        step_s=given.step_s,
        index_lag=given.index_lag,
        nodes=given.nodes,
        providers=given.providers,
        funded=tuple(given.fund),
        stub_nodes=given.stub_nodes,
        node_command=tuple(given.node_command),
        params=Params(chain_id=given.chain_id),
        pull_s=given.pull_s,
        unstable_after_s=given.unstable_after_s,
        port=given.port,
        control_port=given.control_port,
    )


async def _run(options: Options) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with running(options) as double:
            providers = {each.address: each.host_uri for each in double.providers.values()}
            ready = {"endpoints": double.endpoints, "control": double.control_url, "providers": providers}
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
            async for _ in signals:
                return


if __name__ == "__main__":
    trio.run(_run, _options())
