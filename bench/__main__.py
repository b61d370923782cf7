"""`python -m bench [NAME] [ARGS …]`: runs one benchmark, or all of them one after the other.

Each is a process of its own, so that none measures what another left behind. The exit status is 0 also when a wanted
figure is missed (it is named in `missed`), and 1 when a benchmark broke.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The benchmarks that are here."""
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py") if not path.stem.endswith("_peer"))


def main(argv: list[str]) -> int:
    chosen = [argv[0]] if argv and not argv[0].startswith("-") else names()
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        sys.stderr.write(f"there is no benchmark {unknown[0]!r}; there are {', '.join(names())}\n")
        return 2
    rest = [argument for argument in argv if argument not in chosen]
    broken = []
    for name in chosen:
        sys.stderr.write(f"bench {name}\n")
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *rest], cwd=FOLDER.parent, check=False).returncode:
            broken.append(name)
    if broken:
        sys.stderr.write(f"broke: {', '.join(broken)}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
