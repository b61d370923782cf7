"""Pattern B of the document that the worker is made after, run as it is written there: python-socketio's own client.

`python -m tests.worker.sample_worker URL`, with the folder of a wallet as HOME. Its `run_inference` and `run_training`
are left to the reader: here they return the payload.
"""

import asyncio
import sys
import time
from types import SimpleNamespace
from typing import Any

from tests.kit.samples import bittensor, installed, run_sample, torch


class Config:
    """What the sample takes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def main(url: str) -> None:
    with installed(bittensor=bittensor(), torch=torch([])):
        found = run_sample("class ChutesStyleMiner", time=time, MinerConfig=Config)

        sample: Any = found["ChutesStyleMiner"]

        class Sample(sample):  # type: ignore[misc]  # of a text
            async def run_inference(self, payload: Any) -> Any:
                return {"inferred": payload}

            async def run_training(self, payload: Any) -> Any:
                return {"trained": payload}

        config = SimpleNamespace(
            netuid=64, network="finney", wallet_name="miner", hotkey_name="hotkey", orchestrator_url=url
        )
        asyncio.run(Sample(config).run())


if __name__ == "__main__":
    main(*sys.argv[1:])
