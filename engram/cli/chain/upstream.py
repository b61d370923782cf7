"""The registry's output in the exact lines of the scripts that it replaces."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from engram.cli.output import printable
from engram.hotkeys import PublicKey

if TYPE_CHECKING:
    from engram.chain.registry.probe import ProbeResult
    from engram.chain.registry.registrations import RegistryEntry

WIDE: Final = 100
LINE: Final = 80
SHORT: Final = 40
MARK: Final = 20


def summary(coldkey: str, hotkey: str, network: str, netuid: int, text: str) -> Iterator[str]:
    """Return the lines of `register` before it commits."""
    yield "=== Registration Summary ==="
    yield f"Coldkey: {coldkey}"
    yield f"Hotkey: {hotkey}"
    yield f"Network: {network}"
    yield f"Netuid: {netuid}"
    yield f"String to commit: {text}"
    yield "==========================="


def check(
    entries: "Sequence[RegistryEntry]",
    netuid: int,
    network: str,
    verbose: bool,
    probed: "Mapping[PublicKey, ProbeResult] | None",
) -> Iterator[str]:
    """Return the lines of `check`."""
    valid = [entry for entry in entries if entry.registration is not None]
    invalid = [entry for entry in entries if entry.registration is None]
    yield ""
    yield "=" * LINE
    yield f"ALL COMMITMENTS FOR NETUID: {netuid}"
    yield f"Network: {network}"
    yield f"Total commitments: {len(entries)}"
    yield "=" * LINE
    yield ""
    yield f"Summary: {len(valid)} valid, {len(invalid)} invalid"
    yield "-" * LINE
    yield ""
    yield f"{'=' * MARK} VALID COMMITMENTS {'=' * MARK}"
    for entry in valid:
        yield from _valid(entry, probed)
    if invalid:
        yield ""
        yield f"{'=' * MARK} INVALID COMMITMENTS {'=' * MARK}"
        for entry in invalid:
            yield from _invalid(entry, verbose)
        if not verbose:
            yield ""
            yield "Tip: Use --verbose to see detailed error information"
    yield "=" * LINE


def read(entries: "Sequence[RegistryEntry]", probed: "Mapping[PublicKey, ProbeResult] | None") -> Iterator[str]:
    """Return the lines of `read`: every entry that holds a text, in any format."""
    yield ""
    yield "=" * WIDE
    yield f"MINER REGISTRATIONS (Total: {len(entries)})"
    yield "=" * WIDE
    for entry in entries:
        yield ""
        yield f"Hotkey: {entry.address}"
        yield f"Block: {_block(entry)}"
        yield f"Raw Chain String: {printable(entry.raw)}"
        if entry.registration is not None:
            yield "Decoded Fields:"
            yield f"  - address: {entry.registration.address}"
            yield f"  - port: {entry.registration.port}"
        if probed is not None:
            yield f"Check Endpoint: {_status(entry, probed)}"
        if entry.error:
            yield f"Error: {printable(entry.error)}"
        yield "-" * LINE


def _valid(entry: "RegistryEntry", probed: "Mapping[PublicKey, ProbeResult] | None") -> Iterator[str]:
    if entry.registration is None:
        return
    yield ""
    yield f"Hotkey: {entry.address}"
    yield f"Block: {_block(entry)}"
    yield f"Address: {entry.registration.address}"
    yield f"Port: {entry.registration.port}"
    if probed is not None:
        yield f"Check Endpoint: {_status(entry, probed)}"
    yield f"String Length: {entry.length}"
    yield "-" * SHORT


def _invalid(entry: "RegistryEntry", verbose: bool) -> Iterator[str]:
    yield ""
    yield f"Hotkey: {entry.address}"
    if verbose:
        yield f"Block: {_block(entry)}"
    yield f"Raw String: {printable(entry.raw)}"
    yield f"String Length: {entry.length}"
    if verbose:
        yield f"Error Type: {entry.error_type}"
        yield f"Error: {printable(entry.error)}"
    yield "-" * SHORT


def _status(entry: "RegistryEntry", probed: "Mapping[PublicKey, ProbeResult]") -> str:
    answer = probed.get(entry.hotkey)
    return "valid" if answer is not None and answer.valid else "invalid"


def _block(entry: "RegistryEntry") -> int:
    return entry.block or 0
