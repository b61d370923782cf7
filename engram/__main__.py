"""`python -m engram`: the command line, and in a packed folder the program itself and each of its children."""

import os
import sys

from engram import children, crash_reports

if __name__ == "__main__":
    crash_reports.enable()
    children.use_authorities(os.environ)
    children.become(sys.argv[1:])
    from engram import cli

    sys.exit(cli.main())
