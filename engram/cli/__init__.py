"""The `engram` command: start roles, show settings, and operate the running process through its control socket.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage or settings; 3 no process is running; 4 sent, outcome unknown;
130 interrupted.
"""

from engram.cli.app import main

__all__ = ["main"]
