"""`python -m engram.miner [--config FILE]`: runs one node from its launch file, or from its environment variables.

Of the settings that `run.py miner --config FILE` reads, only ENGRAM_ENV applies: mainnet requires signatures here too.
"""

import os
import sys
from pathlib import Path

from config.environment import PROFILE_VARIABLE
from config.model import MinerSettings
from engram import crash_reports
from engram.nodes import environment
from engram.roles.miner import main

if __name__ == "__main__":
    crash_reports.enable()
    strict = os.environ.get(PROFILE_VARIABLE) == "mainnet"
    match sys.argv[1:]:
        case ["--config", file]:
            sys.exit(main(Path(file), MinerSettings(require_signature=strict)))
        case [] if environment.is_given(os.environ):
            sys.exit(main(None, MinerSettings(require_signature=strict)))
        case _:
            sys.exit(f"usage: python -m engram.miner --config FILE, or variables {environment.PREFIX}… instead")
