"""The sample miners of the document that the kit is made after (../shared/seeds/002…), run as they are written there.

What they import and this machine does not have, Bittensor's SDK and torch, is stood in for by a few lines; what they
leave to the reader is handed in as names. Nothing in them is changed.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.shared import SHARED

CHECKLIST = re.compile(r"^- \[ \] (.+)$", re.MULTILINE)


def document() -> str:
    """The whole text."""
    (path,) = (SHARED / "seeds").glob("002_*.txt")
    return path.read_text("utf-8")


def sample(about: str) -> str:
    """The Python block that has this text."""
    blocks = re.findall(r"^```python\n(.*?)^```$", document(), re.MULTILINE | re.DOTALL)
    (found,) = [each for each in blocks if about in each]
    return str(found)


def run_sample(about: str, **names: Any) -> dict[str, Any]:
    """Run a block; return its names."""
    namespace = {"__name__": "sample", **names}
    exec(compile(sample(about), f"sample with {about!r}", "exec"), namespace)
    return namespace


def module(name: str, **values: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(values)
    return made


@contextmanager
def installed(**modules: ModuleType) -> Iterator[None]:
    """Let these modules be imported, in place of those that are not there."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, was in before.items():
            if was is None:
                del sys.modules[name]
            else:
                sys.modules[name] = was


class Metagraph:
    """What the samples ask of Bittensor's: hotkeys, permits and stakes by uid."""

    def __init__(self, callers: Mapping[str, tuple[bool, float]]) -> None:
        self.hotkeys = list(callers)
        self.validator_permit = [permit for permit, _ in callers.values()]
        self.S = [stake for _, stake in callers.values()]

    def sync(self, *, lite: bool = False) -> None:
        """Do nothing: it is up to date."""


def bittensor(metagraph: Metagraph | None = None) -> ModuleType:
    """The SDK, as far as the samples use it."""
    subtensor = SimpleNamespace(is_hotkey_registered=lambda *_: True)
    return module("bittensor", Subtensor=lambda network: subtensor, Metagraph=lambda netuid, network: metagraph)


def torch(calls: list[str], *, available: bool = True) -> ModuleType:
    """torch with one H100, or none."""
    cuda = SimpleNamespace(
        is_available=lambda: available,
        is_initialized=lambda: available,
        device_count=lambda: 1,
        get_device_name=lambda index: "NVIDIA H100 PCIe",
        get_device_properties=lambda index: SimpleNamespace(total_memory=85_520_809_984),
        empty_cache=lambda: calls.append("empty_cache"),
        synchronize=lambda: calls.append("synchronize"),
        mem_get_info=lambda: (79_000_000_000, 85_520_809_984),
    )
    return module("torch", cuda=cuda)
