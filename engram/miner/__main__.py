"""`python -m engram.miner --config FILE`: one node by its launch file, as `run.py miner --config FILE`."""

import sys
from pathlib import Path

from config.model import MinerSettings
from engram.miner.node import main

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--config":
        sys.exit("usage: python -m engram.miner --config FILE")
    sys.exit(main(Path(sys.argv[2]), MinerSettings()))
