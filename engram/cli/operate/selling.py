"""`engram selling on|off`."""

from cyclopts import App

from engram.cli.operate.running import ask, done
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.control.commands import SetSelling

app = App(
    name="selling",
    help="Stop or resume selling; sold sessions keep being served.",
    help_epilogue="Example: `engram selling off`",
)


@app.command(name="on", help_epilogue="Example: `engram selling on`")
def on(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Sell sessions and extensions; remembered over restarts."""
    done(ask(sources, SetSelling(on=True)), "selling is on", json=show.json)


@app.command(name="off", help_epilogue="Example: `engram selling off`")
def off(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Sell nothing new and keep serving sold sessions; remembered over restarts."""
    done(ask(sources, SetSelling(on=False)), "selling is off", json=show.json)
