"""A node that has a graph built for a hundred vectors, so that builders come and go within seconds. Else as any."""

import sys
from pathlib import Path

from config.model import MinerSettings
from engram.memory.index.edge_index import EdgeIndex
from engram.roles.miner import main

if __name__ == "__main__":
    EdgeIndex.__init__.__kwdefaults__ = {**(EdgeIndex.__init__.__kwdefaults__ or {}), "graph_from": 20}
    sys.exit(main(Path(sys.argv[2]), MinerSettings()))
