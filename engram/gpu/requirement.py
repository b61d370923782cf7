"""What a job or a subnet wants of a machine's GPUs: `driver>=570,cuda>=12.8,name~H100`."""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from engram.gpu.model import GpuInfo

FORM: Final = "FIELD>=NUMBER or FIELD~TEXT, joined by commas, as driver>=570,cuda>=12.8,name~H100"
_PART: Final = re.compile(r"(?P<field>[a-z_]+)(?:>=(?P<least>[0-9]+(?:\.[0-9]+)*)|~(?P<text>.+))")
Order = Callable[[str], tuple[float, ...]]


def _version(text: str) -> tuple[float, ...]:
    """Order of versions; missing places are 0.

    >>> _version("570.172.08") >= _version("570.0"), _version("12.8") >= _version("12.10")
    (True, False)
    """
    places = [int(place) for place in re.findall(r"[0-9]+", text)]
    while places and places[-1] == 0:
        places.pop()
    return tuple(places)


def _decimal(text: str) -> tuple[float, ...]:
    return (float(text),)


_NUMBERS: Final[dict[str, tuple[Callable[[GpuInfo], str | None], Order]]] = {
    "count": (lambda info: str(info.gpu_count), _decimal),
    "driver": (lambda info: info.driver_version, _version),
    "cuda": (lambda info: info.cuda_version, _version),
    "vram_gb": (lambda info: None if info.vram_gb is None else f"{info.vram_gb:.3f}", _decimal),
}
"""How a field is read, and how two of its values are ordered."""
_TEXTS: Final[dict[str, Callable[[GpuInfo], str | None]]] = {"name": lambda info: info.gpu_name}


class Requirement(msgspec.Struct, frozen=True):
    """One condition: the field is at least a dotted number, or contains a text (upper and lower case are one)."""

    field: str
    least: str | None = None
    text: str | None = None

    def unmet(self, info: GpuInfo) -> str | None:
        """Return why these GPUs do not meet it; None when they do."""
        if self.least is not None:
            read, order = _NUMBERS[self.field]
            found = read(info)
            if found is not None and order(found) >= order(self.least):
                return None
            return f"{self.field} is {found or 'unknown'}, wanted {self.least} or more"
        found = _TEXTS[self.field](info)
        if found is not None and str(self.text).casefold() in found.casefold():
            return None
        return f"{self.field} is {found or 'unknown'}, wanted one that contains {self.text!r}"


def parse(text: str) -> tuple[Requirement, ...]:
    """Read the conditions.

    >>> parse("driver>=570,name~H100")[1]
    Requirement(field='name', least=None, text='H100')

    Raises:
        ValueError: a part that is no condition, or a field that does not exist or takes the other form.
    """
    return tuple(_parse_one(part.strip()) for part in text.split(","))


def _parse_one(part: str) -> Requirement:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not a requirement: write {FORM}")
    field, least, wanted = match["field"], match["least"], match["text"]
    if field not in (_NUMBERS if least is not None else _TEXTS):
        numbers, texts = ", ".join(_NUMBERS), ", ".join(_TEXTS)
        raise ValueError(f"{part!r}: fields that take >= are {numbers}; those that take ~ are {texts}")
    if least is not None and _NUMBERS[field][1] is _decimal and least.count(".") > 1:
        raise ValueError(f"{part!r}: {field} is compared with one number, such as {field}>=80")
    return Requirement(field, least, wanted)
