"""`engram validator`: what a validator of this data folder has found, read from its ledger, running or not."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import App, Parameter
from sqlalchemy import Connection

from config.model import Settings, ValidatorSettings
from engram.cli import output
from engram.cli.at_rest import read_if_there, read_in_use
from engram.cli.doctor.finding import Finding
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, moment
from engram.hotkeys.wallet import is_private
from engram.ledger import LEDGER_FILE
from engram.validator import reports
from engram.validator.due import Due
from engram.validator.model import Kind
from engram.validator.reports import ExplainedRound, Explanation, MinerScore

T = TypeVar("T")

app = App(
    name="validator",
    help="What a validator has found of its miners, and where setting weights stands.",
    help_epilogue="Example: `engram validator explain 17` shows every question behind a score",
)

_WORDS = {
    Due.CHAIN_STALE: "the chain could not be read lately: see the log, and `engram doctor`",
    Due.NOT_REGISTERED: "this hotkey is not registered on the subnet: `engram subnet register`",
    Due.NO_PERMIT: "this hotkey has no validator permit (yet): it comes a tempo after enough stake, and can be lost",
    Due.OUTDATED: "the subnet wants weights of a newer version: upgrade Engram",
    Due.NO_ROUND: "waiting for one whole round since the start",
    Due.NO_SCORES: "no miner has a score above 0: nothing is set",
    Due.TOO_FEW: "fewer miners have a score above 0 than the subnet's limits of weights ask for: nothing is set",
    Due.SET: "weights of this epoch are set",
    Due.UNSETTLED: "earlier weights may still be included: waiting for at most 64 blocks",
    Due.REFUSED: "the chain has refused these weights: the detail says why; tried again after 10 blocks",
    Due.RATE_LIMITED: "the chain takes weights again after weights_rate_limit blocks",
    Due.DUE: "weights are due",
}
_BAD = (Due.CHAIN_STALE, Due.NOT_REGISTERED, Due.NO_PERMIT, Due.OUTDATED, Due.NO_SCORES, Due.TOO_FEW, Due.REFUSED)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


_SCORES = (
    Column("uid", "uid"),
    Column("average", "ema", _percent),
    Column("last", "shared_score", _percent),
    Column("recall", "recall", _percent),
    Column("ms", "latency_ms", _milliseconds),
    Column("proofs", "proof_rate", _percent),
    Column("rounds", "rounds"),
    Column("slashed until", "slashed_until_block", lambda block: "" if block is None else str(block)),
    Column("shares with", "group_of", lambda uid: "" if uid is None else str(uid)),
    Column("not asked because", "reason", lambda reason: reason or ""),
    Column("hotkey", "hotkey"),
)
_ROUNDS = (
    Column("round", "id"),
    Column("block", "block"),
    Column("hash", "block_hash"),
    Column("state", "state"),
    Column("opened", "opened_at", moment),
    Column("closed", "closed_at", moment),
)
_QUESTIONS = (
    Column("kind", "kind"),
    Column("outcome", "outcome"),
    Column("recall", "recall", _percent),
    Column("proved", "proved", lambda proved: "" if proved is None else ("yes" if proved else "no")),
    Column("ms", "latency_ms", _milliseconds),
    Column("planted of right", "planted"),
    Column("right", "truth"),
    Column("own key", "own_key", lambda own: "yes" if own else "no"),
    Column("about", "about"),
    Column("detail", "detail"),
)
_PLANTS = (
    Column("state", "state"),
    Column("planted in round", "planted_round"),
    Column("deleted after round", "delete_round"),
    Column("sent", "sent_at", moment),
    Column("cid", "cid"),
    Column("reason", "reason"),
)
Uid = Annotated[int, Parameter(converter=whole, help="The miner's uid, as `engram validator scores` shows it.")]
Rounds = Annotated[int, Parameter(converter=whole, help="How many rounds, the newest first.")]


@app.command(help_epilogue="Example: `engram validator status --json`")
def status(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show where setting weights stands, and why."""
    settings = sources.load().settings
    found = _read(settings, lambda c: reports.last_status(c, settings.validator.netuid))
    if found is None:
        raise CommandFailed(_never_ran(settings))
    if show.json:
        output.document(found)
        return
    look, last, sent = found.look, found.last_round, found.weights
    lines: dict[str, object] = {
        "hotkey": found.hotkey,
        "subnet": found.netuid,
        "uid": "none" if look is None or look.uid is None else look.uid,
        "weights": "never looked" if look is None else _WORDS[Due(look.verdict)],
        "detail": "" if look is None else look.detail,
        "looked": "" if look is None else f"{moment(look.at)}, block {look.block}",
        "last round": "none yet" if last is None else f"{last.id} at block {last.block}, {moment(last.closed_at)}",
        "last weights": "none yet" if sent is None else f"{sent.state} in epoch {sent.epoch}, {len(sent.weights)} uids",
        "planted": ", ".join(f"{count} {state}" for state, count in found.planted.items() if count) or "nothing",
    }
    for number, warning in enumerate([] if look is None else look.warnings, start=1):
        lines[f"warning {number}"] = warning
    output.record({name: text for name, text in lines.items() if text != ""}, json=False)


