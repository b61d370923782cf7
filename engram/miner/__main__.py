"""`python -m engram.miner --config FILE`: runs one node from its launch file.

Of the settings that `run.py miner --config FILE` reads, only ENGRAM_ENV applies: mainnet requires signatures here too.
"""

import os
import sys
from pathlib import Path

from config.environment import PROFILE_VARIABLE
from config.model import MinerSettings
from engram import crash_reports
from engram.roles.miner import main

if __name__ == "__main__":
    crash_reports.enable()
    if len(sys.argv) != 3 or sys.argv[1] != "--config":
        sys.exit("usage: python -m engram.miner --config FILE")
    strict = os.environ.get(PROFILE_VARIABLE) == "mainnet"
    sys.exit(main(Path(sys.argv[2]), MinerSettings(require_signature=strict)))
