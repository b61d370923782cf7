"""The tree of commands. A command's modules are imported when it runs, so that `engram --help` is fast."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, Parameter

from config import ConfigError
from engram import __version__, crash_reports
from engram.cli.failures import CommandFailed, Exit
from engram.cli.output import complain
from engram.cli.usage import in_words, shown_default

app: Final = App(
    name="engram",
    help="Sells memory-mining nodes to phones, runs and watches them, and serves the memory they hold.",
    help_epilogue="Example: `engram gateway --profile local` starts a gateway with play money on http://127.0.0.1:9000",
    version=__version__,
    default_parameter=Parameter(show_default=shown_default),
)
_COMMANDS: Final = (
    ("run", "roles:run", "Start roles in one process.", "engram run gateway --config engram.toml"),
    ("gateway", "roles:gateway", "Start the gateway.", "engram gateway --profile local --port 9100"),
    ("facilitator", "roles:facilitator", "Start the play-money facilitator.", "engram facilitator --port 4021"),
    ("demo", "roles:demo", "Buy a node with play money, use it, stop it.", "engram demo"),
    ("status", "operate.status:status", "Show the status of the running process.", "engram status --json"),
    ("health", "doctor.health:health", "Tell by the exit status whether the process works.", "engram health"),
    (
        "receipt",
        "operate.receipt:receipt",
        "Check a receipt that the app saved.",
        "engram receipt engram-receipt-3f0e0f0a.json",
    ),
    ("gpu", "miner.gpu:gpu", "Show this machine's GPUs.", "engram gpu --require 'driver>=570,cuda>=12.8,name~H100'"),
    (
        "miner-check",
        "miner.check:miner_check",
        "Look at a miner as a validator would.",
        "engram miner-check --local",
    ),
    (
        "upgrade",
        "operate.upgrade:upgrade",
        "Check a newer program, and put it in place of this one.",
        "engram upgrade --check ./engram-new",
    ),
    ("completion", "manual:completion", "Print the completion script of a shell.", "engram completion bash"),
    ("manual", "manual:manual", "Print the manual of all commands.", "engram manual > engram.1"),
    ("version", "doctor.doctor:version", "Show versions.", "engram version"),
    ("doctor", "doctor.doctor:doctor", "Check for problems that keep Engram from working here.", "engram doctor"),
)
"""Name, module and function, help, example."""
_MORE: Final = {
    "run": "--host and --port are those of the first role named. Ctrl-C or SIGTERM stops the process; a second one "
    "ends it at once. A worker's hotkey is registered by --register --max-cost TAO, and never without them.",
    "gateway": "It sells sessions, and runs and watches their nodes. Ctrl-C or SIGTERM stops it; a second one ends it "
    "at once.",
    "facilitator": "It runs as its own process, for the local profile only.",
    "demo": "It needs no network and no running process.",
    "status": "Counts, ages, and the supervision tree, as the running process reports them.",
    "health": "Asks the ops listener of the process on this machine for /ready. For containers, timers and scripts: it "
    "needs no curl, and answers within 4 s. The exit status is 0 or 1.",
    "receipt": "By the gateway's signatures of its answers, and the buyer's of each payment; nobody is asked. The exit "
    "status is 1 when something in it does not hold.",
    "gpu": "Read through NVIDIA's management library, without a CUDA context. With --require the exit status is 1 when "
    "a condition is not met.",
    "miner-check": "Goes through the checklist of a miner: each line is good, or says what to do. Nothing is "
    "registered or committed unless it is asked for. The exit status is 1 while a line is to be done.",
    "upgrade": "The newer program checks itself, these settings, and a copy of the ledger, which it migrates. With "
    "--link it is put beside the one in use and the link names it; with --restart the service is restarted, and goes "
    "back when it does not get ready. Nodes go on meanwhile and are found again.",
    "completion": "Bash: `engram completion bash > ~/.local/share/bash-completion/completions/engram`. Zsh: a file "
    "`_engram` in a folder of $fpath. Fish: `~/.config/fish/completions/engram.fish`.",
    "manual": "For man(1), or as one page of Markdown by `--format markdown`.",
    "version": "Versions of Engram, Python, SQLite and the main libraries.",
    "doctor": "Checks settings, disk, data folder, ledger, ports, facilitator, chain, the app, the libraries of nodes, "
    "and whether anything can be sold. Changes nothing. The exit status is 1 when something is bad.",
}
"""More help of each command: reading its docstring would import its module."""
_GROUPS: Final = (
    ("config", "settings", "Show and check settings."),
    ("sessions", "operate.sessions", "Sessions of the running gateway."),
    ("payments", "operate.payments", "Payments of the running gateway."),
    ("selling", "operate.selling", "Stop or resume selling; sold sessions keep being served."),
    ("hotkeys", "wallet.hotkeys", "Create hotkeys, and manage the pool of hotkeys for nodes."),
    ("wallet", "wallet.command", "Bittensor wallets: a coldkey that pays, and hotkeys that sign."),
    (
        "akash",
        "akash.command",
        "Nodes on Akash: the account that pays, what is deployed, what it costs.",
    ),
    ("ledger", "operate.ledger", "Back up, restore and check the ledger."),
    ("miner", "miner.command", "Start a memory miner; use, check, back up or export one."),
    ("archive", "archive.command", "Keep a memory beyond its node: sealed archives, and restoring them anywhere."),
    ("mcp", "mcp.command", "Reach an MCP server with a hotkey; tokens for clients that cannot sign."),
    ("new", "miner.new", "Projects to start from."),
    ("proxy", "proxy.command", "Check the reverse proxy's settings; explain how a request ended."),
    ("gateways", "operate.gateways", "Gateways that share a ledger on PostgreSQL."),
    ("relay", "operate.relay", "What is relayed to another network."),
    ("registry", "chain.registry", "Endpoints of miners, as committed on the chain."),
    ("validator", "operate.validator", "What a validator has found of its miners; where its weights stand."),
    ("worker", "worker.command", "What a worker is doing, and the jobs that it keeps."),
    ("subnet", "chain.subnet", "Register a hotkey on a subnet, show its status, announce a node, set weights."),
)
"""Name of the group, its module, its help."""

for _name, _where, _help, _example in _COMMANDS:
    _text = f"{_help}\n\n{_MORE[_name]}"
    app.command(f"engram.cli.{_where}", name=_name, help=_text, help_epilogue=f"Example: `{_example}`")
for _name, _where, _help in _GROUPS:
    app.command(f"engram.cli.{_where}:app", name=_name, help=_help)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (the process's own when None) and return its exit code."""
    if argv is None:
        crash_reports.enable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal with another encoding shows escapes: text from strangers must not end the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        result = app(
            list(sys.argv[1:] if argv is None else argv),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        complain(in_words(error))
        return Exit.USAGE
    except ConfigError as error:
        complain(str(error))
        return Exit.USAGE
    except CommandFailed as failure:
        complain(str(failure))
        return failure.exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; nothing can be reported, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    return result if isinstance(result, int) else Exit.DONE
