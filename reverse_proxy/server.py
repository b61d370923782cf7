"""Starts the reverse proxy, as `engram run proxy` does: `reverse-proxy`, or `python -m reverse_proxy.server`."""

import sys

from engram import cli, crash_reports


def main() -> int:
    """Run the proxy until SIGTERM or Ctrl-C; return the exit status."""
    crash_reports.enable()
    return cli.main(["run", "proxy", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
