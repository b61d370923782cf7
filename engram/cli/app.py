"""The tree of commands. What a command needs is imported when it runs, so that `engram --help` is quick."""

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
    ("status", "operate.status:status", "Show how the running process is.", "engram status --json"),
    ("version", "doctor.doctor:version", "Show versions.", "engram version"),
    ("doctor", "doctor.doctor:doctor", "Look for what could keep Engram from working here.", "engram doctor"),
)
"""Name, where the function is, what it does, an example."""
_MORE: Final = {
    "run": "--host and --port are those of the first role named. Ctrl-C or SIGTERM stops the process; a second one "
    "ends it at once.",
    "gateway": "It sells sessions, and runs and watches their nodes. Ctrl-C or SIGTERM stops it; a second one ends it "
    "at once.",
    "facilitator": "A process of its own, for the profile local alone.",
    "demo": "It needs no network and nothing that runs already.",
    "status": "Counts, ages, and the supervision tree, as the process itself tells them.",
    "version": "Those of Engram, Python, SQLite and the libraries that matter.",
    "doctor": "Settings, disk, data folder, ledger, ports, facilitator, chain, the libraries of nodes, and whether "
    "anything could be sold. Changes nothing. The exit status is 1 when something is bad.",
}
"""What the help of the command itself says too: its docstring is not read, for that would import it."""
_GROUPS: Final = (
    ("config", "settings", "Show and check settings."),
    ("sessions", "operate.sessions", "Sessions of the running gateway."),
    ("payments", "operate.payments", "Payments of the running gateway."),
    ("selling", "operate.selling", "Stop or go on selling; what was sold is served."),
    ("hotkeys", "wallet.hotkeys", "Make hotkeys, and manage the pool that nodes bear."),
    ("wallet", "wallet.command", "Bittensor wallets: a coldkey that pays, and hotkeys that sign."),
    ("ledger", "operate.ledger", "Back up, restore and check the ledger."),
    ("miner", "miner.command", "Start a memory miner; or use one, check it, back it up, take its memory along."),
    ("relay", "operate.relay", "What is relayed to another network."),
    ("registry", "chain.registry", "Where miners serve, as they have committed it on the chain."),
    ("subnet", "chain.subnet", "Register a hotkey on a subnet, see how it stands, announce a node, set weights."),
)
"""Name, module of the commands, what they are about."""

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
            # A terminal of another encoding shows escapes: what strangers have written is no reason to end.
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
        # Whoever read the output has gone; there is nobody to tell, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    return result if isinstance(result, int) else Exit.DONE
