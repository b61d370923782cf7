"""What a provider asks for a group: the default price script, in USD for a month of 429,909 blocks."""

from typing import Final

from tests.doubles.akash.deployment import number
from tests.doubles.akash.messages import GroupSpec
from tests.doubles.akash.store import ONE

_BLOCKS_A_MONTH: Final = 429_909
_CPU, _MEMORY_GB, _ENDPOINT, _IP = 1.60, 0.80, 0.05, 5.0
_STORAGE_GB: Final = {"": 0.02, "beta1": 0.01, "beta2": 0.03, "beta3": 0.04}


def price(spec: GroupSpec, factor: float = 1.0) -> int:
    """Return the price of a block, in uact (dec, 6 places)."""
    usd = 0.0
    for unit in spec.resources:
        found = unit.resource
        if found is None or found.cpu is None or found.memory is None:
            continue
        usd += unit.count * (number(found.cpu.units) / 1_000 * _CPU)
        usd += unit.count * (number(found.memory.quantity) / 1024**3 * _MEMORY_GB)
        for each in found.storage:
            kind = next((attribute.value for attribute in each.attributes if attribute.key == "class"), "")
            usd += unit.count * (number(each.quantity) / 1024**3 * _STORAGE_GB.get(kind, _STORAGE_GB["beta3"]))
        usd += sum(_IP if each.kind == 2 else _ENDPOINT for each in found.endpoints)
    micros = round(usd * factor * 10**6 * 10**6 / _BLOCKS_A_MONTH)
    return micros * ONE // 10**6
