"""What the miner advertises at /capacity: lists by kind, or booleans by name. Pure but for the value it holds."""

from collections.abc import Mapping
from typing import Final, final

import msgspec

from engram import wire
from engram.proxy.settings.model import CapacitySettings

MOST_NAMES: Final = 256
_NAME_LENGTH: Final = 128


class BadCapacity(ValueError):
    """The document is not one that GET /capacity could answer."""


@final
class Capacity:
    """The answer of GET /capacity: as configured, until POST /capacity replaces it for the life of the process."""

    def __init__(self, settings: CapacitySettings) -> None:
        self._settings = settings
        self._updated: dict[str, object] | None = None

    def change(self, settings: CapacitySettings) -> None:
        """Apply other settings; what POST /capacity set stays."""
        self._settings = settings

    def document(self) -> Mapping[str, object]:
        """Return what is answered."""
        if self._updated is not None:
            return self._updated
        inference, training = self._settings.inference, self._settings.training
        if self._settings.profile == "booleans":
            return dict.fromkeys((*inference, *training), True) if training else dict.fromkeys(inference, True)
        return {"inference": list(inference), "training": list(training)}

    def update(self, raw: bytes) -> Mapping[str, object]:
        """Replace it by a JSON document of either form, or one that has it under `capacity`. Raises BadCapacity."""
        try:
            content = wire.decode(raw, dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadCapacity(f"the body is not a JSON object: {error}") from None
        inner = content.get("capacity")
        if len(content) == 1 and isinstance(inner, dict):
            content = {str(name): value for name, value in inner.items()}
        if len(content) > MOST_NAMES:
            raise BadCapacity(f"{len(content)} names; at most {MOST_NAMES} are taken")
        for name, value in content.items():
            if len(name) > _NAME_LENGTH:
                raise BadCapacity(f"a name has {len(name)} characters; at most {_NAME_LENGTH} are taken")
            if not isinstance(value, bool) and not _is_names(value):
                raise BadCapacity(f"{name[:40]!r} is neither true, false nor a list of names")
        self._updated = content
        return content


def _is_names(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MOST_NAMES
        and all(isinstance(each, str) and len(each) <= _NAME_LENGTH for each in value)
    )