@app.command(help_epilogue="Example: `engram validator scores`")
def scores(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List the miners of the last round, the best first."""
    settings = sources.load().settings
    found: list[MinerScore] = _read(settings, lambda c: reports.scores(c, settings.validator.netuid))
    output.rows(found, _SCORES, json=show.json)


@app.command(help_epilogue="Example: `engram validator rounds --last 5`")
def rounds(*, last: Rounds = 20, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List the newest rounds."""
    settings = sources.load().settings
    found = _read(settings, lambda c: reports.rounds(c, settings.validator.netuid, last))
    output.rows(found, _ROUNDS, json=show.json)


@app.command(help_epilogue="Example: `engram validator explain 17 --last 3`")
def explain(uid: Uid, *, last: Rounds = 1, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show why a miner has its score: each question and its outcome, each planted record's fate, slashes."""
    settings = sources.load().settings
    found: Explanation | None = _read(settings, lambda c: reports.explain(c, settings.validator.netuid, uid, last))
    if found is None:
        never = _read(settings, lambda c: reports.last_status(c, settings.validator.netuid)) is None
        raise CommandFailed(
            _never_ran(settings)
            if never
            else f"no round that is kept has uid {uid}; `engram validator scores` lists those that have a score"
        )
    if show.json:
        output.document(found)
        return
    held = found.standing
    output.record(
        {
            "uid": found.uid,
            "hotkey": found.hotkey,
            "average": f"{held.ema:.4f} over {held.rounds} rounds",
            "reliability": f"{held.reliability:.4f}",
            "proofs": f"{held.proved} of the latest {held.challenges}",
            "slashes": f"{held.slashes}"
            + ("" if held.slashed_until_block is None else f", the last until block {held.slashed_until_block}"),
            "planted": ", ".join(f"{count} {state}" for state, count in found.planted.items()) or "nothing",
            "admits": "registered keys only" if found.registered_only else "any key",
        },
        json=False,
    )
    for each in found.rounds:
        score = each.score
        shown = "not scored" if score.score is None else f"score {score.score:.4f}"
        output.say(
            f"\nround {each.id}, block {each.block}, {moment(each.opened_at)}: {shown}"
            + (
                f" (recall {_percent(score.recall)}, latency {_milliseconds(score.latency_ms) or '-'} ms, "
                f"proofs {_percent(score.proof_rate)})"
                if score.score is not None
                else ""
            )
            + (
                f", shared with uid {score.group_of}: {_percent(score.shared_score)}"
                if score.group_of is not None
                else ""
            )
            + (f"; not asked: {score.reason}" if score.reason else "")
            + _left_out(each, settings.validator.queries)
        )
        output.rows(each.questions, _QUESTIONS, json=False)
    output.say("\nplanted records, the newest first:")
    output.rows(found.plants, _PLANTS, json=False)


def _left_out(each: ExplainedRound, wanted: int) -> str:
    """Return how many searches were asked where some were left out; empty where none was."""
    searches = sum(question.kind == Kind.QUERY for question in each.questions)
    if each.score.reason or searches >= wanted:
        return ""
    return f"; {searches} of {wanted} searches asked: to others too few right answers would have been planted"


@app.command(help_epilogue="Example: `engram validator doctor`")
def doctor(*, sources: Sources = SOURCES, show: Show = SHOW) -> int:
    """Check what keeps this validator from scoring or setting weights. The exit status is 1 when something is bad."""
    settings = sources.load().settings
    findings = list(_findings(settings, settings.validator))
    output.rows(
        findings, (Column("what", "what"), Column("verdict", "verdict"), Column("text", "text")), json=show.json
    )
    return Exit.FAILED if any(each.verdict == "bad" for each in findings) else Exit.DONE


def _findings(settings: Settings, at: ValidatorSettings) -> list[Finding]:
    path = Path(at.hotkey_file).expanduser()
    if not at.hotkey_file:
        found = [
            Finding("hotkey", "bad", "validator.hotkey_file is not set: the wallet file of the validator's hotkey")
        ]
    elif not path.is_file():
        found = [Finding("hotkey", "bad", f"validator.hotkey_file: there is no {path}")]
    elif not is_private(path):
        found = [Finding("hotkey", "bad", f"{path} is open to other users: chmod 600 {path}")]
    else:
        found = [Finding("hotkey", "good", f"{path} is there, for its owner alone")]
    if settings.miner.embedder == "hash":
        found.append(
            Finding("embedder", "bad", "miner.embedder is hash: its vectors have no meaning; set it to minilm")
        )
    if at.dry_run:
        found.append(Finding("weights", "note", "a dry run: set validator.dry_run = false to set weights"))
    if not at.share_scores:
        found.append(Finding("scores", "note", "validator.share_scores is off: one store behind n uids earns n scores"))
    if not at.planted_words:
        found.append(
            Finding("words", "note", "records are made of published words: name your own in validator.planted_words")
        )
    state = read_if_there(settings, lambda c: reports.last_status(c, at.netuid))
    if state is None or state.look is None:
        return [*found, Finding("rounds", "note", _never_ran(settings))]
    verdict = Due(state.look.verdict)
    standing_still = verdict in _BAD
    found.append(Finding("weights", "bad" if standing_still else "good", _WORDS[verdict]))
    found += [Finding("chain", "bad", warning) for warning in state.look.warnings]
    if state.planted.get("held", 0) == 0:
        found.append(Finding("planted records", "note", "no miner holds one yet: the first round has nothing to ask"))
    return found


def _never_ran(settings: Settings) -> str:
    return (
        f"no validator of subnet {settings.validator.netuid} has run in the data folder {settings.data_dir} yet; "
        "`engram run validator` starts one (--data-dir names another folder)"
    )


def _read(settings: Settings, query: Callable[[Connection], T]) -> T:
    """Return what the ledger says. Raises CommandFailed where there is none."""
    if not settings.ledger.url and not (Path(settings.data_dir) / LEDGER_FILE).exists():
        raise CommandFailed(_never_ran(settings))
    return read_in_use(settings, query)
