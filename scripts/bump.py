"""Sets the version everywhere and moves `changes/` into CHANGELOG.md: `scripts/bump.py VERSION DATE`."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
KINDS: Final = {"feature": "New", "change": "Changed", "fix": "Fixed", "removal": "Removed"}
"""Endings of fragments, in the order of the changelog, and the heading of each."""
_PLACES: Final = (
    ("pyproject.toml", re.compile(r'(?m)^version = "([^"]+)"$'), 'version = "{}"'),
    ("engram/__init__.py", re.compile(r'(?m)^__version__ = "([^"]+)"$'), '__version__ = "{}"'),
)
_UNRELEASED: Final = "## Not released\n"


def section(version: str, date: str, fragments: Mapping[str, Sequence[str]]) -> str:
    """Return a version's part of the changelog; `fragments` are the texts of each kind.

    >>> print(section("0.2.0", "2026-12-01", {"fix": ["B\\nb."], "feature": ["A."]}))
    ## 0.2.0 (2026-12-01)
    <BLANKLINE>
    ### New
    <BLANKLINE>
    - A.
    <BLANKLINE>
    ### Fixed
    <BLANKLINE>
    - B
      b.
    """
    parts = [f"## {version} ({date})"]
    for kind, title in KINDS.items():
        if texts := fragments.get(kind):
            lines = "\n".join("- " + text.strip().replace("\n", "\n  ") for text in texts)
            parts.append(f"### {title}\n\n{lines}")
    return "\n\n".join(parts)


def bump(root: Path, version: str, date: str) -> None:
    """Write the new version and the changelog. Raises SystemExit where something is not as it should be."""
    known = set()
    for name, pattern, _ in _PLACES:
        found = pattern.findall((root / name).read_text(encoding="utf-8"))
        if len(found) != 1:
            sys.exit(f"{name} names the version {len(found)} times, not once")
        known.add(found[0])
    if len(known) != 1:
        sys.exit(f"the version is not the same everywhere: {', '.join(sorted(known))}")
    if _number(version) <= _number(*known):
        sys.exit(f"{version} is not newer than {known.pop()}, which is there")
    fragments: dict[str, list[str]] = {}
    files = sorted((root / "changes").glob("*.md"))
    for file in files:
        kind = file.name.split(".")[-2]
        if kind not in KINDS:
            sys.exit(f"{file.name}: a fragment ends with .{', .'.join(KINDS)} and .md")
        fragments.setdefault(kind, []).append(file.read_text(encoding="utf-8"))
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    before, found_title, after = changelog.partition(_UNRELEASED)
    if not found_title:
        sys.exit(f"CHANGELOG.md has no line {_UNRELEASED.strip()!r}")
    text = f"{before}{_UNRELEASED}\n{section(version, date, fragments)}\n{after.rstrip()}\n"
    (root / "CHANGELOG.md").write_text(text, encoding="utf-8")
    for name, pattern, form in _PLACES:
        path = root / name
        path.write_text(pattern.sub(form.format(version), path.read_text(encoding="utf-8")), encoding="utf-8")
    for file in files:
        file.unlink()


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: scripts/bump.py VERSION DATE")
    bump(ROOT, sys.argv[1], sys.argv[2])
