"""Writes name after name and says so; killed where ENGRAM_KILL_AT names it."""

import sys
from pathlib import Path

import trio

from engram.durable import Writer
from tests.durable.stores import DATABASE, put


async def main(path: Path, most: int) -> None:
    writer = Writer(DATABASE, path)
    writer.start()
    for number in range(most):
        await writer.write(put(f"n{number}"))
        print(number, flush=True)
    await trio.to_thread.run_sync(writer.close)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
