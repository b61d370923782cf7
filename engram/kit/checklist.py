"""The checklist of a miner, line by line, each good or with what to do."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from engram.kit.inspection import Finding, Inspected

State = Literal["good", "later", "to do"]
"""`later`: good for a look on this machine; the words say what comes before the real subnet."""

REGISTER: Final = "Register hotkey on target subnet"
COMMODITY: Final = "Implement commodity provision logic"
SIGNATURES: Final = "Handle request validation and Epistula signature verification"
COMMIT: Final = "Commit endpoint info to chain (if needed)"
LOGGING: Final = "Add logging and monitoring"
LOCALLY: Final = "Test with validators locally"
OPEN_SOURCE: Final = "Open source your implementation for auditability"
INCENTIVE: Final = "Monitor incentive and emissions"
LINES: Final = (REGISTER, COMMODITY, SIGNATURES, COMMIT, LOGGING, LOCALLY, OPEN_SOURCE, INCENTIVE)

_URL: Final = re.compile(r"https://[^\s<>…)]+\.[^\s<>…)]+")


class Line(msgspec.Struct, frozen=True):
    """One line of the checklist."""

    line: str
    state: State
    words: str
    findings: list[Finding] = []


class OnChain(msgspec.Struct, frozen=True):
    """What the chain says of the hotkey."""

    registered: bool
    netuid: int
    uid: int | None = None
    committed: str | None = None
    """The text that is committed."""
    address: str | None = None
    """The same where it is an address: host:port or a base URL."""
    incentive: float | None = None
    emission_rao: int | None = None
    since_block: int | None = None
    """The earlier block that the changes are counted from."""
    incentive_change: float | None = None
    emission_change_rao: int | None = None
    change_unknown_because: str | None = None


def checklist(
    found: Inspected,
    *,
    chain: OnChain | None,
    seen_from: str,
    project: Path | None,
    public: str | None = None,
    committed: Sequence[Finding] = (),
) -> list[Line]:
    """Return the eight lines. `chain` None: a look on this machine alone, without a subnet.

    `seen_from` is the validator's address, `project` the folder of the miner's source, `public` the address that
    validators use where it is not the one of `url` (behind NAT or a tunnel); `committed` is what was found at the
    committed address.
    """
    return [
        _registered(chain),
        _of(COMMODITY, found.work, "it answers as its subnet wants", "it does not answer yet"),
        _of(SIGNATURES, found.signatures, "proven callers alone are served", "it was not reached"),
        _committed(chain, committed, public),
        _of(LOGGING, found.reach, "it answers for its health; watch it there", ""),
        _seen(found, seen_from),
        _open(project, local=chain is None),
        _incentive(chain),
    ]


def _seen(found: Inspected, seen_from: str) -> Line:
    if not found.work or not all(each.good for each in found.reach):
        return Line(LOCALLY, "to do", "engram miner-check --local")
    if not all(each.good for each in found.work):
        return Line(LOCALLY, "to do", f"the validator {seen_from} saw it fail: see the lines above")
    return Line(LOCALLY, "good", f"seen by the validator {seen_from}")


def _of(line: str, findings: list[Finding], good: str, nothing: str) -> Line:
    if not findings:
        return Line(line, "to do", nothing)
    wrong = [each for each in findings if not each.good]
    if not wrong:
        return Line(line, "good", good, findings)
    return Line(line, "to do", "; ".join(f"{each.what}: {each.words}" for each in wrong), findings)


def _registered(chain: OnChain | None) -> Line:
    if chain is None:
        return Line(REGISTER, "later", "engram subnet register --netuid … --wallet.name … --wallet.hotkey …")
    if chain.registered:
        return Line(REGISTER, "good", f"uid {chain.uid} on subnet {chain.netuid}")
    return Line(REGISTER, "to do", f"engram miner-check … --netuid {chain.netuid} --register --max-cost TAO")


def _committed(chain: OnChain | None, looked_at: Sequence[Finding], public: str | None) -> Line:
    """Return the line of the committed address, and what was found at that very address; nothing: it was not seen."""
    if chain is None:
        return Line(COMMIT, "later", "engram miner-check URL --commit-endpoint --netuid … --wallet.name …")
    text = chain.committed
    if text is None:
        return Line(COMMIT, "to do", "nothing is committed: engram miner-check URL --commit-endpoint")
    if public is not None and public != text:
        return Line(COMMIT, "to do", f"{text} is committed, and not {public}: commit it by --commit-endpoint")
    if not looked_at:
        return Line(COMMIT, "to do", f"{text} is committed, which is no address: commit one by --commit-endpoint")
    wrong = [each for each in looked_at if not each.good]
    if not wrong:
        return Line(COMMIT, "good", f"{text} is committed, and was looked at", list(looked_at))
    seen = "; ".join(f"{each.what}: {each.words}" for each in wrong)
    words = f"{text} is committed, and as seen from here is not this miner: {seen}"
    return Line(COMMIT, "to do", words, list(looked_at))


def _open(project: Path | None, *, local: bool) -> Line:
    if project is None:
        return Line(OPEN_SOURCE, "to do", "name the folder of the source: --project FOLDER")
    licenses = [path for path in project.glob("LICEN[CS]E*") if path.is_file()]
    readme = project / "README.md"
    text = readme.read_text("utf-8", "replace") if readme.is_file() else ""
    if not licenses:
        return Line(OPEN_SOURCE, "to do", f"{project} has no LICENSE file")
    repository = re.search(r"^Repository: *(\S+)", text, re.MULTILINE)
    if repository is None or _URL.fullmatch(repository[1].strip("<>")) is None:
        words = f"{licenses[0].name} is there; publish the source and write `Repository: https://…` into README.md"
        return Line(OPEN_SOURCE, "later" if local else "to do", words)
    return Line(OPEN_SOURCE, "good", f"{licenses[0].name}; {repository[1].strip('<>')}")


def _incentive(chain: OnChain | None) -> Line:
    if chain is None:
        return Line(INCENTIVE, "later", "engram subnet status --netuid … shows both, and their change")
    if not chain.registered or chain.incentive is None or chain.emission_rao is None:
        return Line(INCENTIVE, "to do", "nothing is earned before the hotkey is registered")
    earned = f"incentive {chain.incentive:.4f}, emission {chain.emission_rao / 1e9:.6f} alpha a tempo"
    if chain.incentive_change is None or chain.emission_change_rao is None:
        return Line(INCENTIVE, "good", f"{earned}; their change is not known: {chain.change_unknown_because}")
    change = f"{chain.incentive_change:+.4f} and {chain.emission_change_rao / 1e9:+.6f}"
    return Line(INCENTIVE, "good", f"{earned}; {change} since block {chain.since_block}")
